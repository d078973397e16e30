//! Where a row stands: the keys of both keyspaces.
//!
//! ```text
//! log    conversation (16) | seq (8, big-endian)               -> a message, see `row`
//! side   'c' | user (1 + n) | conversation (16)                -> cursors
//!        'i' | user (1 + n) | conversation (16)                -> in the user's index (no value)
//!        'm' | conversation (16)                               -> members
//!        '!' | "schema"                                        -> schema version and epoch
//! ```
//! A user id stands with its length in front, so that no user's rows lie inside another's prefix.
//! Two keyspaces and not more: the journal is kept until each keyspace has flushed what is in it,
//! and only the log's rows are many and large.

use skein_protocol::{ConversationId, Seq, UserId};

const CURSOR: u8 = b'c';
const INDEX: u8 = b'i';
const MEMBERS: u8 = b'm';

/// Key of the meta row, in `side`.
pub(super) const META: &[u8] = b"!schema";

/// Bytes of a conversation id.
const CONVERSATION: usize = 16;

/// Key of one message, in `log`.
pub(super) fn message(conversation: ConversationId, seq: Seq) -> [u8; CONVERSATION + 8] {
    let mut key = [0; CONVERSATION + 8];
    key[..CONVERSATION].copy_from_slice(conversation.as_bytes());
    key[CONVERSATION..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// The number in a key of `log`; `None` if it is no such key.
pub(super) fn seq_of(key: &[u8]) -> Option<Seq> {
    let seq = key.get(CONVERSATION..)?;
    Some(Seq::from_be_bytes(seq.try_into().ok()?))
}

/// Key of a conversation's members, in `side`.
pub(super) fn members(conversation: ConversationId) -> [u8; 1 + CONVERSATION] {
    let mut key = [MEMBERS; 1 + CONVERSATION];
    key[1..].copy_from_slice(conversation.as_bytes());
    key
}

/// Key of a user's cursors in a conversation, in `side`.
pub(super) fn cursors(user: &UserId, conversation: ConversationId) -> Vec<u8> {
    of_user(CURSOR, user, Some(conversation))
}

/// Key of a conversation in a user's index, in `side`.
pub(super) fn index(user: &UserId, conversation: ConversationId) -> Vec<u8> {
    of_user(INDEX, user, Some(conversation))
}

/// What all keys of a user's index begin with.
pub(super) fn index_prefix(user: &UserId) -> Vec<u8> {
    of_user(INDEX, user, None)
}

/// The conversation at the end of a key of the index; `None` if it is no such key.
pub(super) fn conversation_of(key: &[u8]) -> Option<ConversationId> {
    let at = key.len().checked_sub(CONVERSATION)?;
    ConversationId::parse(&key[at..]).ok()
}

fn of_user(kind: u8, user: &UserId, conversation: Option<ConversationId>) -> Vec<u8> {
    let name = user.as_str().as_bytes();
    let mut key = Vec::with_capacity(2 + name.len() + CONVERSATION);
    // `UserId` is at most 64 bytes, so one byte holds its length.
    key.extend_from_slice(&[kind, name.len() as u8]);
    key.extend_from_slice(name);
    if let Some(conversation) = conversation {
        key.extend_from_slice(conversation.as_bytes());
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[test]
    fn keys_are_these_bytes() {
        let c = ConversationId::parse(&[1; 16]).unwrap();
        let mut want = vec![1; 16];
        want.extend_from_slice(&[0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(message(c, 258).to_vec(), want);
        assert_eq!(members(c)[..3], [b'm', 1, 1]);
        assert_eq!(cursors(&user("bob"), c)[..6], *b"c\x03bob\x01");
        assert_eq!(index(&user("bob"), c)[..6], *b"i\x03bob\x01");
        assert_eq!(index_prefix(&user("bob")), b"i\x03bob");
        assert_eq!(META, b"!schema");
    }

    #[test]
    fn keys_give_back_what_went_in() {
        let c = ConversationId::one_to_one(&user("a"), &user("b"));
        assert_eq!(seq_of(&message(c, u64::MAX)), Some(u64::MAX));
        assert_eq!(conversation_of(&index(&user("a"), c)), Some(c));
        assert_eq!(seq_of(b"short"), None);
        assert_eq!(conversation_of(b"short"), None);
    }

    #[test]
    fn numbers_sort_as_they_count_and_no_prefix_holds_another_user() {
        let c = ConversationId::parse(&[1; 16]).unwrap();
        assert!(message(c, 255) < message(c, 256));
        assert!(!index(&user("alice"), c).starts_with(&index_prefix(&user("ali"))));
    }
}
