//! How a command ends.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::Problems;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub enum Failure {
    /// Exit status 3: nothing was done, something must be written differently first.
    Configuration(String),
    /// Exit status 1.
    Failed(String),
    /// Exit status 4: the cluster's schema or the machine is not what this program needs.
    Unfit(String),
}

impl Failure {
    /// What failed and why, as one text.
    pub(super) fn new(what: &str, why: impl fmt::Display) -> Self {
        Self::Failed(format!("{what}: {why}"))
    }

    /// Tells the user, and the status that says the same to a script.
    pub(super) fn report(self) -> ExitCode {
        let (text, status) = match self {
            Self::Configuration(text) => (text, 3),
            Self::Failed(text) => (text, 1),
            Self::Unfit(text) => (text, 4),
        };
        // Where standard error is closed the status is all that is left.
        let _ = writeln!(io::stderr(), "skein: {text}");
        ExitCode::from(status)
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        let number = problems.0.len();
        let (noun, verb) = if number == 1 { ("problem", "is") } else { ("problems", "are") };
        Self::Configuration(format!(
            "there {verb} {number} {noun} in the configuration\n{problems}"
        ))
    }
}

/// Writes to standard output.
///
/// # Errors
/// When it cannot be written, except that nobody reads it any more (`| head`).
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new("cannot write to standard output", error))
        }
        _ => Ok(()),
    }
}
