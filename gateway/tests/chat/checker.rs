//! Reads a history and says which promise was broken.
//!
//! Nothing here knows how a gateway works. Every sight of a position (an acknowledgement, a shown
//! message, a pulled log) is held against every other one, so whatever one observer was told the
//! others must confirm for ever after.

use std::collections::{BTreeMap, HashMap, HashSet};

use skein_protocol::client::ReceiptKind;
use skein_protocol::{ConversationId, Seq, UserId};

use super::history::{Device, Entry, Event, Found, Name};

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A message that was acknowledged or shown is not in the log.
    Lost,
    /// One message has two positions.
    TwoPositions,
    /// One position has had two messages.
    TwoMessages,
    /// A log does not run from 1 to its head without a gap.
    Gap,
    /// A text that nobody sent there, or under another name.
    Altered,
    /// A device was shown a position again.
    Repeated,
    /// A device was not shown a position, or a later one first.
    Skipped,
    /// Messages of one device stand in another order than it sent them.
    Reordered,
    /// A cursor went back.
    CursorBack,
    /// A cursor is further than anybody has come.
    CursorAhead,
    /// A conversation is missing from a member's list.
    Unlisted,
    /// A message was refused for good.
    Rejected,
    /// The gateway claims that its store is another one.
    Reset,
    /// A client does not try any more.
    GaveUp,
    /// In the end not every message is acknowledged, seen by all and marked so.
    Unsettled,
}

/// One broken promise.
#[derive(Debug, Clone)]
pub struct Violation {
    pub kind: Kind,
    pub what: String,
}

/// Violations of one kind that are kept in words; all are counted.
const KEPT: usize = 5;

#[derive(Debug)]
struct Sent {
    device: Device,
    conversation: ConversationId,
    name: Option<Name>,
    /// Place among the messages that this start of the device sent to the conversation.
    order: (u32, u64),
    accepted: bool,
    /// Its application ended after it was accepted, so it may have missed the acknowledgement.
    orphaned: bool,
}

#[derive(Debug, Default)]
struct Message {
    text: Option<String>,
    at: Option<(ConversationId, Seq)>,
    acked: bool,
}

#[derive(Debug, Default)]
struct View {
    /// Highest position that any start of the application was shown.
    ever: Seq,
    /// What the present one was shown last; `None`: nothing yet.
    here: Option<Seq>,
}

/// What was known of each conversation at one time.
pub type Known = HashMap<ConversationId, Seq>;

#[derive(Debug, Default)]
pub struct Checker {
    sent: HashMap<String, Sent>,
    messages: HashMap<Name, Message>,
    logs: HashMap<ConversationId, BTreeMap<Seq, Name>>,
    members: HashMap<ConversationId, [UserId; 2]>,
    /// How often each device was started.
    starts: HashMap<Device, u32>,
    views: HashMap<(Device, ConversationId), View>,
    told: HashMap<(Device, ConversationId, ReceiptKind, UserId), Seq>,
    marked: HashMap<(UserId, ConversationId), Seq>,
    counts: BTreeMap<Kind, u64>,
    kept: Vec<Violation>,
    acked: u64,
    seen: u64,
    /// Refusals for now, by code.
    postponed: BTreeMap<u32, u64>,
}

impl Checker {
    pub fn observe(&mut self, event: Event) {
        match event {
            Event::Started { device } => self.started(&device),
            Event::Sent { device, to, text } => self.sent(device, to, text),
            Event::Named { name, text } => self.bind(&name, &text),
            Event::Accepted { text } => {
                if let Some(sent) = self.sent.get_mut(&text) {
                    sent.accepted = true;
                }
            }
            Event::Acked { name, conversation, seq } => self.acknowledged(&name, conversation, seq),
            Event::Rejected { name, reason } => {
                self.report(Kind::Rejected, format!("{name}: {reason}"))
            }
            Event::Postponed { code, .. } => *self.postponed.entry(code).or_default() += 1,
            Event::Seen { by, conversation, entry } => self.shown(by, conversation, &entry),
            Event::LeftOut { by, conversation, from, to } => {
                self.report(
                    Kind::Skipped,
                    format!("{by} left out {from} - {to} of {conversation}"),
                );
            }
            Event::Marked { user, conversation, seq } => {
                let marked = self.marked.entry((user, conversation)).or_default();
                *marked = seq.max(*marked);
            }
            Event::Cursor { to, conversation, kind, user, seq } => {
                self.told(to, conversation, kind, user, seq);
            }
            Event::GaveUp { device, why } => self.report(Kind::GaveUp, format!("{device}: {why}")),
            Event::Reset { device } => self.report(Kind::Reset, format!("{device} was told so")),
        }
    }

