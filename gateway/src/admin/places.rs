//! How many connections the admin listener has at a time, and whose.
//!
//! Nobody shows a token before there is a connection, so whoever reaches the port can take places.
//! One address gets some of them, all others together leave a few to this machine: to `skein ctl`, to
//! a probe that runs here.

use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::{AddressKey, Connections};

/// Connections in all: some collectors, probes and operators.
const MAX_CONNECTIONS: usize = 64;

/// Those that only the loopback gets.
const FOR_LOOPBACK: usize = 8;

/// Connections of one address, in IPv6 of a /64 network.
const MAX_PER_ADDRESS: u32 = 16;

/// Who is connected.
#[derive(Debug)]
pub(super) struct Places {
    taken: AtomicUsize,
    addresses: Connections,
    hasher: RandomState,
}

/// The place of one connection, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: AddressKey,
}

impl Places {
    pub(super) fn new() -> Arc<Self> {
        let (taken, addresses) = (AtomicUsize::new(0), Connections::new());
        Arc::new(Self { taken, addresses, hasher: RandomState::new() })
    }

    /// A place for this address, if there is one left for it.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let ip = address.to_canonical();
        let most = if ip.is_loopback() { MAX_CONNECTIONS } else { MAX_CONNECTIONS - FOR_LOOPBACK };
        let address = AddressKey::new(ip, &self.hasher);
        if !self.addresses.enter(address, MAX_PER_ADDRESS) {
            return None;
        }
        let free = |taken| (taken < most).then_some(taken + 1);
        if self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).is_err() {
            self.addresses.leave(address);
            return None;
        }
        Some(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        self.places.addresses.leave(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_some_places_and_the_loopback_always_has_a_few() {
        let places = Places::new();
        let enter = |address: &str| places.enter(address.parse().unwrap());
        let mut crowd = Vec::new();
        for last in 1..=4 {
            let of_one: Vec<_> =
                (0..64).filter_map(|_| enter(&format!("192.0.2.{last}"))).collect();
            assert_eq!(of_one.len(), if last < 4 { 16 } else { 8 }, "{last}");
            crowd.extend(of_one);
        }
        assert!(enter("2001:db8::1").is_none());
        let local: Vec<_> = (0..64).filter_map(|_| enter("::ffff:127.0.0.1")).collect();
        assert_eq!(local.len(), 8);
        crowd.truncate(55);
        assert!(enter("2001:db8::1").is_none(), "those of the loopback count");
        drop(local);
        assert!(enter("2001:db8::1").is_some() && enter("127.0.0.1").is_some());
        drop(crowd);
        assert_eq!(places.taken.load(Ordering::Relaxed), 0);
        let one: Vec<_> = (0..64).filter_map(|n| enter(&format!("2001:db8::{n}"))).collect();
        assert_eq!(one.len(), 16, "a /64 is one");
    }
}
