//! Reading records.
//!
//! Rows of one partition follow each other. After the last row of a partition, `s`, the log goes
//! on in the partition of `s + 1` or it ends there; before the first row of a partition, one of
//! the few partitions whose appends can reach so far holds the row before. So a read knows where
//! to look next without knowing the head, and appends that happen meanwhile do not disturb it.

use std::ops::RangeInclusive;

use scylla::response::PagingState;
use scylla::response::query_result::QueryRowsResult;
use skein_protocol::{ConversationId, Seq};

use super::core::{Care, Core, signed};
use super::errors;
use super::extent::RowTime;
use super::row::{self, HeadedRow, MessageRow};
use crate::{Direction, Page, Record, StoreError};

/// Rows of the first request, while nothing is known of their size: as many of a generous size as
/// fill the page. 64 of them are 4 MiB of payloads of 64 KiB, 45 KB of usual ones.
const FIRST_ROWS: RangeInclusive<usize> = 4..=64;
const FIRST_ROW_BYTES: usize = 4 << 10;

/// Most bytes and rows that one further request asks for, if its rows are like those so far: of their
/// average size for the page, of their largest for memory.
const REQUEST_BYTES: usize = 4 << 20;
const REQUEST_ROWS: usize = 4096;

/// What has been read so far.
struct Found {
    records: Vec<Record>,
    bytes: usize,
    /// The largest payload.
    largest: usize,
    page: Page,
}

impl Found {
    fn new(page: Page) -> Self {
        Self { records: Vec::new(), bytes: 0, largest: 0, page }
    }

    fn add(&mut self, record: Record) {
        self.bytes += record.payload.len();
        self.largest = self.largest.max(record.payload.len());
        self.records.push(record);
    }

    fn is_full(&self) -> bool {
        self.page.is_filled(self.records.len(), self.bytes)
    }

    /// Rows to ask for next.
    fn next_rows(&self) -> usize {
        let left = self.page.records.saturating_sub(self.records.len());
        let rows = if self.records.is_empty() {
            (self.page.bytes / FIRST_ROW_BYTES).clamp(*FIRST_ROWS.start(), *FIRST_ROWS.end())
        } else {
            let bytes = self.page.bytes.saturating_sub(self.bytes).min(REQUEST_BYTES);
            let average = (self.bytes / self.records.len()).max(64);
            let most = (REQUEST_BYTES / self.largest.max(1)).min(REQUEST_ROWS);
            (bytes / average + 1).min(most)
        };
        rows.min(left).max(1)
    }

    fn last(&self) -> Option<Seq> {
        self.records.last().map(|record| record.seq)
    }
}

/// Some rows of one partition.
struct Chunk {
    bucket: u64,
    /// The partition's head at that moment, if there are rows to tell it.
    head: Option<Seq>,
    records: Vec<Record>,
    /// There are no more in the range.
    is_end: bool,
}

/// One read on its way.
struct Read<'a> {
    core: &'a Core,
    of: ConversationId,
    care: Care,
    direction: Direction,
    from: Seq,
    to: Seq,
    found: Found,
    /// The partition from which rows came last, and its head then.
    end: Option<(u64, Seq)>,
}

impl Core {
    /// See [`MessageLog::read`](crate::MessageLog::read). With [`Care::Plain`] whatever comes: the
    /// caller looks for what is missing.
    pub(super) async fn page(
        &self,
        of: ConversationId,
        range: RangeInclusive<Seq>,
        direction: Direction,
        page: Page,
        care: Care,
    ) -> Result<Vec<Record>, StoreError> {
        let mut read = self.reading(of, &range, direction, page, care);
        read.run().await?;
        Ok(read.found.records)
    }

    /// Plainly read records, forward, and the log's head as the same statement has told it; `None`
    /// if it takes more than that to know.
    pub(super) async fn page_with_head(
        &self,
        of: ConversationId,
        range: RangeInclusive<Seq>,
        page: Page,
    ) -> Result<Option<(Seq, Vec<Record>)>, StoreError> {
        let mut read = self.reading(of, &range, Direction::Forward, page, Care::Plain);
        read.run().await?;
        let Some((bucket, head)) = read.end else { return Ok(None) };
        // Otherwise the log may go on in another partition.
        let is_last = self.layout.bucket(head.saturating_add(1)) == bucket;
        Ok(is_last.then_some((head, read.found.records)))
    }

    fn reading(
        &self,
        of: ConversationId,
        range: &RangeInclusive<Seq>,
        direction: Direction,
        page: Page,
        care: Care,
    ) -> Read<'_> {
        // The next number must be one too.
        const HIGHEST: Seq = i64::MAX as Seq - 1;
        let (from, to) = ((*range.start()).max(1), (*range.end()).min(HIGHEST));
        let found = Found::new(page);
        Read { core: self, of, care, direction, from, to, found, end: None }
    }
}