    /// What must be found by a reader who begins to read now.
    pub fn known(&self) -> Known {
        let last = |log: &BTreeMap<Seq, Name>| log.last_key_value().map_or(0, |(seq, _)| *seq);
        self.logs.iter().map(|(conversation, log)| (*conversation, last(log))).collect()
    }

    /// Compares everything that a fresh client of `user` found, having begun when `known` was
    /// taken.
    pub fn audit(&mut self, user: &UserId, known: &Known, found: &[Found]) {
        let listed: HashSet<_> = found.iter().map(|found| found.conversation).collect();
        for (conversation, &seq) in known {
            let member = self.members.get(conversation).is_some_and(|m| m.contains(user));
            if member && seq > 0 && !listed.contains(conversation) {
                self.report(Kind::Unlisted, format!("{conversation} is not listed for {user}"));
            }
        }
        for found in found {
            self.audit_log(found, known.get(&found.conversation).copied().unwrap_or(0));
            for (user, delivered, read) in &found.cursors {
                for (kind, seq) in [(ReceiptKind::Delivered, delivered), (ReceiptKind::Read, read)]
                {
                    self.bound(found.conversation, kind, user, *seq);
                    if *seq > found.head {
                        let what = format!("{kind:?} of {user} is {seq}, the head {}", found.head);
                        self.report(Kind::CursorAhead, what);
                    }
                }
            }
        }
    }

    /// Now, for [`Checker::waiting_since`].
    pub fn mark(&self) -> u64 {
        self.sent.len() as u64
    }

    /// A message that was accepted before `mark` and is not acknowledged.
    pub fn waiting_since(&self, mark: u64) -> Option<String> {
        let old = self.sent.iter().filter(|(_, sent)| sent.accepted && sent.order.1 < mark);
        let mut waiting = old.filter(|(_, sent)| {
            let message = sent.name.as_ref().map(|name| &self.messages[name]);
            let done = |m: &Message| m.acked || (sent.orphaned && m.at.is_some());
            !message.is_some_and(done)
        });
        let (text, sent) = waiting.next()?;
        Some(format!("{text:?} of {} is not acknowledged", sent.device))
    }

    /// What is missing for an orderly end; `None` if nothing is.
    pub fn unsettled(&self) -> Option<String> {
        let waiting = self.waiting_since(u64::MAX);
        if waiting.is_some() {
            return waiting;
        }
        for (conversation, head) in self.known() {
            for device in self.starts.keys() {
                let view = self.views.get(&(device.clone(), conversation));
                let seen = view.and_then(|view| view.here.or(Some(view.ever))).unwrap_or(0);
                if self.members[&conversation].contains(&device.user) && seen < head {
                    return Some(format!("{device} has {seen} of {head} in {conversation}"));
                }
            }
        }
        None
    }

    /// What is missing of the cursors that a fresh client found: at the end all members have
    /// received and read everything.
    pub fn unmarked(found: &[Found]) -> Option<String> {
        let behind = |found: &Found| {
            let late = found.cursors.iter().find(|(_, d, r)| *d < found.head || *r < found.head)?;
            Some(format!("{late:?} of {} in {}", found.head, found.conversation))
        };
        found.iter().find_map(behind)
    }

