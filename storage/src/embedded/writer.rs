//! The one thread that writes.
//!
//! It takes all that waits, up to a bound in bytes, checks each append against the head of its
//! log, writes everything as one batch with one fsync, and then answers everybody in the order in
//! which they came. While it writes, the next round gathers: rounds size themselves.
//!
//! When a write or an fsync fails, it is unknown what of the round is on disk. From then on
//! nothing is written any more and everybody hears [`StoreError::Stopped`]; reads go on, and they
//! show what was durable before.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use skein_protocol::{ConversationId, UserId};
use tokio::sync::oneshot;

use super::engine::Engine;
use super::heads::Heads;
use super::lock::Lock;
use super::reads::Reads;
use super::retired::Retired;
use super::round::Round;
use super::space::Space;
use super::stats::{Counters, add};
use super::watchdog::Pulse;
use crate::{Append, AppendSink, CursorUpdate, StoreError};

pub(super) type Reply = oneshot::Sender<Result<(), StoreError>>;

/// What others ask of the writer.
pub(super) enum Job {
    Append { group: Vec<Append>, done: Arc<dyn AppendSink> },
    Begin { conversation: ConversationId, members: Vec<UserId>, reply: Reply },
    Advance { updates: Vec<CursorUpdate>, reply: Reply },
    Close { reply: Reply },
}

/// How long the writer sleeps between two looks whether merging has caught up.
const STALL_POLL: Duration = Duration::from_millis(5);

/// The writer's own state.
pub(super) struct Writer {
    /// `None` once the store is closed.
    pub(super) open: Option<Open>,
    pub(super) heads: Heads,
    pub(super) space: Space,
    pub(super) commit_bytes: usize,
    pub(super) pulse: Arc<Pulse>,
    pub(super) counters: Arc<Counters>,
    pub(super) reads: Arc<Reads>,
    /// Why nothing is written any more.
    pub(super) stopped: Option<String>,
    #[cfg(test)]
    pub(super) faults: Arc<super::faults::Faults>,
}

/// What closing gives back.
pub(super) struct Open {
    pub(super) engine: Engine,
    pub(super) lock: Lock,
    pub(super) readers: Vec<JoinHandle<()>>,
    /// Ends the watchdog when it is dropped.
    pub(super) watchdog: (Sender<()>, JoinHandle<()>),
    pub(super) retired: Retired,
}

