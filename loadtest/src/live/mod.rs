//! How a run goes, while it goes: a small view in the terminal, or plain lines where there is none.
//! Both write to standard error, and only show what a [`Snapshot`] says.

mod lines;
mod view;

use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, Instant};

use crate::objective::show_us;
use crate::operation::Operation;
use crate::outcome::{Phase, Point, PointOperation, Snapshot};
use lines::Lines;
use view::View;

/// How often to look.
pub const GLANCE: Duration = Duration::from_millis(200);

/// Shows snapshots until it is dropped.
pub struct Live {
    how: How,
}

enum How {
    View(Box<View>),
    Lines(Lines),
}

impl Live {
    /// A view in the terminal if there is one and `plain` is false, else lines.
    pub fn new(name: &str, plain: bool) -> Self {
        let terminal = io::stderr().is_terminal() && io::stdin().is_terminal();
        // A terminal that cannot do what the view needs still has lines.
        let view = (terminal && !plain).then(|| View::new(name).ok()).flatten();
        let how = match view {
            Some(view) => How::View(Box::new(view)),
            None => How::Lines(Lines::new(name)),
        };
        Self { how }
    }

    /// Shows how it is now.
    pub fn show(&mut self, snapshot: &Snapshot) {
        match &mut self.how {
            // A terminal that is gone shows nothing; the run goes on.
            How::View(view) => drop(view.draw(snapshot)),
            How::Lines(lines) => {
                if let Some(line) = lines.next(snapshot, Instant::now()) {
                    let _ = writeln!(io::stderr(), "{line}");
                }
            }
        }
    }
}

/// Name of a phase for people.
fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Ramp => "ramp",
        Phase::WarmUp => "warm-up",
        Phase::Measured => "measured",
        Phase::Drain => "drain",
        Phase::Over => "over",
    }
}

/// The operation that a reader asks for first, of those that ended in the last second.
fn main_operation(point: &Point) -> Option<(Operation, &PointOperation)> {
    const ORDER: [Operation; 6] = [
        Operation::SendAck,
        Operation::Sync,
        Operation::Resume,
        Operation::Login,
        Operation::Connect,
        Operation::Deliver,
    ];
    let done = |operation| {
        let found = point.operations.get(&operation)?;
        (found.count > 0).then_some((operation, found))
    };
    ORDER.into_iter().find_map(done)
}

/// p50, p99 and the longest of the last second.
fn times(operation: &PointOperation) -> [String; 3] {
    let histogram = operation.response.unpack().ok().filter(|one| !one.is_empty());
    [0.5, 0.99, 1.0].map(|quantile| {
        histogram.as_ref().map_or_else(
            || "-".into(),
            |histogram| show_us(histogram.value_at_quantile(quantile) as f64),
        )
    })
}

/// Messages that were not treated as they must be, in words; nothing if all were.
fn faults(snapshot: &Snapshot) -> Option<String> {
    let found = &snapshot.correctness;
    let all = [
        ("lost", found.lost),
        ("unchecked", found.unchecked),
        ("duplicated", found.duplicated),
        ("reordered", found.reordered),
        ("corrupted", found.corrupted),
        ("false acks", found.false_acks),
        ("misdelivered", found.misdelivered),
    ];
    let some: Vec<String> = all
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    (!some.is_empty()).then(|| some.join(", "))
}

/// Time for people: `12 s`, `3:07`, `1:02:03`.
fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests;
