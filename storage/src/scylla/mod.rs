//! Messages in ScyllaDB, or any server that speaks CQL with lightweight transactions.
//!
//! ```text
//! submit --> log: a queue a conversation --> places --> commit: AppendMachine <-> batch --> sink
//! extent, read --> extent, pages: partitions one after the other, serial where heads are concerned
//! look, view --> view: the same plainly, and serially only if what came is not whole
//! advance, begin, ... --> registers, index
//! ```
//! - [`append`]: the append protocol, without I/O: the one place that knows when a message is in
//!   the log.
//! - [`layout`]: which partition holds which rows.
//! - [`schema`]: the tables, and how they are made.
//! - `options` what can be set, `connect` and `tls` the way to the cluster, `statements` all that
//!   is said to it, `errors` and `conditional` what its answers mean, `row` records as rows,
//!   `stats` and `trouble` what an operator sees.

pub mod append;
mod commit;
mod conditional;
mod connect;
mod core;
mod errors;
mod extent;
mod index;
pub mod layout;
mod log;
mod options;
mod pages;
mod places;
#[cfg(debug_assertions)]
mod planted;
mod registers;
mod row;
pub mod schema;
mod statements;
mod stats;
mod tls;
mod trouble;
mod view;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use futures_util::future::BoxFuture;
use skein_protocol::{ConversationId, Seq, UserId};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

pub use commit::MAX_PAYLOAD_BYTES;
pub use options::{
    ClientCertificate, ConnectError, Credentials, MAX_RETENTION, MIN_RETENTION, OpenError,
    ScyllaOptions, TlsOptions, is_keyspace_name,
};
#[cfg(debug_assertions)]
pub use planted::Planted;
pub use stats::{LATENCY_CLASSES, ROWS_CLASSES, ScyllaStats};

use crate::{
    Append, AppendSink, ConversationIndex, CursorPair, CursorUpdate, Cursors, Direction, Extent,
    MessageLog, MetricsVisitor, Page, Record, Store, StoreError, View,
};
use connect::Quorum;
use core::{Care, Core};
use places::Places;
use schema::SchemaError;
use statements::Statements;
use stats::{Counters, add};
use trouble::{Trouble, Watched};

/// A [`Store`] in a cluster. Many gateways may have the same one open.
///
/// Its work runs on the tokio runtime that it was opened on; its methods can be called, and their
/// futures polled, on any thread. Reads and writes begin when a method is called. A store that is
/// dropped ends what is under way; the sinks of appends hear that it has stopped.
pub struct ScyllaStore {
    core: Arc<Core>,
    log: log::Log<Core>,
    runtime: Handle,
    epoch: u64,
    /// No call is accepted any more.
    is_closed: AtomicBool,
}

impl ScyllaStore {
    /// Connects to the cluster, and sees that the keyspace is what this program and these options
    /// need. Must be called on a tokio runtime with time and I/O enabled.
    ///
    /// # Errors
    /// [`OpenError`] says what is in the way and what to do.
    pub async fn open(options: ScyllaOptions) -> Result<Self, OpenError> {
        let session = connect::connect(&options).await?;
        let quorum = Quorum::of(&options);
        let found = schema::look(&session, &options).await.map_err(of_schema)?;
        if let Some(problem) = found.problem(&options) {
            return Err(problem);
        }
        let Some(made) = found.made else {
            return Err(OpenError::Missing { keyspace: options.keyspace });
        };
        if options.retention.is_some() && !made.may_expire {
            schema::note_expiry(&session, quorum, &options.keyspace).await.map_err(of_schema)?;
        }
        let statements = Statements::prepare(&session, quorum, &options).await?;
        let core = Core {
            session,
            statements,
            quorum,
            layout: made.layout(),
            counters: Counters::default(),
            reading: Trouble::new(Watched::Reads),
            writing: Trouble::new(Watched::Writes),
            places: Places::new(options.in_flight),
            reads: Semaphore::new(options.reads),
            rereads: Arc::new(Semaphore::new(core::REREADS)),
            settled: view::Settled::default(),
            registers: Semaphore::new(options.register_writes),
            may_expire: AtomicBool::new(made.may_expire || options.retention.is_some()),
            options,
        };
        tracing::info!(
            keyspace = core.options.keyspace,
            server = %found.kind,
            data_centre = core.options.data_centre,
            "the cluster is connected"
        );
        let (core, runtime) = (Arc::new(core), Handle::current());
        let log = log::Log::new(core.clone(), runtime.clone(), core.options.wait);
        Ok(Self { core, log, runtime, epoch: made.epoch, is_closed: AtomicBool::new(false) })
    }

