//! One connected device: what the shard keeps for it, small because there are a million.

use std::time::Instant;

use bytes::Bytes;
use skein_protocol::cursor::Mark;
use skein_protocol::frame::Decoder;
use skein_protocol::server::{ServerSession, server_frame};
use skein_protocol::wire::{self, server_frame::Kind};
use skein_protocol::{DeviceId, UserId};
use skein_transport::{ConnId, Dir, Side, StreamId};
use thin_vec::ThinVec;

use crate::bulk::{Job, Page};
use crate::hub::id_bytes;
use crate::limits::AddressKey;

/// Conversations that a session remembers to be behind in. Over it the client asks for all heads.
const MAX_BEHIND: usize = 64;

/// The live stream: the first that a client opens (RFC 9000 section 2.1).
pub(crate) fn live_stream() -> StreamId {
    StreamId::new(Side::Client, Dir::Bi, 0)
}

/// A session, from the connection on.
pub(crate) struct Session {
    /// Its connection; a slot of the table may have been given to another one meanwhile.
    pub(crate) conn: ConnId,
    /// Who may say what now.
    pub(crate) rules: ServerSession,
    /// Set by the login.
    pub(crate) who: Option<Who>,
    /// Open bulk streams, at most `max_bulk_streams`.
    pub(crate) bulk: ThinVec<Bulk>,
    /// Pushes that were left out.
    pub(crate) behind: Option<Box<Behind>>,
    /// Since when something waits for room in the outbox.
    pub(crate) stuck_since: Option<Instant>,
    /// Overflows of the shard's mailbox that this session knows of.
    pub(crate) overflows: u32,
    /// The client has opened the live stream.
    pub(crate) is_open: bool,
    /// Where it connected from; `None`: it is exempt from limits of addresses.
    pub(crate) address: Option<AddressKey>,
}

/// Who logged in.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
}

/// A bulk stream and how far it has come.
pub(crate) struct Bulk {
    pub(crate) stream: StreamId,
    pub(crate) state: BulkState,
}

pub(crate) enum BulkState {
    /// The request has not come whole.
    Asking(Decoder),
    /// A page is being read.
    Working,
    /// A page waits for room in the outbox.
    Full(Page),
    /// The next page is not asked for until there is room in the outbox.
    Paused(Box<Job>),
}

/// Conversations in which pushes were left out, with the highest number that was.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    heads: Vec<Mark>,
    all: bool,
}

impl Session {
    pub(crate) fn new(
        conn: ConnId,
        now: Instant,
        overflows: u32,
        address: Option<AddressKey>,
    ) -> Box<Self> {
        Box::new(Self {
            conn,
            rules: ServerSession::new(now),
            who: None,
            bulk: ThinVec::new(),
            behind: None,
            stuck_since: None,
            overflows,
            is_open: false,
            address,
        })
    }

    /// Takes a push that is left out.
    pub(crate) fn leave_out(&mut self, mark: Mark) {
        self.behind.get_or_insert_default().add(mark);
    }

    /// Pushes of this conversation are being left out.
    pub(crate) fn is_behind(&self, mark: Mark) -> bool {
        self.behind.as_ref().is_some_and(|behind| behind.covers(mark))
    }
}

impl Behind {
    /// Any push may have been lost.
    pub(crate) fn everything() -> Box<Self> {
        Box::new(Self { heads: Vec::new(), all: true })
    }

    fn covers(&self, mark: Mark) -> bool {
        self.all || self.heads.iter().any(|head| head.conversation == mark.conversation)
    }

    fn add(&mut self, mark: Mark) {
        if self.all {
            return;
        }
        let known = self.heads.iter_mut().find(|head| head.conversation == mark.conversation);
        if let Some(head) = known {
            head.seq = head.seq.max(mark.seq);
        } else if self.heads.len() < MAX_BEHIND {
            self.heads.push(mark);
        } else {
            (self.all, self.heads) = (true, Vec::new());
        }
    }

    /// The frame that tells the client.
    pub(crate) fn frame(&self) -> Bytes {
        let cursor =
            |mark: &Mark| wire::Cursor { conversation: id_bytes(mark.conversation), seq: mark.seq };
        let heads = self.heads.iter().map(cursor).collect();
        server_frame(Kind::Behind(wire::Behind { heads }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skein_protocol::ConversationId;

    fn mark(n: u8, seq: u64) -> Mark {
        let mut id = [n; 16];
        id[0] = 1;
        Mark { conversation: ConversationId::parse(&id).unwrap(), seq }
    }

    #[test]
    fn behind_remembers_the_highest_and_gives_up_at_its_limit() {
        let mut behind = Behind::default();
        behind.add(mark(1, 5));
        behind.add(mark(1, 4));
        assert_eq!(behind.heads, [mark(1, 5)]);
        assert!(behind.covers(mark(1, 9)) && !behind.covers(mark(2, 1)));
        for n in 2..=MAX_BEHIND as u8 + 1 {
            behind.add(mark(n, 1));
        }
        assert!(behind.all && behind.heads.is_empty());
        assert!(behind.covers(mark(200, 1)));
    }
}
