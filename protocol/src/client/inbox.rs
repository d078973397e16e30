//! Messages on their way to the application: in order, without duplicates, without gaps.
//!
//! ```text
//! push, pulled page, own acknowledged send -> accept -> next in line?  -> event
//!                                                    -> early          -> kept, within a budget
//!                                                    -> known          -> dropped
//! ```
//!
//! A conversation has a position as soon as it is known where this device begins: from what was
//! restored, else from the gateway's heads. Until then its messages are kept as early ones; so
//! what is pushed while the heads are under way is neither lost nor shown before its
//! predecessors. What does not fit into the budget is left out: the head that is remembered makes
//! sure that it is pulled.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::RangeInclusive;

use super::types::{Config, Event, MAX_SEQ, Message, ReceiptKind, Start};
use crate::cursor::Cursor;
use crate::gap::{Insert, Received};
use crate::{ConversationId, Seq, UserId};

/// Members of one conversation whose cursors are followed. One-to-one has two.
const MAX_MEMBERS: usize = 256;

/// Events for the application, in order, with their size.
#[derive(Debug, Default)]
pub(super) struct Events {
    queue: VecDeque<Event>,
    bytes: usize,
}

impl Events {
    pub(super) fn push(&mut self, event: Event) {
        self.bytes += event.cost();
        self.queue.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.queue.pop_front()?;
        self.bytes -= event.cost();
        Some(event)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// One position on its way to the application.
#[derive(Debug)]
enum Item {
    Message {
        message: Message,
        sent_here: bool,
    },
    /// A message that this version cannot read.
    Unreadable,
}

impl Item {
    fn cost(&self) -> usize {
        match self {
            Item::Message { message, .. } => message.cost(),
            Item::Unreadable => 64,
        }
    }
}

#[derive(Debug, Default)]
struct Conversation {
    /// `None` until it is known where this device begins.
    received: Option<Received>,
    early: BTreeMap<Seq, Item>,
    /// Highest number that is known to exist.
    head: Seq,
    /// Up to where the application has dealt with everything.
    consumed: Cursor,
    /// Up to where the gateway was told so.
    reported: Cursor,
    read: Cursor,
    read_reported: Cursor,
    /// Highest own message sent from here: acknowledging it is not urgent to anybody.
    own: Seq,
    /// Greater for a conversation in which something happened later.
    touched: u64,
    /// Cursors of members, as far as they were reported to the application.
    members: HashMap<(UserId, ReceiptKind), Cursor>,
}

impl Conversation {
    fn contiguous(&self) -> Seq {
        self.received.as_ref().map_or(0, Received::contiguous)
    }

    fn has_gap(&self) -> bool {
        self.received.as_ref().is_some_and(|r| r.missing(self.head).next().is_some())
    }
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    table: HashMap<ConversationId, Conversation>,
    /// All heads are known: a conversation without a position begins at its first message.
    synced: bool,
    early_bytes: usize,
    /// Conversations with something missing that nobody has asked for yet.
    wanting: BTreeSet<ConversationId>,
    /// Delivered cursors that the gateway is to be told, read cursors likewise.
    acks: BTreeSet<ConversationId>,
    reads: BTreeSet<ConversationId>,
    /// Positions that the application's store is to be told.
    dirty: BTreeSet<ConversationId>,
    touches: u64,
    /// Messages of conversations that did not fit into the table.
    refused: u64,
}

/// A head as the gateway tells it, parsed.
#[derive(Debug, Default)]
pub(super) struct KnownHead {
    pub(super) seq: Seq,
    pub(super) first_seq: Seq,
    pub(super) delivered: Seq,
    pub(super) read: Seq,
}

impl Inbox {
    pub(super) fn restore(&mut self, positions: Vec<(ConversationId, Seq)>) {
        for (id, seq) in positions {
            let conversation = self.table.entry(id).or_default();
            conversation.received = Some(Received::up_to(seq));
            conversation.consumed = Cursor::at(seq);
            conversation.head = seq;
        }
    }

    /// The log was replaced: nothing that was known holds any longer.
    pub(super) fn clear(&mut self) {
        *self = Self { refused: self.refused, ..Self::default() };
    }

    /// A new session: what other sessions did meanwhile is not known.
    pub(super) fn begin_session(&mut self) {
        self.synced = false;
    }

    pub(super) fn head(&self, id: ConversationId) -> Seq {
        self.table.get(&id).map_or(0, |c| c.head)
    }

    pub(super) fn position(&self, id: ConversationId) -> Seq {
        self.table.get(&id).map_or(0, Conversation::contiguous)
    }

    pub(super) fn early_bytes(&self) -> usize {
        self.early_bytes
    }

    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// The entry of a conversation, made if the table has room for it.
    fn entry(&mut self, id: ConversationId, config: &Config) -> bool {
        if self.table.contains_key(&id) {
            return true;
        }
        if self.table.len() >= config.max_conversations {
            self.refused += 1;
            return false;
        }
        let mut conversation = Conversation::default();
        if self.synced {
            conversation.received = Some(Received::default());
        }
        self.table.insert(id, conversation);
        true
    }

    pub(super) fn accept(
        &mut self,
        message: Message,
        sent_here: bool,
        config: &Config,
        events: &mut Events,
    ) {
        let (id, seq) = (message.conversation, message.seq);
        self.take(id, seq, Item::Message { message, sent_here }, config, events);
    }

    /// A position whose message cannot be read: counts as received, so that the rest can follow.
    pub(super) fn accept_unreadable(
        &mut self,
        id: ConversationId,
        seq: Seq,
        config: &Config,
        events: &mut Events,
    ) {
        self.take(id, seq, Item::Unreadable, config, events);
    }

    fn take(
        &mut self,
        id: ConversationId,
        seq: Seq,
        item: Item,
        config: &Config,
        events: &mut Events,
    ) {
        if !self.entry(id, config) {
            return;
        }
        let Some(conversation) = self.table.get_mut(&id) else { return };
        conversation.head = conversation.head.max(seq);
        let next = conversation.contiguous() + 1;
        match &mut conversation.received {
            Some(received) if seq == next => {
                received.insert(seq);
                emit(id, seq, item, conversation, events);
                self.release(id, events);
            }
            Some(received) if received.contains(seq) => {}
            None if conversation.early.contains_key(&seq) => {}
            received => {
                let cost = item.cost();
                if self.early_bytes + cost > config.max_early_bytes {
                    self.wanting.insert(id);
                    return;
                }
                self.early_bytes += cost;
                conversation.early.insert(seq, item);
                if let Some(Insert::EarlyForgot(range)) = received.as_mut().map(|r| r.insert(seq)) {
                    for item in remove_range(&mut conversation.early, range) {
                        self.early_bytes -= item.cost();
                    }
                }
                self.wanting.insert(id);
            }
        }
    }

    /// Hands out the early messages that are in line now.
    fn release(&mut self, id: ConversationId, events: &mut Events) {
        let Some(conversation) = self.table.get_mut(&id) else { return };
        let contiguous = conversation.contiguous();
        while let Some(entry) = conversation.early.first_entry() {
            if *entry.key() > contiguous {
                break;
            }
            let (seq, item) = entry.remove_entry();
            self.early_bytes -= item.cost();
            emit(id, seq, item, conversation, events);
        }
    }

    /// A head that a push, a page, `Behind` or our own ack spoke of.
    pub(super) fn handle_seen_head(&mut self, id: ConversationId, seq: Seq, config: &Config) {
        if !self.entry(id, config) {
            return;
        }
        if let Some(conversation) = self.table.get_mut(&id) {
            conversation.head = conversation.head.max(seq);
            if conversation.has_gap() {
                self.wanting.insert(id);
            }
        }
    }

    /// The gateway's answer about a conversation at the begin of a session.
    pub(super) fn handle_head(
        &mut self,
        id: ConversationId,
        head: &KnownHead,
        config: &Config,
        events: &mut Events,
    ) {
        if !self.entry(id, config) {
            return;
        }
        let Some(conversation) = self.table.get_mut(&id) else { return };
        conversation.head = conversation.head.max(head.seq);
        // Set, not advanced: a gateway that crashed may have forgotten the last acknowledgements.
        conversation.reported = Cursor::at(head.delivered);
        if conversation.received.is_none() {
            let base = match config.start {
                Start::Delivered => head.delivered,
                Start::Beginning => head.first_seq.saturating_sub(1),
            };
            self.begin_at(id, base, events);
        }
        let Some(conversation) = self.table.get_mut(&id) else { return };
        if conversation.consumed > conversation.reported {
            self.acks.insert(id);
        }
        if conversation.read.get() > head.read {
            conversation.read_reported = Cursor::at(head.read);
            self.reads.insert(id);
        }
        conversation.read.advance(head.read);
        self.handle_first(id, head.first_seq, events);
        self.handle_seen_head(id, head.seq, config);
    }

    /// All heads are told: a conversation that was not among them began after the question.
    pub(super) fn handle_heads_end(&mut self, events: &mut Events) {
        self.synced = true;
        let unknown: Vec<ConversationId> = self
            .table
            .iter()
            .filter(|(_, conversation)| conversation.received.is_none())
            .map(|(&id, _)| id)
            .collect();
        for id in unknown {
            self.begin_at(id, 0, events);
        }
    }

    /// Gives a conversation its position and takes what was kept for it in line.
    fn begin_at(&mut self, id: ConversationId, base: Seq, events: &mut Events) {
        let Some(conversation) = self.table.get_mut(&id) else { return };
        let mut received = Received::up_to(base);
        conversation.consumed.advance(base);
        let kept = std::mem::take(&mut conversation.early);
        for (seq, item) in kept {
            match received.insert(seq) {
                Insert::Duplicate => self.early_bytes -= item.cost(),
                Insert::InOrder | Insert::Early => drop(conversation.early.insert(seq, item)),
                Insert::EarlyForgot(range) => {
                    conversation.early.insert(seq, item);
                    for item in remove_range(&mut conversation.early, range) {
                        self.early_bytes -= item.cost();
                    }
                }
            }
        }
        conversation.received = Some(received);
        if conversation.has_gap() {
            self.wanting.insert(id);
        }
        self.release(id, events);
    }

    /// The first number that still exists: what is missing below it never comes.
    pub(super) fn handle_first(&mut self, id: ConversationId, first: Seq, events: &mut Events) {
        let Some(conversation) = self.table.get_mut(&id) else { return };
        let from = conversation.contiguous() + 1;
        let Some(received) = &mut conversation.received else { return };
        if first <= from {
            return;
        }
        // What did arrive below `first` is still good; only the gaps are given up.
        let gaps: Vec<_> = received.missing(first - 1).collect();
        received.skip_to(first - 1);
        for gap in gaps {
            let (from, to) = gap.into_inner();
            while let Some(entry) = conversation.early.first_entry()
                && *entry.key() < from
            {
                let (seq, item) = entry.remove_entry();
                self.early_bytes -= item.cost();
                emit(id, seq, item, conversation, events);
            }
            events.push(Event::Skipped { conversation: id, from, to });
        }
        self.release(id, events);
    }

    /// The application has dealt with everything up to `seq`. Returns whether somebody waits to
    /// hear of it: `Some(false)` for our own message.
    pub(super) fn handle_consumed(&mut self, id: ConversationId, seq: Seq) -> Option<bool> {
        let conversation = self.table.get_mut(&id)?;
        let contiguous = conversation.contiguous();
        if !conversation.consumed.advance_within(seq, contiguous) {
            return None;
        }
        self.touches += 1;
        conversation.touched = self.touches;
        self.dirty.insert(id);
        if conversation.consumed <= conversation.reported {
            return None;
        }
        self.acks.insert(id);
        Some(conversation.own != conversation.consumed.get())
    }

    /// The user has read up to `seq`. Returns whether that is news.
    pub(super) fn mark_read(&mut self, id: ConversationId, seq: Seq, config: &Config) -> bool {
        if !self.entry(id, config) {
            return false;
        }
        let Some(conversation) = self.table.get_mut(&id) else { return false };
        // Before the heads are known the gateway is the one to cut it.
        let head = if self.synced { conversation.head } else { MAX_SEQ };
        let moved = conversation.read.advance_within(seq, head);
        if moved {
            self.reads.insert(id);
        }
        moved
    }

    /// A member's cursor, if it is further than what the application was told.
    pub(super) fn handle_member(
        &mut self,
        id: ConversationId,
        kind: ReceiptKind,
        user: UserId,
        seq: Seq,
        config: &Config,
        events: &mut Events,
    ) {
        if seq == 0 || !self.entry(id, config) {
            return;
        }
        let Some(conversation) = self.table.get_mut(&id) else { return };
        let key = (user, kind);
        if conversation.members.len() >= 2 * MAX_MEMBERS && !conversation.members.contains_key(&key)
        {
            return;
        }
        let cursor = conversation.members.entry(key.clone()).or_default();
        if cursor.advance(seq) {
            let (user, kind) = key;
            events.push(Event::Receipt { conversation: id, kind, user, seq });
        }
    }

    /// Our own read cursor was moved by another device.
    pub(super) fn handle_own_read(&mut self, id: ConversationId, seq: Seq) {
        if let Some(conversation) = self.table.get_mut(&id) {
            conversation.read.advance(seq);
            conversation.read_reported.advance(seq);
        }
    }

    /// Up to where this device has everything, the liveliest conversations first.
    pub(super) fn have(&self, max: usize) -> Vec<(ConversationId, Seq)> {
        let mut all: Vec<_> = self
            .table
            .iter()
            .filter(|(_, conversation)| conversation.consumed.get() > 0)
            .map(|(&id, conversation)| (conversation.touched, id, conversation.consumed.get()))
            .collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.into_iter().take(max).map(|(_, id, seq)| (id, seq)).collect()
    }

    pub(super) fn has_acks(&self) -> bool {
        !self.acks.is_empty()
    }

    pub(super) fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    /// Delivered cursors for one frame.
    pub(super) fn take_acks(&mut self, max: usize) -> Vec<(ConversationId, Seq)> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(id) = self.acks.pop_first()
        {
            let Some(conversation) = self.table.get_mut(&id) else { continue };
            if conversation.reported.advance(conversation.consumed.get()) {
                taken.push((id, conversation.consumed.get()));
            }
        }
        taken
    }

    /// Read cursors for one frame.
    pub(super) fn take_reads(&mut self, max: usize) -> Vec<(ConversationId, Seq)> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(id) = self.reads.pop_first()
        {
            let Some(conversation) = self.table.get_mut(&id) else { continue };
            if conversation.read_reported.advance(conversation.read.get()) {
                taken.push((id, conversation.read.get()));
            }
        }
        taken
    }

