//! The rules for Prometheus, and what the operator is told about each alert.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::exporter::Exported;
use super::query::{Known, Labels};
use super::{assert_none, exporter_of_tests, read};

const FILE: &str = "deploy/prometheus/alerts.yaml";
const PAGE: &str = "docs/operations.md";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    #[serde(default)]
    interval: Option<String>,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: Option<String>,
    record: Option<String>,
    expr: String,
    #[serde(rename = "for", default)]
    pending: Option<String>,
    #[serde(default)]
    keep_firing_for: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

fn problems(file: &str, page: &str, exported: &Exported) -> Vec<String> {
    let file: File = match serde_saphyr::from_str(file) {
        Ok(file) => file,
        Err(error) => return vec![error.to_string()],
    };
    let mut known = Known::new(exported);
    let mut problems = Vec::new();
    let mut alerts = BTreeSet::new();
    for group in &file.groups {
        let times = group.rules.iter().flat_map(|rule| [&rule.pending, &rule.keep_firing_for]);
        for time in times.chain([&group.interval]).flatten() {
            if humantime::parse_duration(time).is_err() {
                problems.push(format!("{}: {time} is no time", group.name));
            }
        }
        for rule in &group.rules {
            let name = rule.alert.as_ref().or(rule.record.as_ref());
            let Some(name) = name else {
                problems.push(format!("{}: a rule without a name", group.name));
                continue;
            };
            if rule.alert.is_some() && !alerts.insert(name.clone()) {
                problems.push(format!("{name}: there are two of it"));
            }
            let labels = match known.check(&rule.expr) {
                Ok(labels) => labels,
                Err(why) => {
                    problems.push(format!("{name}: {why}"));
                    continue;
                }
            };
            if rule.alert.is_none() {
                known.recorded.insert(name.clone(), labels);
                continue;
            }
            problems.extend(of_alert(rule, &labels, page).map(|what| format!("{name}: {what}")));
        }
    }
    // Nor does the page tell of alerts that there are not.
    for heading in page.lines().filter_map(|line| line.strip_prefix("### Skein")) {
        let name = format!("Skein{heading}");
        if !alerts.contains(&name) {
            problems.push(format!("{PAGE}: {name} is no alert"));
        }
    }
    problems
}

/// What an alert must tell whoever gets it.
fn of_alert<'a>(
    rule: &'a Rule,
    labels: &'a Labels,
    page: &str,
) -> impl Iterator<Item = String> + 'a {
    let mut problems = Vec::new();
    let name = rule.alert.as_deref().unwrap_or_default();
    let severity = rule.labels.get("severity").map_or("", String::as_str);
    if !["page", "ticket"].contains(&severity) {
        problems.push(format!("severity {severity:?}, and not page or ticket"));
    }
    for key in ["summary", "description"] {
        if rule.annotations.get(key).is_none_or(|text| text.trim().is_empty()) {
            problems.push(format!("no {key}"));
        }
    }
    let runbook = format!("{PAGE}#{}", name.to_lowercase());
    if rule.annotations.get("runbook") != Some(&runbook) {
        problems.push(format!("the runbook is not {runbook}"));
    }
    if !page.lines().any(|line| line == format!("### {name}")) {
        problems.push(format!("{PAGE} has no heading for it"));
    }
    for text in rule.annotations.values() {
        for label in text.split("$labels.").skip(1) {
            let end = label.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(label.len());
            if !labels.contains(&label[..end]) {
                problems.push(format!("tells of `{}`, and has {labels:?}", &label[..end]));
            }
        }
    }
    problems.into_iter()
}

#[test]
fn every_rule_asks_for_what_is_exported_and_is_explained() {
    assert_none(&problems(&read(FILE), &read(PAGE), &exporter_of_tests()));
}

#[test]
fn mistakes_in_rules_are_seen() {
    let exported =
        Exported::parse("# TYPE skein_sessions gauge\nskein_sessions{state=\"x\"} 1\n").unwrap();
    let rules = "
groups:
  - name: skein
    rules:
      - { record: skein:sessions, expr: sum by (state) (skein_sessions) }
      - alert: SkeinGood
        expr: skein:sessions{state=\"x\"} > 1
        for: 5m
        labels: { severity: page }
        annotations:
          summary: \"{{ $labels.state }}\"
          description: d
          runbook: docs/operations.md#skeingood
      - alert: SkeinBad
        expr: sum(skein_sessions) > 1
        for: soon
        labels: { severity: high }
        annotations: { summary: \"{{ $labels.state }}\" }
      - { alert: SkeinGone, expr: skein_gone > 1 }
";
    let page = "### SkeinGood\n\n### SkeinFormer\n";
    let said = problems(rules, page, &exported);
    let expected = [
        "skein: soon is no time",
        "SkeinBad: severity \"high\"",
        "SkeinBad: no description",
        "SkeinBad: the runbook is not docs/operations.md#skeinbad",
        "SkeinBad: docs/operations.md has no heading for it",
        "SkeinBad: tells of `state`",
        "SkeinGone: skein_gone is not exported",
        "docs/operations.md: SkeinFormer is no alert",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(expected), "{said} is not {expected}");
    }
    assert_eq!(problems("groups: [{ name: 1, rule: [] }]", page, &exported).len(), 1);
}
