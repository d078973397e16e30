//! The Skein gateway.
//!
//! The walk of one message through this crate:
//!
//! ```text
//! driver.rs    bytes of a connection -> session rules -> Command
//! hub.rs       commands of a turn -> lanes; what lanes ask for is carried out
//! lane/        deduplicate, number, batch -> the store
//! hub.rs       durable: SendAck to the sender, Push to registry.rs's connections
//! mail.rs      -> the recipients' shards
//! driver.rs    -> bytes; a session that is behind is told to pull
//! bulk.rs      heads, ranges and history, read from the store
//! ```
//!
//! [`serve`] puts it together; [`cli`] and [`config`] are what an operator sees.

pub mod admin;
pub mod admin_token;
pub mod auth;
pub mod blocks;
pub mod bulk;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod dev;
pub mod driver;
pub mod format;
pub mod hooked;
pub mod hub;
pub mod keys;
pub mod lane;
pub mod launch;
pub mod limits;
pub mod log_level;
pub mod mail;
pub(crate) mod notify;
pub mod observe;
pub mod open;
#[cfg(debug_assertions)]
pub mod planted;
pub mod registry;
pub mod reload;
pub mod serve;
mod session;
pub mod settings;
pub mod stop;
pub mod tls;
pub mod token;
pub mod walk;
mod whole_file;
