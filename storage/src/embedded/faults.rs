//! Bugs and faults that tests plant, to show that the checks see them. Not in any other build.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::engine::{Engine, Write};
use super::space::FreeBytes;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Acknowledges, and writes a little later.
    AckBeforeWrite,
    /// Writes the rows of a commit one by one.
    SplitBatch,
    /// Leaves what it writes to the system.
    NoSync,
    /// Believes every append's idea of the head.
    NoHeadCheck,
}

/// What is planted in one store.
#[derive(Debug)]
pub(crate) struct Faults {
    bug: Mutex<Option<Bug>>,
    /// The next commit fails before anything is written.
    pub(crate) fail_commit: AtomicBool,
    /// What the volume says it has free; `u64::MAX` asks the real one.
    pub(crate) free_bytes: AtomicU64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            bug: Mutex::new(None),
            fail_commit: AtomicBool::new(false),
            free_bytes: AtomicU64::new(u64::MAX),
        }
    }
}

impl Faults {
    pub(crate) fn plant(&self, bug: Bug) {
        *self.bug.lock().unwrap_or_else(PoisonError::into_inner) = Some(bug);
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        *self.bug.lock().unwrap_or_else(PoisonError::into_inner) == Some(bug)
    }

    /// Asks `real` unless another answer is planted.
    pub(super) fn free_bytes_of(self: &Arc<Self>, mut real: FreeBytes) -> FreeBytes {
        let faults = self.clone();
        Box::new(move || match faults.free_bytes.load(Relaxed) {
            u64::MAX => real(),
            planted => Some(planted),
        })
    }

    /// Called where a commit begins; gives back what is left to write.
    pub(super) fn at_commit(
        &self,
        engine: &Engine,
        writes: Vec<Write>,
    ) -> Result<Vec<Write>, fjall::Error> {
        if self.fail_commit.swap(false, Relaxed) {
            return Err(std::io::Error::other("a planted fault").into());
        }
        if self.has(Bug::AckBeforeWrite) {
            std::thread::sleep(Duration::from_millis(2));
        }
        if self.has(Bug::SplitBatch) {
            for write in writes {
                engine.commit(vec![write], false)?;
                std::thread::sleep(Duration::from_micros(300));
            }
            return Ok(Vec::new());
        }
        if self.has(Bug::NoSync) {
            engine.commit(writes, false)?;
            return Ok(Vec::new());
        }
        Ok(writes)
    }
}
