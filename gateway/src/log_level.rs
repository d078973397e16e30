//! The level of the log, changeable while it is written.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Sets what is logged from now on. Clones set the same log.
#[derive(Clone)]
pub struct LogLevel(Arc<Shared>);

struct Shared {
    set: Box<SetLevel>,
    now: Mutex<String>,
}

type SetLevel = dyn Fn(&str) -> Result<(), String> + Send + Sync;

impl LogLevel {
    /// Through this function, which is given a level as in `log.level`; `now` is the one in force.
    pub fn new(
        now: &str,
        set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared { set: Box::new(set), now: Mutex::new(now.into()) }))
    }

    /// For those whose log is not ours to set.
    pub fn fixed() -> Self {
        Self::new("", |_| Ok(()))
    }

    /// Logs at this level from now on.
    ///
    /// # Errors
    /// It is no level, in words; then nothing is changed.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let mut now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        (self.0.set)(level)?;
        *now = level.into();
        Ok(())
    }

    /// The level in force.
    pub fn now(&self) -> String {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogLevel")
    }
}
