//! The durable log and its side tables.
//!
//! Three traits, and what each promises. The gateway sees nothing else of a store; every backend
//! passes the suite in [`conformance`].
//!
//! - [`MessageLog`]: each conversation's messages, numbered from 1 without a gap.
//! - [`Cursors`]: per user and conversation the highest delivered and read number.
//! - [`ConversationIndex`]: which conversations a user is in, and who is in a conversation.
//!
//! Backends: [`embedded`] (fjall, one process, one folder), [`mod@scylla`] (a cluster, for those who
//! outgrow one machine) and [`memory`] (nothing kept, for tests and simulations).

pub mod conformance;
pub mod embedded;
pub mod memory;
mod metrics;
pub mod scylla;

pub use metrics::MetricsVisitor;

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use skein_protocol::{ClientMsgId, ConversationId, DeviceId, Seq, UserId};

/// Most records in one [`Append`]. It bounds the time for which a batch holds others up, and by how
/// much a partition of a clustered store may be overfull.
pub const MAX_APPEND_RECORDS: usize = 512;

/// All that a gateway needs.
pub trait Store: MessageLog + Cursors + ConversationIndex {
    /// Made at random when the store was created. A client that meets another epoch throws its
    /// cursors away: the log was replaced, not continued.
    fn epoch(&self) -> u64;

    /// Finishes what was submitted and releases the store. Calls after it fail with
    /// [`StoreError::Stopped`].
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Shows an exporter what the store has done since it was opened, in its own terms. A store that
    /// counts nothing shows nothing.
    fn visit_metrics(&self, visitor: &mut dyn MetricsVisitor) {
        let _ = visitor;
    }
}

/// Each conversation's messages, in order.
pub trait MessageLog: Send + Sync + 'static {
    /// Hands over a group of appends and returns at once; each must be
    /// [well formed](Append::is_well_formed). `done` is called for every append
    /// exactly once, in as many pieces as suits the backend, from a thread of its own; it does
    /// not block.
    ///
    /// Promises for each [`Append`]:
    /// - all of its records become durable at `first`, `first + 1`, ..., or none of them;
    /// - `Ok` is reported only once they would survive `kill -9` and power loss;
    /// - if the log's head is not `first - 1` nothing is written and the outcome is
    ///   [`AppendError::Conflict`];
    /// - appends of one conversation take effect in the order of submission.
    ///
    /// The caller bounds how much it has submitted and not heard of; the backend adds no bound.
    fn submit(&self, group: Vec<Append>, done: Arc<dyn AppendSink>);

    /// First and last sequence number that can be read; the empty log is `first: 1, head: 0`.
    /// What it tells is settled: a [`read`](Self::read) after it has every record up to the head.
    fn extent(&self, conversation: ConversationId) -> BoxFuture<'_, Result<Extent, StoreError>>;

    /// Records inside `range`, in ascending or descending order, as many as fit into `page`; at
    /// least one if there is any. Numbers outside the extent are passed over.
    ///
    /// Whoever asks for records past a head that [`extent`](Self::extent) has told may be given
    /// fewer than there are.
    fn read(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<Seq>,
        direction: Direction,
        page: Page,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>>;

    /// First and last number for those who only look, and number and decide nothing by it. Where an
    /// [`extent`](Self::extent) is dear this is cheap, and may leave out messages at the end that
    /// were acknowledged to nobody yet.
    ///
    /// `known` is a number that the log is said to reach (0: none): if it does, no less is told.
    fn look(
        &self,
        conversation: ConversationId,
        known: Seq,
    ) -> BoxFuture<'_, Result<Extent, StoreError>> {
        let _ = known;
        self.extent(conversation)
    }

    /// What a [`look`](Self::look) tells, and with it a page of `range` as [`read`](Self::read)
    /// brings it. Inside the extent nothing is left out but what retention has removed meanwhile.
    fn view(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<Seq>,
        direction: Direction,
        page: Page,
        known: Seq,
    ) -> BoxFuture<'_, Result<View, StoreError>> {
        Box::pin(async move {
            let extent = self.look(conversation, known).await?;
            let range = extent.clip(&range);
            let records = match range.is_empty() {
                true => Vec::new(),
                false => self.read(conversation, range, direction, page).await?,
            };
            Ok(View { extent, records })
        })
    }
}

/// Per user and conversation two registers whose highest value wins.
pub trait Cursors: Send + Sync + 'static {
    /// Raises registers; a lower value than the stored one changes nothing. Need not be durable
    /// when it resolves: a cursor that is lost in a crash is raised again by the next
    /// acknowledgement.
    fn advance(&self, updates: Vec<CursorUpdate>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Both registers; zero where nothing was stored.
    fn cursors(
        &self,
        user: UserId,
        conversation: ConversationId,
    ) -> BoxFuture<'_, Result<CursorPair, StoreError>>;
}

