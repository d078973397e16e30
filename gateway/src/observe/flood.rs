//! Keeps floods out of the log: of each kind of line so many are written in a time, the rest is
//! counted and told once.
//!
//! A kind of line is a place in the code. So what strangers do again and again fills neither the
//! disk nor the view of whoever looks for something else, and a line that comes once is always
//! there. Not held back are lines of the levels debug and trace (who asks for them wants them all),
//! and what operators do: each of their acts is in the log, however many there are.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Lines of one kind in one [`WINDOW`].
const MAX_LINES: u32 = 20;

/// For how long lines are counted together; what was left out is told as often.
const WINDOW: Duration = Duration::from_secs(10);

/// Bytes of a line that are quoted when some of its kind were left out.
const QUOTED: usize = 240;

/// Modules that log what operators do; nobody else can make them log.
const OF_OPERATORS: [&str; 2] = ["skein_gateway::admin", "skein_gateway::reload"];

/// Lines left out since the start of the process, for metrics.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Lines left out since the start of the process.
pub(super) fn left_out() -> u64 {
    LEFT_OUT.load(Relaxed)
}

/// The filter, to be put on the subscriber. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Flood {
    /// One for each place in the code that has logged: their number is that of such places.
    kinds: Arc<Mutex<HashMap<Identifier, Kind>>>,
}

#[derive(Debug)]
struct Kind {
    since: Instant,
    lines: u32,
    left_out: u64,
    /// The first line of those that were left out.
    example: String,
}

impl Flood {
    /// The one on the log of this process.
    pub fn of_this_process() -> Self {
        static FLOOD: OnceLock<Flood> = OnceLock::new();
        FLOOD.get_or_init(Self::default).clone()
    }

    /// Whether one more line of this kind is written.
    fn admits(&self, id: Identifier, now: Instant, example: impl FnOnce() -> String) -> bool {
        let mut kinds = self.lock();
        let fresh = Kind { since: now, lines: 0, left_out: 0, example: String::new() };
        let kind = kinds.entry(id).or_insert(fresh);
        if now.saturating_duration_since(kind.since) >= WINDOW {
            (kind.since, kind.lines) = (now, 0);
        }
        if kind.lines < MAX_LINES {
            kind.lines += 1;
            return true;
        }
        if kind.left_out == 0 {
            kind.example = example();
        }
        kind.left_out += 1;
        LEFT_OUT.fetch_add(1, Relaxed);
        false
    }

    /// What was left out since the last call: how many lines, and the first of them.
    fn take_left_out(&self) -> Vec<(u64, String)> {
        let mut kinds = self.lock();
        let some = kinds.values_mut().filter(|kind| kind.left_out > 0);
        some.map(|kind| (std::mem::take(&mut kind.left_out), std::mem::take(&mut kind.example)))
            .collect()
    }

    /// Tells what was left out, for as long as it is polled.
    pub async fn tell(self) {
        loop {
            tokio::time::sleep(WINDOW).await;
            for (lines, example) in self.take_left_out() {
                tracing::warn!(lines, example, "lines of one kind were left out of the log");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Kind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Flood {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let of_operators = || OF_OPERATORS.iter().any(|of| metadata.target().starts_with(of));
        *metadata.level() > Level::INFO
            || of_operators()
            || self.admits(metadata.callsite(), Instant::now(), || line_of(event))
    }
}

/// Message and fields, as far as they are quoted.
fn line_of(event: &Event<'_>) -> String {
    let mut line = Line::default();
    event.record(&mut line);
    format!("{}{}", line.message, line.fields).chars().take(QUOTED).collect()
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Nothing that is written here fails.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::prelude::*;

    use super::*;

    /// Keeps the messages that come through.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(line_of(event));
        }
    }

    #[test]
    fn a_flood_is_cut_and_what_comes_once_is_there() {
        let (flood, kept) = (Flood::default(), Kept::default());
        let log = tracing_subscriber::registry().with(flood.clone()).with(kept.clone());
        tracing::subscriber::with_default(log, || {
            for n in 0..1000 {
                tracing::warn!(n, "a flood");
                tracing::debug!(n, "details");
                tracing::info!(target: "skein_gateway::admin::blocks", n, "an act");
            }
            tracing::error!("once");
        });
        let count =
            |what: &str| kept.0.lock().unwrap().iter().filter(|it| it.starts_with(what)).count();
        assert_eq!(count("a flood"), MAX_LINES as usize);
        assert_eq!((count("details"), count("an act"), count("once")), (1000, 1000, 1));
        assert_eq!(flood.take_left_out(), [(980, "a flood n=20".to_owned())]);
        assert!(flood.take_left_out().is_empty());
        assert!(left_out() >= 980);
    }

    #[test]
    fn after_a_while_lines_of_its_kind_are_written_again() {
        let flood = Flood::default();
        let id = || tracing::callsite!(name: "x", kind: tracing::metadata::Kind::EVENT, fields: x);
        let id = tracing::Callsite::metadata(id()).callsite();
        let now = Instant::now();
        let admitted =
            |now| (0..100).filter(|_| flood.admits(id.clone(), now, String::new)).count();
        assert_eq!(admitted(now), MAX_LINES as usize);
        assert_eq!(admitted(now + WINDOW - Duration::from_millis(1)), 0);
        assert_eq!(admitted(now + WINDOW), MAX_LINES as usize);
    }
}
