//! A run that goes on, here or on other machines.

use crate::agent;
use crate::outcome::{Outcome, Reason, Snapshot};
use crate::run;

pub(super) enum Running {
    Here(run::Handle),
    Elsewhere(agent::Handle),
}

impl Running {
    pub(super) fn snapshot(&self) -> Snapshot {
        match self {
            Self::Here(run) => run.snapshot(),
            Self::Elsewhere(run) => run.snapshot(),
        }
    }

    pub(super) fn stop(&self) {
        match self {
            Self::Here(run) => run.stop(),
            Self::Elsewhere(run) => run.stop(),
        }
    }

    pub(super) fn invalidate(&self, reason: Reason) {
        match self {
            Self::Here(run) => run.invalidate(reason),
            Self::Elsewhere(run) => run.invalidate(reason),
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        match self {
            Self::Here(run) => run.is_finished(),
            Self::Elsewhere(run) => run.is_finished(),
        }
    }

    pub(super) fn finish(self) -> Result<Outcome, String> {
        match self {
            Self::Here(run) => run.finish(),
            Self::Elsewhere(run) => run.finish(),
        }
    }
}
