//! Settings of the embedded store and why it cannot be opened.

use std::path::PathBuf;

use crate::StoreError;

/// Bounds of memory and disk. Every field has a default that suits a small server.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Bytes of recently written messages held in memory before they are sorted into a file.
    /// Default 32 MiB, 1 - 1024 MiB. Up to four times this much is in use while the disk is
    /// behind. Fixed when the store is created.
    pub memtable_bytes: u64,
    /// Bytes of cache for blocks read from disk. Default 64 MiB.
    pub cache_bytes: u64,
    /// Bytes that the journal may take on disk before memory is flushed to let go of it. Default
    /// 256 MiB, at least 64 MiB. Opening after a crash reads all of it.
    pub journal_bytes: u64,
    /// Bytes of payload that one commit gathers before it is written. Default 8 MiB. Bounds the
    /// memory of a commit; smaller makes more fsyncs of the same work.
    pub commit_bytes: usize,
    /// Conversations whose head is kept in memory. Default 131072 (about 6 MiB). Others cost a
    /// read of their last key when they are appended to.
    pub cached_heads: usize,
    /// Free bytes on the volume below which writes are refused with
    /// [`StoreError::Unavailable`], until there is room again. Default 256 MiB; 0 turns it off.
    /// Keeps a full disk from ever reaching a write that would stop the store for good, and
    /// leaves room for files that are being merged.
    pub reserve_bytes: u64,
    /// Threads that read. Default 4, at least 1.
    pub read_threads: usize,
    /// Reads that may wait for a thread; more are refused with [`StoreError::Unavailable`].
    /// Default 16384: at 10,000 reads a second about as long as anybody waits.
    pub waiting_reads: usize,
    /// Threads that flush and merge files. Default 2, at least 1.
    pub compaction_threads: usize,
    #[cfg(test)]
    pub(crate) faults: std::sync::Arc<super::faults::Faults>,
}

const MIB: u64 = 1024 * 1024;

/// Below this the journal cannot be bounded: one file of it is as long.
pub(super) const MIN_JOURNAL_BYTES: u64 = 64 * MIB;

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            memtable_bytes: 32 * MIB,
            cache_bytes: 64 * MIB,
            journal_bytes: 256 * MIB,
            commit_bytes: 8 * MIB as usize,
            cached_heads: 128 * 1024,
            reserve_bytes: 256 * MIB,
            read_threads: 4,
            waiting_reads: 16 * 1024,
            compaction_threads: 2,
            #[cfg(test)]
            faults: std::sync::Arc::default(),
        }
    }
}

/// Why the embedded store was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder cannot be used.
    #[error("cannot {what} {path}: {source}")]
    Path {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has the store open.
    #[error("the store in {path} is in use by another process{}; stop that process, or choose another folder", holder(*.pid))]
    InUse {
        /// The store's folder.
        path: PathBuf,
        /// The other process, if it left its number.
        pid: Option<u32>,
    },
    /// Written by a later version of the program.
    #[error(
        "the data in {path} was written by a newer skein (schema {found}, this one knows up to {known}); run that version, or restore a backup"
    )]
    Newer {
        /// The store's folder.
        path: PathBuf,
        /// Its schema version.
        found: String,
        /// The schema version of this program.
        known: u32,
    },
    /// Written by a version so old that it cannot be read.
    #[error("the data in {path} has schema {found}, which this skein (schema {known}) cannot read")]
    Older {
        /// The store's folder.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The schema version of this program.
        known: u32,
    },
    /// The files are not what a store leaves behind.
    #[error("the store in {path} cannot be opened: {reason}")]
    Damaged {
        /// The store's folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An option is outside its range.
    #[error("{0}")]
    Option(String),
    /// It could not be read.
    #[error("the store in {path} cannot be opened: {source}")]
    Store {
        /// The store's folder.
        path: PathBuf,
        /// What went wrong.
        source: StoreError,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl EmbeddedOptions {
    /// Names the first option that is outside its range.
    pub(super) fn check(&self) -> Result<(), OpenError> {
        let bad = if !(MIB..=1024 * MIB).contains(&self.memtable_bytes) {
            "memtable_bytes must be 1 MiB - 1 GiB"
        } else if self.journal_bytes < MIN_JOURNAL_BYTES {
            "journal_bytes must be at least 64 MiB"
        } else if self.commit_bytes == 0 || self.waiting_reads == 0 {
            "commit_bytes and waiting_reads must not be 0"
        } else if self.read_threads == 0 || self.compaction_threads == 0 {
            "read_threads and compaction_threads must be at least 1"
        } else {
            return Ok(());
        };
        Err(OpenError::Option(bad.into()))
    }
}
