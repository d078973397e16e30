//! Sends that are not yet acknowledged.
//!
//! ```text
//! push -> queued -> (front of its lane) ready -> under way -> settle
//!                                         ^           |
//!                    time / new connection +-----------+-> postponed (refused for now)
//! ```
//!
//! **Order.** The sends to one conversation form a lane, and only the front of a lane is ever
//! under way or waiting for a retry; the next one starts when the front is settled. So a refusal
//! "not now", a lost answer or a lost connection can never let a later message overtake an
//! earlier one, at the price of one round trip a message within a conversation. Different
//! conversations go in parallel, up to the gateway's limit.
//!
//! **Repeats.** Each repeat names the head that was known before the first attempt
//! (`retry_after_seq`): the message cannot have a number at or below it, so the gateway looks for
//! the id above it, in the log if need be. The first attempt names that head as `known_seq`: it may
//! lie unread in one gateway while the next attempt goes to another.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::types::{Config, Origin, Outgoing, SendError, Target};
use crate::limits::MAX_CONTENT_TYPE_BYTES;
use crate::{ClientMsgId, ConversationId, Seq, UserId, wire};

/// Longest wait between two tries of one message on one connection.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(60);

/// Place in the order of acceptance.
type Place = u64;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: ClientMsgId,
    to: Target,
    pub(super) content_type: String,
    pub(super) payload: bytes::Bytes,
    /// Present once the id may have been sent: the message's number is above this.
    after: Option<Seq>,
    /// Known as soon as the user is.
    conversation: Option<ConversationId>,
    state: State,
    /// Tries that were not answered or refused for now.
    pub(super) tries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Behind another one of its lane, or the user is not known yet.
    Queued,
    /// May go out as soon as there is room.
    Ready,
    /// Sent; to be sent again at this time.
    UnderWay(Instant),
    /// Refused for now; to be sent again at this time.
    Postponed(Instant),
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    entries: BTreeMap<Place, Entry>,
    by_id: HashMap<ClientMsgId, Place>,
    lanes: HashMap<ConversationId, VecDeque<Place>>,
    ready: BTreeSet<Place>,
    /// When something under way or postponed is due.
    timers: BTreeSet<(Instant, Place)>,
    under_way: usize,
    bytes: usize,
    next: Place,
}

impl Outbox {
    /// Takes a message if there is room for it.
    pub(super) fn push(
        &mut self,
        message: Outgoing,
        user: Option<&UserId>,
        config: &Config,
        max_payload: usize,
    ) -> Result<(), SendError> {
        self.check(&message, config, max_payload)?;
        let Outgoing { id, to, content_type, payload, origin } = message;
        let after = match origin {
            Origin::Fresh => None,
            Origin::MaybeSent { after } => Some(after),
        };
        let place = self.next;
        self.next += 1;
        self.bytes += payload.len();
        self.by_id.insert(id.clone(), place);
        let state = State::Queued;
        let entry =
            Entry { id, to, content_type, payload, after, conversation: None, state, tries: 0 };
        self.entries.insert(place, entry);
        if let Some(user) = user {
            self.assign(place, user);
        }
        Ok(())
    }

