//! A shard without its socket, its clock and its thread: datagrams, mail and the time go in,
//! calls of the driver and datagrams come out.
//!
//! A turn is: [`begin_turn`](Core::begin_turn), any number of [`handle_datagram`]s, then
//! [`fire_timers`], the mail (through [`Io`]), [`dispatch`] and [`transmit`]. Connections that
//! anything happened to stand in the dirty list, each once; only those are looked at.
//!
//! [`handle_datagram`]: Core::handle_datagram
//! [`fire_timers`]: Core::fire_timers
//! [`dispatch`]: Core::dispatch
//! [`transmit`]: Core::transmit

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, Endpoint,
    EndpointConfig, EndpointEvent, Event, Incoming, ServerConfig, StreamEvent, Transmit,
    TransportConfig, VarInt,
};

use crate::{
    AddressValidation, Attempt, ClientTls, CloseReason, ConnId, ConnectError, Driver, Gate, Io,
    Limits, Verdict,
    crypto::SlimClient,
    id::MAX_SLOTS,
    slot::{Conn, Slot},
    stats::Counters,
    steer,
    timers::Timers,
    udp::SendQueue,
};

/// GSO bursts that one connection may send in a turn, so that a bulk transfer leaves room for
/// others; ten datagrams each.
const BURSTS_A_TURN: usize = 4;
const DATAGRAMS_A_BURST: usize = 10;

/// When so much waits, it is sent before more is made, bytes. Bounds the send queue.
const SEND_AT: usize = 128 << 10;

/// A datagram off the wire.
pub(crate) struct Datagram {
    pub(crate) remote: SocketAddr,
    pub(crate) local_ip: Option<IpAddr>,
    pub(crate) ecn: Option<EcnCodepoint>,
    pub(crate) data: BytesMut,
}

/// What a core is made of.
pub(crate) struct CoreConfig {
    pub(crate) shard: usize,
    pub(crate) endpoint: Arc<EndpointConfig>,
    pub(crate) server: Option<Arc<ServerConfig>>,
    pub(crate) client: Option<Dialing>,
    pub(crate) limits: Limits,
    pub(crate) validation: AddressValidation,
    pub(crate) gate: Option<Arc<dyn Gate>>,
    /// Of each connection, bytes.
    pub(crate) send_window: u32,
    /// The socket never fragments, so larger datagrams may be tried.
    pub(crate) allow_mtud: bool,
    /// The socket is IPv6 and takes IPv4 addresses in their mapped form.
    pub(crate) map_v4: bool,
    pub(crate) counters: Arc<Counters>,
    /// Of what QUIC draws beside its secrets; none: from the system.
    pub(crate) seed: Option<[u8; 32]>,
}

/// What may be changed while a shard runs.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) server: Option<Arc<ServerConfig>>,
    pub(crate) limits: Limits,
    pub(crate) validation: AddressValidation,
    pub(crate) send_window: u32,
}

/// How connections are begun.
#[derive(Clone)]
pub(crate) struct Dialing {
    pub(crate) usual: ClientConfig,
    pub(crate) transport: Arc<TransportConfig>,
}

impl Dialing {
    pub(crate) fn new(tls: &ClientTls, transport: Arc<TransportConfig>) -> Self {
        Self { usual: dial_config(tls, &transport), transport }
    }

    /// The same with another TLS configuration.
    fn with(&self, tls: &ClientTls) -> ClientConfig {
        dial_config(tls, &self.transport)
    }
}

/// A connection's number must fit into its id.
fn within_slots(limits: Limits) -> Limits {
    Limits { max_connections: limits.max_connections.min(MAX_SLOTS - 1), ..limits }
}

fn dial_config(tls: &ClientTls, transport: &Arc<TransportConfig>) -> ClientConfig {
    let mut client = ClientConfig::new(Arc::new(SlimClient::new(tls.config.clone())));
    client.transport_config(transport.clone()).token_store(Arc::new(quinn_proto::NoneTokenStore));
    client
}

