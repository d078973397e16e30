//! The cryptography of a connection, made small: keys that are stored unexpanded
//! ([`suites`]), a TLS session that is dropped once it has done its work ([`session`]), and
//! transport parameters that ask for no more than chat needs ([`params`]).

mod cold;
mod params;
mod session;

pub(crate) use cold::suites;
pub(crate) use session::{Handshake, SlimClient, SlimServer, VERSION};
