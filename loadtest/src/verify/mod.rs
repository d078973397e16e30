//! Every message is checked at its receivers: nothing lost, nothing twice, nothing out of order,
//! no byte changed, nothing to somebody else, no acknowledgement that lies.
//!
//! - [`payload`]: what a message carries so that it can be checked.
//! - [`stream`]: one writer's messages on their way to all receivers: what was acknowledged, what is
//!   missing.
//! - [`receiver`]: one session's place in its conversation: what came again, what came late, what
//!   must be asked for.
//!
//! All of it is plain bookkeeping without clock or network, and bounded: a stream remembers what is
//! under way, a receiver where it stands. Only *acknowledged* messages can be lost. One that was
//! refused must not arrive; of one whose answer never came nothing is demanded. And it is lost only if
//! its receiver can tell: it has read the log beyond it, or asked for it and was answered. Otherwise
//! it may be on its way, and is unchecked.

pub mod payload;
pub mod receiver;
pub mod stream;

#[cfg(test)]
mod joining;
#[cfg(test)]
mod tests;

pub use payload::{MIN_PAYLOAD, Stamp};
pub use receiver::{Receiver, Seen};
pub use stream::{Acked, Arrival, Stream, Times};

use crate::outcome::Correctness;

/// What all streams and receivers of a shard have found together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Findings.
    pub found: Correctness,
    /// Messages whose answer is waited for.
    pub open_acks: u64,
    /// Deliveries of acknowledged messages that are waited for.
    pub open_deliveries: u64,
}
