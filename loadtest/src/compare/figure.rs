//! The figures of a run that are worth comparing.

use crate::objective::show_us;
use crate::operation::Operation;
use crate::report::{Latency, Summary};

/// Values above a percentile that make it more than noise.
const ENOUGH_ABOVE: f64 = 10.0;

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Only 0 is right.
    Zero,
}

/// A named value.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// As in `summary.json`: `rate_per_second`, `send_ack.p99_us`.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Which way is better.
    pub better: Better,
    /// Whether it says enough to be judged.
    pub judged: bool,
}

/// How a figure of the whole run is taken: its name, its value if it was measured, which way is
/// better, and whether it is judged.
type Taken = (&'static str, fn(&Summary) -> Option<f64>, Better, bool);

const WHOLE: [Taken; 15] = [
    ("connected", |run| Some(run.connected as f64), Better::Higher, true),
    ("rate_per_second", |run| wrote(run, run.rate_per_second), Better::Higher, true),
    ("delivered_per_second", |run| wrote(run, run.delivered_per_second), Better::Higher, true),
    ("sessions_lost", |run| Some(run.sessions_lost as f64), Better::Lower, true),
    ("sessions_failed", |run| Some(run.sessions_failed as f64), Better::Lower, true),
    ("lost", |run| wrote(run, run.lost as f64), Better::Zero, true),
    ("unchecked", |run| wrote(run, run.unchecked as f64), Better::Zero, true),
    ("duplicated", |run| wrote(run, run.duplicated as f64), Better::Zero, true),
    ("reordered", |run| wrote(run, run.reordered as f64), Better::Zero, true),
    ("corrupted", |run| wrote(run, run.corrupted as f64), Better::Zero, true),
    ("false_acks", |run| wrote(run, run.false_acks as f64), Better::Zero, true),
    ("misdelivered", |run| wrote(run, run.misdelivered as f64), Better::Zero, true),
    ("gateway_bytes_per_session", |run| run.gateway_bytes_per_session, Better::Lower, true),
    ("generator_bytes_per_session", |run| run.generator_bytes_per_session, Better::Lower, true),
    // What a run uses depends on what it does: good to see, wrong to judge.
    ("gateway_cpu_cores", |run| Some(run.gateway.as_ref()?.cpu_cores), Better::Lower, false),
];

/// A figure of messages, if there were any.
fn wrote(run: &Summary, value: f64) -> Option<f64> {
    (run.sent > 0).then_some(value)
}

/// How a percentile of an operation is taken: its name, the share of values above it, its value.
type Percentile = (&'static str, f64, fn(&Latency) -> Option<u64>);

const PERCENTILES: [Percentile; 5] = [
    ("p50_us", 0.5, |latency| latency.p50_us),
    ("p90_us", 0.1, |latency| latency.p90_us),
    ("p99_us", 0.01, |latency| latency.p99_us),
    ("p999_us", 0.001, |latency| latency.p999_us),
    ("max_us", 0.0, |latency| latency.max_us),
];

const ERROR_RATE: &str = "error_rate";

/// All of a run, in the order of reports.
pub fn figures(summary: &Summary) -> Vec<Figure> {
    let whole = WHOLE.iter().filter_map(|&(name, take, better, judged)| {
        Some(Figure { name: name.to_owned(), value: take(summary)?, better, judged })
    });
    let mut all: Vec<Figure> = whole.collect();
    for (operation, figures) in &summary.operations {
        if figures.count + figures.errors == 0 {
            continue;
        }
        let name = |figure: &str| format!("{operation}.{figure}");
        let better = Better::Lower;
        all.extend(PERCENTILES.iter().filter_map(|&(figure, above, take)| {
            let value = take(&figures.response)? as f64;
            let judged = figures.count as f64 * above >= ENOUGH_ABOVE;
            Some(Figure { name: name(figure), value, better, judged })
        }));
        let value = figures.error_rate;
        all.push(Figure { name: name(ERROR_RATE), value, better, judged: true });
    }
    all
}

/// Every name that a figure can have, and which way is better.
pub(super) fn names() -> Vec<(String, Better)> {
    let whole = WHOLE.iter().map(|&(name, _, better, _)| (name.to_owned(), better));
    let figures = || PERCENTILES.iter().map(|&(figure, ..)| figure).chain([ERROR_RATE]);
    let of_operations = Operation::ALL.into_iter().flat_map(|operation| {
        figures().map(move |figure| (format!("{operation}.{figure}"), Better::Lower))
    });
    whole.chain(of_operations).collect()
}

/// The value before of which the tolerance is a share where it was less. From none at all to a single
/// failure is no change for the worse yet: a run by itself may have 1 % of an operation fail.
pub(super) fn least(name: &str) -> f64 {
    if name.ends_with(ERROR_RATE) { 0.01 } else { 0.0 }
}

/// A value of that name for people.
pub(super) fn show(name: &str, value: f64) -> String {
    if name.ends_with("_us") {
        show_us(value)
    } else if name.ends_with("error_rate") {
        format!("{:.3}%", value * 100.0)
    } else if value.fract() == 0.0 || value >= 1e4 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}
