//! Many QUIC connections per thread.
//!
//! A **shard** is one thread that owns one UDP socket, one `quinn_proto::Endpoint`, a table of
//! connections, one timer queue, one transmit buffer and a dirty list. There is no task and no
//! lock per connection. The application lives inside the shard as a [`Driver`]: the shard calls
//! it with what happened, and it answers through [`Io`]. Other threads reach a shard through its
//! bounded [`Mailbox`].
//!
//! One turn of the loop: receive a batch -> feed the endpoint -> fire due timers -> take the
//! mailbox -> drive each dirty connection once -> send. Nothing in a turn is O(all connections).
//!
//! ```text
//! udp.rs -> shard.rs -> slot.rs -> Driver::on_* -> Io -> slot.rs -> udp.rs
//!             ^ timers.rs, mailbox.rs
//! ```
//!
//! Nothing here knows of chat.

mod config;
mod core;
mod crypto;
mod driver;
mod engine;
mod id;
mod io;
mod keys;
mod mailbox;
#[cfg(test)]
mod pair;
mod shard;
#[cfg(feature = "sim")]
pub mod sim;
mod slot;
mod stats;
mod steer;
mod tickets;
mod timers;
mod tls;
mod udp;

pub use quinn_proto::{Dir, Side, StreamId, VarInt};

pub use config::{AddressValidation, EngineConfig, Limits, MAX_SHARDS, QuicConfig};
pub use driver::{CloseReason, ConnStats, ConnectError, Driver, Read, WriteError};
pub use engine::{Bound, Engine, StartError, StopError};
pub use id::ConnId;
pub use io::Io;
pub use keys::{Keys, KeysError};
pub use mailbox::{Mailbox, MailboxFull};
pub use stats::ShardStats;
pub use tickets::Tickets;
pub use tls::{Cipher, ClientTls, ServerTls, TlsOptions, kx_group, provider};