impl Read<'_> {
    async fn run(&mut self) -> Result<(), StoreError> {
        let Some(mut chunk) = self.begin().await? else { return Ok(()) };
        loop {
            let (bucket, is_end) = (chunk.bucket, chunk.is_end);
            self.end = chunk.head.map(|head| (bucket, head)).or(self.end);
            if !self.take(chunk.records).await? || self.found.is_full() {
                return Ok(());
            }
            chunk = if !is_end {
                self.chunk(bucket).await?
            } else if let Some(next) = self.next_partition(bucket).await? {
                next
            } else {
                return Ok(());
            };
        }
    }

    /// The first rows of the range. What of it has expired, and what of it is past the head, is
    /// passed over.
    async fn begin(&mut self) -> Result<Option<Chunk>, StoreError> {
        if self.from > self.to {
            return Ok(None);
        }
        let seen = self.seek().await?;
        if self.care == Care::Plain {
            return Ok(seen);
        }
        let kept = |chunk: &Chunk| {
            let record = chunk.records.first();
            record.is_some_and(|it| self.core.is_kept(RowTime { seq: it.seq, time_ms: it.time_ms }))
        };
        if seen.as_ref().is_some_and(kept) {
            return Ok(seen);
        }
        let extent = self.core.extent(self.of, Care::Settled).await?;
        let (from, to) = (self.from.max(extent.first), self.to.min(extent.head));
        if from > to {
            return Ok(None);
        }
        let is_clipped = (from, to) != (self.from, self.to);
        (self.from, self.to) = (from, to);
        let seen = if is_clipped { self.seek().await? } else { seen };
        if seen.is_none() {
            self.missing(from, to).await?;
        }
        Ok(seen)
    }

    /// The first rows of the range, if they are where a row with its first number would be.
    async fn seek(&self) -> Result<Option<Chunk>, StoreError> {
        let edge = match self.direction {
            Direction::Forward => self.from,
            Direction::Backward => self.to,
        };
        let mut buckets = self.core.layout.buckets_of(edge);
        loop {
            let bucket = match self.direction {
                Direction::Forward => buckets.next(),
                Direction::Backward => buckets.next_back(),
            };
            let Some(bucket) = bucket else { return Ok(None) };
            let chunk = self.chunk(bucket).await?;
            if !chunk.records.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }

    /// What follows after all rows of a partition.
    async fn next_partition(&self, done: u64) -> Result<Option<Chunk>, StoreError> {
        let Some(last) = self.found.last() else { return Ok(None) };
        let layout = &self.core.layout;
        match self.direction {
            Direction::Forward => {
                let bucket = layout.bucket(last + 1);
                if last >= self.to || bucket == done {
                    return Ok(None);
                }
                let chunk = self.chunk(bucket).await?;
                Ok((!chunk.records.is_empty()).then_some(chunk))
            }
            Direction::Backward => {
                if last <= self.from {
                    return Ok(None);
                }
                for bucket in layout.buckets_of(last - 1).rev().filter(|bucket| *bucket < done) {
                    let chunk = self.chunk(bucket).await?;
                    if !chunk.records.is_empty() {
                        return Ok(Some(chunk));
                    }
                }
                self.missing(last - 1, last - 1).await?;
                Ok(None)
            }
        }
    }

    /// Adds rows; false if the read ends with them.
    async fn take(&mut self, records: Vec<Record>) -> Result<bool, StoreError> {
        for record in records {
            if self.found.is_full() {
                return Ok(false);
            }
            let row = RowTime { seq: record.seq, time_ms: record.time_ms };
            if self.direction == Direction::Backward && !self.core.is_kept(row) {
                return Ok(false);
            }
            if let Some(last) = self.found.last()
                && last.abs_diff(record.seq) != 1
            {
                self.missing(last.min(record.seq) + 1, last.max(record.seq) - 1).await?;
                match self.direction {
                    // What lies before a gap is no part of the log any more.
                    Direction::Forward => {
                        self.found.records.clear();
                        self.found.bytes = 0;
                    }
                    Direction::Backward => return Ok(false),
                }
            }
            self.found.add(record);
        }
        Ok(true)
    }

    /// Some of the rows that are left of the range, from one partition.
    async fn chunk(&self, bucket: u64) -> Result<Chunk, StoreError> {
        let last = self.found.last();
        let (from, to) = match self.direction {
            Direction::Forward => (last.map_or(self.from, |last| last + 1), self.to),
            Direction::Backward => (self.from, last.map_or(self.to, |last| last - 1)),
        };
        let statements = &self.core.statements;
        let statement = match (self.direction, self.care) {
            (Direction::Forward, Care::Serial) => &statements.ascending_serial,
            (Direction::Backward, Care::Serial) => &statements.descending_serial,
            (Direction::Forward, _) => &statements.ascending,
            (Direction::Backward, _) => &statements.descending,
        };
        let limit = self.found.next_rows();
        let values = (
            &self.of.as_bytes()[..],
            signed(bucket),
            signed(from),
            signed(to),
            i32::try_from(limit).unwrap_or(i32::MAX),
        );
        let mut paging = PagingState::start();
        loop {
            let asked = self.core.single_page(statement, &values, paging, self.care);
            let (answer, next) = asked.await?;
            let (head, records) = with_head(&answer)?;
            let is_end = match next.into_paging_control_flow() {
                std::ops::ControlFlow::Break(()) => records.len() < limit,
                // A server ends a page when it has worked enough, with or without rows.
                std::ops::ControlFlow::Continue(next) if records.is_empty() => {
                    paging = next;
                    continue;
                }
                std::ops::ControlFlow::Continue(_) => false,
            };
            return Ok(Chunk { bucket, head, records, is_end });
        }
    }

    async fn missing(&self, from: Seq, to: Seq) -> Result<(), StoreError> {
        match self.care {
            // Nothing is certain yet.
            Care::Plain => Ok(()),
            Care::Settled | Care::Serial => self.core.missing(self.of, from, to).await,
        }
    }
}

