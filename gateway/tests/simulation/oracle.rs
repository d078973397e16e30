//! What must hold, whatever happens. It sees what the applications hear and what is on disk, and
//! remembers what they did; it knows nothing of how the gateway works.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use skein_protocol::client::{Event, HistoryRequest, Message, ReceiptKind, Start, Target};
use skein_protocol::{ConversationId, Seq, UserId};
use skein_storage::{CursorPair, Record};

use crate::store::Disk;

/// A message that an application sent.
#[derive(Debug)]
struct Sent {
    device: usize,
    /// Which installation of the device: order is promised within one.
    installation: u32,
    /// How often its application had been started.
    starts: u32,
    conversation: ConversationId,
    payload: bytes::Bytes,
    /// Where it is, once acknowledged.
    acked: Option<Seq>,
    /// Refused for good, as it had to be.
    refused: bool,
    too_large: bool,
}

/// How often what happened.
pub(crate) type Tally = BTreeMap<String, u64>;

/// Who a device is.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) user: UserId,
    pub(crate) device: String,
    pub(crate) start: Start,
}

#[derive(Debug)]
pub(crate) struct Oracle {
    devices: Vec<Who>,
    starts: Vec<u32>,
    pub(crate) conversations: Vec<(ConversationId, Vec<UserId>)>,
    sent: HashMap<String, Sent>,
    order: Vec<String>,
    /// How far each log was looked at, and the last message of each installation in it.
    checked: BTreeMap<ConversationId, Seq>,
    places: HashMap<String, Seq>,
    /// What was durable, also after it has expired.
    rows: HashMap<(ConversationId, Seq), Record>,
    /// Up to where each log has expired.
    expired: HashMap<ConversationId, Seq>,
    last_of: HashMap<(ConversationId, usize, u32), usize>,
    /// What each device's application was shown, since it was started.
    seen: Vec<BTreeMap<ConversationId, Seq>>,
    /// Highest number that any device of a user was shown, and that the user has read.
    shown: HashMap<(UserId, ConversationId), Seq>,
    read: HashMap<(UserId, ConversationId), Seq>,
    /// What was read on each device since its application was started. A mark that the gateway
    /// has not heard of dies with the application.
    read_here: Vec<BTreeMap<ConversationId, Seq>>,
    /// Cursors on disk since the last crash.
    cursors: HashMap<(UserId, ConversationId), CursorPair>,
    /// Since when each device has been connected without a break.
    live_since: Vec<Option<Instant>>,
    /// What was acknowledged, where and when.
    acks: Vec<(ConversationId, Seq, Instant)>,
    /// With the heads of all logs at the time of the request.
    histories: HashMap<(usize, u64), (HistoryRequest, BTreeMap<ConversationId, Seq>)>,
    /// The first thing that was wrong.
    pub(crate) wrong: Option<String>,
    /// How often what happened.
    pub(crate) tally: Tally,
}