    /// Whether [`push`](Self::push) would take the message.
    pub(super) fn check(
        &self,
        message: &Outgoing,
        config: &Config,
        max_payload: usize,
    ) -> Result<(), SendError> {
        let len = message.payload.len();
        if len > max_payload {
            return Err(SendError::TooLarge { len, max: max_payload });
        }
        if message.content_type.len() > MAX_CONTENT_TYPE_BYTES {
            return Err(SendError::ContentType(message.content_type.len()));
        }
        if self.by_id.contains_key(&message.id) {
            return Err(SendError::DuplicateId(message.id.clone()));
        }
        if self.entries.len() >= config.max_outbox_entries
            || self.bytes.saturating_add(len) > config.max_outbox_bytes
        {
            return Err(SendError::Full { entries: self.entries.len() });
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Now it is known who we are: every entry finds its lane.
    pub(super) fn identify(&mut self, user: &UserId) {
        let homeless: Vec<Place> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.conversation.is_none())
            .map(|(&place, _)| place)
            .collect();
        for place in homeless {
            self.assign(place, user);
        }
    }

    fn assign(&mut self, place: Place, user: &UserId) {
        let Some(entry) = self.entries.get_mut(&place) else { return };
        let conversation = match &entry.to {
            Target::User(to) => ConversationId::one_to_one(user, to),
            Target::Conversation(id) => *id,
        };
        entry.conversation = Some(conversation);
        let lane = self.lanes.entry(conversation).or_default();
        lane.push_back(place);
        if lane.len() == 1 {
            self.set(place, State::Ready);
        }
    }

    /// The next frame to write, or `None` when nothing is ready or the window is full.
    /// `head` tells the head of a conversation as far as it is known.
    pub(super) fn next_send(
        &mut self,
        now: Instant,
        window: usize,
        answer_timeout: Duration,
        head: impl Fn(ConversationId) -> Seq,
    ) -> Option<wire::Send> {
        if self.under_way >= window.max(1) {
            return None;
        }
        let place = *self.ready.first()?;
        let entry = self.entries.get_mut(&place)?;
        let retry_after_seq = entry.after;
        let after = *entry.after.get_or_insert_with(|| entry.conversation.map_or(0, head));
        let known_seq = retry_after_seq.is_none().then_some(after);
        let frame = wire::Send {
            target: Some(match &entry.to {
                Target::User(user) => wire::send::Target::ToUser(user.to_string()),
                Target::Conversation(id) => {
                    wire::send::Target::Conversation(id.as_bytes().to_vec().into())
                }
            }),
            client_msg_id: entry.id.to_string(),
            content_type: entry.content_type.clone(),
            payload: entry.payload.clone(),
            retry_after_seq,
            known_seq,
        };
        let wait = backoff(answer_timeout, entry.tries, MAX_RETRY_WAIT);
        self.set(place, State::UnderWay(now + wait));
        Some(frame)
    }

    /// Answered for good: removes the message and starts the next of its lane.
    pub(super) fn settle(&mut self, id: &ClientMsgId) -> Option<Entry> {
        let place = self.by_id.remove(id)?;
        self.set(place, State::Queued);
        let entry = self.entries.remove(&place)?;
        self.bytes -= entry.payload.len();
        if let Some(conversation) = entry.conversation
            && let Some(lane) = self.lanes.get_mut(&conversation)
        {
            lane.retain(|&other| other != place);
            match lane.front().copied() {
                None => drop(self.lanes.remove(&conversation)),
                Some(next) => {
                    if self.entries.get(&next).is_some_and(|e| e.state == State::Queued) {
                        self.set(next, State::Ready);
                    }
                }
            }
        }
        Some(entry)
    }

    /// Refused for now: again at `until`, under the same id. Returns how often it was tried.
    pub(super) fn postpone(&mut self, id: &ClientMsgId, until: Instant) -> bool {
        let Some(&place) = self.by_id.get(id) else { return false };
        if let Some(entry) = self.entries.get_mut(&place) {
            entry.tries = entry.tries.saturating_add(1);
        }
        self.set(place, State::Postponed(until));
        true
    }

    /// How often a message was tried without success; `None` if it does not wait here.
    pub(super) fn tries(&self, id: &ClientMsgId) -> Option<u32> {
        self.by_id.get(id).and_then(|place| self.entries.get(place)).map(|entry| entry.tries)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(due, place)) = self.timers.first() {
            if due > now {
                break;
            }
            if let Some(entry) = self.entries.get_mut(&place)
                && matches!(entry.state, State::UnderWay(_))
            {
                entry.tries = entry.tries.saturating_add(1);
            }
            self.set(place, State::Ready);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|&(due, _)| due)
    }

    /// The connection is gone: what was under way is sent again on the next one.
    pub(super) fn handle_disconnected(&mut self) {
        let lost: Vec<Place> = self
            .timers
            .iter()
            .map(|&(_, place)| place)
            .filter(|place| {
                self.entries.get(place).is_some_and(|e| matches!(e.state, State::UnderWay(_)))
            })
            .collect();
        for place in lost {
            self.set(place, State::Ready);
        }
    }

    /// The log was replaced: numbers of the old one say nothing about the new one.
    pub(super) fn forget_heads(&mut self) {
        for entry in self.entries.values_mut() {
            entry.after = entry.after.map(|_| 0);
        }
    }

    /// The only place where a state changes, so that the tables follow it.
    fn set(&mut self, place: Place, state: State) {
        let Some(entry) = self.entries.get_mut(&place) else { return };
        match entry.state {
            State::Queued => {}
            State::Ready => drop(self.ready.remove(&place)),
            State::UnderWay(due) => {
                self.timers.remove(&(due, place));
                self.under_way -= 1;
            }
            State::Postponed(due) => drop(self.timers.remove(&(due, place))),
        }
        entry.state = state;
        match state {
            State::Queued => {}
            State::Ready => drop(self.ready.insert(place)),
            State::UnderWay(due) => {
                self.timers.insert((due, place));
                self.under_way += 1;
            }
            State::Postponed(due) => drop(self.timers.insert((due, place))),
        }
    }
}

