//! How the program ends: one status for each thing that a script wants to tell apart.

use std::process::ExitCode;

/// How a command ended. The number is the exit status and never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Done, and everything that was asked for holds.
    Ok = 0,
    /// No load was made, or not all of it: the target is not reached, refuses the tokens, speaks
    /// another version; a file cannot be read or written. `doctor`: the machine is not fit.
    CouldNotRun = 1,
    /// The command line or the scenario is wrong. Nothing was started.
    Usage = 2,
    /// The figures are good, and they are not good enough: an objective is missed, or messages were
    /// lost, duplicated, reordered or corrupted, or an operation failed too often.
    ObjectiveMissed = 3,
    /// The figures are not to be trusted: the generator itself was the limit, or died in part.
    Invalid = 4,
    /// `compare`: worse than the baseline by more than the tolerance.
    Regressed = 5,
    /// Ended early by a signal (SIGINT, SIGTERM). The report is whole, of what was measured so far.
    EndedEarly = 130,
}

/// The list for `--help`.
pub const HELP: &str = "\
Exit status:
  0    done, and every objective holds
  1    could not run: target not reached, token or version refused, file not readable;
       doctor: this machine falls short of what is needed
  2    the command line or the scenario is wrong; nothing was started
  3    an objective is missed, messages were lost, duplicated, reordered or corrupted, or an
       operation failed too often
  4    the run is invalid: the generator itself was the limit; the report says why;
       compare: one of the runs is invalid or was ended early
  5    compare: worse than the baseline by more than the tolerance
  130  ended early by a signal; the report of what was measured is written";

impl Exit {
    /// Every way to end.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::CouldNotRun,
        Self::Usage,
        Self::ObjectiveMissed,
        Self::Invalid,
        Self::Regressed,
        Self::EndedEarly,
    ];

    /// The exit status.
    pub const fn status(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

/// Why a command could not do what it was asked to, in words for the person who typed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit status.
    pub exit: Exit,
    /// What is wrong and what would be right. May have several lines.
    pub message: String,
}

impl Failure {
    /// The world does not allow it.
    pub fn could_not_run(message: impl Into<String>) -> Self {
        Self { exit: Exit::CouldNotRun, message: message.into() }
    }

    /// It was asked for in the wrong way.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_its_own_and_stands_in_the_help() {
        for (at, exit) in Exit::ALL.into_iter().enumerate() {
            assert!(HELP.contains(&format!("\n  {:<5}", exit.status())), "{exit:?}");
            assert!(Exit::ALL[..at].iter().all(|other| other.status() != exit.status()));
        }
        let listed = HELP.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        assert_eq!(listed.count(), Exit::ALL.len());
    }
}
