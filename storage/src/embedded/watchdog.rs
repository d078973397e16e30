//! Says so when a commit takes unusually long.
//!
//! Nothing else would: all who wait, wait silently, and a disk that hangs reports no error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often it looks; a commit that takes longer is reported.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the writer tells the watchdog.
pub(super) struct Pulse {
    began: Instant,
    /// Microseconds from `began` to the start of the commit that is under way, plus one; 0 when
    /// there is none.
    busy_since: AtomicU64,
}

impl Pulse {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), busy_since: AtomicU64::new(0) })
    }

    /// A commit begins.
    pub(super) fn begin(&self, now: Instant) {
        self.busy_since.store(self.micros(now) + 1, Relaxed);
    }

    /// It is over.
    pub(super) fn end(&self) {
        self.busy_since.store(0, Relaxed);
    }

    /// Start of the commit under way and how long it has taken by `now`.
    fn under_way(&self, now: Instant) -> Option<(u64, Duration)> {
        let since = self.busy_since.load(Relaxed).checked_sub(1)?;
        Some((since, Duration::from_micros(self.micros(now).saturating_sub(since))))
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX - 1)
    }
}

/// What is worth a line in the log.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Stalled(Duration),
    Over,
}

/// Remembers what was reported, so that each stall is reported twice: begin and end.
#[derive(Default)]
struct Watchdog {
    reported: Option<u64>,
}

impl Watchdog {
    fn look(&mut self, under_way: Option<(u64, Duration)>) -> Option<Finding> {
        let stalled = under_way.filter(|(_, taken)| *taken >= INTERVAL);
        match (self.reported, stalled) {
            (Some(reported), Some((since, _))) if reported == since => None,
            (_, Some((since, taken))) => {
                self.reported = Some(since);
                Some(Finding::Stalled(taken))
            }
            (Some(_), None) => {
                self.reported = None;
                Some(Finding::Over)
            }
            (None, None) => None,
        }
    }
}

/// Watches until the other end of `stop` is dropped.
pub(super) fn watch(pulse: &Pulse, stop: &Receiver<()>) {
    let mut watchdog = Watchdog::default();
    while stop.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        match watchdog.look(pulse.under_way(Instant::now())) {
            Some(Finding::Stalled(taken)) => tracing::warn!(
                seconds = taken.as_secs_f32(),
                "a commit is taking unusually long; senders wait for the disk"
            ),
            Some(Finding::Over) => tracing::warn!("commits go on"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stall_is_reported_once_and_its_end_too() {
        let pulse = Pulse::new();
        let mut dog = Watchdog::default();
        let t = Instant::now();
        let at = |s| t + Duration::from_secs(s);
        assert_eq!(dog.look(pulse.under_way(at(5))), None);
        pulse.begin(at(5));
        assert_eq!(dog.look(pulse.under_way(at(5))), None);
        assert_eq!(
            dog.look(pulse.under_way(at(7))),
            Some(Finding::Stalled(Duration::from_secs(2)))
        );
        assert_eq!(dog.look(pulse.under_way(at(8))), None);
        pulse.end();
        pulse.begin(at(9)); // the next one, seen while it stalls as well
        assert_eq!(
            dog.look(pulse.under_way(at(12))),
            Some(Finding::Stalled(Duration::from_secs(3)))
        );
        pulse.end();
        assert_eq!(dog.look(pulse.under_way(at(13))), Some(Finding::Over));
        assert_eq!(dog.look(pulse.under_way(at(14))), None);
    }
}
