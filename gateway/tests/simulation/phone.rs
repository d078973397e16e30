//! The application's side of a connection: the client's session rules inside a client shard, as
//! the SDK drives them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use skein_protocol::client::{BulkAction, BulkId, Client, Event, Reconnect, StoreOp};
use skein_protocol::{Code, UserId};
use skein_transport::{CloseReason, ConnId, Driver, Io, Read, StreamId, VarInt, WriteError};

use crate::process::{self, Clock};
use crate::random::Random;

/// What came out, in order.
#[derive(Debug)]
pub(crate) enum Heard {
    Event(Event),
    Store(StoreOp),
    /// The rules say not to connect again.
    GaveUp(Option<u64>),
}

pub(crate) struct Phone {
    pub(crate) rules: Client,
    pub(crate) heard: Vec<Heard>,
    /// The application does not take what it is given.
    pub(crate) lazy: bool,
    user: UserId,
    /// How many gateways there are; it connects to any.
    gateways: usize,
    clock: Arc<Clock>,
    random: Random,
    pub(crate) conn: Option<ConnId>,
    live: Option<StreamId>,
    bulk: BTreeMap<StreamId, BulkId>,
    /// Requests that wait for the gateway to allow another stream.
    unopened: VecDeque<(BulkId, Bytes)>,
    unwritten: Option<Bytes>,
    /// Streams that were left unread.
    unread: BTreeSet<StreamId>,
    connect_at: Option<Instant>,
    attempt: u32,
    last_turn: Instant,
}

impl Phone {
    pub(crate) fn new(
        rules: Client,
        user: UserId,
        gateways: usize,
        clock: Arc<Clock>,
        random: Random,
        now: Instant,
    ) -> Self {
        Self {
            rules,
            heard: Vec::new(),
            lazy: false,
            user,
            gateways,
            clock,
            random,
            conn: None,
            live: None,
            bulk: BTreeMap::new(),
            unopened: VecDeque::new(),
            unwritten: None,
            unread: BTreeSet::new(),
            connect_at: Some(now),
            attempt: 0,
            last_turn: now,
        }
    }

    /// The person opens the application again.
    pub(crate) fn reopen(&mut self, now: Instant) {
        if self.conn.is_none() {
            self.attempt = 0;
            self.connect_at = Some(now);
        }
    }

    /// How it stands, for a person.
    pub(crate) fn summary(&self) -> String {
        format!(
            "conn {:?} live {} unacked {} lazy {} unread {:?} unopened {} bulk {:?} unwritten {} \
             connect_at {}",
            self.conn,
            self.rules.is_live(),
            self.rules.unacked(),
            self.lazy,
            self.unread,
            self.unopened.len(),
            self.bulk,
            self.unwritten.is_some(),
            self.connect_at.is_some(),
        )
    }

    /// Short-lived at times, so that sessions outlive it.
    fn token(&mut self) -> String {
        let ttl = Duration::from_secs(if self.random.chance(50) { 20 } else { 600 });
        self.clock.token(&self.user, ttl)
    }

    fn read(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        loop {
            if self.rules.is_congested() {
                self.unread.insert(stream);
                return;
            }
            let bulk = self.bulk.get(&stream).copied();
            let now = io.now();
            match (io.read(conn, stream), bulk) {
                (Read::Blocked, _) => return,
                (Read::Chunk(bytes), Some(id)) => self.rules.handle_bulk(id, bytes, now),
                (Read::Fin | Read::Reset(_), Some(id)) => {
                    self.bulk.remove(&stream);
                    self.rules.handle_bulk_end(id, now);
                }
                (Read::Chunk(bytes), None) if self.live == Some(stream) => {
                    self.rules.handle_live(bytes, now);
                }
                (Read::Chunk(_), None) => {}
                (Read::Fin | Read::Reset(_), None) => {
                    if self.live == Some(stream) {
                        io.close(conn, VarInt::from_u32(0), b"");
                    }
                    return;
                }
            }
            self.listen();
        }
    }

    /// The application takes what there is for it.
    fn listen(&mut self) -> bool {
        let before = self.heard.len();
        while !self.lazy
            && let Some(event) = self.rules.poll_event()
        {
            if let Event::Message { message, .. } = &event {
                self.rules.handle_consumed(message.conversation, message.seq, self.last_turn);
            }
            if let Event::Skipped { conversation, to, .. } = &event {
                self.rules.handle_consumed(*conversation, *to, self.last_turn);
            }
            if matches!(event, Event::Connected { .. }) {
                self.attempt = 0;
            }
            self.heard.push(Heard::Event(event));
        }
        while let Some(op) = self.rules.poll_store() {
            self.heard.push(Heard::Store(op));
        }
        self.heard.len() > before
    }

