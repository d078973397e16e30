//! The fake target: one shard of `skein-transport` that keeps everything in memory, and is slow,
//! forgetful or a liar exactly as often as it is told.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use skein_loadtest::clock;
use skein_loadtest::plan::{self, Algorithm, Credentials, Secret, Trust};
use skein_loadtest::verify::Stamp;
use skein_protocol::frame::{self, Decoder};
use skein_protocol::wire::{self, client_frame, range, send, server_frame};
use skein_protocol::{ALPN, Code, ConversationId, UserId, VERSION};
use skein_transport::{
    CloseReason, ConnId, Driver, Engine, EngineConfig, Io, Keys, Read, ServerTls, StreamId,
    TlsOptions, VarInt,
};

use crate::truth::{Cut, NEVER, Sent, Truth};

/// Whoever shares it may log in. The target reads no signatures.
pub const SECRET: &str = "what both ends of a test know, 32 bytes and more";

/// Messages of a page of the log.
const A_PAGE: usize = 64;

/// A push that waits for another to come before it goes out after this all the same.
const HELD: Duration = Duration::from_millis(100);

/// What the target does, and to what.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Every answer and every push waits so long.
    pub delay: Duration,
    /// Messages are pushed.
    pub pushes: bool,
    /// So often, and for so long, it stands still. The first time half a period after the first
    /// message.
    pub stall: Option<(Duration, Duration)>,
    /// What it does wrong to every so many messages.
    pub fault: Option<(Fault, u64)>,
    /// What it does to the login with this number, from 1, and to those behind it.
    pub login: Option<(Login, u64)>,
    /// Requests for what is in the log are answered.
    pub reads: bool,
    /// Messages under way that it allows a session.
    pub max_unacked: u32,
    /// What it calls its protocol.
    pub alpn: &'static [u8],
    /// How often it wants to hear from clients.
    pub heartbeat: Duration,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            pushes: true,
            stall: None,
            fault: None,
            login: None,
            reads: true,
            max_unacked: 64,
            alpn: ALPN,
            heartbeat: Duration::from_secs(25),
        }
    }
}

/// Something wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Acknowledged with a place in the log at which nothing is.
    Lost,
    /// Acknowledged with the place that the next message gets as well; not kept.
    Invented,
    /// Pushed twice.
    Duplicated,
    /// Pushed behind the next message of the conversation.
    Reordered,
    /// Pushed with one bit changed.
    Corrupted,
    /// Pushed to one more user, who is not of the conversation.
    Misdelivered,
    /// Acknowledged with another place than it has.
    Misplaced,
    /// Acknowledged twice.
    AckedTwice,
    /// Kept and pushed, and never acknowledged.
    NotAcked,
    /// Refused for now.
    Refused,
    /// Refused, and yet kept and pushed.
    RefusedAndKept,
    /// The session is closed instead of an answer.
    Disconnected,
    /// The answer is no frame, and what follows it neither.
    Garbled,
}

/// What becomes of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Nothing.
    Ignored,
    /// Bytes that are no frame.
    Garbage,
    /// The promise of a frame of 256 MB.
    Huge,
    /// A frame that does not belong there.
    Strange,
    /// A close with this code.
    Closed(Code),
}

/// A running target; it ends with this value.
pub struct Target {
    engine: Engine<()>,
    address: SocketAddr,
    certificate: String,
    truth: Arc<Mutex<Truth>>,
}

impl Target {
    pub fn start(behaviour: Behaviour) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let chain = vec![certified.cert.der().clone()];
        let key =
            rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let keys = Keys::random();
        let tls =
            ServerTls::new(chain, key.into(), &[behaviour.alpn], &keys, &TlsOptions::default());
        let mut config = EngineConfig::server(([127, 0, 0, 1], 0).into(), tls.unwrap(), keys);
        config.shards = 1;
        let truth = Arc::new(Mutex::new(Truth::default()));
        let told = truth.clone();
        let engine =
            Engine::start(config, move |_| Fake::new(behaviour.clone(), told.clone())).unwrap();
        Self { address: engine.local_addr(), engine, certificate: certified.cert.pem(), truth }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    pub fn reachable_at(&self) -> plan::Target {
        plan::Target {
            addresses: vec![self.address],
            server_name: "localhost".into(),
            trust: Trust::Pem(self.certificate.clone()),
        }
    }

