//! The cluster under the gateways: three real nodes with replication 3, each behind a proxy.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use skein_xtask::cql::proxy::Proxies;
use skein_xtask::cql::{Cluster, Node, Options};

use crate::support::process::{self, skein};

/// How long a node waits for others before it says that it does not know. Shorter than what a
/// server comes with, so that a fault shows soon.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a gateway waits for the answer to a request: longer than the servers', and shorter
/// than what a proxy holds back or a node sleeps.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Messages in a partition.
const BUCKET_ROWS: u32 = 64;

/// How long nodes have until they serve and have found each other.
const START: Duration = Duration::from_secs(120);

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
            // And what it has missed stays missing until somebody reads or writes there.
            hints: false,
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
        self.cluster.wait().unwrap();
    }

    /// A keyspace with the schema and nothing in it. Its partitions are so small that logs have
    /// several.
    pub fn new_keyspace(&self) -> String {
        let name = format!("act_{}", self.keyspaces.fetch_add(1, Ordering::Relaxed));
        let rows = BUCKET_ROWS.to_string();
        let made = skein(&["schema", "apply", "--bucket-rows", &rows], &self.options(&name));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        name
    }

    /// Settings of a gateway on this keyspace.
    pub fn options(&self, keyspace: &str) -> process::Options {
        let points = self.cluster.contact_points();
        let points: Vec<_> = points.iter().map(ToString::to_string).collect();
        process::Options::default()
            .env("SKEIN_LOG", "warn,skein_storage::scylla=debug")
            .env("SKEIN_SESSION__HEARTBEAT_INTERVAL", "3s")
            .env("SKEIN_STORE__KIND", "scylla")
            .env("SKEIN_SCYLLA__CONTACT_POINTS", points.join(","))
            .env("SKEIN_SCYLLA__KEYSPACE", keyspace)
            .env("SKEIN_SCYLLA__CONNECT_TIMEOUT", "2s")
            .env("SKEIN_SCYLLA__REQUEST_TIMEOUT", format!("{}s", REQUEST_TIMEOUT.as_secs()))
    }
}
