//! What a ramp says about the knee.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::outcome::{Outcome, ReasonKind, least_bad};

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
    /// Nobody knows: the least load at which something broke was too much for the generator itself. The
    /// run is not valid.
    GeneratorLimited,
    /// No load was good.
    BelowFirst,
    /// The search ended before anything broke.
    NotReached,
}

impl Knee {
    /// Of a run; none: it is no ramp.
    pub(super) fn of(outcome: &Outcome) -> Option<Self> {
        let most = outcome.plan.ladder.as_ref()?.last;
        let good = outcome.steps.iter().filter(|step| step.is_good());
        let last_good = good.map(|step| step.load).max_by(f64::total_cmp);
        let least_bad = least_bad(&outcome.steps);
        let first_bad = least_bad.map(|step| step.load);
        let is_cut_short = outcome.ended_early
            || outcome.reasons.iter().any(|reason| reason.kind == ReasonKind::AgentLost);
        let place = match (last_good, first_bad) {
            _ if least_bad.is_some_and(|step| !step.limits.is_empty()) => Place::GeneratorLimited,
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
            Place::GeneratorLimited => {
                let none = if self.last_good.is_none() { "no step was good" } else { "" };
                write!(
                    f,
                    "{none}; {:.1} was too much for the generator itself, so the knee is not the \
                     gateway's: give it more cores or --agents",
                    self.first_bad.unwrap_or_default()
                )
            }
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
