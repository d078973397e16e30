//! The open-loop timetable: when each thing is due, whatever became of those before it.
//!
//! The times are absolute. A generator that was held up finds everything that fell due meanwhile
//! still there, begins it with its old intended start, and so the waiting shows in the response
//! times instead of disappearing (coordinated omission). Two limits keep that honest and bounded:
//! what is begun later than `late_after` is counted as late, and what would be begun later than
//! `drop_after` is not begun at all and counted as dropped.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::clock::{Nanos, SECOND};
use crate::plan::Arrival;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Begin one now that was to begin then.
    Begin {
        /// The intended start.
        intended: Nanos,
        /// It is late.
        late: bool,
    },
    /// So many are given up, because they were due too long ago.
    Dropped {
        /// How many.
        count: u64,
        /// When the first of them was due.
        first: Nanos,
        /// And the last.
        last: Nanos,
    },
}

/// When something is begun too late.
#[derive(Clone, Copy, Debug)]
pub struct Lateness {
    /// Later than this is late.
    pub late_after: Nanos,
    /// Later than this is not begun any more.
    pub drop_after: Nanos,
}

/// A timetable without an end.
#[derive(Debug)]
pub struct Schedule {
    lateness: Lateness,
    arrival: Arrival,
    /// A second; not above 0: nothing is due.
    rate: f64,
    /// Where the current rate began.
    start: Nanos,
    /// Place among the `shares` that make up the whole, so that theirs are evenly spread together.
    offset: f64,
    /// Due since `start`, even arrivals: the time is computed from this, so no error adds up.
    index: u64,
    /// Nanoseconds since `start` of the next one, other arrivals.
    elapsed: f64,
    random: SmallRng,
}

