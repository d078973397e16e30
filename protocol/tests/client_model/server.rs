//! A gateway reduced to its promises: numbered logs, exact deduplication, cursors, pushes as mere
//! hints. Its faults are the ones that the protocol allows.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use skein_protocol::frame::{self, Decoder};
use skein_protocol::wire::{self, client_frame, server_frame};
use skein_protocol::{Code, ConversationId, Seq, UserId};

use crate::Random;

pub(crate) type Conn = u64;

/// One message of a log.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) sender: String,
    pub(crate) device: String,
    pub(crate) id: String,
    pub(crate) payload: Bytes,
}

#[derive(Debug)]
struct Session {
    user: String,
    device: String,
    decoder: Decoder,
    welcomed: bool,
    /// Pushes that are held back, to arrive after later ones.
    held: Vec<wire::Message>,
}

/// Chances of each fault, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) refuse: u64,
    pub(crate) ignore: u64,
    pub(crate) forget_ack: u64,
    pub(crate) drop_push: u64,
    pub(crate) repeat_push: u64,
    pub(crate) hold_push: u64,
    pub(crate) refuse_bulk: u64,
    pub(crate) cut_bulk: u64,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) epoch: u64,
    pub(crate) faults: Faults,
    pub(crate) logs: BTreeMap<ConversationId, Vec<Row>>,
    pub(crate) members: HashMap<ConversationId, Vec<String>>,
    pub(crate) delivered: HashMap<(String, ConversationId), Seq>,
    pub(crate) sends: u64,
    sessions: BTreeMap<Conn, Session>,
    names: BTreeMap<Conn, (String, String)>,
}

/// Bytes for the live stream of a connection.
pub(crate) type Out = Vec<(Conn, Bytes)>;

