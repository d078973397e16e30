//! Real servers for tests.
//!
//! - `cql`: a CQL server (Apache Cassandra from Maven packages), one node or three.
