//! What has happened while a scene was explored: a proof about things that never occur would be
//! none.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Something that the protocol is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// An append in doubt read its rows, and they were there.
    DoubtWasOurs,
    /// An append in doubt read its rows, and somebody else's were there.
    DoubtWasTheirs,
    /// An append in doubt was applied when it was repeated.
    DoubtWasRepeated,
    /// Another gateway was faster.
    Conflict,
    /// An append was refused, because the cluster was not reached.
    Refused,
    /// A partition was opened with evidence from the one before.
    Opened,
    /// A partition was opened by a number behind the overhang of the one before.
    OpenedBehindOverhang,
    /// Rows were put into a partition beyond its bucket's edge.
    Overhang,
    /// A batch was applied of which nobody awaited an answer.
    LateApplied,
    /// A batch of which nobody awaited an answer can never be applied any more.
    LateRefused,
    /// A gateway crashed while its append was in doubt.
    CrashInDoubt,
    /// A message was looked for in the log and found.
    FoundByScan,
    /// A gateway acknowledged a message that another one has numbered, and that was acknowledged
    /// before.
    AcknowledgedByBoth,
}

/// All of them.
pub(crate) const EVENTS: [Event; 13] = [
    Event::DoubtWasOurs,
    Event::DoubtWasTheirs,
    Event::DoubtWasRepeated,
    Event::Conflict,
    Event::Refused,
    Event::Opened,
    Event::OpenedBehindOverhang,
    Event::Overhang,
    Event::LateApplied,
    Event::LateRefused,
    Event::CrashInDoubt,
    Event::FoundByScan,
    Event::AcknowledgedByBoth,
];

/// How often each was met.
#[derive(Debug, Default)]
pub(crate) struct Coverage([AtomicUsize; EVENTS.len()]);

impl Coverage {
    pub(crate) fn saw(&self, event: Event) {
        self.0[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, other: &Self) {
        for (count, more) in self.0.iter().zip(&other.0) {
            count.fetch_add(more.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self, event: Event) -> usize {
        self.0[event as usize].load(Ordering::Relaxed)
    }
}
