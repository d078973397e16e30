//! What a ramp says about the knee.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::outcome::{Outcome, ReasonKind};

/// Where the knee of a ramp lies, in messages a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Knee {
    /// What is known of it.
    pub place: Place,
    /// The greatest load at which everything held; null: there was none.
    pub last_good: Option<f64>,
    /// The least load at which something broke; null: there was none.
    pub first_bad: Option<f64>,
    /// No greater load than this was to be tried.
    pub most: f64,
}

/// What is known of the knee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Between the last good and the first bad load.
    Found,
    /// Every load was good, up to the greatest that was to be tried.
    BeyondMost,
    /// No load was good.
    BelowFirst,
    /// The search ended before anything broke.
    NotReached,
}

impl Knee {
    /// Of a run; none: it is no ramp.
    pub(super) fn of(outcome: &Outcome) -> Option<Self> {
        let most = outcome.plan.ladder.as_ref()?.last;
        let loads = |good: bool| {
            let steps = outcome.steps.iter().filter(move |step| step.broken.is_empty() == good);
            steps.map(|step| step.load)
        };
        let last_good = loads(true).max_by(f64::total_cmp);
        let first_bad = loads(false).min_by(f64::total_cmp);
        let is_cut_short = outcome.ended_early
            || outcome.reasons.iter().any(|reason| reason.kind == ReasonKind::AgentLost);
        let place = match (last_good, first_bad) {
            (Some(_), Some(_)) => Place::Found,
            (None, Some(_)) => Place::BelowFirst,
            (Some(_), None) if !is_cut_short => Place::BeyondMost,
            (_, None) => Place::NotReached,
        };
        Some(Self { place, last_good, first_bad, most })
    }
}

impl fmt::Display for Knee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(load) = self.last_good {
            write!(f, "the last good step: {load:.1}")?;
        }
        match self.place {
            Place::Found => Ok(()),
            Place::BeyondMost => write!(
                f,
                "; every step was good, so the knee lies beyond --most ({:.0}): raise it",
                self.most
            ),
            Place::BelowFirst => f.write_str("no step was good: begin with less (--start)"),
            Place::NotReached if self.last_good.is_none() => f.write_str("no step was completed"),
            Place::NotReached => f.write_str("; the search ended before a step was bad"),
        }
    }
}
