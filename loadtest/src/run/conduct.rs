//! The phases of a run, one after the other, and what happens at given times within them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::collect::{Collected, Sum};
use super::footprint::Gauge;
use super::{Hooks, Shared, Stage, lock, reason};
use crate::clock::{self, Nanos, SECOND, length};
use crate::doctor::Machine;
use crate::health::{self, Evidence, Target, Watch};
use crate::operation::Failure;
use crate::outcome::{
    Health, Mark, Outcome, Phase, PhaseSeconds, Point, ReasonKind, SCHEMA, Snapshot, Step,
    Throughput,
};
use crate::plan::{Cut, Ladder, Load, Plan, Work};
use crate::process::Usage;
use crate::record::Recording;
use crate::swarm::{CutHow, Order, Report, Swarm};

/// How often the conductor looks up between reports.
const GLANCE: Duration = Duration::from_millis(20);

/// From an order to the time that it is about: every shard has it by then.
const AHEAD: Nanos = SECOND / 10;

/// A ramp in which nothing happens at all for this long will never be complete.
const STANDSTILL: Nanos = 40 * SECOND;

/// Conducts one run.
pub(super) struct Conductor {
    plan: Arc<Plan>,
    swarm: Swarm,
    reports: Receiver<Report>,
    hooks: Hooks,
    shared: Arc<Shared>,
    begin: Nanos,
    started_ms: u64,
    collected: Collected,
    phase: Phase,
    /// When the plan will be over, once that is known.
    end: Option<Nanos>,
    generator: Gauge,
    target: Gauge,
    watch: Watch,
    marks: Vec<Mark>,
    phases: PhaseSeconds,
    steps: Vec<Step>,
}

/// Why waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// What was waited for is there.
    There,
    /// The time is over.
    Time,
    /// Somebody wants the run to end.
    Stop,
}

impl Conductor {
    pub(super) fn new(
        plan: Arc<Plan>,
        swarm: Swarm,
        reports: Receiver<Report>,
        hooks: Hooks,
        shared: Arc<Shared>,
        (begin, started_ms): (Nanos, u64),
    ) -> Self {
        let collected = Collected::new(swarm.shards());
        Self {
            plan,
            swarm,
            reports,
            hooks,
            shared,
            begin,
            started_ms,
            collected,
            phase: Phase::Ramp,
            end: None,
            generator: Gauge::default(),
            target: Gauge::default(),
            watch: Watch::new(),
            marks: Vec::new(),
            phases: PhaseSeconds::default(),
            steps: Vec::new(),
        }
    }

    /// The whole run.
    pub(super) fn conduct(mut self) -> Outcome {
        let went_on = self.begin() && self.ramp() && self.fill();
        self.phases.ramp = self.seconds(self.begin, clock::now());
        if went_on {
            match self.plan.ladder.clone() {
                Some(ladder) => self.climb(&ladder),
                None => self.load(),
            }
        }
        self.drain();
        self.finish()
    }

    // ---- pace

    /// Seconds count from here. `false`: it is over.
    fn begin(&mut self) -> bool {
        let let_on = self.pass(Stage::Start);
        self.begin = let_on.unwrap_or_else(clock::now);
        self.shared.begin.store(self.begin, Ordering::Relaxed);
        let begin = self.begin;
        self.swarm.tell(|| Order::Begin(begin));
        let_on.is_some()
    }

    /// Waits to be let on, and then for the moment at which the stage begins; `None`: it is over.
    fn pass(&mut self, stage: Stage) -> Option<Nanos> {
        let Some(gate) = self.hooks.gate.clone() else { return Some(clock::now()) };
        gate.arrive(stage);
        loop {
            let at = gate.opened(stage);
            let until = at.unwrap_or_else(|| clock::now() + length(GLANCE));
            match self.wait(until, |_| None) {
                Ended::Stop => return None,
                _ if at.is_some() => return at,
                _ => {}
            }
        }
    }

    // ---- ramp

    /// All sessions, with a rest at the plateau and at the end. `false`: it is over.
    fn ramp(&mut self) -> bool {
        let planned = self.plan.sessions();
        let plateau = (planned as f64 * self.plan.phases.plateau.clamp(0.0, 1.0)) as u64;
        let deadline = clock::now() + length(self.plan.phases.ramp_limit);
        for (part, count) in [(self.plan.phases.plateau, plateau), (1.0, planned)] {
            if count == 0 {
                continue;
            }
            self.swarm.tell(|| Order::Ramp(part));
            let ended = self.wait_for_sessions(count, deadline);
            if ended == Ended::Time {
                self.swarm.tell(|| Order::EndRamp);
                let live = self.collected.sum().tally.live;
                self.invalidate(
                    ReasonKind::RampIncomplete,
                    format!("{live} of {planned} sessions were there when the ramp was given up"),
                );
                return true;
            }
            if ended == Ended::Stop || !self.rest() {
                return false;
            }
        }
        true
    }

