//! Memory a session, as a slope.
//!
//! The total divided by the number of sessions would count the program itself, its caches and its
//! store as if sessions had brought them. Two numbers of sessions, each after a rest, and what lies
//! between them do not.

use crate::outcome::Footprint;

/// The two numbers of sessions must be so far apart, or the noise of an allocator is all there is.
const LEAST_DISTANCE: u64 = 500;

/// No session takes less, bytes. A program that grows by less had the memory from sessions before.
const LEAST_SLOPE: f64 = 1024.0;

/// What a program used, over a run.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    /// Sessions and resident bytes at rest.
    rests: Vec<(u64, u64)>,
    peak: u64,
    /// Processor time at the last look, and what the measured phase took.
    last_cpu: Option<f64>,
    measured_cpu: f64,
}

impl Gauge {
    /// A look at the end of a second. Says how much of a core it used in it.
    pub(super) fn look(&mut self, rss: u64, cpu_seconds: f64, measured: bool) -> f64 {
        self.peak = self.peak.max(rss);
        // A restarted process begins at zero again.
        let used = (cpu_seconds - self.last_cpu.unwrap_or(cpu_seconds)).max(0.0);
        self.last_cpu = Some(cpu_seconds);
        if measured {
            self.measured_cpu += used;
        }
        used
    }

    /// Another phase is measured from now on; processor seconds of the one before.
    pub(super) fn lap(&mut self) -> f64 {
        std::mem::take(&mut self.measured_cpu)
    }

    /// The processor time is that of an earlier lap.
    pub(super) fn is_of(&mut self, cpu_seconds: f64) {
        self.measured_cpu = cpu_seconds;
    }

    /// Whether it was ever looked at.
    pub(super) fn has_seen(&self) -> bool {
        self.peak > 0
    }

    /// So many sessions are there, and everything has come to rest.
    pub(super) fn rest(&mut self, sessions: u64, rss: u64) {
        self.rests.push((sessions, rss));
    }

    pub(super) fn footprint(&self) -> Footprint {
        let ends = self.rests.first().zip(self.rests.last());
        let far = ends.filter(|(lower, upper)| upper.0 >= lower.0 + LEAST_DISTANCE);
        let slope = far.map(|(lower, upper)| {
            let bytes = (upper.1 as f64 - lower.1 as f64) / (upper.0 - lower.0) as f64;
            (bytes, (lower.0, upper.0))
        });
        let slope = slope.filter(|(bytes, _)| *bytes >= LEAST_SLOPE);
        Footprint {
            bytes_per_session: slope.map(|(bytes, _)| bytes),
            between: slope.map(|(_, between)| between),
            peak_rss: self.peak,
            cpu_seconds: self.measured_cpu,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_a_slope_and_time_that_of_the_measured_phase() {
        let mut gauge = Gauge::default();
        assert_eq!(gauge.look(50_000_000, 1.0, false), 0.0);
        gauge.rest(1_000, 60_000_000);
        gauge.look(200_000_000, 3.0, false);
        gauge.rest(11_000, 180_000_000);
        assert_eq!(gauge.look(180_000_000, 4.5, true), 1.5);
        // Restarted.
        assert_eq!(gauge.look(40_000_000, 0.25, true), 0.0);
        assert_eq!(gauge.look(40_000_000, 0.5, true), 0.25);
        let lap = gauge.lap();
        gauge.look(40_000_000, 1.5, true);
        gauge.is_of(lap);
        assert_eq!(
            gauge.footprint(),
            Footprint {
                bytes_per_session: Some(12_000.0),
                between: Some((1_000, 11_000)),
                peak_rss: 200_000_000,
                cpu_seconds: 1.75,
            }
        );
    }

    #[test]
    fn one_point_is_no_slope() {
        let mut gauge = Gauge::default();
        gauge.rest(1_000, 60_000_000);
        assert_eq!(gauge.footprint().bytes_per_session, None);
        gauge.rest(1_100, 70_000_000);
        assert_eq!(gauge.footprint().bytes_per_session, None);
        gauge.rest(11_000, 60_500_000);
        assert_eq!(gauge.footprint().bytes_per_session, None, "it had the memory before");
    }
}
