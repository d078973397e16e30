//! Outcomes of several generators become one, and seconds of a timeline become coarser points.

use super::{
    Correctness, Footprint, Health, Outcome, PhaseSeconds, Point, Sessions, Step, Throughput,
};
use crate::packed::NotAHistogram;
use crate::record::{Recording, count_failure};

impl Outcome {
    /// Adds the outcome of another generator of the same run. Counts and histograms add up; a
    /// duration is the longest; memory a session is the mean, weighted with the sessions. The plan is
    /// left as it is.
    ///
    /// # Errors
    /// A histogram of the timeline that came from elsewhere is none.
    pub fn merge(&mut self, other: &Self) -> Result<(), NotAHistogram> {
        self.shares.extend_from_slice(&other.shares);
        // Both as coarse as the coarser of them.
        let width = |points: &[Point]| points.iter().map(|point| point.seconds).max();
        let seconds = width(&self.timeline).max(width(&other.timeline)).unwrap_or(1);
        let mut theirs = other.timeline.clone();
        coarsen(&mut self.timeline, seconds);
        coarsen(&mut theirs, seconds);
        for point in &theirs {
            match self.timeline.binary_search_by_key(&point.second, |mine| mine.second) {
                Ok(at) => self.timeline[at].merge(point)?,
                Err(at) => self.timeline.insert(at, point.clone()),
            }
        }
        let (mine, theirs) = (self.sessions.peak as f64, other.sessions.peak as f64);
        self.generator.merge(&other.generator, mine, theirs);
        self.target = match (self.target.take(), &other.target) {
            // One gateway seen twice is still one: only its own machine's generator knows it.
            (Some(target), _) => Some(target),
            (None, target) => target.clone(),
        };
        self.reasons.extend(other.reasons.iter().cloned());
        self.notes.extend(other.notes.iter().cloned());
        self.ended_early |= other.ended_early;
        self.started_ms = self.started_ms.min(other.started_ms);
        self.phases = self.phases.longest(&other.phases);
        self.sessions.merge(&other.sessions);
        self.correctness.merge(&other.correctness);
        self.throughput = self.throughput.plus(&other.throughput);
        self.measured.merge(&other.measured);
        self.unmeasured.merge(&other.unmeasured);
        self.marks.extend(other.marks.iter().cloned());
        self.marks.sort_by(|a, b| a.at.total_cmp(&b.at));
        self.merge_steps(&other.steps);
        self.generators.extend(other.generators.iter().cloned());
        Ok(())
    }

    /// Steps that both generators made at the same place are one step. Each judged for itself, so
    /// their ways may part: what only one of them did is kept, and is no good step, because nobody
    /// knows what both would have done.
    fn merge_steps(&mut self, theirs: &[Step]) {
        if self.steps.is_empty() || theirs.is_empty() {
            self.steps.extend_from_slice(theirs);
            return;
        }
        let first = (self.steps[0].load, theirs[0].load);
        let goes_along = |(mine, other): &(&Step, &Step)| {
            (mine.load * first.1 - other.load * first.0).abs() <= 1e-6 * first.0 * first.1
        };
        let together = self.steps.iter().zip(theirs).take_while(goes_along).count();
        for (mine, other) in self.steps.iter_mut().zip(&theirs[..together]) {
            mine.merge(other);
        }
        self.steps.extend_from_slice(&theirs[together..]);
        for alone in &mut self.steps[together..] {
            let why = "not all generators made this step";
            if alone.broken.iter().all(|known| known != why) {
                alone.broken.push(why.into());
            }
        }
        // The figures of the whole are those of the last step that was good for all.
        let good = self.steps.iter().rev().find(|step| step.is_good());
        self.throughput = good.map_or_else(Throughput::default, |step| step.throughput);
        self.measured = good.map_or_else(Recording::new, |step| step.measured.clone());
    }
}

impl Step {
    /// Adds the same step of another generator. What breaks it for one breaks it for all.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.load += other.load;
        self.throughput = self.throughput.plus(&other.throughput);
        let new = other.broken.iter().filter(|why| !self.broken.contains(why));
        let new: Vec<String> = new.cloned().collect();
        self.broken.extend(new);
        self.limits.extend(other.limits.iter().cloned());
        self.counts = match (self.counts.take(), &other.counts) {
            (Some(mut mine), Some(theirs)) => {
                mine.sessions.merge(&theirs.sessions);
                mine.correctness.merge(&theirs.correctness);
                Some(mine)
            }
            _ => None,
        };
        self.measured.merge(&other.measured);
    }
}

impl PhaseSeconds {
    fn longest(&self, other: &Self) -> Self {
        Self {
            ramp: self.ramp.max(other.ramp),
            warm_up: self.warm_up.max(other.warm_up),
            measured: self.measured.max(other.measured),
            drain: self.drain.max(other.drain),
        }
    }
}

impl Sessions {
    /// Adds those of another generator. Its peaks may have been at other moments, so the sum of
    /// peaks is an upper bound, the sum of lows a lower one.
    pub fn merge(&mut self, other: &Self) {
        self.planned += other.planned;
        self.connected += other.connected;
        self.peak += other.peak;
        self.lowest += other.lowest;
        self.logins += other.logins;
        self.lost += other.lost;
        self.failed += other.failed;
        self.expected += other.expected;
        self.resumed += other.resumed;
        for (&failure, &count) in &other.ends {
            count_failure(&mut self.ends, failure, count);
        }
    }
}

