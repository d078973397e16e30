//! Counters of a shard, written by its thread and read by anybody.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Only the shard's own thread may call this: a plain load and store, no locked instruction.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// For the few numbers that other threads raise.
    pub(crate) fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Live counters of one shard.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Counter,)* }

        /// What one shard has counted since its start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct ShardStats { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            pub(crate) fn read(&self) -> ShardStats {
                ShardStats { $($name: self.$name.get(),)* }
            }
        }

        impl ShardStats {
            /// All of them by name, in the order of the fields.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }

        impl std::ops::Add for ShardStats {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self { $($name: self.$name + other.$name,)* }
            }
        }
    };
}

counters! {
    /// Connections that exist now, with those whose handshake or end is not complete.
    connections,
    /// Handshakes in progress now.
    handshaking,
    /// Handshakes that others began here.
    accepted,
    /// Handshakes begun by `Io::connect`.
    dialed,
    /// Handshakes completed, both kinds.
    connected,
    /// Handshakes that failed or took too long.
    handshakes_failed,
    /// Of these: that took too long.
    handshakes_timed_out,
    /// Of these: that TLS gave up, on either side: no protocol in common, a certificate that the
    /// peer does not trust.
    handshakes_failed_in_tls,
    /// Of these: that the peer's application ended.
    handshakes_closed_by_peer,
    /// Attempts refused because a limit (connections, handshakes at a time) was reached, or by the gate.
    refused,
    /// Attempts answered with Retry.
    retried,
    /// Connections that ended after their handshake.
    closed,
    /// Datagrams received.
    datagrams_in,
    /// Datagrams sent.
    datagrams_out,
    /// Bytes of datagrams received.
    bytes_in,
    /// Bytes of datagrams sent.
    bytes_out,
    /// System calls that received.
    receives,
    /// System calls that sent.
    sends,
    /// Datagrams that the socket refused for good (no route, too long).
    send_errors,
    /// Receive calls that failed.
    receive_errors,
    /// Times the socket's send buffer was full.
    send_blocked,
    /// Datagrams that came for another shard and were handed to it.
    handed_over,
    /// Datagrams that were dropped because the other shard's hand-over queue was full.
    hand_over_dropped,
    /// Answers of the endpoint itself: stateless resets, version negotiation, refusals.
    responses,
    /// Turns of the loop.
    turns,
    /// Time that the thread was at work and not asleep, nanoseconds.
    busy_nanos,
    /// Messages taken from the mailbox.
    mails,
    /// Messages that the full mailbox gave back.
    mailbox_full,
    /// Writes refused because an outbox was full.
    outbox_full,
    /// What waits in all outboxes now, bytes, counted as the limit of each counts it.
    outbox_total,
}
