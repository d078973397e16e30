//! Reports of the shards, joined second by second.

use std::collections::BTreeMap;

use crate::clock::{Nanos, SECOND};
use crate::outcome::{self, Correctness, Phase, Point, PointOperation, Sessions};
use crate::record::{Recording, count_failure};
use crate::swarm::{Report, Tally};
use crate::verify::Ledger;

/// Points of a timeline: an hour of seconds. A longer run has coarser ones, so that what a run
/// keeps (a few KB a point) does not grow with its length.
const MAX_POINTS: usize = 3600;

/// Everything that the shards have said.
#[derive(Debug)]
pub(super) struct Collected {
    /// The latest of each shard.
    latest: Vec<(Tally, Ledger)>,
    /// Seconds that not all shards have reported.
    open: BTreeMap<u32, Open>,
    /// Shards that have said their last.
    ended: usize,
    pub(super) measured: Recording,
    pub(super) unmeasured: Recording,
    /// The figures are complete: what comes late, of a step of a ramp that was too much, is none of
    /// them.
    pub(super) is_complete: bool,
    /// At most [`MAX_POINTS`]; all begin at a multiple of `point_seconds`.
    pub(super) timeline: Vec<Point>,
    point_seconds: u32,
    /// Counts at the end of the last second of the timeline.
    before: Correctness,
    peak: u64,
    lowest: Option<u64>,
    /// Sessions at the end of the last second that was measured.
    pub(super) connected: Option<u64>,
}

/// A second that is not complete.
#[derive(Debug, Default)]
struct Open {
    reports: usize,
    recording: Recording,
    behind: Nanos,
}

/// Sums over all shards.
#[derive(Debug, Default)]
pub(super) struct Sum {
    pub(super) tally: Tally,
    pub(super) ledger: Ledger,
}

impl Sum {
    /// Things that may still arrive.
    pub(super) fn under_way(&self) -> u64 {
        let (tally, ledger) = (&self.tally, &self.ledger);
        let coming = tally.connecting + tally.away;
        ledger.open_acks + ledger.open_deliveries + tally.queued + tally.syncing + coming
    }

    /// Messages that have not come as they should have.
    pub(super) fn missing(&self) -> u64 {
        let ledger = &self.ledger;
        ledger.open_acks + ledger.open_deliveries + self.tally.queued + ledger.found.lost
    }

    /// Whether nothing more will come to light of what is missing.
    pub(super) fn is_settled(&self) -> bool {
        self.ledger.open_acks == 0 && self.tally.unsettled == Some(0)
    }
}

