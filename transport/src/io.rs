//! What a driver may do, valid during one call.

use std::{net::SocketAddr, time::Instant};

use bytes::Bytes;
use quinn_proto::{Dir, ReadError, StreamId, VarInt};

use crate::{
    ClientTls, CloseReason, ConnId, ConnStats, ConnectError, Read, WriteError, core::Core,
    crypto::Handshake, driver,
};

/// The shard, as its driver sees it. Every call returns at once; a dead [`ConnId`] is answered
/// with `Closed`, `Blocked` or `None` and never reaches another connection.
pub struct Io<'a> {
    core: &'a mut Core,
}

impl<'a> Io<'a> {
    pub(crate) fn new(core: &'a mut Core) -> Self {
        Self { core }
    }

    /// The time of this turn: one clock read for all that happens in it.
    pub fn now(&self) -> Instant {
        self.core.now
    }

    /// Index of this shard.
    pub fn shard(&self) -> usize {
        self.core.shard()
    }

    /// Whether the connection exists and was not closed.
    pub fn is_alive(&self, conn: ConnId) -> bool {
        self.core.alive_ref(conn).is_some()
    }

    /// The next piece of the stream.
    pub fn read(&mut self, conn: ConnId, stream: StreamId) -> Read {
        let Some(slot) = self.core.alive(conn).filter(|slot| slot.may_receive(stream)) else {
            return Read::Blocked;
        };
        let mut receiver = slot.quic.recv_stream(stream);
        let Ok(mut chunks) = receiver.read(true) else { return Read::Blocked };
        let next = chunks.next(usize::MAX);
        if chunks.finalize().should_transmit() {
            self.core.touch(conn);
        }
        match next {
            Ok(Some(chunk)) => Read::Chunk(chunk.bytes),
            Ok(None) => Read::Fin,
            Err(ReadError::Reset(code)) => Read::Reset(code),
            Err(ReadError::Blocked) => Read::Blocked,
        }
    }

    /// Queues the bytes: all of them or none.
    pub fn write(
        &mut self,
        conn: ConnId,
        stream: StreamId,
        bytes: Bytes,
    ) -> Result<(), WriteError> {
        let limit = self.core.limits().outbox_bytes;
        let written = self.core.change_outbox(conn, |slot| slot.write(stream, bytes, limit));
        let written = written.unwrap_or(Err(WriteError::Closed));
        match written {
            Ok(()) => self.core.touch(conn),
            Err(WriteError::Full) => self.core.counters().outbox_full.add(1),
            Err(WriteError::Closed) => {}
        }
        written
    }

    /// Ends the sending half behind everything written to it.
    pub fn finish(&mut self, conn: ConnId, stream: StreamId) -> Result<(), WriteError> {
        let finished = self.core.change_outbox(conn, |slot| slot.finish(stream));
        let finished = finished.ok_or(WriteError::Closed)?;
        self.core.touch(conn);
        finished
    }

    /// Gives the sending half up; what waits for it is dropped.
    pub fn reset(&mut self, conn: ConnId, stream: StreamId, code: VarInt) {
        if self.core.change_outbox(conn, |slot| slot.reset(stream, code)).is_some() {
            self.core.touch(conn);
        }
    }

    /// Asks the peer to send nothing more on the stream; what came is dropped.
    pub fn stop_sending(&mut self, conn: ConnId, stream: StreamId, code: VarInt) {
        if let Some(slot) = self.core.alive(conn).filter(|slot| slot.may_receive(stream)) {
            let _ = slot.quic.recv_stream(stream).stop(code);
            self.core.touch(conn);
        }
    }

    /// Streams of a higher number go first; 0 unless set. Give bulk a negative number: it then
    /// never fills the window that live messages need.
    pub fn set_priority(&mut self, conn: ConnId, stream: StreamId, priority: i32) {
        if let Some(slot) = self.core.alive(conn).filter(|slot| slot.may_send(stream)) {
            let _ = slot.quic.send_stream(stream).set_priority(priority);
        }
    }

    /// Opens a bidirectional stream, if the peer allows one more;
    /// [`Driver::on_streams_available`](crate::Driver::on_streams_available) says when.
    pub fn open_bi(&mut self, conn: ConnId) -> Option<StreamId> {
        self.core.alive(conn)?.quic.streams().open(Dir::Bi)
    }

