//! Tests of whole shards: a client's and a server's [`Core`] under a virtual clock, with a network
//! between them that loses, delays, reorders and repeats datagrams.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{StreamId, VarInt};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use crate::{
    AddressValidation, ClientTls, CloseReason, ConnId, Driver, EngineConfig, Io, Keys, Read,
    ServerTls, TlsOptions, WriteError,
    core::{Core, CoreConfig, Datagram},
    engine::{client_config, endpoint_config, server_config},
};

const ALPN: &[u8] = b"test/1";

/// Everything that a driver heard, in order.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Connected,
    Opened(StreamId),
    Writable,
    Timer,
    Closed(CloseReason),
}

/// Collects what arrives; echoes it if told to.
#[derive(Default)]
struct Probe {
    echo: bool,
    /// Leaves bytes unread.
    lazy: bool,
    heard: Vec<(ConnId, Heard)>,
    received: BTreeMap<(ConnId, StreamId), Vec<u8>>,
    finished: Vec<(ConnId, StreamId)>,
}

impl Probe {
    fn count(&self, of: ConnId, what: impl Fn(&Heard) -> bool) -> usize {
        self.heard.iter().filter(|(conn, heard)| *conn == of && what(heard)).count()
    }

    fn connected(&self) -> Vec<ConnId> {
        self.heard.iter().filter(|(_, h)| *h == Heard::Connected).map(|(conn, _)| *conn).collect()
    }

    fn closed(&self, of: ConnId) -> Option<&CloseReason> {
        self.heard.iter().find_map(|(conn, heard)| match heard {
            Heard::Closed(reason) if *conn == of => Some(reason),
            _ => None,
        })
    }
}

impl Driver for Probe {
    type Mail = ();

    fn on_connected(&mut self, _: &mut Io<'_>, conn: ConnId) {
        self.heard.push((conn, Heard::Connected));
    }
    fn on_stream_opened(&mut self, _: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        self.heard.push((conn, Heard::Opened(stream)));
    }
    fn on_readable(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        while !self.lazy {
            match io.read(conn, stream) {
                Read::Chunk(bytes) => {
                    self.received.entry((conn, stream)).or_default().extend_from_slice(&bytes);
                    if self.echo {
                        io.write(conn, stream, bytes).unwrap();
                    }
                }
                Read::Fin => {
                    self.finished.push((conn, stream));
                    if self.echo {
                        io.finish(conn, stream).unwrap();
                    }
                }
                Read::Reset(_) => {}
                Read::Blocked => return,
            }
        }
    }
    fn on_writable(&mut self, _: &mut Io<'_>, conn: ConnId) {
        self.heard.push((conn, Heard::Writable));
    }
    fn on_timer(&mut self, _: &mut Io<'_>, conn: ConnId) {
        self.heard.push((conn, Heard::Timer));
    }
    fn on_closed(&mut self, io: &mut Io<'_>, conn: ConnId, reason: CloseReason) {
        assert!(!io.is_alive(conn));
        assert_eq!(io.write(conn, stream0(), Bytes::new()), Err(WriteError::Closed));
        self.heard.push((conn, Heard::Closed(reason)));
    }
    fn on_mail(&mut self, _: &mut Io<'_>, (): ()) {}
}

fn stream0() -> StreamId {
    StreamId::new(quinn_proto::Side::Client, quinn_proto::Dir::Bi, 0)
}

struct Side {
    core: Core,
    probe: Probe,
    address: SocketAddr,
}

impl Side {
    fn new(config: EngineConfig, now: Instant) -> Self {
        let transport = config.quic.transport_config();
        let core = CoreConfig {
            shard: 0,
            endpoint: endpoint_config(&config, 0),
            server: server_config(&config, &transport).unwrap(),
            client: client_config(&config, &transport),
            limits: config.limits.clone(),
            validation: config.validation,
            allow_mtud: true,
            map_v4: false,
            counters: Arc::default(),
            seed: None,
        };
        Self { core: Core::new(core, now), probe: Probe::default(), address: config.listen }
    }

