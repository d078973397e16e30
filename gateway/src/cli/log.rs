//! The log, to standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::config::{LogConfig, LogFormat};

/// Said first, so that what the operator asks for goes before it. The embedded store's library tells
/// at "info" what is of interest to its authors only; the driver of a cluster has a line for every
/// connection that fails and every request that it repeats, for as long as a node is gone. What of
/// that is for an operator the store tells itself, once.
const QUIET: &str = "fjall=warn,lsm_tree=warn,scylla=off";

/// Starts the log; once in a process.
pub(super) fn start(log: &LogConfig) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", log.level))
        .map_err(|error| Failure::new("log.level", error))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|error| Failure::new("cannot start the log", error))
}
