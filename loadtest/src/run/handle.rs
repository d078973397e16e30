//! A run that goes on, here or on other machines, as others see it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::clock::{self, Nanos};
use crate::outcome::{Outcome, Reason, Snapshot};

/// A run that goes on.
pub struct Handle {
    shared: Arc<Shared>,
    thread: JoinHandle<Outcome>,
}

/// What the conductor and everybody else see.
#[derive(Debug)]
pub(crate) struct Shared {
    /// When seconds count from.
    begin: AtomicU64,
    stop: AtomicBool,
    abandoned: AtomicBool,
    pub(crate) snapshot: Mutex<Snapshot>,
    pub(crate) reasons: Mutex<Vec<Reason>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            begin: AtomicU64::new(clock::now()),
            stop: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            snapshot: Mutex::default(),
            reasons: Mutex::default(),
        }
    }
}

impl Shared {
    /// When seconds count from: for now the moment at which this was made.
    pub(crate) fn begin(&self) -> Nanos {
        self.begin.load(Ordering::Relaxed)
    }

    pub(crate) fn begin_at(&self, begin: Nanos) {
        self.begin.store(begin, Ordering::Relaxed);
    }

    /// Whether the run is to end before its time.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether nobody wants the outcome, so that nothing that is under way is worth waiting for.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
}

impl Handle {
    /// Conducts a run on a thread of its own.
    pub(crate) fn of(
        name: &str,
        shared: Arc<Shared>,
        conduct: impl FnOnce() -> Outcome + Send + 'static,
    ) -> io::Result<Self> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(conduct)?;
        Ok(Self { shared, thread })
    }

    /// How it goes. New once a second, but for the time.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = lock(&self.shared.snapshot).clone();
        let elapsed = clock::now().saturating_sub(self.shared.begin()) as f64;
        let elapsed = elapsed / clock::SECOND as f64;
        let since = elapsed - snapshot.elapsed;
        snapshot.elapsed = elapsed;
        snapshot.remaining = snapshot.remaining.map(|left| (left - since).max(0.0));
        snapshot.reasons.extend(lock(&self.shared.reasons).iter().cloned());
        snapshot
    }

    /// Ends it early, in order: nothing new is begun, what is under way may still arrive, and the
    /// outcome is whole.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Ends it at once: nobody wants the outcome.
    pub fn abandon(&self) {
        self.shared.abandoned.store(true, Ordering::Relaxed);
        self.shared.stop();
    }

    /// Somebody beside the run saw that its figures must not be believed.
    pub fn invalidate(&self, reason: Reason) {
        lock(&self.shared.reasons).push(reason);
    }

    /// Whether [`finish`](Self::finish) would return at once.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The generator itself broke; this says how.
    pub fn finish(self) -> Result<Outcome, String> {
        let mut outcome = self.thread.join().map_err(|_| "the conductor panicked".to_owned())?;
        outcome.reasons.append(&mut lock(&self.shared.reasons));
        Ok(outcome)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain data, whole between any two steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
