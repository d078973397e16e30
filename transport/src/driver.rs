//! What the application implements, and the words that it and the shard exchange.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{ConnectionError, StreamId, VarInt};

use crate::{ConnId, Io};

/// The application inside a shard. All calls come from the shard's thread, one at a time.
pub trait Driver: 'static {
    /// What other threads may send in, see [`Mailbox`](crate::Mailbox).
    type Mail: Send + 'static;

    /// The handshake is complete: somebody connected, or [`Io::connect`] succeeded.
    fn on_connected(&mut self, io: &mut Io<'_>, conn: ConnId);

    /// The peer opened a stream. [`on_readable`](Self::on_readable) follows.
    fn on_stream_opened(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId);

    /// Bytes, an end or a reset may wait: call [`Io::read`] until it says [`Read::Blocked`].
    ///
    /// They may also be left unread: flow control then holds the peer back, and the driver reads
    /// later of its own accord (it is not called again for bytes that it left, only for new ones).
    fn on_readable(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId);

    /// A write was refused with [`WriteError::Full`], and the connection's outbox has drained
    /// below half of its limit since.
    fn on_writable(&mut self, io: &mut Io<'_>, conn: ConnId);

    /// The peer allows more streams than before; only interesting after [`Io::open_bi`] said `None`.
    fn on_streams_available(&mut self, io: &mut Io<'_>, conn: ConnId) {
        let _ = (io, conn);
    }

    /// The peer does not want the rest of what is written to this stream (STOP_SENDING). Whatever
    /// waited for it was dropped, and writing to it fails from now on.
    fn on_stopped(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId, code: VarInt) {
        let _ = (io, conn, stream, code);
    }

    /// The deadline given to [`Io::set_timer`] has passed. There is one a connection, and it is
    /// cleared before this call.
    fn on_timer(&mut self, io: &mut Io<'_>, conn: ConnId);

    /// The connection is gone and `conn` is dead. Called exactly once for each
    /// [`on_connected`](Self::on_connected), and for each [`Io::connect`] whose handshake failed.
    fn on_closed(&mut self, io: &mut Io<'_>, conn: ConnId, reason: CloseReason);

    /// Something another thread sent.
    fn on_mail(&mut self, io: &mut Io<'_>, mail: Self::Mail);

    /// When [`on_tick`](Self::on_tick) wants to be called next, if at all. Asked once a turn.
    fn next_tick(&self) -> Option<Instant> {
        None
    }

    /// The time that [`next_tick`](Self::next_tick) named has come.
    fn on_tick(&mut self, io: &mut Io<'_>) {
        let _ = io;
    }

    /// A turn begins: none of the other calls of this turn has been made. The place to look once
    /// at what all of them go by.
    fn on_turn_begin(&mut self) {}

    /// The shard has work for a turn behind it and is about to send. The place to act once on what
    /// several calls of this turn brought.
    fn on_turn_end(&mut self, io: &mut Io<'_>) {
        let _ = io;
    }

    /// The shard stops: the connections are still there, and what is written now is sent before
    /// they are closed if it fits into one packet each. Every connection's
    /// [`on_closed`](Self::on_closed) follows.
    fn on_stopping(&mut self, io: &mut Io<'_>) {
        let _ = io;
    }
}

/// What [`Io::read`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes of the stream, never empty.
    Chunk(Bytes),
    /// The peer ended the stream and everything was read. Said once.
    Fin,
    /// The peer gave the stream up with this code. Said once.
    Reset(VarInt),
    /// Nothing there now (also: the stream or the connection is gone).
    Blocked,
}

/// Why [`Io::write`] took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The connection's outbox has no room for all of it. [`Driver::on_writable`] follows when it
    /// has drained below half; bytes longer than the whole limit never fit.
    #[error("the outbox of the connection is full")]
    Full,
    /// The connection or the sending half of this stream is gone, or the peer stopped it.
    #[error("the stream or the connection is closed")]
    Closed,
}

/// Why [`Io::connect`] did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The engine was started without [`ClientTls`](crate::ClientTls).
    #[error("this engine has no client configuration")]
    NoClientConfig,
    /// `max_connections` is reached.
    #[error("this shard has as many connections as its limit allows")]
    TooMany,
    /// The shard is stopping.
    #[error("the shard is stopping")]
    Stopping,
    /// The address or the name cannot be used.
    #[error("cannot connect: {0}")]
    Invalid(String),
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// [`Io::close`] was called.
    Local,
    /// The peer's application closed it, with its own code and words.
    Peer {
        /// The application's code.
        code: u64,
        /// The application's words, at most a packet's worth; a stranger's bytes.
        reason: Bytes,
    },
    /// Nothing arrived for the idle timeout, or the handshake took too long.
    TimedOut,
    /// The peer no longer knows the connection (a stateless reset), usually because it restarted.
    Reset,
    /// One of the two QUIC or TLS implementations gave up: a failed handshake, a broken rule.
    Transport {
        /// The code of RFC 9000 section 20.1; 0x100 + alert for TLS.
        code: u64,
        /// What it was, for a log.
        detail: String,
        /// The peer said so, not this side.
        from_peer: bool,
    },
    /// The shard stopped.
    Stopped,
}

impl From<ConnectionError> for CloseReason {
    fn from(error: ConnectionError) -> Self {
        let detail = error.to_string();
        match error {
            ConnectionError::ApplicationClosed(close) => {
                Self::Peer { code: close.error_code.into(), reason: close.reason }
            }
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::Reset => Self::Reset,
            ConnectionError::LocallyClosed => Self::Local,
            ConnectionError::ConnectionClosed(close) => {
                Self::Transport { code: close.error_code.into(), detail, from_peer: true }
            }
            ConnectionError::TransportError(error) => {
                Self::Transport { code: error.code.into(), detail, from_peer: false }
            }
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => {
                // RFC 9000 section 20.1: INTERNAL_ERROR, for want of a code of their own.
                Self::Transport { code: 1, detail, from_peer: false }
            }
        }
    }
}

/// A look at one connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnStats {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Congestion window, bytes.
    pub congestion_window: u64,
    /// Packets sent and later declared lost.
    pub lost_packets: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Bytes of datagrams received and sent.
    pub bytes_received: u64,
    /// See `bytes_received`.
    pub bytes_sent: u64,
    /// Datagrams received and sent.
    pub datagrams_received: u64,
    /// See `datagrams_received`.
    pub datagrams_sent: u64,
    /// Where the peer is now.
    pub remote: SocketAddr,
}
