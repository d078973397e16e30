//! A lane against a model of the store, under random schedules: answers come late and in any
//! order, appends fail, another gateway writes, the lane is lost and made anew. After each run
//! the log and every answer are checked.

mod bounds;
mod cursors;
mod patience;
mod second_writer;

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use proptest::prelude::*;
use skein_protocol::{ClientMsgId, DeviceId, Seq};
use skein_storage::{Append, AppendError, CursorPair, Extent, Record};

use super::*;
use crate::limits::Throttle;

const WINDOW: usize = 3;
const DEVICES: usize = 3;
const PATIENCE: u32 = 2;

fn user(n: usize) -> UserId {
    UserId::parse(["alice", "bob"][n % 2]).unwrap()
}

fn device(n: usize) -> DeviceId {
    DeviceId::parse(&format!("d{n}")).unwrap()
}

fn conversation() -> ConversationId {
    ConversationId::one_to_one(&user(0), &user(1))
}

fn origin(device_no: usize) -> Origin {
    let conn = ConnId::from_u64(device_no as u64);
    let at = crate::observe::Stamp::default();
    Origin { conn, user: user(device_no), device: device(device_no), at }
}

/// One step of a schedule.
#[derive(Debug, Clone)]
enum Step {
    /// The device sends its next message.
    Send(usize),
    /// The device repeats one of its messages, acknowledged or not.
    Repeat(usize, usize),
    /// An outstanding effect, by index, is carried out.
    Effect(usize),
    /// Likewise, but the store refuses.
    Fail(usize),
    /// Another gateway appends several messages, the first perhaps one that is in flight here.
    Foreign(bool),
    /// The lane is lost; with `true` an append in flight reaches the log all the same.
    Crash(bool),
    /// The lane forgets what it can.
    Evict,
    /// A cursor is raised.
    Cursor(usize, Seq),
    /// Cursors are written, or the store refuses them.
    Flush(bool),
    /// Time passes.
    Tick,
    /// The store is silent for longer than anybody waits.
    Silence,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..DEVICES).prop_map(Step::Send),
        3 => (0..DEVICES, any::<usize>()).prop_map(|(d, n)| Step::Repeat(d, n)),
        10 => any::<usize>().prop_map(Step::Effect),
        2 => any::<usize>().prop_map(Step::Fail),
        1 => any::<bool>().prop_map(Step::Foreign),
        1 => any::<bool>().prop_map(Step::Crash),
        1 => Just(Step::Evict),
        1 => (0..DEVICES, 0..40u64).prop_map(|(d, s)| Step::Cursor(d, s)),
        1 => any::<bool>().prop_map(Step::Flush),
        2 => Just(Step::Tick),
        1 => Just(Step::Silence),
    ]
}

/// A message as its client remembers it.
#[derive(Debug, Clone)]
struct Sent {
    id: ClientMsgId,
    /// Head known at the first attempt.
    known_head: Seq,
    acked: Option<Seq>,
}

#[derive(Default)]
struct Model {
    log: Vec<Record>,
    members: Option<Vec<UserId>>,
    /// Read or write effects that were not carried out.
    open: Vec<Effect>,
    sent: [Vec<Sent>; DEVICES],
    delivered: Vec<Seq>,
    /// Up to where the members' sessions have heard that there is something.
    told: Seq,
    /// Sends so far; each has a connection of its own.
    asked: u64,
    /// Those that wait for an answer.
    unanswered: HashSet<ConnId>,
    cursors: HashMap<UserId, CursorPair>,
    /// Delivered cursors that the lane has taken.
    raised: HashMap<UserId, Seq>,
    foreign: usize,
}

struct World {
    lane: Lane,
    model: Model,
    /// Plants a bug: answers to scans claim that nothing was found.
    blind_scans: bool,
}

impl World {
    fn new(blind_scans: bool) -> Self {
        Self { lane: Self::lane(), model: Model::default(), blind_scans }
    }

    fn lane() -> Lane {
        let config = LaneConfig {
            dedup_window: WINDOW,
            max_bytes: 1 << 20,
            max_waiting: 64,
            max_conversations: 1,
            max_unwritten: 4,
            max_loading: 4,
            patience: PATIENCE,
        };
        Lane::new(config, Throttle::off())
    }

    fn head(&self) -> Seq {
        self.model.log.len() as Seq
    }

    fn send(&mut self, device_no: usize, sent: &Sent, repeat: bool) {
        let send = Send {
            target: Target::User(user(device_no + 1)),
            client_msg_id: sent.id.clone(),
            content_type: String::new(),
            payload: Bytes::from_static(b"x"),
            after_seq: repeat.then_some(sent.known_head),
        };
        self.model.asked += 1;
        let conn = ConnId::from_u64(self.model.asked);
        self.model.unanswered.insert(conn);
        self.command(Command::Send(Origin { conn, ..origin(device_no) }, send));
    }

