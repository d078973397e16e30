//! Small files that are there complete or not at all, also after a loss of power.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::path::Path;

/// Who may read a file, and whether it may replace another.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    Owner,
    /// A file that is there already stays: somebody was faster, and theirs is as good, and may be
    /// in use.
    OwnerOnce,
    All,
}

/// Writes the file, readable by its owner alone from the first byte on.
pub(crate) fn put(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    if let (Access::All, Some(permissions)) = (access, readable_by_all()) {
        file.as_file().set_permissions(permissions)?;
    }
    file.as_file().sync_all()?;
    match access {
        Access::Owner | Access::All => file.persist(path).map(drop)?,
        Access::OwnerOnce => match file.persist_noclobber(path) {
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map(drop)?,
        },
    }
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(unix)]
fn readable_by_all() -> Option<Permissions> {
    use std::os::unix::fs::PermissionsExt;
    Some(Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable_by_all() -> Option<Permissions> {
    None
}
