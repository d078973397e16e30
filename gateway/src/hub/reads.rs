//! What lanes ask of the store.

use std::ops::RangeInclusive;

use futures_util::future::FutureExt;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use skein_protocol::{ConversationId, Seq, UserId};
use skein_storage::{CursorPair, Direction, Extent, Page, Store, StoreError};
use tokio::sync::Semaphore;

use crate::lane::{Found, Key, Known, Load, Loaded, Scan};

/// Records that one step of a scan reads.
pub(crate) const SCAN_PAGE: Page = Page { records: 4096, bytes: 1 << 20 };

/// Steps of scans that are with the store at a time. Each is a megabyte of log, and a client can
/// ask for a scan of a whole log with one frame; so they get two of the store's four threads at
/// most, and the rest is left to loads and pages. Scans take turns step by step, so that a short
/// one does not wait for the end of long ones.
pub(super) const SCAN_STEPS: usize = 2;

/// Cursors of one conversation that are read at a time.
const CURSORS_AT_ONCE: usize = 16;

/// A conversation as a lane wants it. In two rounds of reads, because a store may be a network away:
/// who is in it and where its log ends, then the rest.
pub(super) async fn read_conversation(
    store: &dyn Store,
    load: Load,
) -> Result<Option<Loaded>, StoreError> {
    let conversation = load.conversation;
    let (members, extent) = tokio::join!(store.members(conversation), store.extent(conversation));
    let members = match (members?, load.begin) {
        (Some(members), _) => members,
        (None, None) => return Ok(None),
        (None, Some(members)) => {
            store.begin(conversation, members.clone()).await?;
            members
        }
    };
    // One that has begun meanwhile may have grown since: then the first append finds out.
    let extent = extent?;
    let (cursors, tail) = tokio::join!(
        cursors_of(store, conversation, &members),
        read_tail(store, conversation, extent.head, load.tail as Seq),
    );
    let (extent, tail) = match tail? {
        Some(tail) => (extent, tail),
        None => look_again(store, conversation, load.tail as Seq).await?,
    };
    Ok(Some(Loaded { members, extent, tail, cursors: cursors? }))
}

/// The end of a log that may have moved between two reads, a second time. What is missing then is
/// not on its way.
async fn look_again(
    store: &dyn Store,
    conversation: ConversationId,
    count: Seq,
) -> Result<(Extent, Vec<Known>), StoreError> {
    let extent = store.extent(conversation).await?;
    let tail = read_tail(store, conversation, extent.head, count).await?;
    let what = || format!("{conversation} has no message {}, which is its head", extent.head);
    Ok((extent, tail.ok_or_else(|| StoreError::Damaged(what()))?))
}

/// Cursors in the order of the members.
pub(crate) async fn cursors_of(
    store: &dyn Store,
    conversation: ConversationId,
    members: &[UserId],
) -> Result<Vec<CursorPair>, StoreError> {
    let cursors = |user: &UserId| {
        let user = user.clone();
        // A store may begin with a read as soon as it is called; it is called in turn.
        async move { store.cursors(user, conversation).await }.boxed()
    };
    let cursors: Vec<_> = members.iter().map(cursors).collect();
    stream::iter(cursors).buffered(CURSORS_AT_ONCE).try_collect().await
}

/// What is known of the last records up to `head`, ascending and without a gap. Nothing if the log
/// does not end there: a tail that ends below would give every message in it another one's number.
async fn read_tail(
    store: &dyn Store,
    conversation: ConversationId,
    head: Seq,
    count: Seq,
) -> Result<Option<Vec<Known>>, StoreError> {
    let mut tail = Vec::new();
    let first = (head + 1).saturating_sub(count).max(1);
    let mut last = head;
    while last >= first {
        let range: RangeInclusive<Seq> = first..=last;
        let page = store.read(conversation, range, Direction::Backward, SCAN_PAGE).await?;
        let Some(newest) = page.first() else { break };
        if tail.is_empty() && newest.seq != head {
            return Ok(None);
        }
        // Retention may have removed the older part, and not in the order of the log.
        let numbers = (first..=last).rev();
        let whole = page.iter().zip(numbers).take_while(|(record, seq)| record.seq == *seq).count();
        tail.extend(page[..whole].iter().map(Known::of));
        last -= whole as Seq;
        if whole < page.len() || whole == 0 {
            break;
        }
    }
    tail.reverse();
    Ok(Some(tail))
}

pub(super) async fn scan_log(
    store: &dyn Store,
    steps: &Semaphore,
    scan: &Scan,
) -> Result<Found, StoreError> {
    let mut found = Found::new();
    let mut from = scan.from;
    while from <= scan.to && found.len() < scan.keys.len() {
        let range = from..=scan.to;
        let page = {
            // Fails only when it is closed, which nobody does.
            let _step = steps.acquire().await;
            store.read(scan.conversation, range, Direction::Forward, SCAN_PAGE).await?
        };
        let Some(last) = page.last() else { break };
        from = last.seq + 1;
        let (user, device) = &scan.sender;
        for record in page.iter().filter(|r| r.sender == *user && r.device == *device) {
            let key = Key::of(record);
            if scan.keys.contains(&key) {
                found.push((key, record.seq, record.time_ms));
            }
        }
    }
    Ok(found)
}
