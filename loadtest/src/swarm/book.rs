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
    /// See [`Sessions`](crate::outcome::Sessions).
    pub(crate) logins: u64,
    /// See [`Sessions`](crate::outcome::Sessions).
    pub(crate) lost: u64,
    /// See [`Sessions`](crate::outcome::Sessions).
    pub(crate) failed: u64,
    /// See [`Sessions`](crate::outcome::Sessions).
    pub(crate) ends: BTreeMap<Failure, u64>,
    /// Messages of backlogs that must be acknowledged before they can be synced.
    pub(crate) fill_left: u64,
    /// Syncs under way now.
    pub(crate) syncing: u64,
    /// Messages that are due and wait for room.
    pub(crate) queued: u64,
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

    /// A failure.
    pub(super) fn failure(&mut self, operation: Operation, intended: Nanos, failure: Failure) {
        self.of(intended).failure(operation, failure);
    }

    /// Begun too late.
    pub(super) fn late(&mut self, operation: Operation, intended: Nanos) {
        self.of(intended).late(operation);
    }

    /// Not begun at all.
    pub(super) fn dropped(&mut self, operation: Operation, about: Nanos, count: u64) {
        self.of(about).dropped(operation, count);
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
