//! What a test may ask of a cluster.

use std::fmt;
use std::time::Duration;

use super::CqlError;

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// 1 or 3.
    pub nodes: usize,
    /// The nodes advertise the addresses of proxies, and the proxies run in this process. A driver
    /// that is given [`contact_points`](super::Cluster::contact_points) then reaches every node
    /// through its proxy.
    pub behind_proxies: bool,
    /// A write is answered only when it is on the disk (a shared `fsync` every 5 ms). Without it a
    /// node that is killed keeps what it wrote, a machine that stops does not.
    pub durable: bool,
    /// No node is started a second time. Changes of the schema are then ten times as quick (0.3 s
    /// instead of 3 s for a keyspace of eight tables).
    pub throwaway: bool,
    /// For measurements: the JVM optimises as in production. Without it a node starts with a third
    /// less work, which is what counts in a test.
    pub optimised: bool,
    /// A node that was away is told what it has missed. Without it, it learns that only where it is
    /// read or written again, so whoever reads from too few nodes sees it for longer.
    pub hints: bool,
    /// Clients have to log in: user and password are [`USER`].
    pub password: bool,
    /// Clients may encrypt, on the same port. Nodes speak plainly to each other.
    pub tls: Option<Tls>,
    /// How long a coordinator waits for replicas before it answers with a timeout: reads, writes
    /// and conditional writes. The server as delivered takes 5 s, 2 s and 1.8 s; on a busy machine
    /// that is not enough for a test that wants calm.
    pub request_timeout: Duration,
    /// How long all nodes together have until they serve.
    pub start_timeout: Duration,
    /// The heap of each node, in MiB; by default 512 for one node and 384 for each of three. A
    /// table takes about half a MiB of it.
    pub heap_mib: Option<u32>,
}

/// The one user there is with [`Options::password`], and the password.
pub const USER: &str = "cassandra";

/// What the nodes show and trust, all in PEM.
#[derive(Clone)]
pub struct Tls {
    /// The key (PKCS #8) of the certificate.
    pub key: String,
    /// The certificate of all nodes, then what signed it.
    pub chain: String,
    /// Who signs the certificates of clients; with none, clients need no certificate.
    pub clients: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Default for Options {
    /// One node, not durable, without proxies, quickly there, calm.
    fn default() -> Self {
        Self {
            nodes: 1,
            behind_proxies: false,
            durable: false,
            hints: true,
            throwaway: false,
            optimised: false,
            password: false,
            tls: None,
            request_timeout: Duration::from_secs(10),
            start_timeout: Duration::from_secs(240),
            heap_mib: None,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), CqlError> {
        match self.nodes {
            1 | 3 => Ok(()),
            _ => Err(CqlError::Options("a cluster has one node or three")),
        }
    }

    pub(crate) fn heap_mib(&self) -> u32 {
        self.heap_mib.unwrap_or(if self.nodes == 1 { 512 } else { 384 })
    }
}
