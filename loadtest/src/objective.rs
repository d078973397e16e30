//! What a run must reach: `p99.9(send_ack)<50ms`, `lost==0`, `connected>=100000`.
//!
//! ```text
//! objective  = quantity comparison value
//! quantity   = name | name "(" operation ")" | name "(" operation ", service)"
//! comparison = "<" | "<=" | ">" | ">=" | "==" | "!="
//! value      = time | share | bytes | number      ("50ms", "1%", "12KB", "100_000")
//! ```
//!
//! Times are response times, from the intended start; with `, service` from the actual one. What
//! was not measured holds nothing: an objective about it is missed.

mod parse;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::operation::Operation;
use crate::outcome::{Correctness, Outcome, Sessions, Step};
use crate::record::OperationRecord;

pub use parse::ObjectiveError;

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    text: String,
    quantity: Quantity,
    comparison: Comparison,
    /// In the quantity's base unit.
    bound: f64,
}

/// Whether an objective holds, and what was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The objective as it was written.
    pub objective: String,
    /// It holds.
    pub holds: bool,
    /// What was measured, in microseconds, bytes, a share of 1, or as a number; nothing if it was
    /// not measured.
    pub measured: Option<f64>,
    /// The same for people.
    pub shown: String,
}

/// What an objective is about.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Quantity {
    Latency(Statistic, Operation, Clock),
    Tally(Tally, Option<Operation>),
    Whole(Whole),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Statistic {
    /// 0 to 1.
    Quantile(f64),
    Max,
    Mean,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    Response,
    Service,
}

/// A figure of one operation, or of all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tally {
    Count,
    Errors,
    ErrorRate,
    Late,
    Dropped,
    Rate,
}

/// A figure of the whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    Connected,
    Peak,
    Lowest,
    SessionsLost,
    SessionsFailed,
    Sent,
    Acked,
    Delivered,
    Lost,
    Duplicated,
    Reordered,
    Corrupted,
    FalseAcks,
    Unchecked,
    Misdelivered,
    Foreign,
    Recovered,
    GatewayBytes,
    GeneratorBytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

/// What kind of value a quantity is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Microseconds.
    Time,
    /// Of 1.
    Share,
    Bytes,
    Number,
}

const TALLIES: [(&str, Tally); 6] = [
    ("count", Tally::Count),
    ("errors", Tally::Errors),
    ("error_rate", Tally::ErrorRate),
    ("late", Tally::Late),
    ("dropped", Tally::Dropped),
    ("rate", Tally::Rate),
];

const WHOLES: [(&str, Whole); 19] = [
    ("connected", Whole::Connected),
    ("peak", Whole::Peak),
    ("lowest", Whole::Lowest),
    ("sessions_lost", Whole::SessionsLost),
    ("sessions_failed", Whole::SessionsFailed),
    ("sent", Whole::Sent),
    ("acked", Whole::Acked),
    ("delivered", Whole::Delivered),
    ("lost", Whole::Lost),
    ("unchecked", Whole::Unchecked),
    ("duplicated", Whole::Duplicated),
    ("reordered", Whole::Reordered),
    ("corrupted", Whole::Corrupted),
    ("false_acks", Whole::FalseAcks),
    ("misdelivered", Whole::Misdelivered),
    ("foreign", Whole::Foreign),
    ("recovered", Whole::Recovered),
    ("gateway_bytes_per_session", Whole::GatewayBytes),
    ("generator_bytes_per_session", Whole::GeneratorBytes),
];

const COMPARISONS: [(&str, Comparison); 6] = [
    // Longer ones first, so that `<=` is not taken for `<`.
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl Objective {
    /// The operation that it is about, if it is about one.
    pub fn operation(&self) -> Option<Operation> {
        match self.quantity {
            Quantity::Latency(_, operation, _) => Some(operation),
            Quantity::Tally(_, operation) => operation,
            Quantity::Whole(_) => None,
        }
    }

    /// Whether it says how often an operation may fail.
    pub fn is_about_failures_of(&self, operation: Operation) -> bool {
        let Quantity::Tally(Tally::Errors | Tally::ErrorRate, about) = self.quantity else {
            return false;
        };
        about.is_none_or(|about| about == operation)
    }

    /// Whether it holds in a finished run; of a ramp in its last good step.
    pub fn judge(&self, outcome: &Outcome) -> Verdict {
        let measured = match self.quantity {
            Quantity::Whole(whole) => {
                let good = outcome.steps.iter().rev().find(|step| step.is_good());
                let counts = good.and_then(|step| whole.of_step(step));
                counts.or_else(|| whole.of_run(outcome))
            }
            quantity => quantity.measure(&Part::of_run(outcome)),
        };
        self.verdict(measured)
    }

    /// Whether it holds in a step of a ramp. Nothing for memory, which is only known of a whole run.
    pub fn judge_step(&self, step: &Step, seconds: f64) -> Option<Verdict> {
        match self.quantity {
            Quantity::Whole(whole) => Some(self.verdict(Some(whole.of_step(step)?))),
            quantity => Some(self.verdict(quantity.measure(&Part::of_step(step, seconds)))),
        }
    }

    fn verdict(&self, measured: Option<f64>) -> Verdict {
        let unit = self.quantity.unit();
        Verdict {
            objective: self.text.clone(),
            holds: measured.is_some_and(|value| self.comparison.holds(value, self.bound)),
            measured,
            shown: measured.map_or_else(|| "not measured".into(), |value| unit.show(value)),
        }
    }
}

/// What is measured by operation: a run, or a step of a ramp.
struct Part<'a> {
    records: Vec<(Operation, &'a OperationRecord)>,
    seconds: f64,
    acked_per_second: f64,
}

impl<'a> Part<'a> {
    fn of_run(outcome: &'a Outcome) -> Self {
        let records = Operation::ALL
            .into_iter()
            .filter_map(|operation| Some((operation, outcome.record_of(operation)?)));
        Self {
            records: records.collect(),
            seconds: outcome.phases.measured,
            acked_per_second: outcome.rate_per_second(),
        }
    }

    fn of_step(step: &'a Step, seconds: f64) -> Self {
        let records = step.measured.iter().collect();
        Self { records, seconds, acked_per_second: step.throughput.acked }
    }

    fn record(&self, operation: Operation) -> Option<&'a OperationRecord> {
        self.records.iter().find(|(of, _)| *of == operation).map(|(_, record)| *record)
    }
}

