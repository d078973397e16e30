//! One writer's messages on their way: what was acknowledged, who still misses what.

use std::collections::VecDeque;

use super::Ledger;
use crate::clock::Nanos;

/// Messages of one stream that may be on their way at once: 2 MB. A writer whose window is full
/// writes nothing more until the oldest has arrived everywhere or is given up.
pub const MAX_WINDOW: usize = 1 << 16;

/// When a message was to begin and when it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When it was due.
    pub intended: Nanos,
    /// When it was written.
    pub sent: Nanos,
}

/// What an acknowledgement was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acked {
    /// The answer that was waited for.
    Yes(Times),
    /// An answer that came after it was given up; its message has been counted as failed.
    TooLate,
    /// Nobody waited for it.
    False,
}

/// What a delivery was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The message came to this receiver for the first time.
    New {
        /// Of the message.
        times: Times,
        /// All receivers have it now.
        complete: bool,
    },
    /// It was counted as something wrong, or is too old to be looked at.
    Odd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Written, not answered.
    Waiting,
    Acked,
    Refused,
    /// Not answered in time, or the session ended first: it may be stored, or not.
    Unknown,
}

#[derive(Debug)]
struct Entry {
    times: Times,
    /// 0: not known yet.
    seq: u64,
    /// Receivers that do not have it.
    missing: u32,
    state: State,
    /// A receiver has seen it at `seq`; otherwise an acknowledgement said so.
    is_seen: bool,
}

impl Entry {
    /// Everything that is expected of it has come. A refused one is remembered for a while: it must
    /// not come.
    fn is_final(&self) -> bool {
        self.state == State::Acked && self.missing == 0
    }
}

/// A row of messages from one writer to the same receivers.
#[derive(Debug)]
pub struct Stream {
    receivers: u32,
    /// Counter of the first entry.
    base: u32,
    entries: VecDeque<Entry>,
    /// Written and not answered.
    waiting: u32,
    /// Deliveries that were given up as lost and may still come.
    given_up: u32,
    /// The highest number of those.
    given_up_to: u64,
    /// Entries that were forgotten before their answer came.
    forgotten: u32,
}

impl Stream {
    /// A stream to so many receivers.
    pub fn new(receivers: u32) -> Self {
        Self {
            receivers,
            base: 0,
            entries: VecDeque::new(),
            waiting: 0,
            given_up: 0,
            given_up_to: 0,
            forgotten: 0,
        }
    }

    /// Messages without an answer.
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether one more can be remembered; forgets what nothing is demanded of to make it so.
    pub fn make_room(&mut self) -> bool {
        while self.entries.len() >= MAX_WINDOW {
            match self.entries.front().map(|entry| entry.state) {
                Some(State::Refused | State::Unknown) => {
                    self.forgotten = self.forgotten.saturating_add(1);
                }
                _ => return false,
            }
            self.pop();
            self.drop_final();
        }
        true
    }

    /// The counter that the next message gets.
    pub fn next(&self) -> u32 {
        self.base.wrapping_add(self.entries.len() as u32)
    }

    /// A message is written; it has the counter that [`next`](Self::next) said.
    pub fn sent(&mut self, times: Times, ledger: &mut Ledger) {
        debug_assert!(self.entries.len() < MAX_WINDOW);
        self.entries.push_back(Entry {
            times,
            seq: 0,
            missing: self.receivers,
            state: State::Waiting,
            is_seen: false,
        });
        self.waiting += 1;
        ledger.open_acks += 1;
        ledger.found.sent += 1;
    }

    /// An acknowledgement came: message `counter` is at `seq`.
    pub fn acked(&mut self, counter: u32, seq: u64, ledger: &mut Ledger) -> Acked {
        let Some(at) = self.find(counter) else {
            if self.is_past(counter) && self.forgotten > 0 {
                self.forgotten -= 1;
                return Acked::TooLate;
            }
            ledger.found.false_acks += 1;
            return Acked::False;
        };
        let before = self.entries[at].state;
        if matches!(before, State::Acked | State::Refused) || seq == 0 {
            ledger.found.false_acks += 1;
            return Acked::False;
        }
        let entry = &mut self.entries[at];
        match entry.seq {
            0 => entry.seq = seq,
            // A receiver saw it elsewhere.
            known => ledger.found.false_acks += u64::from(known != seq),
        }
        entry.state = State::Acked;
        let times = entry.times;
        ledger.found.acked += 1;
        ledger.open_deliveries += u64::from(entry.missing);
        if before == State::Waiting {
            self.waiting -= 1;
            ledger.open_acks -= 1;
        }
        self.drop_final();
        if before == State::Waiting { Acked::Yes(times) } else { Acked::TooLate }
    }

    /// Message `counter` was refused. The times, if it was waited for.
    pub fn refused(&mut self, counter: u32, ledger: &mut Ledger) -> Option<Times> {
        let at = self.find(counter)?;
        let entry = &mut self.entries[at];
        match entry.state {
            State::Waiting => {
                self.waiting -= 1;
                ledger.open_acks -= 1;
            }
            State::Unknown => {}
            State::Acked | State::Refused => {
                ledger.found.false_acks += 1;
                return None;
            }
        }
        // Refused, and yet some have it.
        ledger.found.false_acks += u64::from(entry.missing < self.receivers);
        let waited = entry.state == State::Waiting;
        let times = entry.times;
        entry.state = State::Refused;
        self.drop_final();
        waited.then_some(times)
    }

