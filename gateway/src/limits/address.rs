//! Addresses as keys, and how many connections each has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::networks::network_bits;

/// Bits of an IPv6 address that count: a customer usually has a /64 or more, and may take any address
/// in it for each connection (RFC 6177, RFC 8981).
const IPV6_PREFIX: u8 = 64;

/// Parts with a lock each.
const PARTS: usize = 16;

/// Whose connection it is, as far as limits go: a hash of the IPv4 address or the IPv6 /64 network
/// that only this process can compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressKey(NonZeroU64);

impl AddressKey {
    pub(crate) fn new(address: IpAddr, hasher: &RandomState) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { IPV6_PREFIX };
        let hash = hasher.hash_one((address.is_ipv4(), network_bits(address, prefix)));
        Self(NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN))
    }

    pub(super) fn get(self) -> u64 {
        self.0.get()
    }
}

/// Connections by address. It holds no more addresses than there are connections.
#[derive(Debug)]
pub(crate) struct Connections {
    parts: Vec<Mutex<HashMap<u64, u32>>>,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::default()).collect() }
    }

    /// Counts one in, unless there are `most` of them.
    pub(crate) fn enter(&self, key: AddressKey, most: u32) -> bool {
        let mut part = self.part(key);
        let before = part.get(&key.get()).copied().unwrap_or(0);
        if before >= most {
            return false;
        }
        part.insert(key.get(), before + 1);
        true
    }

    /// Counts one out.
    pub(crate) fn leave(&self, key: AddressKey) {
        if let Entry::Occupied(mut entry) = self.part(key).entry(key.get()) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    fn part(&self, key: AddressKey) -> MutexGuard<'_, HashMap<u64, u32>> {
        let part = &self.parts[(key.get() >> 32) as usize % PARTS];
        // A thread that panicked here left every count whole.
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_left_is_free_and_nothing_stays_behind() {
        let (connections, hasher) = (Connections::new(), RandomState::new());
        let key = |text: &str| AddressKey::new(text.parse().unwrap(), &hasher);
        let (one, other) = (key("192.0.2.1"), key("192.0.2.2"));
        assert!(connections.enter(one, 2) && connections.enter(one, 2));
        assert!(!connections.enter(one, 2));
        assert!(connections.enter(other, 2));
        connections.leave(one);
        assert!(connections.enter(one, 2));
        for key in [one, one, other, other] {
            connections.leave(key);
        }
        assert!(connections.parts.iter().all(|part| part.lock().unwrap().is_empty()));
        assert!(!connections.enter(one, 0), "with none allowed");
    }

    #[test]
    fn an_ipv6_customer_is_one() {
        let hasher = RandomState::new();
        let key = |text: &str| AddressKey::new(text.parse().unwrap(), &hasher);
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
    }
}
