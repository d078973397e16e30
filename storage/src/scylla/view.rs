//! What those who only look are shown: heads and pages of a sync.
//!
//! A serial read is a transaction of its own. It is in the way of the appends of its partition, so
//! those who number nothing by it read plainly, and serially only if what came is not whole:
//!
//! ```text
//! rows with the head, one statement  -> whole: shown
//! extent, then rows                  -> whole: shown
//! extent and rows, serially          -> shown
//! ```
//! A plain read misses nothing that was acknowledged: a majority has it. While a majority does not
//! have the log's last append, of which nobody knows the outcome, it may show all of that append,
//! nothing, or the head without some of the rows: a read that brings the head alone leaves the head
//! alone behind on other replicas. Told to a client, rows that are not shown would be a hole, or
//! messages that have expired, and it would go on behind them. So nothing plain is believed
//! that could be that: [`is_whole`] and [`is_certain`] say what could.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use skein_protocol::{ConversationId, Seq};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::core::{Care, Core};
use super::stats::add;
use crate::{Direction, Extent, MAX_APPEND_RECORDS, Page, Record, StoreError, View};

/// What somebody wants to see; see [`MessageLog::view`](crate::MessageLog::view).
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) of: ConversationId,
    pub(super) range: RangeInclusive<Seq>,
    pub(super) direction: Direction,
    pub(super) page: Page,
    pub(super) known: Seq,
}

/// Reads of either kind.
pub(super) trait Sight: Sync {
    /// Rows forward and the log's head, plainly and in one statement; `None` if that does not tell
    /// the head, or not whether something has expired.
    fn at_once(
        &self,
        asked: &Asked,
    ) -> impl Future<Output = Result<Option<View>, StoreError>> + Send;

    /// Where the log begins and ends.
    fn extent(
        &self,
        of: ConversationId,
        care: Care,
    ) -> impl Future<Output = Result<Extent, StoreError>> + Send;

    /// Rows of a range, which is inside the extent.
    fn rows(
        &self,
        asked: &Asked,
        range: RangeInclusive<Seq>,
        care: Care,
    ) -> impl Future<Output = Result<Vec<Record>, StoreError>> + Send;

