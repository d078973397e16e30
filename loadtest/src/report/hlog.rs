//! HdrHistogram's interval logs of an operation, in microseconds, for the HdrHistogram tools.
//!
//! ```text
//! send_ack.hlog           response times of what was measured, one interval
//! send_ack.service.hlog   service times of the same
//! send_ack.seconds.hlog   response times of the whole run, an interval for each second (of a run of
//!                         hours: for every few)
//! ```
//!
//! What the tools say of the first two equals `summary.json`. The seconds are of what ended in them,
//! due within the measured phase or not, so they add up to something else.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError};

use crate::operation::Operation;
use crate::outcome::Outcome;
use crate::record::OperationRecord;

/// Microseconds in a millisecond, the unit of a file's column of maxima: what the tools expect.
const MAX_DIVISOR: f64 = 1000.0;

/// Which log of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    /// What was measured, from the moment at which it was due.
    Response,
    /// What was measured, from the moment at which it was begun.
    Service,
    /// Every second of the run, from the moment at which it was due.
    Seconds,
}

impl Log {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Response, Self::Service, Self::Seconds];

    /// Name of an operation's file.
    pub(super) fn file_name(self, operation: Operation) -> String {
        match self {
            Self::Response => format!("{operation}.hlog"),
            Self::Service => format!("{operation}.service.hlog"),
            Self::Seconds => format!("{operation}.seconds.hlog"),
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Response => "response times of what was measured",
            Self::Service => "service times of what was measured",
            Self::Seconds => "response times of the whole run, second by second",
        }
    }
}

/// Writes a log of an operation. Returns whether there was anything.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(
    outcome: &Outcome,
    operation: Operation,
    log: Log,
    to: &mut impl Write,
) -> io::Result<bool> {
    let intervals = match log {
        Log::Response => whole(outcome, operation, |record| &record.response),
        Log::Service => whole(outcome, operation, |record| &record.service),
        Log::Seconds => seconds(outcome, operation),
    };
    if intervals.is_empty() {
        return Ok(false);
    }
    let started = UNIX_EPOCH + Duration::from_millis(outcome.started_ms);
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new();
    writer
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!("{operation}: {}, in microseconds", log.about()))
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(MAX_DIVISOR);
    let mut writer = writer.begin_log_with(to, &mut serializer)?;
    for (begin, length, histogram) in intervals {
        let (begin, length) = (Duration::from_secs_f64(begin), Duration::from_secs_f64(length));
        writer.write_histogram(&histogram, begin, length, None).map_err(|error| match error {
            IntervalLogWriterError::IoError(error) => error,
            IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
        })?;
    }
    Ok(true)
}

/// Begin and length in seconds, and what was measured in between.
type Interval<'a> = (f64, f64, Cow<'a, Histogram<u64>>);

fn whole(
    outcome: &Outcome,
    operation: Operation,
    part: fn(&OperationRecord) -> &Histogram<u64>,
) -> Vec<Interval<'_>> {
    let phases = &outcome.phases;
    let (begin, length) = match outcome.measured.get(operation) {
        Some(_) => (phases.ramp + phases.warm_up, phases.measured),
        None => (0.0, phases.ramp),
    };
    let histogram = outcome.record_of(operation).map(part).filter(|one| !one.is_empty());
    histogram.map(|one| (begin, length, Cow::Borrowed(one))).into_iter().collect()
}

fn seconds(outcome: &Outcome, operation: Operation) -> Vec<Interval<'_>> {
    let points = outcome.timeline.iter().filter_map(|point| {
        let histogram = point.operations.get(&operation)?.response.unpack().ok()?;
        let (begin, length) = (f64::from(point.second), f64::from(point.seconds));
        (!histogram.is_empty()).then_some((begin, length, Cow::Owned(histogram)))
    });
    points.collect()
}
