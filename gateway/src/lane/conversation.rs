//! One conversation in memory: its window, what waits for the store, and its members' cursors.

use skein_protocol::cursor::Mark;
use skein_protocol::server::Send;
use skein_protocol::{Code, ConversationId, DeviceId, Seq, UserId};
use skein_storage::{Append, MAX_APPEND_RECORDS, Record};
use skein_transport::ConnId;

use super::marks::Marks;
use super::patience::{Awaited, Deadlines, Ticket};
use super::window::{Key, Window};
use crate::observe::Stamp;

use super::{Ack, Delivery, Effect, Loaded, Origin, Peek, Scan, refuse_send, size_of_send};

/// Payload bytes in one append.
const MAX_BATCH_BYTES: usize = 1 << 20;

/// Sends that may wait for one message beside the first: a device that reconnects in the middle of
/// an append asks again. The oldest is refused for now; its session has most likely gone.
const MAX_ALSO_WAITING: usize = 4;

/// Keys that one scan looks for; further ones wait for the next.
const MAX_SCAN_KEYS: usize = 256;

/// A message that has a number and is not durable yet.
struct Pending {
    origin: Origin,
    send: Send,
    record: Record,
    /// The session that sent it was told to try later.
    given_up: bool,
    /// Sessions that sent it again meanwhile.
    also: Vec<ConnId>,
    /// What it is counted for in the lane's bytes.
    size: usize,
}

impl Pending {
    /// The sessions that wait for an answer; they get one now.
    fn take_waiting(&mut self) -> impl Iterator<Item = ConnId> + use<> {
        let own = (!std::mem::replace(&mut self.given_up, true)).then_some(self.origin.conn);
        own.into_iter().chain(std::mem::take(&mut self.also))
    }

    fn give_up(&mut self, effects: &mut Vec<Effect>) {
        for conn in self.take_waiting() {
            refuse_send(conn, &self.send, Code::StoreUnavailable, effects);
        }
    }
}

/// A device whose retries are looked for in the log. What it sends meanwhile waits, so that its
/// order is kept.
pub(super) struct Scanning {
    sender: (UserId, DeviceId),
    deferred: Vec<(Origin, Send)>,
    ticket: Ticket,
}

impl Scanning {
    /// Nobody waits for it any longer. Returns the place of its deadline, and the bytes that they
    /// were counted for.
    pub(super) fn give_up(&mut self, effects: &mut Vec<Effect>) -> (&mut Ticket, usize) {
        let mut freed = 0;
        for (origin, send) in std::mem::take(&mut self.deferred) {
            freed += size_of_send(&send);
            refuse_send(origin.conn, &send, Code::StoreUnavailable, effects);
        }
        (&mut self.ticket, freed)
    }
}

pub(super) struct Conversation {
    pub(super) marks: Marks,
    /// Last durable number of which the window knows.
    head: Seq,
    /// Last durable number that is known to exist; above `head` if another gateway has written on.
    known: Seq,
    /// Up to where the members' sessions know that there is something; 0 after a load, although
    /// they may know more.
    told: Seq,
    /// Every number up to the last one given.
    window: Window,
    /// Submitted: numbers `head + 1` and on.
    in_flight: Vec<Pending>,
    /// By when their outcome should be known.
    ticket: Ticket,
    /// It is long overdue.
    overdue: bool,
    /// Numbered after those in flight, not submitted.
    waiting: Vec<Pending>,
    scanning: Vec<Scanning>,
    /// Second chance against eviction.
    used: bool,
}

impl Conversation {
    pub(super) fn new(loaded: Loaded, dedup_window: usize) -> Self {
        Self {
            marks: Marks::new(loaded.members, loaded.cursors),
            head: loaded.extent.head,
            known: loaded.extent.head,
            told: 0,
            window: Window::new(loaded.extent.head, loaded.tail, dedup_window),
            in_flight: Vec::new(),
            ticket: Ticket::default(),
            overdue: false,
            waiting: Vec::new(),
            scanning: Vec::new(),
            used: true,
        }
    }

    pub(super) fn touch(&mut self) {
        self.used = true;
    }

    /// Last number that is known to be durable.
    pub(super) fn known(&self) -> Seq {
        self.known
    }

    /// Takes the head that the store tells; whether that is news.
    pub(super) fn learn(&mut self, head: Seq) -> bool {
        let is_news = head > self.known;
        self.known = self.known.max(head);
        is_news
    }

    /// The members' sessions must know that the log reaches to `seq`: what tells them, if they may
    /// not. A message can be in the log without having been pushed by this lane: its append has
    /// survived a gateway that did not, or is another gateway's.
    pub(super) fn tell(&mut self, conversation: ConversationId, seq: Seq) -> Option<Effect> {
        if seq <= self.told {
            return None;
        }
        self.told = self.known;
        let mark = Mark { conversation, seq: self.known };
        Some(Effect::Grown(mark, self.marks.members().clone()))
    }

