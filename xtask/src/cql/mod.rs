//! A CQL server for tests: Apache Cassandra 5 out of Maven packages, one node or three on the
//! loopback interface.
//!
//! [`Cluster::start`] finds a [`Java`], fetches the server once ([`jars`]), starts the nodes on free
//! ports in a folder of their own under `target/cql/` and returns when all of them serve. The nodes
//! are gone when the cluster is dropped, and also when the process ends in any other way, SIGKILL
//! included: each JVM has a guard that kills it when a pipe from this process closes.
//!
//! Tests ask [`for_tests`] or [`may_start`] first, so that a machine without Java still passes.
//!
//! ```no_run
//! use skein_xtask::cql::{Cluster, Options};
//!
//! let cluster = Cluster::start(Options { nodes: 3, ..Options::default() })?;
//! println!("serving at {:?}", cluster.contact_points());
//! cluster.node(1).kill()?;
//! cluster.node(1).start()?;
//! # Ok::<(), skein_xtask::cql::CqlError>(())
//! ```

mod address;
mod cluster;
mod error;
mod folder;
mod for_tests;
mod frame;
pub mod jars;
mod java;
mod jvm;
mod node;
mod options;
mod probe;
pub mod proxy;
mod settings;

pub use address::Addresses;
pub use cluster::{Cluster, Left};
pub use error::CqlError;
pub use folder::target;
pub use for_tests::{OWN, VARIABLE, for_tests, may_start};
pub use java::{Java, maven};
pub use node::Node;
pub use options::{Options, Tls, USER};
