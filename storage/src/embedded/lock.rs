//! One process has the store, and whether the last one left in good order.
//!
//! The file `lock` in the store's folder is locked while the store is open and holds the number
//! of the process. It is emptied when the store is closed in good order, so a number in it that
//! nobody holds the lock for tells of a crash or of a store that had stopped.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::options::OpenError;

/// Held while the store is open.
pub(super) struct Lock {
    file: File,
    /// Whether the run before this one did not close the store.
    pub(super) after_crash: bool,
}

impl Lock {
    /// Takes the lock of the store in `folder`.
    pub(super) fn take(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join("lock");
        let failed = |what| {
            let path = path.clone();
            move |source| OpenError::Path { what, path, source }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open"))?;
        let locked = file.try_lock();
        let mut holder = String::new();
        // What it says is for people; a lock file that cannot be read still locks.
        let _ = (&mut file).take(32).read_to_string(&mut holder);
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = holder.trim().parse().ok();
                return Err(OpenError::InUse { path: folder.into(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        let mut lock = Self { file, after_crash: !holder.trim().is_empty() };
        lock.write(&format!("{}\n", std::process::id())).map_err(failed("write"))?;
        Ok(lock)
    }

    /// Lets go after everything has reached the disk.
    pub(super) fn leave_in_order(mut self) {
        if let Err(error) = self.write("") {
            // The next start then takes the longer way; nothing is lost.
            tracing::warn!(%error, "cannot mark the store as closed");
        }
    }

    fn write(&mut self, text: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        assert!(!lock.after_crash);
        let Err(error) = Lock::take(dir.path()) else { panic!("locked twice") };
        let text = error.to_string();
        assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
        assert!(text.contains(&dir.path().display().to_string()), "{text}");
    }

    #[test]
    fn it_knows_how_the_last_run_ended() {
        let dir = tempfile::tempdir().unwrap();
        drop(Lock::take(dir.path()).unwrap());
        let lock = Lock::take(dir.path()).unwrap();
        assert!(lock.after_crash);
        lock.leave_in_order();
        assert!(!Lock::take(dir.path()).unwrap().after_crash);
    }
}