    /// Something the driver does of its own accord.
    fn act<T>(&mut self, action: impl FnOnce(&mut Io<'_>) -> T) -> T {
        action(&mut Io::new(&mut self.core))
    }
}

/// What the network does to datagrams; probabilities in percent.
#[derive(Clone, Copy, Default)]
struct Weather {
    loss: u32,
    duplication: u32,
    /// Up to so much is added to the delay of each datagram, which also reorders them.
    jitter: Duration,
}

struct Pair {
    now: Instant,
    client: Side,
    server: Side,
    weather: Weather,
    rng: StdRng,
    /// In flight, by arrival; the number keeps equal times in order.
    wire: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    /// The client's address as the server sees it.
    client_seen_as: SocketAddr,
}

const DELAY: Duration = Duration::from_millis(20);

impl Pair {
    fn new(weather: Weather, seed: u64, adapt: impl Fn(&mut EngineConfig)) -> Self {
        let now = Instant::now();
        let keys = Keys::random();
        let (server_tls, client_tls) = tls(&keys);
        let mut server = EngineConfig::server(([10, 0, 0, 1], 443).into(), server_tls, keys);
        let mut client = EngineConfig::client(([10, 0, 0, 2], 5000).into(), client_tls);
        adapt(&mut server);
        client.quic = server.quic.clone();
        client.limits = server.limits.clone();
        Self {
            now,
            client_seen_as: client.listen,
            client: Side::new(client, now),
            server: Side::new(server, now),
            weather,
            rng: StdRng::seed_from_u64(seed),
            wire: BTreeMap::new(),
            sent: 0,
        }
    }

    fn connect(&mut self) -> ConnId {
        let to = self.server.address;
        self.client.act(|io| io.connect(to, "localhost")).unwrap()
    }

    /// Runs until nothing is due before `for_`.
    fn run(&mut self, for_: Duration) {
        let end = self.now + for_;
        loop {
            self.turn();
            let wire = self.wire.keys().next().map(|(at, _)| *at);
            let next = [wire, self.client.core.next_deadline(), self.server.core.next_deadline()];
            match next.into_iter().flatten().min() {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => {
                    self.now = end;
                    return self.turn();
                }
            }
        }
    }

