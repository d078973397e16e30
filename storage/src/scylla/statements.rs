//! Every statement that the store sends, prepared once.

use std::sync::Arc;

use scylla::client::session::Session;
use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;

use super::connect::Quorum;
use super::errors;
use super::options::{ConnectError, ScyllaOptions};

/// Most rows that one page of an answer carries.
const PAGE_ROWS: i32 = 5_000;

/// The statements. Those that read, and registers, are marked as repeatable, and the driver
/// repeats them on another node; a conditional write it sends once.
pub(super) struct Statements {
    /// Heads: the condition that opens a partition, and the one that goes on in it.
    pub(super) open_partition: PreparedStatement,
    pub(super) raise_head: PreparedStatement,
    #[cfg(debug_assertions)]
    pub(super) overwrite_head: PreparedStatement,
    pub(super) insert_message: PreparedStatement,

    /// The head of a partition and its first row, with serial consistency.
    pub(super) first_serial: PreparedStatement,
    /// The same, and its last row.
    pub(super) first: PreparedStatement,
    pub(super) last: PreparedStatement,
    /// The first row from a number on.
    pub(super) next: PreparedStatement,
    /// Rows between two numbers, each with the partition's head.
    pub(super) ascending: PreparedStatement,
    pub(super) descending: PreparedStatement,
    pub(super) ascending_serial: PreparedStatement,
    pub(super) descending_serial: PreparedStatement,
    /// All of them without it, with serial consistency.
    pub(super) rows_serial: PreparedStatement,

    pub(super) hint: PreparedStatement,
    pub(super) set_hint: PreparedStatement,

    pub(super) cursors: PreparedStatement,
    pub(super) set_delivered: PreparedStatement,
    pub(super) set_read: PreparedStatement,

    pub(super) members: PreparedStatement,
    pub(super) members_serial: PreparedStatement,
    pub(super) first_member: PreparedStatement,
    pub(super) other_member: PreparedStatement,
    pub(super) list: PreparedStatement,
    pub(super) unlist: PreparedStatement,
    pub(super) listed: PreparedStatement,
    pub(super) listed_after: PreparedStatement,
}

const ROW: &str = "seq, sender, device, client_msg_id, time_ms, content_type, payload";

