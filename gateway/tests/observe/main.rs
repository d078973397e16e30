//! What operators and their machines are told: health, metrics, traces.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod health;
mod lint;
mod metrics;
#[path = "../support/mod.rs"]
mod support;
mod traces;
