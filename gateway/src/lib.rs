//! The Skein gateway.

pub mod auth;
pub mod cli;
pub mod config;
pub mod dev;
pub mod keys;
pub mod launch;
pub mod stop;
pub mod tls;
pub mod token;
