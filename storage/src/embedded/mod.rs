//! The store of a single gateway: one process, one folder, on fjall.
//!
//! ```text
//! submit, begin, advance --> channel --> writer: check heads, one batch, one fsync --> answers
//! extent, read, cursors, ... --> queue --> read threads: a snapshot of what is durable
//! ```
//! `options` what can be set, `recovery` and `mend` opening and making, `lock` one process only, `writer` and
//! `round` a commit, `engine` fjall itself, `retired` memory that fjall is done with, `keys` and `row` what is on disk, `heads` the cache of
//! heads, `reads` the read threads, `space` the reserve of free space, `watchdog` and `stats` what
//! an operator sees.

mod engine;
#[cfg(test)]
mod faults;
mod heads;
mod keys;
mod lock;
mod mend;
mod options;
mod reads;
mod recovery;
mod retired;
mod round;
mod row;
mod space;
mod stats;
#[cfg(test)]
mod tests;
mod watchdog;
mod writer;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use futures_util::future::BoxFuture;
use skein_protocol::{ConversationId, Seq, UserId};
use tokio::sync::oneshot;

pub use options::{EmbeddedOptions, OpenError};
pub use stats::{LATENCY_CLASSES, ROWS_CLASSES, StoreStats};

use crate::{
    Append, AppendSink, ConversationIndex, CursorPair, CursorUpdate, Cursors, Direction, Extent,
    MessageLog, MetricsVisitor, Page, Record, Store, StoreError,
};
use heads::Heads;
use reads::Reads;
use retired::Retired;
use space::Space;
use stats::Counters;
use watchdog::Pulse;
use writer::{Job, Open, Reply, Writer};

/// A [`Store`] in a folder.
///
/// Needs no async runtime: its threads are its own, its futures can be polled anywhere. Writes
/// are handed over when a method is called, not when its future is first polled, and take effect
/// in that order. Dropping the store closes it and waits until that is done.
pub struct EmbeddedStore {
    folder: PathBuf,
    epoch: u64,
    /// `None` only while it is dropped.
    jobs: Option<Sender<Job>>,
    reads: Arc<Reads>,
    counters: Arc<Counters>,
    writer: Option<JoinHandle<()>>,
}

impl EmbeddedStore {
    /// Opens the store in `folder`; makes the folder and the store if they are not there.
    ///
    /// After a crash this reads the journal, up to [`EmbeddedOptions::journal_bytes`].
    ///
    /// # Errors
    /// [`OpenError`] says what is in the way and what to do.
    pub fn open(folder: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Self, OpenError> {
        options.check()?;
        let folder = folder.as_ref();
        let failed = |what| {
            let path = folder.to_path_buf();
            move |source| OpenError::Path { what, path, source }
        };
        make_private(folder).map_err(failed("make the folder"))?;
        let lock = lock::Lock::take(folder)?;
        let (engine, epoch) = recovery::open(folder, &options, lock.after_crash)?;

        let counters = Arc::new(Counters::default());
        let threads = failed("start threads for");
        let (reads, readers) =
            Reads::start(&engine, options.read_threads, options.waiting_reads, counters.clone())
                .map_err(threads)?;
        let reads = Arc::new(reads);
        let pulse = Pulse::new();
        let (stop, stopped) = channel();
        let watched = pulse.clone();
        let watchdog = std::thread::Builder::new()
            .name("store-watchdog".into())
            .spawn(move || watchdog::watch(&watched, &stopped))
            .map_err(failed("start threads for"))?;
        let writer = Writer {
            open: Some(Open {
                engine,
                lock,
                readers,
                watchdog: (stop, watchdog),
                retired: Retired::start().map_err(failed("start threads for"))?,
            }),
            heads: Heads::new(options.cached_heads),
            space: Space::new(folder.into(), options.reserve_bytes, free_bytes(folder, &options)),
            commit_bytes: options.commit_bytes,
            pulse,
            counters: counters.clone(),
            reads: reads.clone(),
            stopped: None,
            #[cfg(test)]
            faults: options.faults.clone(),
        };
        let (jobs, waiting) = channel();
        let writer = std::thread::Builder::new()
            .name("store-write".into())
            .spawn(move || writer.run(&waiting))
            .map_err(failed("start threads for"))?;
        let writer = Some(writer);
        Ok(Self { folder: folder.into(), epoch, jobs: Some(jobs), reads, counters, writer })
    }

    /// Gives the store in `folder` a new epoch, and returns it. To be done after an older state was put
    /// back there: clients then throw their positions away, where otherwise one that had seen more
    /// than was put back would wait for ever.
    ///
    /// # Errors
    /// [`OpenError`]; also if there is no store, or somebody has it open.
    pub fn renew_epoch(
        folder: impl AsRef<Path>,
        options: &EmbeddedOptions,
    ) -> Result<u64, OpenError> {
        options.check()?;
        recovery::renew_epoch(folder.as_ref(), options)
    }

    /// Its folder, as given to [`EmbeddedStore::open`].
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it has done since it was opened.
    pub fn stats(&self) -> StoreStats {
        self.counters.snapshot()
    }

    /// Hands a job to the writer; gives it back if the writer is no more.
    fn send(&self, job: Job) -> Result<(), Job> {
        match &self.jobs {
            Some(jobs) => jobs.send(job).map_err(|unsent| unsent.0),
            None => Err(job),
        }
    }

    fn ask(&self, job: impl FnOnce(Reply) -> Job) -> BoxFuture<'static, Result<(), StoreError>> {
        let (reply, result) = oneshot::channel();
        // If the writer is gone, `reply` is dropped with the job.
        let _ = self.send(job(reply));
        Box::pin(async move { result.await.unwrap_or_else(|_| Err(writer_gone())) })
    }
}