/// See the module's words.
pub(crate) struct Core {
    config: CoreConfig,
    pub(crate) now: Instant,
    endpoint: Endpoint,
    slots: Vec<Slot>,
    timers: Timers,
    /// Slots to look at in this turn.
    dirty: Vec<u32>,
    /// The part of `dirty` that was dispatched in this turn.
    dispatched: usize,
    /// Ends that the driver must still hear of.
    ended: VecDeque<(ConnId, CloseReason)>,
    pub(crate) queue: SendQueue,
    scratch: Vec<u8>,
    connections: usize,
    /// Handshakes that others began.
    incoming: usize,
    /// Handshakes begun here.
    outgoing: usize,
    pub(crate) stop_asked: bool,
    stopping: bool,
}

impl Core {
    pub(crate) fn new(mut config: CoreConfig, now: Instant) -> Self {
        config.limits = within_slots(config.limits);
        let endpoint = Endpoint::new(
            config.endpoint.clone(),
            config.server.clone(),
            config.allow_mtud,
            config.seed,
        );
        Self {
            config,
            now,
            endpoint,
            slots: Vec::new(),
            timers: Timers::default(),
            dirty: Vec::new(),
            dispatched: 0,
            ended: VecDeque::new(),
            queue: SendQueue::new(),
            scratch: Vec::new(),
            connections: 0,
            incoming: 0,
            outgoing: 0,
            stop_asked: false,
            stopping: false,
        }
    }

    /// Goes by other limits from now on, and by another configuration with whoever comes from now
    /// on. Connections that are there keep what was negotiated with them.
    pub(crate) fn change(&mut self, change: Change) {
        let Change { server, limits, validation, send_window } = change;
        self.config.limits = within_slots(limits);
        self.config.validation = validation;
        self.config.send_window = send_window;
        // Who only dials goes on doing that.
        if self.config.server.is_some() && server.is_some() {
            self.config.server = server.clone();
            self.endpoint.set_server_config(server);
        }
    }

    pub(crate) fn shard(&self) -> usize {
        self.config.shard
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.config.limits
    }

    #[cfg(test)]
    pub(crate) fn limits_mut(&mut self) -> &mut Limits {
        &mut self.config.limits
    }

    pub(crate) fn counters_arc(&self) -> Arc<Counters> {
        self.config.counters.clone()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.config.counters
    }

