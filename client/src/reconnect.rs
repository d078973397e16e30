//! When to connect again: full jitter, so that the clients of a gateway that went away do not come
//! back in step.

use std::time::{Duration, Instant};

/// A session that lived this long starts the backoff anew.
const GOOD_SESSION: Duration = Duration::from_secs(60);

/// Waits between attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
    live_since: Option<Instant>,
}

impl Backoff {
    /// The first wait is at most `base`, each further one at most twice the one before and at
    /// most `cap`.
    pub(crate) fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempt: 0, live_since: None }
    }

    /// The gateway has welcomed us.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.live_since = Some(now);
    }

    /// The network is another one: what failed before says nothing.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }

    /// How long to wait now: a random share (`random` in 0..1) of the bound, after `at_least`.
    pub(crate) fn next(&mut self, at_least: Duration, random: f64, now: Instant) -> Duration {
        if self.live_since.take().is_some_and(|since| now - since >= GOOD_SESSION) {
            self.attempt = 0;
        }
        let bound = self.base.saturating_mul(1 << self.attempt.min(16)).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        at_least + bound.mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn the_bound_doubles_up_to_its_cap_and_a_good_session_resets_it() {
        let start = Instant::now();
        let mut backoff = Backoff::new(MS(500), MS(30_000));
        for bound in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            assert_eq!(backoff.next(Duration::ZERO, 1.0, start), MS(bound));
        }
        backoff.connected(start);
        let short = start + Duration::from_secs(5);
        assert_eq!(backoff.next(Duration::ZERO, 1.0, short), MS(30_000), "it died young");
        backoff.connected(start);
        let long = start + Duration::from_secs(60);
        assert_eq!(backoff.next(Duration::ZERO, 1.0, long), MS(500));
    }

    #[test]
    fn a_delay_that_was_asked_for_comes_on_top() {
        let mut backoff = Backoff::new(MS(500), MS(30_000));
        let wait = backoff.next(MS(700), 0.5, Instant::now());
        assert_eq!(wait, MS(950));
    }
}
