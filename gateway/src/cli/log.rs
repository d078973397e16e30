//! The log, to standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::reload::Handle;

use tracing_subscriber::prelude::*;

use super::Failure;
use crate::config::{LogConfig, LogFormat};
use crate::log_level::LogLevel;
use crate::observe::Flood;

/// Said first, so that what the operator asks for goes before it. The embedded store's library tells
/// at "info" what is of interest to its authors only; the driver of a cluster has a line for every
/// connection that fails and every request that it repeats, for as long as a node is gone. What of
/// that is for an operator the store tells itself, once.
const QUIET: &str = "fjall=warn,lsm_tree=warn,scylla=off";

/// Starts the log, behind a filter for floods; once in a process. Returns the way to change its
/// level.
pub(super) fn start(log: &LogConfig) -> Result<LogLevel, Failure> {
    let filter = filter(&log.level).map_err(|error| Failure::new("log.level", error))?;
    let flood = Flood::of_this_process();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // It would tell them with `eprintln!`, which panics where nobody reads standard error.
        .log_internal_errors(false);
    let (level, started) = match log.format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            (level(&log.level, builder.reload_handle()), builder.finish().with(flood).try_init())
        }
        LogFormat::Text => {
            let builder = builder.with_ansi(io::stderr().is_terminal()).with_filter_reloading();
            (level(&log.level, builder.reload_handle()), builder.finish().with(flood).try_init())
        }
    };
    started.map_err(|error| Failure::new("cannot start the log", error))?;
    Ok(level)
}

fn level<S: 'static>(now: &str, handle: Handle<EnvFilter, S>) -> LogLevel {
    LogLevel::new(now, move |level| {
        let filter = filter(level).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    })
}

fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("{QUIET},{level}"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Which lines are there of some of the driver, the embedded store's library and the store.
    fn lines(level: &str) -> Vec<&'static str> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter(level).unwrap())
            .with_writer({
                let written = written.clone();
                move || Shared(written.clone())
            })
            .finish();
        tracing::subscriber::with_default(log, || {
            tracing::error!(target: "scylla::network", "first");
            tracing::warn!(target: "scylla_cql::frame", "second");
            tracing::info!(target: "fjall::journal", "third");
            tracing::info!(target: "skein_storage::scylla::trouble", "fourth");
        });
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        ["first", "second", "third", "fourth"]
            .into_iter()
            .filter(|line| text.contains(line))
            .collect()
    }

    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn libraries_are_quiet_unless_they_are_asked() {
        assert_eq!(lines("info"), ["fourth"]);
        assert_eq!(lines("debug"), ["fourth"]);
        assert_eq!(lines("info,scylla=debug"), ["first", "second", "fourth"]);
        assert_eq!(lines("warn,fjall=info,scylla=error"), ["first", "third"]);
    }
}
