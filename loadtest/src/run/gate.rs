//! Points at which a run waits to be let on, so that somebody else sets its pace: the control plane,
//! and through it the other machines of the run, which then begin a phase at the same moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;

/// What the run waits to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The ramp.
    Start,
    /// The load: all sessions are there.
    Load,
}

impl Stage {
    const ALL: [Self; 2] = [Self::Start, Self::Load];
}

/// Clones are of the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Number of stages at which the run has arrived.
    arrived: AtomicU8,
    /// When each stage begins; 0: it is closed.
    open: [AtomicU64; 2],
}

impl Gate {
    /// The stage that the run waits for, if it waits.
    pub fn waiting(&self) -> Option<Stage> {
        let arrived = self.0.arrived.load(Ordering::Acquire).checked_sub(1)?;
        let stage = *Stage::ALL.get(usize::from(arrived))?;
        self.opened(stage).is_none().then_some(stage)
    }

    /// Lets it on: the stage begins at that time, or at once if that has passed.
    pub fn open(&self, stage: Stage, at: Nanos) {
        self.0.open[stage as usize].store(at.max(1), Ordering::Release);
    }

    /// When a stage begins, if it may.
    pub fn opened(&self, stage: Stage) -> Option<Nanos> {
        let at = self.0.open[stage as usize].load(Ordering::Acquire);
        (at != 0).then_some(at)
    }

    /// The run is there.
    pub fn arrive(&self, stage: Stage) {
        self.0.arrived.store(stage as u8 + 1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_let_on_stage_by_stage() {
        let gate = Gate::default();
        assert_eq!(gate.waiting(), None, "it is not there yet");
        gate.arrive(Stage::Start);
        assert_eq!((gate.waiting(), gate.opened(Stage::Start)), (Some(Stage::Start), None));
        gate.clone().open(Stage::Start, 7);
        assert_eq!((gate.waiting(), gate.opened(Stage::Start)), (None, Some(7)));
        gate.arrive(Stage::Load);
        assert_eq!(gate.waiting(), Some(Stage::Load));
        gate.open(Stage::Load, 0);
        assert!(gate.opened(Stage::Load).is_some());
    }
}
