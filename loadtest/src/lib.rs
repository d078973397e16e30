//! Load on a gateway, and figures about it that can be trusted.
//!
//! ```text
//! scenario -> plan -> swarm (shards of sessions, an absolute timetable)
//!                       -> record (histograms by operation), verify (every message)
//!          control (Goose): users, ramp, thresholds, its report
//!          health: is the generator itself the limit?
//!          -> outcome -> report (folder), exit status
//! ```

mod nearest;
#[cfg(test)]
mod sample;
mod swarm;

pub mod agent;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod control;
pub mod doctor;
pub mod environment;
pub mod exit;
pub mod health;
pub mod identity;
pub mod live;
pub mod merge;
pub mod metrics;
pub mod objective;
pub mod operation;
pub mod outcome;
pub mod packed;
pub mod plan;
pub mod process;
pub mod record;
pub mod report;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod share;
pub mod signals;
pub mod spawn;
pub mod verify;
