//! Traces of some messages, from their arrival to their delivery.
//!
//! One of so many messages is chosen when it arrives. Its [`Stamp`](super::Stamp) carries a number
//! through the lanes; what happens to it is noted here, under that number:
//!
//! ```text
//! message    the whole: from its arrival to the last thing that happened to it
//!   queue      until its append was submitted to the store
//!   append     until it was durable
//!   ack        until its acknowledgement was given to QUIC
//!   push       until it was given to QUIC, for each recipient's session; or left out
//!   delivered  until a recipient had it
//! ```
//!
//! A trace goes out when everything has happened that is expected, and after [`LINGER`] with what
//! has: of a message that was refused only the whole. For all other messages the cost is one comparison. What is traced are times, sizes and
//! places: no text, and no name of a user.

mod otlp;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use skein_protocol::{ConversationId, Seq, UserId};

use super::count::Count;
use super::export::Traces;
pub use otlp::{Endpoint, export};

/// For how long a trace waits for what is still expected.
const LINGER: Duration = Duration::from_secs(10);

/// Traces under way at a time: some 2 KB each. Beyond it messages are not chosen.
const MAX_ACTIVE: usize = 1024;

/// Finished traces that wait to be sent. Beyond it they are dropped: the collector is behind.
const MAX_FINISHED: usize = 4096;

/// Spans of one trace. A message to a large group has more recipients than anybody looks at.
const MAX_SPANS: usize = 64;

/// Classes of conversations, see [`Tracer::may_concern`].
const CLASSES: usize = 1024;

/// A step of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) name: &'static str,
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
    /// What happened otherwise than it should.
    pub(super) failed: Option<&'static str>,
    pub(super) shard: Option<usize>,
}

/// All that is known of one message.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    pub(super) id: [u8; 16],
    pub(super) received: SystemTime,
    pub(super) bytes: usize,
    pub(super) place: Option<(ConversationId, Seq)>,
    pub(super) spans: Vec<Span>,
    pub(super) left_out_spans: u32,
    sender: UserId,
    begun: Instant,
    durable: Option<SystemTime>,
    pushed: Option<SystemTime>,
    /// Sessions that get a push.
    expected: Option<usize>,
    pushes: usize,
    deliveries: usize,
    acked: bool,
}

impl Trace {
    fn add(&mut self, span: Span) {
        if self.spans.len() < MAX_SPANS {
            self.spans.push(span);
        } else {
            self.left_out_spans += 1;
        }
    }

    fn step(&mut self, name: &'static str, start: SystemTime, shard: Option<usize>) {
        let end = SystemTime::now();
        self.add(Span { name, start, end, failed: None, shard });
    }

    /// Whether nothing more is expected.
    fn is_complete(&self) -> bool {
        let all = |n: usize| self.expected.is_some_and(|expected| n >= expected);
        self.acked && all(self.pushes) && all(self.deliveries)
    }
}

/// Chooses messages and gathers what happens to them.
#[derive(Debug)]
pub struct Tracer {
    one_in: u32,
    active: Mutex<HashMap<u32, Trace>>,
    last: AtomicU32,
    /// Traces under way in the conversations of each class.
    classes: Box<[AtomicU32]>,
    finished: Mutex<Vec<Trace>>,
    pub(super) figures: TraceFigures,
}

/// What became of traces.
#[derive(Debug, Default)]
pub(super) struct TraceFigures {
    pub(super) exported: Count,
    pub(super) dropped: Count,
    pub(super) failed_exports: Count,
}

impl Tracer {
    /// Chooses one of so many messages; at least 1.
    pub fn new(one_in: u32) -> Arc<Self> {
        Arc::new(Self {
            one_in: one_in.max(1),
            active: Mutex::default(),
            last: AtomicU32::new(0),
            classes: (0..CLASSES).map(|_| AtomicU32::new(0)).collect(),
            finished: Mutex::default(),
            figures: TraceFigures::default(),
        })
    }

    /// A message has arrived: the number of its trace, 0 if it is not chosen.
    pub(crate) fn begin(&self, sender: &UserId, bytes: usize) -> u32 {
        if self.one_in > 1 && rand::random_range(0..self.one_in) != 0 {
            return 0;
        }
        let mut active = lock(&self.active);
        if active.len() >= MAX_ACTIVE {
            self.figures.dropped.add_shared(1);
            return 0;
        }
        let trace = Trace {
            // Never all zeros, which OpenTelemetry does not allow.
            id: (rand::random::<u128>() | 1).to_be_bytes(),
            received: SystemTime::now(),
            bytes,
            place: None,
            spans: Vec::new(),
            left_out_spans: 0,
            sender: sender.clone(),
            begun: Instant::now(),
            durable: None,
            pushed: None,
            expected: None,
            pushes: 0,
            deliveries: 0,
            acked: false,
        };
        // Long before it wraps the older ones are gone.
        let number = self.last.fetch_add(1, Relaxed).wrapping_add(1).max(1);
        active.insert(number, trace);
        number
    }