    /// Something of the range is not there although it was read serially: an error, unless time
    /// may have taken it.
    fn missing(
        &self,
        of: ConversationId,
        range: RangeInclusive<Seq>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What was read plainly is not shown: waits for a turn to read serially.
    fn reads_again(&self) -> impl Future<Output = Result<Turn, StoreError>> + Send;

    /// What a serial read showed last, if that is remembered.
    fn settled(&self, of: ConversationId) -> Option<Extent>;

    /// Remembers what a serial read has shown.
    fn settle(&self, of: ConversationId, extent: Extent);
}

/// Held while it is read serially.
pub(super) type Turn = Option<OwnedSemaphorePermit>;

/// See [`MessageLog::look`](crate::MessageLog::look).
pub(super) async fn look(
    sight: &impl Sight,
    of: ConversationId,
    known: Seq,
) -> Result<Extent, StoreError> {
    if let Some(extent) = plain_extent(sight, of, known).await? {
        return Ok(extent);
    }
    let _turn = sight.reads_again().await?;
    serial_extent(sight, of).await
}

/// See [`MessageLog::view`](crate::MessageLog::view).
pub(super) async fn view(sight: &impl Sight, asked: Asked) -> Result<View, StoreError> {
    let asked = &asked;
    if let Some(view) = plain_view(sight, asked).await? {
        return Ok(view);
    }
    let _turn = sight.reads_again().await?;
    let extent = serial_extent(sight, asked.of).await?;
    let view = rows(sight, asked, extent, Care::Serial).await?;
    if !is_whole(asked, &view) {
        sight.missing(asked.of, extent.clip(&asked.range)).await?;
    }
    Ok(view)
}

/// What plain reads show, if it can be believed.
async fn plain_view(sight: &impl Sight, asked: &Asked) -> Result<Option<View>, StoreError> {
    if let Some(Some(view)) = believed(sight.at_once(asked).await)?
        && view.extent.head >= asked.known
        && is_whole(asked, &view)
    {
        return Ok(Some(view));
    }
    let Some(extent) = plain_extent(sight, asked.of, asked.known).await? else {
        return Ok(None);
    };
    // Read after the head, so that they may not end before it.
    let view = believed(rows(sight, asked, extent, Care::Plain).await)?;
    Ok(view.filter(|view| is_whole(asked, view)))
}

async fn plain_extent(
    sight: &impl Sight,
    of: ConversationId,
    known: Seq,
) -> Result<Option<Extent>, StoreError> {
    let extent = believed(sight.extent(of, Care::Plain).await)?;
    // While the head is the same nothing can have come before the first message.
    let is_known = |extent: &Extent| is_certain(extent) || sight.settled(of) == Some(*extent);
    Ok(extent.filter(|extent| extent.head >= known && is_known(extent)))
}

async fn serial_extent(sight: &impl Sight, of: ConversationId) -> Result<Extent, StoreError> {
    let extent = sight.extent(of, Care::Serial).await?;
    if !is_certain(&extent) {
        sight.settle(of, extent);
    }
    Ok(extent)
}

async fn rows(
    sight: &impl Sight,
    asked: &Asked,
    extent: Extent,
    care: Care,
) -> Result<View, StoreError> {
    let range = extent.clip(&asked.range);
    let records = match range.is_empty() {
        true => Vec::new(),
        false => sight.rows(asked, range, care).await?,
    };
    Ok(View { extent, records })
}

/// Whether something is damaged only a serial read tells.
fn believed<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(StoreError::Damaged(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a plain read knows where the log begins. If the first message is not shown and the first
/// one that is may belong to the last append, there may be more before it.
fn is_certain(extent: &Extent) -> bool {
    let shown = (extent.head + 1).saturating_sub(extent.first);
    extent.first == 1 || shown > MAX_APPEND_RECORDS as u64
}

/// Whether the page has everything that it should have, going by the extent: it begins where the
/// range does, has no hole, and ends where the range does unless it is full.
fn is_whole(asked: &Asked, view: &View) -> bool {
    let range = view.extent.clip(&asked.range);
    if range.is_empty() {
        return view.records.is_empty();
    }
    let (from, to) = (*range.start(), *range.end());
    let numbers = view.records.iter().map(|record| record.seq);
    let follow = match asked.direction {
        Direction::Forward => numbers.zip(from..).all(|(seq, expected)| seq == expected),
        Direction::Backward => numbers.zip((0..=to).rev()).all(|(seq, expected)| seq == expected),
    };
    let (count, all) = (view.records.len(), to - from + 1);
    let bytes = view.records.iter().map(|record| record.payload.len()).sum();
    let is_filled = || asked.page.is_filled(count, bytes);
    follow && (count as u64 == all || ((count as u64) < all && is_filled()))
}

impl Sight for Core {
    async fn at_once(&self, asked: &Asked) -> Result<Option<View>, StoreError> {
        // What has expired one statement does not tell, and backward the head must be known first.
        if asked.direction == Direction::Backward || self.may_expire.load(Relaxed) {
            return Ok(None);
        }
        let read = self.page_with_head(asked.of, asked.range.clone(), asked.page).await?;
        Ok(read.map(|(head, records)| View { extent: Extent { first: 1, head }, records }))
    }

    async fn extent(&self, of: ConversationId, care: Care) -> Result<Extent, StoreError> {
        self.extent(of, care).await
    }

    async fn rows(
        &self,
        asked: &Asked,
        range: RangeInclusive<Seq>,
        care: Care,
    ) -> Result<Vec<Record>, StoreError> {
        self.page(asked.of, range, asked.direction, asked.page, care).await
    }

    async fn missing(
        &self,
        of: ConversationId,
        range: RangeInclusive<Seq>,
    ) -> Result<(), StoreError> {
        self.missing(of, *range.start(), *range.end()).await
    }

    async fn reads_again(&self) -> Result<Turn, StoreError> {
        add(&self.counters.reread, 1);
        let turn = self.rereads.clone().acquire_owned();
        match timeout(self.options.request_timeout, turn).await {
            Ok(Ok(turn)) => Ok(Some(turn)),
            _ => Err(StoreError::Unavailable("too many reads are made again".into())),
        }
    }

    fn settled(&self, of: ConversationId) -> Option<Extent> {
        self.settled.of(of)
    }

    fn settle(&self, of: ConversationId, extent: Extent) {
        self.settled.note(of, extent);
    }
}

/// Extents that serial reads have shown, of logs of which a plain read does not know where they
/// begin. One that is forgotten is read again.
#[derive(Debug, Default)]
pub(super) struct Settled(Mutex<HashMap<ConversationId, Extent>>);

impl Settled {
    /// Most of them, 40 bytes each. Beyond it all are forgotten.
    const MOST: usize = 16_384;

    fn all(&self) -> MutexGuard<'_, HashMap<ConversationId, Extent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, of: ConversationId) -> Option<Extent> {
        self.all().get(&of).copied()
    }

    fn note(&self, of: ConversationId, extent: Extent) {
        let mut all = self.all();
        if all.len() >= Self::MOST && !all.contains_key(&of) {
            all.clear();
        }
        all.insert(of, extent);
    }
}

#[cfg(test)]
mod tests;
