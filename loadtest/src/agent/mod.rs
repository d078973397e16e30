//! One run on several machines.
//!
//! ```text
//! skein-load run --agents A,B          skein-load agent (A)         skein-load agent (B)
//!   connect, compare versions and secret ------>                        |
//!   how far apart are the clocks? (ping) ------>                        |
//!   be ours alone ----------------------------->  taken
//!   be ours alone -------------------------------------------------------> taken
//!   share 1 of the plan ----------------------->  one session in and out
//!   share 2 of the plan -------------------------------------------------> the same
//!   all are there: begin at T ----------------->  ramp                   ramp, from the same T on
//!   <------ seconds, counts: the live view ------------------------------
//!   all have their sessions: load from T on --->  measured               measured
//!   <------ outcomes: counts and histograms are added
//! ```
//!
//! T is a moment of each agent's own clock. How far that is from ours is told by the shortest of a few
//! round trips, within half of it; no latency is ever measured from one machine to another. Everybody in
//! a conversation is on one machine, so receivers are checked there as in a run on one machine. An agent
//! that dies, or says nothing for `together::SILENCE`, makes the run invalid and ends it.
//!
//! - `share`: the plan, cut into equal parts
//! - `wire`: an encrypted connection that begins with versions and secrets
//! - `message`: what is said over it
//! - [`serve`]: the side that makes load
//! - `remote`: the side that conducts, up to the start; `together`: from then on

mod gauge;
mod message;
mod remote;
mod serve;
mod share;
mod together;
mod wire;

pub use remote::{RemoteError, start};
pub use serve::{AgentError, serve};
pub use wire::{Secret, SecretError};
