//! Where a log begins and ends.
//!
//! The end: a partition's head says where its last append ended, and whether the log goes on is
//! seen in the partition of the number after it. From the hint, or from the beginning, that is
//! one step for each partition since; the last one has nothing new. A hint that no partition shows
//! is none: it may have outlived the messages that it was written for, in a restored keyspace.
//!
//! The beginning: 1, unless messages expire. Those of one partition do so from its front, and
//! partitions one after the other, so the first row that is left is searched by halving.

use std::time::{SystemTime, UNIX_EPOCH};

use scylla::response::query_result::QueryRowsResult;
use skein_protocol::{ConversationId, Seq};

use super::core::{Care, Core, signed, unsigned};
use super::errors;
use super::layout::Layout;
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
        let head_of = |bucket| async move { Ok(self.begin_of(of, bucket, care).await?.head) };
        let walked = walk(of, &self.layout, zero.head.unwrap_or(0), hint, head_of).await?;
        let (head, steps) = walked;
        add(&self.counters.walk_steps, u64::from(steps) + 1);
        if hint > head {
            tracing::debug!(conversation = %of, hint, head, "a hint is ahead of its log");
        }
        // Behind a hint nobody looks again, so only what is settled is worth one.
        if steps > LONG_WALK && care != Care::Plain && head > hint {
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

    /// A number that some append ended with; 0 if none is known. It is written after the append is
    /// durable, so unless the tables are of different ages it is not past the head.
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

/// The head of a log whose first partition ends with `zero` (0: nothing was ever appended), and how
/// many other partitions were looked into. `head_of` tells a partition's head.
async fn walk<F>(
    of: ConversationId,
    layout: &Layout,
    zero: Seq,
    hint: Seq,
    head_of: impl Fn(u64) -> F,
) -> Result<(Seq, u32), StoreError>
where
    F: Future<Output = Result<Option<Seq>, StoreError>>,
{
    // Where an append ended, the partition that tells so, and one in which nothing was appended.
    let (mut head, mut told, mut empty, mut steps) = (zero, 0, None, 0);
    if hint > zero {
        // Usually the partition in which the log would go on shows the hint, too.
        let next = layout.bucket(hint.saturating_add(1));
        let others = layout.buckets_of(hint).rev().filter(|bucket| *bucket != next);
        for bucket in std::iter::once(next).chain(others).filter(|bucket| *bucket > 0) {
            steps += 1;
            match head_of(bucket).await? {
                Some(shown) if shown >= hint => {
                    (head, told) = (shown, bucket);
                    break;
                }
                None if bucket == next => empty = Some(bucket),
                _ => {}
            }
        }
    }
    loop {
        let bucket = layout.bucket(head.saturating_add(1));
        // The partition where it would go on is the one that tells where it ends, or is empty.
        if bucket == told || Some(bucket) == empty {
            return Ok((head, steps));
        }
        steps += 1;
        match head_of(bucket).await? {
            Some(next) if next > head => (head, told) = (next, bucket),
            Some(next) if next < head => {
                let reason = format!("conversation {of} ends with {head} and with {next}");
                return Err(StoreError::Damaged(reason));
            }
            _ => return Ok((head, steps)),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::future::ready;

    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    /// A log as its partitions show it.
    struct Log {
        layout: Layout,
        heads: BTreeMap<u64, Seq>,
        head: Seq,
    }

    impl Log {
        fn new(layout: Layout, appends: &[u64]) -> Self {
            let mut log = Self { layout, heads: BTreeMap::new(), head: 0 };
            for count in appends {
                let bucket = layout.bucket(log.head + 1);
                log.head += count;
                log.heads.insert(bucket, log.head);
            }
            log
        }

        fn walk(&self, hint: Seq) -> Result<(Seq, u32), StoreError> {
            let mut id = [7; 16];
            id[0] = 1;
            let of = ConversationId::parse(&id).unwrap();
            let head_of = |bucket| ready(Ok(self.heads.get(&bucket).copied()));
            let zero = self.heads.get(&0).copied().unwrap_or(0);
            walk(of, &self.layout, zero, hint, head_of).now_or_never().unwrap()
        }
    }

    #[test]
    fn a_hint_spares_the_way() {
        let log = Log::new(Layout::new(8, 3), &[2; 40]);
        assert_eq!(log.walk(0), Ok((80, 10)));
        assert_eq!(log.walk(66), Ok((80, 3)));
        // A small conversation needs nothing but its first partition.
        assert_eq!(Log::new(Layout::new(8, 3), &[2, 2]).walk(0), Ok((4, 0)));
        assert_eq!(Log::new(Layout::new(8, 3), &[]).walk(0), Ok((0, 0)));
    }

    #[test]
    fn a_hint_at_the_edge_of_a_bucket_costs_two_steps() {
        let log = Log::new(Layout::new(8, 3), &[2; 40]);
        assert_eq!(log.walk(80), Ok((80, 2)));
    }

    #[test]
    fn a_hint_without_its_messages_is_none() {
        let log = Log::new(Layout::new(8, 3), &[2; 10]);
        for hint in [21, 24, 25, 26, 1000, Seq::MAX - 1, Seq::MAX] {
            assert_eq!(log.walk(hint).map(|it| it.0), Ok(20), "{hint}");
        }
        assert_eq!(Log::new(Layout::new(8, 3), &[]).walk(1000).map(|it| it.0), Ok(0));
    }

    #[test]
    fn partitions_that_contradict_each_other_are_damaged() {
        let mut log = Log::new(Layout::new(8, 3), &[2; 10]);
        log.heads.insert(1, 7);
        assert!(matches!(log.walk(0), Err(StoreError::Damaged(_))));
    }

    proptest! {
        /// Whatever the hint is, right or of another age.
        #[test]
        fn a_walk_ends_at_the_head(
            (bucket_rows, max_append) in (1u64..12, 1u64..20),
            appends in prop::collection::vec(any::<u64>(), 0..40),
            hint in 0u64..600,
        ) {
            let appends: Vec<u64> = appends.iter().map(|n| 1 + n % max_append).collect();
            let log = Log::new(Layout::new(bucket_rows, max_append), &appends);
            prop_assert_eq!(log.walk(hint).map(|it| it.0), Ok(log.head));
        }
    }
}