    fn tick(&mut self) {
        let mut effects = Vec::new();
        self.lane.handle_tick(&mut effects);
        self.take(effects);
    }

    fn check_answer(&mut self, conn: ConnId) {
        // Other tests ask by themselves.
        let is_asked = (1..=self.model.asked).any(|n| ConnId::from_u64(n) == conn);
        assert!(self.model.unanswered.remove(&conn) || !is_asked, "answered twice");
    }

    fn command(&mut self, command: Command) {
        let mut effects = Vec::new();
        self.lane.handle_command(conversation(), command, 1_000, &mut effects);
        self.take(effects);
    }

    fn take(&mut self, effects: Vec<Effect>) {
        let mut acknowledged = 0;
        for effect in effects {
            match effect {
                Effect::Ack(ack) => {
                    acknowledged = acknowledged.max(ack.seq);
                    self.check_ack(&ack);
                }
                Effect::Deliver(delivery) => {
                    let in_log = &self.model.log[delivery.record.seq as usize - 1];
                    assert_eq!(*in_log, delivery.record, "pushed before it was durable");
                    self.model.told = self.model.told.max(delivery.record.seq);
                    self.model.delivered.push(delivery.record.seq);
                }
                Effect::Receipt(receipt) => {
                    assert!(receipt.seq <= self.head(), "a cursor past the head");
                    let raised = self.model.raised.entry(receipt.user).or_default();
                    *raised = receipt.seq.max(*raised);
                }
                Effect::Refuse(conn, _) => self.check_answer(conn),
                Effect::Head(..) => {}
                Effect::Grown(mark, members) => {
                    assert!(mark.seq <= self.head(), "a head that the log has not reached");
                    assert_eq!(Some(&members[..]), self.model.members.as_deref());
                    self.model.told = self.model.told.max(mark.seq);
                }
                effect => self.model.open.push(effect),
            }
        }
        let told = self.model.told;
        assert!(acknowledged <= told, "{acknowledged} is acknowledged, and others know of {told}");
    }

    fn check_ack(&mut self, ack: &Ack) {
        self.check_answer(ack.conn);
        let record = self.model.log.get(ack.seq as usize - 1).expect("acknowledged, not durable");
        assert_eq!(record.client_msg_id, ack.client_msg_id);
        for sent in self.model.sent.iter_mut().flatten() {
            if sent.id == ack.client_msg_id {
                assert!(sent.acked.is_none_or(|seq| seq == ack.seq), "two numbers for one message");
                sent.acked = Some(ack.seq);
            }
        }
    }

    /// Carries out an effect; `ok`: the store serves.
    fn carry_out(&mut self, place: usize, ok: bool) {
        if self.model.open.is_empty() {
            return;
        }
        let place = place % self.model.open.len();
        let effect = self.model.open.remove(place);
        let refused = || StoreError::Unavailable("test".into());
        let mut effects = Vec::new();
        match effect {
            Effect::Load(load) => {
                let loaded = if ok { Ok(self.load(load)) } else { Err(refused()) };
                self.lane.handle_loaded(conversation(), loaded, 1_000, &mut effects);
            }
            Effect::Scan(scan) => {
                let found = if ok { Ok(self.scan(&scan)) } else { Err(refused()) };
                self.lane.handle_scanned(&scan, found, 1_000, &mut effects);
            }
            Effect::Append(append) => {
                let outcome = if ok { self.append(append) } else { Err(refused().into()) };
                self.lane.handle_appended(conversation(), outcome, &mut effects);
            }
            Effect::Look(conversation) => {
                let extent = Extent { first: 1, head: self.head() };
                let extent = if ok { Ok(extent) } else { Err(refused()) };
                self.lane.handle_looked(conversation, extent, &mut effects);
            }
            _ => {}
        }
        self.take(effects);
    }

    fn flush(&mut self, ok: bool) {
        for update in self.lane.take_cursor_updates() {
            if ok {
                let stored = self.model.cursors.entry(update.user.clone()).or_default();
                stored.delivered = stored.delivered.max(update.to.delivered);
                stored.read = stored.read.max(update.to.read);
            }
            self.lane.handle_cursor_written(&update, ok);
        }
    }

    fn load(&mut self, load: Load) -> Option<Loaded> {
        let members = &mut self.model.members;
        let members = members.get_or_insert(load.begin?).clone();
        let log = &self.model.log;
        let cursors =
            members.iter().map(|m| self.model.cursors.get(m).copied().unwrap_or_default());
        Some(Loaded {
            cursors: cursors.collect(),
            members,
            extent: Extent { first: 1, head: log.len() as Seq },
            tail: log[log.len().saturating_sub(load.tail)..].iter().map(Known::of).collect(),
        })
    }

