//! Real gateways as child processes, and a client so simple that it can also misbehave.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "helpers of tests")]

pub mod http;
pub mod process;
pub mod raw;
