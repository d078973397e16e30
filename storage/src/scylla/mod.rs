//! Messages in ScyllaDB, or any server that speaks CQL with lightweight transactions.
//!
//! - [`append`]: the append protocol, without I/O.
//! - [`layout`]: which partition holds which rows.

pub mod append;
pub mod layout;
