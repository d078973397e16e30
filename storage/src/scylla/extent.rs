//! Where a log begins and ends.
//!
//! The end: a partition's head says where its last append ended, and whether the log goes on is
//! seen in the partition of the number after it. From the hint, or from the beginning, that is
//! one step for each partition since; the last one has nothing new.
//!
//! The beginning: 1, unless messages expire. Those of one partition do so from its front, and
//! partitions one after the other, so the first row that is left is searched by halving.

use std::time::{SystemTime, UNIX_EPOCH};

use scylla::response::query_result::QueryRowsResult;
use skein_protocol::{ConversationId, Seq};

use super::core::{Care, Core, signed, unsigned};
use super::errors;
use super::stats::add;
use crate::{Extent, StoreError};

/// How much longer than the retention a message may be there before it is taken for one that was
/// written under a longer one. It covers clocks that differ and appends that took long.
const EXPIRY_SLACK_MS: u64 = 10 * 60 * 1000;

/// Steps of a walk after which it is worth a hint.
const LONG_WALK: u32 = 2;

/// A partition as seen from one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// Last number of the last append; `None` if there never was one.
    pub(super) head: Option<Seq>,
    /// The row at this end, if any is left.
    pub(super) row: Option<RowTime>,
}

/// A row's number and when it got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowTime {
    pub(super) seq: Seq,
    pub(super) time_ms: u64,
}

impl Core {
    /// First and last number that can be read. With [`Care::Plain`] both are what a majority
    /// shows: see [`view`](super::view) for what that is worth.
    pub(super) async fn extent(
        &self,
        of: ConversationId,
        care: Care,
    ) -> Result<Extent, StoreError> {
        // A small conversation has no hint, and all that is to be known is in its first
        // partition: one round trip.
        let (hint, zero) = tokio::join!(self.hint(of), self.begin_of(of, 0, care));
        let zero = zero?;
        let mut head = zero.head.unwrap_or(0).max(hint);
        let mut steps = 0;
        while head > 0 {
            let bucket = self.layout.bucket(head + 1);
            if bucket == 0 {
                break;
            }
            let next = self.begin_of(of, bucket, care).await?.head;
            steps += 1;
            match next {
                Some(next) if next > head => {
                    head = next;
                    // The partition where it would go on is this one.
                    if self.layout.bucket(head + 1) == bucket {
                        break;
                    }
                }
                Some(next) if next < head => {
                    let reason = format!("conversation {of} ends with {head} and with {next}");
                    return Err(StoreError::Damaged(reason));
                }
                _ => break,
            }
        }
        add(&self.counters.walk_steps, u64::from(steps) + 1);
        // Behind a hint nobody looks again, so only what is settled is worth one.
        if steps > LONG_WALK && care != Care::Plain {
            self.write_hint(of, head).await;
        }
        let first = match zero.row {
            _ if head == 0 => 1,
            Some(row) if row.seq == 1 && self.is_kept(row) => 1,
            _ => self.first_left(of, head).await?,
        };
        Ok(Extent { first, head })
    }

    /// A partition from its first row.
    pub(super) async fn begin_of(
        &self,
        of: ConversationId,
        bucket: u64,
        care: Care,
    ) -> Result<End, StoreError> {
        let values = (&of.as_bytes()[..], signed(bucket));
        let statements = &self.statements;
        end(&match care {
            Care::Plain => self.rows(&statements.first, values).await?,
            Care::Settled | Care::Serial => {
                self.serial_rows(&statements.first_serial, values).await?
            }
        })
    }

    /// A partition from its last row.
    async fn end_of(&self, of: ConversationId, bucket: u64) -> Result<End, StoreError> {
        let values = (&of.as_bytes()[..], signed(bucket));
        end(&self.rows(&self.statements.last, values).await?)
    }

    /// Whether a message counts as kept. Messages that were written before there was a retention,
    /// or under a longer one, are still there after newer ones have expired; counting them as
    /// expired too leaves no hole.
    pub(super) fn is_kept(&self, row: RowTime) -> bool {
        let Some(retention) = self.options.retention else { return true };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let oldest = now.saturating_sub(retention).as_millis() as u64;
        row.time_ms >= oldest.saturating_sub(EXPIRY_SLACK_MS)
    }