    fn turn(&mut self) {
        self.client.core.begin_turn(self.now);
        self.server.core.begin_turn(self.now);
        while let Some(entry) = self.wire.first_entry().filter(|e| e.key().0 <= self.now) {
            let (from, to, data) = entry.remove();
            let datagram = |remote| Datagram {
                remote,
                local_ip: None,
                ecn: None,
                data: BytesMut::from(&data[..]),
            };
            if to == self.server.address {
                self.server.core.handle_datagram(datagram(from));
            } else if to == self.client_seen_as {
                self.client.core.handle_datagram(datagram(self.server.address));
            }
        }
        for server in [false, true] {
            let side = if server { &mut self.server } else { &mut self.client };
            side.core.fire_timers(&mut side.probe);
            side.core.dispatch(&mut side.probe);
            let mut out = Vec::new();
            side.core.transmit(|queue| out.extend(queue.take()));
            let from = if server { side.address } else { self.client_seen_as };
            for (to, data) in out {
                self.send(from, to, data);
            }
        }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, data: Vec<u8>) {
        if self.rng.random_range(0..100) < self.weather.loss {
            return;
        }
        let copies = 1 + u32::from(self.rng.random_range(0..100) < self.weather.duplication);
        for _ in 0..copies {
            let jitter = self.rng.random_range(0..=self.weather.jitter.as_micros() as u64);
            let at = self.now + DELAY + Duration::from_micros(jitter);
            self.sent += 1;
            self.wire.insert((at, self.sent), (from, to, data.clone()));
        }
    }
}

pub(crate) fn tls(keys: &Keys) -> (ServerTls, ClientTls) {
    // Names enough to make the certificate longer than a datagram, as real chains are.
    let names = (0..100).map(|i| format!("a-name-of-some-length-{i}.example"));
    let names: Vec<String> = names.chain(["localhost".into()]).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let options = TlsOptions::default();
    let chain = vec![made.cert.der().clone()];
    let server = ServerTls::new(chain, key.into(), &[ALPN], keys, &options).unwrap();
    (server, ClientTls::with_roots(roots, &[ALPN], &options).unwrap())
}

fn bytes(rng: &mut StdRng, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    rng.fill_bytes(&mut bytes);
    bytes.into()
}

/// Sends on several streams in pieces, and wants all of it back, in order, once.
fn echo_under(weather: Weather, seed: u64) {
    let mut pair = Pair::new(weather, seed, |_| {});
    pair.server.probe.echo = true;
    let conn = pair.connect();
    pair.run(Duration::from_secs(8));
    assert_eq!(pair.client.probe.connected(), [conn], "seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut want = BTreeMap::new();
    let streams: Vec<StreamId> =
        (0..3).map(|_| pair.client.act(|io| io.open_bi(conn)).unwrap()).collect();
    for round in 0..20 {
        for stream in &streams {
            let piece = match round % 4 {
                0 => rng.random_range(5000..9000),
                _ => rng.random_range(1..300),
            };
            let piece = bytes(&mut rng, piece);
            want.entry((conn, *stream)).or_insert_with(Vec::new).extend_from_slice(&piece);
            pair.client.act(|io| io.write(conn, *stream, piece)).unwrap();
        }
        pair.run(Duration::from_millis(rng.random_range(0..50)));
    }
    for stream in &streams {
        pair.client.act(|io| io.finish(conn, *stream)).unwrap();
    }
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.client.probe.received, want, "seed {seed}");
    assert_eq!(pair.client.probe.finished.len(), 3, "seed {seed}");
    let seen = pair.server.probe.connected();
    assert_eq!(seen.len(), 1, "seed {seed}");

    pair.client.act(|io| io.close(conn, VarInt::from_u32(7), b"enough"));
    pair.run(Duration::from_secs(90));
    let closed = |h: &Heard| matches!(h, Heard::Closed(_));
    assert_eq!(pair.client.probe.count(conn, closed), 1, "seed {seed}");
    assert_eq!(pair.server.probe.count(seen[0], closed), 1, "seed {seed}");
    assert_eq!(pair.client.probe.closed(conn), Some(&CloseReason::Local));
    // Nothing is left of it, on either side.
    for side in [&pair.client, &pair.server] {
        let stats = side.core.counters().read();
        assert_eq!((stats.connections, stats.handshaking), (0, 0), "seed {seed}");
        assert_eq!(side.core.next_deadline(), None, "seed {seed}");
    }
}

#[test]
fn fair_weather() {
    echo_under(Weather::default(), 1);
}

#[test]
fn loss() {
    (0..8).for_each(|seed| echo_under(Weather { loss: 10, ..Weather::default() }, seed));
}

#[test]
fn reorder_and_delay() {
    let weather = Weather { jitter: Duration::from_millis(40), ..Weather::default() };
    (0..8).for_each(|seed| echo_under(weather, seed));
}

#[test]
fn duplication() {
    (0..8).for_each(|seed| echo_under(Weather { duplication: 50, ..Weather::default() }, seed));
}

#[test]
fn all_at_once() {
    let weather = Weather { loss: 8, duplication: 8, jitter: Duration::from_millis(30) };
    (100..112).for_each(|seed| echo_under(weather, seed));
}

#[test]
fn close_is_told_to_the_peer_with_code_and_words() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let served = pair.server.probe.connected()[0];
    pair.server.act(|io| io.close(served, VarInt::from_u32(42), b"go away"));
    assert!(!pair.server.act(|io| io.is_alive(served)));
    pair.run(Duration::from_secs(5));
    let reason = CloseReason::Peer { code: 42, reason: Bytes::from_static(b"go away") };
    assert_eq!(pair.client.probe.closed(conn), Some(&reason));
    assert_eq!(pair.server.probe.closed(served), Some(&CloseReason::Local));
}

#[test]
fn an_idle_connection_times_out_on_both_sides() {
    let mut pair = Pair::new(Weather::default(), 1, |config| {
        config.quic.idle_timeout = Some(Duration::from_secs(20));
    });
    let conn = pair.connect();
    pair.run(Duration::from_secs(15));
    assert!(pair.client.act(|io| io.is_alive(conn)));
    pair.run(Duration::from_secs(10));
    let served = pair.server.probe.connected()[0];
    assert_eq!(pair.client.probe.closed(conn), Some(&CloseReason::TimedOut));
    assert_eq!(pair.server.probe.closed(served), Some(&CloseReason::TimedOut));
}

#[test]
fn timers_fire_once_and_can_be_moved_and_cleared() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let timers = |pair: &Pair| pair.client.probe.count(conn, |h| *h == Heard::Timer);
    let in_ms = |pair: &mut Pair, ms| {
        let at = pair.now + Duration::from_millis(ms);
        pair.client.act(|io| io.set_timer(conn, Some(at)));
    };
    in_ms(&mut pair, 500);
    pair.run(Duration::from_millis(499));
    assert_eq!(timers(&pair), 0);
    pair.run(Duration::from_millis(2));
    assert_eq!(timers(&pair), 1);
    in_ms(&mut pair, 100);
    in_ms(&mut pair, 900);
    pair.run(Duration::from_millis(800));
    assert_eq!(timers(&pair), 1, "moved to later");
    in_ms(&mut pair, 10);
    pair.run(Duration::from_millis(20));
    assert_eq!(timers(&pair), 2, "moved to earlier");
    in_ms(&mut pair, 10);
    pair.client.act(|io| io.set_timer(conn, None));
    pair.run(Duration::from_secs(2));
    assert_eq!(timers(&pair), 2, "cleared");
    // A time that has passed already comes up at once, and does not hold the turn.
    in_ms(&mut pair, 0);
    pair.run(Duration::from_millis(1));
    assert_eq!(timers(&pair), 3);
}

