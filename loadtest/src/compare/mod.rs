//! Two runs side by side, or a run against a baseline: what has changed, and is it worse than
//! allowed?
//!
//! A figure is only judged where it can be: a percentile that fewer than ten values exceed is noise,
//! and the longest time of a run always is; both are shown. Figures of a run that is not valid are
//! never compared.

mod asked;
mod baseline;
mod figure;

use std::fmt::Write as _;

use serde::Serialize;

use crate::report::Summary;

pub use baseline::{Baseline, BaselineError, Tolerance};
pub use figure::{Better, Figure, figures};

/// Allowed change for the worse where nothing else is said, a share of the value before.
pub const DEFAULT_TOLERANCE: f64 = 0.10;

/// What became of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Within the tolerance.
    Same,
    /// Better by more than the tolerance.
    Better,
    /// Worse by more than the tolerance.
    Worse,
    /// It was measured before, and is not any more.
    Gone,
    /// It was not measured before.
    New,
    /// Shown only.
    Unjudged,
}

/// A figure before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// As in `summary.json`: `send_ack.p99_us`.
    pub name: String,
    /// Value before.
    pub before: Option<f64>,
    /// Value after.
    pub after: Option<f64>,
    /// The difference as a share of the value before; none where that is 0 or missing.
    pub change: Option<f64>,
    /// Allowed change for the worse.
    pub tolerance: f64,
    /// What became of it.
    pub verdict: Verdict,
}

/// All figures, and what the reader should know before believing them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// No figure is worse than allowed, and none is gone.
    pub good: bool,
    /// In the order of reports.
    pub changes: Vec<Change>,
    /// In what the runs were asked for something else, so that their figures must differ.
    pub unlike: Vec<String>,
    /// Other differences between the runs themselves.
    pub notes: Vec<String>,
}

impl Comparison {
    /// Compares figures. `tolerance` says what is allowed for a name.
    pub fn new(before: &[Figure], after: &[Figure], tolerance: impl Fn(&str) -> f64) -> Self {
        let find = |all: &[Figure], name: &str| all.iter().find(|f| f.name == name).cloned();
        let mut changes: Vec<Change> = before
            .iter()
            .map(|old| change(old, find(after, &old.name).as_ref(), tolerance(&old.name)))
            .collect();
        changes.extend(after.iter().filter(|new| find(before, &new.name).is_none()).map(|new| {
            let tolerance = tolerance(&new.name);
            // A fault is one whether or not there was one before.
            let bad = new.better == Better::Zero && new.value > 0.0;
            Change {
                name: new.name.clone(),
                before: None,
                after: Some(new.value),
                change: None,
                tolerance,
                verdict: if bad { Verdict::Worse } else { Verdict::New },
            }
        }));
        let good = changes.iter().all(|c| !matches!(c.verdict, Verdict::Worse | Verdict::Gone));
        Self { good, changes, unlike: Vec::new(), notes: Vec::new() }
    }

    /// Compares two runs.
    pub fn of_runs(before: &Summary, after: &Summary, tolerance: f64) -> Self {
        let mut comparison = Self::new(&figures(before), &figures(after), |_| tolerance);
        let asked = [
            ("scenario", before.scenario.clone(), after.scenario.clone()),
            ("number of sessions", before.planned.to_string(), after.planned.to_string()),
            ("offered rate", rate(before.offered_per_second), rate(after.offered_per_second)),
        ];
        let others = [
            ("number of measured seconds", seconds(before), seconds(after)),
            ("version", before.program.clone(), after.program.clone()),
        ];
        comparison.unlike = differences(asked);
        comparison.unlike.extend(asked::differences(&before.fleets, &after.fleets));
        comparison.notes = differences(others);
        comparison
    }

    /// For people: what is worse first.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for difference in &self.unlike {
            let _ = writeln!(text, "NOT ALIKE: {difference}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        let _ = writeln!(text, "{:<34}{:>14}{:>14}{:>10}", "", "before", "after", "change");
        let mut changes: Vec<&Change> = self.changes.iter().collect();
        changes.sort_by_key(|c| !matches!(c.verdict, Verdict::Worse | Verdict::Gone));
        for change in changes {
            let word = match change.verdict {
                Verdict::Worse => format!("WORSE (at most {:.0}%)", change.tolerance * 100.0),
                Verdict::Gone => "GONE".into(),
                Verdict::Better => "better".into(),
                Verdict::New => "new".into(),
                Verdict::Unjudged => "(not judged)".into(),
                Verdict::Same => String::new(),
            };
            let show = |value: Option<f64>| {
                value.map_or_else(|| "-".into(), |value| figure::show(&change.name, value))
            };
            let percent = change.change.map_or_else(String::new, |c| format!("{:+.1}%", c * 100.0));
            let line = format!(
                "{:<34}{:>14}{:>14}{percent:>10}  {word}",
                change.name,
                show(change.before),
                show(change.after),
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let bad =
            self.changes.iter().filter(|c| matches!(c.verdict, Verdict::Worse | Verdict::Gone));
        let _ = match bad.count() {
            0 => writeln!(text, "\nno figure is worse than allowed"),
            1 => writeln!(text, "\n1 figure is worse than allowed"),
            count => writeln!(text, "\n{count} figures are worse than allowed"),
        };
        text
    }
}

fn differences<const N: usize>(of: [(&str, String, String); N]) -> Vec<String> {
    let differ = of.into_iter().filter(|(_, before, after)| before != after);
    differ
        .map(|(what, before, after)| format!("the {what} is {before} before, {after} after"))
        .collect()
}

/// As precise as anybody asks for it.
fn rate(offered: Option<f64>) -> String {
    offered.map_or_else(|| "none".into(), |rate| format!("{rate:.1} messages/s"))
}

fn seconds(run: &Summary) -> String {
    format!("{:.0}", run.phases.measured)
}

fn change(old: &Figure, new: Option<&Figure>, tolerance: f64) -> Change {
    let relative = |new: &Figure| (old.value != 0.0).then(|| (new.value - old.value) / old.value);
    let verdict = match new {
        None if old.better == Better::Zero && old.value == 0.0 => Verdict::Unjudged,
        None => Verdict::Gone,
        Some(new) if old.better == Better::Zero => match new.value {
            value if value > 0.0 => Verdict::Worse,
            _ => Verdict::Same,
        },
        Some(new) if !(old.judged && new.judged) => Verdict::Unjudged,
        Some(new) => {
            let worse = match old.better {
                Better::Higher => old.value - new.value,
                Better::Lower | Better::Zero => new.value - old.value,
            };
            let allowed = tolerance * old.value.abs().max(figure::least(&old.name));
            if worse > allowed {
                Verdict::Worse
            } else if -worse > allowed {
                Verdict::Better
            } else {
                Verdict::Same
            }
        }
    };
    Change {
        name: old.name.clone(),
        before: Some(old.value),
        after: new.map(|new| new.value),
        change: new.and_then(relative),
        tolerance,
        verdict,
    }
}

#[cfg(test)]
mod tests;