impl Core {
    /// These numbers are inside the log and are not there: time has taken them, or something that
    /// must not have.
    pub(super) async fn missing(
        &self,
        of: ConversationId,
        from: Seq,
        to: Seq,
    ) -> Result<(), StoreError> {
        if self.may_expire().await? {
            return Ok(());
        }
        Err(StoreError::Damaged(format!("conversation {of} has no messages {from} to {to}")))
    }
}

/// Rows -> the partition's head and the records.
fn with_head(answer: &QueryRowsResult) -> Result<(Option<Seq>, Vec<Record>), StoreError> {
    let rows = answer.rows::<HeadedRow<'_>>().map_err(errors::unexpected)?;
    let (mut head, mut records) = (None, Vec::with_capacity(answer.rows_num()));
    for row in rows {
        let (told, record) = row::headed(row.map_err(errors::unexpected)?)?;
        head = head.max(told);
        records.extend(record);
    }
    Ok((head, records))
}

/// Rows -> records.
pub(super) fn records(answer: &QueryRowsResult) -> Result<Vec<Record>, StoreError> {
    let rows = answer.rows::<MessageRow<'_>>().map_err(errors::unexpected)?;
    rows.map(|row| row::record(row.map_err(errors::unexpected)?)).collect()
}

#[cfg(test)]
mod tests {
    use skein_protocol::{ClientMsgId, DeviceId, UserId};

    use super::*;

    fn found(page: Page, payloads: &[usize]) -> Found {
        let mut found = Found::new(page);
        for (seq, bytes) in (1..).zip(payloads) {
            found.add(Record {
                seq,
                sender: UserId::parse("alice").unwrap(),
                device: DeviceId::parse("phone").unwrap(),
                client_msg_id: ClientMsgId::parse("m").unwrap(),
                time_ms: 0,
                content_type: String::new(),
                payload: vec![0; *bytes].into(),
            });
        }
        found
    }

    #[test]
    fn requests_follow_the_page() {
        let page = |records, bytes| Page { records, bytes };
        let first = |page| found(page, &[]).next_rows();
        assert_eq!(first(page(1000, 1)), 4);
        assert_eq!(first(page(1000, 64 << 10)), 16);
        assert_eq!(first(page(1000, usize::MAX)), 64);
        assert_eq!(first(page(3, usize::MAX)), 3);
        assert_eq!(first(page(0, 0)), 1);

        // Then they go by what came.
        let rows = |bytes, payloads: &[usize]| found(page(100_000, bytes), payloads).next_rows();
        assert_eq!(rows(1 << 20, &[1 << 10; 64]), 961);
        assert_eq!(rows(usize::MAX, &[10; 64]), REQUEST_ROWS);
        // One that is large may be followed by others.
        assert_eq!(rows(usize::MAX, &[1 << 20, 10, 10, 10]), 4);
        assert_eq!(rows(usize::MAX, &[8 << 20, 10, 10, 10]), 1);
        assert_eq!(rows(usize::MAX, &[0, 0]), REQUEST_ROWS);
    }
}
