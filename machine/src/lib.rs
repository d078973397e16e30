//! What a machine has, against what a program needs of it: the doctors of the gateway and of the
//! load tester are made of these checks.
//!
//! ```text
//! look.rs: what the system says -> checks.rs: against a need -> finding.rs: text or JSON
//! ```
//!
//! A program adds checks of its own by making a [`Finding`]. Nothing here changes the machine: a
//! finding carries the commands that would.

mod checks;
mod finding;
mod look;

pub use checks::Checks;
pub use finding::{Finding, Level, bytes, is_fit, text};
pub use look::{Machine, OpenFiles, memory_group_left};
