//! The disk: the store in memory, whose reads take their time and may fail; and, where a test asks
//! for it, one that breaks a promise.

use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use skein_protocol::{ClientMsgId, ConversationId, Seq, UserId};
use skein_storage::memory::MemoryStore;
use skein_storage::{
    Append, AppendError, AppendSink, ConversationIndex, CursorPair, CursorUpdate, Cursors,
    Direction, Extent, MessageLog, Page, Record, Store, StoreError,
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
}

impl Bug {
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
}

pub(crate) struct Disk {
    /// What really is on disk; asked by the checks as well.
    pub(crate) memory: MemoryStore,
    bug: Option<Bug>,
    trouble: Mutex<Trouble>,
}

struct Trouble {
    random: Random,
    failing_reads: u64,
}

impl Disk {
    pub(crate) fn new(random: Random, bug: Option<Bug>) -> Arc<Self> {
        let trouble = Mutex::new(Trouble { random, failing_reads: 0 });
        Arc::new(Self { memory: MemoryStore::manual(), bug, trouble })
    }

    /// So many percent of the reads fail from now on.
    pub(crate) fn fail_reads(&self, percent: u64) {
        self.trouble.lock().unwrap().failing_reads = percent;
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
        let Trouble { random, failing_reads } = &mut *trouble;
        let mut pause = || Pause(if random.chance(30) { random.below(3) } else { 0 });
        let (before, after) = (pause(), pause());
        (before, after, random.chance(*failing_reads))
    }

    fn slowly<'a, T: Send + 'a>(
        &'a self,
        read: impl FnOnce(&'a MemoryStore) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let (before, after, fails) = self.draw();
        Box::pin(async move {
            before.await;
            let outcome = match fails {
                true => Err(StoreError::Unavailable("simulated".into())),
                false => read(&self.memory).await,
            };
            after.await;
            outcome
        })
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

/// Pending so many times. Whoever runs the futures asks again by itself.
struct Pause(u64);

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        Poll::Pending
    }
}

/// Takes outcomes that were already reported.
struct Nobody;

impl AppendSink for Nobody {
    fn appended(&self, _: Vec<(usize, Result<(), AppendError>)>) {}
}

impl MessageLog for Disk {
    fn submit(&self, group: Vec<Append>, done: Arc<dyn AppendSink>) {
        let all_well = (0..group.len()).map(|place| (place, Ok(()))).collect();
        match self.bug {
            Some(Bug::AckBeforeDurable) => {
                self.memory.submit(group, Arc::new(Nobody));
                done.appended(all_well);
            }
            Some(Bug::TornBatch) => {
                let torn = group.into_iter().map(|append| Append {
                    records: append.records.into_iter().take(1).collect(),
                    ..append
                });
                self.memory.submit(torn.collect(), done);
            }
            Some(Bug::LostAppend) if group.iter().any(|append| Self::hits(append.first)) => {
                let kept = group.into_iter().filter(|append| !Self::hits(append.first));
                self.memory.submit(kept.collect(), Arc::new(Nobody));
                done.appended(all_well);
            }
            _ => self.memory.submit(group, done),
        }
    }

    fn extent(&self, id: ConversationId) -> BoxFuture<'_, Result<Extent, StoreError>> {
        self.slowly(move |memory| memory.extent(id))
    }

    fn read(
        &self,
        id: ConversationId,
        range: RangeInclusive<Seq>,
        direction: Direction,
        page: Page,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        let read = self.slowly(move |memory| memory.read(id, range, direction, page));
        Box::pin(async move { Ok(self.altered(read.await?, page)) })
    }
}

impl Cursors for Disk {
    fn advance(&self, mut updates: Vec<CursorUpdate>) -> BoxFuture<'_, Result<(), StoreError>> {
        if self.bug == Some(Bug::CursorAhead) {
            updates.iter_mut().for_each(|update| update.to.delivered += 3);
        }
        self.memory.advance(updates)
    }

    fn cursors(
        &self,
        user: UserId,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<CursorPair, StoreError>> {
        self.slowly(move |memory| memory.cursors(user, id))
    }
}

impl ConversationIndex for Disk {
    fn begin(
        &self,
        id: ConversationId,
        mut members: Vec<UserId>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        if self.bug == Some(Bug::LostIndex) && members.len() > 1 {
            members.pop();
        }
        self.slowly(move |memory| memory.begin(id, members))
    }

    fn members(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<Option<Vec<UserId>>, StoreError>> {
        self.slowly(move |memory| memory.members(id))
    }

    fn conversations(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ConversationId>, StoreError>> {
        self.slowly(move |memory| memory.conversations(user, after, limit))
    }
}

impl Store for Disk {
    fn epoch(&self) -> u64 {
        self.memory.epoch()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.memory.close()
    }
}
