//! Token buckets by key, in bounded memory.
//!
//! [`governor`] does the arithmetic; this is where it keeps its one number a bucket: the time at
//! which the bucket is full again. A bucket that is full is not kept at all. So what is in the table
//! is what has been used faster than it fills, and a table that is full of those holds as many
//! abusers at once. Keys that find no room then are let through and counted: whatever many of them
//! do together meets the bounds of the whole gateway.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;

use super::clock::LimitClock;
use super::rate::Rate;

/// Parts with a lock each, so that shards seldom meet.
const PARTS: usize = 16;

/// Buckets of one table that are not full: 2.2 MB with what a hash table leaves free.
pub(super) const MAX_BUCKETS: usize = 65_536;

/// Least time between two looks through a part that is full, nanoseconds: a look takes some 10 us.
const LOOK_AGAIN: u64 = 10_000_000;

/// One limit: a bucket for each key.
pub(super) struct Limiter {
    buckets: RateLimiter<u64, Table, LimitClock, NoOpMiddleware<Nanos>>,
    clock: LimitClock,
    burst: u32,
}

impl Limiter {
    /// Full buckets for everybody. `untracked` counts the keys that find no room in the table.
    pub(super) fn new(rate: Rate, clock: &LimitClock, untracked: &Arc<AtomicU64>) -> Self {
        let table = Table {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            clock: clock.clone(),
            untracked: untracked.clone(),
        };
        Self {
            buckets: RateLimiter::new(rate.quota(), table, clock.clone()),
            clock: clock.clone(),
            burst: rate.burst.get(),
        }
    }

    /// Takes so much out of the key's bucket, or says how long it takes until so much is in it. More
    /// than it can ever hold counts as all that it can hold.
    pub(super) fn take(&self, key: u64, amount: usize) -> Result<(), Duration> {
        let amount = u32::try_from(amount).unwrap_or(u32::MAX).clamp(1, self.burst);
        let Some(amount) = NonZeroU32::new(amount) else { return Ok(()) };
        match self.buckets.check_key_n(&key, amount) {
            Ok(Err(not_until)) => Err(not_until.wait_time_from(self.clock.now())),
            // The amount was cut to what the bucket can hold.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

/// Where the buckets are.
struct Table {
    parts: Vec<Mutex<Part>>,
    clock: LimitClock,
    untracked: Arc<AtomicU64>,
}

#[derive(Default)]
struct Part {
    /// When each bucket is full again.
    full_at: HashMap<u64, Nanos, BuildHasherDefault<Keyed>>,
    /// When it is worth while to look for full ones again.
    look_again: u64,
}

impl StateStore for Table {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // The low bits choose the place inside the part.
        let part = &self.parts[(key >> 32) as usize % PARTS];
        // A thread that panicked here left every bucket whole.
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at) = part.full_at.get_mut(key) {
            let (outcome, then) = measure(Some(*full_at))?;
            *full_at = then;
            return Ok(outcome);
        }
        let (outcome, then) = measure(None)?;
        if part.has_room(&self.clock) {
            part.full_at.insert(*key, then);
        } else {
            self.untracked.fetch_add(1, Ordering::Relaxed);
        }
        Ok(outcome)
    }
}

impl Part {
    fn has_room(&mut self, clock: &LimitClock) -> bool {
        if self.full_at.len() < MAX_BUCKETS / PARTS {
            return true;
        }
        // The limiter's own time began a little later than the clock, so a bucket may be dropped
        // some microseconds before it is full.
        let now = clock.now().as_u64();
        if now >= self.look_again {
            self.look_again = now + LOOK_AGAIN;
            self.full_at.retain(|_, full_at| full_at.as_u64() > now);
        }
        self.full_at.len() < MAX_BUCKETS / PARTS
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct Keyed(u64);

impl Hasher for Keyed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
