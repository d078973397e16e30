//! Heads of the logs that were appended to of late, in bounded memory.
//!
//! Two generations: what is used moves to the young one, and when that is full the old one is
//! dropped. So between half of and all the capacity is kept, the least used go first, and nothing
//! is linked or counted per use.

use std::collections::HashMap;

use skein_protocol::{ConversationId, Seq};

/// The cache; the writer alone has it.
pub(super) struct Heads {
    young: HashMap<ConversationId, Seq>,
    old: HashMap<ConversationId, Seq>,
    per_generation: usize,
}

impl Heads {
    /// Keeps at most `capacity` heads (at least two).
    pub(super) fn new(capacity: usize) -> Self {
        let per_generation = (capacity / 2).max(1);
        Self { young: HashMap::new(), old: HashMap::new(), per_generation }
    }

    /// The head, if it is known.
    pub(super) fn get(&mut self, conversation: ConversationId) -> Option<Seq> {
        if let Some(&head) = self.young.get(&conversation) {
            return Some(head);
        }
        let head = self.old.remove(&conversation)?;
        self.put(conversation, head);
        Some(head)
    }

    /// Remembers a head.
    pub(super) fn put(&mut self, conversation: ConversationId, head: Seq) {
        if self.young.len() >= self.per_generation && !self.young.contains_key(&conversation) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(conversation, head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> ConversationId {
        let mut bytes = [1; 16];
        bytes[8..].copy_from_slice(&n.to_be_bytes());
        ConversationId::parse(&bytes).unwrap()
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let mut heads = Heads::new(8);
        for n in 0..1000 {
            heads.put(id(n), n);
            assert_eq!(heads.get(id(0)), Some(0), "used each time, after {n}");
            assert!(heads.young.len() + heads.old.len() <= 8);
        }
        assert_eq!(heads.get(id(500)), None);
        heads.put(id(999), 1000);
        assert_eq!(heads.get(id(999)), Some(1000), "the newest value counts");
    }

    #[test]
    fn an_old_value_never_comes_back() {
        let mut heads = Heads::new(4);
        heads.put(id(1), 1);
        heads.put(id(2), 2);
        heads.put(id(3), 3); // 1 and 2 are old now
        heads.put(id(1), 10); // young, while the old generation still says 1
        assert_eq!(heads.get(id(1)), Some(10));
        heads.put(id(4), 4); // 3 and 1 become old
        assert_eq!(heads.get(id(1)), Some(10));
    }
}
