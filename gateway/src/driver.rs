//! The gateway inside a shard: from what happens on connections to commands for the lanes, and
//! from mail back to frames.
//!
//! Commands of one turn are gathered and handed to the lanes together; nothing here waits.
//!
//! Room in a connection's outbox is shared out by filling level, so that one concern cannot take
//! another's: bulk pages are written up to half, pushes up to [`SessionLimits::push_bytes`], and
//! the rest is left for answers. Over the second mark nothing is read from the peer either, so
//! answers cannot fill the rest.
//!
//! [`SessionLimits::push_bytes`]: crate::hub::SessionLimits::push_bytes

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use skein_protocol::cursor::Mark;
use skein_protocol::frame::{Decoder, encode_into};
use skein_protocol::server::{Admission, Close, Event, Hello, bulk_request, server_frame};
use skein_protocol::wire::{self, server_frame::Kind};
use skein_protocol::{Code, ConversationId};
use skein_transport::{CloseReason, ConnId, Dir, Driver, Io, Read, StreamId, VarInt, WriteError};

use crate::bulk::{Job, Page, refused_page};
use crate::hub::{Hub, conversation_of};
use crate::lane::{Command, CursorKind, Origin};
use crate::mail::{Drain, Mail};
use crate::registry::Entered;
use crate::session::{Behind, Bulk, BulkState, Session, Who};

/// Priority of a bulk stream: below the live stream, which has quinn's default of 0.
const BULK_PRIORITY: i32 = -1;

/// The driver of one shard.
pub struct Gateway {
    hub: Arc<Hub>,
    shard: usize,
    /// By slot of the connection.
    sessions: Vec<Option<Box<Session>>>,
    /// Commands of this turn.
    commands: Vec<(ConversationId, Command)>,
    /// Answers that are gathered while a chunk is worked on; empty between calls.
    answers: BytesMut,
    draining: Option<Drain>,
}

impl Gateway {
    /// The driver of this shard.
    pub fn new(hub: Arc<Hub>, shard: usize) -> Self {
        Self {
            hub,
            shard,
            sessions: Vec::new(),
            commands: Vec::new(),
            answers: BytesMut::new(),
            draining: None,
        }
    }

    /// Takes the session out of the table for the time of a call. Whoever does so puts it back
    /// with [`keep`](Self::keep) or ends it with [`end`](Self::end).
    fn take(&mut self, conn: ConnId) -> Option<Box<Session>> {
        let place = self.sessions.get_mut(conn.slot())?;
        if place.as_ref()?.conn != conn {
            return None;
        }
        place.take()
    }

    fn keep(&mut self, session: Box<Session>) {
        let slot = session.conn.slot();
        if self.sessions.len() <= slot {
            self.sessions.resize_with(slot + 1, || None);
        }
        self.sessions[slot] = Some(session);
    }