impl Schedule {
    /// Nothing is due until [`set_rate`](Self::set_rate). `share` of `shares`: this is one of
    /// several timetables with the same rate that together are to be even.
    pub fn new(
        lateness: Lateness,
        arrival: Arrival,
        (share, shares): (usize, usize),
        seed: u64,
    ) -> Self {
        Self {
            lateness,
            arrival,
            rate: 0.0,
            start: 0,
            offset: share as f64 / shares.max(1) as f64,
            index: 0,
            elapsed: 0.0,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// From `start` on so many are due a second; 0 for none. What was due before and not begun is
    /// forgotten: see [`drop_until`](Self::drop_until).
    pub fn set_rate(&mut self, start: Nanos, rate: f64) {
        self.rate = if rate.is_finite() { rate } else { 0.0 };
        self.start = start;
        self.index = 0;
        self.elapsed = 0.0;
        if self.arrival == Arrival::Poisson && self.rate > 0.0 {
            self.draw();
        }
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Nanos> {
        if self.rate <= 0.0 {
            return None;
        }
        let elapsed = match self.arrival {
            Arrival::Even => (self.index as f64 + self.offset) / self.rate * SECOND as f64,
            Arrival::Poisson => self.elapsed,
        };
        // Beyond the range it saturates: never.
        Some(self.start.saturating_add(elapsed as Nanos))
    }

    /// What is due at `now`, one at a time; `None`: nothing yet.
    pub fn poll(&mut self, now: Nanos) -> Option<Due> {
        let intended = self.next().filter(|at| *at <= now)?;
        let lag = now - intended;
        if lag > self.lateness.drop_after {
            return self.drop_until(now - self.lateness.drop_after);
        }
        self.advance();
        Some(Due::Begin { intended, late: lag > self.lateness.late_after })
    }

    /// Gives up what is due before `until`, if there is any.
    pub fn drop_until(&mut self, until: Nanos) -> Option<Due> {
        let first = self.next().filter(|at| *at < until)?;
        let (mut count, mut last) = (0, first);
        while let Some(at) = self.next().filter(|at| *at < until) {
            self.advance();
            count += 1;
            last = at;
        }
        Some(Due::Dropped { count, first, last })
    }

    fn advance(&mut self) {
        self.index += 1;
        if self.arrival == Arrival::Poisson {
            self.draw();
        }
    }

    /// Exponentially distributed distance to the next.
    fn draw(&mut self) {
        let uniform: f64 = self.random.random();
        // 1 - u is never 0, so the logarithm is finite.
        self.elapsed += -(1.0 - uniform).ln() / self.rate * SECOND as f64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Nanos = 1_000_000;
    const LATENESS: Lateness = Lateness { late_after: 10 * MS, drop_after: SECOND };

    fn even(rate: f64) -> Schedule {
        let mut schedule = Schedule::new(LATENESS, Arrival::Even, (0, 1), 1);
        schedule.set_rate(0, rate);
        schedule
    }

    /// Everything due up to `now`: intended starts, late ones, dropped ones.
    fn drain(schedule: &mut Schedule, now: Nanos) -> (Vec<Nanos>, u64, u64) {
        let (mut begun, mut lates, mut drops) = (Vec::new(), 0, 0);
        while let Some(due) = schedule.poll(now) {
            match due {
                Due::Begin { intended, late } => {
                    begun.push(intended);
                    lates += u64::from(late);
                }
                Due::Dropped { count, first, last } => {
                    assert!(first <= last && last < now);
                    drops += count;
                }
            }
        }
        (begun, lates, drops)
    }

    proptest! {
        /// Whenever and however often the generator looks, the intended starts are those of the
        /// timetable, each one is begun or dropped, and none before its time.
        #[test]
        fn nothing_drifts_and_everything_is_accounted_for(
            rate in 0.5f64..5000.0,
            steps in proptest::collection::vec(1u64..1_500 * MS, 1..60),
        ) {
            let mut schedule = even(rate);
            let mut now = 0;
            let (mut begun, mut dropped) = (0u64, 0u64);
            for step in steps {
                now += step;
                while let Some(due) = schedule.poll(now) {
                    match due {
                        Due::Begin { intended, late } => {
                            let exact = ((begun + dropped) as f64 / rate * SECOND as f64) as Nanos;
                            prop_assert_eq!(intended, exact);
                            prop_assert!(intended <= now && now - intended <= SECOND);
                            prop_assert_eq!(late, now - intended > 10 * MS);
                            begun += 1;
                        }
                        Due::Dropped { count, .. } => dropped += count,
                    }
                }
                let due = (now as f64 / SECOND as f64 * rate).floor() as u64 + 1;
                prop_assert!((begun + dropped).abs_diff(due) <= 1, "{} of {due}", begun + dropped);
            }
        }

        /// Shares of one rate interleave: together they are as even as one timetable.
        #[test]
        fn shares_make_up_an_even_whole(shares in 1usize..9, rate in 10.0f64..2000.0) {
            let mut all: Vec<Nanos> = Vec::new();
            for share in 0..shares {
                let mut schedule = Schedule::new(LATENESS, Arrival::Even, (share, shares), 1);
                schedule.set_rate(0, rate / shares as f64);
                all.extend(drain(&mut schedule, SECOND / 2).0);
            }
            all.sort_unstable();
            let distance = SECOND as f64 / rate;
            for (index, at) in all.iter().enumerate() {
                prop_assert!((*at as f64 - index as f64 * distance).abs() < 2.0);
            }
        }

        /// Independent arrivals have the rate that was asked for, and the spread of an exponential
        /// distribution (mean and deviation of the distances are equal).
        #[test]
        fn poisson_arrivals_have_their_rate(seed: u64) {
            let mut schedule = Schedule::new(LATENESS, Arrival::Poisson, (0, 1), seed);
            schedule.set_rate(0, 1000.0);
            let mut times = vec![0];
            while times.len() < 20_000 {
                let at = schedule.next().unwrap();
                times.extend(drain(&mut schedule, at).0);
            }
            let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>();
            let deviation = (variance / gaps.len() as f64).sqrt();
            // Six standard errors of 20,000 draws.
            prop_assert!((mean / MS as f64 - 1.0).abs() < 0.043, "mean {mean}");
            prop_assert!((deviation / mean - 1.0).abs() < 0.06, "deviation {deviation}");
        }
    }

    #[test]
    fn a_stall_is_caught_up_with_its_old_times_and_counted() {
        let mut schedule = even(100.0);
        assert_eq!(drain(&mut schedule, 0), (vec![0], 0, 0));
        let (begun, late, dropped) = drain(&mut schedule, 500 * MS);
        assert_eq!((begun.len(), begun[0], begun[49]), (50, 10 * MS, 500 * MS));
        // Those of the last 10 ms are in time.
        assert_eq!((late, dropped), (48, 0));
        let (begun, _, dropped) = drain(&mut schedule, 3 * SECOND);
        assert_eq!(dropped, 149, "all that were due more than a second ago");
        assert_eq!((begun[0], begun.len()), (2 * SECOND, 101));
    }

    #[test]
    fn what_is_given_up_is_told_with_its_times() {
        let mut schedule = even(100.0);
        let dropped = schedule.drop_until(35 * MS);
        assert_eq!(dropped, Some(Due::Dropped { count: 4, first: 0, last: 30 * MS }));
        assert_eq!(schedule.drop_until(40 * MS), None);
        assert_eq!(schedule.next(), Some(40 * MS));
    }

    #[test]
    fn a_new_rate_begins_anew_and_none_is_none() {
        let mut schedule = even(10.0);
        drain(&mut schedule, SECOND);
        schedule.set_rate(2 * SECOND, 1000.0);
        assert_eq!(schedule.poll(2 * SECOND - 1), None);
        assert_eq!(drain(&mut schedule, 2 * SECOND + 9 * MS).0.len(), 10);
        schedule.set_rate(3 * SECOND, 0.0);
        assert_eq!((schedule.next(), schedule.poll(u64::MAX)), (None, None));
        assert_eq!(even(f64::NAN).next(), None);
    }
}