    pub(super) fn has_member(&self, user: &UserId) -> bool {
        self.marks.members().contains(user)
    }

    pub(super) fn window_first(&self) -> Seq {
        self.window.first()
    }

    pub(super) fn waiting_len(&self) -> usize {
        self.in_flight.len() + self.waiting.len()
    }

    /// Whether nothing new is taken, because the store has not answered for long.
    pub(super) fn is_overdue(&self) -> bool {
        self.overdue
    }

    pub(super) fn peek(&self) -> Peek {
        Peek {
            known: self.known,
            members: self.marks.members().clone(),
            cursors: self.marks.cursors().to_vec(),
        }
    }

    /// Whether nothing would be lost, but for cursors that the store does not take if `in_need`;
    /// takes the second chance away.
    pub(super) fn may_be_forgotten(&mut self, in_need: bool) -> bool {
        let idle = self.in_flight.is_empty()
            && self.waiting.is_empty()
            && self.scanning.is_empty()
            && self.marks.is_settled()
            && (in_need || self.marks.is_written());
        !std::mem::replace(&mut self.used, false) && idle
    }

    /// What waits behind the scan of this device; `None` if it is not being scanned.
    pub(super) fn deferred(&mut self, origin: &Origin) -> Option<&mut Vec<(Origin, Send)>> {
        let same = |s: &&mut Scanning| s.sender.0 == origin.user && s.sender.1 == origin.device;
        self.scanning.iter_mut().find(same).map(|scanning| &mut scanning.deferred)
    }

    pub(super) fn scan_of(&mut self, sender: &(UserId, DeviceId)) -> Option<&mut Scanning> {
        self.scanning.iter_mut().find(|scanning| scanning.sender == *sender)
    }

    pub(super) fn begin_scan(
        &mut self,
        conversation: ConversationId,
        from: Seq,
        key: Key,
        (origin, send): (Origin, Send),
        deadlines: &mut Deadlines,
    ) -> Scan {
        let sender = (origin.user.clone(), origin.device.clone());
        let ticket = deadlines.add(conversation, Awaited::Scan(sender.clone()));
        let deferred = vec![(origin, send)];
        self.scanning.push(Scanning { sender: sender.clone(), deferred, ticket });
        Scan { conversation, from, to: self.window.first() - 1, sender, keys: vec![key] }
    }

    /// Adds what waits behind a scan that has not begun.
    pub(super) fn widen_scan(&self, scan: &mut Scan) {
        let waiting = self.scanning.iter().filter(|s| s.sender == scan.sender);
        for (origin, send) in waiting.flat_map(|s| &s.deferred) {
            let Some(seq) = send.after_seq else { continue };
            let key = Key::new(&origin.user, &origin.device, &send.client_msg_id);
            if scan.keys.len() < MAX_SCAN_KEYS && !scan.keys.contains(&key) {
                scan.keys.push(key);
                scan.from = scan.from.min(seq.saturating_add(1));
            }
        }
    }

    /// Those who waited for the scan of this device.
    pub(super) fn end_scan(
        &mut self,
        sender: &(UserId, DeviceId),
        deadlines: &mut Deadlines,
    ) -> Option<Vec<(Origin, Send)>> {
        let place = self.scanning.iter().position(|s| s.sender == *sender)?;
        let Scanning { deferred, ticket, .. } = self.scanning.swap_remove(place);
        deadlines.remove(ticket);
        Some(deferred)
    }

    /// Answers, now or when it is durable, if the message has a number already.
    pub(super) fn answer_known(
        &mut self,
        conversation: ConversationId,
        key: Key,
        origin: &Origin,
        send: &Send,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some((seq, time_ms)) = self.window.find(key) else {
            return false;
        };
        if seq <= self.head {
            let (conn, client_msg_id) = (origin.conn, send.client_msg_id.clone());
            let asked = origin.at;
            effects.push(Effect::Ack(Ack {
                conn,
                client_msg_id,
                conversation,
                seq,
                time_ms,
                asked,
            }));
            effects.extend(self.tell(conversation, seq));
            return true;
        }
        // Numbers above the head are in flight, then waiting, without a gap.
        let place = (seq - self.head - 1) as usize;
        let pending = self.in_flight.iter_mut().chain(&mut self.waiting).nth(place);
        if let Some(pending) = pending {
            if pending.also.len() >= MAX_ALSO_WAITING {
                // Every send is answered once, or its session would count it for ever.
                let oldest = pending.also.remove(0);
                refuse_send(oldest, send, Code::Overloaded, effects);
            }
            pending.also.push(origin.conn);
        }
        true
    }

