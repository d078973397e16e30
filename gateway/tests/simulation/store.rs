//! The disk: the store in memory, whose reads take their time and may fail, and whose appends wait
//! until the world decides them; and, where a test asks for it, one that breaks a promise.
//!
//! Several gateways may share it. Each has a [`Seat`], so that the death of one takes only what is
//! its own: nobody hears any more of its appends, which may still reach the log much later.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use skein_gateway::hooked::{Hooked, Hooks};
use skein_protocol::{ClientMsgId, ConversationId, Seq, UserId};
use skein_storage::memory::MemoryStore;
use skein_storage::{
    Append, AppendError, AppendSink, CursorPair, CursorUpdate, Cursors, Direction, MessageLog,
    Page, Record, Store, StoreError,
};

use crate::random::Random;

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Appends are acknowledged before they are durable.
    AckBeforeDurable,
    /// Of a batch only the first message is written, all are acknowledged.
    TornBatch,
    /// Some appends are acknowledged and not written.
    LostAppend,
    /// Earlier messages are not recognised by what looks for repeats.
    LostDeduplication,
    /// Cursors are further than what was delivered.
    CursorAhead,
    /// Some messages are left out of what is read.
    HoleInRead,
    /// Some payloads are read back altered.
    CorruptedRead,
    /// A conversation is not listed for one of its members.
    LostIndex,
    /// An append that comes too late takes the next numbers instead of failing.
    Unconditional,
}

impl Bug {
    /// Those that a single gateway brings to light.
    pub(crate) const ALL: [Bug; 8] = [
        Bug::AckBeforeDurable,
        Bug::TornBatch,
        Bug::LostAppend,
        Bug::LostDeduplication,
        Bug::CursorAhead,
        Bug::HoleInRead,
        Bug::CorruptedRead,
        Bug::LostIndex,
    ];

    /// Those that show when two gateways share a store.
    pub(crate) const OF_TWO: [Bug; 3] =
        [Bug::LostDeduplication, Bug::LostAppend, Bug::Unconditional];
}

pub(crate) struct Disk {
    /// What really is on disk; asked by the checks as well.
    pub(crate) memory: Arc<MemoryStore>,
    bug: Option<Bug>,
    trouble: Mutex<Trouble>,
    /// Appends on their way, in the order of submission.
    limbo: Mutex<VecDeque<Pending>>,
    /// Appends that came too late.
    pub(crate) conflicts: AtomicU64,
    /// Appends that were held back.
    pub(crate) held: AtomicU64,
    /// Appends that came after their gateway had gone.
    pub(crate) late: AtomicU64,
}

struct Trouble {
    random: Random,
    failing_reads: u64,
    /// So many percent of the appends are held back.
    held: u64,
}

/// An append on its way.
struct Pending {
    gateway: usize,
    append: Append,
    index: usize,
    /// `None`: whoever submitted it is gone, or was told already.
    done: Option<Arc<dyn AppendSink>>,
    /// Its outcome is long in coming.
    held: bool,
}

impl Disk {
    pub(crate) fn new(random: Random, bug: Option<Bug>) -> Arc<Self> {
        let trouble = Mutex::new(Trouble { random, failing_reads: 0, held: 0 });
        let (limbo, conflicts, held, late) = Default::default();
        Arc::new(Self { memory: Arc::default(), bug, trouble, limbo, conflicts, held, late })
    }

    /// The disk as one of the gateways has it.
    pub(crate) fn seat(self: &Arc<Self>, gateway: usize) -> Arc<dyn Store> {
        let hooks = Seat { disk: self.clone(), gateway };
        Arc::new(Hooked { hooks, store: self.memory.clone() })
    }

    /// So many percent of the reads fail from now on.
    pub(crate) fn fail_reads(&self, percent: u64) {
        self.trouble.lock().unwrap().failing_reads = percent;
    }

