//! A store that keeps everything in memory, for tests and simulations.
//!
//! It has no threads, no clock and no randomness: what happens is decided by the calls alone. The
//! futures it returns are ready at once; sinks are called by `submit` itself
//! ([`MemoryStore::new`]) or by [`commit_some`](MemoryStore::commit_some) and
//! [`commit_all`](MemoryStore::commit_all) ([`MemoryStore::manual`]). Unlike other backends it may
//! thus call a sink on the thread of the caller.
//!
//! What is durable survives [`crash`](MemoryStore::crash). A cursor becomes durable with the next
//! append that does, as late as the traits allow, so that a test meets the loss of one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, ready};
use skein_protocol::{ConversationId, Seq, UserId};

use crate::{
    Append, AppendError, AppendSink, ConversationIndex, CursorPair, CursorUpdate, Cursors,
    Direction, Extent, MessageLog, Page, Record, Store, StoreError,
};

/// A [`Store`] in memory.
pub struct MemoryStore {
    epoch: u64,
    manual: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    logs: BTreeMap<ConversationId, Vec<Record>>,
    /// Up to where retention has removed messages.
    expired: BTreeMap<ConversationId, Seq>,
    members: BTreeMap<ConversationId, Vec<UserId>>,
    index: BTreeSet<(UserId, ConversationId)>,
    durable_cursors: BTreeMap<(UserId, ConversationId), CursorPair>,
    /// What reads see; at or above the durable ones.
    cursors: BTreeMap<(UserId, ConversationId), CursorPair>,
    waiting: VecDeque<Waiting>,
    failing_appends: VecDeque<StoreError>,
    failing_reads: VecDeque<StoreError>,
    /// Appends that the next crash brings to light, see [`MemoryStore::stop_at_next_append`].
    after_crash: Vec<Append>,
    stop_at_next: Option<(String, bool)>,
    stopped: Option<String>,
    closed: bool,
}

/// An append that was submitted and not yet decided.
struct Waiting {
    append: Append,
    index: usize,
    done: Arc<dyn AppendSink>,
}

type Outcomes = Vec<(Arc<dyn AppendSink>, Vec<(usize, Result<(), AppendError>)>)>;

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store in which an append is durable before `submit` returns. Its epoch is 1.
    pub fn new() -> Self {
        Self::with(1, false)
    }

    /// An empty store in which appends wait until they are committed by hand. Its epoch is 1.
    pub fn manual() -> Self {
        Self::with(1, true)
    }

    /// An empty store with an epoch of the caller's choice.
    pub fn with(epoch: u64, manual: bool) -> Self {
        Self { epoch, manual, state: Mutex::default() }
    }

    /// Appends that wait to be committed.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Decides all that waits.
    pub fn commit_all(&self) {
        self.commit_some(usize::MAX);
    }

    /// Decides the `n` appends that have waited longest, fewer if there are fewer; then calls
    /// their sinks.
    pub fn commit_some(&self, n: usize) {
        let mut outcomes: Outcomes = Vec::new();
        {
            let mut state = self.lock();
            for _ in 0..n {
                let Some(Waiting { append, index, done }) = state.waiting.pop_front() else {
                    break;
                };
                let outcome = state.decide(append);
                match outcomes.last_mut() {
                    Some((sink, list)) if Arc::ptr_eq(sink, &done) => list.push((index, outcome)),
                    _ => outcomes.push((done, vec![(index, outcome)])),
                }
            }
        }
        // A sink may well submit again: the lock is free by now.
        for (sink, outcomes) in outcomes {
            sink.appended(outcomes);
        }
    }

    /// As if the process died and the store was opened anew: what is not durable is gone, sinks
    /// of waiting appends are never called, a stop or a close is over.
    pub fn crash(&self) {
        let mut state = self.lock();
        state.waiting.clear();
        state.cursors = state.durable_cursors.clone();
        for append in std::mem::take(&mut state.after_crash) {
            state.apply(append);
        }
        state.failing_appends.clear();
        state.failing_reads.clear();
        state.stop_at_next = None;
        state.stopped = None;
        state.closed = false;
    }

    /// The next `count` appends that are decided fail with `error` and leave nothing behind.
    /// [`StoreError::Stopped`] stops the store, for all further writes too.
    pub fn fail_next_appends(&self, count: usize, error: &StoreError) {
        self.lock().failing_appends.extend(std::iter::repeat_n(error.clone(), count));
    }

    /// The next `count` reads (of any kind) fail with `error`.
    pub fn fail_next_reads(&self, count: usize, error: &StoreError) {
        self.lock().failing_reads.extend(std::iter::repeat_n(error.clone(), count));
    }

    /// The store stops at the next append that is decided, as after a failed fsync. Whether that
    /// append is on disk after all, as `survives` says, shows after [`crash`](Self::crash).
    pub fn stop_at_next_append(&self, reason: &str, survives: bool) {
        self.lock().stop_at_next = Some((reason.into(), survives));
    }

    /// Retention removes the messages up to this number, as far as there are any.
    pub fn expire(&self, conversation: ConversationId, up_to: Seq) {
        let mut state = self.lock();
        let up_to = up_to.min(state.head(conversation));
        let expired = state.expired.entry(conversation).or_default();
        *expired = up_to.max(*expired);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<T: Send + 'static>(
        &self,
        read: impl FnOnce(&State) -> T,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let mut state = self.lock();
        let result = if state.closed {
            Err(closed())
        } else {
            match state.failing_reads.pop_front() {
                Some(error) => Err(error),
                None => Ok(read(&state)),
            }
        };
        Box::pin(ready(result))
    }

    fn write(&self, write: impl FnOnce(&mut State)) -> BoxFuture<'static, Result<(), StoreError>> {
        let mut state = self.lock();
        let result = state.writable().map(|()| write(&mut state));
        Box::pin(ready(result))
    }
}

