//! Warm-up, the measured phase, and the storms within it.

use std::ops::Range;

use super::conduct::{AHEAD, Conductor, Ended};
use super::watch::Meter;
use super::{Stage, Supervisor};
use crate::clock::{self, Nanos, SECOND, length};
use crate::outcome::{Phase, ReasonKind};
use crate::plan::{Cut, Work};
use crate::swarm::{CutHow, Order, Swarm};

impl Conductor {
    /// Warm-up and the measured phase, which begins and ends with a second of the timeline.
    pub(super) fn load(&mut self) {
        let Some(let_on) = self.pass(Stage::Load) else { return };
        let from = let_on + AHEAD;
        self.phase = Phase::WarmUp;
        let warm = from + length(self.plan.phases.warm_up);
        let measured = length(self.plan.phases.measured);
        let second = (warm - self.begin).div_ceil(SECOND);
        let window = self.begin + second * SECOND..self.begin + second * SECOND + measured;
        self.end = Some(window.end);
        self.measure(window.clone());
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
            self.measure(window.start..now);
        }
    }

    /// What is due within is measured, and nothing else.
    pub(super) fn measure(&mut self, window: Range<Nanos>) {
        if self.window.start != window.start {
            self.meter = Meter::default();
        }
        self.window = window.clone();
        self.swarm.tell(|| Order::Window(window.clone()));
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
        act: impl FnOnce(&mut dyn Supervisor) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        match self.hooks.supervisor.as_deref_mut() {
            Some(supervisor) => act(supervisor),
            None => Err(std::io::Error::other("it is not ours")),
        }
    }
}
