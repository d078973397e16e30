//! Answers to bulk requests, page by page: heads of conversations, ranges of messages.
//!
//! A job is worked on outside the shard and travels with its page: the shard writes the page,
//! and sends the job on when there is room for the next. So a bulk stream holds one page at a
//! time, however much was asked for.

use bytes::Bytes;
use skein_protocol::server::{BulkRequest, PullRange, Refusal, server_frame};
use skein_protocol::wire::{self, server_frame::Kind};
use skein_protocol::{Code, ConversationId, UserId, limits};
use skein_storage::{Direction, Page as Budget, Record, StoreError};
use tokio::sync::Semaphore;

use crate::hub::{Hub, conversation_of, id_bytes, wire_message};
use crate::lane::code_of;

/// Payload bytes in one page: half a frame, so that a page and a large message still fit into
/// a session's share of its outbox.
const PAGE_BYTES: usize = 32 * 1024;

/// Messages in one page.
const PAGE_RECORDS: usize = 256;

/// Pages that are read at a time. Each has one read with the store, so a login storm keeps at most
/// this many of the 16,384 that may wait there, and a load for a send waits behind a tenth of a
/// second of them. Far more than the store's threads, so none of those is ever idle.
pub(crate) const READING_PAGES: usize = 1024;

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
        Self { places: Semaphore::new(WAITING_PAGES), reads: Semaphore::new(READING_PAGES) }
    }
}

/// One page, and what comes after it.
#[derive(Debug)]
pub struct Page {
    /// For the stream.
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
    },
}

impl Job {
    /// Starts to answer.
    pub fn new(user: UserId, request: BulkRequest) -> Box<Self> {
        let work = match request {
            BulkRequest::Heads(ids) if ids.is_empty() => Work::AllHeads(None),
            BulkRequest::Heads(ids) => Work::Heads(ids.into_iter()),
            BulkRequest::Pull(ranges) => Work::Pull { ranges, at: 0 },
        };
        Box::new(Self { user, work })
    }

