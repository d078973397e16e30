//! Addresses that have failed to log in too often wait, and longer each time.
//!
//! Whoever fails within `limits.failed_logins_per_address` waits for nothing: that is what a bad
//! password manager or an expired token does. Each failure beyond it shuts the address out, for
//! [`FIRST`] and then twice as long up to [`LONGEST`]; meanwhile no token from there is looked at, so
//! guessing costs the gateway nothing. Attempts in that time do not make it longer: behind one
//! address are many people.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock;

use super::address::AddressKey;
use super::clock::LimitClock;

/// The first wait, and the delay of the code. A close tells what is left of the real one.
pub(super) const FIRST: Duration = Duration::from_secs(5);

/// The longest wait; and who has not failed for so long begins anew.
pub(super) const LONGEST: Duration = Duration::from_secs(300);

/// Addresses that wait at a time, 0.6 MB. With so many, further ones do not wait: their buckets
/// still hold.
const MAX_WAITING: usize = 16_384;

/// Who waits until when.
#[derive(Debug)]
pub(super) struct Backoff {
    waiting: Mutex<HashMap<u64, Waiting>>,
    /// Their number, so that a login need not take the lock while there is none.
    count: AtomicUsize,
    clock: LimitClock,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    until: u64,
    strikes: u32,
}

impl Backoff {
    pub(super) fn new(clock: LimitClock) -> Self {
        Self { waiting: Mutex::default(), count: AtomicUsize::new(0), clock }
    }

    /// For how long nobody from there may log in; `None`: they may.
    pub(super) fn wait(&self, key: AddressKey) -> Option<Duration> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now().as_u64();
        let left = waiting.get(&key.get())?.until.saturating_sub(now);
        (left > 0).then_some(Duration::from_nanos(left))
    }

    /// It has failed once too often: it waits from now on.
    pub(super) fn strike(&self, key: AddressKey) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now().as_u64();
        let longest = LONGEST.as_nanos() as u64;
        if waiting.len() >= MAX_WAITING && !waiting.contains_key(&key.get()) {
            waiting.retain(|_, waiting| waiting.until + longest > now);
            if waiting.len() >= MAX_WAITING {
                return;
            }
        }
        let before = waiting.get(&key.get()).filter(|before| before.until + longest > now);
        let strikes = before.map_or(0, |before| before.strikes + 1).min(u64::BITS / 2);
        let wait = (FIRST.as_nanos() as u64).saturating_mul(1 << strikes).min(longest);
        waiting.insert(key.get(), Waiting { until: now + wait, strikes });
        self.count.store(waiting.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_strike_waits_twice_as_long_and_a_good_while_forgives() {
        let clock = LimitClock::by_hand();
        let backoff = Backoff::new(clock.clone());
        let key = AddressKey::new("192.0.2.1".parse().unwrap(), &RandomState::new());
        for wait in [5, 10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(backoff.wait(key), None);
            backoff.strike(key);
            assert_eq!(backoff.wait(key), Some(SECOND * wait));
            clock.advance(SECOND * (wait - 1));
            assert_eq!(backoff.wait(key), Some(SECOND));
            clock.advance(SECOND);
        }
        clock.advance(LONGEST);
        backoff.strike(key);
        clock.advance(FIRST);
        assert_eq!(backoff.wait(key), None);
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let (clock, hasher) = (LimitClock::by_hand(), RandomState::new());
        let backoff = Backoff::new(clock.clone());
        let key =
            |n: usize| AddressKey::new(std::net::Ipv4Addr::from_bits(n as u32).into(), &hasher);
        (0..2 * MAX_WAITING).for_each(|n| backoff.strike(key(n)));
        assert_eq!(backoff.waiting.lock().unwrap().len(), MAX_WAITING);
        assert!(backoff.wait(key(0)).is_some() && backoff.wait(key(MAX_WAITING)).is_none());
        clock.advance(FIRST + LONGEST);
        backoff.strike(key(MAX_WAITING));
        assert_eq!(backoff.waiting.lock().unwrap().len(), 1);
    }
}
