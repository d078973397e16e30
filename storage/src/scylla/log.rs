//! Which append goes next.
//!
//! ```text
//! submit --> one queue a conversation --> its task: a place, the machine, the outcome --> sink
//! ```
//! A conversation has a task while it has appends, and the task carries them out one after the
//! other. What waits behind another append, or for a place, waits no longer than the option says;
//! the caller bounds how much it submits.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skein_protocol::ConversationId;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use crate::{Append, AppendError, AppendSink, StoreError};

/// How often it is looked at least whether somebody has waited for too long.
const SHORTEST: Duration = Duration::from_millis(10);

/// Who carries an append out.
pub(super) trait Writer: Send + Sync + 'static {
    /// What an append may leave to be done once its outcome was reported.
    type Rest: Send + 'static;

    /// Carries one out; it gives up when it has no place before `deadline`. Its future is dropped
    /// when the store is.
    fn append(
        &self,
        append: Append,
        deadline: Instant,
    ) -> impl Future<Output = Result<Option<Self::Rest>, AppendError>> + Send;

    /// Does what it left, beside the appends that follow.
    fn tidy(
        &self,
        conversation: ConversationId,
        rest: Self::Rest,
    ) -> impl Future<Output = ()> + Send;

    /// So many were refused because they had waited for too long behind another one.
    fn refused(&self, appends: usize);
}

/// All appends that have no outcome yet.
pub(super) struct Log<W> {
    shared: Arc<Shared<W>>,
    /// Where the tasks run.
    runtime: Handle,
    /// Longest time to wait, see [`ScyllaOptions::wait`](super::ScyllaOptions::wait).
    wait: Duration,
}

struct Shared<W> {
    writer: Arc<W>,
    state: Mutex<State>,
    /// Told when the last task has ended, of whatever kind.
    told: Notify,
    /// Becomes true when the store is dropped.
    dropped: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    /// What waits, by conversation. A conversation is in it while its task runs.
    waiting: HashMap<ConversationId, VecDeque<Pending>>,
    /// Tasks that do what appends have left.
    tidying: usize,
}

impl State {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.tidying == 0
    }
}

struct Pending {
    append: Append,
    ticket: Ticket,
    /// When it is told to come again later, unless it is under way.
    deadline: Instant,
}

/// The promise to report an outcome once: a ticket that is dropped reports that the store
/// stopped.
struct Ticket {
    sink: Option<Arc<dyn AppendSink>>,
    index: usize,
}

impl Ticket {
    fn report(mut self, outcome: Result<(), AppendError>) {
        if let Some(sink) = self.sink.take() {
            sink.appended(vec![(self.index, outcome)]);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.appended(vec![(self.index, Err(stopped().into()))]);
        }
    }
}

pub(super) fn stopped() -> StoreError {
    StoreError::Stopped("it was closed".into())
}

impl<W: Writer> Log<W> {
    pub(super) fn new(writer: Arc<W>, runtime: Handle, wait: Duration) -> Self {
        let shared = Shared {
            writer,
            state: Mutex::default(),
            told: Notify::new(),
            dropped: watch::Sender::new(false),
        };
        Self { shared: Arc::new(shared), runtime, wait }
    }

    /// Queues a group and starts what can start.
    pub(super) fn submit(&self, group: Vec<Append>, sink: &Arc<dyn AppendSink>) {
        let deadline = Instant::now() + self.wait;
        let mut starting = Vec::new();
        let mut refused = Vec::new();
        {
            let mut state = self.shared.state();
            for (index, append) in group.into_iter().enumerate() {
                let conversation = append.conversation;
                let ticket = Ticket { sink: Some(sink.clone()), index };
                let pending = Pending { append, ticket, deadline };
                if state.is_closed {
                    refused.push(pending);
                    continue;
                }
                match state.waiting.entry(conversation) {
                    Entry::Occupied(mut queue) => queue.get_mut().push_back(pending),
                    Entry::Vacant(entry) => {
                        entry.insert(VecDeque::new());
                        let turns = Turns {
                            shared: self.shared.clone(),
                            runtime: self.runtime.clone(),
                            wait: self.wait,
                            conversation,
                            is_over: false,
                        };
                        starting.push((turns, pending));
                    }
                }
            }
        }
        // Sinks are called without the lock: they may submit.
        drop(refused);
        for (turns, first) in starting {
            self.runtime.spawn(turns.run(first));
        }
    }

    /// Accepts no more.
    pub(super) fn close(&self) {
        self.shared.state().is_closed = true;
    }