    fn scan(&self, scan: &Scan) -> Found {
        if self.blind_scans {
            return Found::new();
        }
        let range = &self.model.log[scan.from as usize - 1..scan.to as usize];
        let hits = range.iter().filter(|record| scan.keys.contains(&Key::of(record)));
        hits.map(|record| (Key::of(record), record.seq, record.time_ms)).collect()
    }

    fn append(&mut self, append: Append) -> Result<(), AppendError> {
        if append.first != self.head() + 1 {
            return Err(AppendError::Conflict { head: self.head() });
        }
        for (record, seq) in append.records.into_iter().zip(append.first..) {
            assert_eq!(record.seq, seq, "a batch is numbered without a gap");
            self.model.log.push(record);
        }
        Ok(())
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send(device_no) => {
                let id = format!("{device_no}-{}", self.model.sent[device_no].len());
                let id = ClientMsgId::parse(&id).unwrap();
                let sent = Sent { id, known_head: self.head(), acked: None };
                self.model.sent[device_no].push(sent.clone());
                self.send(device_no, &sent, false);
            }
            Step::Repeat(device_no, which) => {
                let sent = &self.model.sent[device_no];
                if !sent.is_empty() {
                    let sent = sent[which % sent.len()].clone();
                    self.send(device_no, &sent, true);
                }
            }
            Step::Effect(place) => self.carry_out(place, true),
            Step::Fail(place) => self.carry_out(place, false),
            Step::Foreign(same) => self.foreign(same),
            Step::Crash(reaches) => self.crash(reaches),
            Step::Evict => {
                self.lane.config.max_conversations = 0;
                self.lane.evict();
                self.lane.config.max_conversations = 1;
            }
            Step::Cursor(device_no, seq) => {
                self.command(Command::Cursor(origin(device_no), CursorKind::Delivered, seq));
            }
            Step::Flush(ok) => self.flush(ok),
            Step::Tick => self.tick(),
            Step::Silence => {
                (0..=PATIENCE).for_each(|_| self.tick());
                assert!(self.model.unanswered.is_empty(), "somebody waits for ever");
            }
        }
    }

    fn foreign(&mut self, same: bool) {
        if self.model.members.is_none() {
            return;
        }
        let in_flight = self.model.open.iter().find_map(|effect| match effect {
            Effect::Append(append) if same => append.records.first().cloned(),
            _ => None,
        });
        if let Some(record) = in_flight
            && self.model.log.iter().all(|known| known.client_msg_id != record.client_msg_id)
        {
            self.model.log.push(Record { seq: self.head() + 1, ..record });
        }
        for _ in 0..=WINDOW {
            self.model.foreign += 1;
            self.model.log.push(Record {
                seq: self.head() + 1,
                sender: user(0),
                device: device(99),
                client_msg_id: ClientMsgId::parse(&format!("f{}", self.model.foreign)).unwrap(),
                time_ms: 0,
                content_type: String::new(),
                payload: Bytes::new(),
            });
        }
    }

    fn crash(&mut self, reaches: bool) {
        // Everybody connects again and asks for all heads; what was on its way comes after that.
        self.model.told = self.head();
        for effect in std::mem::take(&mut self.model.open) {
            if let (Effect::Append(append), true) = (effect, reaches) {
                let _ = self.append(append);
            }
        }
        self.lane = Self::lane();
        self.model.delivered.clear();
        self.model.raised.clear();
        self.model.unanswered.clear();
    }

    /// Serves everything and repeats what is not acknowledged until all is.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            while !self.model.open.is_empty() {
                self.carry_out(0, true);
            }
            let all = self.model.sent.clone();
            let mut open = false;
            for (device_no, sent) in all.iter().enumerate() {
                for sent in sent.iter().filter(|sent| sent.acked.is_none()) {
                    open = true;
                    self.send(device_no, sent, true);
                }
            }
            if !open && self.model.open.is_empty() {
                return self.flush(true);
            }
        }
        panic!("something is never acknowledged");
    }

    fn check(&self) {
        let mut positions: BTreeMap<&str, Seq> = BTreeMap::new();
        for (record, seq) in self.model.log.iter().zip(1..) {
            assert_eq!(record.seq, seq, "the log has a gap");
            let before = positions.insert(record.client_msg_id.as_str(), seq);
            assert_eq!(before, None, "{:?} has two positions", record.client_msg_id);
        }
        for sent in self.model.sent.iter().flatten() {
            assert_eq!(positions.get(sent.id.as_str()).copied(), sent.acked);
        }
        let delivered: HashSet<_> = self.model.delivered.iter().collect();
        assert_eq!(delivered.len(), self.model.delivered.len(), "pushed twice");
        assert!(self.model.delivered.is_sorted(), "pushed out of order");
        assert_eq!(self.lane.waiting_bytes(), 0, "bytes are counted for nothing");
        assert_eq!(self.lane.deadlines.len(), 0, "something is awaited that is known");
        assert!(self.model.unanswered.is_empty(), "a send was never answered");
        for (user, raised) in &self.model.raised {
            let stored = self.model.cursors.get(user).copied().unwrap_or_default();
            assert!(stored.delivered >= *raised, "a cursor of {user} is lost");
        }
    }
}

