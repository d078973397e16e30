//! What a check has found, for people and for scripts.

use std::fmt::Write as _;

use serde::Serialize;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// In order.
    Good,
    /// The system does not say.
    Unknown,
    /// It works, and worse than it could.
    Advice,
    /// What was asked for cannot succeed.
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
    /// What is needed.
    pub needed: String,
    /// Why it matters. Empty when it is in order.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub why: &'static str,
    /// Commands or settings that mend it, to be typed as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fix: Vec<String>,
}

impl Finding {
    /// It is in order.
    pub fn good(check: &'static str, found: String, needed: String) -> Self {
        Self { check, level: Level::Good, found, needed, why: "", fix: Vec::new() }
    }

    /// The system does not say.
    pub fn unknown(check: &'static str, needed: String) -> Self {
        let found = "this system does not say".into();
        Self { check, level: Level::Unknown, found, needed, why: "", fix: Vec::new() }
    }
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

/// A size as people read it.
pub fn bytes(count: u64) -> String {
    bytesize::ByteSize(count).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_order_is_one_line_and_what_is_not_says_what_to_do() {
        let findings = [
            Finding::good("cores", "8".into(), "2".into()),
            Finding::unknown("memory", "1 GiB".into()),
            Finding {
                check: "ports",
                level: Level::Advice,
                found: "few".into(),
                needed: "many".into(),
                why: "Because.",
                fix: vec!["do this".into()],
            },
        ];
        assert!(is_fit(&findings));
        let expected = "\
ok      cores               8; needed: 2
?       memory              this system does not say; needed: 1 GiB
advice  ports               few; needed: many
        Because.
            do this
";
        assert_eq!(text(&findings), expected);
        let json = serde_json::to_value(&findings[0]).unwrap();
        assert_eq!(json["level"], "good");
        assert!(json.get("why").is_none() && json.get("fix").is_none());
    }
}