    pub fn credentials(&self) -> Credentials {
        Credentials::Signed {
            key: Secret(SECRET.into()),
            algorithm: Algorithm::Hs256,
            key_id: None,
            audience: "skein".into(),
            issuer: None,
            lifetime: Duration::from_secs(3600),
        }
    }

    /// Ends it. What it did.
    pub fn stop(self) -> Truth {
        self.engine.stop(0, b"", Duration::from_secs(5)).unwrap();
        self.truth.lock().unwrap().clone()
    }
}

/// A client.
struct Peer {
    decoder: Decoder,
    requests: HashMap<StreamId, Decoder>,
    user: Option<UserId>,
    device: String,
}

/// A conversation. What was lost has a number and is not there.
#[derive(Default)]
struct Log {
    head: u64,
    users: Vec<UserId>,
    messages: BTreeMap<u64, wire::Message>,
    /// A push that waits for the next one: its message and the number of its `Sent`.
    held: Option<(wire::Message, usize)>,
}

/// What is done later.
#[derive(Debug)]
enum Later {
    /// Answer to the message with this number.
    Answer(ConnId, usize, Vec<server_frame::Kind>),
    /// A message is not acknowledged.
    Refusal(ConnId, wire::Error),
    /// Pushes of messages to a user's sessions but for one.
    Push(UserId, ConnId, Vec<(wire::Message, usize)>),
    /// Lets a held push go.
    Release(ConversationId, UserId, ConnId),
}

struct Fake {
    behaviour: Behaviour,
    truth: Arc<Mutex<Truth>>,
    peers: HashMap<ConnId, Peer>,
    sessions: HashMap<UserId, Vec<ConnId>>,
    logs: HashMap<ConversationId, Log>,
    later: BinaryHeap<Reverse<(Instant, u64)>>,
    actions: HashMap<u64, Later>,
    actions_made: u64,
    next_stall: Option<Instant>,
    messages: u64,
    logins: u64,
    /// Cut sessions by user and device, with their numbers in the truth.
    away: HashMap<(UserId, String), usize>,
}

impl Fake {
    fn new(behaviour: Behaviour, truth: Arc<Mutex<Truth>>) -> Self {
        Self {
            behaviour,
            truth,
            peers: HashMap::new(),
            sessions: HashMap::new(),
            logs: HashMap::new(),
            later: BinaryHeap::new(),
            actions: HashMap::new(),
            actions_made: 0,
            next_stall: None,
            messages: 0,
            logins: 0,
            away: HashMap::new(),
        }
    }

    fn in_a_while(&mut self, after: Duration, action: Later) {
        self.actions_made += 1;
        self.actions.insert(self.actions_made, action);
        self.later.push(Reverse((Instant::now() + after, self.actions_made)));
    }

    fn say(io: &mut Io<'_>, conn: ConnId, kinds: &[server_frame::Kind]) -> bool {
        let mut bytes = BytesMut::new();
        for kind in kinds {
            frame::encode_into(&wire::ServerFrame { kind: Some(kind.clone()) }, &mut bytes);
        }
        io.write(conn, live(), bytes.freeze()).is_ok()
    }

    // ---- the live stream

    fn handle(&mut self, io: &mut Io<'_>, conn: ConnId, kind: client_frame::Kind) {
        match kind {
            client_frame::Kind::Hello(hello) => self.log_in(io, conn, &hello),
            client_frame::Kind::Ping(ping) => {
                let pong = wire::Pong { nonce: ping.nonce };
                Self::say(io, conn, &[server_frame::Kind::Pong(pong)]);
            }
            client_frame::Kind::Pong(pong) => self.seen(pong.nonce),
            client_frame::Kind::Send(send) => self.take(io, conn, send),
            _ => {}
        }
    }