    fn wait_for_sessions(&mut self, count: u64, deadline: Nanos) -> Ended {
        let mut last = (0, clock::now());
        self.wait(deadline, |sum| {
            let tally = &sum.tally;
            let seen = tally.logins + tally.connecting;
            if seen != last.0 {
                last = (seen, clock::now());
            }
            let stands_still = tally.connecting == 0 && clock::now() > last.1 + STANDSTILL;
            match tally.live >= count {
                true => Some(Ended::There),
                false => stands_still.then_some(Ended::Time),
            }
        })
    }

    /// Lets memory come to rest, and reads it.
    fn rest(&mut self) -> bool {
        let settle = length(self.plan.phases.settle);
        if settle == 0 {
            return true;
        }
        if self.wait(clock::now() + settle, |_| None) == Ended::Stop {
            return false;
        }
        let live = self.collected.sum().tally.live;
        if let Some(usage) = Usage::own() {
            self.generator.rest(live, usage.rss);
        }
        if let Some(usage) = self.target().usage() {
            self.target.rest(live, usage.rss);
        }
        true
    }

    /// The backlogs are written before anything is measured.
    fn fill(&mut self) -> bool {
        if !self.plan.fleets.iter().any(|fleet| matches!(fleet.work, Work::Sync { .. })) {
            return true;
        }
        let planned = self.plan.fleets.iter().map(|fleet| match fleet.work {
            Work::Sync { receivers, backlog, .. } => receivers * backlog,
            _ => 0,
        });
        let planned: u64 = planned.sum();
        self.mark(format!("writing a backlog of {planned} messages"));
        self.swarm.tell(|| Order::Fill);
        let deadline = clock::now() + length(self.plan.phases.ramp_limit);
        // The orders are obeyed at once, but reported with the next second.
        let mut begun = false;
        let ended = self.wait(deadline, |sum| {
            begun |= sum.tally.fill_left > 0 || sum.ledger.found.acked >= planned;
            (begun && sum.tally.fill_left == 0).then_some(Ended::There)
        });
        if ended == Ended::Time {
            let left = self.collected.sum().tally.fill_left;
            self.invalidate(
                ReasonKind::RampIncomplete,
                format!("{left} of {planned} messages of the backlog could not be written in time"),
            );
        }
        ended == Ended::There
    }

    // ---- load

    /// Warm-up and the measured phase, which begins and ends with a second of the timeline.
    fn load(&mut self) {
        let Some(let_on) = self.pass(Stage::Load) else { return };
        let from = let_on + AHEAD;
        self.phase = Phase::WarmUp;
        let warm = from + length(self.plan.phases.warm_up);
        let measured = length(self.plan.phases.measured);
        let second = (warm - self.begin).div_ceil(SECOND);
        let window = self.begin + second * SECOND..self.begin + second * SECOND + measured;
        self.end = Some(window.end);
        let order = window.clone();
        self.swarm.tell(|| Order::Window(order.clone()));
        self.swarm.tell(|| Order::Load(from));
        let ended = self.wait(window.start, |_| None);
        self.phases.warm_up = self.seconds(from, clock::now());
        if ended == Ended::Stop {
            return;
        }
        self.phase = Phase::Measured;
        let mut storms = self.storms(window.start);
        while let Some((at, fleet, cut)) = storms.pop() {
            if at >= window.end || self.wait(at, |_| None) == Ended::Stop {
                break;
            }
            self.storm(fleet, cut);
        }
        self.wait(window.end, |_| None);
        let now = clock::now().min(window.end);
        self.phases.measured = self.seconds(window.start, now);
        if now < window.end {
            // What is due from here on is not measured.
            let order = window.start..now;
            self.swarm.tell(|| Order::Window(order.clone()));
        }
    }

    /// The storms of the plan, the first one last.
    fn storms(&self, from: Nanos) -> Vec<(Nanos, usize, Cut)> {
        let fleets = self.plan.fleets.iter().enumerate();
        let mut storms: Vec<_> = fleets
            .filter_map(|(index, fleet)| match fleet.work {
                Work::Storm { cut, after, .. } => Some((from + length(after), index, cut)),
                _ => None,
            })
            .collect();
        storms.sort_by_key(|storm| std::cmp::Reverse(storm.0));
        storms
    }

