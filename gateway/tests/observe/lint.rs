//! The rules of `promtool check metrics`, on a page in the text format of OpenMetrics, and what that
//! format asks for: each name once, its samples together, buckets in order, an end.

use std::collections::{BTreeMap, HashSet};

/// A metric of a page.
#[derive(Debug, Default)]
pub(crate) struct Metric {
    pub(crate) kind: String,
    pub(crate) help: String,
    /// Name with suffix and labels, and value.
    pub(crate) samples: Vec<(String, f64)>,
}

/// The metrics of a page by name; a counter's is without `_total`.
pub(crate) fn parse(page: &str) -> Result<BTreeMap<String, Metric>, String> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    let mut current = String::new();
    let body = page.strip_suffix("# EOF\n").ok_or("the page has no end")?;
    for line in body.lines() {
        let bad = || format!("not understood: {line}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or_else(bad)?;
            current = name.to_owned();
            let metric = Metric { help: help.to_owned(), ..Metric::default() };
            if metrics.insert(current.clone(), metric).is_some() {
                return Err(format!("{name}: there twice"));
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(bad)?;
            let metric = metrics.get_mut(name).filter(|_| name == current).ok_or_else(bad)?;
            metric.kind = kind.to_owned();
        } else {
            let (sample, value) = line.rsplit_once(' ').ok_or_else(bad)?;
            let value = value.parse().map_err(|_| bad())?;
            let name = sample.split('{').next().unwrap_or_default();
            let suffix = name.strip_prefix(&*current).ok_or_else(|| format!("astray: {line}"))?;
            let metric = metrics.get_mut(&current).ok_or_else(bad)?;
            let allowed: &[&str] = match metric.kind.as_str() {
                "counter" => &["_total"],
                "histogram" => &["_sum", "_count", "_bucket"],
                "gauge" => &[""],
                _ => return Err(format!("{current}: kind {:?}", metric.kind)),
            };
            if !allowed.contains(&suffix) {
                return Err(format!("astray: {line}"));
            }
            metric.samples.push((sample.to_owned(), value));
        }
    }
    Ok(metrics)
}

/// Everything that breaks a rule.
pub(crate) fn lint(metrics: &BTreeMap<String, Metric>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, metric) in metrics {
        found.extend(problems(name, metric).into_iter().map(|what| format!("{name}: {what}")));
    }
    found
}

/// Units that are not base units, and short forms.
const NOT_BASE: &[&str] = &[
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "weeks",
    "millis",
    "micros",
    "nanos",
    "kilobytes",
    "megabytes",
    "gigabytes",
    "kibibytes",
    "mebibytes",
    "bits",
    "percent",
    "kelvin",
    "fahrenheit",
    "s",
    "ms",
    "us",
    "ns",
    "sec",
    "b",
    "kb",
    "mb",
    "gb",
    "tb",
    "pb",
    "m",
    "h",
    "d",
    "kib",
    "mib",
    "gib",
];

fn problems(name: &str, metric: &Metric) -> Vec<&'static str> {
    let mut found = Vec::new();
    let words: Vec<&str> = name.split('_').collect();
    let mut rule = |broken: bool, what| {
        if broken {
            found.push(what);
        }
    };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    rule(metric.help.trim().is_empty(), "no help");
    rule(!name.chars().all(plain) || name.contains("__"), "not in snake case, or with a colon");
    rule(!(name.starts_with("skein_") || name.starts_with("process_")), "not ours");
    rule(words.iter().any(|word| NOT_BASE.contains(word)), "not in a base unit");
    let kinds = ["counter", "gauge", "histogram", "summary"];
    rule(words.iter().any(|word| kinds.contains(word)), "its kind is in its name");
    rule(name.ends_with("_total"), "`_total` is for counters, once");
    let reserved = ["_sum", "_count", "_bucket"];
    rule(reserved.iter().any(|end| name.ends_with(end)), "a suffix of histograms");
    rule(metric.samples.is_empty(), "without a sample");
    let mut seen = HashSet::new();
    rule(!metric.samples.iter().all(|(sample, _)| seen.insert(sample)), "a sample twice");
    let is_histogram = metric.kind == "histogram";
    let labels = metric.samples.iter().flat_map(|(sample, _)| labels_of(sample));
    for label in labels {
        rule(!label.chars().all(plain), "a label not in snake case");
        rule(label == "quantile" || label == "le" && !is_histogram, "a label of histograms");
    }
    rule(metric.kind != "gauge" && metric.samples.iter().any(|(_, n)| *n < 0.0), "less than none");
    if is_histogram {
        let value = |part: &str| {
            let with = format!("{name}{part}");
            metric.samples.iter().filter(move |(sample, _)| sample.starts_with(&with))
        };
        let buckets: Vec<f64> = value("_bucket").map(|(_, count)| *count).collect();
        rule(!buckets.is_sorted(), "buckets that are not cumulative");
        let last = value("_bucket").next_back();
        rule(!last.is_some_and(|(sample, _)| sample.contains("+Inf")), "no infinite bucket");
        let count = value("_count").next().map(|(_, count)| *count);
        rule(count != buckets.last().copied(), "its count is not that of all buckets");
    }
    found
}

fn labels_of(sample: &str) -> Vec<&str> {
    let Some((_, labels)) = sample.split_once('{') else { return Vec::new() };
    labels.trim_end_matches('}').split(',').filter_map(|it| Some(it.split_once('=')?.0)).collect()
}

#[test]
fn the_rules_see_what_breaks_them() {
    let page = |name: &str, kind: &str, sample: &str| {
        format!("# HELP {name} Help\n# TYPE {name} {kind}\n{sample} 1\n# EOF\n")
    };
    let said = |text: &str| lint(&parse(text).unwrap()).join("; ");
    assert_eq!(said(&page("skein_logins", "counter", "skein_logins_total")), "");
    for (name, kind, sample, what) in [
        ("skein_wait_ms", "gauge", "skein_wait_ms", "base unit"),
        ("skein_waitTime", "gauge", "skein_waitTime", "snake case"),
        ("logins", "counter", "logins_total", "not ours"),
        ("skein_login_counter", "counter", "skein_login_counter_total", "kind is in its name"),
        ("skein_x_count", "gauge", "skein_x_count", "suffix of histograms"),
        ("skein_x_total", "gauge", "skein_x_total", "`_total` is for counters"),
        ("skein_x", "gauge", "skein_x{le=\"1\"}", "label of histograms"),
        ("skein_x", "gauge", "skein_x{aB=\"1\"}", "label not in snake case"),
        ("skein_x", "histogram", "skein_x_bucket{le=\"1.0\"}", "no infinite bucket"),
    ] {
        let said = said(&page(name, kind, sample));
        assert!(said.contains(what), "{name}: {said}");
    }
    for (text, what) in [
        (page("skein_x", "counter", "skein_x"), "astray"),
        (page("skein_x", "unknown", "skein_x"), "kind"),
        (page("skein_x", "gauge", "skein_x").repeat(2), "not understood"),
        ("# HELP skein_x Help\n".to_owned(), "no end"),
    ] {
        assert!(parse(&text).unwrap_err().contains(what), "{text}");
    }
}