    fn log_in(&mut self, io: &mut Io<'_>, conn: ConnId, hello: &wire::Hello) {
        self.logins += 1;
        if let Some((fault, from)) = self.behaviour.login
            && self.logins >= from
        {
            let say = |io: &mut Io<'_>, bytes: &'static [u8]| {
                let _ = io.write(conn, live(), Bytes::from_static(bytes));
            };
            match fault {
                Login::Ignored => {}
                Login::Garbage => say(io, &[5, 0xff, 0xff, 0xff, 0xff, 0xff]),
                Login::Huge => say(io, &[0x80, 0x80, 0x80, 0x80, 0x01, 1, 2, 3]),
                Login::Strange => {
                    Self::say(io, conn, &[server_frame::Kind::Push(wire::Push::default())]);
                }
                Login::Closed(code) => {
                    io.close(conn, VarInt::from_u32(code.number()), b"planted");
                }
            }
            return;
        }
        let (user, device) = (subject(&hello.token), hello.device.clone());
        let others = self.sessions.entry(user.clone()).or_default();
        others.push(conn);
        let welcome = wire::Welcome {
            version: VERSION,
            session: self.logins,
            user: user.to_string(),
            device: device.clone(),
            heartbeat_interval_ms: self.behaviour.heartbeat.as_millis() as u32,
            limits: Some(wire::Limits {
                max_frame_bytes: 64 << 10,
                max_payload_bytes: 63 << 10,
                max_unacked_sends: self.behaviour.max_unacked,
                max_bulk_streams: 2,
                max_entries: 256,
            }),
            store_epoch: 1,
            ..Default::default()
        };
        let back = self.away.remove(&(user.clone(), device.clone()));
        let mut said = vec![server_frame::Kind::Welcome(welcome)];
        let mut truth = self.truth.lock().unwrap();
        truth.logins += 1;
        if let Some(number) = back {
            truth.cut[number].back = Some((clock::now(), NEVER));
            said.push(ping(Kind::Welcome, number, 0));
        }
        drop(truth);
        let peer = self.peers.get_mut(&conn).unwrap();
        (peer.user, peer.device) = (Some(user), device);
        Self::say(io, conn, &said);
    }

    /// The answer to a ping: what was written before it has been read and dealt with.
    fn seen(&mut self, nonce: u64) {
        let now = clock::now();
        let mut truth = self.truth.lock().unwrap();
        let (number, push) = ((nonce >> 16) as usize, (nonce >> 2 & 0x3fff) as usize);
        let times = match nonce & 3 {
            0 => truth.sends[number].answer.as_mut(),
            1 => truth.sends[number].pushes.get_mut(push),
            _ => truth.cut[number].back.as_mut(),
        };
        if let Some((_, seen)) = times {
            *seen = now.min(*seen);
        }
    }

    // ---- messages

