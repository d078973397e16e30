//! The phases of a run, one after the other.
//!
//! ```text
//! conduct.rs  ramp, backlogs -> load.rs (warm-up, measured, storms) or climb.rs (a ladder; which
//!             load is next: search.rs) -> drain, outcome
//! watch.rs    how it waits; the reports of the shards meanwhile, joined by collect.rs
//! ```

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::collect::Collected;
use super::footprint::Gauge;
use super::watch::Meter;
use super::{Hooks, Shared, Stage, lock, reason};
use crate::clock::{self, Nanos, SECOND, length};
use crate::doctor::Machine;
use crate::environment::Environment;
use crate::health::{self, Evidence, Place, Target, Watch};
use crate::operation::Failure;
use crate::outcome::{
    Mark, Note, Outcome, Phase, PhaseSeconds, ReasonKind, SCHEMA, Step, Throughput,
};
use crate::plan::{Plan, Work};
use crate::process::Usage;
use crate::share::Share;
use crate::swarm::{Order, Report, Swarm};

/// How often the conductor looks up between reports.
pub(super) const GLANCE: Duration = Duration::from_millis(20);

/// From an order to the time that it is about: every shard has it by then.
pub(super) const AHEAD: Nanos = SECOND / 10;

/// A ramp, or a backlog, in which nothing happens at all for this long will never be complete.
const STANDSTILL: Nanos = 40 * SECOND;

/// Conducts one run.
pub(super) struct Conductor {
    pub(super) plan: Arc<Plan>,
    pub(super) swarm: Swarm,
    pub(super) reports: Receiver<Report>,
    pub(super) hooks: Hooks,
    pub(super) shared: Arc<Shared>,
    pub(super) begin: Nanos,
    pub(super) started_ms: u64,
    pub(super) collected: Collected,
    pub(super) phase: Phase,
    /// When the plan will be over, once that is known.
    pub(super) end: Option<Nanos>,
    pub(super) generator: Gauge,
    pub(super) target: Gauge,
    pub(super) watch: Watch,
    pub(super) marks: Vec<Mark>,
    pub(super) phases: PhaseSeconds,
    pub(super) steps: Vec<Step>,
    notes: Vec<Note>,
    /// What is measured, as far as that is known.
    pub(super) window: std::ops::Range<Nanos>,
    pub(super) meter: Meter,
}

/// Why waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
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
            notes: Vec::new(),
            window: 0..0,
            meter: Meter::default(),
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
        if !self.shared.is_abandoned() {
            self.drain();
        }
        self.finish()
    }

    // ---- pace

    /// Seconds count from here. `false`: it is over.
    fn begin(&mut self) -> bool {
        let let_on = self.pass(Stage::Start);
        self.begin = let_on.unwrap_or_else(clock::now);
        self.shared.begin_at(self.begin);
        let begin = self.begin;
        self.swarm.tell(|| Order::Begin(begin));
        let_on.is_some()
    }

    /// Waits to be let on, and then for the moment at which the stage begins; `None`: it is over.
    pub(super) fn pass(&mut self, stage: Stage) -> Option<Nanos> {
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
            Work::Sync { receivers, backlog, .. } => receivers.saturating_mul(backlog),
            _ => 0,
        });
        let planned: u64 = planned.sum();
        self.mark(format!("writing a backlog of {planned} messages"));
        self.swarm.tell(|| Order::Fill);
        let deadline = clock::now() + length(self.plan.phases.ramp_limit);
        // The orders are obeyed at once, but reported with the next second.
        let mut begun = false;
        let mut last = (u64::MAX, clock::now());
        let ended = self.wait(deadline, |sum| {
            let left = sum.tally.fill_left;
            begun |= left > 0 || sum.ledger.found.acked >= planned;
            if left != last.0 {
                last = (left, clock::now());
            }
            match begun && left == 0 {
                true => Some(Ended::There),
                false => (clock::now() > last.1 + STANDSTILL).then_some(Ended::Time),
            }
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
        self.settle();
        self.phases.drain = self.seconds(from, clock::now());
    }

    /// What is missing is asked for: only what the log does not have is lost.
    fn settle(&mut self) {
        if self.collected.sum().missing() == 0 {
            return;
        }
        self.swarm.tell(|| Order::Settle);
        let deadline = clock::now() + length(self.plan.answer_timeout);
        self.end = Some(deadline);
        self.wait_patiently(deadline, |sum| sum.is_settled().then_some(Ended::There));
    }

    fn finish(mut self) -> Outcome {
        self.phase = Phase::Over;
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
        let mut sessions = self.collected.sessions(self.plan.sessions());
        // When the measured phase ended, not when the last of the drain left.
        sessions.connected = self.collected.connected.unwrap_or(sessions.connected);
        let correctness = self.collected.sum().ledger.found;
        // Of a ladder the last good step.
        let throughput = match self.plan.ladder {
            None => self.meter.read(),
            Some(_) => {
                let good = self.steps.iter().rev().find(|step| step.broken.is_empty());
                good.map_or_else(Throughput::default, |step| step.throughput)
            }
        };
        let known = !matches!(self.target(), Target::Unknown) || self.target.has_seen();
        let mut generator = self.generator.footprint();
        if let Some(bytes) = &mut generator.bytes_per_session {
            // There before the first session, and so not in the slope.
            *bytes += self.swarm.table_bytes() as f64 / self.plan.all_sessions().max(1) as f64;
        }
        let outcome = Outcome {
            schema: SCHEMA,
            plan: self.plan.without_secrets(),
            shares: vec![Share::whole(self.plan.id)],
            started_ms: self.started_ms,
            reasons: Vec::new(),
            notes: self.notes,
            ended_early: self.shared.is_stopped(),
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
            environment: Environment::look(),
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
        let good: Vec<bool> = self.steps.iter().map(Step::is_good).collect();
        let (points, bounds) = (&self.collected.timeline, &self.plan.bounds);
        let busy = health::busy_stretches(points, bounds);
        let starved = health::starved_stretches(points, bounds, self.place());
        let of_the_knee = health::blame(&mut self.steps, &self.plan, &busy, &starved);
        let evidence = Evidence {
            plan: &self.plan,
            measured: &self.collected.measured,
            points: &self.collected.timeline,
            busy: &busy,
            starved: &starved,
            good: &good,
            not_begun: ends.get(&Failure::CannotDial).copied().unwrap_or(0),
            max_files: open_files.and_then(|limits| limits.soft),
        };
        let mut reasons = lock(&self.shared.reasons);
        reasons.extend(of_the_knee);
        reasons.extend(health::reasons(&evidence));
        drop(reasons);
        self.notes = health::notes(&evidence);
    }

    /// Where the target is.
    fn place(&self) -> Place {
        let is_local = |address: &std::net::SocketAddr| address.ip().is_loopback();
        match self.target() {
            Target::Process(_) => Place::Here,
            _ if self.plan.target.addresses.iter().any(is_local) => Place::HereUnknown,
            _ => Place::Elsewhere,
        }
    }
}