fn run(steps: Vec<Step>, blind_scans: bool) {
    let mut world = World::new(blind_scans);
    steps.into_iter().for_each(|step| world.step(step));
    world.settle();
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_schedule_gives_each_message_one_number(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        run(steps, false);
    }
}

/// A repeat from beyond the window, which only a scan can answer.
fn late_repeat() -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..3 * WINDOW {
        steps.push(Step::Send(0));
        steps.extend((0..3).map(|_| Step::Effect(0)));
    }
    steps.push(Step::Repeat(0, 0));
    steps
}

#[test]
fn a_repeat_from_beyond_the_window_is_found_in_the_log() {
    run(late_repeat(), false);
}

#[test]
#[should_panic(expected = "two numbers for one message")]
fn the_check_sees_a_scan_that_finds_nothing() {
    run(late_repeat(), true);
}

#[test]
fn several_repeats_of_a_device_share_one_scan_after_the_first() {
    let mut world = World::new(false);
    late_repeat().into_iter().for_each(|step| world.step(step));
    (1..5).for_each(|n| world.step(Step::Repeat(0, n)));
    let mut scans = 0;
    while let Some(effect) = world.model.open.first() {
        scans += usize::from(matches!(effect, Effect::Scan(_)));
        world.carry_out(0, true);
    }
    assert_eq!(scans, 2);
    world.check();
}

#[test]
fn what_was_looked_at_is_not_read_again_when_others_write_on() {
    let mut world = World::new(false);
    (0..3 * WINDOW).for_each(|_| world.step(Step::Send(0)));
    world.settle();
    for n in 0..3 {
        let id = ClientMsgId::parse(&format!("unheard-{n}")).unwrap();
        let sent = Sent { id, known_head: 0, acked: None };
        world.model.sent[0].push(sent.clone());
        world.send(0, &sent, true);
    }
    let mut scans = Vec::new();
    for _ in 0..5 {
        // Another device's message slides the window on during each scan.
        world.step(Step::Send(1));
        let is_scan = |effect: &Effect| matches!(effect, Effect::Scan(_));
        while let Some(place) = world.model.open.iter().position(|effect| !is_scan(effect)) {
            world.carry_out(place, true);
        }
        let [Effect::Scan(scan)] = &world.model.open[..] else { panic!("{:?}", world.model.open) };
        scans.push(scan.from..=scan.to);
        world.carry_out(0, true);
    }
    // The first looks for one, the second for those that waited behind it, too.
    let mut read = scans[1].clone();
    for scan in &scans[2..] {
        assert_eq!(*scan.start(), read.end() + 1, "{scans:?}");
        read = scan.clone();
    }
    world.settle();
    world.check();
}

#[test]
fn a_stranger_and_an_unknown_conversation_are_refused() {
    let mut world = World::new(false);
    world.step(Step::Send(0));
    world.settle();
    let stranger = Origin { user: UserId::parse("eve").unwrap(), ..origin(2) };
    let send = Send {
        target: Target::Conversation(conversation()),
        client_msg_id: ClientMsgId::parse("e").unwrap(),
        content_type: String::new(),
        payload: Bytes::new(),
        after_seq: None,
    };
    let mut effects = Vec::new();
    world.lane.handle_command(conversation(), Command::Send(stranger, send), 0, &mut effects);
    let [Effect::Refuse(_, refusal)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(refusal.code, Code::UnknownConversation);
}

#[test]
fn every_repeat_of_a_message_in_flight_is_answered_once() {
    let mut world = World::new(false);
    world.step(Step::Send(0));
    world.carry_out(0, true);
    let mut effects = Vec::new();
    for _ in 0..9 {
        let sent = world.model.sent[0][0].clone();
        let send = Send {
            target: Target::User(user(1)),
            client_msg_id: sent.id,
            content_type: String::new(),
            payload: Bytes::from_static(b"x"),
            after_seq: Some(sent.known_head),
        };
        let command = Command::Send(origin(0), send);
        world.lane.handle_command(conversation(), command, 0, &mut effects);
    }
    world.lane.handle_appended(conversation(), Ok(()), &mut effects);
    let answer = |e: &&Effect| matches!(e, Effect::Ack(_) | Effect::Refuse(..));
    assert_eq!(effects.iter().filter(answer).count(), 10, "{effects:?}");
}
