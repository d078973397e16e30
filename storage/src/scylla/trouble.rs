//! Tells the operator once that the cluster does not answer, and once that it does again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// At most one line in this time, however the cluster comes and goes.
const QUIET: Duration = Duration::from_secs(10);

/// What was said last.
#[derive(Default)]
pub(super) struct Trouble(Mutex<State>);

#[derive(Default)]
struct State {
    is_in_trouble: bool,
    said: Option<Instant>,
}

impl Trouble {
    /// An attempt has no known outcome, or reached no node.
    pub(super) fn begins(&self, reason: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_quiet = state.said.is_some_and(|said| said.elapsed() < QUIET);
        if state.is_in_trouble || is_quiet {
            return;
        }
        *state = State { is_in_trouble: true, said: Some(Instant::now()) };
        drop(state);
        tracing::warn!(reason, "the cluster does not take appends; they are tried until it does");
    }

    /// An append was made.
    pub(super) fn ends(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_quiet = state.said.is_some_and(|said| said.elapsed() < QUIET);
        if !state.is_in_trouble || is_quiet {
            return;
        }
        state.is_in_trouble = false;
        drop(state);
        tracing::info!("the cluster takes appends again");
    }
}