    fn storm(&mut self, fleet: usize, cut: Cut) {
        let tell = |swarm: &Swarm, how| swarm.tell(|| Order::Cut { fleet, how });
        let result = match cut {
            Cut::Close => {
                self.mark("every session is closed".into());
                tell(&self.swarm, CutHow::Close);
                Ok(())
            }
            Cut::Await => {
                tell(&self.swarm, CutHow::Expect);
                return self.mark("waiting for the gateway to be restarted".into());
            }
            Cut::Kill => {
                self.mark("the gateway is killed".into());
                let killed = self.supervise(|supervisor| supervisor.kill());
                // A dead gateway's sessions of all fleets are gone.
                self.cut_all(CutHow::Close);
                killed.and_then(|()| self.supervise(|supervisor| supervisor.start()))
            }
            Cut::Stop => {
                self.mark("the gateway is told to stop".into());
                self.cut_all(CutHow::Expect);
                self.supervise(|supervisor| supervisor.stop())
                    .and_then(|()| self.supervise(|supervisor| supervisor.start()))
            }
        };
        match result {
            Ok(()) if cut == Cut::Close => {}
            Ok(()) => self.mark("the gateway serves again".into()),
            Err(error) => self.invalidate(
                ReasonKind::GeneratorFailed,
                format!("the gateway could not be restarted: {error}"),
            ),
        }
        let from = clock::now();
        let all = 0..self.plan.fleets.len();
        let back = if cut == Cut::Close { fleet..fleet + 1 } else { all };
        if cut != Cut::Stop {
            back.for_each(|fleet| self.swarm.tell(|| Order::Return { fleet, from }));
        }
    }

    fn cut_all(&self, how: CutHow) {
        for fleet in 0..self.plan.fleets.len() {
            self.swarm.tell(|| Order::Cut { fleet, how });
        }
    }

    fn supervise(
        &mut self,
        act: impl FnOnce(&mut dyn super::Supervisor) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        match self.hooks.supervisor.as_deref_mut() {
            Some(supervisor) => act(supervisor),
            None => Err(std::io::Error::other("it is not ours")),
        }
    }

    // ---- a ladder of loads

    /// Raises the load until it is too much. Every step is warmed up and measured like a run of its
    /// own; the outcome's figures are those of the last good one.
    fn climb(&mut self, ladder: &Ladder) {
        let Some(let_on) = self.pass(Stage::Load) else { return };
        self.phase = Phase::WarmUp;
        let from = let_on + AHEAD;
        self.swarm.tell(|| Order::Load(from));
        let mut judge = self.hooks.judge.take();
        let mut best: Option<(Recording, f64)> = None;
        for load in ladder.loads() {
            let Some((mut step, seconds)) = self.step(load, ladder) else { break };
            let acked = step.throughput.acked;
            if acked < load * ladder.least_share {
                step.broken.push(format!(
                    "rate: {acked:.0} of {load:.0} messages a second were acknowledged"
                ));
            }
            step.broken.extend(judge.as_mut().map(|judge| judge(&step)).unwrap_or_default());
            let good = step.broken.is_empty();
            if good {
                best = Some((step.measured.clone(), seconds));
            }
            self.steps.push(step);
            if !good {
                break;
            }
        }
        if let Some((measured, seconds)) = best {
            self.collected.measured = measured;
            self.phases.measured = seconds;
        }
    }

    /// One step; none: the run is to end.
    fn step(&mut self, load: f64, ladder: &Ladder) -> Option<(Step, f64)> {
        self.set_load(load);
        self.mark(format!("{load:.0} messages a second"));
        let warm = clock::now() + AHEAD + length(ladder.settle);
        let second = (warm - self.begin).div_ceil(SECOND);
        let window = self.begin + second * SECOND
            ..self.begin + second * SECOND + length(ladder.hold).max(SECOND);
        let order = window.clone();
        self.swarm.tell(|| Order::Window(order.clone()));
        if self.wait(window.start, |_| None) == Ended::Stop {
            return None;
        }
        self.phase = Phase::Measured;
        self.collected.measured = Recording::new();
        let ended = self.wait(window.end, |_| None);
        self.phase = Phase::WarmUp;
        // What is under way belongs to the step as well.
        let patience = clock::now() + length(self.plan.answer_timeout).min(2 * SECOND);
        self.wait(patience, |_| None);
        let measured = std::mem::take(&mut self.collected.measured);
        let throughput = self.throughput(&window);
        let seconds = self.seconds(window.start, window.end);
        let step = Step { load, throughput, broken: Vec::new(), measured };
        (ended != Ended::Stop).then_some((step, seconds))
    }