    fn take(&mut self, io: &mut Io<'_>, conn: ConnId, send: wire::Send) {
        let Some(user) = self.peers.get(&conn).and_then(|peer| peer.user.clone()) else { return };
        let Some(send::Target::ToUser(to)) = &send.target else { panic!("{:?}", send.target) };
        let to = UserId::parse(to).unwrap();
        let stamp = Stamp::read(&send.payload).unwrap();
        let received = clock::now();
        self.messages += 1;
        let number = {
            let mut truth = self.truth.lock().unwrap();
            truth.sends.push(Sent { stamp, received, answer: None, pushes: Vec::new() });
            truth.sends.len() - 1
        };
        if let (None, Some((every, _))) = (self.next_stall, self.behaviour.stall) {
            self.next_stall = Some(Instant::now() + every / 2);
        }
        let fault = self.behaviour.fault.filter(|(_, every)| self.messages.is_multiple_of(*every));
        let fault = fault.map(|(fault, _)| fault);
        if fault.is_some_and(|fault| fault != Fault::Reordered) {
            self.truth.lock().unwrap().faults += 1;
        }
        match fault {
            Some(Fault::Disconnected) => return self.cut(io, conn, &user),
            Some(Fault::Garbled) => {
                let _ = io.write(conn, live(), Bytes::from_static(&[3, 0xff, 0xff, 0xff]));
                return;
            }
            Some(Fault::Refused) => return self.refuse(conn, &send),
            _ => {}
        }
        let conversation = ConversationId::one_to_one(&user, &to);
        let log = self.logs.entry(conversation).or_default();
        let seq = log.head + 1;
        let ack = |seq| {
            server_frame::Kind::SendAck(wire::SendAck {
                client_msg_id: send.client_msg_id.clone(),
                conversation: Bytes::copy_from_slice(conversation.as_bytes()),
                seq,
                time_ms: 1,
                ..Default::default()
            })
        };
        if fault == Some(Fault::Invented) {
            return self
                .in_a_while(self.behaviour.delay, Later::Answer(conn, number, vec![ack(seq)]));
        }
        log.head = seq;
        log.users = vec![user.clone(), to.clone()];
        let message = wire::Message {
            conversation: Bytes::copy_from_slice(conversation.as_bytes()),
            seq,
            sender: user.to_string(),
            sender_device: self.peers[&conn].device.clone(),
            client_msg_id: send.client_msg_id.clone(),
            time_ms: 1,
            content_type: String::new(),
            payload: send.payload.clone(),
        };
        if fault != Some(Fault::Lost) {
            log.messages.insert(seq, message.clone());
        }
        match fault {
            Some(Fault::NotAcked) => {}
            Some(Fault::RefusedAndKept) => self.refuse(conn, &send),
            _ => {
                let answers = match fault {
                    Some(Fault::Misplaced) => vec![ack(seq + 1000)],
                    Some(Fault::AckedTwice) => vec![ack(seq), ack(seq)],
                    _ => vec![ack(seq)],
                };
                self.in_a_while(self.behaviour.delay, Later::Answer(conn, number, answers));
            }
        }
        self.push(conversation, to, conn, message, number, fault);
    }

    fn refuse(&mut self, conn: ConnId, send: &wire::Send) {
        let error = wire::Error {
            code: Code::Overloaded.number(),
            message: "planted".into(),
            retry_after_ms: 100,
            client_msg_id: send.client_msg_id.clone(),
            retry: true,
        };
        self.in_a_while(self.behaviour.delay, Later::Refusal(conn, error));
    }

    fn push(
        &mut self,
        conversation: ConversationId,
        to: UserId,
        from: ConnId,
        mut message: wire::Message,
        number: usize,
        fault: Option<Fault>,
    ) {
        if !self.behaviour.pushes {
            return;
        }
        let delay = self.behaviour.delay;
        let sender = self.peers[&from].user.clone().unwrap();
        let log = self.logs.get_mut(&conversation).unwrap();
        if let Some(held) = log.held.take() {
            self.truth.lock().unwrap().faults += 1;
            let both = vec![(message, number), held];
            return self.in_a_while(delay, Later::Push(to, from, both));
        }
        match fault {
            Some(Fault::Lost) => {}
            Some(Fault::Reordered) => {
                log.held = Some((message, number));
                self.in_a_while(HELD, Later::Release(conversation, to, from));
            }
            Some(Fault::Corrupted) => {
                let mut payload = message.payload.to_vec();
                let at = payload.len() / 2;
                payload[at] ^= 4;
                message.payload = payload.into();
                self.in_a_while(delay, Later::Push(to, from, vec![(message, number)]));
            }
            Some(Fault::Duplicated) => {
                let twice = vec![(message.clone(), number), (message, number)];
                self.in_a_while(delay, Later::Push(to, from, twice));
            }
            Some(Fault::Misdelivered) => {
                let pushed = vec![(message, number)];
                let there = self.sessions.iter().filter(|one| !one.1.is_empty());
                let others = there.map(|one| one.0).filter(|user| ![&to, &sender].contains(user));
                let stranger = others.min().unwrap().clone();
                self.in_a_while(delay, Later::Push(stranger, from, pushed.clone()));
                self.in_a_while(delay, Later::Push(to, from, pushed));
            }
            _ => self.in_a_while(delay, Later::Push(to, from, vec![(message, number)])),
        }
    }