#[test]
fn half_a_handshake_is_given_up() {
    let mut pair = Pair::new(Weather::default(), 1, |config| {
        config.quic.idle_timeout = Some(Duration::from_secs(300));
    });
    let conn = pair.connect();
    // The Initial arrives, and then the client is silent.
    pair.turn();
    pair.now += DELAY;
    pair.weather.loss = 100;
    pair.turn();
    assert_eq!(pair.server.core.counters().read().handshaking, 1);
    pair.run(Duration::from_secs(30));
    assert_eq!(pair.server.core.counters().read().handshaking, 0);
    assert_eq!(pair.server.core.counters().read().connections, 0);
    assert_eq!(pair.server.probe.heard, [], "nobody came");
    assert_eq!(pair.client.probe.closed(conn), Some(&CloseReason::TimedOut));
    assert_eq!(pair.client.probe.heard.len(), 1);
}

#[test]
fn a_full_outbox_refuses_whole_writes_and_says_when_there_is_room() {
    const LIMIT: usize = 64 << 10;
    let mut pair = Pair::new(Weather::default(), 1, |config| config.limits.outbox_bytes = LIMIT);
    pair.server.probe.lazy = true;
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let stream = pair.client.act(|io| io.open_bi(conn)).unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    let mut want = Vec::new();
    let full = loop {
        let piece = bytes(&mut rng, 3000);
        match pair.client.act(|io| io.write(conn, stream, piece.clone())) {
            Ok(()) => want.extend_from_slice(&piece),
            Err(error) => break error,
        }
        pair.run(Duration::from_millis(30));
    };
    assert_eq!(full, WriteError::Full);
    assert!(pair.client.act(|io| io.outbox_bytes(conn)) <= LIMIT);
    // More than the window of the peer and both buffers hold did not get in.
    assert!(want.len() < LIMIT + (64 << 10) + (64 << 10) + 3000, "{}", want.len());
    let writable = |pair: &Pair| pair.client.probe.count(conn, |h| *h == Heard::Writable);
    pair.run(Duration::from_secs(5));
    assert_eq!(writable(&pair), 0);
    // Also a huge one never fits, in a fresh outbox or not.
    let huge = Bytes::from(vec![0; LIMIT + 1]);
    assert_eq!(pair.client.act(|io| io.write(conn, stream, huge)), Err(WriteError::Full));

    pair.server.probe.lazy = false;
    let served = pair.server.probe.connected()[0];
    let Side { core, probe, .. } = &mut pair.server;
    probe.on_readable(&mut Io::new(core), served, stream);
    pair.run(Duration::from_secs(5));
    assert_eq!(writable(&pair), 1);
    assert_eq!(pair.server.probe.received[&(served, stream)], want);
}

#[test]
fn a_stopped_stream_takes_no_more_and_others_go_on() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    pair.server.probe.lazy = true;
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let open = |pair: &mut Pair| pair.client.act(|io| io.open_bi(conn)).unwrap();
    let (bulk, live) = (open(&mut pair), open(&mut pair));
    for _ in 0..40 {
        let piece = Bytes::from(vec![1; 4000]);
        pair.client.act(|io| io.write(conn, bulk, piece)).unwrap();
    }
    pair.run(Duration::from_secs(1));
    assert!(pair.client.act(|io| io.outbox_bytes(conn)) > 0, "the window is full");
    // Another stream passes by, although the first is full.
    pair.client.act(|io| io.write(conn, live, Bytes::from_static(b"hello"))).unwrap();
    let served = pair.server.probe.connected()[0];
    pair.server.act(|io| io.stop_sending(served, bulk, VarInt::from_u32(3)));
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.client.act(|io| io.outbox_bytes(conn)), 0);
    let late = Bytes::from_static(b"late");
    assert_eq!(pair.client.act(|io| io.write(conn, bulk, late)), Err(WriteError::Closed));
    let read = pair.server.act(|io| io.read(served, live));
    assert_eq!(read, Read::Chunk(Bytes::from_static(b"hello")));
}