    /// All fleets that write at a rate share the load as their rates do.
    fn set_load(&self, load: f64) {
        let rates: Vec<(usize, f64)> =
            self.plan.fleets.iter().enumerate().filter_map(rate).collect();
        let whole: f64 = rates.iter().map(|(_, rate)| rate).sum();
        let from = clock::now() + AHEAD;
        for (fleet, rate) in rates {
            let per_second = if whole > 0.0 { load * rate / whole } else { 0.0 };
            self.swarm.tell(|| Order::Rate { fleet, per_second, from });
        }
    }

    // ---- end

    fn drain(&mut self) {
        self.phase = Phase::Drain;
        let from = clock::now();
        self.swarm.tell(|| Order::Quiet);
        let deadline = from + length(self.plan.phases.drain);
        self.end = Some(deadline);
        // A report from before the quiet says nothing about what is under way.
        let fresh = from + SECOND + AHEAD;
        self.wait_patiently(deadline, |sum| {
            (clock::now() >= fresh && sum.under_way() == 0).then_some(Ended::There)
        });
        self.phases.drain = self.seconds(from, clock::now());
    }

    fn finish(mut self) -> Outcome {
        self.phase = Phase::Over;
        let planned = self.plan.sessions();
        let mut sessions = self.collected.sessions(planned);
        // When the measured phase ended, not when the last of the drain left.
        let last = self.collected.timeline.iter().rev().find(|one| one.phase == Phase::Measured);
        sessions.connected = last.map_or(sessions.connected, |point| point.connected);
        self.swarm.tell(|| Order::Finish);
        let deadline = clock::now() + 10 * SECOND;
        while !self.collected.is_over() && clock::now() < deadline {
            match self.reports.recv_timeout(GLANCE) {
                Ok(report) => self.take(report),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if !self.collected.is_over() {
            self.invalidate(
                ReasonKind::GeneratorFailed,
                "a part of the generator did not give its last account".into(),
            );
        }
        self.judge();
        let correctness = self.collected.sum().ledger.found;
        let throughput = self.measured_throughput();
        let known = !matches!(self.target(), Target::Unknown) || self.target.has_seen();
        let mut generator = self.generator.footprint();
        if let Some(bytes) = &mut generator.bytes_per_session {
            // There before the first session, and so not in the slope.
            *bytes += self.swarm.table_bytes() as f64 / self.plan.all_sessions().max(1) as f64;
        }
        let outcome = Outcome {
            schema: SCHEMA,
            plan: self.plan.without_secrets(),
            started_ms: self.started_ms,
            reasons: Vec::new(),
            ended_early: self.shared.stop.load(Ordering::Relaxed),
            phases: self.phases,
            sessions,
            correctness,
            throughput,
            measured: self.collected.measured,
            unmeasured: self.collected.unmeasured,
            timeline: self.collected.timeline,
            marks: self.marks,
            generator,
            target: known.then(|| self.target.footprint()),
            steps: self.steps,
            generators: Vec::new(),
        };
        if let Err(error) = self.swarm.stop() {
            let detail = format!("a part of the generator did not end in order: {error}");
            lock(&self.shared.reasons).push(reason(ReasonKind::GeneratorFailed, detail));
        }
        outcome
    }

    /// May the figures be believed?
    fn judge(&mut self) {
        let ends = self.collected.sum().tally.ends;
        let open_files = Machine::look().open_files;
        let found = health::reasons(&Evidence {
            plan: &self.plan,
            measured: &self.collected.measured,
            points: &self.collected.timeline,
            not_begun: ends.get(&Failure::CannotDial).copied().unwrap_or(0),
            max_files: open_files.and_then(|limits| limits.soft),
        });
        lock(&self.shared.reasons).extend(found);
    }

    // ---- time

    /// Waits until a time, or until `look` at the latest counts says that it is enough.
    fn wait(&mut self, until: Nanos, look: impl FnMut(&Sum) -> Option<Ended>) -> Ended {
        self.wait_while(until, true, look)
    }

    /// The same, whoever wants the run to end.
    fn wait_patiently(&mut self, until: Nanos, look: impl FnMut(&Sum) -> Option<Ended>) -> Ended {
        self.wait_while(until, false, look)
    }

    fn wait_while(
        &mut self,
        until: Nanos,
        stops: bool,
        mut look: impl FnMut(&Sum) -> Option<Ended>,
    ) -> Ended {
        loop {
            let now = clock::now();
            if now >= until {
                return Ended::Time;
            }
            if stops && self.shared.stop.load(Ordering::Relaxed) {
                return Ended::Stop;
            }
            let left = Duration::from_nanos(until - now).min(GLANCE);
            match self.reports.recv_timeout(left) {
                Ok(report) => {
                    self.take(report);
                    if let Some(ended) = look(&self.collected.sum()) {
                        return ended;
                    }
                }
                Err(RecvTimeoutError::Timeout) if self.swarm.is_running() => {}
                Err(_) => {
                    self.shared.stop.store(true, Ordering::Relaxed);
                    let detail = "a thread of the generator ended".to_owned();
                    self.invalidate(ReasonKind::GeneratorFailed, detail);
                    return Ended::Stop;
                }
            }
        }
    }

    fn take(&mut self, report: Report) {
        if let Some(mut point) = self.collected.take(report, self.phase) {
            self.look_at_processes(&mut point);
            self.publish(&point);
            if let Some(listener) = &mut self.hooks.listener {
                listener(&point);
            }
            self.collected.timeline.push(point);
        }
    }

    fn look_at_processes(&mut self, point: &mut Point) {
        let measured = point.phase == Phase::Measured;
        let target = self.target();
        if let Some(Usage { rss, cpu_seconds }) = Usage::own() {
            point.generator_rss = rss;
            point.generator_cpu = self.generator.look(rss, cpu_seconds, measured);
        }
        if let Some(Usage { rss, cpu_seconds }) = target.usage() {
            point.target_rss = Some(rss);
            point.target_cpu = Some(self.target.look(rss, cpu_seconds, measured));
        }
        let behind = point.health.behind;
        point.health = Health { behind, ..self.watch.look(target.process()) };
    }

    /// The process of the target: ours, which may be another one by now, or the one that we were told.
    fn target(&self) -> Target {
        match self.hooks.supervisor.as_ref().and_then(|supervisor| supervisor.pid()) {
            Some(process) => Target::Process(process),
            None => self.hooks.target.clone(),
        }
    }

    fn publish(&self, point: &Point) {
        let now = clock::now();
        let mut snapshot = lock(&self.shared.snapshot);
        *snapshot = Snapshot {
            elapsed: self.seconds(self.begin, now),
            remaining: self.end.map(|end| self.seconds(now, end)),
            phase: self.phase,
            sessions: self.collected.sessions(self.plan.sessions()),
            connecting: point.connecting,
            correctness: self.collected.sum().ledger.found,
            last: Some(point.clone()),
            reasons: Vec::new(),
        };
    }

    // ---- small things

    fn seconds(&self, from: Nanos, to: Nanos) -> f64 {
        to.saturating_sub(from) as f64 / SECOND as f64
    }

    fn mark(&mut self, what: String) {
        let at = self.seconds(self.begin, clock::now());
        self.marks.push(Mark { at, what });
    }

    fn invalidate(&self, kind: ReasonKind, detail: String) {
        lock(&self.shared.reasons).push(reason(kind, detail));
    }

    /// Of the points that lie within.
    fn throughput(&self, window: &std::ops::Range<Nanos>) -> Throughput {
        let first = window.start.saturating_sub(self.begin).div_ceil(SECOND) as u32;
        let end = (window.end.saturating_sub(self.begin) / SECOND) as u32;
        let points = self.collected.timeline.iter();
        Throughput::of(points.filter(|point| (first..end).contains(&point.second)))
    }

    fn measured_throughput(&self) -> Throughput {
        match self.plan.ladder {
            None => {
                let points = self.collected.timeline.iter();
                Throughput::of(points.filter(|point| point.phase == Phase::Measured))
            }
            Some(_) => {
                let good = self.steps.iter().rev().find(|step| step.broken.is_empty());
                good.map_or_else(Throughput::default, |step| step.throughput)
            }
        }
    }
}

fn rate((index, fleet): (usize, &crate::plan::Fleet)) -> Option<(usize, f64)> {
    match fleet.work.traffic()?.load {
        Load::Rate { per_second, .. } => Some((index, per_second)),
        _ => None,
    }
}
