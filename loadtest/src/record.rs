//! What was measured: for each operation two histograms, and everything that did not go well.
//!
//! - **response**: from the intended start, as the timetable has it. What a user feels.
//! - **service**: from the moment it was actually begun. What the target took.
//!
//! A shard records without locks into a [`Recording`] of its own; recordings are joined by adding
//! histograms, never by averaging figures. What is recorded twice, once a shard and once a second,
//! so adds up to the same whole.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::operation::{Failure, Operation};
use crate::packed;

/// Least and greatest value of a histogram, microseconds, and its digits: relative error 0.1 %.
pub const LOWEST_US: u64 = 1;
/// See [`LOWEST_US`]. What took longer is recorded as this and counted in
/// [`OperationRecord::beyond`].
pub const HIGHEST_US: u64 = 60_000_000;
/// See [`LOWEST_US`].
pub const DIGITS: u8 = 3;

/// Kinds of failure that are counted apart, an operation. A broken target can make up codes without
/// end; the rest is counted as [`Failure::Other`].
const MAX_KINDS: usize = 64;

/// An empty histogram with the bounds that all of ours have.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LOWEST_US, HIGHEST_US, DIGITS)
        .unwrap_or_else(|_| unreachable!("the bounds are in order"))
}

/// All operations, over some time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Recording {
    /// Histograms are large (280 KB an operation), so one is only there once it is needed.
    operations: BTreeMap<Operation, Box<OperationRecord>>,
}

/// One operation, over some time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperationRecord {
    /// Microseconds from the intended start. Successes only.
    #[serde(with = "packed::histogram")]
    pub response: Histogram<u64>,
    /// Microseconds from the actual start. Successes only.
    #[serde(with = "packed::histogram")]
    pub service: Histogram<u64>,
    /// Failures by kind.
    pub errors: BTreeMap<Failure, u64>,
    /// Begun later after their intended start than the plan allows. They are in the histograms.
    pub late: u64,
    /// Never begun because they were due too long ago, or too many were under way. Neither in the
    /// histograms nor in the errors.
    pub dropped: u64,
    /// Took longer than [`HIGHEST_US`]; in the histograms as that.
    pub beyond: u64,
    /// Successes of sessions that read slowly or were away: what they took says nothing of the
    /// target. In [`count`](Self::count), and not in the histograms.
    #[serde(default)]
    pub untimed: u64,
    /// Held back by the window: due while as many messages of the session were unanswered as the
    /// gateway allows. Response times contain the wait, service times do not.
    #[serde(default)]
    pub held_back: u64,
    /// The longest of these waits, from when it was due, microseconds.
    #[serde(default)]
    pub held_back_longest_us: u64,
}

impl Default for OperationRecord {
    fn default() -> Self {
        Self {
            response: histogram(),
            service: histogram(),
            errors: BTreeMap::new(),
            late: 0,
            dropped: 0,
            beyond: 0,
            untimed: 0,
            held_back: 0,
            held_back_longest_us: 0,
        }
    }
}

impl OperationRecord {
    /// Successes.
    pub fn count(&self) -> u64 {
        self.response.len() + self.untimed
    }

    /// Failures of all kinds.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Failures among all that ended, 0 to 1.
    pub fn error_rate(&self) -> f64 {
        let failed = self.failed();
        let ended = failed + self.count();
        if ended == 0 { 0.0 } else { failed as f64 / ended as f64 }
    }

    /// Adds what another recorded.
    pub fn merge(&mut self, other: &Self) {
        for (into, from) in
            [(&mut self.response, &other.response), (&mut self.service, &other.service)]
        {
            // The bounds are equal, so every value fits.
            into.add(from).unwrap_or_else(|_| unreachable!("all histograms have the same bounds"));
        }
        for (&failure, &count) in &other.errors {
            count_failure(&mut self.errors, failure, count);
        }
        self.late += other.late;
        self.dropped += other.dropped;
        self.beyond += other.beyond;
        self.untimed += other.untimed;
        self.held_back += other.held_back;
        self.held_back_longest_us = self.held_back_longest_us.max(other.held_back_longest_us);
    }
}

/// Raises a count, within the bound on kinds.
pub(crate) fn count_failure(errors: &mut BTreeMap<Failure, u64>, failure: Failure, count: u64) {
    let known = errors.contains_key(&failure) || errors.len() < MAX_KINDS;
    *errors.entry(if known { failure } else { Failure::Other }).or_default() += count;
}

impl Recording {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A success that took so many microseconds from its intended and from its actual start.
    pub fn success(&mut self, operation: Operation, response_us: u64, service_us: u64) {
        let record = self.of(operation);
        record.response.saturating_record(response_us.clamp(LOWEST_US, HIGHEST_US));
        record.service.saturating_record(service_us.clamp(LOWEST_US, HIGHEST_US));
        record.beyond += u64::from(response_us > HIGHEST_US);
    }