    fn pump(&mut self, io: &mut Io<'_>) {
        let now = io.now();
        if self.rules.poll_timeout().is_some_and(|at| at <= now) {
            self.rules.handle_timeout(now);
        }
        if self.rules.wants_token() {
            let token = self.random.chance(70).then(|| self.token());
            self.rules.handle_token(token, now);
        }
        loop {
            let mut busy = self.listen();
            let Some(conn) = self.conn else { return };
            if !self.rules.is_congested() {
                for stream in std::mem::take(&mut self.unread) {
                    self.read(io, conn, stream);
                }
            }
            if let Some(code) = self.rules.poll_close() {
                io.close(conn, VarInt::from_u32(code.number()), b"");
                return;
            }
            busy |= self.write(io, conn);
            while let Some(action) = self.rules.poll_bulk(now) {
                busy = true;
                match action {
                    BulkAction::Open { id, request } => self.unopened.push_back((id, request)),
                    BulkAction::Stop { id } => self.stop(io, conn, id),
                }
            }
            self.open(io, conn);
            if !busy {
                return;
            }
        }
    }

    fn write(&mut self, io: &mut Io<'_>, conn: ConnId) -> bool {
        let Some(live) = self.live else { return false };
        let mut wrote = false;
        while let Some(bytes) = self.unwritten.take().or_else(|| self.rules.poll_live(io.now())) {
            match io.write(conn, live, bytes.clone()) {
                Ok(()) => wrote = true,
                Err(WriteError::Full) => {
                    self.unwritten = Some(bytes);
                    break;
                }
                Err(WriteError::Closed) => break,
            }
        }
        wrote
    }

    fn stop(&mut self, io: &mut Io<'_>, conn: ConnId, id: BulkId) {
        self.unopened.retain(|(other, _)| *other != id);
        let Some((&stream, _)) = self.bulk.iter().find(|(_, other)| **other == id) else { return };
        self.bulk.remove(&stream);
        io.stop_sending(conn, stream, VarInt::from_u32(0));
    }

    fn open(&mut self, io: &mut Io<'_>, conn: ConnId) {
        while !self.unopened.is_empty()
            && let Some(stream) = io.open_bi(conn)
            && let Some((id, request)) = self.unopened.pop_front()
        {
            self.bulk.insert(stream, id);
            // Requests are small and the outbox is large; what fails is a dead connection.
            let _ = io.write(conn, stream, request);
            let _ = io.finish(conn, stream);
        }
    }

    fn lost(&mut self, code: Option<u64>, reason: &str, now: Instant) {
        self.conn = None;
        self.live = None;
        self.bulk.clear();
        self.unopened.clear();
        self.unwritten = None;
        self.unread.clear();
        let least = match self.rules.handle_disconnected(code, reason, now) {
            Reconnect::After(least) => least,
            Reconnect::WithNewToken => Duration::ZERO,
            Reconnect::Never => return self.heard.push(Heard::GaveUp(code)),
        };
        self.attempt += 1;
        let bound = 500 << self.attempt.min(5);
        self.connect_at = Some(now + least + self.random.millis(bound));
    }
}

impl Driver for Phone {
    type Mail = ();

    fn on_connected(&mut self, io: &mut Io<'_>, conn: ConnId) {
        self.live = io.open_bi(conn);
        assert!(self.live.is_some(), "the first stream is always allowed");
        let token = self.token();
        self.rules.handle_connected(token, io.now());
    }

    fn on_stream_opened(&mut self, _: &mut Io<'_>, _: ConnId, _: StreamId) {
        panic!("the gateway opens no streams");
    }

    fn on_readable(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        self.last_turn = io.now();
        self.read(io, conn, stream);
    }

    fn on_writable(&mut self, _: &mut Io<'_>, _: ConnId) {}

    fn on_timer(&mut self, _: &mut Io<'_>, _: ConnId) {}

    fn on_closed(&mut self, io: &mut Io<'_>, _: ConnId, reason: CloseReason) {
        let code = match &reason {
            CloseReason::Peer { code, .. } => Some(*code),
            _ => None,
        };
        self.lost(code, &format!("{reason:?}"), io.now());
    }

    fn on_mail(&mut self, _: &mut Io<'_>, (): ()) {}

    fn next_tick(&self) -> Option<Instant> {
        let rules = self.rules.poll_timeout();
        // What cannot be done now, because the outbox is full, is looked at again soon.
        let soon = self.last_turn + Duration::from_millis(5);
        let rules = rules.map(|at| if at <= self.last_turn { soon } else { at });
        rules.into_iter().chain(self.connect_at).min()
    }

    fn on_turn_end(&mut self, io: &mut Io<'_>) {
        self.last_turn = io.now();
        if self.connect_at.is_some_and(|at| at <= io.now()) {
            self.connect_at = None;
            let gateway = process::address(self.random.index(self.gateways));
            self.conn = Some(io.connect(gateway, "localhost").unwrap());
        }
        self.pump(io);
    }
}

/// Whether it is in order that a device gives up: another process of it has connected.
pub(crate) fn may_give_up(code: Option<u64>) -> bool {
    code == Some(Code::Replaced.number().into())
}
