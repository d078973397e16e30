//! Which sequence numbers of one conversation have arrived, and which are missing.
//!
//! Everything up to [`Received::contiguous`] is here; what came early lies beyond it in ranges.
//! The ranges are bounded: when a new one does not fit, the farthest is forgotten and has to be
//! asked for again. Forgetting never loses anything, because the log still has it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::Seq;

/// Ranges kept beyond the contiguous part, per conversation. One gap is the usual case (pushes
/// that were left out while the client read slowly); each further range costs 16 bytes and one
/// entry of a pull request.
pub const MAX_EARLY_RANGES: usize = 64;

/// The received numbers of one conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    contiguous: Seq,
    /// First to last of each range; disjoint, not adjacent, all above `contiguous + 1`.
    early: BTreeMap<Seq, Seq>,
}

/// What became of a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Insert {
    /// It was known before.
    Duplicate,
    /// It continues the contiguous part, which now ends at [`Received::contiguous`].
    InOrder,
    /// It lies beyond a gap.
    Early,
    /// It lies beyond a gap, and this range was forgotten to make room. It may be the number
    /// itself.
    EarlyForgot(RangeInclusive<Seq>),
}

impl Received {
    /// Everything up to `contiguous` counts as received.
    pub fn up_to(contiguous: Seq) -> Self {
        Self { contiguous, early: BTreeMap::new() }
    }

    /// Last number before the first gap.
    pub fn contiguous(&self) -> Seq {
        self.contiguous
    }

    /// Highest number received.
    pub fn highest(&self) -> Seq {
        self.early.last_key_value().map_or(self.contiguous, |(_, &last)| last)
    }

    /// Whether a number has been received and not forgotten.
    pub fn contains(&self, seq: Seq) -> bool {
        seq <= self.contiguous
            || self.early.range(..=seq).next_back().is_some_and(|(_, &last)| seq <= last)
    }

    /// Records one number. 0 is no position and counts as known.
    pub fn insert(&mut self, seq: Seq) -> Insert {
        if self.contains(seq) {
            return Insert::Duplicate;
        }
        if seq == self.contiguous + 1 {
            self.contiguous = seq;
            self.absorb();
            return Insert::InOrder;
        }
        self.insert_early(seq);
        if self.early.len() <= MAX_EARLY_RANGES {
            return Insert::Early;
        }
        match self.early.pop_last() {
            Some((first, last)) => Insert::EarlyForgot(first..=last),
            None => Insert::Early,
        }
    }

    /// Counts everything up to `seq` as received, for instance because it no longer exists.
    pub fn skip_to(&mut self, seq: Seq) {
        self.contiguous = self.contiguous.max(seq);
        while let Some(entry) = self.early.first_entry() {
            if *entry.key() > self.contiguous {
                break;
            }
            self.contiguous = self.contiguous.max(entry.remove());
        }
        self.absorb();
    }

    /// The missing ranges up to and including `head`, in ascending order.
    pub fn missing(&self, head: Seq) -> impl Iterator<Item = RangeInclusive<Seq>> + '_ {
        let mut next = self.contiguous + 1;
        let ends = self.early.iter().map(|(&first, &last)| (first, last)).chain([(
            // A range that begins after the head closes the last gap.
            head.saturating_add(1),
            Seq::MAX - 1,
        )]);
        ends.filter_map(move |(first, last)| {
            let gap = next..=(first - 1).min(head);
            next = next.max(last + 1);
            (!gap.is_empty()).then_some(gap)
        })
    }

    /// Joins a range that begins right after the contiguous part.
    fn absorb(&mut self) {
        if let Some(last) = self.early.remove(&(self.contiguous + 1)) {
            self.contiguous = last;
        }
    }

    fn insert_early(&mut self, seq: Seq) {
        let end = self.early.remove(&(seq + 1)).unwrap_or(seq);
        match self.early.range_mut(..seq).next_back() {
            Some((_, last)) if *last + 1 == seq => *last = end,
            _ => {
                self.early.insert(seq, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same, naively: a set of numbers.
    #[derive(Default)]
    struct Model {
        set: BTreeSet<Seq>,
    }

    impl Model {
        fn contiguous(&self) -> Seq {
            (1..).find(|seq| !self.set.contains(seq)).unwrap() - 1
        }

        fn missing(&self, head: Seq) -> Vec<Seq> {
            (1..=head).filter(|seq| !self.set.contains(seq)).collect()
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(Seq),
        Skip(Seq),
    }

    fn step(max: Seq) -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => (0..max).prop_map(Step::Insert),
            1 => (0..max / 4).prop_map(Step::Skip),
        ]
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_numbers(
            steps in proptest::collection::vec(step(300), 0..400),
            head in 0u64..320,
        ) {
            let mut received = Received::default();
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Insert(seq) => {
                        let known = seq == 0 || model.set.contains(&seq);
                        if seq > 0 {
                            model.set.insert(seq);
                        }
                        match received.insert(seq) {
                            Insert::Duplicate => prop_assert!(known),
                            Insert::InOrder => prop_assert!(!known && seq <= model.contiguous()),
                            Insert::Early => prop_assert!(!known && seq > model.contiguous()),
                            Insert::EarlyForgot(range) => {
                                prop_assert!(!known);
                                let highest = *model.set.last().unwrap();
                                prop_assert_eq!(*range.end(), highest, "only the farthest goes");
                                model.set.retain(|seq| !range.contains(seq));
                            }
                        }
                    }
                    Step::Skip(seq) => {
                        model.set.extend(1..=seq);
                        received.skip_to(seq);
                    }
                }
                prop_assert_eq!(received.contiguous(), model.contiguous());
                prop_assert_eq!(received.highest(), model.set.last().copied().unwrap_or(0));
                let bound = received.early.len() <= MAX_EARLY_RANGES;
                prop_assert!(bound);
            }
            let missing: Vec<Seq> = received.missing(head).flatten().collect();
            prop_assert_eq!(missing, model.missing(head));
            for seq in 1..=head {
                prop_assert_eq!(received.contains(seq), model.set.contains(&seq));
            }
        }
    }

    #[test]
    fn the_farthest_range_goes_when_there_are_too_many() {
        let mut received = Received::default();
        for i in 1..=MAX_EARLY_RANGES as u64 {
            assert_eq!(received.insert(2 * i + 1), Insert::Early);
        }
        let far = 10 * MAX_EARLY_RANGES as u64;
        assert_eq!(received.insert(far), Insert::EarlyForgot(far..=far));
        let last = 2 * MAX_EARLY_RANGES as u64 + 1;
        assert_eq!(received.insert(5_000_000), Insert::EarlyForgot(5_000_000..=5_000_000));
        assert_eq!(received.insert(3 + 1), Insert::Early, "joining two ranges frees one");
        assert_eq!(received.highest(), last);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut received = Received::default();
        assert_eq!(received.insert(Seq::MAX - 1), Insert::Early);
        let missing: Vec<_> = received.missing(Seq::MAX - 1).collect();
        assert_eq!(missing, vec![1..=Seq::MAX - 2]);
    }
}