    /// A success of which the time says nothing.
    pub fn untimed(&mut self, operation: Operation) {
        self.of(operation).untimed += 1;
    }

    /// The window held something back for so many microseconds.
    pub fn held_back(&mut self, operation: Operation, us: u64) {
        let record = self.of(operation);
        record.held_back += 1;
        record.held_back_longest_us = record.held_back_longest_us.max(us);
    }

    /// A failure.
    pub fn failure(&mut self, operation: Operation, failure: Failure) {
        count_failure(&mut self.of(operation).errors, failure, 1);
    }

    /// Something was begun later than allowed.
    pub fn late(&mut self, operation: Operation) {
        self.of(operation).late += 1;
    }

    /// So many were never begun.
    pub fn dropped(&mut self, operation: Operation, count: u64) {
        if count > 0 {
            self.of(operation).dropped += count;
        }
    }

    /// The record of an operation, if anything is in it.
    pub fn get(&self, operation: Operation) -> Option<&OperationRecord> {
        self.operations.get(&operation).map(|record| &**record)
    }

    /// The operations of which something is recorded, in the order of reports.
    pub fn iter(&self) -> impl Iterator<Item = (Operation, &OperationRecord)> {
        self.operations.iter().map(|(operation, record)| (*operation, &**record))
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Adds what another recorded.
    pub fn merge(&mut self, other: &Self) {
        for (operation, record) in other.iter() {
            self.of(operation).merge(record);
        }
    }

    fn of(&mut self, operation: Operation) -> &mut OperationRecord {
        self.operations.entry(operation).or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Entry {
        Success(Operation, u64, u64),
        Failure(Operation, Failure),
        Late(Operation),
        Dropped(Operation, u64),
        Untimed(Operation),
        HeldBack(Operation, u64),
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let operation = || proptest::sample::select(Operation::ALL.to_vec());
        prop_oneof![
            (operation(), 0u64..200_000_000, 0u64..200_000_000)
                .prop_map(|(operation, r, s)| Entry::Success(operation, r, s)),
            (operation(), 0u32..100).prop_map(|(o, code)| Entry::Failure(o, Failure::Code(code))),
            operation().prop_map(Entry::Late),
            (operation(), 0u64..5).prop_map(|(operation, n)| Entry::Dropped(operation, n)),
            operation().prop_map(Entry::Untimed),
            (operation(), 0u64..1000).prop_map(|(operation, us)| Entry::HeldBack(operation, us)),
        ]
    }

    fn record(entries: &[Entry]) -> Recording {
        let mut recording = Recording::new();
        for entry in entries {
            match *entry {
                Entry::Success(operation, r, s) => recording.success(operation, r, s),
                Entry::Failure(operation, failure) => recording.failure(operation, failure),
                Entry::Late(operation) => recording.late(operation),
                Entry::Dropped(operation, count) => recording.dropped(operation, count),
                Entry::Untimed(operation) => recording.untimed(operation),
                Entry::HeldBack(operation, us) => recording.held_back(operation, us),
            }
        }
        recording
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// However entries are spread over shards and seconds, their sum is the whole.
        #[test]
        fn merging_is_recording_everything_in_one(
            entries in proptest::collection::vec((entry(), 0usize..4), 0..40),
        ) {
            let whole = record(&entries.iter().map(|(entry, _)| entry.clone()).collect::<Vec<_>>());
            let mut sum = Recording::new();
            for shard in [2, 0, 3, 1] {
                let part: Vec<_> =
                    entries.iter().filter(|e| e.1 == shard).map(|e| e.0.clone()).collect();
                sum.merge(&record(&part));
            }
            prop_assert_eq!(&sum, &whole);
            let text = serde_json::to_string(&whole).unwrap();
            let again: Recording = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&again, &whole);
        }
    }

    #[test]
    fn what_takes_too_long_is_counted_apart() {
        let mut recording = Recording::new();
        recording.success(Operation::Sync, HIGHEST_US + 1, 5);
        let record = recording.get(Operation::Sync).unwrap();
        assert_eq!((record.count(), record.beyond), (1, 1));
        assert!(record.response.max() >= HIGHEST_US);
        assert_eq!(recording.get(Operation::Connect), None);
    }

    #[test]
    fn kinds_of_failure_are_bounded_and_none_is_forgotten() {
        let mut recording = Recording::new();
        (0..1000).for_each(|code| recording.failure(Operation::Login, Failure::Code(code)));
        let record = recording.get(Operation::Login).unwrap();
        assert_eq!(record.errors.len(), MAX_KINDS + 1);
        assert_eq!(record.failed(), 1000);
        assert_eq!(record.error_rate(), 1.0);
    }
}
