//! What all parts of the store share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::ExecutionError;
use scylla::response::query_result::QueryRowsResult;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::connect::Quorum;
use super::layout::Layout;
use super::options::ScyllaOptions;
use super::places::Places;
use super::statements::Statements;
use super::stats::{Counters, add};
use super::trouble::Trouble;
use super::view::Settled;
use super::{errors, schema};
use crate::StoreError;

/// How often a read is tried that the driver does not repeat by itself: the reads of serial
/// consistency. The second one goes to another node if the first one's is gone.
const SERIAL_ATTEMPTS: u32 = 3;

/// How many plain reads are made again with serial consistency at once. More wait, with their
/// places among the reads.
pub(super) const REREADS: usize = 8;

/// How a read is made sure of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// What a majority shows. The end of the last append may be missing, or its head may be there
    /// without its rows.
    Plain,
    /// Heads are read with serial consistency, which completes the last append of their partition;
    /// then a majority shows the rows.
    Settled,
    /// All is read with serial consistency.
    Serial,
}

/// The session and all bounds. Tasks hold it; it goes when the last of them has ended.
pub(super) struct Core {
    pub(super) session: Session,
    pub(super) statements: Statements,
    pub(super) quorum: Quorum,
    pub(super) layout: Layout,
    pub(super) options: ScyllaOptions,
    pub(super) counters: Counters,
    pub(super) reading: Trouble,
    pub(super) writing: Trouble,
    /// Places of appends under way.
    pub(super) places: Places,
    /// Places of reads under way.
    pub(super) reads: Semaphore,
    /// Turns of those that read serially because a plain read was not enough. A client can bring
    /// that about, and each is in the way of the conversation's appends.
    pub(super) rereads: Arc<Semaphore>,
    pub(super) settled: Settled,
    /// Places of other writes under way.
    pub(super) registers: Semaphore,
    /// Whether messages were ever written with a time to live. Only ever becomes true.
    pub(super) may_expire: AtomicBool,
}

impl Core {
    /// A place among those of one kind; waits for it no longer than for a request.
    pub(super) async fn place<'a>(
        &self,
        places: &'a Semaphore,
        what: &str,
    ) -> Result<SemaphorePermit<'a>, StoreError> {
        let waited = tokio::time::timeout(self.options.request_timeout, places.acquire()).await;
        match waited {
            Ok(Ok(place)) => Ok(place),
            _ => Err(StoreError::Unavailable(format!("too many {what} are waiting"))),
        }
    }

    /// Reads all rows of an answer that is short.
    pub(super) async fn rows(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryRowsResult, StoreError> {
        let answer = self.session.execute_unpaged(statement, values).await;
        let answer = answer.map_err(|error| errors::unavailable(&error))?;
        answer.into_rows_result().map_err(errors::unexpected)
    }

    /// The same with serial consistency.
    pub(super) async fn serial_rows(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryRowsResult, StoreError> {
        add(&self.counters.serial_reads, 1);
        let mut attempt = 1;
        loop {
            match self.session.execute_unpaged(statement, &values).await {
                Ok(answer) => return answer.into_rows_result().map_err(errors::unexpected),
                Err(error) => next_attempt(&mut attempt, &error).await?,
            }
        }
    }

    /// One page of an answer that may be long.
    pub(super) async fn single_page(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
        from: PagingState,
        care: Care,
    ) -> Result<(QueryRowsResult, PagingStateResponse), StoreError> {
        let is_serial = care == Care::Serial;
        add(&self.counters.serial_reads, is_serial.into());
        let mut attempt = if is_serial { 1 } else { SERIAL_ATTEMPTS };
        loop {
            let asked = self.session.execute_single_page(statement, &values, from.clone());
            match asked.await {
                Ok((answer, next)) => {
                    return Ok((answer.into_rows_result().map_err(errors::unexpected)?, next));
                }
                Err(error) => next_attempt(&mut attempt, &error).await?,
            }
        }
    }

    /// Whether a gap can be the work of time. Another gateway may have begun to write messages
    /// that expire since this one looked. Whoever asks has a place, so it is asked once.
    pub(super) async fn may_expire(&self) -> Result<bool, StoreError> {
        if self.may_expire.load(Relaxed) {
            return Ok(true);
        }
        let (keyspace, quorum) = (&self.options.keyspace, self.quorum);
        let patience = schema::Patience::once(self.options.request_timeout);
        let made = schema::made_of(&self.session, quorum, keyspace, patience).await;
        let made = made.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let may_expire = made.is_some_and(|made| made.may_expire);
        // Somebody else may have learned of it meanwhile.
        Ok(self.may_expire.fetch_or(may_expire, Relaxed) || may_expire)
    }
}

/// Waits before a serial read is tried again, unless it has failed for good.
async fn next_attempt(attempt: &mut u32, error: &ExecutionError) -> Result<(), StoreError> {
    // Whoever waited until the end of a request does not wait on.
    let has_waited = matches!(error, ExecutionError::RequestTimeout(_));
    if has_waited || *attempt >= SERIAL_ATTEMPTS {
        return Err(errors::unavailable(error));
    }
    *attempt += 1;
    tokio::time::sleep(Duration::from_millis(20 * u64::from(*attempt))).await;
    Ok(())
}

/// CQL's integers are signed; ours are never so high that it matters.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that the store wrote.
pub(super) fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Damaged(format!("{number} is no number of ours")))
}
