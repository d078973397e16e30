//! How the conductor waits, and what it takes note of meanwhile.

use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::collect::Sum;
use super::conduct::{Conductor, Ended, GLANCE};
use super::{lock, reason};
use crate::clock::{self, Nanos, SECOND};
use crate::health::Target;
use crate::outcome::{Health, Mark, Phase, Point, ReasonKind, Snapshot, Throughput};
use crate::process::Usage;
use crate::swarm::Report;

/// What is done a second in the window that is measured, of its whole seconds.
#[derive(Debug, Default)]
pub(super) struct Meter {
    sum: Throughput,
    seconds: f64,
}

impl Meter {
    fn add(&mut self, point: &Point) {
        let one = Throughput::of(std::iter::once(point));
        self.sum = self.sum.plus(&one);
        self.seconds += 1.0;
    }

    pub(super) fn read(&self) -> Throughput {
        if self.seconds > 0.0 { self.sum.times(1.0 / self.seconds) } else { self.sum }
    }
}

impl Conductor {
    /// Waits until a time, or until `look` at the latest counts says that it is enough.
    pub(super) fn wait(&mut self, until: Nanos, look: impl FnMut(&Sum) -> Option<Ended>) -> Ended {
        self.wait_while(until, true, look)
    }

    /// The same although the run is to end, unless nobody wants its outcome.
    pub(super) fn wait_patiently(
        &mut self,
        until: Nanos,
        look: impl FnMut(&Sum) -> Option<Ended>,
    ) -> Ended {
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
            if self.shared.is_abandoned() || (stops && self.shared.is_stopped()) {
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
                    self.shared.stop();
                    let detail = "a thread of the generator ended".to_owned();
                    self.invalidate(ReasonKind::GeneratorFailed, detail);
                    return Ended::Stop;
                }
            }
        }
    }

    pub(super) fn take(&mut self, report: Report) {
        let phase = self.phase_of(report.second);
        if let Some(mut point) = self.collected.take(report, phase) {
            self.look_at_processes(&mut point);
            self.publish(&point);
            if let Some(listener) = &mut self.hooks.listener {
                listener(&point);
            }
            let begin = self.begin + Nanos::from(point.second) * SECOND;
            if begin >= self.window.start && begin + SECOND <= self.window.end {
                self.meter.add(&point);
            }
            self.collected.push(point);
        }
    }

    /// Reports come a moment after the second that they are about, when the run may be further.
    fn phase_of(&self, second: u32) -> Phase {
        let begin = self.begin + Nanos::from(second) * SECOND;
        match self.phase {
            _ if self.window.contains(&begin) => Phase::Measured,
            Phase::Measured if begin < self.window.start => Phase::WarmUp,
            Phase::Measured => Phase::Drain,
            phase => phase,
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
    pub(super) fn target(&self) -> Target {
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

    pub(super) fn seconds(&self, from: Nanos, to: Nanos) -> f64 {
        to.saturating_sub(from) as f64 / SECOND as f64
    }

    pub(super) fn mark(&mut self, what: String) {
        let at = self.seconds(self.begin, clock::now());
        self.marks.push(Mark { at, what });
    }

    pub(super) fn invalidate(&self, kind: ReasonKind, detail: String) {
        lock(&self.shared.reasons).push(reason(kind, detail));
    }
}
