//! What a page holds, read from the store. Reads that need not wait for each other do not: the store
//! may be a network away.

use skein_protocol::server::{PullRange, Target};
use skein_protocol::wire;
use skein_protocol::{Code, ConversationId, Seq, UserId};
use skein_storage::{Direction, Page as Budget, Record, StoreError, View};

use crate::hub::{Hub, conversation_of, cursors_of, id_bytes, wire_message};
use crate::lane::Peek;

/// Messages in one page.
const PAGE_RECORDS: usize = 256;

/// Reads the next page of a range, and what is left of the range after it.
pub(super) async fn read_range(
    hub: &Hub,
    user: &UserId,
    mut range: PullRange,
    bytes: usize,
) -> Result<(wire::PullPage, PullRange), StoreError> {
    let conversation = conversation_of(user, &range.target);
    let mut page = wire::PullPage {
        conversation: id_bytes(conversation),
        is_end: true,
        first_seq: 1,
        ..Default::default()
    };
    let here = hub.peek(conversation);
    // To who names an end the log is said to reach it.
    let named = if range.to == Seq::MAX { 0 } else { range.to };
    let known = here.as_ref().map_or(0, |here| here.known).max(named);
    // First of all: a page may be megabytes of the store's work, and anybody can name anything.
    let Some(members) = members_of(hub, conversation, here).await? else {
        // Nobody has written to this user yet: an empty conversation, not an error.
        if !matches!(range.target, Target::User(_)) {
            page.error_code = Code::UnknownConversation.number();
        }
        return Ok((page, range));
    };
    if !members.contains(user) {
        page.error_code = Code::UnknownConversation.number();
        return Ok((page, range));
    }
    let direction = if range.backward { Direction::Backward } else { Direction::Forward };
    let budget = Budget { records: PAGE_RECORDS.min(range.limit as usize), bytes };
    let asked = range.from..=range.to;
    let view = hub.store.view(conversation, asked.clone(), direction, budget, known);
    let View { extent, records } = view.await?;
    (page.head, page.first_seq) = (extent.head, extent.first);
    let (from, to) = extent.clip(&asked).into_inner();
    if from > to || range.limit == 0 {
        return Ok((page, range));
    }
    page.messages = fitting(hub, conversation, &records);
    let taken = page.messages.len() as u32;
    if !range.backward {
        let taken = &records[..page.messages.len()];
        page.first_seq = page.first_seq.max(behind_last_hole(from, to, taken));
    }
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
    Ok((page, range))
}

/// Retention takes messages roughly in the order of the log: what it takes after the extent was
/// read, or takes earlier than an older one, is missing in between. Whoever pulls must not wait for
/// it, so the first number that can still be read is the one behind the last such hole.
fn behind_last_hole(from: Seq, to: Seq, records: &[Record]) -> Seq {
    if records.is_empty() {
        return to + 1;
    }
    let expected = std::iter::once(from).chain(records.iter().map(|record| record.seq + 1));
    let holes = records.iter().zip(expected).filter(|(record, expected)| record.seq != *expected);
    holes.last().map_or(1, |(record, _)| record.seq)
}

/// As many of the records as a frame can carry.
fn fitting(hub: &Hub, conversation: ConversationId, records: &[Record]) -> Vec<wire::Message> {
    let mut room = Room::in_page(hub);
    let messages = records.iter().map(|record| wire_message(conversation, record));
    messages.take_while(|message| room.take(message)).collect()
}

/// What a page may still carry.
pub(super) struct Room {
    bytes: usize,
    is_empty: bool,
}

impl Room {
    /// Bytes of a page beside its entries: range, conversation, head and flags.
    const BESIDE_ENTRIES: usize = 128;

    /// Bytes around each entry: one of tag and up to four of length.
    const TAG_AND_LENGTH: usize = 5;

    pub(super) fn in_page(hub: &Hub) -> Self {
        let bytes = hub.settings().rules.limits.max_frame_bytes as usize - Self::BESIDE_ENTRIES;
        Self { bytes, is_empty: true }
    }

    /// Whether one more entry fits. The first always does: the limits leave room for the
    /// envelope of one message, and a head is smaller.
    pub(super) fn take(&mut self, entry: &impl prost::Message) -> bool {
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
    here: Option<Peek>,
) -> Result<Option<Vec<UserId>>, StoreError> {
    match here {
        Some(peek) => Ok(Some(peek.members.to_vec())),
        None => hub.store.members(conversation).await,
    }
}

/// A conversation's head, or nothing if the user is not in it.
pub(super) async fn head_of(
    hub: &Hub,
    user: &UserId,
    conversation: ConversationId,
) -> Result<Option<wire::Head>, StoreError> {
    let here = hub.peek(conversation);
    let known = here.as_ref().map_or(0, |here| here.known);
    let Some(members) = members_of(hub, conversation, here).await? else {
        return Ok(None);
    };
    let (cursors, extent) = tokio::join!(
        cursors_of(&*hub.store, conversation, &members),
        hub.store.look(conversation, known),
    );
    let (mut cursors, extent) = (cursors?, extent?);
    // Those in memory may not be written yet, and others may have been written elsewhere.
    if let Some(peek) = hub.peek(conversation) {
        for (cursor, here) in cursors.iter_mut().zip(peek.cursors) {
            cursor.delivered = cursor.delivered.max(here.delivered);
            cursor.read = cursor.read.max(here.read);
        }
    }
    // What was delivered since the extent was read is left to the next answer.
    for cursor in &mut cursors {
        cursor.delivered = cursor.delivered.min(extent.head);
        cursor.read = cursor.read.min(extent.head);
    }
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
