//! What can go wrong around a server.

use std::io;
use std::path::{Path, PathBuf};

/// Why a server could not be had, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CqlError {
    /// No Java 17 on this machine.
    #[error(
        "no Java 17 found: the CQL server needs it (newer ones do not work). Install a JDK 17 \
         (Debian and Ubuntu: apt-get install openjdk-17-jre-headless) or name one with JAVA17_HOME"
    )]
    NoJava,
    /// No Maven on this machine.
    #[error(
        "no Maven found: `mvn` fetches the CQL server, once. Install it \
         (Debian and Ubuntu: apt-get install maven)"
    )]
    NoMaven,
    /// Maven did not bring the server.
    #[error("Maven could not fetch the CQL server:\n{0}")]
    Fetch(String),
    /// The options ask for something that cannot be.
    #[error("{0}")]
    Options(&'static str),
    /// No free port in the range that is searched.
    #[error("no free ports for a CQL server on the loopback addresses")]
    NoPorts,
    /// A node ended, or did not serve in time.
    #[error("node {node} {what}; its log ({}) ends with:\n{tail}", log.display())]
    Node {
        /// Which one, from 0.
        node: usize,
        /// What it did.
        what: String,
        /// Its whole log, kept.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The node runs already, or it does not run.
    #[error("node {node} {what}")]
    State {
        /// Which one, from 0.
        node: usize,
        /// In which state it is.
        what: &'static str,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What it said.
        source: io::Error,
    },
}

impl CqlError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(path.display().to_string())
    }
}
