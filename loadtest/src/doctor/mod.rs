//! Is this machine fit for so many sessions? Reads its limits, compares them with what a run
//! needs, and prints the commands that mend what is too small.
//!
//! ```text
//! machine.rs: what the system says -> judge.rs: against the need -> findings -> text or JSON
//! ```

mod judge;
mod machine;

use std::fmt::Write as _;

use serde::Serialize;

pub use judge::{Need, examine};
pub(crate) use machine::memory_group_left;
pub use machine::{Machine, OpenFiles};

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// In order.
    Good,
    /// The system does not say.
    Unknown,
    /// It works, and figures may be worse or the run invalid.
    Advice,
    /// The run cannot succeed.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at; one of a fixed list, for scripts.
    pub check: &'static str,
    /// How serious it is.
    pub level: Level,
    /// What the machine has.
    pub found: String,
    /// What the run needs.
    pub needed: String,
    /// Why it matters. Empty when it is in order.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub why: &'static str,
    /// Commands that mend it, to be typed as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fix: Vec<String>,
}

/// Whether nothing stands in the way.
pub fn is_fit(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level < Level::Bad)
}

/// The findings for people: a line each, below it what to do.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.level {
            Level::Good => "ok",
            Level::Unknown => "?",
            Level::Advice => "advice",
            Level::Bad => "BAD",
        };
        let Finding { check, found, needed, .. } = finding;
        let _ = writeln!(text, "{mark:<8}{check:<20}{found}; needed: {needed}");
        if finding.level > Level::Good && !finding.why.is_empty() {
            let _ = writeln!(text, "{:<8}{}", "", finding.why);
        }
        for command in &finding.fix {
            let _ = writeln!(text, "{:<12}{command}", "");
        }
    }
    text
}
