//! SIGINT, SIGTERM and SIGHUP: the first asks for an early end with a whole report, the second for an
//! end now.
//!
//! `ctrlc` is what Goose catches them with, and it has one handler for a process. Whoever is first
//! keeps it, so this must come before Goose begins: its own handler would end the process in the
//! middle of a report.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Signals that came.
#[derive(Debug, Clone)]
pub struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Catches them from now on, for the rest of the process.
    ///
    /// # Errors
    /// The system does not allow it, or somebody else catches them already.
    pub fn catch() -> Result<Self, ctrlc::Error> {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        ctrlc::set_handler(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        })?;
        Ok(Self(count))
    }

    /// How many came.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
