//! What happened in a run, in the words of those who saw it.

use skein_protocol::client::ReceiptKind;
use skein_protocol::{ClientMsgId, ConversationId, DeviceId, Seq, UserId};

/// One device of one user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    pub user: UserId,
    pub name: DeviceId,
}

impl Device {
    pub fn new(user: &str, name: &str) -> Self {
        Self { user: UserId::parse(user).unwrap(), name: DeviceId::parse(name).unwrap() }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.user, self.name)
    }
}

/// The key of deduplication: one position for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub device: Device,
    pub id: ClientMsgId,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.device, self.id)
    }
}

/// A message as somebody was shown it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub seq: Seq,
    pub name: Name,
    pub text: String,
}

/// Something happened. Whoever reports does so before anything can follow from it.
#[derive(Debug, Clone)]
pub enum Event {
    /// A device's application starts, from what an earlier one of it left behind.
    Started {
        device: Device,
    },
    /// The application is about to hand a message to its client. No text is used twice.
    Sent {
        device: Device,
        to: UserId,
        text: String,
    },
    /// The client has taken the message, or the application has named it.
    Named {
        name: Name,
        text: String,
    },
    /// The client promises to send it until it is acknowledged.
    Accepted {
        text: String,
    },
    Acked {
        name: Name,
        conversation: ConversationId,
        seq: Seq,
    },
    Rejected {
        name: Name,
        reason: String,
    },
    /// The gateway refused a message for now.
    Postponed {
        name: Name,
        code: u32,
    },
    /// A message was shown to the application.
    Seen {
        by: Device,
        conversation: ConversationId,
        entry: Entry,
    },
    /// The client left positions out.
    LeftOut {
        by: Device,
        conversation: ConversationId,
        from: Seq,
        to: Seq,
    },
    /// The application is about to mark a conversation as read.
    Marked {
        user: UserId,
        conversation: ConversationId,
        seq: Seq,
    },
    /// A device was told how far a user has come.
    Cursor {
        to: Device,
        conversation: ConversationId,
        kind: ReceiptKind,
        user: UserId,
        seq: Seq,
    },
    /// The client has stopped trying.
    GaveUp {
        device: Device,
        why: String,
    },
    /// The client was told that the store was replaced.
    Reset {
        device: Device,
    },
}

/// A conversation as a fresh client finds it.
#[derive(Debug, Clone)]
pub struct Found {
    pub conversation: ConversationId,
    pub head: Seq,
    /// Every member's delivered and read cursor.
    pub cursors: Vec<(UserId, Seq, Seq)>,
    /// Everything from number 1 on.
    pub log: Vec<Entry>,
}
