//! Load on a gateway, and figures about it that can be trusted.
//!
//! ```text
//! scenario -> plan -> swarm (shards of sessions, an absolute timetable)
//!                       -> record (histograms by operation), verify (every message)
//!          control (Goose): users, ramp, thresholds, its report
//!          health: is the generator itself the limit?
//!          -> outcome -> report (folder), exit status
//! ```

pub mod doctor;
pub mod exit;
mod nearest;
pub mod objective;
pub mod operation;
pub mod outcome;
pub mod packed;
pub mod plan;
pub mod record;
#[cfg(test)]
mod sample;
