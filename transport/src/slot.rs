//! One connection in its shard: quinn-proto's state, what waits to be written, one deadline.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;
use quinn_proto::{Connection, Dir, StreamId, VarInt, WriteError as QuicWriteError};

use crate::driver::WriteError;

/// What a queued piece counts beside its bytes: about its place in the queue.
pub(crate) const PIECE_COST: usize = 64;

/// Bytes beyond the send window that streams of priority 0 and above may hand to QUIC. Without them
/// a bulk transfer that fills the window would hold a live message back until the peer has
/// acknowledged some of it, whatever the priorities say.
const LIVE_RESERVE: u64 = 32 << 10;

/// A place for a connection. The generation rises each time the place is vacated.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) generation: u32,
    pub(crate) conn: Option<Box<Conn>>,
}

/// A connection. Boxed: a slab of these would grow in steps of megabytes.
pub(crate) struct Conn {
    pub(crate) quic: Connection,
    /// Bytes that QUIC takes of bulk streams, see [`LIVE_RESERVE`].
    send_window: u32,
    /// Only there while something waits.
    outbox: Option<Box<Outbox>>,
    /// The driver's deadline; before the handshake is over, the limit for that.
    pub(crate) timer: Option<Instant>,
    /// In the dirty list.
    pub(crate) dirty: bool,
    /// The driver has heard of it, so it must hear of its end.
    pub(crate) announced: bool,
    /// The handshake is complete.
    pub(crate) established: bool,
    /// Its end was said, or is queued to be said: nothing works on it any more.
    pub(crate) gone: bool,
    /// A write was refused.
    pub(crate) want_writable: bool,
    /// QUIC has room again for what waits.
    pub(crate) flush: bool,
}

#[derive(Default)]
struct Outbox {
    pieces: VecDeque<(StreamId, Piece)>,
    /// Bytes in `pieces`.
    bytes: usize,
}

enum Piece {
    Data(Bytes),
    Fin,
}

impl Outbox {
    fn cost(&self) -> usize {
        self.bytes + self.pieces.len() * PIECE_COST
    }
}

impl Conn {
    pub(crate) fn new(quic: Connection, send_window: u32) -> Self {
        Self {
            quic,
            send_window,
            outbox: None,
            timer: None,
            dirty: false,
            announced: false,
            established: false,
            gone: false,
            want_writable: false,
            flush: false,
        }
    }