#[test]
fn the_end_of_a_stream_waits_behind_its_bytes() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let stream = pair.client.act(|io| io.open_bi(conn)).unwrap();
    let body = Bytes::from(vec![9; 200_000]);
    pair.client.act(|io| io.write(conn, stream, body.clone())).unwrap();
    pair.client.act(|io| io.finish(conn, stream)).unwrap();
    assert!(pair.client.act(|io| io.finish(conn, stream)).is_err(), "a stream ends once");
    pair.run(Duration::from_secs(10));
    let served = pair.server.probe.connected()[0];
    assert_eq!(pair.server.probe.received[&(served, stream)], body);
    assert_eq!(pair.server.probe.finished, [(served, stream)]);
}

#[test]
fn limits_refuse_and_count() {
    let mut pair = Pair::new(Weather::default(), 1, |config| config.limits.max_connections = 3);
    let conns: Vec<ConnId> = (0..3).map(|_| pair.connect()).collect();
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.client.probe.connected(), conns);
    let to = pair.server.address;
    let too_many = pair.client.act(|io| io.connect(to, "localhost"));
    assert_eq!(too_many, Err(crate::ConnectError::TooMany));
    pair.client.core.limits_mut().max_connections = 100;
    let fourth = pair.connect();
    pair.run(Duration::from_secs(1));
    // RFC 9000 section 20.1: CONNECTION_REFUSED is 2.
    let refused = |reason: Option<&CloseReason>| {
        matches!(reason, Some(CloseReason::Transport { code: 2, from_peer: true, .. }))
    };
    assert!(refused(pair.client.probe.closed(fourth)));
    assert_eq!(pair.server.core.counters().read().refused, 1);
    // One leaves, and there is room.
    pair.client.act(|io| io.close(conns[0], VarInt::from_u32(0), b""));
    pair.run(Duration::from_secs(5));
    let fifth = pair.connect();
    pair.run(Duration::from_secs(1));
    assert!(pair.client.act(|io| io.is_alive(fifth)));
}

#[test]
fn handshakes_at_a_time_are_limited() {
    let mut pair = Pair::new(Weather::default(), 1, |config| config.limits.max_handshakes = 2);
    let conns: Vec<ConnId> = (0..5).map(|_| pair.connect()).collect();
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.client.probe.connected().len(), 2);
    assert_eq!(pair.server.core.counters().read().refused, 3);
    assert_eq!(conns.iter().filter(|c| pair.client.probe.closed(**c).is_some()).count(), 3);
}

#[test]
fn retry_proves_the_address() {
    for validation in [AddressValidation::Always, AddressValidation::UnderPressure(2)] {
        let mut pair = Pair::new(Weather::default(), 1, |config| config.validation = validation);
        let conns: Vec<ConnId> = (0..6).map(|_| pair.connect()).collect();
        pair.run(Duration::from_secs(1));
        let mut connected = pair.client.probe.connected();
        connected.sort();
        assert_eq!(connected, conns);
        let retried = pair.server.core.counters().read().retried;
        let want = if validation == AddressValidation::Always { 6 } else { 3 };
        assert_eq!(retried, want);
    }
}

#[test]
fn a_changed_address_keeps_the_connection() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    pair.server.probe.echo = true;
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let stream = pair.client.act(|io| io.open_bi(conn)).unwrap();
    let served = pair.server.probe.connected()[0];
    for port in 6000..6006 {
        pair.client_seen_as.set_port(port);
        pair.client.act(|io| io.write(conn, stream, Bytes::from_static(b"x"))).unwrap();
        pair.run(Duration::from_secs(3));
        let remote = pair.server.act(|io| io.remote_address(served));
        assert_eq!(remote, Some(pair.client_seen_as));
    }
    assert_eq!(pair.client.probe.received[&(conn, stream)], b"xxxxxx");
}