impl Server {
    pub(crate) fn new() -> Self {
        Self {
            epoch: 1,
            faults: Faults::default(),
            logs: BTreeMap::new(),
            members: HashMap::new(),
            delivered: HashMap::new(),
            sends: 0,
            sessions: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    pub(crate) fn connect(&mut self, conn: Conn, user: &str, device: &str) {
        self.names.insert(conn, (user.into(), device.into()));
    }

    pub(crate) fn disconnect(&mut self, conn: Conn) {
        self.sessions.remove(&conn);
        self.names.remove(&conn);
    }

    /// All sessions are gone; the store stays.
    pub(crate) fn restart(&mut self) {
        self.sessions.clear();
        self.names.clear();
    }

    pub(crate) fn live(&mut self, conn: Conn, bytes: Bytes, random: &mut Random) -> Out {
        let mut out = Vec::new();
        if !self.sessions.contains_key(&conn) {
            let Some((user, device)) = self.names.get(&conn).cloned() else { return out };
            let (decoder, welcomed, held) = (Decoder::new(), false, Vec::new());
            self.sessions.insert(conn, Session { user, device, decoder, welcomed, held });
        }
        self.sessions.get_mut(&conn).unwrap().decoder.push(bytes);
        while let Some(session) = self.sessions.get_mut(&conn) {
            let polled = session.decoder.poll::<wire::ClientFrame>(1 << 20);
            let Some(frame) = polled.expect("a client writes whole frames") else { break };
            self.frame(conn, frame.kind.expect("a known kind"), random, &mut out);
        }
        out
    }

    fn frame(&mut self, conn: Conn, kind: client_frame::Kind, random: &mut Random, out: &mut Out) {
        match kind {
            client_frame::Kind::Hello(hello) => self.hello(conn, &hello, out),
            client_frame::Kind::Ping(ping) => {
                reply(out, conn, server_frame::Kind::Pong(wire::Pong { nonce: ping.nonce }));
            }
            client_frame::Kind::Send(send) => self.send(conn, send, random, out),
            client_frame::Kind::Delivered(delivered) => {
                let user = self.sessions[&conn].user.clone();
                for cursor in delivered.cursors {
                    let id = ConversationId::parse(&cursor.conversation).unwrap();
                    let head = self.logs[&id].len() as Seq;
                    assert!(cursor.seq <= head, "a cursor past the head");
                    let stored = self.delivered.entry((user.clone(), id)).or_default();
                    *stored = (*stored).max(cursor.seq);
                }
            }
            _ => {}
        }
    }

    fn hello(&mut self, conn: Conn, hello: &wire::Hello, out: &mut Out) {
        assert_eq!(hello.versions, [1]);
        let session = self.sessions.get_mut(&conn).unwrap();
        session.welcomed = true;
        let welcome = wire::Welcome {
            version: 1,
            session: conn,
            user: session.user.clone(),
            device: session.device.clone(),
            server_time_ms: 1_700_000_000_000,
            heartbeat_interval_ms: 25_000,
            limits: Some(wire::Limits { max_unacked_sends: 4, ..Default::default() }),
            store_epoch: self.epoch,
            token_expires_ms: 0,
        };
        reply(out, conn, server_frame::Kind::Welcome(welcome));
    }

    fn send(&mut self, conn: Conn, send: wire::Send, random: &mut Random, out: &mut Out) {
        self.sends += 1;
        let (user, device) =
            (self.sessions[&conn].user.clone(), self.sessions[&conn].device.clone());
        if random.chance(self.faults.refuse) {
            let error = wire::Error {
                code: Code::Overloaded.number(),
                retry: true,
                retry_after_ms: 200,
                client_msg_id: send.client_msg_id,
                ..Default::default()
            };
            return reply(out, conn, server_frame::Kind::Error(error));
        }
        if random.chance(self.faults.ignore) {
            return;
        }
        let Some(wire::send::Target::ToUser(to)) = send.target else { panic!("to whom?") };
        let id = ConversationId::one_to_one(&user_id(&user), &user_id(&to));
        self.members.entry(id).or_insert_with(|| vec![user.clone(), to]);
        let log = self.logs.entry(id).or_default();
        let found = log.iter().position(|row| {
            row.sender == user && row.device == device && row.id == send.client_msg_id
        });
        // A first attempt is looked for among recent ones only, as short a window as can be:
        // a client that repeats without saying so makes a duplicate.
        let found = match send.retry_after_seq {
            None => None,
            Some(after) => found.filter(|&at| at as Seq + 1 > after),
        };
        let seq = found.map_or(log.len() as Seq, |at| at as Seq) + 1;
        if found.is_none() {
            let id = send.client_msg_id.clone();
            log.push(Row { sender: user, device, id, payload: send.payload });
            let message = self.message(id_of(&self.logs, seq, &send.client_msg_id), seq);
            self.push(conn, message, random, out);
        }
        if !random.chance(self.faults.forget_ack) {
            let ack = wire::SendAck {
                client_msg_id: send.client_msg_id,
                conversation: bytes(id),
                seq,
                time_ms: seq,
                ..Default::default()
            };
            reply(out, conn, server_frame::Kind::SendAck(ack));
        }
    }

    fn message(&self, id: ConversationId, seq: Seq) -> wire::Message {
        let row = &self.logs[&id][seq as usize - 1];
        wire::Message {
            conversation: bytes(id),
            seq,
            sender: row.sender.clone(),
            sender_device: row.device.clone(),
            client_msg_id: row.id.clone(),
            time_ms: seq,
            content_type: String::new(),
            payload: row.payload.clone(),
        }
    }

    fn push(&mut self, from: Conn, message: wire::Message, random: &mut Random, out: &mut Out) {
        let id = ConversationId::parse(&message.conversation).unwrap();
        let members = self.members[&id].clone();
        let faults = self.faults;
        for (&conn, session) in &mut self.sessions {
            if !session.welcomed || conn == from || !members.contains(&session.user) {
                continue;
            }
            if random.chance(faults.drop_push) {
                let head = wire::Cursor { conversation: bytes(id), seq: message.seq };
                let heads = if random.chance(50) { vec![head] } else { vec![] };
                reply(out, conn, server_frame::Kind::Behind(wire::Behind { heads }));
                continue;
            }
            if random.chance(faults.hold_push) {
                session.held.push(message.clone());
                continue;
            }
            let mut messages = vec![message.clone()];
            messages.append(&mut session.held);
            if random.chance(faults.repeat_push) {
                messages.push(message.clone());
            }
            reply(out, conn, server_frame::Kind::Push(wire::Push { messages }));
        }
    }

    /// What was held back goes out, or the hint of it is lost with word of it.
    pub(crate) fn flush(&mut self, random: &mut Random) -> Out {
        let mut out = Vec::new();
        for (&conn, session) in &mut self.sessions {
            if session.held.is_empty() {
                continue;
            }
            let messages = std::mem::take(&mut session.held);
            if random.chance(30) {
                let behind = wire::Behind { heads: vec![] };
                reply(&mut out, conn, server_frame::Kind::Behind(behind));
            } else {
                reply(&mut out, conn, server_frame::Kind::Push(wire::Push { messages }));
            }
        }
        out
    }

    /// The answer to a bulk request: pages, and whether the stream ends well after them.
    pub(crate) fn bulk(&mut self, conn: Conn, request: Bytes, random: &mut Random) -> Vec<Bytes> {
        let Some(session) = self.sessions.get(&conn) else { return vec![] };
        let user = session.user.clone();
        let mut decoder = Decoder::new();
        decoder.push(request);
        let frame: wire::ClientFrame = decoder.poll(1 << 20).unwrap().unwrap();
        assert_eq!(decoder.buffered(), 0, "one request a stream");
        if random.chance(self.faults.refuse_bulk) {
            let error = wire::Error { code: 301, retry: true, ..Default::default() };
            return vec![encode(server_frame::Kind::Error(error))];
        }
        let mut pages = match frame.kind.unwrap() {
            client_frame::Kind::HeadsRequest(_) => self.heads(&user),
            client_frame::Kind::PullRequest(request) => self.pull(&request, random),
            other => panic!("not a bulk request: {other:?}"),
        };
        if random.chance(self.faults.cut_bulk) {
            pages.truncate(random.below(pages.len() as u64 + 1) as usize);
        }
        pages
    }

    fn heads(&self, user: &str) -> Vec<Bytes> {
        let mine: Vec<_> =
            self.logs.iter().filter(|(id, _)| self.members[id].iter().any(|m| m == user)).collect();
        let mut pages: Vec<wire::HeadsPage> = mine
            .iter()
            .map(|(id, log)| {
                let head = wire::Head {
                    conversation: bytes(**id),
                    seq: log.len() as Seq,
                    delivered: self.delivered.get(&(user.into(), **id)).copied().unwrap_or(0),
                    first_seq: 1,
                    ..Default::default()
                };
                wire::HeadsPage { heads: vec![head], is_end: false }
            })
            .collect();
        pages.push(wire::HeadsPage { heads: vec![], is_end: true });
        pages.into_iter().map(|page| encode(server_frame::Kind::HeadsPage(page))).collect()
    }

    fn pull(&self, request: &wire::PullRequest, random: &mut Random) -> Vec<Bytes> {
        let mut pages = Vec::new();
        for (index, range) in request.ranges.iter().enumerate() {
            let Some(wire::range::Target::Conversation(id)) = &range.target else { panic!() };
            let id = ConversationId::parse(id).unwrap();
            let head = self.logs[&id].len() as Seq;
            let page = |messages, is_end| wire::PullPage {
                range: index as u32,
                conversation: bytes(id),
                messages,
                is_end,
                head,
                first_seq: 1,
                error_code: 0,
            };
            let mut seq = range.from;
            while seq <= range.to.min(head) {
                let last = (seq + random.below(3)).min(range.to).min(head);
                pages.push(page((seq..=last).map(|seq| self.message(id, seq)).collect(), false));
                seq = last + 1;
            }
            pages.push(page(vec![], true));
        }
        pages.into_iter().map(|page| encode(server_frame::Kind::PullPage(page))).collect()
    }
}

/// The log whose last row is this message.
fn id_of(
    logs: &BTreeMap<ConversationId, Vec<Row>>,
    seq: Seq,
    client_msg_id: &str,
) -> ConversationId {
    let mut found = logs.iter().filter(|(_, log)| {
        log.len() as Seq == seq && log.last().is_some_and(|row| row.id == client_msg_id)
    });
    *found.next().unwrap().0
}

fn user_id(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn bytes(id: ConversationId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn encode(kind: server_frame::Kind) -> Bytes {
    frame::encode(&wire::ServerFrame { kind: Some(kind) })
}

fn reply(out: &mut Out, conn: Conn, kind: server_frame::Kind) {
    out.push((conn, encode(kind)));
}