    /// What the outbox counts against its limit.
    pub(crate) fn outbox_cost(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.cost())
    }

    pub(crate) fn drop_outbox(&mut self) {
        self.outbox = None;
    }

    /// Whether this side may send on the stream; quinn-proto panics when asked otherwise.
    pub(crate) fn may_send(&self, stream: StreamId) -> bool {
        stream.dir() == Dir::Bi || stream.initiator() == self.quic.side()
    }

    /// Whether this side may receive on the stream.
    pub(crate) fn may_receive(&self, stream: StreamId) -> bool {
        stream.dir() == Dir::Bi || stream.initiator() != self.quic.side()
    }

    /// Takes all of `bytes` or nothing; `limit` is for what QUIC does not take.
    pub(crate) fn write(
        &mut self,
        stream: StreamId,
        mut bytes: Bytes,
        limit: usize,
    ) -> Result<(), WriteError> {
        if !self.may_send(stream) {
            return Err(WriteError::Closed);
        }
        if self.outbox_cost() + bytes.len() + PIECE_COST > limit {
            self.want_writable = true;
            return Err(WriteError::Full);
        }
        if !self.waits(stream) && self.offer(stream, &mut bytes)? {
            return Ok(());
        }
        self.queue(stream, Piece::Data(bytes));
        Ok(())
    }

    /// Ends the stream behind everything written to it.
    pub(crate) fn finish(&mut self, stream: StreamId) -> Result<(), WriteError> {
        if !self.may_send(stream) {
            return Err(WriteError::Closed);
        }
        if self.waits(stream) {
            // One more piece whatever the limit: a stream ends once.
            let ended = self.outbox.as_ref().is_some_and(|outbox| {
                outbox.pieces.iter().any(|(id, piece)| *id == stream && matches!(piece, Piece::Fin))
            });
            if ended {
                return Err(WriteError::Closed);
            }
            self.queue(stream, Piece::Fin);
            return Ok(());
        }
        self.quic.send_stream(stream).finish().map_err(|_| WriteError::Closed)
    }

    /// Gives the stream up and drops what waits for it.
    pub(crate) fn reset(&mut self, stream: StreamId, code: VarInt) {
        if !self.may_send(stream) {
            return;
        }
        self.forget(stream);
        let _ = self.quic.send_stream(stream).reset(code);
    }

    fn forget(&mut self, stream: StreamId) {
        if let Some(outbox) = &mut self.outbox {
            outbox.pieces.retain(|(id, _)| *id != stream);
            outbox.bytes = outbox
                .pieces
                .iter()
                .map(|(_, piece)| match piece {
                    Piece::Data(bytes) => bytes.len(),
                    Piece::Fin => 0,
                })
                .sum();
            if outbox.pieces.is_empty() {
                self.outbox = None;
            }
        }
    }

    fn waits(&self, stream: StreamId) -> bool {
        self.outbox
            .as_ref()
            .is_some_and(|outbox| outbox.pieces.iter().rev().any(|(id, _)| *id == stream))
    }

    fn queue(&mut self, stream: StreamId, piece: Piece) {
        let outbox = self.outbox.get_or_insert_default();
        if let Piece::Data(bytes) = &piece {
            outbox.bytes += bytes.len();
        }
        outbox.pieces.push_back((stream, piece));
    }

    /// Gives QUIC what it takes. `true`: all of it; otherwise `bytes` is the rest, and QUIC will
    /// say when there is room.
    fn offer(&mut self, stream: StreamId, bytes: &mut Bytes) -> Result<bool, WriteError> {
        let live = self.quic.send_stream(stream).priority().is_ok_and(|priority| priority >= 0);
        let window = u64::from(self.send_window);
        self.quic.set_send_window(window + if live { LIVE_RESERVE } else { 0 });
        let offered = self.offer_within_window(stream, bytes);
        self.quic.set_send_window(window);
        offered
    }

    fn offer_within_window(
        &mut self,
        stream: StreamId,
        bytes: &mut Bytes,
    ) -> Result<bool, WriteError> {
        let mut sender = self.quic.send_stream(stream);
        // Once more after a partial write: only a refusal makes QUIC remember to call back.
        while !bytes.is_empty() {
            match sender.write_chunks(std::slice::from_mut(bytes)) {
                Ok(written) if written.chunks > 0 => return Ok(true),
                Ok(_) => {}
                Err(QuicWriteError::Blocked) => return Ok(false),
                Err(_) => return Err(WriteError::Closed),
            }
        }
        Ok(true)
    }

    /// Gives QUIC as much of the outbox as it takes, in order within each stream.
    pub(crate) fn flush_outbox(&mut self) {
        self.flush = false;
        let Some(mut outbox) = self.outbox.take() else { return };
        let mut blocked: Vec<StreamId> = Vec::new();
        let mut left = 0;
        outbox.pieces.retain_mut(|(stream, piece)| {
            if blocked.contains(stream) {
                if let Piece::Data(bytes) = piece {
                    left += bytes.len();
                }
                return true;
            }
            match piece {
                Piece::Data(bytes) => match self.offer(*stream, bytes) {
                    Ok(true) | Err(_) => false,
                    Ok(false) => {
                        blocked.push(*stream);
                        left += bytes.len();
                        true
                    }
                },
                Piece::Fin => {
                    let _ = self.quic.send_stream(*stream).finish();
                    false
                }
            }
        });
        outbox.bytes = left;
        if !outbox.pieces.is_empty() {
            self.outbox = Some(outbox);
        }
    }
}
