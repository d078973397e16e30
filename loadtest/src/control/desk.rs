//! What lies between the run, which says each second what was done, and the users of Goose, which
//! take it into Goose's metrics when they come to it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::operation::Operation;
use crate::outcome::{Phase, Point, PointOperation};
use crate::plan::{Plan, Work};

/// Operations of one kind and second that Goose is told of, at most: each costs it a few
/// microseconds, and all of them together may cost the data plane nothing.
pub(super) const A_SECOND: u64 = 250;

/// Failures of one kind and second that Goose is told of, at most.
const FAILURES: u64 = 50;

/// Seconds of one operation that may lie here. Older ones are forgotten: Goose stands still, and
/// memory is for the run.
const WAITING: usize = 60;

/// One operation of one second, as Goose is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// `ramp`, `warm_up`, `measured` or `drain`.
    pub(super) phase: &'static str,
    pub(super) operation: Operation,
    /// Response times of those that went well.
    pub(super) times: Vec<Duration>,
    pub(super) failures: u64,
}

/// See the module's words.
#[derive(Debug)]
pub(super) struct Desk {
    /// Whose each operation is, by index.
    owners: [usize; Operation::ALL.len()],
    /// A row for each fleet.
    rows: Vec<Mutex<VecDeque<Batch>>>,
    over: AtomicBool,
}

impl Desk {
    pub(super) fn new(plan: &Plan) -> Self {
        let fleets = plan.fleets.len().max(1);
        Self {
            owners: Operation::ALL.map(|operation| {
                let does = |work: &Work| does(work, operation);
                plan.fleets.iter().position(|fleet| does(&fleet.work)).unwrap_or(0)
            }),
            rows: (0..fleets).map(|_| Mutex::default()).collect(),
            over: AtomicBool::new(false),
        }
    }

    /// A second is over.
    pub(super) fn put(&self, point: &Point) {
        for (operation, done) in &point.operations {
            let batch = Batch {
                phase: phase(point.phase),
                operation: *operation,
                times: times(done),
                failures: done.errors.min(FAILURES),
            };
            let Some(row) = self.rows.get(self.owners[operation.index()]) else { continue };
            let mut row = row.lock().unwrap_or_else(PoisonError::into_inner);
            if row.len() >= WAITING * Operation::ALL.len() {
                row.pop_front();
            }
            row.push_back(batch);
        }
    }

    /// The next of a fleet's.
    pub(super) fn take(&self, fleet: usize) -> Option<Batch> {
        self.rows.get(fleet)?.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// The run is over.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Whether nothing waits to be taken.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.iter().all(|row| row.lock().unwrap_or_else(PoisonError::into_inner).is_empty())
    }
}

/// Whether a fleet of this kind is one whose operation this is. Connects and logins are everybody's.
fn does(work: &Work, operation: Operation) -> bool {
    match operation {
        Operation::Connect | Operation::Login | Operation::Resume => true,
        Operation::SendAck | Operation::Deliver => work.traffic().is_some(),
        Operation::FanOut => matches!(work, Work::Group { .. }),
        Operation::Sync => matches!(work, Work::Sync { .. }),
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Ramp => "ramp",
        Phase::WarmUp => "warm_up",
        Phase::Measured => "measured",
        Phase::Drain | Phase::Over => "drain",
    }
}

/// All response times of a second, or as many as Goose is told of, evenly over the percentiles and
/// with the longest among them.
fn times(done: &PointOperation) -> Vec<Duration> {
    let Ok(histogram) = done.response.unpack() else { return Vec::new() };
    let all = histogram.len();
    if all > A_SECOND {
        return sample(&histogram, A_SECOND);
    }
    let values = histogram.iter_recorded();
    values
        .flat_map(|value| (0..value.count_at_value()).map(move |_| value.value_iterated_to()))
        .map(Duration::from_micros)
        .collect()
}

fn sample(histogram: &Histogram<u64>, count: u64) -> Vec<Duration> {
    let middle = |number: u64| (number as f64 + 0.5) / count as f64;
    let quantiles = (0..count - 1).map(middle).chain([1.0]);
    quantiles.map(|quantile| Duration::from_micros(histogram.value_at_quantile(quantile))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Recording;
    use crate::sample;

    fn point(phase: Phase, count: u64) -> Point {
        let mut recording = Recording::new();
        (0..count).for_each(|at| recording.success(Operation::SendAck, 1000 + at, 1000));
        let record = recording.get(Operation::SendAck).map(PointOperation::of);
        let operations = record.map(|one| (Operation::SendAck, one)).into_iter().collect();
        Point { phase, operations, ..Point::default() }
    }

    #[test]
    fn few_are_told_as_they_were_and_many_by_their_percentiles() {
        let desk = Desk::new(&sample::empty().plan);
        desk.put(&point(Phase::Measured, 3));
        let batch = desk.take(0).unwrap();
        assert_eq!((batch.phase, batch.operation), ("measured", Operation::SendAck));
        assert_eq!(batch.times, [1000, 1001, 1002].map(Duration::from_micros));
        desk.put(&point(Phase::WarmUp, 100_000));
        let batch = desk.take(0).unwrap();
        assert_eq!(batch.times.len() as u64, A_SECOND);
        let near =
            |time: Duration, us: u64| time.as_micros().abs_diff(us.into()) <= us as u128 / 100;
        assert!(near(batch.times[batch.times.len() / 2], 51_000), "{:?}", batch.times);
        assert!(near(*batch.times.last().unwrap(), 101_000));
        assert!(desk.is_empty() && desk.take(0).is_none());
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let desk = Desk::new(&sample::empty().plan);
        (0..10_000).for_each(|_| desk.put(&point(Phase::Measured, 1)));
        let waiting = std::iter::from_fn(|| desk.take(0)).count();
        assert_eq!(waiting, WAITING * Operation::ALL.len());
        assert!(!desk.is_over());
        desk.end();
        assert!(desk.is_over());
    }
}