    /// The id that clients are told.
    pub(crate) fn id(&self, number: u32) -> Option<[u8; 16]> {
        lock(&self.active).get(&number).map(|trace| trace.id)
    }

    /// It is durable at this place; its append took so long.
    pub(crate) fn durable(
        &self,
        number: u32,
        (conversation, seq): (ConversationId, Seq),
        append: Duration,
    ) {
        self.with(number, |trace| {
            let now = SystemTime::now();
            let submitted = now.checked_sub(append).unwrap_or(now).max(trace.received);
            let received = trace.received;
            let step = |name, start, end| Span { name, start, end, failed: None, shard: None };
            trace.add(step("queue", received, submitted));
            trace.add(step("append", submitted, now));
            trace.durable = Some(now);
            if trace.place.replace((conversation, seq)).is_none() {
                self.classes[class_of(conversation)].fetch_add(1, Relaxed);
            }
        });
    }

    /// So many sessions will get a push.
    pub(crate) fn expects(&self, number: u32, pushes: usize) {
        self.with(number, |trace| trace.expected = Some(pushes));
    }

    /// Its acknowledgement is with QUIC.
    pub(crate) fn acked(&self, number: u32, shard: usize) {
        self.with(number, |trace| {
            trace.acked = true;
            trace.step("ack", trace.durable.unwrap_or(trace.received), Some(shard));
        });
    }

    /// A push is with QUIC, or was left out because the session reads too slowly.
    pub(crate) fn pushed(&self, number: u32, shard: usize, left_out: bool) {
        self.with(number, |trace| {
            let (start, end) = (trace.durable.unwrap_or(trace.received), SystemTime::now());
            let failed = left_out.then_some("left out: the session is behind");
            trace.add(Span { name: "push", start, end, failed, shard: Some(shard) });
            trace.pushes += 1;
            trace.pushed.get_or_insert(end);
            // Nobody says when a session that is behind has it.
            trace.deliveries += usize::from(left_out);
        });
    }

    /// Whether a trace may be under way in this conversation: almost never, and told without a
    /// lock.
    pub(crate) fn may_concern(&self, conversation: ConversationId) -> bool {
        self.classes[class_of(conversation)].load(Relaxed) > 0
    }

    /// A device of the user has everything up to this number.
    pub(crate) fn delivered(
        &self,
        user: &UserId,
        (conversation, seq): (ConversationId, Seq),
        shard: usize,
    ) {
        let mut complete = Vec::new();
        let mut active = lock(&self.active);
        for (number, trace) in active.iter_mut() {
            let is_there = trace.place.is_some_and(|(at, n)| at == conversation && n <= seq);
            // Who sent it has it; and what was not pushed is brought by a sync, later.
            if is_there && trace.sender != *user && trace.deliveries < trace.pushes {
                trace.deliveries += 1;
                trace.step("delivered", trace.pushed.unwrap_or(trace.received), Some(shard));
                complete.extend(trace.is_complete().then_some(*number));
            }
        }
        let traces: Vec<Trace> = complete.iter().filter_map(|it| active.remove(it)).collect();
        drop(active);
        traces.into_iter().for_each(|trace| self.finish(trace));
    }

    /// Time moves on: what has waited long enough goes out as it is.
    pub(crate) fn tick(&self, now: Instant) {
        let is_old = |trace: &Trace| now.saturating_duration_since(trace.begun) >= LINGER;
        let old: Vec<Trace> =
            lock(&self.active).extract_if(|_, trace| is_old(trace)).map(|(_, it)| it).collect();
        old.into_iter().for_each(|trace| self.finish(trace));
    }

    /// What became of traces so far.
    pub(super) fn counts(&self) -> Traces {
        Traces {
            exported: self.figures.exported.get(),
            dropped: self.figures.dropped.get(),
            failed_exports: self.figures.failed_exports.get(),
        }
    }

    /// Finished traces, and all others if it is the end.
    pub(super) fn take(&self, is_end: bool) -> Vec<Trace> {
        let mut taken = std::mem::take(&mut *lock(&self.finished));
        if is_end {
            taken.extend(lock(&self.active).drain().map(|(_, trace)| trace));
        }
        taken
    }