impl Writer {
    /// Works until nobody can send any more, then closes the store if it is still open.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut waiting = Vec::new();
            let mut bytes = 0;
            let mut closing = None;
            let mut next = Some(first);
            while let Some(job) = next.take() {
                if let Job::Close { reply } = job {
                    closing = Some(reply);
                    break;
                }
                bytes += size_of_job(&job);
                waiting.push(job);
                if bytes < self.commit_bytes {
                    next = jobs.try_recv().ok();
                }
            }
            self.serve(waiting, bytes);
            if let Some(reply) = closing {
                let _ = reply.send(self.close());
            }
        }
        if let Err(error) = self.close() {
            tracing::error!(%error, "closing the store failed");
        }
    }

    /// One round: all of it is answered when this returns.
    fn serve(&mut self, waiting: Vec<Job>, bytes: usize) {
        if waiting.is_empty() {
            return;
        }
        if let Err(error) = self.may_write(bytes as u64) {
            if matches!(error, StoreError::Unavailable(_)) {
                add(&self.counters.refused_for_space, waiting.len() as u64);
            }
            return waiting.into_iter().for_each(|job| refuse(job, &error));
        }
        let Some(open) = &self.open else { return };
        let engine = open.engine.clone();
        let mut round = Round::new(&engine, &mut self.heads);
        #[cfg(test)]
        {
            round.trusting = self.faults.has(super::faults::Bug::NoHeadCheck);
        }
        waiting.into_iter().for_each(|job| round.add(job));
        let mut staged = round.finish();
        #[cfg(test)]
        if self.faults.has(super::faults::Bug::AckBeforeWrite) {
            std::mem::take(&mut staged.answers).send();
        }
        if !staged.writes.is_empty()
            && let Err(reason) = self.commit(&engine, &mut staged)
        {
            let error = self.stop(reason);
            return staged.answers.fail(&error);
        }
        add(&self.counters.conflicts, staged.conflicts);
        for (conversation, head) in staged.heads {
            self.heads.put(conversation, head);
        }
        staged.answers.send();
    }

    /// Whether a commit can be tried now. Waits while merging is behind.
    fn may_write(&mut self, bytes: u64) -> Result<(), StoreError> {
        if let Some(reason) = &self.stopped {
            return Err(StoreError::Stopped(reason.clone()));
        }
        self.space.check(bytes, Instant::now())?;
        let Some(open) = &self.open else { return Err(closed()) };
        if open.engine.has_room() {
            return Ok(());
        }
        // Waiting here, not inside the commit: there nobody would notice when the thread that is
        // waited for has failed.
        add(&self.counters.stalls, 1);
        self.pulse.begin(Instant::now());
        let failed = loop {
            if let Err(error) = open.engine.check() {
                break Some(error);
            }
            if open.engine.has_room() {
                break None;
            }
            std::thread::sleep(STALL_POLL);
        };
        self.pulse.end();
        failed.map_or(Ok(()), |error| Err(self.stop(explain(&error))))
    }

    /// Writes what was staged; the error says why the store must stop.
    fn commit(&mut self, engine: &Engine, staged: &mut super::round::Staged) -> Result<(), String> {
        let began = Instant::now();
        let writes = std::mem::take(&mut staged.writes);
        let durable = staged.durable;
        self.pulse.begin(began);
        let result = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            let writes = self.faults.at_commit(engine, writes)?;
            engine.commit(writes, durable)
        }));
        self.pulse.end();
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(explain(&error)),
            Err(_) => return Err("the storage engine failed an assertion".into()),
        }
        if let Some(open) = &mut self.open {
            open.retired.look(engine.memory());
        }
        if durable {
            self.counters.committed(staged.rows, began.elapsed());
        }
        add(&self.counters.appends, staged.appends);
        add(&self.counters.rows, staged.rows);
        add(&self.counters.row_bytes, staged.row_bytes);
        Ok(())
    }

    fn stop(&mut self, reason: String) -> StoreError {
        tracing::error!(reason, "the store has stopped; it must be opened anew");
        self.stopped = Some(reason.clone());
        StoreError::Stopped(reason)
    }

    /// Makes all durable and lets everything go, so that the store can be opened again at once.
    /// Does nothing when that was done before.
    fn close(&mut self) -> Result<(), StoreError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let Open { engine, lock, readers, watchdog: (stop, watchdog), retired } = open;
        self.reads.close();
        for thread in readers {
            let _ = thread.join();
        }
        drop(stop);
        let _ = watchdog.join();
        let result = match &self.stopped {
            Some(reason) => Err(StoreError::Stopped(reason.clone())),
            None => engine.sync().map_err(|e| StoreError::Stopped(explain(&e))),
        };
        drop(engine);
        drop(retired);
        if result.is_ok() {
            lock.leave_in_order();
        }
        self.stopped.get_or_insert_with(|| "it was closed".into());
        result
    }
}

/// Bytes that a job holds in memory, about.
fn size_of_job(job: &Job) -> usize {
    /// Ids, keys and bookkeeping beside a payload.
    const OVERHEAD: usize = 256;
    match job {
        Job::Append { group, .. } => group
            .iter()
            .flat_map(|append| &append.records)
            .map(|record| record.payload.len() + OVERHEAD)
            .sum::<usize>()
            .max(OVERHEAD),
        Job::Begin { members, .. } => (1 + members.len()) * OVERHEAD,
        Job::Advance { updates, .. } => updates.len().max(1) * OVERHEAD,
        Job::Close { .. } => 0,
    }
}

/// Answers a job that was not looked at.
fn refuse(job: Job, error: &StoreError) {
    match job {
        Job::Append { group, done } => {
            let outcomes = (0..group.len()).map(|i| (i, Err(error.clone().into())));
            done.appended(outcomes.collect());
        }
        Job::Begin { reply, .. } | Job::Advance { reply, .. } | Job::Close { reply } => {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

fn closed() -> StoreError {
    StoreError::Stopped("it was closed".into())
}

/// The engine's error in an operator's words.
fn explain(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => {
            format!("writing failed: {e}")
        }
        fjall::Error::Poisoned => {
            "writing failed in the background, often for want of space".into()
        }
        other => format!("writing failed: {other}"),
    }
}