/// `base` doubled for each of `tries`, at most `cap`.
pub(super) fn backoff(base: Duration, tries: u32, cap: Duration) -> Duration {
    base.saturating_mul(1 << tries.min(16)).min(cap.max(base))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(id: &str, to: &str, origin: Origin) -> Outgoing {
        Outgoing {
            id: ClientMsgId::parse(id).unwrap(),
            to: Target::User(UserId::parse(to).unwrap()),
            content_type: String::new(),
            payload: id.as_bytes().to_vec().into(),
            origin,
        }
    }

    fn filled(messages: &[(&str, &str)]) -> Outbox {
        let mut outbox = Outbox::default();
        let me = UserId::parse("me").unwrap();
        for (id, to) in messages {
            let message = outgoing(id, to, Origin::Fresh);
            outbox.push(message, Some(&me), &Config::default(), 1000).unwrap();
        }
        outbox
    }

    fn drain(outbox: &mut Outbox, now: Instant, window: usize) -> Vec<String> {
        std::iter::from_fn(|| outbox.next_send(now, window, Duration::from_secs(10), |_| 7))
            .map(|send| match send.retry_after_seq {
                None => send.client_msg_id,
                Some(after) => format!("{}>{after}", send.client_msg_id),
            })
            .collect()
    }

    fn id(text: &str) -> ClientMsgId {
        ClientMsgId::parse(text).unwrap()
    }

    #[test]
    fn one_of_each_conversation_is_under_way_and_a_retry_is_not_overtaken() {
        let now = Instant::now();
        let mut outbox = filled(&[("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")]);
        assert_eq!(drain(&mut outbox, now, 64), ["a1", "b1"]);
        outbox.postpone(&id("a1"), now + Duration::from_secs(1));
        outbox.settle(&id("b1"));
        assert_eq!(drain(&mut outbox, now, 64), ["b2"], "a2 waits behind a1");
        outbox.handle_timeout(now + Duration::from_secs(1));
        assert_eq!(drain(&mut outbox, now, 64), ["a1>7"]);
        outbox.settle(&id("a1"));
        assert_eq!(drain(&mut outbox, now, 64), ["a2"]);
    }

    #[test]
    fn the_window_holds_and_a_lost_connection_empties_it() {
        let now = Instant::now();
        let mut outbox = filled(&[("a", "a"), ("b", "b"), ("c", "c")]);
        assert_eq!(drain(&mut outbox, now, 2), ["a", "b"]);
        outbox.handle_disconnected();
        assert_eq!(outbox.under_way(), 0);
        assert_eq!(drain(&mut outbox, now, 2), ["a>7", "b>7"]);
        outbox.settle(&id("b"));
        assert_eq!(drain(&mut outbox, now, 2), ["c"]);
    }

    #[test]
    fn every_attempt_names_the_head_that_was_known_at_the_first() {
        let now = Instant::now();
        for known in [0, 7] {
            let mut outbox = filled(&[("a", "a")]);
            let mut next = |head| {
                let send = outbox.next_send(now, 1, Duration::from_secs(10), |_| head).unwrap();
                outbox.handle_disconnected();
                (send.known_seq, send.retry_after_seq)
            };
            assert_eq!(next(known), (Some(known), None));
            assert_eq!(next(9), (None, Some(known)));
            assert_eq!(next(10), (None, Some(known)));
        }
    }

    #[test]
    fn what_is_not_answered_is_sent_again_later_and_later() {
        let mut now = Instant::now();
        let mut outbox = filled(&[("a", "a")]);
        assert_eq!(drain(&mut outbox, now, 1), ["a"]);
        for seconds in [10, 20, 40, 60, 60] {
            now = outbox.poll_timeout().unwrap() - Duration::from_millis(1);
            outbox.handle_timeout(now);
            assert_eq!(drain(&mut outbox, now, 1), [""; 0]);
            let start = now + Duration::from_millis(1);
            outbox.handle_timeout(start);
            assert_eq!(drain(&mut outbox, start, 1), ["a>7"]);
            let wait = outbox.poll_timeout().unwrap() - start;
            assert!(wait >= Duration::from_secs(seconds), "{wait:?} for {seconds}");
        }
    }

    #[test]
    fn an_id_from_outside_is_a_retry_from_the_start() {
        let mut outbox = Outbox::default();
        let message = outgoing("x", "a", Origin::MaybeSent { after: 0 });
        outbox.push(message.clone(), None, &Config::default(), 1000).unwrap();
        let again = outbox.push(message, None, &Config::default(), 1000);
        assert_eq!(again, Err(SendError::DuplicateId(id("x"))));
        assert_eq!(drain(&mut outbox, Instant::now(), 1), [""; 0], "nobody is logged in");
        outbox.identify(&UserId::parse("me").unwrap());
        assert_eq!(drain(&mut outbox, Instant::now(), 1), ["x>0"]);
    }

    #[test]
    fn it_is_bounded_in_entries_and_bytes() {
        let config = Config { max_outbox_entries: 2, max_outbox_bytes: 3, ..Config::default() };
        let mut outbox = Outbox::default();
        let mut push = |id: &str| outbox.push(outgoing(id, "a", Origin::Fresh), None, &config, 3);
        assert_eq!(push("long"), Err(SendError::TooLarge { len: 4, max: 3 }));
        assert_eq!(push("aa"), Ok(()));
        assert_eq!(push("bb"), Err(SendError::Full { entries: 1 }));
        assert_eq!(push("b"), Ok(()));
        assert_eq!(push("c"), Err(SendError::Full { entries: 2 }));
    }
}
