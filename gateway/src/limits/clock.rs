//! The time by which buckets fill.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::nanos::Nanos;

/// A clock that never runs backwards: the machine's, or one that a test moves.
#[derive(Debug, Clone)]
pub struct LimitClock(Source);

#[derive(Debug, Clone)]
enum Source {
    Machine(Instant),
    Hand(Arc<AtomicU64>),
}

impl LimitClock {
    /// The machine's monotonic clock.
    pub fn machine() -> Self {
        Self(Source::Machine(Instant::now()))
    }

    /// One that stands still until [`advance`](Self::advance).
    pub fn by_hand() -> Self {
        // Nobody asks what was before the beginning.
        Self(Source::Hand(Arc::new(AtomicU64::new(1))))
    }

    /// Moves a clock that is moved by hand.
    pub fn advance(&self, by: Duration) {
        if let Source::Hand(now) = &self.0 {
            now.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
        }
    }
}

impl Clock for LimitClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        match &self.0 {
            // 584 years of nanoseconds fit.
            Source::Machine(start) => Nanos::from(start.elapsed().as_nanos() as u64),
            Source::Hand(now) => Nanos::from(now.load(Ordering::Relaxed)),
        }
    }
}
