//! The recent messages of one conversation, by the key of deduplication.
//!
//! One entry a message, in the order of the log, so an entry's sequence number is its place. A
//! first attempt is looked for here only; a retry may have to be looked for in the log below
//! [`Window::first`] as well.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};
use skein_protocol::{ClientMsgId, DeviceId, Seq, UserId};
use skein_storage::Record;

/// (sender, device, client_msg_id) in 128 bits of SHA-256: equal keys are the same message.
/// Two messages collide by chance once in 2^64; only a user's own ids can be made to collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 16]);

impl Key {
    /// The key of a message.
    pub fn new(sender: &UserId, device: &DeviceId, id: &ClientMsgId) -> Self {
        let mut hash = Sha256::new();
        for part in [sender.as_str(), device.as_str(), id.as_str()] {
            // At most 64 bytes each, so one byte holds the length.
            hash.update([part.len() as u8]);
            hash.update(part.as_bytes());
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        Self(key)
    }

    /// The key of a stored message.
    pub fn of(record: &Record) -> Self {
        Self::new(&record.sender, &record.device, &record.client_msg_id)
    }
}

/// A message of the log as the window keeps it: without what it says, because many conversations
/// may be on their way from the store at once.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    key: Key,
    time_ms: u64,
}

impl Known {
    /// What is kept of a stored message.
    pub fn of(record: &Record) -> Self {
        Self { key: Key::of(record), time_ms: record.time_ms }
    }
}

/// Keys of the last messages, without a gap.
#[derive(Debug)]
pub(super) struct Window {
    entries: VecDeque<Known>,
    /// Sequence number after the last entry.
    next: Seq,
    /// How many durable messages are kept.
    capacity: usize,
}

impl Window {
    /// A window that ends at `head`, filled from the log's tail in ascending order.
    pub(super) fn new(head: Seq, tail: Vec<Known>, capacity: usize) -> Self {
        Self { entries: tail.into(), next: head + 1, capacity }
    }

    /// The first sequence number that the window covers.
    pub(super) fn first(&self) -> Seq {
        self.next - self.entries.len() as Seq
    }

    /// Number and time of a message.
    pub(super) fn find(&self, key: Key) -> Option<(Seq, u64)> {
        // Newest first: a duplicate is nearly always a recent one.
        let back = self.entries.iter().rev().position(|entry| entry.key == key)?;
        let place = self.entries.len() - 1 - back;
        Some((self.first() + place as Seq, self.entries[place].time_ms))
    }

    /// Gives the next number to a message; returns it with its time, which never runs backwards
    /// within a conversation even if the clock does.
    pub(super) fn push(&mut self, key: Key, now_ms: u64) -> (Seq, u64) {
        let time_ms = self.entries.back().map_or(now_ms, |last| last.time_ms.max(now_ms));
        self.entries.push_back(Known { key, time_ms });
        self.next += 1;
        (self.next - 1, time_ms)
    }

    /// Takes the numbers above `last` back.
    pub(super) fn cut(&mut self, last: Seq) {
        while self.next > last + 1 && self.entries.pop_back().is_some() {
            self.next -= 1;
        }
    }

    /// Forgets the oldest messages at or below `durable` that are beyond the capacity.
    pub(super) fn trim(&mut self, durable: Seq) {
        while self.entries.len() > self.capacity && self.first() <= durable {
            self.entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Key {
        Key([n; 16])
    }

    #[test]
    fn numbers_follow_the_head_and_find_their_message() {
        let mut window = Window::new(7, Vec::new(), 4);
        assert_eq!(window.first(), 8);
        assert_eq!(window.push(key(1), 100), (8, 100));
        assert_eq!(window.push(key(2), 90), (9, 100), "time does not run backwards");
        assert_eq!(window.find(key(1)), Some((8, 100)));
        assert_eq!(window.find(key(3)), None);
    }

    #[test]
    fn numbers_that_were_taken_back_are_given_again() {
        let mut window = Window::new(7, Vec::new(), 4);
        for n in 1..=3 {
            window.push(key(n), 100);
        }
        window.cut(8);
        assert_eq!((window.find(key(1)), window.find(key(2))), (Some((8, 100)), None));
        assert_eq!(window.push(key(3), 200), (9, 200));
        window.cut(9);
        assert_eq!(window.find(key(3)), Some((9, 200)));
    }

    #[test]
    fn only_durable_messages_are_forgotten() {
        let mut window = Window::new(0, Vec::new(), 2);
        for n in 1..=5 {
            window.push(key(n), 0);
        }
        window.trim(1);
        assert_eq!(window.first(), 2, "2 - 5 are not durable yet");
        window.trim(5);
        assert_eq!(window.first(), 4);
        assert_eq!(window.find(key(3)), None);
    }

    #[test]
    fn keys_separate_their_parts() {
        let user = |text: &str| UserId::parse(text).unwrap();
        let device = |text: &str| DeviceId::parse(text).unwrap();
        let id = ClientMsgId::parse("x").unwrap();
        assert_ne!(
            Key::new(&user("ab"), &device("c"), &id),
            Key::new(&user("a"), &device("bc"), &id)
        );
    }
}
