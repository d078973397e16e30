//! Real servers for tests.
//!
//! - [`cql`]: a CQL server (Apache Cassandra from Maven packages), one node or three, with proxies
//!   that make faults. Unix only; three nodes and proxies need 127.0.0.0/8 on the loopback
//!   interface, which Linux has from the start.

#[cfg(unix)]
pub mod cql;
