//! What reaches a shard from elsewhere: from lanes, from reads of the store, from other shards.

use bytes::Bytes;
use skein_protocol::Code;
use skein_protocol::cursor::Mark;
use skein_protocol::server::Close;
use skein_transport::{ConnId, Mailbox, StreamId};

use crate::bulk::Page;
use crate::observe::Stamp;
use crate::walk::Walk;

/// One item for a session, or for the whole shard.
#[derive(Debug)]
pub enum Mail {
    /// SendAck or Error: the answer to one send.
    Answer(ConnId, Bytes, Answered),
    /// A message for the live stream, and when it came; left out if the session is behind.
    Push(ConnId, Mark, Bytes, Stamp),
    /// How far others have read; the next sync makes it good if it is left out.
    Receipt(ConnId, Bytes),
    /// The conversation has grown to this; the session is told with Behind.
    Head(ConnId, Mark),
    /// The answer to a bulk request.
    Page(ConnId, StreamId, Page),
    /// End this session.
    Close(ConnId, Close),
    /// Look at some sessions, or end them, for an operator.
    Walk(Box<Walk>),
    /// Send everybody away; new sessions are refused from now on.
    Drain(Drain),
}

/// What an answer says.
#[derive(Debug, Clone, Copy)]
pub enum Answered {
    /// The message is durable; it came then.
    Durable(Stamp),
    /// It was refused.
    Refused(Code),
}

/// How to send everybody away.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Reconnects are spread evenly over this many milliseconds.
    pub reconnect_spread_ms: u32,
}

/// Mail on its way out, gathered by shard so that each mailbox is opened once.
#[derive(Debug)]
pub struct Outgoing {
    shards: Vec<Vec<Mail>>,
}

impl Outgoing {
    /// Nothing for anybody.
    pub fn new(shards: usize) -> Self {
        Self { shards: (0..shards).map(|_| Vec::new()).collect() }
    }

    /// Adds mail for the shard that owns the connection.
    pub fn push(&mut self, conn: ConnId, mail: Mail) {
        if let Some(shard) = self.shards.get_mut(conn.shard()) {
            shard.push(mail);
        }
    }

    /// Hands everything over; returns the shards whose mailbox had no room for all of it.
    pub fn send(self, mailboxes: &[Mailbox<Mail>]) -> Vec<usize> {
        let mut overflowed = Vec::new();
        for (shard, mails) in self.shards.into_iter().enumerate() {
            if !mails.is_empty()
                && let Some(mailbox) = mailboxes.get(shard)
                && mailbox.send_all(mails).is_err()
            {
                overflowed.push(shard);
            }
        }
        overflowed
    }
}
