//! What has been refused, by limit.

use std::sync::atomic::{AtomicU64, Ordering};

use skein_protocol::Code;

macro_rules! limits {
    ($($(#[doc = $doc:literal])* $name:ident $label:literal $code:expr;)*) => {
        /// Every limit on how much or how often.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Limit {
            $($(#[doc = $doc])* $name,)*
        }

        impl Limit {
            /// All of them.
            pub const ALL: &'static [Limit] = &[$(Limit::$name),*];

            /// Its name in metrics.
            pub fn label(self) -> &'static str {
                match self { $(Limit::$name => $label,)* }
            }

            /// What the peer is told when its request meets it. `None`: the answer is QUIC's own,
            /// before there is a connection: CONNECTION_REFUSED, Retry or nothing.
            pub fn code(self) -> Option<Code> {
                match self { $(Limit::$name => $code,)* }
            }
        }
    };
}

limits! {
    /// Somebody who is shut out: attempts to connect from a network in `limits.blocked` are not
    /// answered; whom an operator has blocked is told so ([`Code::Blocked`]).
    Blocked "blocked" None;
    /// Attempts from an address that is not proven: Retry asks for the proof.
    UnprovenHandshakes "unproven_handshakes_per_address" None;
    /// Attempts from an address that is proven: CONNECTION_REFUSED.
    Handshakes "handshakes_per_address" None;
    /// Connections of one address at a time.
    Connections "connections_per_address" Some(Code::TooManyConnections);
    /// Bytes on the live stream before the login.
    LoginBytes "bytes_before_login_per_address" Some(Code::TooManyLoginBytes);
    /// Logins from an address that has failed too often.
    FailedLogins "failed_logins_per_address" Some(Code::TooManyFailedLogins);
    /// Sessions of the gateway.
    Sessions "sessions" Some(Code::TooManySessions);
    /// Devices of a user at a time.
    Devices "devices_per_user" Some(Code::TooManyDevices);
    /// Sends without an answer of one session.
    UnackedSends "unacked_sends" Some(Code::TooManySends);
    /// Bulk streams of one session at a time; the stream is reset.
    BulkStreams "bulk_streams" Some(Code::Overloaded);
    /// Frames of a user, and cursors in them.
    Frames "frames_per_user" Some(Code::TooManyFrames);
    /// Messages of a user.
    UserMessages "messages_per_user" Some(Code::UserMessageRate);
    /// Bytes of the messages of a user.
    UserBytes "message_bytes_per_user" Some(Code::UserByteRate);
    /// Messages to a conversation.
    ConversationMessages "messages_per_conversation" Some(Code::ConversationMessageRate);
    /// Bytes of the messages to a conversation.
    ConversationBytes "message_bytes_per_conversation" Some(Code::ConversationByteRate);
    /// Requests on bulk streams of a user.
    Syncs "syncs_per_user" Some(Code::SyncRate);
}

/// How often each limit was met, since the start.
#[derive(Debug)]
pub struct Hits([AtomicU64; Limit::ALL.len()]);

impl Default for Hits {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Hits {
    /// One more.
    pub(crate) fn add(&self, limit: Limit) {
        self.0[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often this one was met.
    pub fn of(&self, limit: Limit) -> u64 {
        self.0[limit as usize].load(Ordering::Relaxed)
    }
}
