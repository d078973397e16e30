//! A ladder of loads: up until one is too much, then between the last good and the first bad one.

use super::Stage;
use super::conduct::{AHEAD, Conductor, Ended};
use super::search::Search;
use crate::clock::{self, Nanos, SECOND, length};
use crate::outcome::{Phase, Step, StepCounts};
use crate::plan::{Fleet, Ladder, Load};
use crate::record::Recording;
use crate::swarm::Order;

/// What an outcome tells of the last good step.
struct Best {
    measured: Recording,
    seconds: f64,
    /// Processor seconds of generator and target.
    cpu: [f64; 2],
}

impl Conductor {
    /// Raises the load until it is too much. Every step is warmed up and measured like a run of its
    /// own; the outcome's figures are those of the last good one.
    pub(super) fn climb(&mut self, ladder: &Ladder) {
        let Some(let_on) = self.pass(Stage::Load) else { return };
        self.phase = Phase::WarmUp;
        let from = let_on + AHEAD;
        self.swarm.tell(|| Order::Load(from));
        let mut judge = self.hooks.judge.take();
        let mut best: Option<Best> = None;
        let mut search = Search::new(ladder);
        while let Some(load) = search.next() {
            let Some((mut step, seconds)) = self.step(load, ladder) else { break };
            let acked = step.throughput.acked;
            if acked < load * ladder.least_share {
                step.broken.push(format!(
                    "rate: {acked:.0} of {load:.0} messages a second were acknowledged"
                ));
            }
            step.broken.extend(judge.as_mut().map(|judge| judge(&step)).unwrap_or_default());
            let is_good = step.broken.is_empty();
            let cpu = [self.generator.lap(), self.target.lap()];
            if is_good {
                best = Some(Best { measured: step.measured.clone(), seconds, cpu });
            }
            search.judge(load, is_good);
            self.steps.push(step);
            if !is_good && search.goes_on() && !self.recover() {
                break;
            }
        }
        self.collected.measured = Recording::new();
        self.collected.is_complete = true;
        if let Some(Best { measured, seconds, cpu: [generator, target] }) = best {
            self.collected.measured = measured;
            self.phases.measured = seconds;
            self.generator.is_of(generator);
            self.target.is_of(target);
        }
    }

    /// One step; none: the run is to end.
    fn step(&mut self, load: f64, ladder: &Ladder) -> Option<(Step, f64)> {
        self.set_load(load);
        self.mark(format!("{load:.0} messages a second"));
        let warm = clock::now() + AHEAD + length(ladder.settle);
        let second = (warm - self.begin).div_ceil(SECOND);
        let start = self.begin + second * SECOND;
        let window = start..start + length(ladder.hold).max(SECOND);
        self.measure(window.clone());
        if self.wait(window.start, |_| None) == Ended::Stop {
            return None;
        }
        self.phase = Phase::Measured;
        self.collected.measured = Recording::new();
        let before = self.counts();
        let ended = self.wait(window.end, |_| None);
        self.phase = Phase::WarmUp;
        // What is under way belongs to the step as well.
        let patience = clock::now() + length(self.plan.answer_timeout).min(2 * SECOND);
        self.wait(patience, |_| None);
        let measured = std::mem::take(&mut self.collected.measured);
        let seconds = self.seconds(window.start, window.end);
        let throughput = self.meter.read();
        let mut counts = self.counts_since(&before, second);
        // The load goes on while what is under way is waited for, and is no part of the step.
        let of_window = |rate: f64| (rate * seconds).round() as u64;
        counts.correctness.sent = of_window(throughput.sent);
        counts.correctness.acked = of_window(throughput.acked);
        counts.correctness.delivered = of_window(throughput.delivered);
        let counts = Some(counts);
        let step = Step { load, throughput, measured, counts, ..Step::default() };
        (ended != Ended::Stop).then_some((step, seconds))
    }

    fn counts(&self) -> StepCounts {
        let sessions = self.collected.sessions(self.plan.sessions());
        StepCounts { sessions, correctness: self.collected.sum().ledger.found }
    }

    /// What a step counted that began at a second of the timeline.
    fn counts_since(&self, before: &StepCounts, second: u64) -> StepCounts {
        let mut counts = self.counts();
        counts.correctness = counts.correctness.since(&before.correctness);
        let (mine, theirs) = (&mut counts.sessions, &before.sessions);
        mine.lost = mine.lost.saturating_sub(theirs.lost);
        mine.failed = mine.failed.saturating_sub(theirs.failed);
        let points = self.collected.timeline.iter().rev();
        let points = points.take_while(|point| u64::from(point.second) >= second);
        let live = points.map(|point| point.connected).chain([mine.connected]);
        (mine.lowest, mine.peak) =
            live.fold((u64::MAX, 0), |(low, high), live| (low.min(live), high.max(live)));
        counts
    }

    /// What a load that was too much left behind is no part of the next one. `false`: the run is to
    /// end.
    fn recover(&mut self) -> bool {
        self.set_load(0.0);
        let from = clock::now();
        // By then everything has been answered or given up.
        let deadline = from + length(self.plan.answer_timeout) + 2 * SECOND;
        let fresh = from + SECOND + AHEAD;
        let ended = self.wait(deadline, |sum| {
            (clock::now() >= fresh && sum.under_way() == 0).then_some(Ended::There)
        });
        ended != Ended::Stop
    }

    /// All fleets that write at a rate share the load as their rates do.
    fn set_load(&self, load: f64) {
        let rates: Vec<(usize, f64)> =
            self.plan.fleets.iter().enumerate().filter_map(rate).collect();
        let whole: f64 = rates.iter().map(|(_, rate)| rate).sum();
        let from: Nanos = clock::now() + AHEAD;
        for (fleet, rate) in rates {
            let per_second = if whole > 0.0 { load * rate / whole } else { 0.0 };
            self.swarm.tell(|| Order::Rate { fleet, per_second, from });
        }
    }
}

fn rate((index, fleet): (usize, &Fleet)) -> Option<(usize, f64)> {
    match fleet.work.traffic()?.load {
        Load::Rate { per_second, .. } => Some((index, per_second)),
        _ => None,
    }
}
