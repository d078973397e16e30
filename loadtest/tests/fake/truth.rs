//! What the target did, and when, by the clock that the tester measures with.

use skein_loadtest::clock::{self, Nanos};
use skein_loadtest::verify::Stamp;

/// Everything that the target did.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Messages in the order in which they came.
    pub sends: Vec<Sent>,
    /// When it stood still.
    pub stalls: Vec<(Nanos, Nanos)>,
    /// How often it did what it was to do wrong.
    pub faults: u64,
    /// Sessions that it welcomed.
    pub logins: u64,
    /// Sessions that it closed in the middle.
    pub cut: Vec<Cut>,
}

/// A message that came.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What it says of itself: among others when it was due.
    pub stamp: Stamp,
    /// When it was read.
    pub received: Nanos,
    /// When its answer was written, and when the tester had certainly read that.
    pub answer: Option<(Nanos, Nanos)>,
    /// The same of each push of it.
    pub pushes: Vec<(Nanos, Nanos)>,
}

/// A session that was closed in the middle.
#[derive(Clone, Debug)]
pub struct Cut {
    /// When.
    pub at: Nanos,
    /// When the same device was welcomed again, and had certainly read that.
    pub back: Option<(Nanos, Nanos)>,
}

/// Not seen, or not yet.
pub const NEVER: Nanos = Nanos::MAX;

/// For each of some operations the least and the most microseconds that it can have taken.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    least: Vec<u64>,
    most: Vec<u64>,
}

impl Truth {
    /// From due to answered.
    pub fn response(&self) -> Bounds {
        let answered = self.sends.iter().filter_map(|one| Some((one, one.answer?)));
        Bounds::of(answered.map(|(one, (written, seen))| {
            (micros(one.stamp.intended, written), micros(one.stamp.intended, seen))
        }))
    }

    /// From sent to answered, of writers that have one message under way at a time: each was sent
    /// between the answer to the one before it, or its time, and when it was read here.
    pub fn service_of_one_at_a_time(&self) -> Bounds {
        let mut before = std::collections::HashMap::new();
        let answered = self.sends.iter().filter_map(|one| Some((one, one.answer?)));
        Bounds::of(answered.map(|(one, (written, seen))| {
            let last = before.insert(one.stamp.stream, written).unwrap_or(0);
            (micros(one.received, written), micros(one.stamp.intended.max(last), seen))
        }))
    }

    /// From due to arrived.
    pub fn delivery(&self) -> Bounds {
        let pushes = self.sends.iter().flat_map(|one| one.pushes.iter().map(move |at| (one, at)));
        Bounds::of(pushes.map(|(one, (written, seen))| {
            (micros(one.stamp.intended, *written), micros(one.stamp.intended, *seen))
        }))
    }

    /// Answers that were written, and those that the tester certainly read.
    pub fn answers(&self) -> (u64, u64) {
        let answers = self.sends.iter().filter_map(|one| one.answer);
        answers.fold((0, 0), |sum, (_, seen)| (sum.0 + 1, sum.1 + u64::from(seen != NEVER)))
    }

    /// Messages that were due while it stood still, in the first `part` of each time.
    pub fn due_in_stalls(&self, part: f64) -> u64 {
        let within = |one: &&Sent| {
            self.stalls.iter().any(|&(from, to)| {
                let end = from + ((to - from) as f64 * part) as u64;
                (from..end).contains(&one.stamp.intended)
            })
        };
        self.sends.iter().filter(within).count() as u64
    }
}

fn micros(from: Nanos, to: Nanos) -> u64 {
    if to == NEVER { u64::MAX } else { clock::micros_between(from, to) }
}

impl Bounds {
    fn of(all: impl Iterator<Item = (u64, u64)>) -> Self {
        let (mut least, mut most): (Vec<u64>, Vec<u64>) = all.unzip();
        least.sort_unstable();
        most.sort_unstable();
        Self { least, most }
    }

    pub fn len(&self) -> u64 {
        self.least.len() as u64
    }

    /// How many can have been so long or longer; a histogram's 0.1 % are granted.
    pub fn longer_than(&self, micros: u64) -> u64 {
        let granted = micros - micros / 1000 - 1;
        (self.most.len() - self.most.partition_point(|most| *most < granted)) as u64
    }

    /// Least and most that this quantile can be. If each of some values lies between two bounds,
    /// then the k-th smallest value lies between the k-th smallest lower and the k-th smallest
    /// upper bound.
    pub fn at(&self, quantile: f64) -> (u64, u64) {
        let n = self.least.len();
        let rank = ((quantile * n as f64).ceil() as usize).clamp(1, n);
        // A rank either way: the histogram's own product of quantile and count may round otherwise.
        (self.least[rank.saturating_sub(2)], self.most[rank.min(n - 1)])
    }
}
