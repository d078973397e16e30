//! The level of the log, changeable while it is written.

use std::fmt;
use std::sync::Arc;

/// Sets what is logged from now on. Clones set the same log.
#[derive(Clone)]
pub struct LogLevel(Arc<SetLevel>);

type SetLevel = dyn Fn(&str) -> Result<(), String> + Send + Sync;

impl LogLevel {
    /// Through this function, which is given a level as in `log.level`.
    pub fn new(set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(set))
    }

    /// For those whose log is not ours to set.
    pub fn fixed() -> Self {
        Self::new(|_| Ok(()))
    }

    /// Logs at this level from now on.
    ///
    /// # Errors
    /// It is no level, in words; then nothing is changed.
    pub fn set(&self, level: &str) -> Result<(), String> {
        (self.0)(level)
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogLevel")
    }
}
