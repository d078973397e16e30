//! Cursors: how far somebody has come in a conversation. A cursor only ever rises.

use crate::{ConversationId, Seq};

/// A position in a conversation, as acknowledgements carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which conversation.
    pub conversation: ConversationId,
    /// Everything up to here.
    pub seq: Seq,
}

/// Highest sequence number that was reached; every lower one counts as reached too.
///
/// Acknowledgements arrive late, twice and in any order; a cursor takes the highest and forgets
/// the rest, so none of that can move it back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(Seq);

impl Cursor {
    /// A cursor that has reached `seq`; 0 is "before the first message".
    pub fn at(seq: Seq) -> Self {
        Self(seq)
    }

    /// Where it stands.
    pub fn get(self) -> Seq {
        self.0
    }

    /// Moves up to `seq`. A lower value changes nothing. Returns whether it moved.
    pub fn advance(&mut self, seq: Seq) -> bool {
        let moved = seq > self.0;
        self.0 = self.0.max(seq);
        moved
    }

    /// As [`advance`](Self::advance), but never past `head`: nobody has what does not exist.
    pub fn advance_within(&mut self, seq: Seq, head: Seq) -> bool {
        self.advance(seq.min(head))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_never_moves_back_and_ends_at_the_highest(
            moves in proptest::collection::vec((0u64..100, 0u64..100), 0..50),
        ) {
            let mut cursor = Cursor::default();
            let mut highest = 0;
            for (seq, head) in moves {
                let before = cursor.get();
                let moved = cursor.advance_within(seq, head);
                highest = highest.max(seq.min(head));
                prop_assert_eq!(moved, cursor.get() > before);
                prop_assert!(cursor.get() >= before);
            }
            prop_assert_eq!(cursor.get(), highest);
        }
    }
}