    /// The run is over.
    pub fn finish(&mut self, unsettled: Option<String>) {
        if let Some(what) = unsettled {
            self.report(Kind::Unsettled, what);
        }
        let mut placed: BTreeMap<_, Vec<(u64, Seq)>> = BTreeMap::new();
        for sent in self.sent.values() {
            let at = sent.name.as_ref().and_then(|name| self.messages[name].at);
            if let (Some((_, seq)), true) = (at, sent.accepted) {
                let key = (sent.device.clone(), sent.conversation, sent.order.0);
                placed.entry(key).or_default().push((sent.order.1, seq));
            }
        }
        for ((device, conversation, _), mut places) in placed {
            places.sort_unstable();
            if let Some(pair) = places.windows(2).find(|pair| pair[0].1 >= pair[1].1) {
                let (first, second) = (pair[0].1, pair[1].1);
                let what = format!("{device} in {conversation}: {first} was sent before {second}");
                self.report(Kind::Reordered, what);
            }
        }
    }

    /// How far this device has been shown its conversations.
    pub fn shown_to(&self, device: &Device) -> Vec<(ConversationId, Seq)> {
        let views = self.views.iter().filter(|((by, _), _)| by == device);
        views.map(|((_, conversation), view)| (*conversation, view.ever)).collect()
    }

    pub fn has(&self, kind: Kind) -> bool {
        self.counts.contains_key(&kind)
    }

    pub fn counts(&self) -> &BTreeMap<Kind, u64> {
        &self.counts
    }

    /// The first ones of each kind.
    pub fn violations(&self) -> &[Violation] {
        &self.kept
    }

    /// Messages sent, acknowledgements, messages shown.
    pub fn figures(&self) -> (usize, u64, u64) {
        (self.sent.len(), self.acked, self.seen)
    }

    /// Refusals for now, by code: a store in trouble may cause any number of them.
    pub fn postponed(&self) -> &BTreeMap<u32, u64> {
        &self.postponed
    }