    /// Reads the next page when it is its turn. A store that fails, and a queue that is full, end
    /// the answer with a numbered error.
    pub async fn next_page(mut self: Box<Self>, hub: &Hub) -> Page {
        let Ok(_place) = hub.page_reads.places.try_acquire() else {
            return refused_page(Code::Overloaded);
        };
        // Fails only when it is closed, which nobody does.
        let _turn = hub.page_reads.reads.acquire().await;
        let page = match &mut self.work {
            Work::Heads(_) | Work::AllHeads(_) => self.heads_page(hub).await,
            Work::Pull { .. } => self.pull_page(hub).await,
        };
        match page {
            Ok((kind, is_end)) => {
                Page { frame: server_frame(kind), rest: (!is_end).then_some(self) }
            }
            Err(error) => {
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

    async fn heads_page(&mut self, hub: &Hub) -> Result<(Kind, bool), StoreError> {
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
        for &id in &ids {
            let head = head_of(hub, &self.user, id).await?;
            if head.as_ref().is_some_and(|head| !room.take(head)) {
                break;
            }
            heads.extend(head);
            taken += 1;
        }
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
        Ok((Kind::HeadsPage(wire::HeadsPage { heads, is_end }), is_end))
    }

    async fn pull_page(&mut self, hub: &Hub) -> Result<(Kind, bool), StoreError> {
        let Work::Pull { ranges, at } = &mut self.work else {
            return Ok((Kind::PullPage(wire::PullPage::default()), true));
        };
        let Some(range) = ranges.get_mut(*at) else {
            // A request without ranges.
            let nothing = wire::PullPage { is_end: true, ..Default::default() };
            return Ok((Kind::PullPage(nothing), true));
        };
        let mut page = read_range(hub, &self.user, range).await?;
        page.range = *at as u32;
        if page.is_end {
            *at += 1;
        }
        let is_end = *at == ranges.len();
        Ok((Kind::PullPage(page), is_end))
    }
}

/// An answer that consists of a refusal.
pub fn refused_page(code: Code) -> Page {
    let refusal = Refusal { code, message: code.text().into(), client_msg_id: String::new() };
    Page { frame: refusal.frame(), rest: None }
}

/// Reads the next page of a range and moves the range past it.
async fn read_range(
    hub: &Hub,
    user: &UserId,
    range: &mut PullRange,
) -> Result<wire::PullPage, StoreError> {
    let conversation = conversation_of(user, &range.target);
    let mut page = wire::PullPage {
        conversation: id_bytes(conversation),
        is_end: true,
        first_seq: 1,
        ..Default::default()
    };
    let Some(members) = members_of(hub, conversation).await? else {
        // Nobody has written to this user yet: an empty conversation, not an error.
        if !matches!(range.target, skein_protocol::server::Target::User(_)) {
            page.error_code = Code::UnknownConversation.number();
        }
        return Ok(page);
    };
    if !members.contains(user) {
        page.error_code = Code::UnknownConversation.number();
        return Ok(page);
    }
    let extent = hub.store.extent(conversation).await?;
    (page.head, page.first_seq) = (extent.head, extent.first);
    let (from, to) = (range.from.max(extent.first), range.to.min(extent.head));
    if from > to || range.limit == 0 {
        return Ok(page);
    }
    let direction = if range.backward { Direction::Backward } else { Direction::Forward };
    let budget = Budget { records: PAGE_RECORDS.min(range.limit as usize), bytes: PAGE_BYTES };
    let records = hub.store.read(conversation, from..=to, direction, budget).await?;
    page.messages = fitting(hub, conversation, &records);
    let taken = page.messages.len() as u32;
    range.limit -= taken.min(range.limit);
    page.is_end = match (page.messages.last(), range.backward) {
        (None, _) => true,
        (Some(last), false) => {
            range.from = last.seq + 1;
            last.seq >= to
        }
        (Some(last), true) => {
            range.to = last.seq - 1;
            last.seq <= from
        }
    } || range.limit == 0;
    Ok(page)
}

/// As many of the records as a frame can carry.
fn fitting(hub: &Hub, conversation: ConversationId, records: &[Record]) -> Vec<wire::Message> {
    let mut room = Room::in_page(hub);
    let messages = records.iter().map(|record| wire_message(conversation, record));
    messages.take_while(|message| room.take(message)).collect()
}

/// What a page may still carry.
struct Room {
    bytes: usize,
    is_empty: bool,
}

impl Room {
    /// Bytes of a page beside its entries: range, conversation, head and flags.
    const BESIDE_ENTRIES: usize = 128;

    /// Bytes around each entry: one of tag and up to four of length.
    const TAG_AND_LENGTH: usize = 5;

    fn in_page(hub: &Hub) -> Self {
        let bytes = hub.rules.limits.max_frame_bytes as usize - Self::BESIDE_ENTRIES;
        Self { bytes, is_empty: true }
    }

    /// Whether one more entry fits. The first always does: the limits leave room for the
    /// envelope of one message, and a head is smaller.
    fn take(&mut self, entry: &impl prost::Message) -> bool {
        let size = entry.encoded_len() + Self::TAG_AND_LENGTH;
        if size > self.bytes && !self.is_empty {
            return false;
        }
        self.is_empty = false;
        self.bytes = self.bytes.saturating_sub(size);
        true
    }
}

async fn members_of(
    hub: &Hub,
    conversation: ConversationId,
) -> Result<Option<Vec<UserId>>, StoreError> {
    match hub.peek(conversation) {
        Some(peek) => Ok(Some(peek.members.to_vec())),
        None => hub.store.members(conversation).await,
    }
}

/// A conversation's head, or nothing if the user is not in it.
async fn head_of(
    hub: &Hub,
    user: &UserId,
    conversation: ConversationId,
) -> Result<Option<wire::Head>, StoreError> {
    let Some(members) = members_of(hub, conversation).await? else {
        return Ok(None);
    };
    let mut cursors = Vec::with_capacity(members.len());
    for member in &members {
        cursors.push(hub.store.cursors(member.clone(), conversation).await?);
    }
    // Those in memory may not be written yet, and others may have been written elsewhere.
    if let Some(peek) = hub.peek(conversation) {
        for (cursor, here) in cursors.iter_mut().zip(peek.cursors) {
            cursor.delivered = cursor.delivered.max(here.delivered);
            cursor.read = cursor.read.max(here.read);
        }
    }
    // Last, so that no cursor is past the head: what was delivered meanwhile is in it.
    let extent = hub.store.extent(conversation).await?;
    let mut head = wire::Head {
        conversation: id_bytes(conversation),
        seq: extent.head,
        first_seq: extent.first,
        ..Default::default()
    };
    let mut is_member = false;
    for (member, cursor) in members.iter().zip(&cursors) {
        if member == user {
            is_member = true;
            (head.delivered, head.read) = (cursor.delivered, cursor.read);
        } else {
            head.members.push(wire::MemberCursors {
                user: member.as_str().into(),
                delivered: cursor.delivered,
                read: cursor.read,
            });
        }
    }
    Ok(is_member.then_some(head))
}