    /// Runs `work` on a session and closes it if that says so.
    fn with(
        &mut self,
        io: &mut Io<'_>,
        conn: ConnId,
        work: impl FnOnce(&mut Self, &mut Io<'_>, &mut Session) -> Result<(), Close>,
    ) {
        let Some(mut session) = self.take(conn) else {
            return;
        };
        match work(self, io, &mut session) {
            Ok(()) => self.keep(session),
            Err(close) => self.end(io, session, &close),
        }
    }

    fn end(&mut self, io: &mut Io<'_>, session: Box<Session>, close: &Close) {
        tracing::debug!(conn = %session.conn, code = %close.code, reason = close.reason, "closing");
        io.close(session.conn, VarInt::from_u32(close.code.number()), close.reason.as_bytes());
        self.leave(&session);
    }

    fn leave(&self, session: &Session) {
        if let Some(who) = &session.who {
            self.hub.registry.leave(&who.user, session.conn);
            self.hub.dismiss();
        }
    }

    /// Sets the timer to the next thing that may end this session.
    fn arm(&self, io: &mut Io<'_>, session: &Session) {
        let mut at = session.rules.poll_timeout(&self.hub.rules);
        if let Some(since) = session.stuck_since {
            at = at.min(since + self.hub.limits.slow_consumer_timeout);
        }
        io.set_timer(session.conn, Some(at));
    }

    /// Asks for a call when the outbox has room, and notes since when it has none.
    fn wait_for_room(&self, io: &mut Io<'_>, session: &mut Session) {
        io.want_writable(session.conn);
        if session.stuck_since.is_none() {
            session.stuck_since = Some(io.now());
            self.arm(io, session);
        }
    }

    fn is_over_push_limit(&self, io: &Io<'_>, session: &Session, more: usize) -> bool {
        io.outbox_bytes(session.conn) + more > self.hub.limits.push_bytes
    }

    fn read_live(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
        stream: StreamId,
    ) -> Result<(), Close> {
        loop {
            self.pump(io, session)?;
            if self.is_over_push_limit(io, session, 0) {
                self.wait_for_room(io, session);
                return Ok(());
            }
            match io.read(session.conn, stream) {
                Read::Chunk(chunk) => session.rules.handle_bytes(chunk, io.now()),
                Read::Blocked => return Ok(()),
                Read::Fin => return Err(Close::new(Code::Ok)),
                Read::Reset(_) => {
                    let reason = "the live stream was reset";
                    return Err(Close::because(Code::ProtocolViolation, reason));
                }
            }
        }
    }

    /// Handles what the peer has asked for, as long as there is room for answers.
    fn pump(&mut self, io: &mut Io<'_>, session: &mut Session) -> Result<(), Close> {
        let rules_hub = self.hub.clone();
        let mut outcome = Ok(());
        while !self.is_over_push_limit(io, session, self.answers.len()) {
            match session.rules.poll_event(&rules_hub.rules) {
                Ok(None) => break,
                Ok(Some(event)) => {
                    if let Err(close) = self.handle_event(io, session, event) {
                        outcome = Err(close);
                        break;
                    }
                }
                Err(close) => {
                    outcome = Err(close);
                    break;
                }
            }
        }
        self.write_answers(io, session)?;
        outcome
    }

    fn write_answers(&mut self, io: &mut Io<'_>, session: &mut Session) -> Result<(), Close> {
        if self.answers.is_empty() {
            return Ok(());
        }
        let answers = self.answers.split().freeze();
        write_live(io, session, answers)
    }

    fn handle_event(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
        event: Event,
    ) -> Result<(), Close> {
        match event {
            Event::Hello(hello) => return self.login(io, session, hello),
            Event::Ping(nonce) => self.answer(Kind::Pong(wire::Pong { nonce })),
            Event::Refused(refusal) => self.answers.extend_from_slice(&refusal.frame()),
            Event::Bye => return Err(Close::new(Code::Ok)),
            Event::RefreshToken(token) => return self.refresh(io, session, &token),
            Event::Send(send) => {
                if let Some(origin) = origin(session) {
                    let conversation = conversation_of(&origin.user, &send.target);
                    self.commands.push((conversation, Command::Send(origin, send)));
                }
            }
            Event::Delivered(marks) => self.raise(session, CursorKind::Delivered, &marks),
            Event::Read(marks) => self.raise(session, CursorKind::Read, &marks),
        }
        Ok(())
    }

    fn answer(&mut self, kind: Kind) {
        encode_into(&wire::ServerFrame { kind: Some(kind) }, &mut self.answers);
    }

    fn raise(&mut self, session: &Session, kind: CursorKind, marks: &[Mark]) {
        for mark in marks {
            if let Some(origin) = origin(session) {
                self.commands.push((mark.conversation, Command::Cursor(origin, kind, mark.seq)));
            }
        }
    }

    fn login(&mut self, io: &mut Io<'_>, session: &mut Session, hello: Hello) -> Result<(), Close> {
        if self.draining.is_some() {
            return Err(Close::new(Code::GoingAway));
        }
        let hub = self.hub.clone();
        let now = hub.host.now();
        let identity = hub.verifier.verify(&hello.token, now).map_err(Close::new)?;
        let device = match (hello.device, identity.device) {
            (Some(named), Some(proven)) if named != proven => {
                return Err(Close::new(Code::DeviceMismatch));
            }
            (named, proven) => named.or(proven).ok_or_else(|| Close::new(Code::DeviceMismatch))?,
        };
        let number = match hub.registry.enter(&identity.user, &device, session.conn) {
            Entered::New => hub.admit().ok_or_else(|| {
                hub.registry.leave(&identity.user, session.conn);
                Close::new(Code::TooManySessions)
            })?,
            // It takes the place of a session that leaves, so a full gateway takes it too.
            Entered::Replaced(older) => {
                hub.post(older, Mail::Close(older, Close::new(Code::Replaced)));
                hub.admit_replacement()
            }
            Entered::TooMany => return Err(Close::new(Code::TooManyDevices)),
        };
        tracing::debug!(
            conn = %session.conn, session = number, user = %identity.user, device = %device,
            platform = ?hello.platform, "logged in"
        );
        let admission = Admission {
            session: number,
            user: &identity.user,
            device: &device,
            server_time_ms: hub.host.now_ms(),
            store_epoch: hub.store.epoch(),
            token_expires_ms: identity.expires_ms,
        };
        let welcome = session.rules.accept(&hub.rules, &admission, io.now());
        self.answers.extend_from_slice(&welcome);
        session.who = Some(Who { user: identity.user, device });
        self.arm(io, session);
        if hello.store_epoch == hub.store.epoch() {
            self.take_what_it_has(session, &hello.have);
        }
        // Requests that came with the Hello, in the same flight.
        let streams: Vec<StreamId> = session.bulk.iter().map(|bulk| bulk.stream).collect();
        streams.into_iter().try_for_each(|stream| self.read_bulk(io, session, stream))
    }

    fn take_what_it_has(&mut self, session: &Session, have: &[Mark]) {
        self.raise(session, CursorKind::Delivered, have);
        for mark in have {
            if let Some(origin) = origin(session) {
                self.commands.push((mark.conversation, Command::TellIfPast(origin, mark.seq)));
            }
        }
    }

    fn refresh(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
        token: &str,
    ) -> Result<(), Close> {
        let (now, now_ms) = (self.hub.host.now(), self.hub.host.now_ms());
        let identity = self.hub.verifier.verify(token, now).map_err(Close::new)?;
        let Some(who) = &session.who else {
            return Err(Close::new(Code::ProtocolViolation));
        };
        if identity.user != who.user {
            return Err(Close::because(Code::BadToken, "the token belongs to another user"));
        }
        if identity.device.is_some_and(|device| device != who.device) {
            return Err(Close::new(Code::DeviceMismatch));
        }
        let frame = session.rules.refresh(identity.expires_ms, now_ms, io.now());
        self.answers.extend_from_slice(&frame);
        self.arm(io, session);
        Ok(())
    }

    fn read_bulk(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
        stream: StreamId,
    ) -> Result<(), Close> {
        let hub = self.hub.clone();
        let Some(who) = session.who.clone() else {
            // Left unread until the login; flow control bounds it.
            return Ok(());
        };
        let conn = session.conn;
        let Some(place) = session.bulk.iter().position(|bulk| bulk.stream == stream) else {
            return Ok(());
        };
        let BulkState::Asking(decoder) = &mut session.bulk[place].state else {
            // One request a stream: anything after it is not read.
            return Ok(());
        };
        let max = hub.rules.limits.max_frame_bytes as usize;
        let frame = loop {
            match io.read(conn, stream) {
                Read::Chunk(chunk) => decoder.push(chunk),
                Read::Blocked => return Ok(()),
                Read::Fin => {
                    let reason = "a bulk stream ended before its request";
                    return Err(Close::because(Code::MalformedFrame, reason));
                }
                Read::Reset(_) => {
                    session.bulk.swap_remove(place);
                    io.reset(conn, stream, VarInt::from_u32(0));
                    return Ok(());
                }
            }
            let frame = decoder.poll::<wire::ClientFrame>(max);
            match frame.map_err(|error| Close::because(error.code(), error.to_string()))? {
                Some(frame) => break frame,
                None => continue,
            }
        };
        session.rules.heard(io.now());
        match bulk_request(frame, &hub.rules)? {
            Some(request) => {
                session.bulk[place].state = BulkState::Working;
                self.spawn_page(conn, stream, Job::new(who.user, request));
            }
            None => {
                session.bulk[place].state = BulkState::Working;
                self.write_page(io, session, stream, refused_page(Code::InvalidArgument));
            }
        }
        Ok(())
    }

    fn spawn_page(&self, conn: ConnId, stream: StreamId, job: Box<Job>) {
        let hub = self.hub.clone();
        self.hub.host.spawn(Box::pin(async move {
            let page = job.next_page(&hub).await;
            hub.post(conn, Mail::Page(conn, stream, page));
        }));
    }

    /// Writes a page if there is room for it, and goes on with the next.
    fn write_page(&mut self, io: &mut Io<'_>, session: &mut Session, stream: StreamId, page: Page) {
        let Some(place) = session.bulk.iter().position(|bulk| bulk.stream == stream) else {
            return;
        };
        let conn = session.conn;
        match io.write(conn, stream, page.frame.clone()) {
            Ok(()) => {}
            Err(WriteError::Full) => {
                session.bulk[place].state = BulkState::Full(page);
                self.wait_for_room(io, session);
                return;
            }
            Err(WriteError::Closed) => {
                session.bulk.swap_remove(place);
                return;
            }
        }
        let Some(rest) = page.rest else {
            // Nothing more is expected from the client either.
            io.stop_sending(conn, stream, VarInt::from_u32(0));
            // Fails only if the client has given the stream up.
            let _ = io.finish(conn, stream);
            session.bulk.swap_remove(place);
            return;
        };
        if io.outbox_bytes(conn) < self.hub.limits.push_bytes / 2 {
            session.bulk[place].state = BulkState::Working;
            self.spawn_page(conn, stream, rest);
        } else {
            session.bulk[place].state = BulkState::Paused(rest);
            self.wait_for_room(io, session);
        }
    }

    fn push(&mut self, io: &mut Io<'_>, session: &mut Session, mark: Mark, frame: Bytes) {
        self.notice_overflow(io, session);
        if session.is_behind(mark) || self.is_over_push_limit(io, session, frame.len()) {
            session.leave_out(mark);
            self.wait_for_room(io, session);
            return;
        }
        // There was room, so it can only fail if the connection is gone.
        let _ = write_live(io, session, frame);
    }

    /// If mail for this shard was lost, some of it may have been for this session.
    fn notice_overflow(&mut self, io: &mut Io<'_>, session: &mut Session) {
        let overflows = self.hub.overflows(self.shard);
        if session.overflows != overflows && session.who.is_some() {
            session.overflows = overflows;
            session.behind = Some(Behind::everything());
            self.wait_for_room(io, session);
        }
    }

    /// There is room in the outbox: say what was left out, and go on with what waited.
    fn resume(&mut self, io: &mut Io<'_>, session: &mut Session) -> Result<(), Close> {
        session.stuck_since = None;
        if let Some(behind) = session.behind.take() {
            write_live(io, session, behind.frame())?;
        }
        let streams: Vec<StreamId> = session.bulk.iter().map(|bulk| bulk.stream).collect();
        for stream in streams {
            let Some(bulk) = session.bulk.iter_mut().find(|bulk| bulk.stream == stream) else {
                continue;
            };
            match std::mem::replace(&mut bulk.state, BulkState::Working) {
                BulkState::Full(page) => self.write_page(io, session, stream, page),
                BulkState::Paused(job) => self.spawn_page(session.conn, stream, job),
                other => bulk.state = other,
            }
        }
        match session.live {
            Some(live) => self.read_live(io, session, live),
            None => Ok(()),
        }
    }

    fn send_away(&mut self, io: &mut Io<'_>, session: &mut Session) -> Result<(), Close> {
        let Some(drain) = self.draining else { return Ok(()) };
        if session.who.is_none() {
            return Err(Close::new(Code::GoingAway));
        }
        let spread = drain.reconnect_spread_ms.max(1);
        let frame = server_frame(Kind::GoAway(wire::GoAway {
            code: Code::GoingAway.number(),
            message: Code::GoingAway.text().into(),
            reconnect_delay_ms: rand::random_range(0..spread),
        }));
        write_live(io, session, frame)
    }
}

impl Driver for Gateway {
    type Mail = Mail;