    fn with(&self, number: u32, note: impl FnOnce(&mut Trace)) {
        let mut active = lock(&self.active);
        let Some(trace) = active.get_mut(&number) else { return };
        note(trace);
        if trace.is_complete() {
            let complete = active.remove(&number);
            drop(active);
            complete.into_iter().for_each(|trace| self.finish(trace));
        }
    }

    fn finish(&self, trace: Trace) {
        if let Some((conversation, _)) = trace.place {
            self.classes[class_of(conversation)].fetch_sub(1, Relaxed);
        }
        let mut finished = lock(&self.finished);
        if finished.len() < MAX_FINISHED {
            finished.push(trace);
        } else {
            self.figures.dropped.add_shared(1);
        }
    }
}

/// Ids are hashes.
fn class_of(conversation: ConversationId) -> usize {
    let bytes = conversation.as_bytes();
    usize::from(u16::from_le_bytes([bytes[12], bytes[13]])) % CLASSES
}

/// What is under it is whole between any two steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn place(seq: Seq) -> (ConversationId, Seq) {
        (ConversationId::one_to_one(&user("alice"), &user("bob")), seq)
    }

    fn names(trace: &Trace) -> Vec<&'static str> {
        trace.spans.iter().map(|span| span.name).collect()
    }

    #[test]
    fn a_trace_goes_out_when_all_has_happened_that_is_expected() {
        let tracer = Tracer::new(1);
        let number = tracer.begin(&user("alice"), 5);
        assert_ne!(number, 0);
        assert!(!tracer.may_concern(place(7).0));
        tracer.durable(number, place(7), Duration::from_millis(1));
        assert!(tracer.may_concern(place(7).0));
        tracer.expects(number, 1);
        tracer.acked(number, 0);
        tracer.pushed(number, 1, false);
        // An older message, another's, and the sender's own device.
        tracer.delivered(&user("bob"), place(6), 1);
        tracer.delivered(&user("alice"), place(7), 1);
        assert!(tracer.take(false).is_empty());
        tracer.delivered(&user("bob"), place(7), 1);
        let traces = tracer.take(false);
        assert_eq!(names(&traces[0]), ["queue", "append", "ack", "push", "delivered"]);
        assert!(traces[0].spans.iter().all(|span| span.start <= span.end));
        assert!(!tracer.may_concern(place(7).0), "nothing is looked up any more");
        assert_eq!(tracer.id(number), None);
    }

    #[test]
    fn nothing_is_waited_for_that_cannot_come() {
        let tracer = Tracer::new(1);
        let alone = tracer.begin(&user("alice"), 1);
        tracer.durable(alone, place(1), Duration::ZERO);
        tracer.expects(alone, 0);
        tracer.acked(alone, 0);
        let slow = tracer.begin(&user("alice"), 1);
        tracer.durable(slow, place(2), Duration::ZERO);
        tracer.expects(slow, 1);
        tracer.acked(slow, 0);
        tracer.pushed(slow, 0, true);
        assert_eq!(tracer.take(false).len(), 2);
        let silent = tracer.begin(&user("alice"), 1);
        tracer.acked(silent, 0);
        tracer.tick(Instant::now());
        assert!(tracer.take(false).is_empty());
        tracer.tick(Instant::now() + LINGER);
        assert_eq!(names(&tracer.take(false)[0]), ["ack"]);
    }

    #[test]
    fn traces_are_bounded() {
        let tracer = Tracer::new(1);
        let numbers: Vec<u32> =
            (0..MAX_ACTIVE + 5).map(|_| tracer.begin(&user("alice"), 1)).collect();
        assert_eq!(numbers.iter().filter(|number| **number == 0).count(), 5);
        assert_eq!(tracer.figures.dropped.get(), 5);
        tracer.expects(numbers[0], 1000);
        (0..1000).for_each(|_| tracer.pushed(numbers[0], 0, false));
        let all = tracer.take(true);
        assert_eq!(all.len(), MAX_ACTIVE);
        assert_eq!(all.iter().map(|trace| trace.spans.len()).max(), Some(MAX_SPANS));
        assert_eq!(all.iter().map(|trace| trace.left_out_spans).max(), Some(936));
    }

    #[test]
    fn one_of_so_many_is_chosen() {
        let tracer = Tracer::new(10);
        let alice = user("alice");
        let chosen = (0..2000).filter(|_| tracer.begin(&alice, 1) != 0).count();
        assert!((100..300).contains(&chosen), "{chosen}");
    }
}
