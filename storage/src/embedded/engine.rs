//! fjall as the store uses it: two keyspaces, one way to write, reads on snapshots.
//!
//! A commit goes to the journal and, if it must be durable, through `fdatasync`; only then does
//! fjall put its rows where reads find them, and a snapshot shows all rows of a commit or none.
//! So whatever a read returns is on disk, with one exception that the traits allow: a cursor.

use std::ops::RangeInclusive;

use bytes::Bytes;
use fjall::{Database, Keyspace, PersistMode, Readable, Snapshot};
use skein_protocol::{ConversationId, Seq, UserId};

use super::retired::Memory;
use super::{keys, row};
use crate::{CursorPair, Direction, Extent, Page, Record, StoreError};

/// The open database. Clones share it; the last one to go closes it.
#[derive(Clone)]
pub(super) struct Engine {
    db: Database,
    log: Keyspace,
    side: Keyspace,
}

/// In which keyspace a row belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// Messages.
    Log,
    /// All else.
    Side,
}

/// A row to be written.
pub(super) struct Write {
    pub(super) table: Table,
    pub(super) key: Vec<u8>,
    pub(super) value: Bytes,
}

/// Flushes that may be pending in a keyspace before writes wait. At four, fjall waits inside the
/// commit, and for ever if the thread that flushes has ended.
const MAX_PENDING_FLUSHES: usize = 3;

/// Runs of new files that may wait for merging before writes wait. At thirty, fjall waits inside
/// the commit, as above.
const MAX_UNMERGED_RUNS: usize = 28;

impl Engine {
    pub(super) fn new(db: Database, log: Keyspace, side: Keyspace) -> Self {
        Self { db, log, side }
    }

    /// Writes all rows or none of them; with `durable` they survive power loss once it returns.
    /// After an error nothing may be written any more: how much of it is on disk is unknown.
    pub(super) fn commit(&self, writes: Vec<Write>, durable: bool) -> Result<(), fjall::Error> {
        let mode = if durable { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.db.clone(), writes.len())
            .durability(Some(mode));
        for Write { table, key, value } in writes {
            let keyspace = match table {
                Table::Log => &self.log,
                Table::Side => &self.side,
            };
            batch.insert(keyspace, key, value);
        }
        batch.commit()
    }

    /// Whether the background threads keep up, so that a commit will not wait for them.
    pub(super) fn has_room(&self) -> bool {
        use fjall::AbstractTree;
        [&self.log, &self.side].into_iter().all(|keyspace| {
            keyspace.sealed_memtable_count() < MAX_PENDING_FLUSHES
                && keyspace.tree.l0_run_count() < MAX_UNMERGED_RUNS
        })
    }

    /// The memtables that take writes, each with its number.
    pub(super) fn memory(&self) -> [(u64, Memory); 2] {
        use fjall::AbstractTree;
        [&self.log, &self.side].map(|keyspace| {
            let memtable = keyspace.tree.active_memtable();
            (memtable.id(), memtable as Memory)
        })
    }

    /// An error if a background thread has failed: fjall then accepts no write any more.
    pub(super) fn check(&self) -> Result<(), fjall::Error> {
        self.db.persist(PersistMode::Buffer)
    }

    /// Makes everything durable, the last cursors included.
    pub(super) fn sync(&self) -> Result<(), fjall::Error> {
        self.db.persist(PersistMode::SyncAll)
    }

    /// What all further reads of one call look at.
    fn view(&self) -> Snapshot {
        self.db.snapshot()
    }

    fn side_row(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let row = self.view().get(&self.side, key).map_err(unreadable)?;
        Ok(row.map(Bytes::from))
    }

    pub(super) fn meta(&self) -> Result<Option<row::MetaRow>, StoreError> {
        self.side_row(keys::META)?.map(row::decode_meta).transpose()
    }

