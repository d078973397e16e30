//! Where servers keep their files: everything is under `target/cql/`.
//!
//! `jars-VERSION/` is the server. Each running cluster has a `run-*` folder and holds the lock on a
//! file in it; whoever starts a cluster removes the folders that nobody holds any more. Of a cluster
//! that failed the logs stay, in `failed-*`.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::CqlError;

/// So many folders with logs of failures are kept.
const FAILURES: usize = 5;

/// The workspace's target folder: `CARGO_TARGET_DIR`, or `target`.
#[must_use]
pub fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    // A relative path is meant from where cargo was called, mostly the workspace.
    match env::var_os("CARGO_TARGET_DIR") {
        Some(target) => workspace.join(target),
        None => workspace.join("target"),
    }
}

/// `target/cql`, made if it is not there.
pub(crate) fn base() -> Result<PathBuf, CqlError> {
    let base = target().join("cql");
    fs::create_dir_all(&base).map_err(CqlError::at(&base))?;
    Ok(base)
}

/// Holds a lock between processes until it is dropped.
pub(crate) fn lock(path: &Path) -> Result<File, CqlError> {
    let file = File::create(path).map_err(CqlError::at(path))?;
    file.lock().map_err(CqlError::at(path))?;
    Ok(file)
}

/// The folder of one cluster. Dropped, it goes, except for the logs of a failure.
pub(crate) struct Folder {
    path: PathBuf,
    /// Says that the folder is in use; none once it is left to somebody else.
    held: Option<File>,
    failed: Arc<AtomicBool>,
}

impl Folder {
    /// A new folder that lives as long as this value.
    pub(crate) fn new() -> Result<Self, CqlError> {
        let base = base()?;
        // So that nobody sweeps between the making of the folder and its lock.
        let _one_at_a_time = lock(&base.join("folders.lock"))?;
        sweep(&base);
        let made = tempfile::Builder::new().prefix("run-").tempdir_in(&base);
        let path = made.map_err(CqlError::at(&base))?.keep();
        let held = lock(&path.join("held"))?;
        Ok(Self { path, held: Some(held), failed: Arc::default() })
    }

    /// The folder outlives this process; somebody else removes it.
    pub(crate) fn leave(mut self) -> Result<PathBuf, CqlError> {
        let mark = self.path.join(LEFT);
        File::create(&mark).map_err(CqlError::at(&mark))?;
        self.held = None;
        Ok(self.path.clone())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Set to true, the logs stay.
    pub(crate) fn failed(&self) -> &Arc<AtomicBool> {
        &self.failed
    }

    /// Where logs of a failure are, once the folder is gone.
    pub(crate) fn failure(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let number = name.split_once('-').map_or(&*name, |(_, number)| number);
        self.path.with_file_name(format!("failed-{number}"))
    }

    /// Moves the log of a node to where it stays.
    fn keep(&self, log: &Path) {
        let Some(node) = log.parent().and_then(Path::file_name) else { return };
        let kept = self.failure();
        let name = format!("{}.log", node.to_string_lossy());
        let _ = fs::create_dir_all(&kept).and_then(|()| fs::rename(log, kept.join(name)));
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.held.is_none() {
            return;
        }
        if self.failed.load(Ordering::Acquire) || thread::panicking() {
            for node in fs::read_dir(&self.path).into_iter().flatten().flatten() {
                self.keep(&node.path().join(LOG));
            }
            if self.failure().exists() {
                eprintln!("the logs of the CQL server are in {}", self.failure().display());
            }
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A node's log, in the node's folder.
pub(crate) const LOG: &str = "system.log";

/// A folder with this file is in use though nobody holds its lock.
const LEFT: &str = "left";

/// Removes what killed processes left behind, and old logs.
fn sweep(base: &Path) {
    let mut failures = Vec::new();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.starts_with("failed-") {
            failures.push((entry.metadata().and_then(|data| data.modified()).ok(), path));
        } else if name.starts_with("run-") && is_left(&path) {
            let _ = fs::remove_dir_all(path);
        }
    }
    failures.sort();
    let old = failures.len().saturating_sub(FAILURES);
    for (_, path) in failures.drain(..old) {
        let _ = fs::remove_dir_all(path);
    }
}

fn is_left(folder: &Path) -> bool {
    if folder.join(LEFT).exists() {
        return false;
    }
    let Ok(held) = File::open(folder.join("held")) else { return true };
    !matches!(held.try_lock(), Err(TryLockError::WouldBlock))
}