#[cfg(not(test))]
fn free_bytes(folder: &Path, _: &EmbeddedOptions) -> space::FreeBytes {
    space::free_bytes_of(folder.into())
}

#[cfg(test)]
fn free_bytes(folder: &Path, options: &EmbeddedOptions) -> space::FreeBytes {
    options.faults.free_bytes_of(space::free_bytes_of(folder.into()))
}

fn writer_gone() -> StoreError {
    StoreError::Stopped("its writer has ended".into())
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        // The writer finishes what it was given and closes the store when nobody can send.
        self.jobs = None;
        let Some(writer) = self.writer.take() else { return };
        // A sink may own the store, and is then dropped on the writer's thread.
        if writer.thread().id() != std::thread::current().id() {
            let _ = writer.join();
        }
    }
}

impl MessageLog for EmbeddedStore {
    fn submit(&self, group: Vec<Append>, done: Arc<dyn AppendSink>) {
        debug_assert!(group.iter().all(Append::is_well_formed), "{group:?}");
        if let Err(Job::Append { group, done }) = self.send(Job::Append { group, done }) {
            let outcomes = (0..group.len()).map(|i| (i, Err(writer_gone().into())));
            done.appended(outcomes.collect());
        }
    }

    fn extent(&self, conversation: ConversationId) -> BoxFuture<'_, Result<Extent, StoreError>> {
        self.reads.run(move |engine| engine.extent(conversation))
    }

    fn read(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<Seq>,
        direction: Direction,
        page: Page,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        self.reads.run(move |engine| engine.read(conversation, range, direction, page))
    }
}

impl Cursors for EmbeddedStore {
    fn advance(&self, updates: Vec<CursorUpdate>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(|reply| Job::Advance { updates, reply })
    }

    fn cursors(
        &self,
        user: UserId,
        conversation: ConversationId,
    ) -> BoxFuture<'_, Result<CursorPair, StoreError>> {
        self.reads.run(move |engine| engine.cursors(&user, conversation))
    }
}

impl ConversationIndex for EmbeddedStore {
    fn begin(
        &self,
        conversation: ConversationId,
        members: Vec<UserId>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(|reply| Job::Begin { conversation, members, reply })
    }

    fn members(
        &self,
        conversation: ConversationId,
    ) -> BoxFuture<'_, Result<Option<Vec<UserId>>, StoreError>> {
        self.reads.run(move |engine| engine.members(conversation))
    }

    fn conversations(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ConversationId>, StoreError>> {
        self.reads.run(move |engine| engine.conversations(&user, after, limit))
    }
}

impl Store for EmbeddedStore {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(|reply| Job::Close { reply })
    }

    fn visit_metrics(&self, visitor: &mut dyn MetricsVisitor) {
        self.stats().visit(visitor);
    }
}

/// Makes the folder, and those above it, for this user alone: it will hold what people wrote.
fn make_private(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}