    /// Waits until everything that was submitted has its outcome, and what it left to be done is
    /// done.
    pub(super) async fn idle(&self) {
        loop {
            let told = self.shared.told.notified();
            tokio::pin!(told);
            // From here on a notification is not missed.
            told.as_mut().enable();
            if self.shared.state().is_idle() {
                return;
            }
            told.await;
        }
    }
}

impl<W> Drop for Log<W> {
    fn drop(&mut self) {
        self.shared.state().is_closed = true;
        self.shared.dropped.send_replace(true);
    }
}

impl<W> Shared<W> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_if_idle(&self, state: &State) {
        if state.is_idle() {
            self.told.notify_waiters();
        }
    }

    fn remove(&self, state: &mut State, of: ConversationId) -> Option<VecDeque<Pending>> {
        let rest = state.waiting.remove(&of);
        self.tell_if_idle(state);
        rest
    }
}

/// The turns of one conversation's appends.
struct Turns<W> {
    shared: Arc<Shared<W>>,
    runtime: Handle,
    wait: Duration,
    conversation: ConversationId,
    /// Its queue is gone; if there is one of this name now it is another task's.
    is_over: bool,
}

impl<W: Writer> Turns<W> {
    async fn run(mut self, first: Pending) {
        let mut next = Some(first);
        while let Some(Pending { append, ticket, deadline }) = next {
            // The store is gone: the ticket, and those that wait, tell so when they are dropped.
            let Some(outcome) = self.carry_out(append, deadline).await else { return };
            match outcome {
                Ok(rest) => {
                    ticket.report(Ok(()));
                    if let Some(rest) = rest {
                        self.tidy(rest);
                    }
                }
                Err(error) => ticket.report(Err(error)),
            }
            next = self.next();
        }
    }

    /// Nobody waits for it but [`Log::idle`].
    fn tidy(&self, rest: W::Rest) {
        self.shared.state().tidying += 1;
        let tidying = Tidying(self.shared.clone());
        let conversation = self.conversation;
        self.runtime.spawn(async move { tidying.0.writer.tidy(conversation, rest).await });
    }

    /// `None` if the store was dropped meanwhile.
    async fn carry_out(
        &self,
        append: Append,
        deadline: Instant,
    ) -> Option<Result<Option<W::Rest>, AppendError>> {
        let mut dropped = self.shared.dropped.subscribe();
        let append = self.shared.writer.append(append, deadline);
        tokio::pin!(append);
        loop {
            tokio::select! {
                biased;
                outcome = &mut append => return Some(outcome),
                _ = dropped.wait_for(|dropped| *dropped) => return None,
                () = sleep_until(self.next_deadline()) => self.expire(),
            }
        }
    }

    /// When the one that waits longest is told to come again. While nobody waits: the soonest that
    /// one who comes now could be, and not at once if nobody is to wait at all.
    fn next_deadline(&self) -> Instant {
        let state = self.shared.state();
        let longest = state.waiting.get(&self.conversation).and_then(VecDeque::front);
        longest.map_or_else(|| Instant::now() + self.wait.max(SHORTEST), |next| next.deadline)
    }

    /// Refuses what has waited for too long behind another append.
    fn expire(&self) {
        let now = Instant::now();
        let mut expired = Vec::new();
        {
            let mut state = self.shared.state();
            let Some(queue) = state.waiting.get_mut(&self.conversation) else { return };
            while queue.front().is_some_and(|next| next.deadline <= now) {
                expired.extend(queue.pop_front());
            }
        }
        self.shared.writer.refused(expired.len());
        for pending in expired {
            let reason = "the append before it has no known outcome yet";
            pending.ticket.report(Err(StoreError::Unavailable(reason.into()).into()));
        }
    }

    /// The next append. When there is none, the task ends.
    fn next(&mut self) -> Option<Pending> {
        let mut state = self.shared.state();
        let next = state.waiting.get_mut(&self.conversation).and_then(VecDeque::pop_front);
        if next.is_none() {
            self.is_over = true;
            self.shared.remove(&mut state, self.conversation);
        }
        next
    }
}

/// However the task ends, nobody waits for it.
impl<W> Drop for Turns<W> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let rest = self.shared.remove(&mut self.shared.state(), self.conversation);
        // Without the lock: tickets call their sinks.
        drop(rest);
    }
}

/// A task that does what an append has left.
struct Tidying<W>(Arc<Shared<W>>);

impl<W> Drop for Tidying<W> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.tidying -= 1;
        self.0.tell_if_idle(&state);
    }
}

#[cfg(test)]
mod tests;
