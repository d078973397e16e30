//! Answers to bulk requests, page by page: heads of conversations, ranges of messages.
//!
//! A job is worked on outside the shard and travels with its page: the shard writes the page,
//! and sends the job on when there is room for the next. So a bulk stream holds one page at a
//! time, however much was asked for.

mod read;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::FutureExt;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use skein_protocol::server::{BulkRequest, PullRange, Refusal, server_frame};
use skein_protocol::wire::{self, server_frame::Kind};
use skein_protocol::{Code, ConversationId, UserId, limits};
use skein_storage::StoreError;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::hub::Hub;
use crate::lane::code_of;
use crate::observe::PageKind;
use read::{Room, head_of, read_range};

/// Payload bytes in one page: half a frame, so that a page and a large message still fit into
/// a session's share of its outbox.
const PAGE_BYTES: usize = 32 * 1024;

/// Conversations that are read at a time. Each has at most three reads with the store where two are in
/// a conversation, so a login storm keeps at most a fifth of the 16,384 that may wait there, and a load
/// for a send waits behind some tenths of a second of them. Far more than the store's threads, so none
/// of those is ever idle. A page has one place, and more if nobody waits for them.
pub(crate) const READING: usize = 1024;

/// Places of a page of heads: a login with 500 conversations takes some 30 times two reads.
const HEADS_AT_ONCE: usize = 32;

/// Ranges that are read at a time, for one page that all of them share: most at the first, and
/// ever more while they are short.
const FIRST_RANGES: usize = 4;
const RANGES_AT_ONCE: usize = 16;

/// Payload bytes of each of them. All together may be twice what the page can hold.
const SHARE_BYTES: usize = PAGE_BYTES / 4;

/// Pages that are read or wait for it; more are refused as overload, and the client asks again.
/// A job outlives a connection that ends meanwhile, so the number of sessions is no bound of it.
pub(crate) const WAITING_PAGES: usize = 16_384;

/// Bounds of what pages may ask of the store, all sessions together.
#[derive(Debug)]
pub(crate) struct PageReads {
    places: Semaphore,
    reads: Semaphore,
}

impl Default for PageReads {
    fn default() -> Self {
        Self { places: Semaphore::new(WAITING_PAGES), reads: Semaphore::new(READING) }
    }
}

impl PageReads {
    /// Pages that are read now, or wait for it.
    pub(crate) fn under_way(&self) -> usize {
        WAITING_PAGES - self.places.available_permits()
    }

    /// For a page that has one place: more of them, as far as nobody waits for any. How many it
    /// has then, and what holds them.
    fn more_places(&self, wanted: usize) -> (Option<SemaphorePermit<'_>>, usize) {
        let free = self.reads.available_permits().min(wanted.saturating_sub(1));
        let more = self.reads.try_acquire_many(free as u32).ok();
        let width = more.as_ref().map_or(1, |more| 1 + more.num_permits());
        (more, width)
    }
}

/// One page, and what comes after it.
#[derive(Debug)]
pub struct Page {
    /// For the stream; one frame or several.
    pub frame: Bytes,
    /// The rest of the answer; `None`: the stream ends with this page.
    pub rest: Option<Box<Job>>,
}

/// A bulk request that is being answered.
#[derive(Debug)]
pub struct Job {
    user: UserId,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Named conversations that are left.
    Heads(std::vec::IntoIter<ConversationId>),
    /// All conversations after this one.
    AllHeads(Option<ConversationId>),
    Pull {
        ranges: Vec<PullRange>,
        at: usize,
        /// How many ranges the next page may hold.
        width: usize,
    },
}

impl Job {
    /// Starts to answer.
    pub fn new(user: UserId, request: BulkRequest) -> Box<Self> {
        let work = match request {
            BulkRequest::Heads(ids) if ids.is_empty() => Work::AllHeads(None),
            BulkRequest::Heads(ids) => Work::Heads(ids.into_iter()),
            BulkRequest::Pull(ranges) => Work::Pull { ranges, at: 0, width: FIRST_RANGES },
        };
        Box::new(Self { user, work })
    }

    /// Reads the next page when it is its turn. A store that fails, and a queue that is full, end
    /// the answer with a numbered error.
    pub async fn next_page(mut self: Box<Self>, hub: &Hub) -> Page {
        let Ok(_place) = hub.page_reads.places.try_acquire() else {
            hub.figures.page(PageKind::Refused);
            return refused_page(Code::Overloaded);
        };
        // Fails only when it is closed, which nobody does.
        let _turn = hub.page_reads.reads.acquire().await;
        let page = match &mut self.work {
            Work::Heads(_) | Work::AllHeads(_) => self.heads_page(hub).await,
            Work::Pull { .. } => self.pull_page(hub).await,
        };
        match page {
            Ok((frame, is_end)) => {
                hub.figures.page(match self.work {
                    Work::Heads(_) | Work::AllHeads(_) => PageKind::Heads,
                    Work::Pull { .. } => PageKind::Messages,
                });
                Page { frame, rest: (!is_end).then_some(self) }
            }
            Err(error) => {
                hub.figures.page(PageKind::Refused);
                hub.figures.trouble(&error);
                // Only damage is news here: of the rest the store tells once, and a client that
                // asks again and again must not fill the log.
                match error {
                    StoreError::Damaged(_) => {
                        tracing::warn!(user = %self.user, %error, "a sync failed")
                    }
                    _ => tracing::debug!(user = %self.user, %error, "a sync failed"),
                }
                refused_page(code_of(&error))
            }
        }
    }

