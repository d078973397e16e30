//! Up to where the application has everything, per conversation.
//!
//! A client that remembers its positions goes on there after a restart; one that does not begins
//! where its builder says. Losing the last moments of them repeats messages, never loses any.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use skein_protocol::client::Restored;
use skein_protocol::{ConversationId, Seq};

use crate::journal::Journal;

/// Remembers positions. Called from a thread of its own; it may block.
pub trait Positions: Send + 'static {
    /// What was remembered. Called once, first.
    ///
    /// # Errors
    /// It cannot be read.
    fn load(&mut self) -> io::Result<Restored>;

    /// The gateway's log was replaced: forgets everything, and belongs to this epoch now.
    ///
    /// # Errors
    /// It cannot be written.
    fn reset(&mut self, epoch: u64) -> io::Result<()>;

    /// Positions have risen.
    ///
    /// # Errors
    /// It cannot be written.
    fn advance(&mut self, positions: &[(ConversationId, Seq)]) -> io::Result<()>;
}

/// Forgets everything with the process.
#[derive(Debug, Default)]
pub struct MemoryPositions;

impl Positions for MemoryPositions {
    fn load(&mut self) -> io::Result<Restored> {
        Ok(Restored::default())
    }

    fn reset(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn advance(&mut self, _: &[(ConversationId, Seq)]) -> io::Result<()> {
        Ok(())
    }
}

/// Positions in a file, without fsync. One process at a time.
#[derive(Debug)]
pub struct FilePositions {
    journal: Journal,
    epoch: u64,
    table: BTreeMap<ConversationId, Seq>,
}

/// Bytes of a record that names an epoch, and of one that names a position.
const EPOCH_BYTES: usize = 8;
const POSITION_BYTES: usize = 24;

impl FilePositions {
    /// Opens the positions in this folder, or makes some.
    ///
    /// # Errors
    /// The folder cannot be used, another process uses it, or it is from a newer version.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let (journal, records) = Journal::open(dir, "positions")?;
        let mut positions = Self { journal, epoch: 0, table: BTreeMap::new() };
        for record in records {
            positions.apply(&record).ok_or_else(|| {
                let text = "the positions hold a record of a newer version";
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
        }
        Ok(positions)
    }

    fn apply(&mut self, record: &[u8]) -> Option<()> {
        if let Ok(epoch) = <[u8; EPOCH_BYTES]>::try_from(record) {
            self.epoch = u64::from_le_bytes(epoch);
            self.table.clear();
            return Some(());
        }
        let record = <[u8; POSITION_BYTES]>::try_from(record).ok()?;
        let (id, seq) = record.split_first_chunk::<16>()?;
        let seq = Seq::from_le_bytes(seq.try_into().ok()?);
        self.table.insert(ConversationId::parse(id).ok()?, seq);
        Some(())
    }
}

impl Positions for FilePositions {
    fn load(&mut self) -> io::Result<Restored> {
        let positions = self.table.iter().map(|(&id, &seq)| (id, seq)).collect();
        Ok(Restored { epoch: self.epoch, positions })
    }

    fn reset(&mut self, epoch: u64) -> io::Result<()> {
        self.journal.append(&[epoch.to_le_bytes().to_vec()], false)?;
        self.epoch = epoch;
        self.table.clear();
        Ok(())
    }

    fn advance(&mut self, positions: &[(ConversationId, Seq)]) -> io::Result<()> {
        let records: Vec<Vec<u8>> = positions.iter().map(encode).collect();
        self.journal.append(&records, false)?;
        self.table.extend(positions.iter().copied());
        // Length and checksum come on top of each.
        if self.journal.wants_compaction(self.table.len() as u64 * 36) {
            let epoch = self.epoch.to_le_bytes().to_vec();
            let table = self.table.iter().map(|(&id, &seq)| encode(&(id, seq)));
            let records: Vec<Vec<u8>> = std::iter::once(epoch).chain(table).collect();
            self.journal.rewrite(&records)?;
        }
        Ok(())
    }
}

fn encode((id, seq): &(ConversationId, Seq)) -> Vec<u8> {
    [&id.as_bytes()[..], &seq.to_le_bytes()[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(n: u8) -> ConversationId {
        let mut id = [n; 16];
        id[0] = 1;
        ConversationId::parse(&id).unwrap()
    }

    #[test]
    fn they_survive_and_a_new_epoch_voids_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut positions = FilePositions::open(dir.path()).unwrap();
        positions.reset(7).unwrap();
        positions.advance(&[(conversation(1), 3), (conversation(2), 4)]).unwrap();
        positions.advance(&[(conversation(1), 9)]).unwrap();
        drop(positions);
        let mut positions = FilePositions::open(dir.path()).unwrap();
        let found = positions.load().unwrap();
        assert_eq!(
            (found.epoch, &found.positions[..]),
            (7, &[(conversation(1), 9), (conversation(2), 4)][..])
        );
        positions.reset(8).unwrap();
        drop(positions);
        let found = FilePositions::open(dir.path()).unwrap().load().unwrap();
        assert_eq!((found.epoch, found.positions.len()), (8, 0));
    }

    #[test]
    fn the_file_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let mut positions = FilePositions::open(dir.path()).unwrap();
        positions.reset(7).unwrap();
        for seq in 0..60_000 {
            positions.advance(&[(conversation(1), seq)]).unwrap();
        }
        assert!(std::fs::metadata(dir.path().join("positions")).unwrap().len() < 1_100_000);
        drop(positions);
        let found = FilePositions::open(dir.path()).unwrap().load().unwrap();
        assert_eq!(found.positions, [(conversation(1), 59_999)]);
    }
}
