//! Cursors: how far somebody has come in a conversation. A cursor only ever rises.

use crate::{ConversationId, Seq};

/// A position in a conversation, as acknowledgements carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which conversation.
    pub conversation: ConversationId,
    /// Everything up to here.
    pub seq: Seq,
}
