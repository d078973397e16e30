//! The Skein wire: what client and gateway say to each other, apart from any I/O.
//!
//! Data flows through the files in this order:
//!
//! - [`frame`]: bytes of a stream <-> frames; checks the length before it allocates.
//! - [`wire`]: the protobuf messages, generated from `proto/skein/v1/*.proto`.
//! - [`ids`]: identifiers, parsed once at the edge and trusted afterwards.
//! - [`server`], [`client`]: the session rules of each side as state machines without I/O:
//!   `handle_*` takes bytes, answers and the time in, `poll_*` gives effects out.
//! - [`cursor`], [`gap`]: monotone cursors; which sequence numbers are missing.
//! - [`close`]: the end of a session, and when to come back.
//! - [`codes`], [`limits`]: every code and every limit, in one table each.
//!
//! Nothing here opens a socket, reads a clock or knows a runtime. `docs/protocol.md` describes
//! the same rules for those who write a client in another language.

pub mod client;
pub mod close;
pub mod codes;
pub mod cursor;
pub mod frame;
pub mod gap;
pub mod ids;
pub mod limits;
pub mod server;

/// The protobuf messages of `proto/skein/v1`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/skein.v1.rs"));
}

pub use codes::Code;
pub use ids::{ClientMsgId, ConversationId, DeviceId, Seq, UserId};

/// Application protocol name in the TLS handshake (RFC 7301).
pub const ALPN: &[u8] = b"skein/1";

/// Version that this crate speaks, as offered in `Hello.versions`.
pub const VERSION: u32 = 1;
