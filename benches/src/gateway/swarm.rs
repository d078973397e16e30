//! The clients: sessions on one shard in client mode.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hdrhistogram::Histogram;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use skein_protocol::frame::{Decoder, encode};
use skein_protocol::wire::{self, client_frame, server_frame};
use skein_protocol::{ALPN, VERSION, limits};
use skein_transport::{
    ClientTls, CloseReason, ConnId, Driver, Engine, EngineConfig, Io, Mailbox, Read, StreamId,
    TlsOptions,
};

use crate::process::Gateway;

/// Handshakes under way at once.
const CONNECTING: usize = 128;

/// How messages are sent.
#[derive(Clone, Copy)]
pub(crate) enum Load {
    /// Each sender has so many under way.
    Outstanding(usize),
    /// One in all, at this distance, whether or not answers have come.
    Paced { every: Duration },
}

/// What was measured since the last reset.
pub(crate) struct Figures {
    pub(crate) acks: Histogram<u64>,
    pub(crate) deliveries: Histogram<u64>,
    pub(crate) refused: u64,
    welcomed: usize,
}

impl Figures {
    fn new(welcomed: usize) -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order");
        Self { acks: histogram(), deliveries: histogram(), refused: 0, welcomed }
    }
}

/// The swarm, seen from outside its shard.
pub(crate) struct Swarm {
    _engine: Engine<Order>,
    mailbox: Mailbox<Order>,
    shared: Arc<Shared>,
}

struct Shared {
    figures: Mutex<Figures>,
    changed: Condvar,
}

pub(crate) enum Order {
    Login(usize),
    Send(usize, Load),
    Quiet,
}