impl State {
    fn writable(&self) -> Result<(), StoreError> {
        match &self.stopped {
            Some(reason) => Err(StoreError::Stopped(reason.clone())),
            None => Ok(()),
        }
    }

    fn decide(&mut self, append: Append) -> Result<(), AppendError> {
        self.writable()?;
        if let Some(error) = self.failing_appends.pop_front() {
            if let StoreError::Stopped(reason) = &error {
                self.stopped = Some(reason.clone());
            }
            return Err(error.into());
        }
        let head = self.head(append.conversation);
        if head.checked_add(1) != Some(append.first) {
            return Err(AppendError::Conflict { head });
        }
        if let Some((reason, survives)) = self.stop_at_next.take() {
            self.stopped = Some(reason.clone());
            if survives {
                self.after_crash.push(append);
            }
            return Err(StoreError::Stopped(reason).into());
        }
        self.apply(append);
        Ok(())
    }

    fn apply(&mut self, append: Append) {
        self.logs.entry(append.conversation).or_default().extend(append.records);
        self.durable_cursors = self.cursors.clone();
    }

    fn head(&self, conversation: ConversationId) -> Seq {
        self.logs.get(&conversation).map_or(0, |log| log.len() as Seq)
    }

    /// First number that can be read.
    fn first(&self, conversation: ConversationId) -> Seq {
        self.expired.get(&conversation).copied().unwrap_or(0) + 1
    }
}

fn closed() -> StoreError {
    StoreError::Stopped("it was closed".into())
}

impl MessageLog for MemoryStore {
    fn submit(&self, group: Vec<Append>, done: Arc<dyn AppendSink>) {
        debug_assert!(group.iter().all(Append::is_well_formed), "{group:?}");
        let waiting = group.into_iter().enumerate();
        let waiting = waiting.map(|(index, append)| Waiting { append, index, done: done.clone() });
        self.lock().waiting.extend(waiting);
        if !self.manual {
            self.commit_all();
        }
    }

    fn extent(&self, conversation: ConversationId) -> BoxFuture<'_, Result<Extent, StoreError>> {
        self.answer(|state| Extent {
            first: state.first(conversation),
            head: state.head(conversation),
        })
    }

    fn read(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<Seq>,
        direction: Direction,
        page: Page,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        self.answer(|state| {
            let log = state.logs.get(&conversation).map_or(&[][..], Vec::as_slice);
            // Number n stands at n - 1.
            let first = state.first(conversation).max(*range.start());
            let from = log.len().min(position(first.saturating_sub(1)));
            let to = log.len().min(position(*range.end())).max(from);
            match direction {
                Direction::Forward => take_page(log[from..to].iter(), page),
                Direction::Backward => take_page(log[from..to].iter().rev(), page),
            }
        })
    }
}

