//! Users who talk through real gateways on the SDK, and the checker that watches them.
//!
//! ```text
//! Crowd -> App, one a device: the SDK with a runtime of its own
//!            | Event, before anything can follow from it
//!            v
//!          Record -> Checker <- audit: a fresh client that reads everything
//! ```
//!
//! Shared by the tests that break a gateway or its store in the middle of that.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "helpers of tests")]

pub mod audit;
pub mod checker;
pub mod crowd;
pub mod device;
pub mod history;