    /// The one clock read of a turn.
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        // QUIC must never see time run backwards.
        self.now = self.now.max(now);
        self.config.counters.turns.add(1);
    }

    /// When the next turn is due although nothing arrives.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        // With a full socket the dirty ones wait for it, not for the clock.
        if self.queue.is_empty() && !(self.dirty.is_empty() && self.ended.is_empty()) {
            return Some(self.now);
        }
        self.timers.next()
    }

    /// Whether everything a stop asks for was said and made into datagrams.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopping && self.dirty.is_empty() && self.ended.is_empty() && self.queue.is_empty()
    }

    // ---- in

    pub(crate) fn handle_datagram(&mut self, datagram: Datagram) {
        let Datagram { remote, local_ip, ecn, data } = datagram;
        self.scratch.clear();
        match self.endpoint.handle(self.now, remote, local_ip, ecn, data, &mut self.scratch) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(conn) = self.slots.get_mut(handle.0).and_then(|s| s.conn.as_mut()) {
                    conn.quic.handle_event(event);
                    mark_dirty(&mut self.dirty, conn, handle.0);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.handle_incoming(incoming),
            Some(DatagramEvent::Response(transmit)) => self.respond(&transmit),
            None => {}
        }
    }

    fn handle_incoming(&mut self, incoming: Incoming) {
        let counters = &self.config.counters;
        self.scratch.clear();
        let limits = &self.config.limits;
        let verdict = self.config.gate.as_ref().map_or(Verdict::Admit, |gate| {
            gate.judge(&Attempt {
                address: incoming.remote_address().ip().to_canonical(),
                is_proven: incoming.remote_address_validated(),
                now: self.now,
            })
        });
        if verdict == Verdict::Ignore {
            return self.endpoint.ignore(incoming);
        }
        if verdict == Verdict::Refuse
            || self.stopping
            || self.connections >= limits.max_connections
            || self.incoming >= limits.max_handshakes
        {
            counters.refused.add(1);
            let transmit = self.endpoint.refuse(incoming, &mut self.scratch);
            return self.respond(&transmit);
        }
        let validate = match self.config.validation {
            AddressValidation::Off => false,
            AddressValidation::Always => true,
            AddressValidation::UnderPressure(handshakes) => self.incoming > handshakes,
        };
        if (validate || verdict == Verdict::Prove) && !incoming.remote_address_validated() {
            match self.endpoint.retry(incoming, &mut self.scratch) {
                Ok(transmit) => {
                    counters.retried.add(1);
                    self.respond(&transmit);
                }
                // An unvalidated address always may be asked to retry; were it otherwise, the
                // attempt is dropped and the client sends again.
                Err(error) => self.endpoint.ignore(error.into_incoming()),
            }
            return;
        }
        match self.endpoint.accept(incoming, self.now, &mut self.scratch, None) {
            Ok((handle, quic)) => {
                counters.accepted.add(1);
                self.incoming += 1;
                self.insert(handle, quic, false);
            }
            Err(error) => {
                counters.handshakes_failed.add(1);
                if let Some(transmit) = error.response {
                    self.respond(&transmit);
                }
            }
        }
    }

    /// Sends what the endpoint wrote to `scratch`.
    fn respond(&mut self, transmit: &Transmit) {
        self.config.counters.responses.add(1);
        // Only what a turn's datagrams can ask for gets here; were the socket blocked for longer,
        // the peer asks again.
        if self.queue.len() < 2 * SEND_AT {
            self.queue.push(transmit, &self.scratch[..transmit.size], None);
        }
    }

    pub(crate) fn connect(
        &mut self,
        remote: SocketAddr,
        server_name: &str,
        tls: Option<&ClientTls>,
    ) -> Result<ConnId, ConnectError> {
        let Some(client) = &self.config.client else { return Err(ConnectError::NoClientConfig) };
        if self.stopping || self.stop_asked {
            return Err(ConnectError::Stopping);
        }
        if self.connections >= self.config.limits.max_connections {
            return Err(ConnectError::TooMany);
        }
        let remote = match remote {
            SocketAddr::V4(v4) if self.config.map_v4 => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            other => other,
        };
        let client = tls.map_or_else(|| client.usual.clone(), |tls| client.with(tls));
        let (handle, quic) = self
            .endpoint
            .connect(self.now, client, remote, server_name)
            .map_err(|error| ConnectError::Invalid(error.to_string()))?;
        self.config.counters.dialed.add(1);
        self.outgoing += 1;
        Ok(self.insert(handle, quic, true))
    }

    fn insert(&mut self, handle: ConnectionHandle, quic: Connection, announced: bool) -> ConnId {
        // Our slots have the endpoint's numbers, which are small and used again.
        if self.slots.len() <= handle.0 {
            self.slots.resize_with(handle.0 + 1, Slot::default);
        }
        let mut conn = Box::new(Conn::new(quic, self.config.send_window));
        conn.announced = announced;
        conn.timer = Some(self.now + self.config.limits.handshake_timeout);
        mark_dirty(&mut self.dirty, &mut conn, handle.0);
        let slot = &mut self.slots[handle.0];
        debug_assert!(slot.conn.is_none(), "the endpoint gave out a number twice");
        slot.conn = Some(conn);
        let id = ConnId::new(self.config.shard, handle.0, slot.generation);
        self.connections += 1;
        self.count();
        id
    }

    fn count(&self) {
        self.config.counters.connections.set(self.connections as u64);
        self.config.counters.handshaking.set((self.incoming + self.outgoing) as u64);
    }

    // ---- the turn

    /// Lets connections whose time has come act on it.
    pub(crate) fn fire_timers<D: Driver>(&mut self, driver: &mut D) {
        while let Some(key) = self.timers.pop_due(self.now) {
            let slot = key as usize;
            let Some(conn) = self.slots.get_mut(slot).and_then(|s| s.conn.as_mut()) else {
                continue;
            };
            if conn.quic.poll_timeout().is_some_and(|at| at <= self.now) {
                conn.quic.handle_timeout(self.now);
                mark_dirty(&mut self.dirty, conn, slot);
            }
            if conn.timer.is_some_and(|at| at <= self.now) {
                conn.timer = None;
                let generation = self.slots[slot].generation;
                self.handle_own_timer(ConnId::new(self.config.shard, slot, generation), driver);
            }
            // A dirty one is armed when it has been driven.
            if self.slots[slot].conn.as_ref().is_some_and(|conn| !conn.dirty) {
                self.arm(slot);
            }
        }
    }

    fn handle_own_timer<D: Driver>(&mut self, id: ConnId, driver: &mut D) {
        let now = self.now;
        let Some(conn) = self.alive(id) else { return };
        if conn.established {
            driver.on_timer(&mut Io::new(self), id);
        } else {
            conn.quic.close(now, VarInt::from_u32(0), Bytes::new());
            self.end(id, CloseReason::TimedOut);
        }
    }

    /// Makes sure that the slot comes up again when it must.
    fn arm(&mut self, slot: usize) {
        let Some(conn) = self.slots[slot].conn.as_mut() else { return };
        let deadline = match (conn.quic.poll_timeout(), conn.timer) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if let Some(at) = deadline {
            self.timers.set(slot as u32, at);
        }
    }

    /// Tells the driver what happened to the dirty connections. It may make others dirty, which
    /// then have their turn too, each once.
    pub(crate) fn dispatch<D: Driver>(&mut self, driver: &mut D) {
        loop {
            while let Some(&slot) = self.dirty.get(self.dispatched) {
                self.dispatched += 1;
                self.dispatch_one(slot as usize, driver);
            }
            let Some((id, reason)) = self.ended.pop_front() else { return };
            driver.on_closed(&mut Io::new(self), id, reason);
        }
    }

    fn dispatch_one<D: Driver>(&mut self, slot: usize, driver: &mut D) {
        let handle = ConnectionHandle(slot);
        let id = ConnId::new(self.config.shard, slot, self.slots[slot].generation);
        let mut drained = false;
        loop {
            let Some(conn) = self.slots[slot].conn.as_mut() else { return };
            while let Some(event) = conn.quic.poll_endpoint_events() {
                if event.is_drained() {
                    drained = true;
                } else if let Some(event) = self.endpoint.handle_event(handle, event) {
                    conn.quic.handle_event(event);
                }
            }
            let Some(event) = conn.quic.poll() else { break };
            if !conn.gone {
                self.handle_quic_event(id, event, driver);
            }
        }
        if drained {
            return self.remove(slot);
        }
        let half = self.config.limits.outbox_bytes / 2;
        if self.alive(id).is_some_and(|conn| conn.flush) {
            self.change_outbox(id, Conn::flush_outbox);
        }
        if let Some(conn) = self.alive(id)
            && conn.want_writable
            && conn.outbox_cost() < half
        {
            conn.want_writable = false;
            driver.on_writable(&mut Io::new(self), id);
        }
    }

    fn handle_quic_event<D: Driver>(&mut self, id: ConnId, event: Event, driver: &mut D) {
        match event {
            Event::Connected => {
                let Some(conn) = self.alive(id) else { return };
                conn.established = true;
                conn.announced = true;
                conn.timer = None;
                let incoming = conn.quic.side().is_server();
                self.handshake_over(incoming);
                self.config.counters.connected.add(1);
                driver.on_connected(&mut Io::new(self), id);
            }
            Event::ConnectionLost { reason } => self.end(id, reason.into()),
            Event::Stream(StreamEvent::Opened { dir }) => self.handle_opened(id, dir, driver),
            Event::Stream(StreamEvent::Readable { id: stream }) => {
                driver.on_readable(&mut Io::new(self), id, stream);
            }
            Event::Stream(StreamEvent::Writable { .. }) => {
                if let Some(conn) = self.alive(id) {
                    conn.flush = true;
                }
            }
            Event::Stream(StreamEvent::Stopped { id: stream, error_code }) => {
                if self.change_outbox(id, |conn| conn.reset(stream, error_code)).is_some() {
                    driver.on_stopped(&mut Io::new(self), id, stream, error_code);
                }
            }
            Event::Stream(StreamEvent::Available { .. }) => {
                driver.on_streams_available(&mut Io::new(self), id);
            }
            Event::Stream(StreamEvent::Finished { .. })
            | Event::HandshakeDataReady
            | Event::DatagramReceived
            | Event::DatagramsUnblocked => {}
        }
    }

    fn handle_opened<D: Driver>(&mut self, id: ConnId, dir: Dir, driver: &mut D) {
        // Bounded by the stream limit.
        while let Some(stream) = self.alive(id).and_then(|conn| conn.quic.streams().accept(dir)) {
            driver.on_stream_opened(&mut Io::new(self), id, stream);
            if self.alive(id).is_some() {
                driver.on_readable(&mut Io::new(self), id, stream);
            }
        }
    }

    fn handshake_over(&mut self, incoming: bool) {
        let count = if incoming { &mut self.incoming } else { &mut self.outgoing };
        *count -= 1;
        self.count();
    }

    /// Nothing works on the connection any more; the driver will hear of it if it knows it.
    pub(crate) fn end(&mut self, id: ConnId, reason: CloseReason) {
        self.change_outbox(id, Conn::drop_outbox);
        let Some(conn) = self.alive(id) else { return };
        conn.gone = true;
        conn.timer = None;
        let (announced, established) = (conn.announced, conn.established);
        let incoming = conn.quic.side().is_server();
        self.touch(id);
        if established {
            self.config.counters.closed.add(1);
        } else {
            count_failure(&self.config.counters, &reason);
            self.handshake_over(incoming);
        }
        if announced {
            self.ended.push_back((id, reason));
        }
    }

    fn remove(&mut self, slot: usize) {
        let generation = self.slots[slot].generation;
        // A connection that vanished without a word, if there is such a thing.
        self.end(ConnId::new(self.config.shard, slot, generation), CloseReason::TimedOut);
        self.endpoint.handle_event(ConnectionHandle(slot), EndpointEvent::drained());
        self.timers.remove(slot as u32);
        let place = &mut self.slots[slot];
        place.conn = None;
        place.generation = place.generation.wrapping_add(1);
        self.connections -= 1;
        self.count();
    }

    /// Turns what the dirty connections have to say into datagrams. `send` is called with the
    /// queue from time to time and at the end; what it leaves there is a full socket, and then the
    /// rest of the connections waits for the next turn.
    pub(crate) fn transmit(&mut self, mut send: impl FnMut(&mut SendQueue)) {
        let mut dirty = std::mem::take(&mut self.dirty);
        self.dispatched = 0;
        let mut again = 0;
        for at in 0..dirty.len() {
            let slot = dirty[at] as usize;
            let blocked = self.queue.len() >= SEND_AT && {
                send(&mut self.queue);
                !self.queue.is_empty()
            };
            let more = blocked || self.transmit_one(slot);
            if more {
                dirty[again] = slot as u32;
                again += 1;
            }
        }
        dirty.truncate(again);
        // What was added meanwhile (nothing is, at present) stays behind the rest.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        if self.dirty.capacity() > 4096 && self.dirty.len() < 1024 {
            self.dirty.shrink_to(1024);
        }
        if !self.queue.is_empty() {
            send(&mut self.queue);
        }
    }

    /// `true`: there is more to send than a turn allows.
    fn transmit_one(&mut self, slot: usize) -> bool {
        let segments = self.queue.max_segments.clamp(1, DATAGRAMS_A_BURST);
        let Some(conn) = self.slots[slot].conn.as_mut() else { return false };
        let client = conn.quic.side().is_client();
        for burst in 0..=BURSTS_A_TURN {
            if burst == BURSTS_A_TURN {
                return true;
            }
            self.scratch.clear();
            let Some(transmit) = conn.quic.poll_transmit(self.now, segments, &mut self.scratch)
            else {
                break;
            };
            let data = &self.scratch[..transmit.size];
            // A joined run goes to one shard of a server.
            let apart = if client { steer::steering_byte(data) } else { None };
            self.queue.push(&transmit, data, apart);
        }
        conn.dirty = false;
        self.arm(slot);
        false
    }

    /// Closes everything. The driver hears of each in the next [`dispatch`](Self::dispatch).
    pub(crate) fn begin_stop(&mut self, code: VarInt, reason: &[u8]) {
        self.stopping = true;
        let reason = Bytes::copy_from_slice(reason);
        for slot in 0..self.slots.len() {
            let id = ConnId::new(self.config.shard, slot, self.slots[slot].generation);
            let now = self.now;
            if let Some(conn) = self.alive(id) {
                conn.quic.close(now, code, reason.clone());
                self.end(id, CloseReason::Stopped);
            }
        }
    }

    // ---- for `Io`

    /// The connection, unless it is gone.
    pub(crate) fn alive(&mut self, id: ConnId) -> Option<&mut Conn> {
        if id.shard() != self.config.shard {
            return None;
        }
        let slot = self.slots.get_mut(id.slot())?;
        if slot.generation != id.generation() {
            return None;
        }
        slot.conn.as_deref_mut().filter(|conn| !conn.gone)
    }

    pub(crate) fn alive_ref(&self, id: ConnId) -> Option<&Conn> {
        let slot = self.slots.get(id.slot()).filter(|_| id.shard() == self.config.shard)?;
        let conn = slot.conn.as_deref().filter(|_| slot.generation == id.generation())?;
        (!conn.gone).then_some(conn)
    }

    /// The one way to whatever may change what an outbox holds: it keeps the total.
    pub(crate) fn change_outbox<T>(
        &mut self,
        id: ConnId,
        change: impl FnOnce(&mut Conn) -> T,
    ) -> Option<T> {
        let conn = self.alive(id)?;
        let before = conn.outbox_cost();
        let changed = change(conn);
        let after = conn.outbox_cost();
        if before != after {
            let total = self.outbox_total() + after - before;
            self.config.counters.outbox_total.set(total as u64);
        }
        Some(changed)
    }

    /// What all outboxes hold.
    pub(crate) fn outbox_total(&self) -> usize {
        self.config.counters.outbox_total.get() as usize
    }

    /// The same, counted anew.
    #[cfg(test)]
    pub(crate) fn count_outboxes(&self) -> usize {
        self.slots.iter().filter_map(|slot| slot.conn.as_ref()).map(|c| c.outbox_cost()).sum()
    }

    /// Has the connection looked at in this turn.
    pub(crate) fn touch(&mut self, id: ConnId) {
        if let Some(Slot { conn: Some(conn), .. }) = self.slots.get_mut(id.slot()) {
            mark_dirty(&mut self.dirty, conn, id.slot());
        }
    }

    pub(crate) fn set_timer(&mut self, id: ConnId, at: Option<Instant>) {
        let soonest = self.now + Duration::from_micros(1);
        let Some(conn) = self.alive(id).filter(|conn| conn.established) else { return };
        // Never in this turn again, or a driver that sets a past time would keep the turn for ever.
        let at = at.map(|at| at.max(soonest));
        conn.timer = at;
        if let Some(at) = at {
            self.timers.set(id.slot() as u32, at);
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping || self.stop_asked
    }
}

fn count_failure(counters: &Counters, reason: &CloseReason) {
    /// RFC 9001 section 4.8: alerts of TLS.
    const TLS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;
    counters.handshakes_failed.add(1);
    match reason {
        CloseReason::TimedOut => counters.handshakes_timed_out.add(1),
        CloseReason::Transport { code, .. } if TLS.contains(code) => {
            counters.handshakes_failed_in_tls.add(1);
        }
        CloseReason::Peer { .. } => counters.handshakes_closed_by_peer.add(1),
        _ => {}
    }
}

fn mark_dirty(dirty: &mut Vec<u32>, conn: &mut Conn, slot: usize) {
    if !conn.dirty {
        conn.dirty = true;
        dirty.push(slot as u32);
    }
}