    /// Last number in a conversation's log; 0 if it is empty.
    pub(super) fn head(&self, conversation: ConversationId) -> Result<Seq, StoreError> {
        let mut all = self.view().range(&self.log, whole(conversation));
        Ok(number(all.next_back())?.unwrap_or(0))
    }

    pub(super) fn extent(&self, conversation: ConversationId) -> Result<Extent, StoreError> {
        let mut all = self.view().range(&self.log, whole(conversation));
        let Some(head) = number(all.next_back())? else {
            return Ok(Extent { first: 1, head: 0 });
        };
        // With a single row the iterator is used up by now.
        let first = number(all.next())?.unwrap_or(head);
        Ok(Extent { first, head })
    }

    pub(super) fn read(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<Seq>,
        direction: Direction,
        page: Page,
    ) -> Result<Vec<Record>, StoreError> {
        let (from, to) = range.into_inner();
        if from > to {
            return Ok(Vec::new());
        }
        let range = keys::message(conversation, from)..=keys::message(conversation, to);
        let mut rows = self.view().range(&self.log, range);
        let mut found: Vec<Record> = Vec::new();
        let mut bytes = 0;
        loop {
            let next = match direction {
                Direction::Forward => rows.next(),
                Direction::Backward => rows.next_back(),
            };
            let Some(next) = next else { return Ok(found) };
            let (key, value) = next.into_inner().map_err(unreadable)?;
            let seq = keys::seq_of(&key).ok_or_else(foreign_key)?;
            if let Some(last) = found.last()
                && last.seq.abs_diff(seq) != 1
            {
                return Err(StoreError::Damaged(format!(
                    "conversation {conversation} has no message between {} and {seq}",
                    last.seq
                )));
            }
            let record = row::decode_message(seq, value.into())?;
            bytes += record.payload.len();
            found.push(record);
            if found.len() >= page.records || bytes >= page.bytes {
                return Ok(found);
            }
        }
    }

    pub(super) fn cursors(
        &self,
        user: &UserId,
        conversation: ConversationId,
    ) -> Result<CursorPair, StoreError> {
        let row = self.side_row(&keys::cursors(user, conversation))?;
        row.map_or(Ok(CursorPair::default()), row::decode_cursors)
    }

    pub(super) fn members(
        &self,
        conversation: ConversationId,
    ) -> Result<Option<Vec<UserId>>, StoreError> {
        self.side_row(&keys::members(conversation))?.map(row::decode_members).transpose()
    }

    pub(super) fn conversations(
        &self,
        user: &UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let prefix = keys::index_prefix(user);
        let rows = match after {
            None => self.view().prefix(&self.side, &prefix),
            Some(after) => {
                let start = keys::index(user, after);
                let mut end = prefix;
                end.extend_from_slice(&[0xff; 16]);
                self.view().range(&self.side, start..=end)
            }
        };
        // The row of `after` itself may be there or not.
        rows.map(|row| {
            let key = row.key().map_err(unreadable)?;
            keys::conversation_of(&key).ok_or_else(foreign_key)
        })
        .filter(|id| !matches!(id, Ok(id) if Some(*id) == after))
        .take(limit)
        .collect()
    }
}

/// All keys that a conversation's messages can have.
fn whole(conversation: ConversationId) -> RangeInclusive<[u8; 24]> {
    keys::message(conversation, 0)..=keys::message(conversation, Seq::MAX)
}

fn number(row: Option<fjall::Guard>) -> Result<Option<Seq>, StoreError> {
    let Some(row) = row else { return Ok(None) };
    let key = row.key().map_err(unreadable)?;
    keys::seq_of(&key).ok_or_else(foreign_key).map(Some)
}

fn foreign_key() -> StoreError {
    StoreError::Damaged("a key has a form that is never written".into())
}

/// A read that failed. What the system refuses may work later; a checksum that is wrong will not.
fn unreadable(error: fjall::Error) -> StoreError {
    match &error {
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => {
            StoreError::Unavailable(format!("reading failed: {e}"))
        }
        _ => StoreError::Damaged(error.to_string()),
    }
}
