//! Cuts off a commit that a power failure left torn at the very end of the journal.
//!
//! The pages of a commit under way reach the disk in any order. If one in the middle is missing,
//! fjall either finds an entry that cannot be and drops the commit, or, where the page lay inside
//! one long value, finds a complete commit with a wrong checksum and refuses to open. The second
//! case is mended here, and only if that commit is the last thing in the newest journal: the next
//! one is not begun before this one is synced, so an acknowledged commit that something follows is
//! never touched, and damage further in is still refused.
//!
//! fjall itself says where the good part ends: it reads a copy of the journal in a database of its
//! own that holds nothing else.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use fjall::Database;

/// Mends the journal of the database in `place`; `scratch` is a folder that may be made and
/// removed. `false` if the journal is not torn in this way; then nothing was changed.
pub(super) fn cut_torn_end(place: &Path, scratch: &Path) -> io::Result<bool> {
    let Some(journal) = newest_journal(place)? else { return Ok(false) };
    let mut bytes = fs::read(&journal)?;
    // A commit ends with a byte that is not zero; behind the last one lies space not yet used.
    let Some(last) = bytes.iter().rposition(|&byte| byte != 0) else { return Ok(false) };
    bytes.truncate(last + 1);
    let good = good_part(scratch, &bytes);
    if scratch.try_exists()? {
        fs::remove_dir_all(scratch)?;
    }
    let Some(good) = good? else { return Ok(false) };
    let file = File::options().write(true).open(&journal)?;
    file.set_len(good)?;
    file.sync_all()?;
    tracing::warn!(
        journal = %journal.display(),
        bytes = bytes.len() as u64 - good,
        "the last commit was torn by a crash and never acknowledged; it was cut off"
    );
    Ok(true)
}

/// Length of all but the last commit, if that one alone is broken.
fn good_part(scratch: &Path, bytes: &[u8]) -> io::Result<Option<u64>> {
    if scratch.try_exists()? {
        fs::remove_dir_all(scratch)?;
    }
    drop(Database::builder(scratch).worker_threads(1).open().map_err(other)?);
    let journal = scratch.join("0.jnl");
    // Without its last byte the last commit is unfinished, which fjall drops without complaint.
    // If it still complains, what is broken lies further in.
    fs::write(&journal, &bytes[..bytes.len() - 1])?;
    match Database::builder(scratch).worker_threads(1).open() {
        Ok(database) => drop(database),
        Err(fjall::Error::JournalRecovery(_)) => return Ok(None),
        Err(error) => return Err(other(error)),
    }
    Ok(Some(fs::metadata(&journal)?.len()))
}

fn newest_journal(place: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(place)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        if let Some(number) = number
            && newest.as_ref().is_none_or(|(other, _)| *other < number)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

fn other(error: fjall::Error) -> io::Error {
    match error {
        fjall::Error::Io(error) => error,
        error => io::Error::other(error.to_string()),
    }
}
