//! One PromQL query against what a gateway exports. The result of a check is which labels the
//! query's answer has, so that what is built on it can be checked, too.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{
    self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality,
    VectorSelector,
};

use super::exporter::{Exported, Kind, Sample};

/// Labels that Prometheus adds to everything that it scrapes.
const OF_TARGETS: [&str; 2] = ["instance", "job"];
/// What may be done with a counter, or a part of a histogram.
const OF_COUNTERS: [&str; 5] = ["rate", "irate", "increase", "resets", "changes"];
/// What is there about every target, whatever it exports.
const UP: &str = "up";

pub(crate) type Labels = BTreeSet<String>;

/// What queries may ask for.
pub(crate) struct Known<'a> {
    pub(crate) exported: &'a Exported,
    /// Rules that record, and which labels they leave.
    pub(crate) recorded: BTreeMap<String, Labels>,
}

impl<'a> Known<'a> {
    pub(crate) fn new(exported: &'a Exported) -> Self {
        Self { exported, recorded: BTreeMap::new() }
    }

    /// Labels of the answer, or what is wrong.
    pub(crate) fn check(&self, query: &str) -> Result<Labels, String> {
        let expr = parser::parse(query).map_err(|error| format!("no PromQL: {error}"))?;
        Ok(self.labels(&expr, None)?.unwrap_or_default())
    }

    /// Which labels an expression has; none for a number. `within` is the function around it.
    fn labels(&self, expr: &Expr, within: Option<&str>) -> Result<Option<Labels>, String> {
        match expr {
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(None),
            Expr::Paren(inner) => self.labels(&inner.expr, within),
            Expr::Unary(inner) => self.labels(&inner.expr, within),
            Expr::Subquery(inner) => self.labels(&inner.expr, None),
            Expr::VectorSelector(selector) => self.selected(selector, within).map(Some),
            Expr::MatrixSelector(matrix) => self.selected(&matrix.vs, within).map(Some),
            Expr::Aggregate(aggregate) => self.aggregated(aggregate).map(Some),
            Expr::Call(call) => self.called(call),
            Expr::Binary(binary) => self.combined(binary),
            Expr::Extension(_) => Err("what is this".into()),
        }
    }

    fn selected(&self, selector: &VectorSelector, within: Option<&str>) -> Result<Labels, String> {
        let name = selector.name.as_deref().ok_or("name the metric")?;
        let mut labels: Labels = OF_TARGETS.map(String::from).into();
        let mut values = None;
        if let Some(recorded) = self.recorded.get(name) {
            labels.extend(recorded.iter().cloned());
        } else if name != UP {
            let sample = self.exported.sample(name)?;
            let rated = within.is_some_and(|function| OF_COUNTERS.contains(&function));
            match (sample.kind, rated) {
                (Kind::Counter, false) if within != Some("absent") => {
                    return Err(format!("{name} only ever rises: ask for its rate or increase"));
                }
                (Kind::Gauge, true) if within != Some("changes") => {
                    return Err(format!("{name} is a gauge and has no {}", within.unwrap_or("")));
                }
                _ => {}
            }
            labels.extend(sample.labels.keys().cloned());
            values = Some(sample);
        }
        for matcher in &selector.matchers.matchers {
            check_matcher(name, matcher, &labels, values)?;
        }
        Ok(labels)
    }

    fn aggregated(&self, aggregate: &AggregateExpr) -> Result<Labels, String> {
        let labels = self.labels(&aggregate.expr, None)?.ok_or("aggregates a number")?;
        let op = aggregate.op.to_string();
        match &aggregate.modifier {
            // These choose among series, and leave them as they are.
            _ if ["topk", "bottomk", "limitk"].contains(&op.as_str()) => Ok(labels),
            None => Ok(Labels::new()),
            Some(LabelModifier::Include(by)) => {
                all_in(&by.labels, &labels, "by")?;
                Ok(by.labels.iter().cloned().collect())
            }
            Some(LabelModifier::Exclude(without)) => {
                all_in(&without.labels, &labels, "without")?;
                let gone = &without.labels;
                Ok(labels.into_iter().filter(|label| !gone.contains(label)).collect())
            }
        }
    }

    fn called(&self, call: &Call) -> Result<Option<Labels>, String> {
        let name = call.func.name;
        let mut labels = None;
        for argument in &call.args.args {
            let of_argument = self.labels(argument, Some(name))?;
            labels = labels.or(of_argument);
        }
        match name {
            "histogram_quantile" => {
                let mut labels = labels.ok_or("a quantile of a number")?;
                if !labels.remove("le") {
                    return Err("a quantile needs the label `le`: sum by (le, ...)".into());
                }
                Ok(Some(labels))
            }
            // A number, or a vector without labels.
            "scalar" | "time" => Ok(None),
            "vector" => Ok(Some(Labels::new())),
            _ => Ok(labels),
        }
    }

