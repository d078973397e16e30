//! A running gateway's `/metrics`, as far as queries depend on it: which samples there are, of
//! which kind, with which labels and values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use skein_storage::MetricsVisitor;

use crate::support::http::get;

/// How a sample may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only ever rises: counters, and what histograms are made of.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// One name as Prometheus stores it.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) kind: Kind,
    /// Label, and all values that it has.
    pub(crate) labels: BTreeMap<String, BTreeSet<String>>,
}

/// All that is exported.
#[derive(Debug, Default)]
pub(crate) struct Exported {
    samples: BTreeMap<String, Sample>,
    /// Families that are announced; some may have no sample yet.
    families: BTreeMap<String, String>,
}

impl Exported {
    /// Of the gateway whose admin listener is there.
    pub(crate) fn of(admin: SocketAddr) -> Self {
        let answer = get(admin, "/metrics");
        assert_eq!(answer.status, 200, "{}", answer.body);
        Self::parse(&answer.body).unwrap()
    }

    /// Of an exposition in OpenMetrics text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut exported = Self::default();
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').ok_or(line)?;
                exported.families.insert(name.into(), kind.into());
            } else if !line.starts_with('#') {
                exported.add(line).ok_or_else(|| format!("cannot be read: {line}"))?;
            }
        }
        Ok(exported)
    }

    fn add(&mut self, line: &str) -> Option<()> {
        let end = line.find(['{', ' '])?;
        let name = &line[..end];
        let (family, kind) = self.family_of(name)?;
        let kind = match (kind, name.strip_prefix(family)?) {
            ("counter", "_total") | ("histogram", "_bucket" | "_count" | "_sum") => Kind::Counter,
            ("gauge" | "unknown", "") | ("info", "_info") => Kind::Gauge,
            _ => return None,
        };
        let sample = Sample { kind, labels: BTreeMap::new() };
        let sample = self.samples.entry(name.into()).or_insert(sample);
        let mut rest = line[end..].strip_prefix('{').unwrap_or_default();
        while !rest.is_empty() && !rest.starts_with('}') {
            let (label, value) = rest.split_once("=\"")?;
            // No value of ours has a quote or a backslash in it.
            let (value, after) = value.split_once('"')?;
            sample.labels.entry(label.into()).or_default().insert(value.into());
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        Some(())
    }

    fn insert(&mut self, name: String, kind: Kind, labels: &[&str]) {
        let labels = labels.iter().map(|label| ((*label).into(), BTreeSet::new())).collect();
        self.samples.entry(name).or_insert(Sample { kind, labels });
    }

    /// The longest announced name that this one begins with.
    fn family_of<'a>(&'a self, name: &str) -> Option<(&'a str, &'a str)> {
        let fits = |(family, _): &(&'a String, &'a String)| name.starts_with(family.as_str());
        let found = self.families.iter().filter(fits).max_by_key(|(family, _)| family.len());
        found.map(|(family, kind)| (family.as_str(), kind.as_str()))
    }

    pub(crate) fn sample(&self, name: &str) -> Result<&Sample, String> {
        self.samples.get(name).ok_or_else(|| {
            let family = self.family_of(name).map(|(family, _)| family);
            let of_it = |other: &String| self.family_of(other).map(|it| it.0) == family;
            if family.is_some() && !self.samples.keys().any(of_it) {
                return format!("{name} is announced and has no sample: its labels are not known");
            }
            let likeness = |other: &&String| (strsim::jaro(other, name) * 1e6) as u64;
            let nearest = self.samples.keys().max_by_key(likeness);
            format!("{name} is not exported; the nearest that is: {nearest:?}")
        })
    }

    /// Names of all samples.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.samples.keys().map(String::as_str)
    }
}

/// Takes what a store shows that does not run here, as the exporter would.
impl MetricsVisitor for Exported {
    fn counter(&mut self, name: &'static str, _: &'static str, _: u64) {
        self.insert(format!("skein_{name}"), Kind::Counter, &[]);
    }

    fn gauge(&mut self, name: &'static str, _: &'static str, _: u64) {
        self.insert(format!("skein_{name}"), Kind::Gauge, &[]);
    }

    fn histogram(
        &mut self,
        name: &'static str,
        _: &'static str,
        _: &mut dyn Iterator<Item = (f64, u64)>,
        _: f64,
    ) {
        self.insert(format!("skein_{name}_bucket"), Kind::Counter, &["le"]);
        self.insert(format!("skein_{name}_sum"), Kind::Counter, &[]);
        self.insert(format!("skein_{name}_count"), Kind::Counter, &[]);
    }
}

#[test]
fn an_exposition_is_read() {
    let text = "# HELP skein_a Some.\n# TYPE skein_a counter\n# UNIT skein_a bytes\n\
                skein_a_total{kind=\"x\",way=\"in\"} 1\nskein_a_total{kind=\"y\",way=\"in\"} 2\n\
                # TYPE skein_b gauge\n# TYPE skein_build info\nskein_build_info{version=\"1\"} 1\n\
                # EOF\n";
    let exported = Exported::parse(text).unwrap();
    let sample = exported.sample("skein_a_total").unwrap();
    assert_eq!(sample.kind, Kind::Counter);
    assert_eq!(sample.labels["kind"], BTreeSet::from(["x".into(), "y".into()]));
    assert_eq!(sample.labels["way"], BTreeSet::from(["in".into()]));
    assert!(exported.sample("skein_b").unwrap_err().contains("has no sample"));
    assert!(exported.sample("skein_c").unwrap_err().contains("not exported"));
    assert_eq!(exported.names().collect::<Vec<_>>(), ["skein_a_total", "skein_build_info"]);
    assert!(Exported::parse("skein_a_total 1\n").is_err());
}
