//! The Skein gateway.

pub mod auth;
pub mod config;
pub mod launch;
pub mod stop;
