//! The embedded store passes the suite.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use skein_storage::Store;
use skein_storage::conformance::{Factory, Instance, Reopen};
use skein_storage::embedded::{EmbeddedOptions, EmbeddedStore};

/// The store with the options that the function gives.
struct Embedded(fn() -> EmbeddedOptions);

impl Factory for Embedded {
    fn create(&self) -> BoxFuture<'_, Box<dyn Instance>> {
        Box::pin(async {
            let folder = tempfile::tempdir().unwrap();
            let store = Some(open(folder.path(), (self.0)()));
            let options = self.0;
            Box::new(InFolder { store, folder, options }) as Box<dyn Instance>
        })
    }
}

struct InFolder {
    store: Option<Arc<EmbeddedStore>>,
    folder: tempfile::TempDir,
    options: fn() -> EmbeddedOptions,
}

fn open(folder: &Path, options: EmbeddedOptions) -> Arc<EmbeddedStore> {
    // A machine that runs tests may well be short of space.
    let options = EmbeddedOptions { reserve_bytes: 1 << 20, ..options };
    Arc::new(EmbeddedStore::open(folder.join("store"), options).unwrap())
}

impl Instance for InFolder {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().unwrap()
    }

    fn reopen(&mut self, how: Reopen) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let store = self.store.take().unwrap();
            let folder = self.folder.path();
            let live = folder.join("store");
            if how == Reopen::Killed {
                // What the files hold this moment is what a process killed now leaves behind.
                copy(&live, &folder.join("copy")).unwrap();
            }
            store.close().await.unwrap();
            drop(store);
            if how == Reopen::Killed {
                fs::remove_dir_all(&live).unwrap();
                fs::rename(folder.join("copy"), &live).unwrap();
            }
            self.store = Some(open(folder, (self.options)()));
        })
    }
}

/// Copies a folder; holes in files stay holes.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
            continue;
        }
        let (mut from, mut to) = (File::open(entry.path())?, File::create(to)?);
        let (mut chunk, mut len) = (vec![0; 1 << 18], 0);
        loop {
            let n = from.read(&mut chunk)?;
            if n == 0 {
                break;
            }
            if chunk[..n].iter().any(|&byte| byte != 0) {
                to.seek(SeekFrom::Start(len))?;
                to.write_all(&chunk[..n])?;
            }
            len += n as u64;
        }
        to.set_len(len)?;
    }
    Ok(())
}

mod as_delivered {
    skein_storage::conformance_tests!(super::Embedded(super::EmbeddedOptions::default));
}

/// Caches that hold next to nothing, commits of one job, one thread to read.
mod as_small_as_can_be {
    use super::EmbeddedOptions;

    fn smallest() -> EmbeddedOptions {
        EmbeddedOptions {
            memtable_bytes: 1 << 20,
            cache_bytes: 0,
            journal_bytes: 64 << 20,
            commit_bytes: 1,
            cached_heads: 2,
            read_threads: 1,
            compaction_threads: 1,
            ..EmbeddedOptions::default()
        }
    }

    skein_storage::conformance_tests!(super::Embedded(smallest));
}
