//! Tests of whole shards: a client's and a server's [`Core`] under a virtual clock, with a network
//! between them that loses, delays, reorders and repeats datagrams.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{StreamId, VarInt};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use crate::{
    AddressValidation, Attempt, ClientTls, CloseReason, ConnId, Driver, EngineConfig, Gate, Io,
    Keys, Limits, QuicConfig, Read, ServerTls, TlsOptions, Verdict, WriteError,
    core::{Core, CoreConfig, Datagram},
    engine::{client_config, endpoint_config, server_config},
};

mod attack;
mod delivery;
mod life;

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
    /// Whether each handshake was a resumed one.
    resumed: Vec<bool>,
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

    fn on_connected(&mut self, io: &mut Io<'_>, conn: ConnId) {
        self.resumed.extend(io.is_resumed(conn));
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
            gate: config.gate.clone(),
            send_window: config.quic.send_window,
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
    /// The client's.
    tls: ClientTls,
}

const DELAY: Duration = Duration::from_millis(20);

impl Pair {
    fn new(weather: Weather, seed: u64, adapt: impl Fn(&mut EngineConfig)) -> Self {
        let now = Instant::now();
        let keys = Keys::random();
        let (server_tls, client_tls) = tls(&keys);
        let mut server = EngineConfig::server(([10, 0, 0, 1], 443).into(), server_tls, keys);
        let tls = client_tls.clone();
        let mut client = EngineConfig::client(([10, 0, 0, 2], 5000).into(), client_tls);
        adapt(&mut server);
        client.quic = server.quic.clone();
        client.limits = server.limits.clone();
        Self {
            now,
            tls,
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
            assert_eq!(side.core.outbox_total(), side.core.count_outboxes());
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