fn position(seq: Seq) -> usize {
    usize::try_from(seq).unwrap_or(usize::MAX)
}

fn take_page<'a>(records: impl Iterator<Item = &'a Record>, page: Page) -> Vec<Record> {
    let mut found: Vec<Record> = Vec::new();
    let mut bytes = 0;
    for record in records {
        bytes += record.payload.len();
        found.push(record.clone());
        if found.len() >= page.records || bytes >= page.bytes {
            break;
        }
    }
    found
}

impl Cursors for MemoryStore {
    fn advance(&self, updates: Vec<CursorUpdate>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(|state| {
            for CursorUpdate { user, conversation, to } in updates {
                if to == CursorPair::default() {
                    continue;
                }
                let pair = state.cursors.entry((user, conversation)).or_default();
                pair.delivered = pair.delivered.max(to.delivered);
                pair.read = pair.read.max(to.read);
            }
        })
    }

    fn cursors(
        &self,
        user: UserId,
        conversation: ConversationId,
    ) -> BoxFuture<'_, Result<CursorPair, StoreError>> {
        self.answer(|state| state.cursors.get(&(user, conversation)).copied().unwrap_or_default())
    }
}

impl ConversationIndex for MemoryStore {
    fn begin(
        &self,
        conversation: ConversationId,
        members: Vec<UserId>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(|state| {
            if state.members.contains_key(&conversation) {
                return;
            }
            state.index.extend(members.iter().map(|user| (user.clone(), conversation)));
            state.members.insert(conversation, members);
        })
    }

    fn members(
        &self,
        conversation: ConversationId,
    ) -> BoxFuture<'_, Result<Option<Vec<UserId>>, StoreError>> {
        self.answer(|state| state.members.get(&conversation).cloned())
    }

    fn conversations(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ConversationId>, StoreError>> {
        self.answer(|state| {
            let of_user = state.index.iter().filter(|(member, _)| *member == user);
            let ids = of_user.map(|(_, id)| *id);
            ids.filter(|id| after.is_none_or(|after| *id > after)).take(limit).collect()
        })
    }
}

impl Store for MemoryStore {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        // All that was submitted is finished first, as with every backend.
        self.commit_all();
        let mut state = self.lock();
        let result = if state.closed { Ok(()) } else { state.writable() };
        state.closed = true;
        state.stopped.get_or_insert_with(|| "it was closed".into());
        state.durable_cursors = state.cursors.clone();
        Box::pin(ready(result))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use bytes::Bytes;
    use futures_util::FutureExt;
    use skein_protocol::{ClientMsgId, DeviceId};

    use super::*;

    type Heard = Vec<(usize, Result<(), AppendError>)>;

    struct Tell(Mutex<Sender<Heard>>);

    impl AppendSink for Tell {
        fn appended(&self, outcomes: Heard) {
            self.0.lock().unwrap().send(outcomes).unwrap();
        }
    }

    fn conversation() -> ConversationId {
        ConversationId::parse(&[1; 16]).unwrap()
    }

    fn user() -> UserId {
        UserId::parse("alice").unwrap()
    }

    fn append(seq: Seq) -> Append {
        let record = Record {
            seq,
            sender: user(),
            device: DeviceId::parse("d").unwrap(),
            client_msg_id: ClientMsgId::parse(&format!("m{seq}")).unwrap(),
            time_ms: seq,
            content_type: String::new(),
            payload: Bytes::from_static(b"x"),
        };
        Append { conversation: conversation(), first: seq, records: vec![record] }
    }

    fn now<T>(future: BoxFuture<'_, T>) -> T {
        future.now_or_never().expect("futures of this store are ready")
    }

    fn head(store: &MemoryStore) -> Seq {
        now(store.extent(conversation())).unwrap().head
    }

    fn read_to(store: &MemoryStore, read: Seq) {
        let to = CursorPair { delivered: 0, read };
        let update = CursorUpdate { user: user(), conversation: conversation(), to };
        now(store.advance(vec![update])).unwrap();
    }

