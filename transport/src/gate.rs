//! Who may begin a handshake.

use std::{fmt::Debug, net::IpAddr, time::Instant};

/// Judges every attempt to connect before anything is kept for it. Asked on the shards' threads, so
/// it must not wait; all shards share one.
pub trait Gate: Debug + Send + Sync + 'static {
    /// What becomes of this attempt. The limits of a shard come on top.
    fn judge(&self, attempt: &Attempt) -> Verdict;
}

/// Somebody wants to connect: an Initial packet that can be decrypted has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Where it seems to come from; never an IPv4 address in its IPv6 form.
    pub address: IpAddr,
    /// The peer has shown that it receives what is sent to this address (RFC 9000 section 8.1). If
    /// not, anybody may have sent the packet in its name.
    pub is_proven: bool,
    /// The time of the turn.
    pub now: Instant,
}

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on, as far as the shard has room.
    Admit,
    /// Prove the address first, by a Retry round trip; nothing is kept meanwhile. For an address
    /// that is proven this is [`Admit`](Self::Admit).
    Prove,
    /// Say no: the peer gets CONNECTION_REFUSED (RFC 9000 section 20.1) in one short packet.
    Refuse,
    /// Say nothing, as if nobody were here.
    Ignore,
}
