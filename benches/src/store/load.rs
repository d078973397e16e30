//! The load: senders with one message under way each, conversations with one append under way each.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::Serialize;
use skein_protocol::{ClientMsgId, ConversationId, DeviceId, Seq, UserId};
use skein_storage::{Append, AppendError, AppendSink, MAX_APPEND_RECORDS, Record, Store};

/// Bytes of a message's payload.
const PAYLOAD: usize = 128;

/// Longest latency that is told apart.
const LONGEST: Duration = Duration::from_secs(60);

/// How many write, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Load {
    pub(crate) conversations: usize,
    /// In each conversation.
    pub(crate) senders: usize,
}

/// What came of it.
pub(crate) struct Run<T> {
    pub(crate) took: Duration,
    /// What was looked at when counting began and when it ended.
    pub(crate) before: T,
    pub(crate) after: T,
    /// From the moment at which a message could be sent to its outcome, microseconds.
    pub(crate) latency: Histogram<u64>,
    /// Messages that the store refused for now; they were submitted again.
    pub(crate) refused: u64,
}

/// One conversation as its lane sees it.
struct Lane {
    id: ConversationId,
    head: Seq,
    /// When each of its messages came: those under way, and those that wait.
    in_flight: Vec<Instant>,
    waiting: Vec<Instant>,
}

type Outcome = (usize, Result<(), AppendError>);

/// Leads the outcomes of one group back to the generator.
struct Group {
    lanes: Vec<usize>,
    outcomes: Sender<Outcome>,
}

impl AppendSink for Group {
    fn appended(&self, outcomes: Vec<(usize, Result<(), AppendError>)>) {
        for (place, outcome) in outcomes {
            // The generator is gone only when a run has failed.
            let _ = self.outcomes.send((self.lanes[place], outcome));
        }
    }
}

struct Generator<'a> {
    store: &'a dyn Store,
    lanes: Vec<Lane>,
    sender: Sender<Outcome>,
    receiver: Receiver<Outcome>,
    latency: Histogram<u64>,
    refused: u64,
}

/// Runs a load on new conversations: `warm_up`, then `length` in which it counts.
pub(crate) fn run<T>(
    store: &dyn Store,
    load: Load,
    warm_up: Duration,
    length: Duration,
    look: impl Fn() -> T,
) -> Run<T> {
    let mut generator = Generator::new(store, load);
    let began = Instant::now();
    generator.submit((0..load.conversations).collect());
    while began.elapsed() < warm_up {
        generator.turn();
    }
    generator.latency.reset();
    generator.refused = 0;
    let before = look();
    let began = Instant::now();
    while began.elapsed() < length {
        generator.turn();
    }
    let (took, after) = (began.elapsed(), look());
    let (latency, refused) = (generator.latency.clone(), generator.refused);
    generator.drain();
    Run { took, before, after, latency, refused }
}

impl<'a> Generator<'a> {
    fn new(store: &'a dyn Store, load: Load) -> Self {
        let (sender, receiver) = channel();
        let latency = Histogram::new_with_max(LONGEST.as_micros() as u64, 3);
        let lanes = (0..load.conversations).map(|_| Lane {
            id: new_conversation(),
            head: 0,
            in_flight: Vec::new(),
            waiting: vec![Instant::now(); load.senders],
        });
        Self {
            store,
            lanes: lanes.collect(),
            sender,
            receiver,
            latency: latency.expect("these bounds are allowed"),
            refused: 0,
        }
    }

    /// Waits for an outcome, takes all that there are, and submits what can go next.
    fn turn(&mut self) {
        let next = self.take_outcomes();
        self.submit(next);
    }

    fn drain(&mut self) {
        while self.lanes.iter().any(|lane| !lane.in_flight.is_empty()) {
            self.take_outcomes();
        }
    }

    /// The lanes that have nothing under way any more.
    fn take_outcomes(&mut self) -> Vec<usize> {
        let first = self.receiver.recv().expect("the generator holds a sender itself");
        let more: Vec<Outcome> = self.receiver.try_iter().collect();
        let now = Instant::now();
        let mut free = Vec::with_capacity(1 + more.len());
        for (lane, outcome) in std::iter::once(first).chain(more) {
            self.take_outcome(lane, outcome, now);
            free.push(lane);
        }
        free
    }

    fn take_outcome(&mut self, lane: usize, outcome: Result<(), AppendError>, now: Instant) {
        let lane = &mut self.lanes[lane];
        let senders = std::mem::take(&mut lane.in_flight);
        match outcome {
            Ok(()) => {
                lane.head += senders.len() as Seq;
                for came in &senders {
                    let micros = now.saturating_duration_since(*came).as_micros();
                    self.latency.saturating_record(micros as u64);
                }
                lane.waiting.extend(senders.iter().map(|_| now));
            }
            Err(AppendError::Store(skein_storage::StoreError::Unavailable(_))) => {
                self.refused += senders.len() as u64;
                lane.waiting.splice(0..0, senders);
            }
            Err(error) => panic!("the store fails: {error}"),
        }
    }

    /// The next append of each lane: all that waits, in one group.
    fn submit(&mut self, lanes: Vec<usize>) {
        let mut group = Vec::with_capacity(lanes.len());
        for &lane in &lanes {
            let lane = &mut self.lanes[lane];
            let count = lane.waiting.len().min(MAX_APPEND_RECORDS);
            lane.in_flight = lane.waiting.drain(..count).collect();
            group.push(append(lane.id, lane.head + 1, count));
        }
        let sink = Group { lanes, outcomes: self.sender.clone() };
        self.store.submit(group, Arc::new(sink));
    }
}

fn append(conversation: ConversationId, first: Seq, count: usize) -> Append {
    static TEXT: [u8; PAYLOAD] = [b'x'; PAYLOAD];
    let sender = UserId::parse("user-000001").expect("a user id");
    let device = DeviceId::parse("phone-1").expect("a device id");
    let records = (first..).take(count).map(|seq| Record {
        seq,
        sender: sender.clone(),
        device: device.clone(),
        client_msg_id: ClientMsgId::parse(&format!("0190a1b2-c3d4-{seq:08}")).expect("an id"),
        time_ms: 1_700_000_000_000,
        content_type: String::new(),
        payload: Bytes::from_static(&TEXT),
    });
    Append { conversation, first, records: records.collect() }
}

/// An id that nobody has used: a keyspace may stay from one run to the next.
fn new_conversation() -> ConversationId {
    use std::hash::{BuildHasher, RandomState};
    let mut id = [1; 16];
    // Seeded by the system.
    id[1..9].copy_from_slice(&RandomState::new().hash_one(0).to_be_bytes());
    id[9..].copy_from_slice(&RandomState::new().hash_one(1).to_be_bytes()[..7]);
    ConversationId::parse(&id).expect("a conversation id")
}