    fn combined(&self, binary: &BinaryExpr) -> Result<Option<Labels>, String> {
        let left = self.labels(&binary.lhs, None)?;
        let right = self.labels(&binary.rhs, None)?;
        let (left, right) = match (left, right) {
            (Some(left), Some(right)) => (left, right),
            (one, other) => return Ok(one.or(other)),
        };
        let modifier = binary.modifier.as_ref();
        match modifier.and_then(|modifier| modifier.matching.as_ref()) {
            Some(LabelModifier::Include(on)) => {
                all_in(&on.labels, &left, "on (left)")?;
                all_in(&on.labels, &right, "on (right)")?;
            }
            Some(LabelModifier::Exclude(ignoring)) => {
                let rest = |labels: &Labels| -> Labels {
                    labels.iter().filter(|l| !ignoring.labels.contains(l)).cloned().collect()
                };
                same(&rest(&left), &rest(&right))?;
            }
            None => same(&left, &right)?,
        }
        let mut labels = match modifier.map(|modifier| &modifier.card) {
            Some(VectorMatchCardinality::OneToMany(_)) => right.clone(),
            _ => left.clone(),
        };
        if let Some(brought) = modifier.and_then(|modifier| modifier.card.labels()) {
            labels.extend(brought.labels.iter().cloned());
        }
        Ok(Some(labels))
    }
}

fn check_matcher(
    name: &str,
    matcher: &Matcher,
    labels: &Labels,
    sample: Option<&Sample>,
) -> Result<(), String> {
    let label = &matcher.name;
    if !labels.contains(label) {
        return Err(format!("{name} has no label `{label}`; it has {labels:?}"));
    }
    let Some(values) = sample.and_then(|sample| sample.labels.get(label)) else { return Ok(()) };
    let found = match &matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => values.contains(&matcher.value),
        MatchOp::Re(pattern) | MatchOp::NotRe(pattern) => {
            values.iter().any(|value| pattern.is_match(value))
        }
    };
    match found {
        true => Ok(()),
        false => Err(format!("{name}: `{label}` is never {:?}; it is {values:?}", matcher.value)),
    }
}

fn all_in(wanted: &[String], labels: &Labels, place: &str) -> Result<(), String> {
    match wanted.iter().find(|label| !labels.contains(*label)) {
        Some(label) => Err(format!("{place} `{label}`, and there is none; there are {labels:?}")),
        None => Ok(()),
    }
}

fn same(left: &Labels, right: &Labels) -> Result<(), String> {
    match left == right {
        true => Ok(()),
        false => Err(format!("nothing matches: {left:?} on the left, {right:?} on the right")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPORTED: &str = "\
# TYPE skein_sessions gauge
skein_sessions 3
# TYPE skein_logins counter
skein_logins_total{outcome=\"ok\"} 3
skein_logins_total{outcome=\"refused\"} 0
# TYPE skein_ack_seconds histogram
skein_ack_seconds_sum 0.5
skein_ack_seconds_count 1
skein_ack_seconds_bucket{le=\"1.0\"} 1
skein_ack_seconds_bucket{le=\"+Inf\"} 1
# TYPE skein_shard_turns counter
skein_shard_turns_total{shard=\"0\"} 1
# EOF
";

    fn check(query: &str) -> Result<Vec<String>, String> {
        let exported = Exported::parse(EXPORTED).unwrap();
        Known::new(&exported).check(query).map(|labels| labels.into_iter().collect())
    }

    #[test]
    fn good_queries_pass_and_tell_their_labels() {
        let cases = [
            ("skein_sessions", vec!["instance", "job"]),
            ("sum(skein_sessions)", vec![]),
            ("up{job=\"skein\"} == 0", vec!["instance", "job"]),
            ("rate(skein_logins_total{outcome=\"ok\"}[5m])", vec!["instance", "job", "outcome"]),
            ("sum by (outcome) (rate(skein_logins_total[5m]))", vec!["outcome"]),
            ("sum without (outcome) (rate(skein_logins_total[5m]))", vec!["instance", "job"]),
            (
                "histogram_quantile(0.99, sum by (le, job) (rate(skein_ack_seconds_bucket[5m])))",
                vec!["job"],
            ),
            ("max by (job) (skein_sessions) / on (job) sum by (job) (up) > 2", vec!["job"]),
            ("max_over_time(skein_sessions[1h]) - skein_sessions", vec!["instance", "job"]),
            ("topk(3, rate(skein_shard_turns_total[5m]))", vec!["instance", "job", "shard"]),
            ("absent(skein_logins_total)", vec!["instance", "job", "outcome"]),
            ("time() - skein_sessions > 3", vec!["instance", "job"]),
        ];
        for (query, labels) in cases {
            assert_eq!(check(query), Ok(labels.into_iter().map(String::from).collect()), "{query}");
        }
    }

    #[test]
    fn each_mistake_is_seen() {
        let cases = [
            ("sum(", "no PromQL"),
            ("skein_session", "not exported"),
            ("skein_logins", "not exported"),
            ("sum(skein_logins_total)", "only ever rises"),
            ("rate(skein_sessions[5m])", "is a gauge"),
            ("rate(skein_logins_total{result=\"ok\"}[5m])", "no label `result`"),
            ("rate(skein_logins_total{outcome=\"good\"}[5m])", "never \"good\""),
            ("rate(skein_logins_total{outcome=~\"good|fine\"}[5m])", "never"),
            ("sum by (shard) (rate(skein_logins_total[5m]))", "by `shard`"),
            ("sum without (shard) (skein_sessions)", "without `shard`"),
            ("histogram_quantile(0.5, sum by (job) (rate(skein_ack_seconds_bucket[5m])))", "`le`"),
            ("skein_ack_seconds_bucket", "only ever rises"),
            ("rate(skein_logins_total[5m]) / skein_sessions", "nothing matches"),
            ("sum by (job) (skein_sessions) / on (shard) sum(up)", "on (left) `shard`"),
            ("{job=\"skein\"}", "name the metric"),
        ];
        for (query, expected) in cases {
            let said = check(query).expect_err(query);
            assert!(said.contains(expected), "{query}: {said}");
        }
    }
}
