//! From a folder to an open engine: made at the first start, checked at each later one.
//!
//! ```text
//! FOLDER/lock         see `lock`
//! FOLDER/db/          fjall's files
//! FOLDER/db.scratch/  only while a journal is mended, see `mend`
//! FOLDER/db.new/      a database that is being made; renamed to `db` when it is whole
//! ```
//! After a run that did not end in good order the journal is first written over itself. If an
//! fsync had failed then, the system may hold pages that are not on disk and that it takes for
//! written (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
//! Written anew, they reach the disk before anybody is shown what is in them.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use fjall::config::BlockSizePolicy;
use fjall::{Database, KeyspaceCreateOptions};

use super::engine::{Engine, Table, Write as Row};
use super::lock::Lock;
use super::options::{EmbeddedOptions, OpenError};
use super::{keys, mend, row};

/// Version of keys and rows that this program writes. Raise it together with a migration.
pub(super) const SCHEMA: u32 = 1;

/// Version of fjall's files that this program writes.
const ENGINE_FORMAT: u8 = 3;

/// Opens the database in `folder`, or makes it. Returns it and its epoch.
pub(super) fn open(
    folder: &Path,
    options: &EmbeddedOptions,
    after_crash: bool,
) -> Result<(Engine, u64), OpenError> {
    let place = folder.join("db");
    if place.try_exists().map_err(failed("look at", &place))? {
        check_engine_format(folder, &place)?;
        if after_crash {
            rewrite_journals(&place)?;
        }
    } else {
        create(folder, &place, options)?;
    }
    let engine = match open_engine(&place, options) {
        Err(fjall::Error::JournalRecovery(_)) if after_crash => {
            mend::cut_torn_end(&place, &folder.join("db.scratch"))
                .map_err(failed("mend the journal in", &place))?;
            open_engine(&place, options)
        }
        other => other,
    };
    let engine = engine.map_err(|error| explain(folder, &place, error))?;
    let meta = engine
        .meta()
        .map_err(|source| OpenError::Store { path: folder.into(), source })?
        .ok_or_else(|| damaged(folder, "it does not say which schema it has"))?;
    let path = folder.to_path_buf();
    match meta.schema {
        SCHEMA => Ok((engine, meta.epoch)),
        found if found > SCHEMA => {
            Err(OpenError::Newer { path, found: found.to_string(), known: SCHEMA })
        }
        found => Err(OpenError::Older { path, found, known: SCHEMA }),
    }
}

/// Makes the database beside its place and moves it there when it is whole: a crash half-way
/// leaves nothing that a later start would take for a store.
fn create(folder: &Path, place: &Path, options: &EmbeddedOptions) -> Result<(), OpenError> {
    let unfinished = folder.join("db.new");
    if unfinished.try_exists().map_err(failed("look at", &unfinished))? {
        fs::remove_dir_all(&unfinished).map_err(failed("remove", &unfinished))?;
    }
    let engine = open_engine(&unfinished, options).map_err(|e| explain(folder, &unfinished, e))?;
    write_epoch(folder, &engine, rand::random())?;
    drop(engine);
    fs::rename(&unfinished, place).map_err(failed("rename", &unfinished))?;
    sync_folder(folder).map_err(failed("sync", folder))
}

/// Gives the log of the store in `folder` a new epoch, and returns it. For a store into which an older
/// state was put back.
pub(super) fn renew_epoch(folder: &Path, options: &EmbeddedOptions) -> Result<u64, OpenError> {
    let place = folder.join("db");
    if !place.try_exists().map_err(failed("look at", &place))? {
        return Err(OpenError::Path {
            what: "find a store in",
            path: folder.into(),
            source: io::ErrorKind::NotFound.into(),
        });
    }
    let lock = Lock::take(folder)?;
    let (engine, _) = open(folder, options, lock.after_crash)?;
    // At random: the same state may be put back a second time, and clients know what came of the first.
    let epoch = rand::random();
    write_epoch(folder, &engine, epoch)?;
    drop(engine);
    lock.leave_in_order();
    Ok(epoch)
}

fn write_epoch(folder: &Path, engine: &Engine, epoch: u64) -> Result<(), OpenError> {
    let meta = row::MetaRow { schema: SCHEMA, epoch };
    let row = Row { table: Table::Side, key: keys::META.to_vec(), value: row::encode_meta(&meta) };
    engine.commit(vec![row], true).map_err(|e| damaged(folder, e))?;
    engine.sync().map_err(|e| damaged(folder, e))
}