impl Statements {
    pub(super) async fn prepare(
        session: &Session,
        quorum: Quorum,
        options: &ScyllaOptions,
    ) -> Result<Self, ConnectError> {
        let ks = &options.keyspace;
        let prepare = async |text: String, consistency: Consistency| {
            let mut statement =
                session.prepare(text).await.map_err(|error| errors::preparing(&error))?;
            statement.set_consistency(consistency);
            statement.set_is_idempotent(true);
            statement.set_page_size(PAGE_ROWS);
            Ok::<_, ConnectError>(statement)
        };
        let (mut plain, mut serial) = (quorum.plain, quorum.serial_read);
        if plain_reads(options) {
            (plain, serial) = (quorum.one, quorum.one);
        }
        let partition = "WHERE conversation = ? AND bucket = ?";
        let end = format!("SELECT head, seq, time_ms FROM {ks}.messages {partition}");
        let between = format!("FROM {ks}.messages {partition} AND seq >= ? AND seq <= ?");
        let ascending = format!("SELECT head, {ROW} {between} LIMIT ?");
        let descending = format!("SELECT head, {ROW} {between} ORDER BY seq DESC LIMIT ?");
        let set_head = format!("UPDATE {ks}.messages SET head = ? {partition}");
        let set_cursor = |column: &str| {
            format!(
                "UPDATE {ks}.cursors USING TIMESTAMP ? SET {column} = ? \
                 WHERE user = ? AND conversation = ?"
            )
        };
        let members = format!("SELECT user FROM {ks}.members WHERE conversation = ?");
        let set_member =
            format!("INSERT INTO {ks}.members (conversation, place, user) VALUES (?, ?, ?)");
        let listed = format!("SELECT conversation FROM {ks}.conversations WHERE user = ?");
        let write = quorum.plain;
        Ok(Self {
            open_partition: once(prepare(format!("{set_head} IF head = NULL"), write).await?),
            raise_head: once(prepare(format!("{set_head} IF head = ?"), write).await?),
            #[cfg(debug_assertions)]
            overwrite_head: once(prepare(set_head, write).await?),
            insert_message: once(
                prepare(
                    format!(
                        "INSERT INTO {ks}.messages (conversation, bucket, {ROW}) \
                         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TTL ?"
                    ),
                    write,
                )
                .await?,
            ),
            first_serial: prepare(format!("{end} LIMIT 1"), serial).await?,
            first: prepare(format!("{end} LIMIT 1"), plain).await?,
            last: prepare(format!("{end} ORDER BY seq DESC LIMIT 1"), plain).await?,
            next: prepare(format!("{end} AND seq >= ? LIMIT 1"), plain).await?,
            ascending: prepare(ascending.clone(), plain).await?,
            descending: prepare(descending.clone(), plain).await?,
            ascending_serial: prepare(ascending, serial).await?,
            descending_serial: prepare(descending, serial).await?,
            rows_serial: prepare(format!("SELECT {ROW} {between}"), serial).await?,
            hint: prepare(
                format!("SELECT head FROM {ks}.heads WHERE conversation = ?"),
                quorum.one,
            )
            .await?,
            set_hint: prepare(
                format!("UPDATE {ks}.heads USING TIMESTAMP ? SET head = ? WHERE conversation = ?"),
                write,
            )
            .await?,
            cursors: prepare(
                format!(
                    "SELECT delivered, read FROM {ks}.cursors WHERE user = ? AND conversation = ?"
                ),
                plain,
            )
            .await?,
            set_delivered: prepare(set_cursor("delivered"), write).await?,
            set_read: prepare(set_cursor("read"), write).await?,
            members: prepare(members.clone(), plain).await?,
            members_serial: prepare(members, serial).await?,
            first_member: once(prepare(format!("{set_member} IF NOT EXISTS"), write).await?),
            other_member: once(prepare(set_member, write).await?),
            list: prepare(
                format!(
                    "INSERT INTO {ks}.conversations (user, conversation) VALUES (?, ?) \
                     USING TIMESTAMP {LISTED}"
                ),
                write,
            )
            .await?,
            unlist: prepare(
                format!(
                    "DELETE FROM {ks}.conversations USING TIMESTAMP {UNLISTED} \
                     WHERE user = ? AND conversation = ?"
                ),
                write,
            )
            .await?,
            listed: prepare(format!("{listed} LIMIT ?"), plain).await?,
            listed_after: prepare(format!("{listed} AND conversation > ? LIMIT ?"), plain).await?,
        })
    }
}

/// Timestamps of a row in a user's index, and of taking it away again: in this order whatever the
/// clocks say.
const LISTED: i64 = 1;
const UNLISTED: i64 = 2;

/// The driver sends it once, whatever comes of it.
fn once(mut statement: PreparedStatement) -> PreparedStatement {
    statement.set_is_idempotent(false);
    statement
}

/// A batch in one partition. The first statement tells the driver where to send it. No batch log:
/// in one partition a batch is whole without it.
pub(super) fn batch(quorum: Quorum, is_conditional: bool) -> Batch {
    let mut batch = Batch::new(BatchType::Unlogged);
    batch.set_consistency(quorum.plain);
    batch.set_is_idempotent(!is_conditional);
    if is_conditional {
        batch.set_serial_consistency(Some(quorum.serial));
        batch.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy)));
    }
    batch
}

#[cfg(debug_assertions)]
fn plain_reads(options: &ScyllaOptions) -> bool {
    options.planted == Some(super::Planted::PlainReads)
}

#[cfg(not(debug_assertions))]
fn plain_reads(_: &ScyllaOptions) -> bool {
    false
}
