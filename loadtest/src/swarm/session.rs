//! What the generator keeps of a session. A million of these are in memory: every byte is paid for
//! a million times, so what only some need is in a box or a table of its own.

use std::collections::VecDeque;

use bytes::Bytes;
use skein_protocol::frame::Decoder;
use skein_transport::{ConnId, Dir, Side, StreamId};

use crate::clock::Nanos;
use crate::verify::{Receiver, Stream};

/// In place of an index: none.
pub(super) const NONE: u32 = u32::MAX;

/// The long-lived stream: the first that a client opens.
pub(super) fn live_stream() -> StreamId {
    StreamId::new(Side::Client, Dir::Bi, 0)
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum State {
    /// No connection, and none planned.
    #[default]
    Idle,
    /// No connection; a time for the next attempt is set.
    Away,
    /// The handshake is under way.
    Connecting,
    /// Connected; the token or the Welcome is waited for.
    Greeting,
    /// Logged in.
    Live,
}

/// Yes-or-no things.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags(u8);

impl Flags {
    /// `Delivered` is due soon.
    pub(super) const ACK_SOON: u8 = 1;
    /// `Delivered` is due at leisure.
    pub(super) const ACK_LATER: u8 = 2;
    /// A ping was written, and nothing was heard since.
    pub(super) const PINGED: u8 = 4;
    /// Reads once in a while.
    pub(super) const SLOW: u8 = 8;
    /// Says nothing.
    pub(super) const SILENT: u8 = 16;
    /// Something unread waits.
    pub(super) const UNREAD: u8 = 32;
    /// A new token was asked for.
    pub(super) const RENEWING: u8 = 64;
    /// The gateway said that it goes.
    pub(super) const GOING: u8 = 128;

    pub(super) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    pub(super) fn set(&mut self, flag: u8) {
        self.0 |= flag;
    }

    pub(super) fn clear(&mut self, flag: u8) {
        self.0 &= !flag;
    }
}

/// One session, over all its connections.
#[derive(Debug)]
pub(super) struct Session {
    /// The connection; only meaningful while there is one.
    pub(super) conn: ConnId,
    /// Only while it is being made, or waits to be.
    pub(super) entry: Option<Box<Entry>>,
    /// Only while something is half read.
    pub(super) reading: Option<Box<Reading>>,
    /// Number in the plan.
    pub(super) user: u32,
    /// Number of the device.
    pub(super) device: u32,
    /// Its place in a conversation, or [`NONE`].
    pub(super) line: u32,
    /// Milliseconds of the clock: last heard from us.
    pub(super) said: u32,
    /// Milliseconds of the clock: logged in.
    pub(super) since: u32,
    /// Seconds of the clock: end of the token.
    pub(super) token_until: u32,
    /// Its share in the shard.
    pub(super) share: u16,
    pub(super) state: State,
    pub(super) flags: Flags,
    /// Attempts without success in a row.
    pub(super) attempts: u8,
}

impl Session {
    pub(super) fn new(share: u16, user: u32, device: u32, line: u32) -> Self {
        Self {
            conn: ConnId::from_u64(u64::MAX),
            entry: None,
            reading: None,
            user,
            device,
            line,
            said: 0,
            since: 0,
            token_until: 0,
            share,
            state: State::Idle,
            flags: Flags::default(),
            attempts: 0,
        }
    }
}

/// A session that is being made.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// When the connection was due.
    pub(super) intended: Nanos,
    /// When this attempt began.
    pub(super) dialed: Nanos,
    /// When the handshake of this attempt was complete.
    pub(super) connected: Nanos,
    /// When `Hello` was written.
    pub(super) greeted: Nanos,
    /// It takes the place of a session that ended, and was due then.
    pub(super) resume_since: Option<Nanos>,
    /// The gateway is going, and said when to come back: nanoseconds from the end.
    pub(super) told: Option<Nanos>,
    /// A token that came before the handshake was over, and its end.
    pub(super) token: Option<(Bytes, Nanos)>,
}

/// Half read, or asked for.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Of the live stream.
    pub(super) live: Decoder,
    pub(super) bulk: Option<Bulk>,
}

/// A request on a stream of its own.
#[derive(Debug)]
pub(super) struct Bulk {
    pub(super) stream: StreamId,
    pub(super) decoder: Decoder,
    pub(super) job: Job,
}

/// What a request is for.
#[derive(Debug)]
pub(super) enum Job {
    /// What a receiver misses: the next number that the answer can bring, and the last one that was
    /// asked for; 0: to the end of the log. Whether the answer came to its end.
    Mend { next: u64, to: u64, is_whole: bool },
    /// First part of a sync: where the conversation ends.
    Heads(Sync),
    /// Second part: all of it.
    Backlog(Sync),
}

/// A pass over a backlog.
#[derive(Debug, Default)]
pub(super) struct Sync {
    /// When the login was due.
    pub(super) intended: Nanos,
    /// When `Welcome` came.
    pub(super) begun: Nanos,
    /// Last number of the conversation, as the head said.
    pub(super) head: u64,
    /// Everything that the run wrote up to here has come.
    pub(super) position: u64,
    /// Where the backlog ends, and what others wrote between it.
    pub(super) end: u64,
    /// Counter of the message there, and one.
    pub(super) counter: u32,
    /// Something was missing before the position.
    pub(super) has_gaps: bool,
    /// The answer that is being read came to its end.
    pub(super) is_whole: bool,
    /// It was refused with this code.
    pub(super) refused: Option<u32>,
}

impl Job {
    /// The gateway does not answer it, or not to the end.
    pub(super) fn refused(&mut self, code: u32) {
        if let Self::Heads(sync) | Self::Backlog(sync) = self {
            sync.refused = Some(code);
        }
    }
}

/// A session's place in a conversation.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) session: u32,
    /// The user at the other end.
    pub(super) peer: u32,
    /// The stream that it writes, or [`NONE`].
    pub(super) channel: u32,
    /// Lines of the same conversation: the first and how many.
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) receiver: Receiver,
    /// Intended starts of what is due while as much is under way as may be.
    pub(super) backlog: VecDeque<Nanos>,
    /// Messages that a closed loop still has to write.
    pub(super) left: u32,
    /// A look at its gap is planned.
    pub(super) mending: bool,
    /// Id of the conversation, as soon as the gateway has said it; zeros before.
    pub(super) conversation: [u8; 16],
}

/// What one line writes.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) stream: Stream,
    /// The lowest number that was acknowledged to it; 0: none yet.
    pub(super) first: u64,
    /// The writing line.
    pub(super) line: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_stays_small() {
        assert!(std::mem::size_of::<Session>() <= 56, "{}", std::mem::size_of::<Session>());
        assert!(std::mem::size_of::<Line>() <= 160, "{}", std::mem::size_of::<Line>());
        assert_eq!(live_stream().index(), 0);
    }
}