    fn on_connected(&mut self, io: &mut Io<'_>, conn: ConnId) {
        let session = Session::new(conn, io.now(), self.hub.overflows(self.shard));
        self.arm(io, &session);
        self.keep(session);
    }

    fn on_stream_opened(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        let max_bulk = self.hub.rules.limits.max_bulk_streams as usize;
        self.with(io, conn, |_, io, session| {
            if stream.dir() != Dir::Bi {
                return Err(Close::because(
                    Code::ProtocolViolation,
                    "unidirectional streams are not used",
                ));
            }
            if session.live.is_none() {
                session.live = Some(stream);
            } else if session.bulk.len() < max_bulk {
                io.set_priority(conn, stream, BULK_PRIORITY);
                session.bulk.reserve_exact(1);
                session.bulk.push(Bulk { stream, state: BulkState::Asking(Decoder::new()) });
            } else {
                let refused = VarInt::from_u32(Code::Overloaded.number());
                io.stop_sending(conn, stream, refused);
                io.reset(conn, stream, refused);
            }
            Ok(())
        });
    }

    fn on_readable(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        self.with(io, conn, |gateway, io, session| {
            gateway.notice_overflow(io, session);
            if session.live == Some(stream) {
                gateway.read_live(io, session, stream)
            } else {
                gateway.read_bulk(io, session, stream)
            }
        });
    }