    /// What it has done since it was opened.
    pub fn stats(&self) -> ScyllaStats {
        self.core.counters.snapshot(self.core.places.in_use() as u64)
    }

    /// Starts work now; the future waits for what comes of it.
    fn start<T, F>(
        &self,
        work: impl FnOnce(Arc<Core>) -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        if self.is_closed.load(SeqCst) {
            return Box::pin(async { Err(log::stopped()) });
        }
        let core = self.core.clone();
        let task = self.runtime.spawn(async move { work(core).await });
        Box::pin(async move { task.await.unwrap_or_else(|_| Err(log::stopped())) })
    }

    /// The same for reads, of which only so many are under way at once.
    fn start_read<T, F>(
        &self,
        work: impl FnOnce(Arc<Core>) -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        self.start(move |core| async move {
            let counters = &core.counters;
            let read = async {
                let _place = core.place(&core.reads, "reads").await?;
                work(core.clone()).await
            };
            let read = read.await;
            core.reading.saw(&read);
            add(if read.is_ok() { &counters.reads } else { &counters.read_errors }, 1);
            read
        })
    }
}

fn of_schema(error: SchemaError) -> OpenError {
    match error {
        SchemaError::Connect(error) => error.into(),
        SchemaError::Request { what, source } => ConnectError::Request { what, source }.into(),
        other => ConnectError::Option(other.to_string()).into(),
    }
}

impl MessageLog for ScyllaStore {
    fn submit(&self, group: Vec<Append>, done: Arc<dyn AppendSink>) {
        debug_assert!(group.iter().all(Append::is_well_formed), "{group:?}");
        self.log.submit(group, &done);
    }

    fn extent(&self, conversation: ConversationId) -> BoxFuture<'_, Result<Extent, StoreError>> {
        self.start_read(move |core| async move { core.extent(conversation, Care::Settled).await })
    }

    fn read(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<Seq>,
        direction: Direction,
        page: Page,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        self.start_read(move |core| async move {
            core.page(conversation, range, direction, page, Care::Settled).await
        })
    }

    fn look(
        &self,
        conversation: ConversationId,
        known: Seq,
    ) -> BoxFuture<'_, Result<Extent, StoreError>> {
        self.start_read(move |core| async move { view::look(&*core, conversation, known).await })
    }

    fn view(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<Seq>,
        direction: Direction,
        page: Page,
        known: Seq,
    ) -> BoxFuture<'_, Result<View, StoreError>> {
        let asked = view::Asked { of: conversation, range, direction, page, known };
        self.start_read(move |core| async move { view::view(&*core, asked).await })
    }
}

impl Cursors for ScyllaStore {
    fn advance(&self, updates: Vec<CursorUpdate>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.start(move |core| async move { core.advance(updates).await })
    }

    fn cursors(
        &self,
        user: UserId,
        conversation: ConversationId,
    ) -> BoxFuture<'_, Result<CursorPair, StoreError>> {
        self.start_read(move |core| async move { core.cursors(user, conversation).await })
    }
}

impl ConversationIndex for ScyllaStore {
    fn begin(
        &self,
        conversation: ConversationId,
        members: Vec<UserId>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.start(move |core| async move { core.begin(conversation, members).await })
    }

    fn members(
        &self,
        conversation: ConversationId,
    ) -> BoxFuture<'_, Result<Option<Vec<UserId>>, StoreError>> {
        self.start_read(move |core| async move { core.members(conversation).await })
    }

    fn conversations(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ConversationId>, StoreError>> {
        self.start_read(move |core| async move { core.conversations(user, after, limit).await })
    }
}

impl Store for ScyllaStore {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.is_closed.store(true, SeqCst);
        self.log.close();
        Box::pin(async {
            self.log.idle().await;
            Ok(())
        })
    }

    fn visit_metrics(&self, visitor: &mut dyn MetricsVisitor) {
        self.stats().visit(visitor);
    }
}
