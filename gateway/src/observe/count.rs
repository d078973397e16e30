//! Counters and distributions that cost nanoseconds on the path of a message.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use skein_protocol::Code;

/// Whether anything is counted; see the feature's words in Cargo.toml.
const COUNTING: bool = !cfg!(feature = "unmeasured");

/// A number that one thread writes and anybody reads: no locked instruction.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Only for the one writer.
    pub fn add(&self, n: u64) {
        if COUNTING {
            self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
        }
    }

    /// For numbers with several writers; one number is either of this or of the other kind.
    pub fn add_shared(&self, n: u64) {
        if COUNTING {
            self.0.fetch_add(n, Relaxed);
        }
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Places of [`ByCode`].
const MAX_CODES: usize = 64;
const _: () = assert!(Code::ALL.len() <= MAX_CODES);

/// A number for each code of the wire.
#[derive(Debug)]
pub struct ByCode([Count; MAX_CODES]);

impl Default for ByCode {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Count::default()))
    }
}

impl ByCode {
    /// Only for the one writer.
    pub fn add(&self, code: Code) {
        if COUNTING && let Some(place) = Code::ALL.iter().position(|known| *known == code) {
            self.0[place].add(1);
        }
    }

    /// All of them, in the order of [`Code::ALL`].
    pub fn get(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().take(Code::ALL.len()).map(Count::get)
    }
}

/// When a message was received, in microseconds since the gateway began, and which trace it has.
/// Small, because it travels with every message: it wraps after 71 minutes, far beyond what any
/// message waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    /// 0: not known.
    micros: u32,
    /// 0: not traced.
    pub trace: u32,
}

/// Where stamps count from.
#[derive(Debug, Clone, Copy)]
pub struct Epoch(Instant);

impl Epoch {
    /// From now on.
    pub fn new(now: Instant) -> Self {
        Self(now)
    }

    /// The stamp of a moment.
    pub fn stamp(self, now: Instant) -> Stamp {
        if !COUNTING {
            return Stamp::default();
        }
        let micros = now.saturating_duration_since(self.0).as_micros() as u32;
        Stamp { micros: micros.max(1), trace: 0 }
    }
}

impl Stamp {
    /// Microseconds from this one to a later one; nothing if this one is not known. Clocks of
    /// threads are read at different times, so a later event may have the earlier stamp: then 0.
    pub fn until(self, later: Stamp) -> Option<u32> {
        let since = later.micros.wrapping_sub(self.micros);
        (self.micros != 0).then_some(if since > u32::MAX / 2 { 0 } else { since })
    }
}

/// Highest time of the first class, as a power of two of microseconds: 64 us.
const FIRST_OCTAVE: u32 = 6;

/// Octaves that are told apart, two classes each: up to 8.4 s.
const OCTAVES: u32 = 17;

/// Classes of time; the last one holds all that is longer.
pub(super) const CLASSES: usize = 2 * OCTAVES as usize + 2;

/// A distribution of times. Bounds are 64 us, 96 us, 128 us, 192 us, ...: a quantile read off it is
/// wrong by half at most, and mostly far less.
#[derive(Debug)]
pub struct Times {
    classes: [Count; CLASSES],
    micros: Count,
}

impl Default for Times {
    fn default() -> Self {
        Self { classes: std::array::from_fn(|_| Count::default()), micros: Count::default() }
    }
}

impl Times {
    /// Only for the one writer.
    pub fn note(&self, micros: u32) {
        self.classes[class_of(micros)].add(1);
        self.micros.add(micros.into());
    }

    /// For several writers.
    pub fn note_shared(&self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.classes[class_of(micros)].add_shared(1);
        self.micros.add_shared(micros.into());
    }

    /// Adds its numbers to a distribution.
    pub fn add_to(&self, distribution: &mut Distribution) {
        let Distribution { counts, sum } = distribution;
        counts.resize(CLASSES, 0);
        counts.iter_mut().zip(&self.classes).for_each(|(count, class)| *count += class.get());
        *sum += self.micros.get() as f64 / 1e6;
    }

