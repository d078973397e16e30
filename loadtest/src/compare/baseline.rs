//! A baseline file: figures that a run must keep, each with what is allowed. It is made from a run,
//! and meant to be edited: figures that do not matter are taken out, those that must be held closer
//! or looser get a tolerance of their own.
//!
//! ```toml
//! scenario = "chat"
//! sessions = 2000
//! offered_per_second = 2000.0
//! tolerance = "10%"
//!
//! [figures]
//! rate_per_second = 2000.0
//! "send_ack.p50_us" = 450
//! "send_ack.p99_us" = { value = 1900, tolerance = "25%" }
//!
//! [[fleets]]           # what was asked for, as in summary.json; without it anything will do
//! connect_rate = 500.0
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::figure::{figures, names};
use super::{Comparison, DEFAULT_TOLERANCE, Figure, asked, differences, rate};
use crate::nearest::nearest;
use crate::report::Summary;

/// Figures that a run must keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Scenario of the run that it was made from.
    pub scenario: String,
    /// Sessions that it asked for; none: any number will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u64>,
    /// Messages a second that it offered; none: any rate will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_per_second: Option<f64>,
    /// What is allowed where a figure says nothing: "10%" or a share of 1.
    pub tolerance: Tolerance,
    figures: BTreeMap<String, Entry>,
    /// What its fleets were asked to do, without their names; none: anything will do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fleets: Vec<serde_json::Value>,
}

/// An allowed change for the worse.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "toml::Value", into = "String")]
pub struct Tolerance(
    /// Share of the value before.
    pub f64,
);

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Value(f64),
    With { value: f64, tolerance: Tolerance },
}

/// Why a baseline cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// The file is out of reach.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file does not say what a baseline says.
    #[error("{path}: {why}", path = path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// What is wrong, with its line.
        why: String,
    },
}

impl Baseline {
    /// A baseline of what a run has measured.
    pub fn of(summary: &Summary, tolerance: f64) -> Self {
        let judged = figures(summary).into_iter().filter(|figure| figure.judged);
        Self {
            scenario: summary.scenario.clone(),
            sessions: Some(summary.planned),
            offered_per_second: summary.offered_per_second,
            tolerance: Tolerance(tolerance),
            figures: judged.map(|figure| (figure.name, Entry::Value(figure.value))).collect(),
            fleets: summary.fleets.clone(),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or names a figure that no run has.
    pub fn read(path: &Path) -> Result<Self, BaselineError> {
        let wrong = |why: String| BaselineError::Wrong { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path)
            .map_err(|source| BaselineError::Io { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))
    }

    /// Writes a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), BaselineError> {
        let wrong = |why: String| BaselineError::Wrong { path: path.to_owned(), why };
        let body = toml::to_string(self).map_err(|error| wrong(error.to_string()))?;
        let text = format!(
            "# Figures that a run must keep: `skein-load compare RUN --baseline THIS`.\n\
             # Take out what does not matter; give others a tolerance of their own:\n\
             #   \"send_ack.p99_us\" = {{ value = 1900, tolerance = \"25%\" }}\n{body}"
        );
        std::fs::write(path, text)
            .map_err(|source| BaselineError::Io { path: path.to_owned(), source })
    }

    /// Judges a run by it. `tolerance`, if given, is stronger than that of the file, not than that
    /// of a figure.
    ///
    /// # Errors
    /// A name that no figure of a run has.
    pub fn compare(&self, run: &Summary, tolerance: Option<f64>) -> Result<Comparison, String> {
        let measured = figures(run);
        let mut before = Vec::new();
        let mut after = Vec::new();
        let known = names();
        for (name, entry) in &self.figures {
            let Some((_, better)) = known.iter().find(|(right, _)| right == name) else {
                let right = nearest(name, known.iter().map(|(right, _)| right.as_str()));
                let right = right.unwrap_or_default();
                return Err(format!("unknown figure `{name}`; the nearest right one is `{right}`"));
            };
            // Asked for by name, so it is judged.
            let found = measured.iter().find(|figure| figure.name == *name);
            let better = *better;
            let figure = |value| Figure { name: name.clone(), value, better, judged: true };
            before.push(figure(entry.value()));
            after.extend(found.map(|found| figure(found.value)));
        }
        let general = tolerance.unwrap_or(self.tolerance.0);
        let mut comparison = Comparison::new(&before, &after, |name| {
            self.figures.get(name).and_then(Entry::tolerance).unwrap_or(general)
        });
        let sessions = self.sessions.unwrap_or(run.planned);
        let offered = self.offered_per_second.or(run.offered_per_second);
        comparison.unlike = differences([
            ("scenario", self.scenario.clone(), run.scenario.clone()),
            ("number of sessions", sessions.to_string(), run.planned.to_string()),
            ("offered rate", rate(offered), rate(run.offered_per_second)),
        ]);
        comparison.unlike.extend(asked::differences(&self.fleets, &run.fleets));
        Ok(comparison)
    }
}

impl Entry {
    fn value(&self) -> f64 {
        match self {
            Self::Value(value) | Self::With { value, .. } => *value,
        }
    }

    fn tolerance(&self) -> Option<f64> {
        match self {
            Self::Value(_) => None,
            Self::With { tolerance, .. } => Some(tolerance.0),
        }
    }
}

impl Default for Tolerance {
    fn default() -> Self {
        Self(DEFAULT_TOLERANCE)
    }
}

impl std::str::FromStr for Tolerance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = match text.trim().strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
            None => text.trim().parse(),
        };
        let share = share.ok().filter(|share| (0.0..=10.0).contains(share));
        share.map(Self).ok_or_else(|| "a tolerance is a share, such as \"10%\" or 0.1".into())
    }
}

impl TryFrom<toml::Value> for Tolerance {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => text.parse(),
            value => value.to_string().parse(),
        }
    }
}

impl From<Tolerance> for String {
    fn from(tolerance: Tolerance) -> Self {
        format!("{}%", (tolerance.0 * 1e4).round() / 100.0)
    }
}