    /// Whoever looks from outside has seen a broken promise too.
    pub fn report(&mut self, kind: Kind, what: String) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= KEPT as u64 {
            self.kept.push(Violation { kind, what });
        }
    }

    fn started(&mut self, device: &Device) {
        *self.starts.entry(device.clone()).or_default() += 1;
        let views = self.views.iter_mut().filter(|((of, _), _)| of == device);
        views.for_each(|(_, view)| view.here = None);
        self.told.retain(|(to, ..), _| to != device);
        for sent in self.sent.values_mut().filter(|sent| sent.device == *device) {
            sent.orphaned = true;
        }
    }

    fn sent(&mut self, device: Device, to: UserId, text: String) {
        let conversation = ConversationId::one_to_one(&device.user, &to);
        self.members.entry(conversation).or_insert_with(|| [device.user.clone(), to]);
        let order = (self.starts.get(&device).copied().unwrap_or(0), self.sent.len() as u64);
        let (accepted, orphaned) = (false, false);
        let sent = Sent { device, conversation, name: None, order, accepted, orphaned };
        assert!(self.sent.insert(text, sent).is_none(), "the test sends a text twice");
    }

    /// Holds name and text of a message together.
    fn bind(&mut self, name: &Name, text: &str) {
        let message = self.messages.entry(name.clone()).or_default();
        let known = message.text.get_or_insert_with(|| text.to_owned()).clone();
        if known != text {
            return self.report(Kind::Altered, format!("{name} says {text:?}, was {known:?}"));
        }
        let Some(sent) = self.sent.get_mut(text) else {
            return self.report(Kind::Altered, format!("nobody said {text:?} ({name})"));
        };
        let same = sent.device == name.device && sent.name.get_or_insert(name.clone()) == name;
        if !same {
            let first = sent.name.clone();
            self.report(Kind::Altered, format!("{text:?} is {name}, was {first:?}"));
        }
    }

    /// Somebody says that the message stands here.
    fn place(&mut self, name: &Name, conversation: ConversationId, seq: Seq, by: &str) {
        let at = (conversation, seq);
        let message = self.messages.entry(name.clone()).or_default();
        let known = *message.at.get_or_insert(at);
        let sent = message.text.as_ref().and_then(|text| self.sent.get(text));
        let elsewhere = sent.is_some_and(|sent| sent.conversation != conversation);
        if known != at {
            let (other, before) = known;
            let what = format!("{name} is {seq} in {conversation} ({by}), was {before} in {other}");
            self.report(Kind::TwoPositions, what);
        }
        if elsewhere {
            self.report(Kind::Altered, format!("{name} was not meant for {conversation}"));
        }
        let log = self.logs.entry(conversation).or_default();
        let holder = log.entry(seq).or_insert_with(|| name.clone());
        if holder != name {
            let what = format!("{seq} in {conversation} is {name} ({by}), was {holder}");
            self.report(Kind::TwoMessages, what);
        }
    }

    fn acknowledged(&mut self, name: &Name, conversation: ConversationId, seq: Seq) {
        self.acked += 1;
        self.place(name, conversation, seq, "acknowledged");
        self.messages.entry(name.clone()).or_default().acked = true;
    }

    fn shown(&mut self, by: Device, conversation: ConversationId, entry: &Entry) {
        self.seen += 1;
        self.bind(&entry.name, &entry.text);
        self.place(&entry.name, conversation, entry.seq, "shown");
        let seq = entry.seq;
        let view = self.views.entry((by.clone(), conversation)).or_default();
        // A new start may show the last ones again, which were not put down as dealt with.
        let kind = match view.here {
            Some(last) if seq <= last => Some(Kind::Repeated),
            Some(last) if seq > last + 1 => Some(Kind::Skipped),
            None if seq > view.ever + 1 => Some(Kind::Skipped),
            _ => None,
        };
        let (here, ever) = (view.here, view.ever);
        view.here = Some(seq);
        view.ever = seq.max(ever);
        if let Some(kind) = kind {
            let what = format!("{by} was shown {seq} of {conversation} after {here:?}, {ever}");
            self.report(kind, what);
        }
    }

    fn told(
        &mut self,
        to: Device,
        conversation: ConversationId,
        kind: ReceiptKind,
        user: UserId,
        seq: Seq,
    ) {
        self.bound(conversation, kind, &user, seq);
        let told = self.told.entry((to.clone(), conversation, kind, user.clone())).or_default();
        let before = std::mem::replace(told, seq);
        if seq < before {
            let what = format!("{to} is told {kind:?} of {user} is {seq}, was {before}");
            self.report(Kind::CursorBack, what);
        }
    }

    /// Nobody has received what no device was shown, or read what was not marked.
    fn bound(&mut self, conversation: ConversationId, kind: ReceiptKind, user: &UserId, seq: Seq) {
        let furthest = match kind {
            ReceiptKind::Read => self.marked.get(&(user.clone(), conversation)).copied(),
            ReceiptKind::Delivered => {
                let views = self.views.iter();
                let of = views.filter(|((by, at), _)| by.user == *user && *at == conversation);
                of.map(|(_, view)| view.ever).max()
            }
        };
        let furthest = furthest.unwrap_or(0);
        if seq > furthest {
            let what = format!("{kind:?} of {user} in {conversation} is {seq}, can be {furthest}");
            self.report(Kind::CursorAhead, what);
        }
    }

    fn audit_log(&mut self, found: &Found, known: Seq) {
        let conversation = found.conversation;
        let last = found.log.last().map_or(0, |entry| entry.seq);
        if !found.log.iter().map(|entry| entry.seq).eq(1..=last) {
            let at = found.log.iter().zip(1..).find(|(entry, seq)| entry.seq != *seq);
            let at = at.map_or(last, |(_, seq)| seq);
            self.report(Kind::Gap, format!("{conversation} has no {at} where it should be"));
        }
        if last < found.head {
            let what = format!("{conversation} ends at {last}, its head is {}", found.head);
            self.report(Kind::Gap, what);
        }
        let at: HashMap<Seq, &Name> = found.log.iter().map(|e| (e.seq, &e.name)).collect();
        let log = self.logs.get(&conversation);
        let lost = log.and_then(|log| {
            log.range(..=known).find(|(seq, name)| at.get(*seq).is_none_or(|here| here != name))
        });
        if let Some((seq, name)) = lost {
            let what = format!("{name}, {seq} in {conversation}, is not there: {:?}", at.get(seq));
            self.report(Kind::Lost, what);
        }
        for entry in &found.log {
            self.bind(&entry.name, &entry.text);
            self.place(&entry.name, conversation, entry.seq, "pulled");
        }
    }
}
