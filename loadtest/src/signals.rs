//! SIGINT and SIGTERM: the first asks for an early end with a whole report, the second for an end
//! now. `signal-hook` is what the ecosystem catches signals with.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Iterator;

/// Signals that came.
#[derive(Debug, Clone)]
pub struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Catches them from now on, for the rest of the process.
    ///
    /// # Errors
    /// The system does not allow it.
    pub fn catch() -> io::Result<Self> {
        let count = Arc::new(AtomicUsize::new(0));
        let mut signals = Iterator::new([SIGINT, SIGTERM])?;
        let counted = count.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for _ in signals.forever() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        Ok(Self(count))
    }

    /// How many came.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
