//! The stores that are measured.

use std::ops::Sub;
use std::path::Path;
use std::time::Duration;

use skein_storage::Store;
use skein_storage::embedded::{EmbeddedOptions, EmbeddedStore};
use skein_storage::scylla::schema::{self, Replication, SchemaOptions};
use skein_storage::scylla::{ScyllaOptions, ScyllaStore};
use skein_xtask::cql;
use tokio::runtime::Runtime;

use crate::Args;
use crate::cpu::{self, CpuSeconds};

/// What a store has counted since it was opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) rows: u64,
    /// Commits with an fsync, or conditional batches.
    pub(crate) transactions: u64,
    /// Attempts whose outcome was not known.
    pub(crate) unknown: u64,
}

impl Sub for Counted {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            rows: self.rows - before.rows,
            transactions: self.transactions - before.transactions,
            unknown: self.unknown - before.unknown,
        }
    }
}

pub(crate) enum Backend {
    Embedded { store: EmbeddedStore, runtime: Runtime, _folder: tempfile::TempDir },
    Cql(Box<Cql>),
}

impl Backend {
    /// A new embedded store in a folder of its own, with the options of a gateway.
    pub(crate) fn embedded(data: Option<&Path>) -> Self {
        let folder = match data {
            Some(data) => tempfile::tempdir_in(data),
            None => tempfile::tempdir(),
        };
        let folder = folder.expect("a temporary folder");
        let store = EmbeddedStore::open(folder.path().join("store"), EmbeddedOptions::default());
        let runtime = Runtime::new().expect("a runtime");
        Self::Embedded { store: store.expect("a new store"), runtime, _folder: folder }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Embedded { .. } => "embedded",
            Self::Cql(_) => "cql",
        }
    }

    pub(crate) fn store(&self) -> &dyn Store {
        match self {
            Self::Embedded { store, .. } => store,
            Self::Cql(cql) => &cql.store,
        }
    }

    pub(crate) fn counted(&self) -> Counted {
        match self {
            Self::Embedded { store, .. } => {
                let stats = store.stats();
                Counted { rows: stats.rows, transactions: stats.commits, unknown: 0 }
            }
            Self::Cql(cql) => {
                let stats = cql.store.stats();
                let (rows, transactions) = (stats.rows, stats.appends);
                Counted { rows, transactions, unknown: stats.unknown_outcomes }
            }
        }
    }

    pub(crate) fn cpu_seconds(&self) -> CpuSeconds {
        let server = match self {
            Self::Embedded { .. } => None,
            Self::Cql(cql) => cpu::of_all(&cql.pids),
        };
        CpuSeconds { own: cpu::own(), server }
    }

    pub(crate) fn close(self) {
        let closed = match &self {
            Self::Embedded { store, runtime, .. } => runtime.block_on(store.close()),
            Self::Cql(cql) => cql.runtime.block_on(cql.store.close()),
        };
        closed.expect("the store closes");
    }
}

/// The clustered store on a CQL server.
pub(crate) struct Cql {
    store: ScyllaStore,
    runtime: Runtime,
    pids: Vec<u32>,
    /// Which server it is.
    pub(crate) description: String,
    _cluster: Option<cql::Cluster>,
}

impl Cql {
    /// Opens it; why there is none, and what to do, if there is none.
    pub(crate) fn open(args: &Args) -> Result<Self, String> {
        let runtime = Runtime::new().expect("a runtime");
        let (points, pids, cluster, copies) = match &args.cql {
            Some(point) => (vec![point.clone()], Vec::from_iter(args.cql_pid), None, 1),
            None => {
                let cluster = start(args)?;
                let points = cluster.contact_points().iter().map(ToString::to_string).collect();
                let pids = cluster.nodes().iter().filter_map(cql::Node::pid).collect();
                (points, pids, Some(cluster), args.nodes as u32)
            }
        };
        let options = ScyllaOptions {
            // Beyond the server's own limits: a slow answer is slow, not unknown.
            request_timeout: Duration::from_secs(30),
            ..ScyllaOptions::new(points.clone(), &args.keyspace)
        };
        let replication = Replication::EachDataCentre(copies);
        let schema = SchemaOptions { replication, ..SchemaOptions::default() };
        let opened = runtime.block_on(async {
            let made = schema::apply(&options, &schema, &mut |_| {}).await;
            let report = made.map_err(|error| error.to_string())?;
            let store = ScyllaStore::open(options).await.map_err(|error| error.to_string())?;
            Ok::<_, String>((store, report.kind.to_string()))
        });
        let (store, kind) = opened.map_err(|error| format!("no CQL server: {error}"))?;
        let description = match &cluster {
            Some(_) if args.durable => format!("{kind}, {copies} node(s), fsync before the answer"),
            Some(_) => format!("{kind}, {copies} node(s), fsync every 10 s"),
            None => format!("{kind} at {}", points.join(", ")),
        };
        Ok(Self { store, runtime, pids, description, _cluster: cluster })
    }
}

fn start(args: &Args) -> Result<cql::Cluster, String> {
    let options = cql::Options {
        nodes: args.nodes,
        durable: args.durable,
        optimised: true,
        ..cql::Options::default()
    };
    cql::Cluster::start(options).map_err(|error| {
        format!("no CQL server: {error}; with one that runs already: --cql HOST:PORT")
    })
}
