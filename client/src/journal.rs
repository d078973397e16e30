//! An append-only file of records that survives being cut off anywhere.
//!
//! ```text
//! "skein-outbox 1\n"                                        kind and version
//! | length u32 LE | first 8 bytes of SHA-256(length, body) | body |   repeated
//! ```
//!
//! - A record counts if it is whole and its checksum is right; the file ends before the first one
//!   that is not. What is cut off there was never promised to anybody, because a promise is made
//!   after the fsync. If it is more than one torn record it is kept beside the file for a look.
//! - After a failed write or fsync nothing more is written: what the disk holds is not known
//!   until the file is read anew.
//! - A lock file keeps a second process out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Longest record, bytes: a message of the largest configurable size with its envelope.
const MAX_RECORD_BYTES: usize = 32 << 20;

/// Bytes before the body of a record.
const HEAD_BYTES: usize = 12;

/// Smallest file that is worth rewriting, bytes.
const COMPACT_FROM_BYTES: u64 = 1 << 20;

/// Records that live in one file of a locked folder.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    header: String,
    file: File,
    bytes: u64,
    failed: bool,
    /// Held for as long as the journal is open.
    _lock: File,
}

impl Journal {
    /// Opens or makes `dir/name` and reads its records in order.
    ///
    /// # Errors
    /// The folder cannot be used, another process has the file, or it is of another kind or a
    /// newer version.
    pub(crate) fn open(dir: &Path, name: &str) -> io::Result<(Self, Vec<Vec<u8>>)> {
        fs::create_dir_all(dir).map_err(|error| explain(error, dir))?;
        let lock = lock(&dir.join(format!("{name}.lock")))?;
        let path = dir.join(name);
        let header = format!("skein-{name} 1\n");
        let mut content = Vec::new();
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true);
        #[cfg(unix)]
        {
            // Messages are nobody else's business.
            file = std::os::unix::fs::OpenOptionsExt::mode(file, 0o600);
        }
        let mut file = file.open(&path).map_err(|error| explain(error, &path))?;
        file.read_to_end(&mut content)?;
        let mut journal = Self { path, header, file, bytes: 0, failed: false, _lock: lock };
        let records = journal.recover(&content)?;
        Ok((journal, records))
    }

    /// Reads what is whole and cuts the rest off.
    fn recover(&mut self, content: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let header = self.header.as_bytes();
        if !content.starts_with(header) {
            if !header.starts_with(content) {
                let path = self.path.display();
                let text = format!("{path} is not a file of this version; move it away");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            // New, or cut off before it had a header.
            self.rewrite(&[])?;
            return Ok(Vec::new());
        }
        let (records, good) = parse(content, header.len());
        let rest = &content[good..];
        if !rest.is_empty() {
            if is_more_than_torn(rest) {
                fs::write(self.path.with_extension("damaged"), rest)?;
                tracing::warn!(path = %self.path.display(), bytes = rest.len(), "damaged end set aside");
            }
            self.file.set_len(good as u64)?;
            self.file.sync_data()?;
        }
        self.bytes = good as u64;
        Ok(records)
    }

    /// Appends records in one write; with `sync`, returns once they would survive power loss.
    pub(crate) fn append(&mut self, records: &[Vec<u8>], sync: bool) -> io::Result<()> {
        let mut block = Vec::new();
        for record in records {
            encode(record, &mut block)?;
        }
        self.guard(|journal| {
            journal.file.write_all(&block)?;
            journal.bytes += block.len() as u64;
            if sync { journal.file.sync_data() } else { Ok(()) }
        })
    }

    /// Whether it is worth rewriting when `live` bytes of it are still needed.
    pub(crate) fn wants_compaction(&self, live: u64) -> bool {
        self.bytes > COMPACT_FROM_BYTES && self.bytes / 4 > live
    }

    /// Replaces everything by these records, at once or not at all.
    pub(crate) fn rewrite(&mut self, records: &[Vec<u8>]) -> io::Result<()> {
        let mut block = self.header.clone().into_bytes();
        for record in records {
            encode(record, &mut block)?;
        }
        self.guard(|journal| {
            let fresh = journal.path.with_extension("new");
            let mut file = File::create(&fresh)?;
            #[cfg(unix)]
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            file.write_all(&block)?;
            file.sync_all()?;
            fs::rename(&fresh, &journal.path)?;
            if let Some(dir) = journal.path.parent() {
                sync_dir(dir)?;
            }
            journal.file = OpenOptions::new().append(true).open(&journal.path)?;
            journal.bytes = block.len() as u64;
            Ok(())
        })
    }

    fn guard(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if self.failed {
            let path = self.path.display();
            return Err(io::Error::other(format!("{path}: an earlier write failed")));
        }
        let outcome = write(self).map_err(|error| explain(error, &self.path));
        self.failed = outcome.is_err();
        outcome
    }
}

fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| explain(error, path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let text = format!("another process holds {}", path.display());
            Err(io::Error::new(io::ErrorKind::ResourceBusy, text))
        }
        Err(TryLockError::Error(error)) => Err(explain(error, path)),
    }
}

/// Makes a rename durable; only Unix can open a folder for it, and needs to.
fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

fn explain(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn checksum(length: [u8; 4], body: &[u8]) -> [u8; 8] {
    let digest = Sha256::new().chain_update(length).chain_update(body).finalize();
    let mut sum = [0; 8];
    sum.copy_from_slice(&digest[..8]);
    sum
}

fn encode(body: &[u8], block: &mut Vec<u8>) -> io::Result<()> {
    if body.len() > MAX_RECORD_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the record is too long"));
    }
    let length = (body.len() as u32).to_le_bytes();
    block.extend_from_slice(&length);
    block.extend_from_slice(&checksum(length, body));
    block.extend_from_slice(body);
    Ok(())
}

/// The whole records from `at` on, and where they end.
fn parse(content: &[u8], mut at: usize) -> (Vec<Vec<u8>>, usize) {
    let mut records = Vec::new();
    while let Some((length, sum)) = head(&content[at..]) {
        let Some(body) = content.get(at + HEAD_BYTES..at + HEAD_BYTES + length as usize) else {
            break;
        };
        if checksum(length.to_le_bytes(), body) != sum {
            break;
        }
        at += HEAD_BYTES + body.len();
        records.push(body.to_vec());
    }
    (records, at)
}

/// Length and checksum of the record that begins here.
fn head(bytes: &[u8]) -> Option<(u32, [u8; 8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, _) = rest.split_first_chunk::<8>()?;
    let length = u32::from_le_bytes(*length);
    (length as usize <= MAX_RECORD_BYTES).then_some((length, *sum))
}

/// Whether more was cut off than the last record in the middle of its write.
fn is_more_than_torn(rest: &[u8]) -> bool {
    match head(rest) {
        None => rest.len() >= HEAD_BYTES,
        Some((length, _)) => rest.len() > HEAD_BYTES + length as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> (Journal, Vec<Vec<u8>>) {
        Journal::open(dir, "test").unwrap()
    }

    fn records(n: u8) -> Vec<Vec<u8>> {
        (0..n).map(|i| vec![i; usize::from(i) * 3]).collect()
    }

    #[test]
    fn cut_off_anywhere_it_is_a_prefix_and_can_be_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(dir.path());
        let all = records(6);
        journal.append(&all, true).unwrap();
        drop(journal);
        let content = fs::read(dir.path().join("test")).unwrap();
        for cut in 0..=content.len() {
            fs::write(dir.path().join("test"), &content[..cut]).unwrap();
            let (mut journal, found) = open(dir.path());
            assert!(all.starts_with(&found), "cut at {cut}");
            journal.append(&[b"after".to_vec()], true).unwrap();
            drop(journal);
            let (_, again) = open(dir.path());
            assert_eq!(again.len(), found.len() + 1, "cut at {cut}");
            assert_eq!(again.last().unwrap(), b"after");
        }
    }

    #[test]
    fn a_flipped_bit_is_never_taken_for_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(dir.path());
        let all = records(5);
        journal.append(&all, true).unwrap();
        drop(journal);
        let content = fs::read(dir.path().join("test")).unwrap();
        for at in "skein-test 1\n".len()..content.len() {
            let mut bad = content.clone();
            bad[at] ^= 0x10;
            fs::write(dir.path().join("test"), &bad).unwrap();
            let (_, found) = open(dir.path());
            assert!(all.starts_with(&found) && found.len() < all.len(), "flipped at {at}");
        }
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let _first = open(dir.path());
        let error = Journal::open(dir.path(), "test").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    }

    #[test]
    fn another_version_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("test"), "skein-test 2\nwhatever").unwrap();
        let error = Journal::open(dir.path(), "test").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(fs::read(dir.path().join("test")).unwrap(), b"skein-test 2\nwhatever");
    }

    #[test]
    fn a_rewrite_replaces_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(dir.path());
        journal.append(&records(5), true).unwrap();
        journal.rewrite(&[b"one".to_vec()]).unwrap();
        journal.append(&[b"two".to_vec()], true).unwrap();
        drop(journal);
        assert_eq!(open(dir.path()).1, [b"one".to_vec(), b"two".to_vec()]);
    }
}
