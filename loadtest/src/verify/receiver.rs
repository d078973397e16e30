//! One session's place in its conversation (docs/protocol.md section 7).

use super::Ledger;

/// Pieces of the log that are kept apart beyond a gap: 1 KB. What comes beyond is not taken note of,
/// and comes again when what is missing is asked for.
const MAX_AHEAD: usize = 64;

/// What a message is to a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is new.
    First,
    /// It had it.
    Again,
    /// Too much is missing before it to remember it: it must come again.
    Untracked,
}

/// Where a session stands.
#[derive(Debug, Default)]
pub struct Receiver {
    /// It has everything up to here.
    position: u64,
    /// Highest number that was pushed to it.
    newest: u64,
    /// Highest number that it asked for: up to here pushes and answers may overlap.
    asked: u64,
    /// A whole answer to a request up to here has come: what it did not bring is not in the log.
    answered: u64,
    /// What it has beyond the position: ranges, both ends included, ascending, never adjacent.
    ahead: Vec<(u64, u64)>,
    /// The conversation may be older than the run: the first number that is pushed is the beginning,
    /// or one of its own before it. Not any more once it has asked from where it stands.
    adopts: bool,
}

impl Receiver {
    /// A receiver of a conversation that begins with this run.
    pub fn new() -> Self {
        Self::default()
    }

    /// A receiver of a conversation that may have a history.
    pub fn joining() -> Self {
        Self { adopts: true, ..Self::default() }
    }

    /// It has everything up to here.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether it can tell if this number is in the log: it has everything up to there, or was
    /// answered what it asked for.
    pub fn can_tell(&self, seq: u64) -> bool {
        seq <= self.position.max(self.answered)
    }

    /// Where something is missing: from the first number that it does not have to the last one of
    /// which it knows that there is more behind it. Both ends included.
    pub fn gap(&self) -> Option<(u64, u64)> {
        let known = self.ahead.last().map_or(self.position, |last| last.1).max(self.newest);
        if known <= self.position {
            return None;
        }
        let last = match self.ahead.last() {
            Some(last) if last.1 >= known => last.0 - 1,
            // Numbers beyond were seen, and not kept.
            _ => known,
        };
        Some((self.position + 1, last))
    }

    /// A push came.
    pub fn pushed(&mut self, seq: u64, ledger: &mut Ledger) -> Seen {
        if seq == u64::MAX {
            // No log is so long; and the numbers around it can be reckoned with.
            return Seen::Untracked;
        }
        if std::mem::take(&mut self.adopts) {
            let first = self.ahead.first().map_or(seq, |range| range.0.min(seq));
            self.skip_to(first.saturating_sub(1));
        }
        let overlaps = seq <= self.asked;
        let older = seq < self.newest;
        let seen = self.take(seq);
        match seen {
            Seen::First if older && !overlaps => ledger.found.reordered += 1,
            Seen::Again if !overlaps => ledger.found.duplicated += 1,
            _ => {}
        }
        self.newest = self.newest.max(seq);
        seen
    }

    /// A message came in answer to a request.
    pub fn pulled(&mut self, seq: u64, ledger: &mut Ledger) -> Seen {
        self.adopts = false;
        let seen = self.take(seq);
        ledger.found.recovered += u64::from(seen == Seen::First);
        seen
    }

    /// An acknowledgement said that a message of its own is there. What others wrote before it may
    /// not have come yet.
    pub fn own(&mut self, seq: u64) {
        self.take(seq);
    }

    /// Everything from the position up to here is asked for.
    pub fn ask(&mut self, to: u64) {
        self.adopts = false;
        self.asked = self.asked.max(to);
    }

    /// What was asked for up to here has been answered to the end, even if the log does not reach it.
    pub fn answered(&mut self, to: u64) {
        self.answered = self.answered.max(to);
    }

    /// The log was read up to here: what it did not bring is not there, and not waited for.
    pub fn has_read(&mut self, to: u64) {
        self.adopts = false;
        self.skip_to(to);
    }

    fn skip_to(&mut self, to: u64) {
        if to > self.position && to < u64::MAX {
            self.position = to;
            self.absorb();
        }
    }

    /// The log does not reach back further than this: what was before is gone for good.
    pub fn begins_at(&mut self, first: u64) {
        self.has_read(first.saturating_sub(1));
    }

    fn take(&mut self, seq: u64) -> Seen {
        if seq <= self.position {
            return Seen::Again;
        }
        if seq == u64::MAX {
            return Seen::Untracked;
        }
        if seq == self.position + 1 {
            self.position = seq;
            self.absorb();
            return Seen::First;
        }
        // Almost always behind everything that is there.
        let at = self.ahead.partition_point(|range| range.1 < seq);
        if self.ahead.get(at).is_some_and(|range| range.0 <= seq) {
            return Seen::Again;
        }
        let joins_left = at > 0 && self.ahead[at - 1].1 + 1 == seq;
        let joins_right = self.ahead.get(at).is_some_and(|range| seq + 1 == range.0);
        match (joins_left, joins_right) {
            (true, true) => {
                self.ahead[at - 1].1 = self.ahead[at].1;
                self.ahead.remove(at);
            }
            (true, false) => self.ahead[at - 1].1 = seq,
            (false, true) => self.ahead[at].0 = seq,
            (false, false) if self.ahead.len() >= MAX_AHEAD => return Seen::Untracked,
            (false, false) => self.ahead.insert(at, (seq, seq)),
        }
        Seen::First
    }

    fn absorb(&mut self) {
        let mut taken = 0;
        while let Some(range) = self.ahead.get(taken)
            && range.0 <= self.position + 1
        {
            self.position = self.position.max(range.1);
            taken += 1;
        }
        self.ahead.drain(..taken);
        if self.ahead.is_empty() && self.ahead.capacity() > 0 {
            self.ahead = Vec::new();
        }
    }
}