impl Oracle {
    pub(crate) fn new(devices: Vec<Who>) -> Self {
        let mut users: Vec<UserId> = devices.iter().map(|who| who.user.clone()).collect();
        users.sort();
        users.dedup();
        let mut conversations = Vec::new();
        for (at, a) in users.iter().enumerate() {
            for b in &users[at..] {
                let mut members = vec![a.clone(), b.clone()];
                members.dedup();
                conversations.push((ConversationId::one_to_one(a, b), members));
            }
        }
        Self {
            starts: vec![0; devices.len()],
            seen: vec![BTreeMap::new(); devices.len()],
            read_here: vec![BTreeMap::new(); devices.len()],
            live_since: vec![None; devices.len()],
            acks: Vec::new(),
            devices,
            conversations,
            sent: HashMap::new(),
            order: Vec::new(),
            checked: BTreeMap::new(),
            places: HashMap::new(),
            rows: HashMap::new(),
            expired: HashMap::new(),
            last_of: HashMap::new(),
            shown: HashMap::new(),
            read: HashMap::new(),
            cursors: HashMap::new(),
            histories: HashMap::new(),
            wrong: None,
            tally: Tally::new(),
        }
    }

    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        self.wrong.get_or_insert(what.into());
    }

    pub(crate) fn count(&mut self, what: &str, times: u64) {
        *self.tally.entry(what.into()).or_default() += times;
    }

    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(what());
        }
    }

    fn name(&self, at: usize) -> String {
        format!("{}'s {}", self.devices[at].user, self.devices[at].device)
    }

    pub(crate) fn seen(&self, at: usize) -> &BTreeMap<ConversationId, Seq> {
        &self.seen[at]
    }

    // ---- what applications do

    pub(crate) fn handle_sent(
        &mut self,
        device: usize,
        installation: u32,
        id: &str,
        to: &UserId,
        payload: bytes::Bytes,
        too_large: bool,
    ) {
        let conversation = ConversationId::one_to_one(&self.devices[device].user, to);
        let sent = Sent {
            device,
            installation,
            starts: self.starts[device],
            conversation,
            payload,
            acked: None,
            refused: false,
            too_large,
        };
        self.sent.insert(id.into(), sent);
        self.order.push(id.into());
    }

    pub(crate) fn handle_read(&mut self, device: usize, id: ConversationId, seq: Seq) {
        let read = self.read.entry((self.devices[device].user.clone(), id)).or_default();
        *read = (*read).max(seq);
        let read = self.read_here[device].entry(id).or_default();
        *read = (*read).max(seq);
    }

    pub(crate) fn handle_asked(&mut self, device: usize, id: u64, request: HistoryRequest) {
        self.histories.insert((device, id), (request, self.checked.clone()));
    }

    /// The application was started with these positions.
    pub(crate) fn handle_started(&mut self, device: usize, at: BTreeMap<ConversationId, Seq>) {
        self.seen[device] = at;
        self.live_since[device] = None;
        self.starts[device] += 1;
        self.read_here[device].clear();
        self.histories.retain(|(other, _), _| *other != device);
    }

    /// Up to where a log may expire: what was acknowledged, is older than this, and that nobody will
    /// send again.
    pub(crate) fn may_expire(
        &self,
        id: ConversationId,
        before_ms: u64,
        is_kept: impl Fn(&str) -> bool,
    ) -> Seq {
        let is_settled = |seq: &Seq| {
            self.rows.get(&(id, *seq)).is_some_and(|row| {
                let named = row.client_msg_id.as_str();
                let acked = self.sent.get(named).is_some_and(|sent| sent.acked.is_some());
                acked && row.time_ms < before_ms && !is_kept(named)
            })
        };
        (1..).take_while(is_settled).last().unwrap_or(0)
    }

    /// Retention has removed messages.
    pub(crate) fn handle_expired(&mut self, id: ConversationId, up_to: Seq) {
        let expired = self.expired.entry(id).or_default();
        *expired = up_to.max(*expired);
        self.count("expired", 1);
    }

    fn expired(&self, id: ConversationId) -> Seq {
        self.expired.get(&id).copied().unwrap_or(0)
    }

    /// The gateway's machine has crashed: the last cursors may be lost.
    pub(crate) fn handle_crash(&mut self) {
        self.cursors.clear();
    }

    // ---- what applications hear

    pub(crate) fn handle_event(&mut self, at: usize, event: Event, disk: &Disk, now: Instant) {
        match &event {
            Event::Connected { .. } => self.live_since[at] = Some(now),
            Event::Disconnected { .. } => self.live_since[at] = None,
            Event::Acked { conversation, seq, .. } => self.acks.push((*conversation, *seq, now)),
            _ => {}
        }
        match event {
            Event::Message { message, sent_here } => self.message(at, message, sent_here, disk),
            Event::Acked { id, conversation, seq, .. } => {
                self.acked(at, id.as_str(), conversation, seq, disk);
            }
            Event::Rejected { id, code, reason } => {
                let name = self.name(at);
                let Some(sent) = self.sent.get_mut(id.as_str()) else {
                    return self.fail(format!("{name}: {id} was never sent, and is refused"));
                };
                sent.refused = true;
                let right = sent.too_large && code == 202;
                self.require(right, || format!("{name}: {id} is refused: {code} {reason}"));
            }
            Event::Receipt { conversation, kind, user, seq } => {
                let bound = self.bound(&user, conversation, kind);
                let name = self.name(at);
                self.require(seq <= bound, || {
                    format!("{name}: {user} is said to have {kind:?} {seq}, and has {bound}")
                });
            }
            Event::History { request, messages, is_end, head } => {
                self.history(at, request, &messages, is_end, head, disk);
            }
            Event::Error { code, reason, retry } => {
                let name = self.name(at);
                self.require(retry, || format!("{name}: error {code} {reason}"));
            }
            Event::Skipped { conversation, from, to } => self.skipped(at, conversation, from, to),
            Event::StoreReset { .. } | Event::Notice { .. } => {
                let name = self.name(at);
                self.fail(format!("{name}: {event:?}"));
            }
            Event::Disconnected { code, .. } => {
                self.count(&format!("disconnected {}", code.unwrap_or(999)), 1);
            }
            Event::Postponed { code, .. } => self.count(&format!("postponed {code}"), 1),
            Event::HistoryFailed { code, .. } => self.count(&format!("history {code}"), 1),
            Event::Connected { .. } => self.count("connected", 1),
        }
    }

    /// The highest number that a cursor of the user may have.
    fn bound(&self, user: &UserId, id: ConversationId, kind: ReceiptKind) -> Seq {
        let key = (user.clone(), id);
        let table = match kind {
            ReceiptKind::Delivered => &self.shown,
            ReceiptKind::Read => &self.read,
        };
        let told = table.get(&key).copied().unwrap_or(0);
        match kind {
            // What has expired counts as delivered by whoever begins behind it.
            ReceiptKind::Delivered => told.max(self.expired(id)),
            ReceiptKind::Read => told,
        }
    }

    /// Where a device may go on that is given `seq`: behind what it had, or where it begins.
    fn first(&self, at: usize, id: ConversationId, seq: Seq) -> Seq {
        let who = &self.devices[at];
        match (self.seen[at].get(&id), who.start) {
            (Some(before), _) => before + 1,
            (None, Start::Beginning) => seq.min(self.expired(id) + 1),
            // It begins behind something that another device of the user was shown.
            (None, Start::Delivered) => {
                let shown = self.shown.get(&(who.user.clone(), id)).copied().unwrap_or(0);
                seq.min(shown.max(self.expired(id)) + 1)
            }
        }
    }

    fn skipped(&mut self, at: usize, id: ConversationId, from: Seq, to: Seq) {
        let (name, expired) = (self.name(at), self.expired(id));
        let first = self.first(at, id, from);
        self.require(from == first && to <= expired, || {
            format!("{name}: {from} - {to} of {id} are skipped; {first} is next, expired {expired}")
        });
        self.seen[at].insert(id, to);
        self.count("skipped", 1);
    }

    fn message(&mut self, at: usize, message: Message, sent_here: bool, disk: &Disk) {
        let (id, seq) = (message.conversation, message.seq);
        let (name, who) = (self.name(at), self.devices[at].clone());
        let key = (who.user.clone(), id);
        let before = self.seen[at].get(&id).copied();
        let first = self.first(at, id, seq);
        self.require(seq == first, || {
            format!("{name}: {seq} of {id} is shown, {first} should be; before: {before:?}")
        });
        self.seen[at].insert(id, seq);
        let shown = self.shown.entry(key).or_default();
        *shown = (*shown).max(seq);
        self.count("shown", 1);
        if sent_here {
            let mine = message.sender == who.user && message.device.as_str() == who.device;
            self.require(mine, || format!("{name}: {} is not its own", message.id));
        }
        self.same_as_on_disk(&name, &message, disk);
    }

    /// What is durable at this number, or was until it expired.
    fn row(&self, id: ConversationId, seq: Seq, disk: &Disk) -> Option<Record> {
        let kept = self.rows.get(&(id, seq)).cloned();
        kept.or_else(|| disk.log(id, seq).into_iter().next())
    }

    fn same_as_on_disk(&mut self, name: &str, message: &Message, disk: &Disk) {
        let row = self.row(message.conversation, message.seq, disk);
        let same = row.as_ref().is_some_and(|row| {
            row.seq == message.seq
                && row.sender == message.sender
                && row.device == message.device
                && row.client_msg_id == message.id
                && row.payload == message.payload
        });
        self.require(same, || format!("{name}: {message:?} was seen, {row:?} is what is durable"));
    }

    fn acked(&mut self, at: usize, id: &str, conversation: ConversationId, seq: Seq, disk: &Disk) {
        let name = self.name(at);
        self.count("acked", 1);
        let Some(sent) = self.sent.get_mut(id) else {
            return self.fail(format!("{name}: {id} was never sent, and is acknowledged"));
        };
        let first = *sent.acked.get_or_insert(seq);
        let here = sent.conversation == conversation;
        self.require(here && first == seq, || {
            format!("{name}: {id} is acknowledged at {seq} in {conversation}, before at {first}")
        });
        let row = self.row(conversation, seq, disk);
        let durable = row.as_ref().is_some_and(|row| row.client_msg_id.as_str() == id);
        self.require(durable, || {
            format!("{name}: {id} is acknowledged at {seq}, durable there is {row:?}")
        });
    }

    fn history(
        &mut self,
        at: usize,
        request: u64,
        messages: &[Message],
        is_end: bool,
        head: Seq,
        disk: &Disk,
    ) {
        let name = self.name(at);
        let Some((asked, heads)) = self.histories.remove(&(at, request)) else {
            return self.fail(format!("{name}: history {request} was not asked for"));
        };
        let Target::User(with) = &asked.of else { return };
        let id = ConversationId::one_to_one(&self.devices[at].user, with);
        // A request that broke off may have heard nothing of the log.
        let least = if is_end { heads.get(&id).copied().unwrap_or(0) } else { 0 };
        self.require((least..=disk.head(id)).contains(&head), || {
            format!("{name}: history has head {head}, and it was {least} before")
        });
        let (from, to) = (asked.from.max(1), if asked.to == 0 { head } else { asked.to.min(head) });
        let got: Vec<Seq> = messages.iter().map(|message| message.seq).collect();
        // What has expired may still have been there.
        let right = (1..=self.expired(id) + 1).any(|first| {
            let mut all: Vec<Seq> = (from.max(first)..=to).collect();
            if asked.backward {
                all.reverse();
            }
            all.truncate(if asked.limit == 0 { usize::MAX } else { asked.limit as usize });
            if is_end { got == all } else { all.starts_with(&got) }
        });
        self.require(right, || format!("{name}: {asked:?} brings {got:?}, end {is_end}, {head}"));
        for message in messages {
            self.same_as_on_disk(&name, message, disk);
        }
    }

    // ---- what is on disk

    /// To be called often; looks at what is new.
    pub(crate) fn check_disk(&mut self, disk: &Disk) {
        for (id, members) in self.conversations.clone() {
            let from = self.checked.get(&id).copied().unwrap_or(0) + 1;
            for (expected, record) in (from..).zip(disk.log(id, from)) {
                self.check_record(id, expected, &record);
                self.checked.insert(id, expected);
            }
            let head = disk.head(id);
            let checked = self.checked.get(&id).copied().unwrap_or(0);
            self.require(head == checked, || format!("{id}: {checked} were durable, now {head}"));
            for user in members {
                self.check_cursor(&user, id, head, disk);
            }
        }
    }

    fn check_record(&mut self, id: ConversationId, expected: Seq, record: &Record) {
        let named = record.client_msg_id.as_str();
        self.require(record.seq == expected, || format!("{id}: {record:?} stands at {expected}"));
        self.rows.insert((id, expected), record.clone());
        let other = self.places.insert(named.to_owned(), expected);
        self.require(other.is_none(), || format!("{id}: {named} is at {other:?} and {expected}"));
        let place = self.order.iter().position(|other| other == named);
        let (Some(place), Some(sent)) = (place, self.sent.get(named)) else {
            return self.fail(format!("{id}: nobody has sent {record:?}"));
        };
        let who = &self.devices[sent.device];
        let right = sent.conversation == id
            && record.sender == who.user
            && record.device.as_str() == who.device
            && record.payload == sent.payload;
        let writer = (id, sent.device, sent.installation);
        self.require(right, || format!("{id}: {record:?} is not what was sent"));
        let last = self.last_of.insert(writer, place);
        self.require(last.is_none_or(|last| last < place), || {
            format!("{id}: {named} stands behind a later message of its device")
        });
    }

    fn check_cursor(&mut self, user: &UserId, id: ConversationId, head: Seq, disk: &Disk) {
        let now = disk.stored_cursors(user, id);
        let before = self.cursors.insert((user.clone(), id), now).unwrap_or_default();
        let rose = before.delivered <= now.delivered && before.read <= now.read;
        self.require(rose, || format!("{user} in {id}: cursors went from {before:?} to {now:?}"));
        let most = now.delivered.max(now.read);
        self.require(most <= head, || format!("{user} in {id}: {now:?}, and the head is {head}"));
        let delivered = self.bound(user, id, ReceiptKind::Delivered);
        let read = self.bound(user, id, ReceiptKind::Read);
        self.require(now.delivered <= delivered && now.read <= read, || {
            format!("{user} in {id}: {now:?}, and was shown {delivered} and has read {read}")
        });
    }

    // ---- the end

    /// In peace everybody hears of what is acknowledged, without another message and without
    /// connecting anew. Looks at what was acknowledged since then, long enough ago.
    pub(crate) fn check_told(&mut self, peace: Option<Instant>, long_ago: Instant) {
        let acks = std::mem::take(&mut self.acks);
        let (old, acks): (Vec<_>, _) = acks.into_iter().partition(|(.., at)| *at <= long_ago);
        self.acks = acks;
        for (id, seq, acked) in old {
            let Some((_, members)) = self.conversations.iter().find(|(known, _)| *known == id)
            else {
                continue;
            };
            let members = members.clone();
            for at in 0..self.devices.len() {
                let Who { user, start, .. } = &self.devices[at];
                let seen = self.seen[at].get(&id).copied();
                let has = match (seen, start) {
                    (None, Start::Delivered) => true,
                    (seen, _) => seen.unwrap_or(0).max(self.expired(id)) >= seq,
                };
                let was_there = self.live_since[at].is_some_and(|since| since <= acked);
                if peace.is_some_and(|peace| acked >= peace)
                    && was_there
                    && members.contains(user)
                    && !has
                {
                    let name = self.name(at);
                    self.fail(format!("{name} was never told of {seq} in {id}, and has {seen:?}"));
                }
            }
        }
    }

    /// Something that was acknowledged not long enough ago.
    pub(crate) fn untold_acks(&self) -> Option<String> {
        let (id, seq, _) = self.acks.first()?;
        Some(format!("{seq} in {id} was acknowledged just now"))
    }

    /// A message that is neither acknowledged nor refused.
    pub(crate) fn unanswered(&self, installations: &[u32]) -> Option<String> {
        for (id, sent) in &self.sent {
            let kept = sent.installation == installations[sent.device];
            // What an application has not heard before it was killed it is not told again.
            let told = sent.acked.is_some() || sent.starts < self.starts[sent.device];
            let there = self.places.contains_key(id) || sent.too_large;
            let done = sent.refused || (told && there);
            if kept && !done {
                return Some(format!("{id} is not acknowledged"));
            }
        }
        None
    }

    /// What keeps the world from being at rest: nothing, once everybody has everything and, if
    /// `cursors`, the gateway knows so.
    pub(crate) fn unsettled(
        &self,
        installations: &[u32],
        cursors: bool,
        disk: &Disk,
    ) -> Option<String> {
        let unanswered = self.unanswered(installations);
        if unanswered.is_some() {
            return unanswered;
        }
        let mut all = self.conversations.iter();
        all.find_map(|(id, members)| {
            let head = disk.head(*id);
            let behind = |at| self.behind(at, *id, members, head);
            (0..self.devices.len()).find_map(behind).or_else(|| {
                members.iter().find_map(|user| self.untold(user, *id, head, cursors, disk))
            })
        })
    }

    fn behind(
        &self,
        at: usize,
        id: ConversationId,
        members: &[UserId],
        head: Seq,
    ) -> Option<String> {
        let who = &self.devices[at];
        let seen = self.seen[at].get(&id).copied();
        let all = match (seen, who.start) {
            (None, Start::Delivered) => true,
            (None, Start::Beginning) => self.expired(id) == head,
            (Some(seen), _) => seen == head,
        };
        let behind = members.contains(&who.user) && !all;
        behind.then(|| format!("{} has {seen:?} of {head} in {id}", self.name(at)))
    }

    fn untold(
        &self,
        user: &UserId,
        id: ConversationId,
        head: Seq,
        cursors: bool,
        disk: &Disk,
    ) -> Option<String> {
        let shown = self.bound(user, id, ReceiptKind::Delivered);
        if shown != head {
            return Some(format!("{user} was shown {shown} of {head} in {id}"));
        }
        let stored = disk.stored_cursors(user, id);
        let mine = self.devices.iter().zip(&self.read_here).filter(|(who, _)| who.user == *user);
        let read = mine.filter_map(|(_, read)| read.get(&id)).max().copied().unwrap_or(0);
        let told = stored.delivered == head && stored.read >= read;
        (cursors && !told).then(|| format!("{user} in {id}: {stored:?} is stored, read is {read}"))
    }
}