    fn do_later(&mut self, io: &mut Io<'_>, action: Later) {
        match action {
            Later::Refusal(conn, error) => {
                Self::say(io, conn, &[server_frame::Kind::Error(error)]);
            }
            Later::Answer(conn, number, mut answers) => {
                answers.push(ping(Kind::Answer, number, 0));
                // Before it is written: what is seen cannot be earlier.
                let now = clock::now();
                if Self::say(io, conn, &answers) {
                    self.truth.lock().unwrap().sends[number].answer = Some((now, NEVER));
                }
            }
            Later::Push(to, from, messages) => {
                for conn in self.sessions.get(&to).cloned().unwrap_or_default() {
                    if conn != from {
                        self.push_to(io, conn, &messages);
                    }
                }
            }
            Later::Release(conversation, to, from) => {
                let log = self.logs.get_mut(&conversation).unwrap();
                if let Some(held) = log.held.take() {
                    self.do_later(io, Later::Push(to, from, vec![held]));
                }
            }
        }
    }

    fn push_to(&mut self, io: &mut Io<'_>, conn: ConnId, messages: &[(wire::Message, usize)]) {
        let mut truth = self.truth.lock().unwrap();
        let push = wire::Push { messages: messages.iter().map(|one| one.0.clone()).collect() };
        let mut said = vec![server_frame::Kind::Push(push)];
        let now = clock::now();
        let mut last = None;
        for &(_, number) in messages {
            // Twice the same message is one delivery.
            if last != Some(number) {
                let pushes = &mut truth.sends[number].pushes;
                pushes.push((now, NEVER));
                said.push(ping(Kind::Push, number, pushes.len() - 1));
            }
            last = Some(number);
        }
        drop(truth);
        Self::say(io, conn, &said);
    }

    // ---- requests

    fn answer_request(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let Some(mut decoder) = peer.requests.remove(&stream) else { return };
        let user = peer.user.clone();
        let asked = decoder.poll::<wire::ClientFrame>(64 << 10);
        let (Ok(Some(asked)), Some(user), true) = (asked, user, self.behaviour.reads) else {
            return;
        };
        let mut pages = Vec::new();
        match asked.kind {
            Some(client_frame::Kind::PullRequest(request)) => {
                for (at, range) in request.ranges.iter().enumerate() {
                    self.read_range(&user, at as u32, range, &mut pages);
                }
            }
            Some(client_frame::Kind::HeadsRequest(_)) => {
                let own = self.logs.iter().filter(|(_, log)| log.users.contains(&user));
                let heads = own.map(|(id, log)| wire::Head {
                    conversation: Bytes::copy_from_slice(id.as_bytes()),
                    seq: log.head,
                    first_seq: 1,
                    ..Default::default()
                });
                let page = wire::HeadsPage { heads: heads.collect(), is_end: true };
                pages.push(server_frame::Kind::HeadsPage(page));
            }
            other => panic!("{other:?}"),
        }
        for page in pages {
            let bytes = frame::encode(&wire::ServerFrame { kind: Some(page) });
            let _ = io.write(conn, stream, bytes);
        }
        let _ = io.finish(conn, stream);
    }

    fn read_range(
        &self,
        user: &UserId,
        at: u32,
        range: &wire::Range,
        pages: &mut Vec<server_frame::Kind>,
    ) {
        let conversation = match range.target.as_ref().unwrap() {
            range::Target::Conversation(id) => ConversationId::parse(id).unwrap(),
            range::Target::WithUser(other) => {
                ConversationId::one_to_one(user, &UserId::parse(other).unwrap())
            }
        };
        let none = Log::default();
        let log = self.logs.get(&conversation).unwrap_or(&none);
        let to = if range.to == 0 { log.head } else { range.to };
        let found: Vec<_> = log.messages.range(range.from..=to.max(range.from)).collect();
        let mut parts: Vec<&[(&u64, &wire::Message)]> = found.chunks(A_PAGE).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let last = parts.len() - 1;
        for (part, messages) in parts.into_iter().enumerate() {
            pages.push(server_frame::Kind::PullPage(wire::PullPage {
                range: at,
                conversation: Bytes::copy_from_slice(conversation.as_bytes()),
                messages: messages.iter().map(|one| one.1.clone()).collect(),
                is_end: part == last,
                head: log.head,
                first_seq: 1,
                error_code: 0,
            }));
        }
    }

