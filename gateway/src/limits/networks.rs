//! Sets of networks, in which an address is looked up in a few steps.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// Length of the prefix of IPv6 under which IPv4 addresses are embedded (RFC 4291, section 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// Some networks of either family. A look-up takes one step for each length of prefix in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Networks {
    v4: Vec<(u8, HashSet<u128>)>,
    v6: Vec<(u8, HashSet<u128>)>,
}

impl Networks {
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        let family = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        family.iter().any(|(prefix, networks)| networks.contains(&network_bits(address, *prefix)))
    }

    fn add(&mut self, network: &IpNet) {
        let prefix = network.prefix_len();
        let family = if network.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        let bits = network_bits(network.addr(), prefix);
        match family.iter_mut().find(|(other, _)| *other == prefix) {
            Some((_, networks)) => {
                networks.insert(bits);
            }
            None => family.push((prefix, HashSet::from([bits]))),
        }
    }
}

impl<'a> FromIterator<&'a IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = &'a IpNet>>(all: I) -> Self {
        let mut networks = Self::default();
        all.into_iter().for_each(|network| networks.add(network));
        networks
    }
}

/// The network as addresses are looked up in it: without bits beyond its prefix, and as IPv4 where
/// IPv6 has it embedded (`::ffff:10.0.0.0/104`), which is how a socket for both tells IPv4 peers.
pub(crate) fn canonical(network: IpNet) -> IpNet {
    let mapped = match network.addr().to_canonical() {
        IpAddr::V4(v4) if network.addr().is_ipv6() => Some(v4),
        _ => None,
    };
    let prefix = network.prefix_len().checked_sub(MAPPED_PREFIX);
    mapped
        .zip(prefix)
        .and_then(|(v4, prefix)| IpNet::new(v4.into(), prefix).ok())
        .unwrap_or(network)
        .trunc()
}

/// The bits of the address that a prefix of this length covers.
pub(super) fn network_bits(address: IpAddr, prefix: u8) -> u128 {
    let (bits, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    bits.checked_shr(width - u32::from(prefix).min(width)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_their_networks_alone() {
        let nets = ["10.0.0.0/8", "192.0.2.7/32", "::1/128", "2001:db8::/32", "fe80::/64"];
        let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().unwrap()).collect();
        let set: Networks = nets.iter().collect();
        for address in
            ["10.0.0.0", "10.255.255.255", "192.0.2.7", "::1", "2001:db8:1::9", "fe80::9"]
        {
            assert!(set.contain(address.parse().unwrap()), "{address}");
        }
        for address in ["11.0.0.0", "9.255.255.255", "192.0.2.6", "::2", "2001:db9::", "fe80:1::"] {
            assert!(!set.contain(address.parse().unwrap()), "{address}");
        }
        let everybody: Networks = [&"0.0.0.0/0".parse().unwrap()].into_iter().collect();
        assert!(everybody.contain("8.8.8.8".parse().unwrap()));
        assert!(!everybody.contain("::8".parse().unwrap()));
        assert!(!Networks::default().contain("8.8.8.8".parse().unwrap()));
    }

    #[test]
    fn embedded_networks_are_those_of_ipv4() {
        for (given, expected) in [
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.7/128", "192.0.2.7/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("2001:db8::1/64", "2001:db8::/64"),
            // More than the embedded ones: of IPv6.
            ("::ffff:0:0/95", "::fffe:0:0/95"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(canonical(given.parse().unwrap()).to_string(), expected, "{given}");
        }
    }

    /// Against the library that reads them.
    #[test]
    fn it_agrees_with_each_network_by_itself() {
        use rand::RngExt;
        let mut rng = rand::rng();
        for _ in 0..2000 {
            let prefix = rng.random_range(0..=32);
            let net: IpNet = format!("{}/{prefix}", std::net::Ipv4Addr::from_bits(rng.random()))
                .parse()
                .unwrap();
            let near = match net.addr() {
                IpAddr::V4(v4) => v4.to_bits() ^ (1u32 << rng.random_range(0..32)),
                IpAddr::V6(_) => unreachable!("of the other family"),
            };
            let near = IpAddr::from(std::net::Ipv4Addr::from_bits(near));
            let set: Networks = [&net].into_iter().collect();
            assert_eq!(set.contain(near), net.contains(&near), "{net} {near}");
        }
    }
}
