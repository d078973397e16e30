//! The queries of the dashboard.

use serde_json::Value;

use super::exporter::Exported;
use super::query::Known;
use super::{assert_none, exporter_of_tests, read};

const FILE: &str = "deploy/grafana/skein.json";

/// What Grafana puts in before it asks.
fn filled_in(query: &str) -> String {
    let query = query.replace("$__rate_interval", "5m").replace("$__range", "1h");
    query.replace("$instance", ".*").replace("$job", "skein")
}

/// Panels, those in rows too.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        found.push(panel);
        found.extend(panel["panels"].as_array().into_iter().flatten());
    }
    found
}

fn problems(dashboard: &Value, exported: &Exported) -> Vec<String> {
    let known = Known::new(exported);
    let mut problems = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    for panel in panels(dashboard) {
        let title = panel["title"].as_str().unwrap_or("a panel without a title");
        let mut problem = |what: &str| problems.push(format!("{title}: {what}"));
        if !ids.insert(panel["id"].as_u64()) {
            problem("its id is another panel's, or there is none");
        }
        if panel["type"] == "row" {
            continue;
        }
        if panel["description"].as_str().is_none_or(str::is_empty) {
            problem("says not what it shows");
        }
        if panel["fieldConfig"]["defaults"]["unit"].as_str().is_none_or(str::is_empty) {
            problem("has no unit");
        }
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        if targets.is_empty() {
            problem("asks for nothing");
        }
        for target in targets {
            let query = target["expr"].as_str().unwrap_or_default();
            let query = filled_in(query);
            match known.check(&query) {
                Err(why) => problem(&format!("{query}: {why}")),
                Ok(labels) => {
                    let legend = target["legendFormat"].as_str().unwrap_or_default();
                    for label in labels_in(legend) {
                        if !labels.contains(label) {
                            problem(&format!(
                                "{query}: the legend's `{label}` is none of {labels:?}"
                            ));
                        }
                    }
                }
            }
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().into_iter().flatten() {
        if let Some(query) = annotation["expr"].as_str()
            && let Err(why) = known.check(&filled_in(query))
        {
            problems.push(format!("{query}: {why}"));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().into_iter().flatten() {
        if variable["type"] != "query" {
            continue;
        }
        let query = variable["query"]["query"].as_str().unwrap_or_default();
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (metric, label) = inner.and_then(|inner| inner.rsplit_once(',')).unwrap_or_default();
        match known.check(&filled_in(metric)) {
            Ok(labels) if labels.contains(label.trim()) => {}
            Ok(labels) => problems.push(format!("{query}: {label} is none of {labels:?}")),
            Err(why) => problems.push(format!("{query}: {why}")),
        }
    }
    problems
}

/// `{{label}}` of a legend.
fn labels_in(legend: &str) -> Vec<&str> {
    legend.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0.trim())).collect()
}

#[test]
fn every_query_of_the_dashboard_asks_for_what_is_exported() {
    let dashboard: Value = serde_json::from_str(&read(FILE)).unwrap();
    assert!(panels(&dashboard).len() > 20);
    assert_none(&problems(&dashboard, &exporter_of_tests()));
}

#[test]
fn mistakes_in_a_dashboard_are_seen() {
    let exported =
        Exported::parse("# TYPE skein_sessions gauge\nskein_sessions{state=\"x\"} 1\n").unwrap();
    let dashboard = serde_json::json!({
        "panels": [
            { "id": 1, "title": "row", "type": "row", "panels": [
                { "id": 2, "title": "one", "description": "d",
                  "fieldConfig": { "defaults": { "unit": "short" } },
                  "targets": [{ "expr": "skein_gone{instance=~\"$instance\"}" }] },
            ] },
            { "id": 2, "title": "two", "targets": [] },
            { "id": 3, "title": "three", "description": "d",
              "fieldConfig": { "defaults": { "unit": "short" } },
              "targets": [{ "expr": "sum by (state) (skein_sessions)", "legendFormat": "{{ shard }}" }] },
        ],
        "annotations": { "list": [{ "name": "built in" }, { "expr": "changes(skein_gone[1m])" }] },
        "templating": { "list": [
            { "type": "query", "query": { "query": "label_values(skein_sessions, shard)" } },
        ] },
    });
    let said = problems(&dashboard, &exported);
    let expected = [
        "one: skein_gone",
        "two: its id",
        "two: says not",
        "two: has no unit",
        "two: asks for nothing",
        "three: sum by (state) (skein_sessions): the legend's `shard`",
        "changes(skein_gone[1m])",
        "label_values(skein_sessions, shard)",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(expected), "{said} is not {expected}");
    }
}