    // ---- ends

    fn cut(&mut self, io: &mut Io<'_>, conn: ConnId, user: &UserId) {
        let device = self.peers[&conn].device.clone();
        let mut truth = self.truth.lock().unwrap();
        truth.cut.push(Cut { at: clock::now(), back: None });
        self.away.insert((user.clone(), device), truth.cut.len() - 1);
        drop(truth);
        io.close(conn, VarInt::from_u32(Code::HeartbeatTimeout.number()), b"planted");
    }

    fn stand_still(&mut self) {
        let (Some(at), Some((every, lasts))) = (self.next_stall, self.behaviour.stall) else {
            return;
        };
        if at > Instant::now() {
            return;
        }
        let from = clock::now();
        // The whole shard: nothing is read, nothing is sent.
        std::thread::sleep(lasts);
        self.truth.lock().unwrap().stalls.push((from, clock::now()));
        self.next_stall = Some((at + every).max(Instant::now()));
    }
}

impl Driver for Fake {
    type Mail = ();

    fn on_connected(&mut self, _io: &mut Io<'_>, conn: ConnId) {
        let peer = Peer {
            decoder: Decoder::new(),
            requests: HashMap::new(),
            user: None,
            device: String::new(),
        };
        self.peers.insert(conn, peer);
    }

    fn on_stream_opened(&mut self, _io: &mut Io<'_>, _conn: ConnId, _stream: StreamId) {}

    fn on_readable(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        loop {
            match io.read(conn, stream) {
                Read::Chunk(bytes) => {
                    let Some(peer) = self.peers.get_mut(&conn) else { return };
                    if stream != live() {
                        peer.requests.entry(stream).or_default().push(bytes);
                        continue;
                    }
                    peer.decoder.push(bytes);
                    while let Some(peer) = self.peers.get_mut(&conn)
                        && let Some(asked) =
                            peer.decoder.poll::<wire::ClientFrame>(64 << 10).unwrap()
                    {
                        if let Some(kind) = asked.kind {
                            self.handle(io, conn, kind);
                        }
                    }
                }
                Read::Fin if stream != live() => self.answer_request(io, conn, stream),
                Read::Fin | Read::Reset(_) => {}
                Read::Blocked => return,
            }
        }
    }

    fn on_writable(&mut self, _io: &mut Io<'_>, _conn: ConnId) {}

    fn on_timer(&mut self, _io: &mut Io<'_>, _conn: ConnId) {}

    fn on_closed(&mut self, _io: &mut Io<'_>, conn: ConnId, _reason: CloseReason) {
        let peer = self.peers.remove(&conn);
        if let Some(user) = peer.and_then(|peer| peer.user) {
            self.sessions.entry(user).or_default().retain(|other| *other != conn);
        }
    }

    fn on_mail(&mut self, _io: &mut Io<'_>, (): ()) {}

    fn next_tick(&self) -> Option<Instant> {
        let later = self.later.peek().map(|next| next.0.0);
        later.into_iter().chain(self.next_stall).min()
    }

    fn on_tick(&mut self, io: &mut Io<'_>) {
        self.stand_still();
        while let Some(&Reverse((at, number))) = self.later.peek()
            && at <= Instant::now()
        {
            self.later.pop();
            if let Some(action) = self.actions.remove(&number) {
                self.do_later(io, action);
            }
        }
    }
}

/// What a ping stands behind.
#[derive(Clone, Copy)]
enum Kind {
    Answer = 0,
    Push = 1,
    Welcome = 2,
}

fn ping(kind: Kind, number: usize, push: usize) -> server_frame::Kind {
    let nonce = (number as u64) << 16 | (push as u64) << 2 | kind as u64;
    server_frame::Kind::Ping(wire::Ping { nonce })
}

fn live() -> StreamId {
    StreamId::new(skein_transport::Side::Client, skein_transport::Dir::Bi, 0)
}

fn subject(token: &str) -> UserId {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    UserId::parse(claims["sub"].as_str().unwrap()).unwrap()
}
