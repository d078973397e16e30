//! Messages in ScyllaDB, or any server that speaks CQL with lightweight transactions.
//!
//! - [`append`]: the append protocol, without I/O.
//! - [`layout`]: which partition holds which rows.
//! - [`schema`]: the tables, and how they are made.

pub mod append;
mod conditional;
mod connect;
mod errors;
pub mod layout;
mod options;
#[cfg(debug_assertions)]
mod planted;
pub mod schema;
mod tls;

pub use options::{
    ClientCertificate, ConnectError, Credentials, DEFAULT_PORT, MAX_RETENTION, MIN_RETENTION,
    OpenError, ScyllaOptions, TlsOptions,
};
#[cfg(debug_assertions)]
pub use planted::Planted;
