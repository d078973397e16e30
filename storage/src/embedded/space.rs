//! Keeps a reserve of free space, so that a full disk refuses writes instead of breaking one.
//!
//! A write that fails half-way stops the store until it is opened anew. A refusal does not: when
//! there is room again, the next write works.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::StoreError;

/// How long a reading of the free space is trusted: others fill the disk too.
const TRUST: Duration = Duration::from_millis(200);

/// Asks the volume for its free bytes; `None` if it does not say.
pub(super) type FreeBytes = Box<dyn FnMut() -> Option<u64> + Send>;

/// The reserve of one volume.
pub(super) struct Space {
    folder: PathBuf,
    reserve: u64,
    free_bytes: FreeBytes,
    asked: Option<Instant>,
    /// What may still be written before it is asked again.
    allowance: u64,
    low: bool,
}

impl Space {
    /// Keeps `reserve` bytes free on the volume of `folder`.
    pub(super) fn new(folder: PathBuf, reserve: u64, free_bytes: FreeBytes) -> Self {
        Self { folder, reserve, free_bytes, asked: None, allowance: 0, low: false }
    }

    /// Whether `bytes` may be written at `now`.
    pub(super) fn check(&mut self, bytes: u64, now: Instant) -> Result<(), StoreError> {
        if self.reserve == 0 {
            return Ok(());
        }
        let fresh = self.asked.is_some_and(|asked| now.duration_since(asked) < TRUST);
        if !fresh || bytes > self.allowance {
            self.asked = Some(now);
            // A volume that does not tell cannot be guarded; its errors still stop the store.
            let free = (self.free_bytes)().unwrap_or(u64::MAX);
            // A byte costs twice: in the journal and in the file it is flushed to.
            self.allowance = free.saturating_sub(self.reserve) / 2;
        }
        let low = bytes > self.allowance;
        if low != self.low {
            self.low = low;
            let folder = self.folder.display();
            if low {
                tracing::error!(%folder, reserve_bytes = self.reserve,
                    "the volume is nearly full: messages are refused until there is room");
            } else {
                tracing::info!(%folder, "there is room again: messages are accepted");
            }
        }
        if low {
            return Err(StoreError::Unavailable(format!(
                "the volume of {} is nearly full; less than {} MiB are free, which is the reserve",
                self.folder.display(),
                self.reserve >> 20
            )));
        }
        self.allowance -= bytes;
        Ok(())
    }
}

/// Reads the free space of the volume that `folder` is on.
pub(super) fn free_bytes_of(folder: PathBuf) -> FreeBytes {
    #[cfg(unix)]
    return Box::new(move || {
        let volume = rustix::fs::statvfs(&folder).ok()?;
        Some(volume.f_bavail.saturating_mul(volume.f_frsize))
    });
    #[cfg(not(unix))]
    return Box::new(move || {
        let _ = &folder;
        None
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    #[test]
    fn it_refuses_below_the_reserve_and_recovers() {
        let free = Arc::new(AtomicU64::new(1000));
        let asked = Arc::new(AtomicU64::new(0));
        let (f, a) = (free.clone(), asked.clone());
        let probe = Box::new(move || {
            a.fetch_add(1, Relaxed);
            Some(f.load(Relaxed))
        });
        let mut space = Space::new("/data".into(), 100, probe);
        let t = Instant::now();
        assert_eq!(space.check(100, t), Ok(()));
        assert_eq!(space.check(100, t), Ok(()));
        assert_eq!(asked.load(Relaxed), 1, "a fresh reading is trusted");
        free.store(99, Relaxed);
        let Err(StoreError::Unavailable(text)) = space.check(400, t) else { panic!("accepted") };
        assert!(text.contains("/data"), "{text}");
        assert!(space.check(1, t).is_err(), "it stays so");
        free.store(500, Relaxed);
        assert_eq!(space.check(1, t), Ok(()), "room is noticed at the next write");
        free.store(99, Relaxed);
        assert_eq!(space.check(1, t), Ok(()), "within the allowance and the time of trust");
        assert!(space.check(1, t + TRUST).is_err(), "others can fill the disk");
    }

    #[test]
    fn a_real_volume_tells() {
        if cfg!(unix) {
            let free = free_bytes_of(std::env::temp_dir())().unwrap();
            assert!(free > 0);
            assert_eq!(free_bytes_of("/no/such/place".into())(), None);
        }
    }
}