#[test]
fn keys_change_many_times() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    pair.server.probe.echo = true;
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let stream = pair.client.act(|io| io.open_bi(conn)).unwrap();
    let served = pair.server.probe.connected()[0];
    for round in 0..12 {
        // Each side in turn, and both at once.
        if round % 3 != 0 {
            pair.client.core.alive(conn).unwrap().quic.force_key_update();
        }
        if round % 3 != 1 {
            pair.server.core.alive(served).unwrap().quic.force_key_update();
        }
        pair.client.act(|io| io.write(conn, stream, Bytes::from_static(b"k"))).unwrap();
        pair.run(Duration::from_secs(2));
        assert_eq!(pair.client.probe.received[&(conn, stream)].len(), round + 1);
    }
}

#[test]
fn a_session_is_resumed_with_a_ticket() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    let received = |pair: &mut Pair| {
        let conn = pair.connect();
        pair.run(Duration::from_secs(1));
        pair.client.act(|io| io.stats(conn)).unwrap().bytes_received
    };
    let (first, second) = (received(&mut pair), received(&mut pair));
    // A resumed handshake has no certificate and no signature in it.
    assert!(second + 1000 < first, "{first} bytes, then {second}");
}

#[test]
fn rubbish_makes_no_state() {
    let mut pair = Pair::new(Weather::default(), 3, |_| {});
    let mut rng = StdRng::seed_from_u64(3);
    let from: SocketAddr = ([10, 6, 6, 6], 666).into();
    let to = pair.server.address;
    for round in 0..3000usize {
        let mut data = bytes(&mut rng, round % 1400).to_vec();
        if let Some(first) = data.first_mut() {
            // Every kind of header.
            *first = (*first & 0x3f) | ((round % 4) as u8) << 6;
        }
        if round % 3 == 0 && data.len() > 5 {
            data[1..5].copy_from_slice(&1u32.to_be_bytes());
        }
        pair.send(from, to, data);
    }
    pair.run(Duration::from_secs(60));
    let stats = pair.server.core.counters().read();
    assert_eq!((stats.connections, stats.handshaking), (0, 0));
    assert_eq!(pair.server.core.next_deadline(), None);
    // And it still serves.
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    assert!(pair.client.act(|io| io.is_alive(conn)));
}

/// Real datagrams with flipped bits, cut and repeated, never panic, and never reach the driver.
#[test]
fn mutated_datagrams_are_survived() {
    for seed in 0..6 {
        let mut pair = Pair::new(Weather::default(), seed, |_| {});
        pair.server.probe.echo = true;
        let conn = pair.connect();
        let mut stream = None;
        for round in 0..60 {
            let copies: Vec<_> = pair.wire.values().cloned().collect();
            for (from, to, mut data) in copies {
                if data.is_empty() {
                    continue;
                }
                let at = pair.rng.random_range(0..data.len());
                data[at] ^= 1 << pair.rng.random_range(0..8u32);
                if round % 2 == 0 {
                    data.truncate(pair.rng.random_range(0..data.len()));
                }
                pair.send(from, to, data);
            }
            pair.run(Duration::from_millis(10));
            if pair.client.probe.connected() == [conn] {
                let stream =
                    *stream.get_or_insert_with(|| pair.client.act(|io| io.open_bi(conn)).unwrap());
                let _ = pair.client.act(|io| io.write(conn, stream, Bytes::from_static(b"m")));
            }
        }
        pair.run(Duration::from_secs(30));
        if let Some(stream) = stream
            && pair.client.act(|io| io.is_alive(conn))
        {
            let got = &pair.client.probe.received[&(conn, stream)];
            assert!(got.iter().all(|byte| *byte == b'm'), "seed {seed}");
        }
    }
}

#[test]
fn slots_are_used_again_with_another_generation() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let conn = pair.connect();
        pair.run(Duration::from_secs(1));
        assert!(seen.insert(conn), "{conn} came twice");
        assert!(conn.slot() < 2);
        pair.client.act(|io| io.close(conn, VarInt::from_u32(0), b""));
        pair.run(Duration::from_secs(10));
        for old in &seen {
            assert!(!pair.client.act(|io| io.is_alive(*old)));
        }
    }
    assert_eq!(pair.client.probe.heard.len(), 40);
    assert_eq!(pair.server.probe.heard.len(), 40);
}