/// Who talks where.
pub trait ConversationIndex: Send + Sync + 'static {
    /// Records that a conversation exists and lists it for each member. Durable when it
    /// resolves; repeating it changes nothing. Called before the first append, so that an
    /// acknowledged message can always be found from its recipient's index.
    fn begin(
        &self,
        conversation: ConversationId,
        members: Vec<UserId>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Its members, or `None` if it never began.
    fn members(
        &self,
        conversation: ConversationId,
    ) -> BoxFuture<'_, Result<Option<Vec<UserId>>, StoreError>>;

    /// The user's conversations in order of their id, after `after`, at most `limit`.
    fn conversations(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ConversationId>, StoreError>>;
}

/// Receives the outcomes of appends.
pub trait AppendSink: Send + Sync + 'static {
    /// Each outcome with the index of its append in the submitted group.
    fn appended(&self, outcomes: Vec<(usize, Result<(), AppendError>)>);
}

/// Some records for the end of one conversation's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Whose log.
    pub conversation: ConversationId,
    /// Number of the first record: the head plus one.
    pub first: Seq,
    /// The records; their `seq` are `first`, `first + 1`, ... Never empty, at most
    /// [`MAX_APPEND_RECORDS`].
    pub records: Vec<Record>,
}

impl Append {
    /// Whether there are records, not too many, and they carry the numbers that follow from `first`.
    pub fn is_well_formed(&self) -> bool {
        let numbers = self.records.iter().map(|record| record.seq);
        let is_bounded = (1..=MAX_APPEND_RECORDS).contains(&self.records.len());
        is_bounded && numbers.zip(self.first..).all(|(seq, expected)| seq == expected)
    }
}

/// One message as it is stored: one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position in the conversation.
    pub seq: Seq,
    /// Who wrote it.
    pub sender: UserId,
    /// On which device; with the sender and `client_msg_id` the key of deduplication.
    pub device: DeviceId,
    /// The client's name for it.
    pub client_msg_id: ClientMsgId,
    /// Unix time in milliseconds at which it got its number.
    pub time_ms: u64,
    /// MIME type of the payload; empty for plain text.
    pub content_type: String,
    /// What was written.
    pub payload: Bytes,
}

/// What of a log can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First number that retention has left; 1 unless something was removed.
    pub first: Seq,
    /// Last number; `first - 1` when nothing is left.
    pub head: Seq,
}

impl Extent {
    /// The part of a range that can be read; it may be empty.
    pub fn clip(&self, range: &RangeInclusive<Seq>) -> RangeInclusive<Seq> {
        self.first.max(*range.start())..=self.head.min(*range.end())
    }
}

/// A log as it is shown to somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// What of it can be read.
    pub extent: Extent,
    /// The page that was asked for.
    pub records: Vec<Record>,
}

/// In which order to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the lowest number up.
    Forward,
    /// From the highest number down.
    Backward,
}

/// How much one read may return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// At most this many records.
    pub records: usize,
    /// Stop once payloads of this many bytes are gathered.
    pub bytes: usize,
}

impl Page {
    /// Whether so many records with payloads of so many bytes are all that it takes. At least one
    /// it always takes.
    pub fn is_filled(&self, records: usize, bytes: usize) -> bool {
        records > 0 && (records >= self.records || bytes >= self.bytes)
    }
}

/// Raises one register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorUpdate {
    /// Whose cursor.
    pub user: UserId,
    /// In which conversation.
    pub conversation: ConversationId,
    /// Both registers; zero leaves one as it is.
    pub to: CursorPair,
}

/// How far a user has come in a conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CursorPair {
    /// Every message up to here has arrived on some device of the user.
    pub delivered: Seq,
    /// The user has read up to here.
    pub read: Seq,
}

/// Why an append was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The head is another than the caller thought. Nothing was written: read the extent and
    /// number again.
    #[error("the head of the log is {head}")]
    Conflict {
        /// The log's head.
        head: Seq,
    },
    /// The store refused. After [`StoreError::Unavailable`] nothing of it is in the log, now or
    /// later. After [`StoreError::Stopped`] that is known only once the store is opened anew. In a
    /// store that belongs to one process nothing of it can be read until then, and nothing else can
    /// take its numbers. In a cluster that others serve as well it may be carried out at any time,
    /// until something else has taken its numbers.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store does not serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Passing trouble; the same call may succeed later.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// A write or an fsync failed, or the store was closed: no write is accepted until it is
    /// opened anew. Reads may still work.
    #[error("the store has stopped: {0}")]
    Stopped(String),
    /// What was read is not what can have been written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}