    /// Opens a stream in which only this side sends.
    pub fn open_uni(&mut self, conn: ConnId) -> Option<StreamId> {
        self.core.alive(conn)?.quic.streams().open(Dir::Uni)
    }

    /// Bytes that `write` accepted and QUIC has not taken yet, counted as the limit counts them:
    /// 64 more for each piece.
    pub fn outbox_bytes(&self, conn: ConnId) -> usize {
        self.core.alive_ref(conn).map_or(0, |slot| slot.outbox_cost())
    }

    /// The sum of [`outbox_bytes`](Self::outbox_bytes) over all connections of this shard. It is
    /// kept, not counted, so asking costs nothing.
    pub fn outbox_total(&self) -> usize {
        self.core.outbox_total()
    }

    /// Asks for one [`Driver::on_writable`](crate::Driver::on_writable) when the outbox is below
    /// half of its limit, which may be at once, although no write was refused.
    pub fn want_writable(&mut self, conn: ConnId) {
        if let Some(slot) = self.core.alive(conn) {
            slot.want_writable = true;
            self.core.touch(conn);
        }
    }

    /// Calls [`Driver::on_timer`](crate::Driver::on_timer) at this time, in place of any earlier
    /// wish. Nothing happens before the connection is established.
    pub fn set_timer(&mut self, conn: ConnId, at: Option<Instant>) {
        self.core.set_timer(conn, at);
    }

    /// Closes the connection: what waits is dropped, the peer is told once. `conn` is dead from
    /// now on, and `on_closed` follows with [`CloseReason::Local`].
    pub fn close(&mut self, conn: ConnId, code: VarInt, reason: &[u8]) {
        let now = self.core.now;
        if let Some(slot) = self.core.alive(conn) {
            slot.quic.close(now, code, Bytes::copy_from_slice(reason));
            self.core.end(conn, CloseReason::Local);
        }
    }

    /// Begins a connection from this shard's socket. `on_connected` or `on_closed` follows.
    pub fn connect(
        &mut self,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<ConnId, ConnectError> {
        self.core.connect(remote, server_name, None)
    }

    /// The same with a TLS configuration for this connection alone: for instance with a store of
    /// session tickets that no other connection sees. The engine must have one of its own as well.
    pub fn connect_with(
        &mut self,
        remote: SocketAddr,
        server_name: &str,
        tls: &ClientTls,
    ) -> Result<ConnId, ConnectError> {
        self.core.connect(remote, server_name, Some(tls))
    }

    /// Whether the handshake went on from a session ticket; for a client in
    /// [`Driver::on_connected`](crate::Driver::on_connected), which is when that is still known.
    pub fn is_resumed(&self, conn: ConnId) -> Option<bool> {
        let about = self.core.alive_ref(conn)?.quic.crypto_session().handshake_data()?;
        about.downcast_ref::<Handshake>().map(|handshake| handshake.is_resumed)
    }

    /// Where the peer is now.
    pub fn remote_address(&self, conn: ConnId) -> Option<SocketAddr> {
        let mut remote = self.core.alive_ref(conn)?.quic.remote_address();
        remote.set_ip(remote.ip().to_canonical());
        Some(remote)
    }

    /// A look at the connection.
    pub fn stats(&self, conn: ConnId) -> Option<ConnStats> {
        let remote = self.remote_address(conn)?;
        let stats = self.core.alive_ref(conn)?.quic.stats();
        Some(driver::ConnStats {
            rtt: stats.path.rtt,
            congestion_window: stats.path.cwnd,
            lost_packets: stats.path.lost_packets,
            sent_packets: stats.path.sent_packets,
            bytes_received: stats.udp_rx.bytes,
            bytes_sent: stats.udp_tx.bytes,
            datagrams_received: stats.udp_rx.datagrams,
            datagrams_sent: stats.udp_tx.datagrams,
            remote,
        })
    }

    /// Stops this shard: every connection is closed with code 0, then the thread ends.
    pub fn stop(&mut self) {
        self.core.stop_asked = true;
    }

    /// Whether the shard is stopping.
    pub fn is_stopping(&self) -> bool {
        self.core.is_stopping()
    }
}
