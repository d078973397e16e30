//! The cluster under the gateways: three real nodes with replication 3, each behind a proxy.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use skein_xtask::cql::proxy::Proxies;
use skein_xtask::cql::{Cluster, CqlError, Node, Options};

use skein_storage::scylla::ScyllaOptions;
use skein_storage::scylla::schema::{self, SchemaOptions};

use crate::support::process;

/// How long a node waits for others before it says that it does not know. Shorter than what a
/// server comes with, so that a fault shows soon.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a gateway waits for the answer to a request: longer than the servers', and shorter
/// than what a proxy holds back or a node sleeps.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// How long nodes have until they serve and have found each other.
const START: Duration = Duration::from_secs(120);

/// Starts of nodes that have not found the others.
const MOST_RESTARTS: u32 = 3;

pub struct Site {
    pub cluster: Cluster,
    keyspaces: AtomicU32,
}

impl Site {
    pub fn start() -> Self {
        let options = Options {
            nodes: 3,
            behind_proxies: true,
            // A node that is killed must not forget what it has promised to the others.
            durable: true,
            request_timeout: SERVER_TIMEOUT,
            start_timeout: START,
            ..Options::default()
        };
        let cluster = Cluster::start(options).unwrap_or_else(|error| panic!("{error}"));
        Self { cluster, keyspaces: AtomicU32::new(0) }
    }

    pub fn node(&self, at: usize) -> &Node {
        self.cluster.node(at)
    }

    pub fn len(&self) -> usize {
        self.cluster.nodes().len()
    }

    pub fn proxies(&self) -> &Proxies {
        self.cluster.proxies().unwrap()
    }

    /// Every node runs and reaches the others, and no proxy does anything but pass on.
    pub fn make_whole(&self) {
        self.proxies().heal();
        for node in self.cluster.nodes().iter().filter(|node| node.pid().is_some()) {
            node.resume().unwrap();
        }
        let dead: Vec<_> = (0..self.len()).filter(|&at| self.node(at).pid().is_none()).collect();
        self.start_nodes(&dead);
    }

    /// Starts these nodes, all at once, and returns when all nodes of the cluster reach each
    /// other.
    pub fn start_nodes(&self, which: &[usize]) {
        std::thread::scope(|scope| {
            for &at in which {
                scope.spawn(move || self.node(at).start().unwrap());
            }
        });
        // On a busy machine a node sometimes overlooks another for ever: its operator starts it
        // again.
        for _ in 0..MOST_RESTARTS {
            match self.cluster.wait() {
                Ok(()) => return,
                Err(CqlError::Node { node, what, .. }) => {
                    eprintln!("node {node} {what}: it is started again");
                    self.node(node).kill().unwrap();
                    self.node(node).start().unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the nodes do not find each other");
    }

    /// A keyspace with the schema and nothing in it. Buckets so small that logs have several.
    pub fn new_keyspace(&self) -> String {
        let name = format!("act_{}", self.keyspaces.fetch_add(1, Ordering::Relaxed));
        let options = ScyllaOptions::new(self.contact_points(), &name);
        let schema = SchemaOptions { bucket_rows: 64, ..SchemaOptions::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(schema::apply(&options, &schema, &mut |_| {})).unwrap();
        name
    }

    fn contact_points(&self) -> Vec<String> {
        self.cluster.contact_points().iter().map(ToString::to_string).collect()
    }

    /// Settings of a gateway on this keyspace.
    pub fn options(&self, keyspace: &str) -> process::Options {
        process::Options::default()
            .env("SKEIN_LOG", "warn,skein_storage::scylla=debug")
            .env("SKEIN_SESSION__HEARTBEAT_INTERVAL", "3s")
            .env("HACK_POINTS", self.contact_points().join(","))
            .env("HACK_KEYSPACE", keyspace)
    }
}
