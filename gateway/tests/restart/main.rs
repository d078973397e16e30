//! Restarts that an operator asks for: nothing is lost or repeated, a newer version takes the data
//! over, an older one leaves it alone, and the service manager knows what is going on.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test")]

#[path = "../chat/mod.rs"]
mod chat;
#[cfg(unix)]
mod notify;
#[path = "../support/mod.rs"]
mod support;
#[cfg(debug_assertions)]
mod versions;

#[cfg(unix)]
mod rolling;