    fn cursor(store: &MemoryStore) -> Seq {
        now(store.cursors(user(), conversation())).unwrap().read
    }

    #[test]
    fn by_hand_nothing_is_durable_before_it_is_committed() {
        let store = MemoryStore::manual();
        let (tell, heard) = channel();
        let sink = Arc::new(Tell(Mutex::new(tell)));
        store.submit(vec![append(1), append(2), append(2)], sink.clone());
        assert_eq!((head(&store), store.waiting()), (0, 3));
        store.commit_some(1);
        assert_eq!(heard.try_recv(), Ok(vec![(0, Ok(()))]));
        assert_eq!(head(&store), 1);
        store.commit_all();
        let conflict = Err(AppendError::Conflict { head: 2 });
        assert_eq!(heard.try_recv(), Ok(vec![(1, Ok(())), (2, conflict)]));
        store.submit(vec![append(3)], sink);
        store.crash();
        store.commit_all();
        assert!(heard.try_recv().is_err(), "nobody is told about what a crash took");
        assert_eq!(head(&store), 2);
    }

    #[test]
    fn what_has_expired_is_passed_over_and_its_numbers_do_not_come_back() {
        let store = MemoryStore::new();
        let sink = Arc::new(Tell(Mutex::new(channel().0)));
        let (tell, _heard) = channel();
        *sink.0.lock().unwrap() = tell;
        store.submit(vec![append(1), append(2), append(3)], sink.clone());
        let page = Page { records: 9, bytes: 999 };
        let read = |direction| {
            let read = now(store.read(conversation(), 1..=Seq::MAX, direction, page)).unwrap();
            read.iter().map(|record| record.seq).collect::<Vec<_>>()
        };
        store.expire(conversation(), 2);
        store.expire(conversation(), 1);
        assert_eq!(now(store.extent(conversation())), Ok(Extent { first: 3, head: 3 }));
        assert_eq!((read(Direction::Forward), read(Direction::Backward)), (vec![3], vec![3]));
        store.expire(conversation(), 9);
        assert_eq!(now(store.extent(conversation())), Ok(Extent { first: 4, head: 3 }));
        assert_eq!(read(Direction::Forward), [0; 0]);
        store.submit(vec![append(4)], sink);
        assert_eq!(read(Direction::Forward), [4]);
    }

    #[test]
    fn a_cursor_is_lost_in_a_crash_unless_an_append_followed() {
        let store = MemoryStore::new();
        let sink = Arc::new(Tell(Mutex::new(channel().0)));
        read_to(&store, 1);
        assert_eq!(cursor(&store), 1);
        store.crash();
        assert_eq!(cursor(&store), 0);
        read_to(&store, 2);
        let (tell, _heard) = channel();
        *sink.0.lock().unwrap() = tell;
        store.submit(vec![append(1)], sink);
        store.crash();
        assert_eq!(cursor(&store), 2);
    }

    #[test]
    fn faults_do_what_they_say() {
        let store = MemoryStore::new();
        let (tell, heard) = channel();
        let sink = Arc::new(Tell(Mutex::new(tell)));
        let passing = StoreError::Unavailable("test".into());
        store.fail_next_appends(1, &passing);
        store.submit(vec![append(1)], sink.clone());
        assert_eq!(heard.try_recv(), Ok(vec![(0, Err(passing.clone().into()))]));
        store.submit(vec![append(1)], sink.clone());
        assert_eq!(heard.try_recv(), Ok(vec![(0, Ok(()))]));
        store.fail_next_reads(1, &passing);
        assert_eq!(now(store.extent(conversation())), Err(passing));
        for (survives, after) in [(false, 1), (true, 2)] {
            store.stop_at_next_append("disk", survives);
            store.submit(vec![append(2), append(2)], sink.clone());
            let stopped = || Err(StoreError::Stopped("disk".into()).into());
            assert_eq!(heard.try_recv(), Ok(vec![(0, stopped()), (1, stopped())]));
            assert_eq!(head(&store), 1, "nothing of it can be read before the crash");
            store.crash();
            assert_eq!(head(&store), after);
        }
    }
}