    /// Upper bounds of the classes, in seconds.
    pub fn bounds() -> impl Iterator<Item = f64> {
        (0..CLASSES).map(|class| match class {
            class if class + 1 == CLASSES => f64::INFINITY,
            class => bound_micros(class) as f64 / 1e6,
        })
    }
}

/// How many values each class has, and the sum of all values.
#[derive(Debug, Clone, Default)]
pub struct Distribution {
    /// By class.
    pub counts: Vec<u64>,
    /// In the unit of the bounds.
    pub sum: f64,
}

fn bound_micros(class: usize) -> u64 {
    let octave = 1u64 << (FIRST_OCTAVE as usize + class / 2);
    octave + (class as u64 % 2) * (octave / 2)
}

/// The first class whose bound is not below the value.
fn class_of(micros: u32) -> usize {
    let below = micros.saturating_sub(1);
    if below < 1 << FIRST_OCTAVE {
        return 0;
    }
    let octave = below.ilog2();
    let upper_half = (below >> (octave - 1)) & 1;
    let class = 2 * (octave - FIRST_OCTAVE) + 1 + upper_half;
    (class as usize).min(CLASSES - 1)
}

/// Classes of sizes: the class `n` holds values of at most `2^n` and more than half as many.
pub(super) const SIZE_CLASSES: usize = 10;

/// A distribution of small numbers, for several writers.
#[derive(Debug, Default)]
pub struct Sizes {
    classes: [Count; SIZE_CLASSES + 1],
    sum: Count,
}

impl Sizes {
    /// Takes one value.
    pub fn note_shared(&self, value: usize) {
        let class = value.max(1).next_power_of_two().trailing_zeros() as usize;
        self.classes[class.min(SIZE_CLASSES)].add_shared(1);
        self.sum.add_shared(value as u64);
    }

    /// Its numbers.
    pub fn read(&self) -> Distribution {
        let counts = self.classes.iter().map(Count::get).collect();
        Distribution { counts, sum: self.sum.get() as f64 }
    }

    /// Upper bounds of the classes.
    pub fn bounds() -> impl Iterator<Item = f64> {
        (0..SIZE_CLASSES).map(|class| (1u64 << class) as f64).chain([f64::INFINITY])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_the_class_whose_bounds_hold_it() {
        let bounds: Vec<f64> = Times::bounds().collect();
        assert_eq!(&bounds[..4], [64e-6, 96e-6, 128e-6, 192e-6]);
        assert_eq!(bounds[CLASSES - 2], (1u64 << 23) as f64 / 1e6);
        assert!(bounds.is_sorted());
        let edges = (0..CLASSES - 1).map(|class| bound_micros(class) as u32);
        for micros in edges.flat_map(|edge| [edge - 1, edge, edge + 1]).chain([0, 1, u32::MAX]) {
            let class = class_of(micros);
            let time = f64::from(micros) / 1e6;
            assert!(time <= bounds[class], "{micros}");
            assert!(class == 0 || time > bounds[class - 1], "{micros}");
        }
    }

    #[test]
    fn sizes_fall_into_their_classes() {
        let sizes = Sizes::default();
        [0, 1, 2, 3, 4, 5, 512, 513].iter().for_each(|size| sizes.note_shared(*size));
        let Distribution { counts, sum } = sizes.read();
        assert_eq!(counts, [2, 1, 2, 1, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(sum, 1040.0);
        assert_eq!(Sizes::bounds().count(), counts.len());
    }

    #[test]
    fn stamps_wrap_and_never_go_back() {
        let now = Instant::now();
        let epoch = Epoch::new(now);
        let at = |micros: u64| epoch.stamp(now + Duration::from_micros(micros));
        assert_eq!(at(1_000).until(at(251_000)), Some(250_000));
        assert_eq!(at(251_000).until(at(1_000)), Some(0));
        let wrap = u64::from(u32::MAX);
        assert_eq!(at(wrap - 10).until(at(wrap + 90)), Some(100));
        assert_eq!(Stamp::default().until(at(5)), None);
    }
}
