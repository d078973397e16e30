//! What a shard has counted, and what it tells of it once a second.

use std::collections::BTreeMap;

use crate::clock::{Nanos, micros_between};
use crate::operation::{Failure, Operation};
use crate::record::{Recording, count_failure};
use crate::verify::Ledger;

/// Counts since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Logged-in sessions now.
    pub(crate) live: u64,
    /// Connections being made now.
    pub(crate) connecting: u64,
    /// Sessions that are not there and come back.
    pub(crate) away: u64,
    /// See [`Sessions`](crate::outcome::Sessions).
    pub(crate) logins: u64,
    /// See [`Sessions`](crate::outcome::Sessions).
    pub(crate) lost: u64,
    /// See [`Sessions`](crate::outcome::Sessions).
    pub(crate) failed: u64,
    /// See [`Sessions`](crate::outcome::Sessions).
    pub(crate) expected: u64,
    /// See [`Sessions`](crate::outcome::Sessions).
    pub(crate) resumed: u64,
    /// See [`Sessions`](crate::outcome::Sessions).
    pub(crate) ends: BTreeMap<Failure, u64>,
    /// Messages of backlogs that must be acknowledged before they can be synced.
    pub(crate) fill_left: u64,
    /// Syncs under way now.
    pub(crate) syncing: u64,
    /// Messages that are due and wait for room.
    pub(crate) queued: u64,
    /// Receivers that miss something and do not know yet whether it is in the log; `None`: the end
    /// has not come.
    pub(crate) unsettled: Option<u64>,
}

/// What one shard says.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Which shard.
    pub(crate) shard: usize,
    /// Which second of the run has ended.
    pub(crate) second: u32,
    /// What ended in it and was due in the measured phase.
    pub(crate) measured: Recording,
    /// What ended in it and was due outside.
    pub(crate) unmeasured: Recording,
    /// Since the start.
    pub(crate) tally: Tally,
    /// Since the start.
    pub(crate) ledger: Ledger,
    /// How long after the end of the second this was said.
    pub(crate) behind: Nanos,
    /// There are no more.
    pub(crate) last: bool,
}

/// The counts of a shard.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// The measured phase.
    pub(super) window: std::ops::Range<Nanos>,
    measured: Recording,
    unmeasured: Recording,
    pub(super) tally: Tally,
    pub(super) ledger: Ledger,
}

impl Book {
    /// A success that ended now.
    pub(super) fn success(
        &mut self,
        operation: Operation,
        intended: Nanos,
        begun: Nanos,
        now: Nanos,
    ) {
        let response = micros_between(intended, now);
        let service = micros_between(begun, now);
        self.of(intended).success(operation, response, service);
    }

    /// A success of a session whose times say nothing of the target.
    pub(super) fn untimed(&mut self, operation: Operation, intended: Nanos) {
        self.of(intended).untimed(operation);
    }

    /// What the window held back is begun now, or given up.
    pub(super) fn held_back(&mut self, operation: Operation, intended: Nanos, now: Nanos) {
        self.of(intended).held_back(operation, micros_between(intended, now));
    }

    /// A failure.
    pub(super) fn failure(&mut self, operation: Operation, intended: Nanos, failure: Failure) {
        self.of(intended).failure(operation, failure);
    }

    /// Begun too late.
    pub(super) fn late(&mut self, operation: Operation, intended: Nanos) {
        self.of(intended).late(operation);
    }

    /// So many were not begun at all, due from `first` to `last`: about evenly, so that each part
    /// counts where it was due.
    pub(super) fn dropped(&mut self, operation: Operation, count: u64, first: Nanos, last: Nanos) {
        let (from, to) = (first.max(self.window.start), last.min(self.window.end));
        let measured = match self.window.is_empty() || to < from || first == self.window.end {
            true => 0,
            false if first == last => count,
            false => (count as f64 * (to - from) as f64 / (last - first) as f64).round() as u64,
        };
        let measured = measured.min(count);
        self.measured.dropped(operation, measured);
        self.unmeasured.dropped(operation, count - measured);
    }

    /// Why a session ended, or an attempt.
    pub(super) fn end(&mut self, failure: Failure) {
        count_failure(&mut self.tally.ends, failure, 1);
    }

    /// What the second has brought.
    pub(super) fn report(&mut self, shard: usize, second: u32, last: bool) -> Report {
        let (measured, unmeasured) =
            (std::mem::take(&mut self.measured), std::mem::take(&mut self.unmeasured));
        let (tally, ledger) = (self.tally.clone(), self.ledger);
        Report { shard, second, measured, unmeasured, tally, ledger, behind: 0, last }
    }

    /// What was due belongs to the measured phase if its time does, however long it took: the
    /// slowest must not fall out because the phase is over.
    fn of(&mut self, intended: Nanos) -> &mut Recording {
        if self.window.contains(&intended) { &mut self.measured } else { &mut self.unmeasured }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_counts_where_it_was_due() {
        let mut book = Book { window: 100..200, ..Book::default() };
        let cases = [
            ((10, 0, 99), 0),
            ((10, 200, 300), 0),
            ((10, 100, 190), 10),
            ((10, 50, 150), 5),
            ((10, 150, 250), 5),
            ((40, 0, 400), 10),
            ((1, 199, 199), 1),
            ((1, 200, 200), 0),
        ];
        for ((count, first, last), measured) in cases {
            book.dropped(Operation::Sync, count, first, last);
            let report = book.report(0, 0, false);
            let of = |part: &Recording| part.get(Operation::Sync).map_or(0, |one| one.dropped);
            let found = (of(&report.measured), of(&report.unmeasured));
            assert_eq!(found, (measured, count - measured), "{first} to {last}");
        }
    }
}
