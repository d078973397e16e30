//! The target, seen from where the run is conducted.

use std::collections::BTreeMap;

use crate::outcome::{Outcome, Phase, Point};
use crate::process::Usage;
use crate::run::Hooks;

/// Seconds of which it is known what the target used: twelve days, 40 MB. Of a longer run the first
/// ones are forgotten.
const MAX_SEEN: usize = 1 << 20;

/// What the target's process used, seen from here second by second.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    seen: BTreeMap<u32, (u64, f64)>,
    last_cpu: Option<f64>,
    measured_cpu: f64,
}

impl Gauge {
    pub(super) fn look(&mut self, hooks: &Hooks, point: &mut Point) {
        let own = hooks.supervisor.as_ref().and_then(|supervisor| supervisor.pid());
        let usage = match own {
            Some(process) => Usage::of(process),
            None => hooks.target.usage(),
        };
        let Some(usage) = usage else { return };
        let used = (usage.cpu_seconds - self.last_cpu.unwrap_or(usage.cpu_seconds)).max(0.0);
        self.last_cpu = Some(usage.cpu_seconds);
        if point.phase == Phase::Measured {
            self.measured_cpu += used;
        }
        self.seen.insert(point.second, (usage.rss, used));
        if self.seen.len() > MAX_SEEN {
            self.seen.pop_first();
        }
        (point.target_rss, point.target_cpu) = (Some(usage.rss), Some(used));
    }

    pub(super) fn put_into(&self, outcome: &mut Outcome) {
        if self.seen.is_empty() {
            return;
        }
        for point in &mut outcome.timeline {
            let within = self.seen.range(point.second..point.second + point.seconds.max(1));
            let (rss, cpu): (Vec<u64>, Vec<f64>) = within.map(|(_, seen)| *seen).unzip();
            point.target_rss = rss.last().copied();
            point.target_cpu =
                (!cpu.is_empty()).then(|| cpu.iter().sum::<f64>() / cpu.len() as f64);
        }
        // No slope: the agents know when memory is at rest, and do not see the target.
        let target = outcome.target.get_or_insert_default();
        target.peak_rss = self.seen.values().map(|(rss, _)| *rss).max().unwrap_or_default();
        target.cpu_seconds = self.measured_cpu;
    }
}