fn open_engine(place: &Path, options: &EmbeddedOptions) -> Result<Engine, fjall::Error> {
    let db = Database::builder(place)
        .cache_size(options.cache_bytes)
        .max_journaling_size(options.journal_bytes)
        .worker_threads(options.compaction_threads)
        // Each batch says itself how durable it is.
        .manual_journal_persist(true)
        .open()?;
    // Values stay in the tree (no key-value separation): a message is small, and the files that
    // separation adds have a garbage collection of their own to go wrong.
    let log = db.keyspace("log", || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(options.memtable_bytes)
            // A page of history is read in order: larger blocks, fewer of them.
            .data_block_size_policy(BlockSizePolicy::all(8 * 1024))
    })?;
    let side = db.keyspace("side", || {
        KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes.min(8 << 20))
    })?;
    Ok(Engine::new(db, log, side))
}

fn explain(folder: &Path, place: &Path, error: fjall::Error) -> OpenError {
    match error {
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => {
            failed("open", place)(source)
        }
        fjall::Error::Locked => OpenError::InUse { path: folder.into(), pid: None },
        other => damaged(folder, other),
    }
}

/// fjall writes its version into a file; one that this program does not know is named.
fn check_engine_format(folder: &Path, place: &Path) -> Result<(), OpenError> {
    let marker = place.join("version");
    let header = match fs::read(&marker) {
        Ok(header) => header,
        // Without this file fjall would begin a new database on top of the old one.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(folder, format!("{} is missing", marker.display())));
        }
        Err(e) => return Err(failed("read", &marker)(e)),
    };
    match header.as_slice() {
        [b'F', b'J', b'L', ENGINE_FORMAT, ..] => Ok(()),
        [b'F', b'J', b'L', newer, ..] if *newer > ENGINE_FORMAT => Err(OpenError::Newer {
            path: folder.into(),
            found: format!("{SCHEMA} or later on engine format {newer}"),
            known: SCHEMA,
        }),
        _ => Err(damaged(folder, format!("{} is not what it should be", marker.display()))),
    }
}

/// Writes and syncs each journal anew.
fn rewrite_journals(place: &Path) -> Result<(), OpenError> {
    let mut rewritten = 0;
    for entry in fs::read_dir(place).map_err(failed("read", place))? {
        let path = entry.map_err(failed("read", place))?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            rewritten += rewrite(&path).map_err(failed("rewrite", &path))?;
        }
    }
    tracing::warn!(
        folder = %place.display(),
        journal_bytes = rewritten,
        "the last run did not close the store; its journal was read and written again"
    );
    Ok(())
}

/// Writes each byte of a file over itself and syncs it. In place: it takes no space, which may be
/// just what was wanting, and a crash on the way leaves the same bytes. Journals are allocated
/// ahead and mostly holes; holes stay holes. Returns how many bytes were written.
fn rewrite(path: &Path) -> io::Result<u64> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let mut chunk = vec![0; 256 * 1024];
    let (mut position, mut written) = (0, 0);
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        if chunk[..n].iter().any(|&byte| byte != 0) {
            file.seek(SeekFrom::Start(position))?;
            file.write_all(&chunk[..n])?;
            written += n as u64;
        }
        position += n as u64;
    }
    file.sync_all()?;
    Ok(written)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(windows) {
        return Ok(());
    }
    File::open(folder)?.sync_all()
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_path_buf();
    move |source| OpenError::Path { what, path, source }
}

fn damaged(folder: &Path, reason: impl ToString) -> OpenError {
    OpenError::Damaged { path: folder.into(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewritten_file_is_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.jnl");
        let mut bytes = vec![0; 900_000];
        bytes[5] = 1;
        bytes[600_000..600_100].fill(7);
        fs::write(&path, &bytes).unwrap();
        // Chunks one and three hold something, two and four do not.
        assert_eq!(rewrite(&path).unwrap(), 2 * 256 * 1024);
        assert!(fs::read(&path).unwrap() == bytes);
        fs::write(&path, b"").unwrap();
        assert_eq!(rewrite(&path).unwrap(), 0);
    }
}
