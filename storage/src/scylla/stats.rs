//! What the store has done since it was opened, ready for Prometheus.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::MetricsVisitor;

/// Classes of latency: the class `n` holds what took less than `2^n` microseconds and not less
/// than half of that; the last one holds all that took longer (about 67 s).
pub const LATENCY_CLASSES: usize = 28;

/// Classes of rows in an append: the class `n` holds appends of at most `2^n` rows and more than
/// half as many.
pub const ROWS_CLASSES: usize = 10;

macro_rules! stats {
    ($($(#[doc = $help:literal])+ $name:ident;)*) => {
        /// Counters at one moment; each is exact, together they may be a moment apart.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ScyllaStats {
            $($(#[doc = $help])+ pub $name: u64,)*
            /// Appends under way.
            pub places_in_use: u64,
            /// Appends that became durable by their rows, see [`ROWS_CLASSES`].
            pub append_rows: [u64; ROWS_CLASSES],
            /// The same by the time from their place to their outcome, see [`LATENCY_CLASSES`].
            pub append_latency: [u64; LATENCY_CLASSES],
            /// The sum of these times, microseconds.
            pub append_micros: u64,
        }

        /// The counters as tasks add to them.
        #[derive(Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
            append_rows: [AtomicU64; ROWS_CLASSES],
            append_latency: [AtomicU64; LATENCY_CLASSES],
            append_micros: AtomicU64,
        }

        impl Counters {
            pub(super) fn snapshot(&self, places_in_use: u64) -> ScyllaStats {
                let get = |counter: &AtomicU64| counter.load(Relaxed);
                ScyllaStats {
                    $($name: get(&self.$name),)*
                    places_in_use,
                    append_rows: std::array::from_fn(|n| get(&self.append_rows[n])),
                    append_latency: std::array::from_fn(|n| get(&self.append_latency[n])),
                    append_micros: get(&self.append_micros),
                }
            }
        }

        impl ScyllaStats {
            /// Shows all of them to an exporter.
            pub fn visit(&self, visitor: &mut dyn MetricsVisitor) {
                $(visitor.counter(
                    concat!("store_", stringify!($name), "_total"),
                    concat!($($help),+).trim_ascii(),
                    self.$name,
                );)*
                visitor.gauge("store_places_in_use", "Appends under way.", self.places_in_use);
                let rows = (0..).map(|n| (1u64 << n) as f64).take(ROWS_CLASSES);
                visitor.histogram(
                    "store_append_rows",
                    "Rows of appends that became durable.",
                    &mut rows.zip(running_sums(&self.append_rows)),
                    self.rows as f64,
                );
                let seconds = (0..).map(|class| match class {
                    n if n + 1 == LATENCY_CLASSES => f64::INFINITY,
                    n => (1u64 << n) as f64 / 1e6,
                });
                visitor.histogram(
                    "store_append_seconds",
                    "Time from the place of an append to its outcome.",
                    &mut seconds.zip(running_sums(&self.append_latency)),
                    self.append_micros as f64 / 1e6,
                );
            }
        }
    };
}

stats! {
    /// Appends that became durable, each one conditional batch.
    appends;
    /// Messages in them.
    rows;
    /// Appends refused because the head was another.
    conflicts;
    /// Attempts of appends whose outcome was not known.
    unknown_outcomes;
    /// Attempts made again because an earlier one had no known outcome.
    repeats;
    /// Appends of once unknown outcome whose rows turned out to be there.
    found_appended;
    /// Attempts that never reached a node.
    not_sent;
    /// Appends refused because they waited too long for a place or for the one before them.
    refused_for_place;
    /// Partitions that were opened.
    opened_partitions;
    /// Reads served: extents, pages, cursors, members, conversations.
    reads;
    /// Reads that failed.
    read_errors;
    /// Statements with serial consistency that read: for conversations that are loaded, appends in
    /// doubt, conflicts, and what is read again.
    serial_reads;
    /// Heads and pages read again with serial consistency, because what a majority showed at first
    /// was not whole, or was behind what was known.
    reread;
    /// Partitions looked into to find heads.
    walk_steps;
    /// Hints of heads written.
    hints;
    /// Hints not written because too many writes were under way; a later load heals that.
    dropped_hints;
    /// Writes of cursors, members and conversations.
    register_writes;
    /// Those that failed.
    register_errors;
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

impl Counters {
    /// Notes an append that became durable.
    pub(super) fn appended(&self, rows: usize, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        add(&self.appends, 1);
        add(&self.rows, rows as u64);
        add(&self.append_micros, micros);
        add(&self.append_rows[rows_class(rows)], 1);
        add(&self.append_latency[latency_class(micros)], 1);
    }
}

impl ScyllaStats {
    /// Upper bound in microseconds of what `percent` of all appends took at most; 0 without any.
    pub fn append_percentile_micros(&self, percent: f64) -> u64 {
        let all: u64 = self.append_latency.iter().sum();
        let rank = ((all as f64 * percent / 100.0).ceil() as u64).max(1);
        let reached = running_sums(&self.append_latency).position(|sum| sum >= rank);
        reached.map_or(0, |class| 1u64 << class)
    }
}

fn running_sums(classes: &[u64]) -> impl Iterator<Item = u64> + '_ {
    classes.iter().scan(0, |sum, n| {
        *sum += n;
        Some(*sum)
    })
}

fn latency_class(micros: u64) -> usize {
    (u64::BITS - micros.leading_zeros()).min(LATENCY_CLASSES as u32 - 1) as usize
}

fn rows_class(rows: usize) -> usize {
    let class = rows.max(1).next_power_of_two().trailing_zeros() as usize;
    class.min(ROWS_CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_their_classes() {
        assert_eq!([0, 1, 2, 3, 4, 1023, 1024].map(latency_class), [0, 1, 2, 2, 3, 10, 11]);
        assert_eq!(latency_class(u64::MAX), LATENCY_CLASSES - 1);
        assert_eq!([1, 2, 3, 4, 5, 512].map(rows_class), [0, 1, 2, 2, 3, 9]);
        assert_eq!(rows_class(crate::MAX_APPEND_RECORDS), ROWS_CLASSES - 1);
    }

    #[test]
    fn an_exporter_sees_every_value() {
        type Metric = (String, f64, Vec<(f64, u64)>);
        #[derive(Default)]
        struct Seen(Vec<Metric>);
        impl MetricsVisitor for Seen {
            fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
                assert!(help.ends_with('.') && !help.starts_with(' '), "{help:?}");
                self.0.push((name.into(), value as f64, vec![]));
            }
            fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
                self.counter(name, help, value);
            }
            fn histogram(
                &mut self,
                name: &'static str,
                _: &'static str,
                buckets: &mut dyn Iterator<Item = (f64, u64)>,
                sum: f64,
            ) {
                self.0.push((name.into(), sum, buckets.collect()));
            }
        }
        let counters = Counters::default();
        for _ in 0..99 {
            counters.appended(1, Duration::from_micros(100));
        }
        counters.appended(5, Duration::from_micros(9_000));
        let stats = counters.snapshot(3);
        assert_eq!(stats.append_percentile_micros(50.0), 128);
        assert_eq!(stats.append_percentile_micros(100.0), 16_384);
        assert_eq!(ScyllaStats::default().append_percentile_micros(99.0), 0);

        let mut seen = Seen::default();
        stats.visit(&mut seen);
        let of = |name: &str| seen.0.iter().find(|(known, ..)| known == name).cloned();
        assert_eq!(of("store_appends_total").map(|it| it.1), Some(100.0));
        assert_eq!(of("store_places_in_use").map(|it| it.1), Some(3.0));
        let rows = of("store_append_rows").unwrap_or_default();
        assert_eq!((rows.1, rows.2[0], rows.2[9]), (104.0, (1.0, 99), (512.0, 100)));
        let seconds = of("store_append_seconds").unwrap_or_default();
        assert_eq!(seconds.2.len(), LATENCY_CLASSES);
        assert_eq!(seconds.2.last(), Some(&(f64::INFINITY, 100)));
    }
}