    pub(super) fn enqueue(
        &mut self,
        key: Key,
        origin: Origin,
        send: Send,
        size: usize,
        now_ms: u64,
    ) {
        let (seq, time_ms) = self.window.push(key, now_ms);
        let record = Record {
            seq,
            sender: origin.user.clone(),
            device: origin.device.clone(),
            client_msg_id: send.client_msg_id.clone(),
            time_ms,
            content_type: send.content_type.clone(),
            payload: send.payload.clone(),
        };
        let (given_up, also) = (false, Vec::new());
        self.waiting.push(Pending { origin, send, record, given_up, also, size });
    }

    /// What to submit now: all that waits, if nothing is in flight.
    pub(super) fn next_append(
        &mut self,
        conversation: ConversationId,
        deadlines: &mut Deadlines,
    ) -> Option<Append> {
        if !self.in_flight.is_empty() || self.waiting.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let fits = |pending: &&Pending| {
            bytes += pending.size;
            bytes <= MAX_BATCH_BYTES
        };
        let count = self.waiting.iter().take(MAX_APPEND_RECORDS).take_while(fits).count().max(1);
        let rest = self.waiting.split_off(count);
        self.in_flight = std::mem::replace(&mut self.waiting, rest);
        self.ticket = deadlines.add(conversation, Awaited::Append);
        let records = self.in_flight.iter().map(|pending| pending.record.clone()).collect();
        Some(Append { conversation, first: self.head + 1, records })
    }

    /// What was in flight is durable: acknowledge and deliver it. Returns the bytes it was
    /// counted for.
    pub(super) fn appended(
        &mut self,
        conversation: ConversationId,
        effects: &mut Vec<Effect>,
    ) -> usize {
        let mut freed = 0;
        self.overdue = false;
        for mut pending in std::mem::take(&mut self.in_flight) {
            let waiting = pending.take_waiting();
            let Pending { origin, record, size, .. } = pending;
            freed += size;
            self.head = record.seq;
            for conn in waiting {
                effects.push(Effect::Ack(Ack {
                    conn,
                    client_msg_id: record.client_msg_id.clone(),
                    conversation,
                    seq: record.seq,
                    time_ms: record.time_ms,
                    asked: if conn == origin.conn { origin.at } else { Stamp::default() },
                }));
            }
            let (members, asked) = (self.marks.members().clone(), origin.at);
            let origin = origin.conn;
            effects.push(Effect::Deliver(Delivery {
                conversation,
                record,
                members,
                origin,
                asked,
            }));
        }
        self.known = self.known.max(self.head);
        self.told = self.told.max(self.head);
        self.window.trim(self.head);
        freed
    }

    /// The outcome of the append in flight is overdue. Nobody waits for it any longer, and what
    /// waits behind it is dropped. Returns the place of its deadline, and the bytes that were
    /// counted for what is gone.
    pub(super) fn give_up(&mut self, effects: &mut Vec<Effect>) -> Option<(&mut Ticket, usize)> {
        let last = self.in_flight.last()?.record.seq;
        self.overdue = true;
        self.window.cut(last);
        let mut freed = 0;
        self.in_flight.iter_mut().for_each(|pending| pending.give_up(effects));
        for mut pending in self.waiting.drain(..) {
            pending.give_up(effects);
            freed += pending.size;
        }
        Some((&mut self.ticket, freed))
    }

    /// The outcome of the append in flight is known.
    pub(super) fn decided(&mut self, deadlines: &mut Deadlines) {
        deadlines.remove(self.ticket);
    }

    /// Everything that was not acknowledged, in order, and the bytes it was counted for; and the
    /// cursors. What had a number may or may not be in the log above the head now, and so may what
    /// waited for a scan if another gateway has it too: it is to be looked for from there.
    ///
    /// Messages for which nobody waits any longer are left out: they will be sent again.
    pub(super) fn into_unacknowledged(
        self,
        deadlines: &mut Deadlines,
    ) -> (Vec<(Origin, Send)>, usize, Marks) {
        let mut freed = 0;
        let mut sends = Vec::new();
        for mut pending in self.in_flight.into_iter().chain(self.waiting) {
            freed += pending.size;
            let waiting = pending.take_waiting();
            let send = Send { after_seq: Some(self.head), ..pending.send };
            for conn in waiting {
                sends.push((Origin { conn, ..pending.origin.clone() }, send.clone()));
            }
        }
        self.scanning.iter().for_each(|scanning| deadlines.remove(scanning.ticket));
        let deferred = self.scanning.into_iter().flat_map(|scanning| scanning.deferred);
        for (origin, send) in deferred {
            freed += size_of_send(&send);
            let after_seq = send.after_seq.or(Some(self.head));
            sends.push((origin, Send { after_seq, ..send }));
        }
        (sends, freed, self.marks)
    }
}
