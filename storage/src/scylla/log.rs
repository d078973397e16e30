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

use skein_protocol::ConversationId;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::core::Core;
use super::stats::add;
use crate::{Append, AppendError, AppendSink, StoreError};

/// Appends that wait, by conversation. A conversation is in it while its task runs.
#[derive(Default)]
pub(super) struct Queues {
    state: Mutex<State>,
    /// Told when the last task has ended.
    told: Notify,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    waiting: HashMap<ConversationId, VecDeque<Pending>>,
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

/// Queues a group and starts what can start.
pub(super) fn submit(
    core: &Arc<Core>,
    runtime: &Handle,
    group: Vec<Append>,
    sink: Arc<dyn AppendSink>,
) {
    let deadline = Instant::now() + core.options.wait;
    let mut starting = Vec::new();
    let mut refused = Vec::new();
    {
        let mut state = core.log.state();
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
                    let turns = Turns { core: core.clone(), conversation, is_over: false };
                    starting.push((turns, pending));
                }
            }
        }
    }
    // Sinks are called without the lock: they may submit.
    drop(refused);
    for (turns, first) in starting {
        runtime.spawn(turns.run(first));
    }
}

impl Queues {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, state: &mut State, of: ConversationId) -> Option<VecDeque<Pending>> {
        let rest = state.waiting.remove(&of);
        if state.waiting.is_empty() {
            self.told.notify_waiters();
        }
        rest
    }

    /// Accepts no more.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
    }

    /// Waits until everything that was submitted has its outcome, and what it left to be written
    /// down is written down.
    pub(super) async fn idle(&self) {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            // From here on a notification is not missed.
            told.as_mut().enable();
            if self.state().waiting.is_empty() {
                return;
            }
            told.await;
        }
    }
}

/// The turn of one conversation's appends.
struct Turns {
    core: Arc<Core>,
    conversation: ConversationId,
    /// Its queue is gone; if there is one of this name now it is another task's.
    is_over: bool,
}

impl Turns {
    async fn run(mut self, first: Pending) {
        let mut next = Some(first);
        while let Some(pending) = next {
            let Pending { append, ticket, deadline } = pending;
            // The store is gone: the ticket and those that wait tell so when they are dropped.
            let Some(outcome) = self.carry_out(append, deadline).await else { return };
            let hint = outcome.as_ref().map_or(None, |appended| appended.hint);
            ticket.report(outcome.map(drop));
            if let Some(head) = hint {
                self.core.write_hint(self.conversation, head).await;
            }
            next = self.next();
        }
    }

    /// `None` if the store was dropped meanwhile.
    async fn carry_out(
        &self,
        append: Append,
        deadline: Instant,
    ) -> Option<Result<super::commit::Appended, AppendError>> {
        let mut dropped = self.core.dropped.subscribe();
        let append = self.core.append(append, deadline);
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

    /// When the one that waits longest is told to come again. One that comes later has more time
    /// than the option's from now.
    fn next_deadline(&self) -> Instant {
        let state = self.core.log.state();
        let longest = state.waiting.get(&self.conversation).and_then(VecDeque::front);
        longest.map_or_else(|| Instant::now() + self.core.options.wait, |next| next.deadline)
    }

    /// Refuses what has waited for too long behind another append.
    fn expire(&self) {
        let now = Instant::now();
        let mut expired = Vec::new();
        {
            let mut state = self.core.log.state();
            let Some(queue) = state.waiting.get_mut(&self.conversation) else { return };
            while queue.front().is_some_and(|next| next.deadline <= now) {
                expired.extend(queue.pop_front());
            }
        }
        add(&self.core.counters.refused_for_place, expired.len() as u64);
        for pending in expired {
            let reason = "the append before it has no known outcome yet";
            pending.ticket.report(Err(StoreError::Unavailable(reason.into()).into()));
        }
    }

    /// The next append. When there is none, the task ends.
    fn next(&mut self) -> Option<Pending> {
        let mut state = self.core.log.state();
        let next = state.waiting.get_mut(&self.conversation).and_then(VecDeque::pop_front);
        if next.is_none() {
            self.is_over = true;
            self.core.log.remove(&mut state, self.conversation);
        }
        next
    }
}

/// However the task ends, nobody waits for it.
impl Drop for Turns {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let rest = self.core.log.remove(&mut self.core.log.state(), self.conversation);
        // Without the lock: tickets call their sinks.
        drop(rest);
    }
}