impl Collected {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            latest: vec![Default::default(); shards],
            open: BTreeMap::new(),
            ended: 0,
            measured: Recording::new(),
            unmeasured: Recording::new(),
            is_complete: false,
            timeline: Vec::new(),
            point_seconds: 1,
            before: Correctness::default(),
            peak: 0,
            lowest: None,
            connected: None,
        }
    }

    /// Takes a report. The point of the second that it completes, with nothing about processes in
    /// it.
    pub(super) fn take(&mut self, report: Report, phase: Phase) -> Option<Point> {
        self.latest[report.shard] = (report.tally, report.ledger);
        match self.is_complete {
            true => self.unmeasured.merge(&report.measured),
            false => self.measured.merge(&report.measured),
        }
        self.unmeasured.merge(&report.unmeasured);
        let open = self.open.entry(report.second).or_default();
        open.recording.merge(&report.measured);
        open.recording.merge(&report.unmeasured);
        open.behind = open.behind.max(report.behind);
        open.reports += 1;
        self.ended += usize::from(report.last);
        if open.reports < self.latest.len() {
            return None;
        }
        let open = self.open.remove(&report.second)?;
        let mut point = self.point(report.second, phase, &open.recording);
        point.health.behind = open.behind as f64 / SECOND as f64;
        Some(point)
    }

    /// Adds a point to the timeline, which becomes coarser when it is full.
    pub(super) fn push(&mut self, point: Point) {
        while self.timeline.len() >= MAX_POINTS {
            self.point_seconds = self.point_seconds.saturating_mul(2);
            outcome::coarsen(&mut self.timeline, self.point_seconds);
        }
        outcome::append(&mut self.timeline, point, self.point_seconds);
    }

    /// Whether all shards have said their last.
    pub(super) fn is_over(&self) -> bool {
        self.ended >= self.latest.len()
    }

    fn point(&mut self, second: u32, phase: Phase, recording: &Recording) -> Point {
        let sum = self.sum();
        let live = sum.tally.live;
        self.peak = self.peak.max(live);
        if phase == Phase::Measured {
            self.lowest = Some(self.lowest.map_or(live, |lowest| lowest.min(live)));
            self.connected = Some(live);
        }
        let found = sum.ledger.found;
        let before = std::mem::replace(&mut self.before, found);
        Point {
            second,
            seconds: 1,
            phase,
            connected: live,
            connecting: sum.tally.connecting,
            sent: found.sent - before.sent,
            acked: found.acked - before.acked,
            delivered: found.delivered - before.delivered,
            operations: recording
                .iter()
                .map(|(operation, record)| (operation, PointOperation::of(record)))
                .collect(),
            ..Point::default()
        }
    }

    pub(super) fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        sum.tally.unsettled = self.latest.iter().map(|(tally, _)| tally.unsettled).sum();
        for (tally, ledger) in &self.latest {
            sum.tally.live += tally.live;
            sum.tally.connecting += tally.connecting;
            sum.tally.away += tally.away;
            sum.tally.logins += tally.logins;
            sum.tally.lost += tally.lost;
            sum.tally.failed += tally.failed;
            sum.tally.expected += tally.expected;
            sum.tally.resumed += tally.resumed;
            sum.tally.fill_left += tally.fill_left;
            sum.tally.syncing += tally.syncing;
            sum.tally.queued += tally.queued;
            for (&failure, &count) in &tally.ends {
                count_failure(&mut sum.tally.ends, failure, count);
            }
            sum.ledger.found.merge(&ledger.found);
            sum.ledger.open_acks += ledger.open_acks;
            sum.ledger.open_deliveries += ledger.open_deliveries;
        }
        sum
    }

    /// So far; `connected` is the number now.
    pub(super) fn sessions(&self, planned: u64) -> Sessions {
        let tally = self.sum().tally;
        let live = tally.live;
        let lowest = self.lowest.unwrap_or(live);
        let peak = self.peak.max(live);
        Sessions {
            planned,
            connected: live,
            peak,
            lowest,
            logins: tally.logins,
            lost: tally.lost,
            failed: tally.failed,
            expected: tally.expected,
            resumed: tally.resumed,
            ends: tally.ends,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Operation;
    use crate::outcome::Throughput;

    #[test]
    fn what_comes_behind_the_figures_is_none_of_them() {
        let mut all = Collected::new(1);
        let mut measured = Recording::new();
        measured.success(Operation::Login, 1000, 500);
        let report = |second| Report {
            shard: 0,
            second,
            measured: measured.clone(),
            unmeasured: Recording::new(),
            tally: Default::default(),
            ledger: Default::default(),
            behind: 0,
            last: false,
        };
        all.take(report(1), Phase::Measured);
        all.is_complete = true;
        all.take(report(2), Phase::Drain);
        let count = |recording: &Recording| recording.get(Operation::Login).unwrap().count();
        assert_eq!((count(&all.measured), count(&all.unmeasured)), (1, 1));
    }

    /// A run of ten days: nothing is lost but the resolution.
    #[test]
    fn a_long_timeline_becomes_coarser_and_stays_whole() {
        let seconds = 10 * 86_400;
        let mut all = Collected::new(1);
        let mut recording = Recording::new();
        recording.success(Operation::Login, 1000, 500);
        let one = PointOperation::of(recording.get(Operation::Login).unwrap());
        for second in 0..seconds {
            let mut point = Point { second, seconds: 1, acked: 3, ..Point::default() };
            point.generator_cpu = 0.25;
            if second % 3600 == 0 {
                point.operations.insert(Operation::Login, one.clone());
            }
            all.push(point);
            assert!(all.timeline.len() <= MAX_POINTS);
        }
        let points = &all.timeline;
        assert!(points.len() > MAX_POINTS / 2);
        let gapless = |pair: &[Point]| pair[0].second + pair[0].seconds == pair[1].second;
        assert!(points.windows(2).all(gapless));
        assert_eq!(points.iter().map(|point| point.seconds).sum::<u32>(), seconds);
        assert!(points.iter().all(|point| point.generator_cpu == 0.25));
        let logins = points.iter().filter_map(|point| point.operations.get(&Operation::Login));
        let counts = logins.map(|one| (one.count, one.response.unpack().unwrap().len()));
        assert_eq!(counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1)), (240, 240));
        assert_eq!(Throughput::of(points.iter()).acked, 3.0);
    }
}