impl Swarm {
    /// A swarm without sessions.
    pub(crate) fn start(gateway: &Gateway) -> Self {
        let ca = CertificateDer::from_pem_file(gateway.data.path().join("dev/ca.pem"));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.expect("the development certificate")).expect("it can be trusted");
        let tls = ClientTls::with_roots(roots, &[ALPN], &TlsOptions::default()).expect("TLS");
        let mut config = EngineConfig::client(([127, 0, 0, 1], 0).into(), tls);
        config.shards = 1;
        config.limits.max_connections = 1_000_000;
        config.quic.idle_timeout = Some(Duration::from_secs(600));
        let shared =
            Arc::new(Shared { figures: Mutex::new(Figures::new(0)), changed: Condvar::new() });
        let key = std::fs::read(gateway.data.path().join("dev/token-key.pem"));
        let key = jsonwebtoken::EncodingKey::from_ed_pem(&key.expect("the token key"));
        let driver = Clients {
            gateway: gateway.address,
            key: key.expect("an Ed25519 key"),
            shared: shared.clone(),
            to_login: 0,
            connecting: 0,
            clients: HashMap::new(),
            order: Vec::new(),
            load: None,
            due: VecDeque::new(),
            next_send: None,
            turn: 0,
            delivered: Vec::new(),
        };
        let mut driver = Some(driver);
        let engine = Engine::start(config, move |_| driver.take().expect("one shard"));
        let engine = engine.expect("the swarm starts");
        let mailbox = engine.mailboxes().remove(0);
        Self { _engine: engine, mailbox, shared }
    }

    /// Logs so many more in, and waits until they are welcomed.
    pub(crate) fn login(&self, count: usize) {
        let mut figures = self.figures_lock();
        let until = figures.welcomed + count;
        let _ = self.mailbox.send(Order::Login(count));
        while figures.welcomed < until {
            figures = self.shared.changed.wait(figures).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The even sessions among the first `2 * pairs` begin to send to their neighbours.
    pub(crate) fn send(&self, pairs: usize, load: Load) {
        let _ = self.mailbox.send(Order::Send(pairs, load));
    }

    /// Sends no more.
    pub(crate) fn quiet(&self) {
        let _ = self.mailbox.send(Order::Quiet);
    }

    /// Begins to count anew.
    pub(crate) fn reset(&self) {
        self.figures();
    }

    /// What was counted; begins to count anew.
    pub(crate) fn figures(&self) -> Figures {
        let mut figures = self.figures_lock();
        let fresh = Figures::new(figures.welcomed);
        std::mem::replace(&mut figures, fresh)
    }

    fn figures_lock(&self) -> std::sync::MutexGuard<'_, Figures> {
        self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Client {
    live: Option<StreamId>,
    decoder: Decoder,
    number: usize,
    sent: u64,
}

/// The driver of the swarm's shard.
struct Clients {
    gateway: SocketAddr,
    key: jsonwebtoken::EncodingKey,
    shared: Arc<Shared>,
    to_login: usize,
    connecting: usize,
    clients: HashMap<ConnId, Client>,
    /// Sessions by number.
    order: Vec<ConnId>,
    load: Option<(usize, Load)>,
    /// Paced senders take turns.
    due: VecDeque<usize>,
    next_send: Option<Instant>,
    turn: usize,
    /// What arrived in this turn, to be acknowledged at its end.
    delivered: Vec<(ConnId, Bytes, u64)>,
}

impl Clients {
    fn connect_more(&mut self, io: &mut Io<'_>) {
        while self.to_login > 0 && self.connecting < CONNECTING {
            let conn = io.connect(self.gateway, "localhost").expect("a connection begins");
            let number = self.order.len();
            self.order.push(conn);
            let client = Client { live: None, decoder: Decoder::new(), number, sent: 0 };
            self.clients.insert(conn, client);
            self.to_login -= 1;
            self.connecting += 1;
        }
    }

    fn token(&self, number: usize) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = serde_json::json!({
            "sub": format!("user{number}"), "aud": "skein", "iat": now, "exp": now + 3600,
        });
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
        jsonwebtoken::encode(&header, &claims, &self.key).expect("a token")
    }

    fn say(&self, io: &mut Io<'_>, conn: ConnId, kind: client_frame::Kind) {
        if let Some(live) = self.clients.get(&conn).and_then(|client| client.live) {
            let _ = io.write(conn, live, encode(&wire::ClientFrame { kind: Some(kind) }));
        }
    }

    /// The payload begins with the intended start, so that both ends can tell the latency.
    fn message(&mut self, io: &mut Io<'_>, sender: usize, intended: Instant) {
        let Some(&conn) = self.order.get(sender) else { return };
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.sent += 1;
        let mut payload = vec![0; 128];
        payload[..8].copy_from_slice(&micros(intended).to_le_bytes());
        let send = wire::Send {
            target: Some(wire::send::Target::ToUser(format!("user{}", sender + 1))),
            client_msg_id: format!("{:x}-{:x}", micros(intended), client.sent),
            payload: payload.into(),
            ..Default::default()
        };
        self.say(io, conn, client_frame::Kind::Send(send));
    }

    fn handle(&mut self, io: &mut Io<'_>, conn: ConnId, kind: server_frame::Kind) {
        match kind {
            server_frame::Kind::Welcome(_) => {
                self.connecting -= 1;
                self.figures(|figures| figures.welcomed += 1);
                self.shared.changed.notify_all();
                self.connect_more(io);
            }
            server_frame::Kind::SendAck(ack) => {
                let start = ack.client_msg_id.split('-').next();
                let start = start.and_then(|us| u64::from_str_radix(us, 16).ok()).unwrap_or(0);
                let took = micros(Instant::now()).saturating_sub(start);
                self.figures(|figures| figures.acks.saturating_record(took));
                let sender = self.clients.get(&conn).map(|client| client.number);
                if let (Some((_, Load::Outstanding(_))), Some(sender)) = (self.load, sender) {
                    self.message(io, sender, Instant::now());
                }
            }
            server_frame::Kind::Push(push) => {
                for message in push.messages {
                    let start = message.payload.get(..8).and_then(|b| b.try_into().ok());
                    let start = start.map_or(0, u64::from_le_bytes);
                    let took = micros(Instant::now()).saturating_sub(start);
                    self.figures(|figures| figures.deliveries.saturating_record(took));
                    self.delivered.push((conn, message.conversation, message.seq));
                }
            }
            server_frame::Kind::Error(error) => {
                self.figures(|figures| figures.refused += 1);
                if error.client_msg_id.is_empty() {
                    panic!("{error:?}");
                }
            }
            _ => {}
        }
    }

    fn figures(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Driver for Clients {
    type Mail = Order;

    fn on_connected(&mut self, io: &mut Io<'_>, conn: ConnId) {
        let live = io.open_bi(conn).expect("the gateway allows the first stream");
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.live = Some(live);
        let number = client.number;
        let hello = wire::Hello {
            versions: vec![VERSION],
            token: self.token(number),
            device: "bench".into(),
            ..Default::default()
        };
        self.say(io, conn, client_frame::Kind::Hello(hello));
    }

    fn on_stream_opened(&mut self, _io: &mut Io<'_>, _conn: ConnId, _stream: StreamId) {}

    fn on_readable(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        while let Read::Chunk(chunk) = io.read(conn, stream) {
            let Some(client) = self.clients.get_mut(&conn) else { return };
            client.decoder.push(chunk);
            loop {
                let Some(client) = self.clients.get_mut(&conn) else { return };
                let frame =
                    client.decoder.poll::<wire::ServerFrame>(limits::DEFAULT_MAX_FRAME_BYTES);
                match frame.expect("the gateway sends frames") {
                    Some(frame) => frame.kind.into_iter().for_each(|k| self.handle(io, conn, k)),
                    None => break,
                }
            }
        }
    }

    fn on_writable(&mut self, _io: &mut Io<'_>, _conn: ConnId) {}

    fn on_timer(&mut self, _io: &mut Io<'_>, _conn: ConnId) {}

    fn on_closed(&mut self, _io: &mut Io<'_>, conn: ConnId, reason: CloseReason) {
        assert_eq!(reason, CloseReason::Stopped, "{conn} was closed");
    }

    fn on_mail(&mut self, io: &mut Io<'_>, mail: Order) {
        match mail {
            Order::Login(count) => {
                self.to_login += count;
                self.connect_more(io);
            }
            Order::Send(pairs, load) => {
                self.load = Some((pairs, load));
                match load {
                    Load::Outstanding(count) => {
                        for sender in (0..2 * pairs).step_by(2) {
                            (0..count).for_each(|_| self.message(io, sender, Instant::now()));
                        }
                    }
                    Load::Paced { .. } => {
                        self.due = (0..2 * pairs).step_by(2).collect();
                        self.next_send = Some(io.now());
                    }
                }
            }
            Order::Quiet => (self.load, self.next_send) = (None, None),
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        self.next_send
    }

    fn on_tick(&mut self, io: &mut Io<'_>) {
        let Some((_, Load::Paced { every })) = self.load else { return };
        while let Some(at) = self.next_send.filter(|at| *at <= io.now()) {
            self.next_send = Some(at + every);
            let sender = self.due[self.turn % self.due.len()];
            self.turn += 1;
            self.message(io, sender, at);
        }
    }

    fn on_turn_end(&mut self, io: &mut Io<'_>) {
        // Cumulative: the last of each connection says it all.
        let mut last: HashMap<ConnId, (Bytes, u64)> = HashMap::new();
        for (conn, conversation, seq) in self.delivered.drain(..) {
            last.insert(conn, (conversation, seq));
        }
        for (conn, (conversation, seq)) in last {
            let cursors = vec![wire::Cursor { conversation, seq }];
            self.say(io, conn, client_frame::Kind::Delivered(wire::Delivered { cursors }));
        }
    }
}

/// Microseconds since the first call.
fn micros(at: Instant) -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let start = *START.get_or_init(|| at);
    at.saturating_duration_since(start).as_micros() as u64
}
