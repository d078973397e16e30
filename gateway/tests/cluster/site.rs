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

    /// Every node runs, and no proxy does anything but pass on.
    pub fn make_whole(&self) {
        self.proxies().heal();
        for node in self.cluster.nodes() {
            match node.pid() {
                Some(_) => node.resume().unwrap(),
                None => node.start().unwrap(),
            }
        }
        self.cluster.wait().unwrap_or_else(|error| panic!("{error}"));
    }

    /// A keyspace with the schema and nothing in it.
    pub fn new_keyspace(&self) -> String {
        let name = format!("act_{}", self.keyspaces.fetch_add(1, Ordering::Relaxed));
        let made = skein(&["schema", "apply"], &self.options(&name));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        name
    }

    /// Settings of a gateway on this keyspace.
    pub fn options(&self, keyspace: &str) -> process::Options {
        let points: Vec<_> =
            self.cluster.contact_points().iter().map(ToString::to_string).collect();
        process::Options::default()
            .env("SKEIN_SESSION__HEARTBEAT_INTERVAL", "3s")
            .env("SKEIN_STORE__KIND", "scylla")
            .env("SKEIN_SCYLLA__CONTACT_POINTS", points.join(","))
            .env("SKEIN_SCYLLA__KEYSPACE", keyspace)
            .env("SKEIN_SCYLLA__REPLICATION", "3")
            .env("SKEIN_SCYLLA__CONNECT_TIMEOUT", "2s")
            .env("SKEIN_SCYLLA__REQUEST_TIMEOUT", format!("{}ms", REQUEST_TIMEOUT.as_millis()))
    }
}