    /// The first number that is left of a log that ends with `head`; `head + 1` if nothing is.
    async fn first_left(&self, of: ConversationId, head: Seq) -> Result<Seq, StoreError> {
        let (mut low, mut high) = (0, self.layout.bucket(head));
        // The first partition whose last message is kept.
        while low < high {
            let mut bucket = low + (high - low) / 2;
            let mut end = self.end_of(of, bucket).await?;
            // An append that is longer than a bucket leaves partitions out.
            while end.head.is_none() && bucket > low {
                bucket -= 1;
                end = self.end_of(of, bucket).await?;
            }
            if end.row.is_some_and(|row| self.is_kept(row)) {
                high = bucket;
            } else {
                low += 1 + (high - low) / 2;
            }
        }
        let first = self.begin_of(of, low, Care::Plain).await?.row;
        let last = self.end_of(of, low).await?.row;
        let (Some(first), Some(last)) = (first, last) else { return Ok(head + 1) };
        if self.is_kept(first) {
            return Ok(first.seq);
        }
        if !self.is_kept(last) {
            return Ok(head + 1);
        }
        self.first_kept(of, low, first.seq, last.seq).await
    }

    /// The first message that is kept, between one that is not and one that is.
    async fn first_kept(
        &self,
        of: ConversationId,
        bucket: u64,
        mut not: Seq,
        mut kept: Seq,
    ) -> Result<Seq, StoreError> {
        let mut first = kept;
        while kept - not > 1 {
            let middle = not + (kept - not) / 2;
            match self.row_from(of, bucket, middle).await? {
                Some(row) if self.is_kept(row) => (kept, first) = (middle, first.min(row.seq)),
                _ => not = middle,
            }
        }
        Ok(first)
    }

    /// The first row of a partition from a number on.
    async fn row_from(
        &self,
        of: ConversationId,
        bucket: u64,
        from: Seq,
    ) -> Result<Option<RowTime>, StoreError> {
        let values = (&of.as_bytes()[..], signed(bucket), signed(from));
        let answer = self.rows(&self.statements.next, values).await?;
        let row: Option<(Option<i64>, Option<i64>, Option<i64>)> =
            answer.maybe_first_row().map_err(errors::unexpected)?;
        let Some((_, Some(seq), Some(time_ms))) = row else { return Ok(None) };
        Ok(Some(RowTime { seq: unsigned(seq)?, time_ms: time_ms as u64 }))
    }

    /// A number that some append ended with; 0 if none is known. Never past the head: it is
    /// written after the append is durable.
    async fn hint(&self, of: ConversationId) -> Seq {
        let answer = self.rows(&self.statements.hint, (&of.as_bytes()[..],)).await;
        let read = answer.and_then(|answer| {
            let row = answer.maybe_first_row::<(Option<i64>,)>().map_err(errors::unexpected)?;
            row.and_then(|(head,)| head).map(unsigned).transpose()
        });
        // Without one the way is longer, not wrong.
        read.ok().flatten().unwrap_or(0)
    }

    /// Writes a hint, if there is a place: a load that had a long way makes up for one that was
    /// not written.
    pub(super) async fn write_hint(&self, of: ConversationId, head: Seq) {
        let Ok(_place) = self.registers.try_acquire() else {
            add(&self.counters.dropped_hints, 1);
            return;
        };
        let (head, id) = (signed(head), &of.as_bytes()[..]);
        // With itself as its timestamp the highest one stays, whoever writes when.
        match self.session.execute_unpaged(&self.statements.set_hint, (head, head, id)).await {
            Ok(_) => add(&self.counters.hints, 1),
            Err(_) => add(&self.counters.dropped_hints, 1),
        }
    }
}

fn end(answer: &QueryRowsResult) -> Result<End, StoreError> {
    // Of a partition without rows there is a row with the head alone.
    let row: Option<(Option<i64>, Option<i64>, Option<i64>)> =
        answer.maybe_first_row().map_err(errors::unexpected)?;
    let Some((head, seq, time_ms)) = row else {
        return Ok(End { head: None, row: None });
    };
    let row = match (seq, time_ms) {
        (Some(seq), Some(time_ms)) => {
            Some(RowTime { seq: unsigned(seq)?, time_ms: time_ms as u64 })
        }
        _ => None,
    };
    Ok(End { head: head.map(unsigned).transpose()?, row })
}