    async fn heads_page(&mut self, hub: &Hub) -> Result<(Bytes, bool), StoreError> {
        let limit = limits::HEADS_PER_PAGE;
        let ids = match &mut self.work {
            Work::Heads(ids) => ids.as_slice().iter().copied().take(limit).collect(),
            Work::AllHeads(after) => {
                hub.store.conversations(self.user.clone(), *after, limit).await?
            }
            Work::Pull { .. } => Vec::new(),
        };
        let mut heads = Vec::with_capacity(ids.len());
        let mut room = Room::in_page(hub);
        let mut taken = 0;
        let (_places, width) = hub.page_reads.more_places(HEADS_AT_ONCE);
        let user = &self.user;
        let all: Vec<_> = ids.iter().map(|&id| head_of(hub, user, id).boxed()).collect();
        let mut all = stream::iter(all).buffered(width);
        while let Some(head) = all.try_next().await? {
            if head.as_ref().is_some_and(|head| !room.take(head)) {
                break;
            }
            heads.extend(head);
            taken += 1;
        }
        drop(all);
        let is_end = match &mut self.work {
            Work::Heads(left) => {
                left.by_ref().take(taken).for_each(drop);
                left.len() == 0
            }
            Work::AllHeads(after) => {
                *after = ids.get(taken.saturating_sub(1)).copied().or(*after);
                taken == ids.len() && ids.len() < limit
            }
            Work::Pull { .. } => true,
        };
        Ok((server_frame(Kind::HeadsPage(wire::HeadsPage { heads, is_end })), is_end))
    }

    /// One page of a long range, or several short ranges at once.
    async fn pull_page(&mut self, hub: &Hub) -> Result<(Bytes, bool), StoreError> {
        let Work::Pull { ranges, at, width } = &mut self.work else {
            return Ok((Bytes::new(), true));
        };
        if ranges.is_empty() {
            let nothing = wire::PullPage { is_end: true, ..Default::default() };
            return Ok((server_frame(Kind::PullPage(nothing)), true));
        }
        let wanted = (*width).min(ranges.len() - *at);
        let (_places, wide) = hub.page_reads.more_places(wanted);
        let bytes = if wide == 1 { PAGE_BYTES } else { SHARE_BYTES };
        let next = ranges[*at..].iter().take(wide).cloned();
        let user = &self.user;
        let pages: Vec<_> = next.map(|range| read_range(hub, user, range, bytes).boxed()).collect();
        let mut pages = stream::iter(pages).buffered(wide);
        let mut frames = BytesMut::new();
        let (mut sent, mut is_long) = (0, false);
        while let Some(page) = pages.next().await {
            let (mut page, left) = match page {
                Ok(page) => page,
                // What was read before it is sent, so that one conversation that cannot be read
                // does not keep back the others.
                Err(_) if sent > 0 => break,
                Err(error) => return Err(error),
            };
            page.range = *at as u32;
            let is_end = page.is_end;
            let frame = server_frame(Kind::PullPage(page));
            // Together they must fit into the outbox as one frame does; the rest is read again.
            let most = hub.settings().rules.limits.max_frame_bytes as usize;
            if sent > 0 && frames.len() + frame.len() > most {
                break;
            }
            frames.extend_from_slice(&frame);
            sent += 1;
            if !is_end {
                (ranges[*at], is_long) = (left, true);
                break;
            }
            *at += 1;
        }
        // As many as just fitted, and more if it was all; a long one has its pages for itself.
        *width = match (is_long, sent < wide) {
            (true, _) => 1,
            (false, true) => sent,
            (false, false) => (2 * wide).min(RANGES_AT_ONCE),
        };
        Ok((frames.freeze(), *at == ranges.len()))
    }
}

/// An answer that consists of a refusal.
pub fn refused_page(code: Code) -> Page {
    refused_page_until(code, None)
}

/// The same, with the time after which it may be asked again.
pub fn refused_page_until(code: Code, retry_after: Option<Duration>) -> Page {
    let (message, client_msg_id) = (code.text().into(), String::new());
    let refusal = Refusal { code, message, client_msg_id, retry_after };
    Page { frame: refusal.frame(), rest: None }
}
