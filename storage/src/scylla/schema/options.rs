//! What an operator says about the schema, and what can be wrong with it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::super::options::{ConnectError, OpenError};
use crate::StoreError;

/// What is fixed when the keyspace is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaOptions {
    /// On how many nodes each row is kept. Default 3. Of a keyspace that is there already it is
    /// left as it is: changing it needs a repair, which is the operator's to plan.
    pub replication: Replication,
    /// Numbers of a conversation's log in one partition. Default 16384 (11 MB at 0.7 KB a row),
    /// 1 - 1,000,000. It cannot be changed later; tests take a small one to meet edges.
    pub bucket_rows: u64,
}

impl Default for SchemaOptions {
    fn default() -> Self {
        Self { replication: Replication::EachDataCentre(3), bucket_rows: 16_384 }
    }
}

impl SchemaOptions {
    pub(super) fn check(&self) -> Result<(), String> {
        if !(1..=1_000_000).contains(&self.bucket_rows) {
            return Err("bucket_rows must be 1 - 1000000".into());
        }
        Ok(())
    }
}

/// On how many nodes each row is kept (`NetworkTopologyStrategy`). Written `3`, or
/// `dc1:3,dc2:2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replication {
    /// In each data centre that the cluster has when the keyspace is made.
    EachDataCentre(u32),
    /// In the data centres that are named.
    Named(BTreeMap<String, u32>),
}

/// Most replicas in one data centre: far beyond what anybody runs, short of a mistyped number.
const MAX_REPLICAS: u32 = 16;

impl Replication {
    /// As CQL has it.
    pub(super) fn cql(&self) -> String {
        let factors = match self {
            Self::EachDataCentre(factor) => format!("'replication_factor': {factor}"),
            Self::Named(each) => {
                let each: Vec<_> = each.iter().map(|(name, n)| format!("'{name}': {n}")).collect();
                each.join(", ")
            }
        };
        format!("{{'class': 'NetworkTopologyStrategy', {factors}}}")
    }
}

impl Replication {
    /// Whether there are enough nodes; a keyspace for more is made without a word, and then no
    /// majority answers. `nodes` are those that each data centre has.
    pub(super) fn check(&self, nodes: &BTreeMap<String, usize>) -> Result<(), String> {
        let wanted: Vec<(&String, u32)> = match self {
            Self::EachDataCentre(n) => nodes.keys().map(|name| (name, *n)).collect(),
            Self::Named(each) => each.iter().map(|(name, n)| (name, *n)).collect(),
        };
        for (name, wanted) in wanted {
            let found = nodes.get(name).copied().unwrap_or(0);
            if found < wanted as usize {
                let are = if found == 1 { "is" } else { "are" };
                let nodes = if wanted == 1 { "one node".into() } else { format!("{wanted} nodes") };
                return Err(format!(
                    "replication {wanted} needs {nodes} in {name}, there {are} {found}: add nodes \
                     or set scylla.replication"
                ));
            }
        }
        Ok(())
    }
}

impl FromStr for Replication {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let factor = |text: &str| {
            let n = text.trim().parse().ok().filter(|n| (1..=MAX_REPLICAS).contains(n));
            n.ok_or_else(|| format!("`{text}` is no number of replicas (1 - {MAX_REPLICAS})"))
        };
        if !text.contains(':') {
            return factor(text).map(Self::EachDataCentre);
        }
        let mut each = BTreeMap::new();
        for part in text.split(',') {
            let (name, n) = part
                .split_once(':')
                .ok_or_else(|| format!("`{part}` should be DATA_CENTRE:REPLICAS"))?;
            let name = name.trim();
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if name.is_empty() || !name.chars().all(is_plain) {
                return Err(format!("`{name}` is no name of a data centre"));
            }
            if each.insert(name.to_owned(), factor(n)?).is_some() {
                return Err(format!("data centre `{name}` is named twice"));
            }
        }
        Ok(Self::Named(each))
    }
}

impl fmt::Display for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EachDataCentre(factor) => write!(f, "{factor}"),
            Self::Named(each) => {
                let each: Vec<_> = each.iter().map(|(name, n)| format!("{name}:{n}")).collect();
                f.write_str(&each.join(","))
            }
        }
    }
}

/// Which server it is: some things are said to one of them alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// ScyllaDB.
    ScyllaDb,
    /// Apache Cassandra.
    Cassandra,
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ScyllaDb => "ScyllaDB",
            Self::Cassandra => "Cassandra",
        })
    }
}

/// Why the schema was not applied or not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The cluster was not reached, or not with these options.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A schema option is outside its range.
    #[error("{0}")]
    Option(String),
    /// A later version of the program was here.
    #[error(
        "keyspace {keyspace} has schema version {found}, this skein knows up to {known}: upgrade skein"
    )]
    Newer {
        /// The keyspace.
        keyspace: String,
        /// Its version.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// Somebody else applies the schema and does not end.
    #[error(
        "{holder} is applying the schema; if it is not running any more, try again in a minute"
    )]
    Busy {
        /// Who it is, as it introduced itself.
        holder: String,
    },
    /// The schema is there, and is not for a gateway with these options.
    #[error(transparent)]
    Unfit(OpenError),
    /// A statement failed.
    #[error("cannot {what}: {source}")]
    Request {
        /// What was tried.
        what: String,
        /// What came of it.
        source: StoreError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replication_is_read_as_it_is_written() {
        for text in ["3", "1", "dc1:3", "dc1:3,dc2:2", "eu-west:3,us.east_1:5"] {
            let read: Result<Replication, _> = text.parse();
            assert_eq!(read.map(|it| it.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "0", "17", "three", "dc1:", ":3", "dc1:3,", "dc1:3,dc1:2", "d'c:3"] {
            assert!(text.parse::<Replication>().is_err(), "{text}");
        }
    }

    #[test]
    fn replication_needs_as_many_nodes() {
        let nodes = |all: &[(&str, usize)]| -> BTreeMap<String, usize> {
            all.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
        };
        let check = |text: &str, all| text.parse::<Replication>().unwrap().check(&nodes(all));
        let refused = check("3", &[("dc1", 1)]).unwrap_err();
        assert_eq!(
            refused,
            "replication 3 needs 3 nodes in dc1, there is 1: add nodes or set scylla.replication"
        );
        assert!(check("2", &[("dc1", 2), ("dc2", 1)]).unwrap_err().contains("in dc2, there is 1"));
        assert!(check("dc1:1,dc3:1", &[("dc1", 2)]).unwrap_err().contains("in dc3, there are 0"));
        for (text, all) in [("1", &[("dc1", 1)][..]), ("3", &[("dc1", 3)]), ("3", &[("dc1", 5)])] {
            assert_eq!(check(text, all), Ok(()));
        }
        assert_eq!(check("dc1:2", &[("dc1", 2), ("dc2", 1)]), Ok(()));
    }

    #[test]
    fn replication_is_said_in_cql() {
        let cql = |text: &str| text.parse::<Replication>().map(|it| it.cql());
        let each = "{'class': 'NetworkTopologyStrategy', 'replication_factor': 3}";
        assert_eq!(cql("3"), Ok(each.to_owned()));
        let named = "{'class': 'NetworkTopologyStrategy', 'dc1': 3, 'dc2': 2}";
        assert_eq!(cql("dc1:3, dc2:2"), Ok(named.to_owned()));
    }
}