    /// The next position that the application's store is to be told.
    pub(super) fn take_dirty(&mut self) -> Option<(ConversationId, Seq)> {
        let id = self.dirty.pop_first()?;
        Some((id, self.table.get(&id)?.consumed.get()))
    }

    pub(super) fn is_wanting(&self) -> bool {
        !self.wanting.is_empty()
    }

    /// Ranges to ask for, and forgets that they are wanted. At most `max`, at most `max_each` of
    /// one conversation.
    pub(super) fn take_wanted(
        &mut self,
        max: usize,
        max_each: usize,
        busy: impl Fn(ConversationId) -> bool,
    ) -> Vec<(ConversationId, RangeInclusive<Seq>)> {
        let mut taken = Vec::new();
        let ids: Vec<ConversationId> =
            self.wanting.iter().copied().filter(|&id| !busy(id)).collect();
        for id in ids {
            if taken.len() >= max {
                break;
            }
            self.wanting.remove(&id);
            let Some(conversation) = self.table.get(&id) else { continue };
            let Some(received) = &conversation.received else { continue };
            let room = max_each.min(max - taken.len());
            taken.extend(received.missing(conversation.head).take(room).map(|range| (id, range)));
        }
        taken
    }

    /// Wants the conversation again if something is still missing in it. Returns whether it does.
    pub(super) fn want_again(&mut self, id: ConversationId) -> bool {
        let gap = self.table.get(&id).is_some_and(Conversation::has_gap);
        if gap {
            self.wanting.insert(id);
        }
        gap
    }

    /// Whether something is still missing.
    pub(super) fn has_gap(&self, id: ConversationId) -> bool {
        self.table.get(&id).is_some_and(Conversation::has_gap)
    }
}

fn emit(
    id: ConversationId,
    seq: Seq,
    item: Item,
    conversation: &mut Conversation,
    events: &mut Events,
) {
    match item {
        Item::Message { message, sent_here } => {
            if sent_here {
                conversation.own = seq;
            }
            events.push(Event::Message { message, sent_here });
        }
        Item::Unreadable => {
            events.push(Event::Skipped { conversation: id, from: seq, to: seq });
        }
    }
}

fn remove_range(early: &mut BTreeMap<Seq, Item>, range: RangeInclusive<Seq>) -> Vec<Item> {
    let keys: Vec<Seq> = early.range(range).map(|(&seq, _)| seq).collect();
    keys.iter().filter_map(|seq| early.remove(seq)).collect()
}
