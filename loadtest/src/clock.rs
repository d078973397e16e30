//! The one clock of the program: nanoseconds since the first look at it. It only ever rises, and
//! means nothing on another machine.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Nanoseconds since the first look at the clock.
pub type Nanos = u64;

/// One second.
pub const SECOND: Nanos = 1_000_000_000;

/// A little before the first look, so that times before it can be told as well.
const BEFORE: Duration = Duration::from_secs(1);

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(|| {
        let now = Instant::now();
        now.checked_sub(BEFORE).unwrap_or(now)
    })
}

/// Now.
pub fn now() -> Nanos {
    nanos(Instant::now())
}

/// A moment as a number.
pub fn nanos(at: Instant) -> Nanos {
    // 584 years.
    at.saturating_duration_since(epoch()).as_nanos() as Nanos
}

/// A number as a moment.
pub fn instant(at: Nanos) -> Instant {
    epoch() + Duration::from_nanos(at)
}

/// A length of time as a number.
pub fn length(of: Duration) -> Nanos {
    u64::try_from(of.as_nanos()).unwrap_or(u64::MAX)
}

/// Whole microseconds from `from` to `to`, rounded up, so that nothing takes no time; 0 if `to` is
/// before `from`.
pub fn micros_between(from: Nanos, to: Nanos) -> u64 {
    to.saturating_sub(from).div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_their_moments() {
        let at = Instant::now();
        assert_eq!(instant(nanos(at)), at);
        assert!(nanos(at) <= now());
        assert_eq!(micros_between(5, 5), 0);
        assert_eq!(micros_between(5, 6), 1);
        assert_eq!(micros_between(6, 5), 0);
    }
}
