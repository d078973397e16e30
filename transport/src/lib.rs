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
//! Nothing here knows of chat. A server that sends everything back:
//!
//! ```no_run
//! use skein_transport::*;
//!
//! struct Echo;
//!
//! impl Driver for Echo {
//!     type Mail = ();
//!     fn on_connected(&mut self, io: &mut Io<'_>, conn: ConnId) {
//!         println!("{conn} from {:?}", io.remote_address(conn));
//!     }
//!     fn on_stream_opened(&mut self, _: &mut Io<'_>, _: ConnId, _: StreamId) {}
//!     fn on_readable(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
//!         // As long as there is room for the answer; the rest waits in the peer's window.
//!         while io.outbox_bytes(conn) < 64 << 10 {
//!             match io.read(conn, stream) {
//!                 Read::Chunk(bytes) => drop(io.write(conn, stream, bytes)),
//!                 Read::Fin => drop(io.finish(conn, stream)),
//!                 Read::Reset(code) => io.reset(conn, stream, code),
//!                 Read::Blocked => return,
//!             }
//!         }
//!     }
//!     fn on_writable(&mut self, _: &mut Io<'_>, _: ConnId) {}
//!     fn on_timer(&mut self, _: &mut Io<'_>, _: ConnId) {}
//!     fn on_closed(&mut self, _: &mut Io<'_>, conn: ConnId, reason: CloseReason) {
//!         println!("{conn} left: {reason:?}");
//!     }
//!     fn on_mail(&mut self, _: &mut Io<'_>, (): ()) {}
//! }
//!
//! # fn run(
//! #     chain: Vec<rustls::pki_types::CertificateDer<'static>>,
//! #     key: rustls::pki_types::PrivateKeyDer<'static>,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let keys = Keys::load_or_create("transport.key")?;
//! let tls = ServerTls::new(chain, key, &[b"echo/1"], &keys, &TlsOptions::default())?;
//! let engine = Engine::start(EngineConfig::server("[::]:4433".parse()?, tls, keys), |_| Echo)?;
//! std::thread::sleep(std::time::Duration::from_secs(60));
//! engine.stop(0, b"going away", std::time::Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```

mod alarm;
mod config;
mod core;
mod crypto;
mod driver;
mod engine;
mod gate;
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
pub use engine::{Bound, Control, Engine, StartError, StopError};
pub use gate::{Attempt, Gate, Verdict};
pub use id::{ConnId, ConnIdError};
pub use io::Io;
pub use keys::{Keys, KeysError};
pub use mailbox::{Mailbox, MailboxFull};
pub use stats::ShardStats;
pub use tickets::Tickets;
pub use tls::{Cipher, ClientTls, ServerTls, TlsOptions, kx_group, provider};