impl FromStr for Objective {
    type Err = ObjectiveError;

    fn from_str(text: &str) -> Result<Self, ObjectiveError> {
        parse::objective(text)
    }
}

/// As it was written.
impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Quantity {
    fn unit(self) -> Unit {
        match self {
            Self::Latency(..) => Unit::Time,
            Self::Tally(Tally::ErrorRate, _) => Unit::Share,
            Self::Whole(Whole::GatewayBytes | Whole::GeneratorBytes) => Unit::Bytes,
            Self::Tally(..) | Self::Whole(_) => Unit::Number,
        }
    }

    /// Nothing for what is only known of a whole run.
    fn measure(self, part: &Part<'_>) -> Option<f64> {
        match self {
            Self::Latency(statistic, operation, clock) => {
                let record = part.record(operation)?;
                let histogram = match clock {
                    Clock::Response => &record.response,
                    Clock::Service => &record.service,
                };
                let value = match statistic {
                    Statistic::Quantile(quantile) => histogram.value_at_quantile(quantile) as f64,
                    Statistic::Max => histogram.max() as f64,
                    Statistic::Mean => histogram.mean(),
                };
                (!histogram.is_empty()).then_some(value)
            }
            // An operation that never ended, well or badly, was not measured.
            Self::Tally(tally, Some(operation)) => {
                Some(tally.of(&[part.record(operation)?], part.seconds))
            }
            Self::Tally(Tally::Rate, None) => Some(part.acked_per_second),
            Self::Tally(tally, None) => {
                let all: Vec<_> = part.records.iter().map(|(_, record)| *record).collect();
                Some(tally.of(&all, part.seconds))
            }
            Self::Whole(_) => None,
        }
    }
}

impl Tally {
    fn of(self, records: &[&OperationRecord], seconds: f64) -> f64 {
        let sum = |part: fn(&OperationRecord) -> u64| -> f64 {
            records.iter().map(|record| part(record)).sum::<u64>() as f64
        };
        let per = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let (count, errors) = (sum(OperationRecord::count), sum(OperationRecord::failed));
        match self {
            Self::Count => count,
            Self::Errors => errors,
            Self::ErrorRate => per(errors, errors + count),
            Self::Late => sum(|record| record.late),
            Self::Dropped => sum(|record| record.dropped),
            Self::Rate => per(count, seconds),
        }
    }
}

impl Whole {
    fn of_run(self, outcome: &Outcome) -> Option<f64> {
        match self {
            Self::GatewayBytes => outcome.target.as_ref()?.bytes_per_session,
            Self::GeneratorBytes => outcome.generator.bytes_per_session,
            count => count.count(&outcome.sessions, &outcome.correctness),
        }
    }

    /// Nothing for memory, which is read before the first step.
    fn of_step(self, step: &Step) -> Option<f64> {
        let counts = step.counts.as_ref()?;
        self.count(&counts.sessions, &counts.correctness)
    }

    fn count(self, sessions: &Sessions, found: &Correctness) -> Option<f64> {
        let count = match self {
            Self::Connected => sessions.connected,
            Self::Peak => sessions.peak,
            Self::Lowest => sessions.lowest,
            Self::SessionsLost => sessions.lost,
            Self::SessionsFailed => sessions.failed,
            Self::Sent => found.sent,
            Self::Acked => found.acked,
            Self::Delivered => found.delivered,
            Self::Lost => found.lost,
            Self::Duplicated => found.duplicated,
            Self::Reordered => found.reordered,
            Self::Corrupted => found.corrupted,
            Self::FalseAcks => found.false_acks,
            Self::Unchecked => found.unchecked,
            Self::Misdelivered => found.misdelivered,
            Self::Foreign => found.foreign,
            Self::Recovered => found.recovered,
            Self::GatewayBytes | Self::GeneratorBytes => return None,
        };
        Some(count as f64)
    }
}

impl Comparison {
    fn holds(self, measured: f64, bound: f64) -> bool {
        match self {
            Self::Less => measured < bound,
            Self::LessOrEqual => measured <= bound,
            Self::Greater => measured > bound,
            Self::GreaterOrEqual => measured >= bound,
            Self::Equal => measured == bound,
            Self::NotEqual => measured != bound,
        }
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Time => show_us(value),
            Self::Share => format!("{:.3}%", value * 100.0),
            Self::Bytes => format!("{value:.0} bytes"),
            Self::Number if value.fract() == 0.0 => format!("{value:.0}"),
            Self::Number => format!("{value:.1}"),
        }
    }
}

/// A time for people, with three digits that count.
pub fn show_us(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 1e3 => (us, "us"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let decimals = match value {
        value if unit == "us" || value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {unit}")
}

/// See [`show_us`].
pub fn show_duration(time: Duration) -> String {
    show_us(time.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests;