    /// What was written before `before` and is not answered counts as failed; `each` hears of it.
    /// With [`Nanos::MAX`] that is everything: the session that wrote has ended.
    pub fn expire(&mut self, before: Nanos, ledger: &mut Ledger, mut each: impl FnMut(Times)) {
        if self.waiting == 0 {
            return;
        }
        let mut expired = 0;
        for entry in &mut self.entries {
            if entry.times.sent >= before {
                break;
            }
            if entry.state == State::Waiting {
                entry.state = State::Unknown;
                expired += 1;
                each(entry.times);
            }
        }
        self.waiting -= expired;
        ledger.open_acks -= u64::from(expired);
    }

    /// What was written before `before` and has not arrived is given up: acknowledged messages are
    /// lost, others forgotten. Called from time to time this bounds what a stream keeps by what it
    /// writes meanwhile.
    pub fn give_up(&mut self, before: Nanos, ledger: &mut Ledger) {
        while let Some(entry) = self.entries.front()
            && entry.times.sent < before
        {
            match entry.state {
                State::Waiting => break,
                State::Acked => {
                    self.given_up = self.given_up.saturating_add(entry.missing);
                    self.given_up_to = self.given_up_to.max(entry.seq);
                    ledger.found.lost += u64::from(entry.missing);
                    ledger.open_deliveries -= u64::from(entry.missing);
                }
                State::Unknown | State::Refused => {
                    self.forgotten = self.forgotten.saturating_add(1);
                }
            }
            self.pop();
        }
        self.drop_final();
    }

    /// The highest number that was acknowledged and has not come to all receivers.
    pub fn missing_to(&self) -> Option<u64> {
        let missing = self.missing().map(|entry| entry.seq);
        missing.chain((self.given_up > 0).then_some(self.given_up_to)).max()
    }

    /// The end: what is acknowledged and missing is lost, but for what may still be on its way to
    /// those receivers that cannot tell whether it is in the log: as many as `unsure` says of a
    /// number.
    pub fn close(&mut self, unsure: impl Fn(u64) -> u32, ledger: &mut Ledger) {
        self.expire(Nanos::MAX, ledger, drop);
        let mut unchecked: u64 =
            self.missing().map(|entry| u64::from(entry.missing.min(unsure(entry.seq)))).sum();
        if self.given_up > 0 && unsure(self.given_up_to) > 0 {
            // Of what was given up before it is not kept who misses it.
            unchecked += u64::from(self.given_up);
        }
        self.give_up(Nanos::MAX, ledger);
        ledger.found.lost -= unchecked;
        ledger.found.unchecked += unchecked;
    }

    fn missing(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.state == State::Acked && entry.missing > 0)
    }

    /// Message `counter` came to a receiver, at `seq`, which that receiver did not have before.
    pub fn arrived(&mut self, counter: u32, seq: u64, ledger: &mut Ledger) -> Arrival {
        let Some(at) = self.find(counter) else {
            if !self.is_past(counter) {
                // Under the run's mark, and never written.
                ledger.found.misdelivered += 1;
            } else if self.given_up > 0 {
                // Very late, but not lost.
                self.given_up -= 1;
                ledger.found.lost -= 1;
                ledger.found.delivered += 1;
            } else if self.forgotten == 0 {
                // All receivers had it: it is in the log twice.
                ledger.found.duplicated += 1;
            }
            return Arrival::Odd;
        };
        if self.entries[at].missing == 0 {
            ledger.found.duplicated += 1;
            return Arrival::Odd;
        }
        if self.entries[at].state == State::Refused {
            ledger.found.false_acks += 1;
        }
        self.see(at, seq, ledger);
        let entry = &mut self.entries[at];
        entry.missing -= 1;
        ledger.found.delivered += 1;
        if entry.state == State::Acked {
            ledger.open_deliveries -= 1;
        }
        let (times, complete) = (entry.times, entry.missing == 0);
        self.drop_final();
        Arrival::New { times, complete }
    }

    fn find(&self, counter: u32) -> Option<usize> {
        let at = counter.wrapping_sub(self.base) as usize;
        (at < self.entries.len()).then_some(at)
    }

    /// Counters from before the window, seen around the circle.
    fn is_past(&self, counter: u32) -> bool {
        self.base.wrapping_sub(counter).wrapping_sub(1) < u32::MAX / 2
    }

    /// Notes the place in the log at which a receiver saw it, and checks it against what is known.
    /// Only what was seen says something of the order: an acknowledgement may lie.
    fn see(&mut self, at: usize, seq: u64, ledger: &mut Ledger) {
        let known = (self.entries[at].seq, self.entries[at].is_seen);
        if known.0 != 0 && known.0 != seq {
            ledger.found.false_acks += 1;
        }
        if known.1 {
            return;
        }
        // The log keeps the order in which the writer wrote.
        let seen = |entry: &Entry| entry.is_seen.then_some(entry.seq);
        let before = at.checked_sub(1).and_then(|at| seen(&self.entries[at]));
        let after = self.entries.get(at + 1).and_then(seen);
        if before.is_some_and(|before| before >= seq) || after.is_some_and(|after| after <= seq) {
            ledger.found.reordered += 1;
        }
        let entry = &mut self.entries[at];
        (entry.seq, entry.is_seen) = (seq, true);
    }

    fn drop_final(&mut self) {
        while self.entries.front().is_some_and(Entry::is_final) {
            self.pop();
        }
        // A burst should not hold its table for ever.
        if self.entries.capacity() > 64 && self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    fn pop(&mut self) {
        self.entries.pop_front();
        self.base = self.base.wrapping_add(1);
    }
}
