//! A cluster from its start to its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::address::{Addresses, Reserved};
use super::folder::Folder;
use super::jars::Jars;
use super::proxy::Proxies;
use super::{CqlError, Java, Node, Options, probe, settings};

/// A node that serves and has not seen all others after so long never will.
const OVERLOOKED: Duration = Duration::from_secs(60);

/// So often in one wait.
const MOST_RESTARTS: usize = 3;

/// One node or three that run and serve. Dropped, they are killed and their files go; when a test
/// panics or a node failed the logs stay, and a line says where.
pub struct Cluster {
    // In the order in which they are dropped: proxies, nodes, their files.
    proxies: Option<Proxies>,
    nodes: Vec<Node>,
    folder: Folder,
    options: Options,
    _ports: Reserved,
}

/// What is left running, see [`Cluster::leave`].
#[derive(Debug)]
pub struct Left {
    /// The process ids of the JVMs.
    pub pids: Vec<u32>,
    /// The folder, which is in each JVM's command line.
    pub folder: PathBuf,
    /// Where clients connect.
    pub contact_points: Vec<SocketAddr>,
}

impl Cluster {
    /// Starts the nodes, all at once, and returns when every one of them takes clients and reaches
    /// the others.
    ///
    /// # Errors
    /// When there is no Java 17, the server cannot be fetched, or a node does not serve in time;
    /// the error then shows the end of its log.
    pub fn start(options: Options) -> Result<Self, CqlError> {
        options.check()?;
        let java = Java::find()?;
        let jars = Jars::get()?;
        let folder = Folder::new()?;
        let (addresses, ports) = Addresses::reserve(options.nodes, options.behind_proxies)?;
        let mut nodes = Vec::new();
        for number in 0..options.nodes {
            let home = folder.path().join(format!("node{number}"));
            settings::write(&home, number, addresses, &options)?;
            nodes.push(Node {
                number,
                address: addresses.node(number),
                failed: folder.failed().clone(),
                kept: folder.failure().join(format!("node{number}.log")),
                java: java.clone(),
                arguments: settings::arguments(&home, number, &jars, &options),
                patience: options.start_timeout,
                throwaway: options.throwaway,
                jvm: Mutex::new(None),
                folder: home,
            });
        }
        let pairs = (0..options.nodes).map(|node| (addresses.proxy(node), addresses.node(node)));
        let pairs: Vec<_> = pairs.collect();
        let proxies = options.behind_proxies.then(|| Proxies::start(&pairs)).transpose()?;
        let cluster = Self { proxies, nodes, folder, options, _ports: ports };
        cluster.launch()?;
        Ok(cluster)
    }

    fn launch(&self) -> Result<(), CqlError> {
        for node in &self.nodes {
            node.launch()?;
        }
        self.wait()
    }

    /// Waits until every node takes clients and reaches every other one; all are to run.
    ///
    /// On a busy machine a node sometimes overlooks another for ever (the gossiper asks once whether
    /// it is alive, and does not ask again when the answer is lost). Such a node is started again,
    /// as its operator would; not where the options say that nodes are thrown away.
    ///
    /// # Errors
    /// When a node does not run, or the time that the options give is over.
    pub fn wait(&self) -> Result<(), CqlError> {
        let deadline = Instant::now() + self.options.start_timeout;
        for node in &self.nodes {
            node.wait(deadline, probe::serves)?;
        }
        let peers = self.nodes.len() - 1;
        let mut restarts = if self.options.throwaway { 0 } else { MOST_RESTARTS };
        for node in &self.nodes {
            loop {
                let patience = if restarts == 0 { self.options.start_timeout } else { OVERLOOKED };
                let sees_all = |address| probe::serves_with(address, peers);
                match node.wait(Instant::now() + patience, sees_all) {
                    Err(CqlError::Node { .. }) if restarts > 0 && node.pid().is_some() => {
                        eprintln!("node {} overlooks another: it is started again", node.number);
                        restarts -= 1;
                        node.kill()?;
                        node.start()?;
                    }
                    outcome => break outcome?,
                }
            }
        }
        Ok(())
    }

    /// Where clients connect: the nodes, or their proxies.
    #[must_use]
    pub fn contact_points(&self) -> Vec<SocketAddr> {
        match &self.proxies {
            Some(proxies) => proxies.addresses(),
            None => self.nodes.iter().map(Node::address).collect(),
        }
    }

    /// The proxies, if the options asked for them.
    #[must_use]
    pub fn proxies(&self) -> Option<&Proxies> {
        self.proxies.as_ref()
    }

    /// A node, from 0.
    ///
    /// # Panics
    /// When there is none of that number.
    #[must_use]
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number]
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The logs are to stay when the cluster ends. They do so by themselves when a node does not
    /// start or the cluster is dropped by a panic.
    pub fn keep_logs(&self) {
        self.folder.failed().store(true, Ordering::Release);
    }

    /// Lets the nodes run on when this process ends. Who takes them down also removes the folder.
    ///
    /// # Errors
    /// When a node cannot be told, and with proxies, which end with this process.
    pub fn leave(mut self) -> Result<Left, CqlError> {
        if self.proxies.is_some() {
            return Err(CqlError::Options("nodes behind proxies cannot be left running"));
        }
        let contact_points = self.contact_points();
        let mut pids = Vec::new();
        for node in std::mem::take(&mut self.nodes) {
            pids.extend(node.release()?);
        }
        Ok(Left { pids, folder: self.folder.leave()?, contact_points })
    }
}
