//! What operators and their machines are told: health, metrics.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod health;
mod http;
#[path = "../support/mod.rs"]
mod support;
