//! What shards and hub count. The exporter reads it; nothing decides by it.

use skein_protocol::Code;
use skein_storage::StoreError;
use skein_transport::CloseReason;

use super::count::{ByCode, Count, Epoch, Sizes, Times};

macro_rules! labels {
    ($($(#[doc = $doc:literal])* $name:ident { $($variant:ident $text:literal,)* })*) => { $(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the word says it")]
        pub enum $name { $($variant,)* }

        impl $name {
            /// Their words, in the order of their numbers.
            pub const WORDS: &'static [&'static str] = &[$($text,)*];
        }
    )* };
}

labels! {
    /// A frame from a client.
    Received {
        Hello "hello", Send "send", Delivered "delivered", Read "read", Ping "ping",
        RefreshToken "refresh_token", Bye "bye", Sync "sync", Refused "refused",
        PassedOver "passed_over",
    }

    /// A frame to a client.
    Sent {
        Welcome "welcome", SendAck "send_ack", Error "error", Push "push", Receipt "receipt",
        Behind "behind", Pong "pong", TokenRefreshed "token_refreshed", GoAway "go_away",
        Page "page", Notice "notice",
    }

    /// Why a session ended that the gateway did not end.
    Ended {
        Peer "peer_closed", TimedOut "timed_out", Reset "reset", Transport "transport_error",
        Local "stopped",
    }

    /// What came of a call to the store.
    StoreTrouble {
        Unavailable "unavailable", Stopped "stopped", Damaged "damaged", Conflict "conflict",
    }

    /// What a page of a sync holds.
    PageKind { Heads "heads", Messages "messages", Refused "refused", }
}

impl From<&CloseReason> for Ended {
    fn from(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::Peer { .. } => Self::Peer,
            CloseReason::TimedOut => Self::TimedOut,
            CloseReason::Reset => Self::Reset,
            CloseReason::Transport { .. } => Self::Transport,
            CloseReason::Local | CloseReason::Stopped => Self::Local,
        }
    }
}

/// What one shard counts; its thread is the only writer. On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardFigures {
    /// Sessions welcomed.
    pub logins: Count,
    /// Connections closed before they were welcomed, by code.
    pub login_failures: ByCode,
    /// Sessions that the gateway ended, by code.
    pub evicted: ByCode,
    /// Sessions that ended otherwise, by [`Ended`].
    pub ended: [Count; Ended::WORDS.len()],
    /// Frames by [`Received`].
    pub received: [Count; Received::WORDS.len()],
    /// Frames by [`Sent`].
    pub sent: [Count; Sent::WORDS.len()],
    /// Requests refused, by code.
    pub refused: ByCode,
    /// Pushes that were left out because a session reads too slowly.
    pub left_out: Count,
    /// From a message's arrival to the moment at which its acknowledgement is given to QUIC.
    pub ack: Times,
    /// From a message's arrival to the moment at which its push is given to QUIC, for each
    /// recipient.
    pub push: Times,
}

impl ShardFigures {
    /// A frame came.
    pub fn received(&self, kind: Received) {
        self.received[kind as usize].add(1);
    }

    /// A frame goes.
    pub fn sent(&self, kind: Sent) {
        self.sent[kind as usize].add(1);
    }

    /// A request is refused.
    pub fn refused(&self, code: Code) {
        self.sent(Sent::Error);
        self.refused.add(code);
    }
}

/// What all threads count together: few times a batch, never for each message.
#[derive(Debug)]
pub struct HubFigures {
    /// Where stamps count from.
    pub epoch: Epoch,
    /// From the submission of an append to its outcome.
    pub append: Times,
    /// Messages in an append.
    pub append_messages: Sizes,
    /// Calls to the store that failed, by [`StoreTrouble`].
    pub store_trouble: [Count; StoreTrouble::WORDS.len()],
    /// Pages of syncs, by [`PageKind`].
    pub pages: [Count; PageKind::WORDS.len()],
    /// Conversations read into memory.
    pub loads: Count,
    /// Searches of the log for a repeated message.
    pub scans: Count,
}

impl HubFigures {
    /// Nothing counted; stamps count from now on.
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            append: Times::default(),
            append_messages: Sizes::default(),
            store_trouble: Default::default(),
            pages: Default::default(),
            loads: Count::default(),
            scans: Count::default(),
        }
    }

    /// A page of a sync.
    pub fn page(&self, kind: PageKind) {
        self.pages[kind as usize].add_shared(1);
    }

    /// Takes what came of a call to the store.
    pub fn trouble(&self, error: &StoreError) {
        let kind = match error {
            StoreError::Unavailable(_) => StoreTrouble::Unavailable,
            StoreError::Stopped(_) => StoreTrouble::Stopped,
            StoreError::Damaged(_) => StoreTrouble::Damaged,
        };
        self.store_trouble[kind as usize].add_shared(1);
    }

    /// Another gateway had written to the log.
    pub fn conflict(&self) {
        self.store_trouble[StoreTrouble::Conflict as usize].add_shared(1);
    }
}

/// A code's name as a label: `slow_consumer`.
pub(super) fn label_of(code: Code) -> String {
    let mut label = String::new();
    for letter in code.name().chars() {
        if letter.is_ascii_uppercase() && !label.is_empty() {
            label.push('_');
        }
        label.push(letter.to_ascii_lowercase());
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_codes_are_in_snake_case() {
        assert_eq!(label_of(Code::SlowConsumer), "slow_consumer");
        assert_eq!(label_of(Code::Ok), "ok");
    }
}