    fn on_writable(&mut self, io: &mut Io<'_>, conn: ConnId) {
        self.with(io, conn, |gateway, io, session| gateway.resume(io, session));
    }

    fn on_stopped(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId, _code: VarInt) {
        self.with(io, conn, |_, _, session| {
            if session.live == Some(stream) {
                let reason = "the live stream was stopped";
                return Err(Close::because(Code::ProtocolViolation, reason));
            }
            session.bulk.retain(|bulk| bulk.stream != stream);
            Ok(())
        });
    }

    fn on_timer(&mut self, io: &mut Io<'_>, conn: ConnId) {
        self.with(io, conn, |gateway, io, session| {
            let now = io.now();
            if let Some(close) = session.rules.handle_timeout(&gateway.hub.rules, now) {
                return Err(close);
            }
            let slow = gateway.hub.limits.slow_consumer_timeout;
            if session.stuck_since.is_some_and(|since| since + slow <= now) {
                return Err(Close::new(Code::SlowConsumer));
            }
            gateway.arm(io, session);
            Ok(())
        });
    }

    fn on_closed(&mut self, _io: &mut Io<'_>, conn: ConnId, reason: CloseReason) {
        if let Some(session) = self.take(conn) {
            tracing::debug!(%conn, ?reason, "closed");
            self.leave(&session);
        }
    }

