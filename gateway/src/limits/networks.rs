//! Sets of networks, in which an address is looked up in a few steps.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

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