impl Correctness {
    /// Adds what others found.
    pub fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.unchecked += other.unchecked;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.false_acks += other.false_acks;
        self.misdelivered += other.misdelivered;
        self.foreign += other.foreign;
        self.recovered += other.recovered;
    }
}

impl Point {
    /// Adds the same second of another generator.
    pub(crate) fn merge(&mut self, other: &Self) -> Result<(), NotAHistogram> {
        self.phase = self.phase.max(other.phase);
        self.connected += other.connected;
        self.connecting += other.connecting;
        self.sent += other.sent;
        self.acked += other.acked;
        self.delivered += other.delivered;
        self.generator_rss += other.generator_rss;
        self.generator_cpu += other.generator_cpu;
        self.target_rss = self.target_rss.or(other.target_rss);
        self.target_cpu = self.target_cpu.or(other.target_cpu);
        self.health.merge(&other.health);
        self.seconds = self.seconds.max(other.seconds);
        self.add_operations(other)
    }

    /// Makes it about the time of the next one as well.
    pub(crate) fn continues(&mut self, next: &Self) {
        let (before, after) = (f64::from(self.seconds), f64::from(next.seconds));
        let mean = |a: f64, b: f64| (a * before + b * after) / (before + after).max(1.0);
        self.seconds += next.seconds;
        self.phase = next.phase;
        self.connected = next.connected;
        self.connecting = next.connecting;
        self.sent += next.sent;
        self.acked += next.acked;
        self.delivered += next.delivered;
        self.generator_rss = next.generator_rss;
        self.generator_cpu = mean(self.generator_cpu, next.generator_cpu);
        self.target_rss = next.target_rss.or(self.target_rss);
        self.target_cpu = match (self.target_cpu, next.target_cpu) {
            (Some(a), Some(b)) => Some(mean(a, b)),
            (a, b) => b.or(a),
        };
        self.health.continues(&next.health, mean);
        // Both were packed here.
        let _ = self.add_operations(next);
    }

    fn add_operations(&mut self, other: &Self) -> Result<(), NotAHistogram> {
        for (operation, theirs) in &other.operations {
            let mine = self.operations.entry(*operation).or_default();
            mine.count += theirs.count;
            mine.errors += theirs.errors;
            mine.late += theirs.late;
            mine.dropped += theirs.dropped;
            mine.response.merge(&theirs.response)?;
            mine.service.merge(&theirs.service)?;
        }
        Ok(())
    }
}

impl Health {
    /// Adds another machine's: counts add up, and of the rest the worst is kept.
    fn merge(&mut self, other: &Self) {
        self.busiest_shard = self.busiest_shard.max(other.busiest_shard);
        self.starved_shard = self.starved_shard.max(other.starved_shard);
        let others = [self.others_cpu, other.others_cpu];
        self.others_cpu = others.into_iter().flatten().reduce(f64::max);
        self.behind = self.behind.max(other.behind);
        self.socket_drops += other.socket_drops;
        self.target_socket_drops = self.target_socket_drops.or(other.target_socket_drops);
        self.udp_received += other.udp_received;
        self.udp_dropped_in += other.udp_dropped_in;
        self.udp_dropped_out += other.udp_dropped_out;
        let memory = [self.memory_available, other.memory_available];
        self.memory_available = memory.into_iter().flatten().min();
        self.swapped += other.swapped;
        self.open_files = self.open_files.max(other.open_files);
    }

    /// Makes it about the time of the next one as well: counts add up, shares are those of the whole.
    fn continues(&mut self, next: &Self, mean: impl Fn(f64, f64) -> f64) {
        let shares = (self.busiest_shard, self.starved_shard);
        let drops = [self.target_socket_drops, next.target_socket_drops];
        let others = match (self.others_cpu, next.others_cpu) {
            (Some(a), Some(b)) => Some(mean(a, b)),
            (a, b) => a.or(b),
        };
        self.merge(next);
        self.others_cpu = others;
        self.busiest_shard = mean(shares.0, next.busiest_shard);
        self.starved_shard = mean(shares.1, next.starved_shard);
        self.target_socket_drops = drops.into_iter().flatten().reduce(|a, b| a + b);
    }
}

impl Footprint {
    fn merge(&mut self, other: &Self, mine: f64, theirs: f64) {
        self.bytes_per_session = match (self.bytes_per_session, other.bytes_per_session) {
            (Some(a), Some(b)) if mine + theirs > 0.0 => {
                Some((a * mine + b * theirs) / (mine + theirs))
            }
            (a, b) => a.or(b),
        };
        self.between = match (self.between, other.between) {
            (Some(a), Some(b)) => Some((a.0 + b.0, a.1 + b.1)),
            (a, b) => a.or(b),
        };
        self.peak_rss += other.peak_rss;
        self.cpu_seconds += other.cpu_seconds;
    }
}

/// Makes each point about this many seconds, or about a part of them where others are missing.
pub(crate) fn coarsen(timeline: &mut Vec<Point>, seconds: u32) {
    for point in std::mem::take(timeline) {
        append(timeline, point, seconds);
    }
}

/// Adds a point behind all others to a timeline whose points are about so many seconds each.
pub(crate) fn append(timeline: &mut Vec<Point>, mut point: Point, seconds: u32) {
    let seconds = seconds.max(1);
    match timeline.last_mut() {
        Some(last) if last.second / seconds == point.second / seconds => last.continues(&point),
        _ => {
            // A point begins where the seconds that it stands for begin.
            let skipped = point.second % seconds;
            point.second -= skipped;
            timeline.push(point);
        }
    }
}