    /// So many percent of the appends are held back from now on. Zero lets all of them go.
    pub(crate) fn hold(&self, percent: u64) {
        self.trouble.lock().unwrap().held = percent;
        if percent == 0 {
            self.limbo.lock().unwrap().iter_mut().for_each(|pending| pending.held = false);
        }
    }

    /// Appends that can be decided.
    pub(crate) fn waiting(&self) -> usize {
        self.limbo.lock().unwrap().iter().filter(|pending| !pending.held).count()
    }

    /// Decides so many of the appends that are not held back, the oldest first, and tells whoever
    /// waits for them.
    pub(crate) fn commit(&self, count: usize) {
        for _ in 0..count {
            // A sink may well submit again: the lock is free by then.
            let next = {
                let mut limbo = self.limbo.lock().unwrap();
                let place = limbo.iter().position(|pending| !pending.held);
                place.and_then(|place| limbo.remove(place))
            };
            let Some(Pending { append, index, done, .. }) = next else { return };
            self.decide(append, index, done);
        }
    }

    fn decide(&self, mut append: Append, index: usize, done: Option<Arc<dyn AppendSink>>) {
        if self.bug == Some(Bug::Unconditional) && append.first <= self.head(append.conversation) {
            append.first = self.head(append.conversation) + 1;
            for (record, seq) in append.records.iter_mut().zip(append.first..) {
                record.seq = seq;
            }
        }
        if append.first <= self.head(append.conversation) {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
        } else if done.is_none() {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        match done {
            Some(done) => self.memory.submit(vec![append], Arc::new(At(index, done))),
            None => self.memory.submit(vec![append], Arc::new(Nobody)),
        }
    }

    /// `kill -9` of the only gateway, and of the machine with it: what waits is gone, except the
    /// oldest append if that `reaches` the disk.
    pub(crate) fn crash(&self, reaches: bool) {
        let mut limbo = std::mem::take(&mut *self.limbo.lock().unwrap());
        if reaches && let Some(Pending { append, .. }) = limbo.pop_front() {
            self.memory.stop_at_next_append("killed", true);
            self.memory.submit(vec![append], Arc::new(Nobody));
        }
        self.memory.crash();
    }

    /// `kill -9` of one gateway beside others. What it has on its way may be lost or not, and may
    /// be late.
    pub(crate) fn orphan(&self, gateway: usize) {
        let random = &mut self.trouble.lock().unwrap().random;
        let mut limbo = self.limbo.lock().unwrap();
        limbo.retain_mut(|pending| {
            if pending.gateway == gateway && pending.done.take().is_some() {
                return random.chance(70);
            }
            true
        });
    }

    /// What is durable.
    pub(crate) fn log(&self, id: ConversationId, from: Seq) -> Vec<Record> {
        let page = Page { records: usize::MAX, bytes: usize::MAX };
        let read = self.memory.read(id, from..=Seq::MAX, Direction::Forward, page);
        read.now_or_never().unwrap().unwrap()
    }

    pub(crate) fn head(&self, id: ConversationId) -> Seq {
        self.memory.extent(id).now_or_never().unwrap().unwrap().head
    }

    pub(crate) fn stored_cursors(&self, user: &UserId, id: ConversationId) -> CursorPair {
        self.memory.cursors(user.clone(), id).now_or_never().unwrap().unwrap()
    }

    /// How long a read takes before and after it looks, and whether it fails.
    fn draw(&self) -> (Pause, Pause, bool) {
        let mut trouble = self.trouble.lock().unwrap();
        let Trouble { random, failing_reads, .. } = &mut *trouble;
        let mut pause = || Pause(if random.chance(30) { random.below(3) } else { 0 });
        let (before, after) = (pause(), pause());
        (before, after, random.chance(*failing_reads))
    }

    /// The numbers that a bug hits.
    fn hits(seq: Seq) -> bool {
        seq % 4 == 3
    }

    fn altered(&self, records: Vec<Record>, page: Page) -> Vec<Record> {
        // A session reads small pages; what looks for repeats reads large ones.
        let for_repeats = page.records > 1024;
        let alter = |mut record: Record| {
            match self.bug {
                Some(Bug::HoleInRead) if Self::hits(record.seq) => return None,
                Some(Bug::CorruptedRead) if Self::hits(record.seq) => {
                    record.payload = bytes::Bytes::from_static(b"corrupted");
                }
                Some(Bug::LostDeduplication) if for_repeats => {
                    record.client_msg_id =
                        ClientMsgId::parse(&format!("other-{}", record.seq)).unwrap();
                }
                _ => {}
            }
            Some(record)
        };
        records.into_iter().filter_map(alter).collect()
    }
}

/// Pending so many times.
struct Pause(u64);

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Passes an outcome on under the place that its append had in the group.
struct At(usize, Arc<dyn AppendSink>);

impl AppendSink for At {
    fn appended(&self, outcomes: Vec<(usize, Result<(), AppendError>)>) {
        let outcomes = outcomes.into_iter().map(|(_, outcome)| (self.0, outcome));
        self.1.appended(outcomes.collect());
    }
}

/// Takes outcomes that were already reported.
struct Nobody;

impl AppendSink for Nobody {
    fn appended(&self, _: Vec<(usize, Result<(), AppendError>)>) {}
}

/// The disk as one of the gateways has it.
struct Seat {
    disk: Arc<Disk>,
    gateway: usize,
}

impl Seat {
    fn put(&self, group: Vec<Append>, done: Option<Arc<dyn AppendSink>>) {
        for (index, append) in group.into_iter().enumerate() {
            let held = {
                let Trouble { random, held, .. } = &mut *self.disk.trouble.lock().unwrap();
                random.chance(*held)
            };
            self.disk.held.fetch_add(held.into(), Ordering::Relaxed);
            let (gateway, done) = (self.gateway, done.clone());
            let pending = Pending { gateway, append, index, done, held };
            self.disk.limbo.lock().unwrap().push_back(pending);
        }
    }
}

impl Hooks for Seat {
    fn submit(&self, _: &Arc<dyn Store>, group: Vec<Append>, done: Arc<dyn AppendSink>) {
        let all_well = (0..group.len()).map(|place| (place, Ok(()))).collect();
        match self.disk.bug {
            Some(Bug::AckBeforeDurable) => {
                self.put(group, None);
                done.appended(all_well);
            }
            Some(Bug::TornBatch) => {
                let torn = group.into_iter().map(|append| Append {
                    records: append.records.into_iter().take(1).collect(),
                    ..append
                });
                self.put(torn.collect(), Some(done));
            }
            Some(Bug::LostAppend) if group.iter().any(|append| Disk::hits(append.first)) => {
                let kept = group.into_iter().filter(|append| !Disk::hits(append.first));
                self.put(kept.collect(), None);
                done.appended(all_well);
            }
            _ => self.put(group, Some(done)),
        }
    }

    fn around<'a, T: Send + 'a>(
        &'a self,
        request: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let (before, after, fails) = self.disk.draw();
        Box::pin(async move {
            before.await;
            let outcome = match fails {
                true => Err(StoreError::Unavailable("simulated".into())),
                false => request.await,
            };
            after.await;
            outcome
        })
    }

    fn records(&self, records: Vec<Record>, page: Page) -> Vec<Record> {
        self.disk.altered(records, page)
    }

    fn updates(&self, mut updates: Vec<CursorUpdate>) -> Vec<CursorUpdate> {
        if self.disk.bug == Some(Bug::CursorAhead) {
            updates.iter_mut().for_each(|update| update.to.delivered += 3);
        }
        updates
    }

    fn members(&self, mut members: Vec<UserId>) -> Vec<UserId> {
        if self.disk.bug == Some(Bug::LostIndex) && members.len() > 1 {
            members.pop();
        }
        members
    }
}