    fn on_mail(&mut self, io: &mut Io<'_>, mail: Mail) {
        match mail {
            Mail::Answer(conn, frame) => self.with(io, conn, |_, io, session| {
                session.rules.answered();
                write_live(io, session, frame)
            }),
            Mail::Push(conn, mark, frame) => self.with(io, conn, |gateway, io, session| {
                gateway.push(io, session, mark, frame);
                Ok(())
            }),
            Mail::Notice(conn, frame) => self.with(io, conn, |gateway, io, session| {
                if !gateway.is_over_push_limit(io, session, frame.len()) {
                    let _ = write_live(io, session, frame);
                }
                Ok(())
            }),
            Mail::Head(conn, mark) => self.with(io, conn, |gateway, io, session| {
                session.leave_out(mark);
                gateway.wait_for_room(io, session);
                Ok(())
            }),
            Mail::Page(conn, stream, page) => self.with(io, conn, |gateway, io, session| {
                gateway.write_page(io, session, stream, page);
                Ok(())
            }),
            Mail::Close(conn, close) => self.with(io, conn, |_, _, _| Err(close)),
            Mail::Drain(drain) => {
                self.draining = Some(drain);
                let everybody: Vec<ConnId> =
                    self.sessions.iter().flatten().map(|session| session.conn).collect();
                for conn in everybody {
                    self.with(io, conn, |gateway, io, session| gateway.send_away(io, session));
                }
            }
        }
    }

    fn on_turn_end(&mut self, _io: &mut Io<'_>) {
        if !self.commands.is_empty() {
            self.hub.command(std::mem::take(&mut self.commands));
        }
    }
}

fn origin(session: &Session) -> Option<Origin> {
    let who = session.who.as_ref()?;
    Some(Origin { conn: session.conn, user: who.user.clone(), device: who.device.clone() })
}

/// Writes to the live stream. What does not fit ends the session: room was left for it.
fn write_live(io: &mut Io<'_>, session: &Session, frame: Bytes) -> Result<(), Close> {
    let Some(live) = session.live else { return Ok(()) };
    match io.write(session.conn, live, frame) {
        Ok(()) | Err(WriteError::Closed) => Ok(()),
        Err(WriteError::Full) => Err(Close::new(Code::SlowConsumer)),
    }
}
