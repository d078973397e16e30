//! Plain lines: often at first, seldom in a long run, and always when the phase changes.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::{clock, faults, main_operation, phase_name, times};
use crate::outcome::{Phase, Snapshot};

/// Distance of lines by how long the run has gone on, seconds.
const EVERY: [(f64, u64); 3] = [(30.0, 1), (600.0, 10), (f64::INFINITY, 60)];

/// Says when a line is due, and what it says.
pub(super) struct Lines {
    name: String,
    last: Option<(Instant, Phase)>,
    reasons: usize,
}

impl Lines {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), last: None, reasons: 0 }
    }

    /// The next line, if one is due.
    pub(super) fn next(&mut self, snapshot: &Snapshot, now: Instant) -> Option<String> {
        let every = EVERY.iter().find(|(until, _)| snapshot.elapsed < *until);
        let every = Duration::from_secs(every.map_or(60, |(_, seconds)| *seconds));
        let is_due = match self.last {
            None => true,
            Some((at, phase)) => now >= at + every || phase != snapshot.phase,
        };
        // A reason not to believe the figures is told at once.
        if !is_due && snapshot.reasons.len() <= self.reasons {
            return None;
        }
        self.last = Some((now, snapshot.phase));
        let mut line = self.line(snapshot);
        for reason in snapshot.reasons.iter().skip(self.reasons) {
            let _ = write!(line, "\n  INVALID: {}", reason.detail);
        }
        self.reasons = self.reasons.max(snapshot.reasons.len());
        Some(line)
    }

    fn line(&self, snapshot: &Snapshot) -> String {
        let mut line = format!(
            "{} {:>7} {:<8} {} sessions",
            self.name,
            clock(snapshot.elapsed),
            phase_name(snapshot.phase),
            snapshot.sessions.connected
        );
        if snapshot.connecting > 0 {
            let _ = write!(line, " (+{})", snapshot.connecting);
        }
        if let Some(point) = &snapshot.last {
            if point.sent + point.acked + point.delivered > 0 {
                let _ = write!(
                    line,
                    ", {}/s sent, {} acked, {} delivered",
                    point.sent, point.acked, point.delivered
                );
            }
            if let Some((operation, figures)) = main_operation(point) {
                let [p50, p99, _] = times(figures);
                let _ = write!(line, ", {operation} p50 {p50} p99 {p99}");
            }
            let sum = |part: fn(&crate::outcome::PointOperation) -> u64| -> u64 {
                point.operations.values().map(part).sum()
            };
            for (name, count) in [
                ("errors", sum(|one| one.errors)),
                ("late", sum(|one| one.late)),
                ("dropped", sum(|one| one.dropped)),
            ] {
                if count > 0 {
                    let _ = write!(line, ", {count} {name}");
                }
            }
        }
        if snapshot.sessions.lost > 0 {
            let _ = write!(line, ", {} sessions lost", snapshot.sessions.lost);
        }
        if let Some(faults) = faults(snapshot) {
            let _ = write!(line, ", WRONG: {faults}");
        }
        if let Some(left) = snapshot.remaining {
            let _ = write!(line, ", {} left", clock(left));
        }
        line
    }
}
