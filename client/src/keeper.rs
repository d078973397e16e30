//! The thread that owns outbox and positions, so that an fsync never holds up the connection.
//!
//! Whatever has come together while it wrote goes into the next write: many messages, one fsync.

use std::collections::BTreeMap;
use std::io;
use std::thread::JoinHandle;

use skein_protocol::client::Restored;
use skein_protocol::{ClientMsgId, ConversationId, Seq};
use tokio::sync::mpsc;

use crate::outbox::{Outbox, Waiting};
use crate::positions::Positions;

/// Jobs that wait for the disk. When it is full the driver keeps its jobs and takes no commands.
const MAX_JOBS: usize = 256;

/// Something to remember or to forget.
#[derive(Debug)]
pub(crate) enum Job {
    Add(Waiting),
    Remove(ClientMsgId),
    Reset(u64),
    Position(ConversationId, Seq),
}

/// What became of added messages.
#[derive(Debug)]
pub(crate) enum Kept {
    /// These are as durable as the outbox promises.
    Added(Vec<Waiting>),
    /// These are not.
    Failed(Vec<ClientMsgId>, String),
    /// Something else could not be written.
    Trouble(String),
}

/// The driver's end.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Taken at the end, which stops the thread once it has done what waits.
    pub(crate) jobs: Option<mpsc::Sender<Job>>,
    pub(crate) kept: mpsc::UnboundedReceiver<Kept>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Reads what was kept and starts the thread. Blocks for as long as reading takes.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn start(
        mut outbox: Box<dyn Outbox>,
        mut positions: Box<dyn Positions>,
    ) -> io::Result<(Self, Vec<Waiting>, Restored)> {
        let waiting = outbox.load()?;
        let restored = positions.load()?;
        let (jobs, job_queue) = mpsc::channel(MAX_JOBS);
        // Bounded by the jobs: at most one answer for each, and whoever hands jobs over takes
        // the answers that wait first.
        let (answers, kept) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("skein-keeper".into())
            .spawn(move || run(outbox, positions, job_queue, &answers))?;
        Ok((Self { jobs: Some(jobs), kept, thread: Some(thread) }, waiting, restored))
    }

    /// Has the thread finish what waits, and waits for it.
    pub(crate) async fn stop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // The answers are of no use any longer; the channel closes when the thread ends.
            while self.kept.recv().await.is_some() {}
            if thread.join().is_err() {
                tracing::error!("the keeper has panicked");
            }
        }
    }
}

fn run(
    mut outbox: Box<dyn Outbox>,
    mut positions: Box<dyn Positions>,
    mut jobs: mpsc::Receiver<Job>,
    answers: &mpsc::UnboundedSender<Kept>,
) {
    let mut batch = Vec::new();
    loop {
        batch.clear();
        if blocking_recv_many(&mut jobs, &mut batch) == 0 {
            return;
        }
        for answer in carry_out(outbox.as_mut(), positions.as_mut(), batch.drain(..)) {
            // Nobody listens while it stops; the work goes on to its end.
            let _ = answers.send(answer);
        }
    }
}

fn blocking_recv_many(jobs: &mut mpsc::Receiver<Job>, batch: &mut Vec<Job>) -> usize {
    jobs.blocking_recv_many(batch, MAX_JOBS)
}

fn carry_out(
    outbox: &mut dyn Outbox,
    positions: &mut dyn Positions,
    batch: impl Iterator<Item = Job>,
) -> Vec<Kept> {
    let mut answers = Vec::new();
    let mut added = Vec::new();
    let mut removed = Vec::new();
    let mut moved = BTreeMap::new();
    for job in batch {
        match job {
            Job::Add(message) => added.push(message),
            Job::Remove(id) => removed.push(id),
            Job::Position(conversation, seq) => drop(moved.insert(conversation, seq)),
            Job::Reset(epoch) => {
                moved.clear();
                if let Err(error) = positions.reset(epoch) {
                    answers.push(Kept::Trouble(error.to_string()));
                }
            }
        }
    }
    // Removed first: an id that is added in the same batch was removed before, if at all, because
    // a message is settled only after it was added.
    if !removed.is_empty()
        && let Err(error) = outbox.remove(&removed)
    {
        answers.push(Kept::Trouble(error.to_string()));
    }
    if !added.is_empty() {
        answers.push(match outbox.add(&added) {
            Ok(()) => Kept::Added(added),
            Err(error) => {
                let ids = added.into_iter().map(|message| message.id).collect();
                Kept::Failed(ids, error.to_string())
            }
        });
    }
    let moved: Vec<_> = moved.into_iter().collect();
    if !moved.is_empty()
        && let Err(error) = positions.advance(&moved)
    {
        answers.push(Kept::Trouble(error.to_string()));
    }
    answers
}
