//! How often something may happen: a token bucket in words.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;

/// A bucket that holds `burst` and gets `amount` anew in each `per`, evenly. What it counts, its
/// user says: messages, bytes, handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// What comes back in each `per`.
    pub amount: NonZeroU32,
    /// A second, a minute or an hour.
    pub per: Duration,
    /// What may happen at once after a rest.
    pub burst: NonZeroU32,
}

impl Rate {
    /// So many a second, and so many at once. A 0 counts as 1.
    pub const fn per_second(amount: u32, burst: u32) -> Self {
        Self {
            amount: at_least_one(amount),
            per: Duration::from_secs(1),
            burst: at_least_one(burst),
        }
    }

    /// So many a minute, and so many at once. A 0 counts as 1.
    pub const fn per_minute(amount: u32, burst: u32) -> Self {
        Self { per: Duration::from_secs(60), ..Self::per_second(amount, burst) }
    }

    pub(super) fn quota(self) -> Quota {
        let amount = u128::from(self.amount.get());
        // To the nearest nanosecond, which at 64 MiB a second is within 4 %.
        let each = ((self.per.as_nanos() + amount / 2) / amount).max(1);
        let quota = Quota::with_period(Duration::from_nanos(each as u64));
        quota.unwrap_or(Quota::per_second(self.amount)).allow_burst(self.burst)
    }
}

const fn at_least_one(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}
