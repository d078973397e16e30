//! What the store has done since it was opened.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::MetricsVisitor;

/// Classes of commit latency: the class `n` holds what took less than `2^n` microseconds and not
/// less than half of that; the last one holds all that took longer (about 8.4 s).
pub const LATENCY_CLASSES: usize = 24;

/// Classes of messages in a commit: the class `n` holds commits of at most `2^n` and more than half
/// as many; the last one holds all larger ones.
pub const ROWS_CLASSES: usize = 16;

/// Counters at one moment. All but `max` values only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Appends that became durable.
    pub appends: u64,
    /// Messages in them.
    pub rows: u64,
    /// Bytes of their rows.
    pub row_bytes: u64,
    /// Appends refused because the head was another.
    pub conflicts: u64,
    /// Appends and other writes refused because the volume is nearly full.
    pub refused_for_space: u64,
    /// Commits that ended with an fsync.
    pub commits: u64,
    /// Most messages in one commit.
    pub max_commit_rows: u64,
    /// Microseconds spent in these commits, writing and fsync together.
    pub commit_micros: u64,
    /// The longest of them, microseconds.
    pub max_commit_micros: u64,
    /// Commits by latency, see [`LATENCY_CLASSES`].
    pub commit_latency: [u64; LATENCY_CLASSES],
    /// Commits by their messages, see [`ROWS_CLASSES`].
    pub commit_rows: [u64; ROWS_CLASSES],
    /// Times that the writer waited because merging of files was behind.
    pub stalls: u64,
    /// Reads served.
    pub reads: u64,
    /// Reads refused because too many were waiting.
    pub refused_reads: u64,
}

/// The counters as threads add to them.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) appends: AtomicU64,
    pub(super) rows: AtomicU64,
    pub(super) row_bytes: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) refused_for_space: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) max_commit_rows: AtomicU64,
    pub(super) commit_micros: AtomicU64,
    pub(super) max_commit_micros: AtomicU64,
    pub(super) commit_latency: [AtomicU64; LATENCY_CLASSES],
    pub(super) commit_rows: [AtomicU64; ROWS_CLASSES],
    pub(super) stalls: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) refused_reads: AtomicU64,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

impl Counters {
    /// Notes a commit that reached the disk.
    pub(super) fn committed(&self, rows: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        add(&self.commits, 1);
        add(&self.commit_micros, micros);
        self.max_commit_micros.fetch_max(micros, Relaxed);
        self.max_commit_rows.fetch_max(rows, Relaxed);
        add(&self.commit_latency[class_of(micros)], 1);
        add(&self.commit_rows[rows_class(rows)], 1);
    }

    /// All counters; each is exact, together they may be a moment apart.
    pub(super) fn snapshot(&self) -> StoreStats {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        StoreStats {
            appends: get(&self.appends),
            rows: get(&self.rows),
            row_bytes: get(&self.row_bytes),
            conflicts: get(&self.conflicts),
            refused_for_space: get(&self.refused_for_space),
            commits: get(&self.commits),
            max_commit_rows: get(&self.max_commit_rows),
            commit_micros: get(&self.commit_micros),
            max_commit_micros: get(&self.max_commit_micros),
            commit_latency: std::array::from_fn(|n| get(&self.commit_latency[n])),
            commit_rows: std::array::from_fn(|n| get(&self.commit_rows[n])),
            stalls: get(&self.stalls),
            reads: get(&self.reads),
            refused_reads: get(&self.refused_reads),
        }
    }
}

impl StoreStats {
    /// Upper bound in microseconds of what `percent` of all commits took at most; 0 without any.
    pub fn commit_percentile_micros(&self, percent: f64) -> u64 {
        let rank = (self.commits as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        for (class, n) in self.commit_latency.iter().enumerate() {
            seen += n;
            if *n > 0 && seen >= rank {
                return (1u64 << class).min(self.max_commit_micros);
            }
        }
        0
    }
}

impl StoreStats {
    /// Shows all of them to an exporter, but for what only the distributions tell.
    pub fn visit(&self, visitor: &mut dyn MetricsVisitor) {
        let counters = [
            ("store_appends_total", "Appends that became durable.", self.appends),
            ("store_rows_total", "Messages in them.", self.rows),
            ("store_row_bytes_total", "Bytes of their rows.", self.row_bytes),
            (
                "store_conflicts_total",
                "Appends refused because the head was another.",
                self.conflicts,
            ),
            (
                "store_refused_for_space_total",
                "Writes refused because the volume is nearly full.",
                self.refused_for_space,
            ),
            (
                "store_stalls_total",
                "Times that the writer waited because merging of files was behind.",
                self.stalls,
            ),
            ("store_reads_total", "Reads served.", self.reads),
            (
                "store_refused_reads_total",
                "Reads refused because too many were waiting.",
                self.refused_reads,
            ),
        ];
        for (name, help, value) in counters {
            visitor.counter(name, help, value);
        }
        let seconds = (0..).map(|class| match class {
            n if n + 1 == LATENCY_CLASSES => f64::INFINITY,
            n => (1u64 << n) as f64 / 1e6,
        });
        visitor.histogram(
            "store_commit_seconds",
            "Time of a commit: writing and fsync together.",
            &mut seconds.zip(running_sums(&self.commit_latency)),
            self.commit_micros as f64 / 1e6,
        );
        let rows = (0..).map(|class| match class {
            n if n + 1 == ROWS_CLASSES => f64::INFINITY,
            n => (1u64 << n) as f64,
        });
        visitor.histogram(
            "store_commit_rows",
            "Messages in a commit.",
            &mut rows.zip(running_sums(&self.commit_rows)),
            self.rows as f64,
        );
    }
}

fn running_sums(classes: &[u64]) -> impl Iterator<Item = u64> + '_ {
    classes.iter().scan(0, |sum, n| {
        *sum += n;
        Some(*sum)
    })
}

fn rows_class(rows: u64) -> usize {
    let class = rows.max(1).checked_next_power_of_two().map_or(u32::MAX, u64::trailing_zeros);
    (class as usize).min(ROWS_CLASSES - 1)
}

fn class_of(micros: u64) -> usize {
    (u64::BITS - micros.leading_zeros()).min(LATENCY_CLASSES as u32 - 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_their_classes() {
        assert_eq!([0, 1, 2, 3, 4, 1023, 1024].map(class_of), [0, 1, 2, 2, 3, 10, 11]);
        assert_eq!(class_of(u64::MAX), LATENCY_CLASSES - 1);
        assert_eq!([0, 1, 2, 3, 16384, 16385, u64::MAX].map(rows_class), [0, 0, 1, 2, 14, 15, 15]);
        let counters = Counters::default();
        for _ in 0..99 {
            counters.committed(1, Duration::from_micros(100));
        }
        counters.committed(5, Duration::from_micros(9_000));
        let stats = counters.snapshot();
        assert_eq!(stats.commit_percentile_micros(50.0), 128);
        assert_eq!(stats.commit_percentile_micros(100.0), 9_000);
        assert_eq!((stats.commits, stats.max_commit_rows), (100, 5));
        assert_eq!(StoreStats::default().commit_percentile_micros(99.0), 0);
    }
}
