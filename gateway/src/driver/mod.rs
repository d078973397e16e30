//! The gateway inside a shard: from what happens on connections to commands for the lanes, and
//! from mail back to frames.
//!
//! Commands of one turn are gathered and handed to the lanes together; nothing here waits.
//!
//! Room in a connection's outbox is shared out by filling level, so that one concern cannot take
//! another's: bulk pages are written up to half, pushes up to [`SessionLimits::push_bytes`], and
//! the rest is left for answers. Over the second mark nothing is read from the peer either, so
//! answers cannot fill the rest. When the outboxes of a shard hold more than its share together,
//! each that is not empty counts as over the second mark.
//!
//! [`SessionLimits::push_bytes`]: crate::settings::SessionLimits::push_bytes

mod live;
mod login;
mod pages;
mod walk;

use std::sync::Arc;

use bytes::BytesMut;
use skein_protocol::frame::Decoder;
use skein_protocol::server::{Close, server_frame};
use skein_protocol::wire::{self, server_frame::Kind};
use skein_protocol::{Code, ConversationId};
use skein_transport::{CloseReason, ConnId, Dir, Driver, Io, StreamId, VarInt};

use crate::hub::Hub;
use crate::lane::{Command, Origin};
use crate::limits::Limit;
use crate::mail::{Drain, Mail};
use crate::observe::{Ended, Sent, ShardFigures, Stamp};
use crate::session::{Bulk, BulkState, Session, live_stream};
use crate::settings::Settings;
use live::write_live;

/// Priority of a bulk stream: below the live stream, which has quinn's default of 0.
const BULK_PRIORITY: i32 = -1;

/// The driver of one shard.
pub struct Gateway {
    hub: Arc<Hub>,
    /// As they were when the turn began.
    settings: Arc<Settings>,
    shard: usize,
    figures: Arc<ShardFigures>,
    /// By slot of the connection.
    sessions: Vec<Option<Box<Session>>>,
    /// Commands of this turn.
    commands: Vec<(ConversationId, Command)>,
    /// Answers that are gathered while a chunk is worked on; empty between calls.
    answers: BytesMut,
}

impl Gateway {
    /// The driver of this shard.
    pub fn new(hub: Arc<Hub>, shard: usize) -> Self {
        Self {
            settings: hub.settings(),
            figures: hub.figures_of(shard),
            hub,
            shard,
            sessions: Vec::new(),
            commands: Vec::new(),
            answers: BytesMut::new(),
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
        close_with(io, session.conn, close);
        match session.who {
            Some(_) => self.figures.evicted.add(close.code),
            None => self.figures.login_failures.add(close.code),
        }
        self.leave(&session);
    }

    fn leave(&self, session: &Session) {
        if let Some(address) = session.address {
            self.hub.throttle.left(address);
        }
        if let Some(who) = &session.who {
            self.hub.registry.leave(&who.user, session.conn);
            self.hub.dismiss();
        }
    }

    /// Sets the timer to the next thing that may end this session.
    fn arm(&self, io: &mut Io<'_>, session: &Session) {
        let mut at = session.rules.poll_timeout(&self.settings.rules);
        if let Some(since) = session.stuck_since {
            at = at.min(since + self.settings.limits.slow_consumer_timeout);
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
        io.outbox_bytes(session.conn) + more > self.settings.limits.push_bytes
            || self.is_crowded_out(io, session)
    }

    /// Whether the session must wait because the outboxes of the shard hold too much together.
    ///
    /// That concerns only sessions for which something waits already. So each of those that wait
    /// is woken by its own outbox: when that is empty at the latest, whatever the others do, and
    /// without a list of sessions to wake. Who reads in time is not touched, and beyond the
    /// shard's share each session can add no more than one write to an empty outbox.
    fn is_crowded_out(&self, io: &Io<'_>, session: &Session) -> bool {
        io.outbox_total() > self.settings.limits.shard_outbox_bytes
            && io.outbox_bytes(session.conn) > 0
    }

    /// There is room in the outbox: say what was left out, and go on with what waited.
    fn resume(&mut self, io: &mut Io<'_>, session: &mut Session) -> Result<(), Close> {
        if self.is_crowded_out(io, session) {
            // Asked again whenever the peer has acknowledged something.
            self.wait_for_room(io, session);
            return Ok(());
        }
        session.stuck_since = None;
        if let Some(behind) = session.behind.take() {
            self.figures.sent(Sent::Behind);
            write_live(io, session, behind.frame())?;
        }
        let streams: Vec<StreamId> = session.bulk.iter().map(|bulk| bulk.stream).collect();
        for stream in streams {
            let Some(bulk) = session.bulk.iter_mut().find(|bulk| bulk.stream == stream) else {
                continue;
            };
            match std::mem::replace(&mut bulk.state, BulkState::Working) {
                BulkState::Full(page) => self.write_page(io, session, stream, page),
                BulkState::Paused(job) => self.go_on(io, session, stream, job),
                other => bulk.state = other,
            }
        }
        if session.is_open { self.read_live(io, session) } else { Ok(()) }
    }

    /// Tells a session to go; one without a login is closed.
    fn send_away(&self, io: &mut Io<'_>, session: &Session, spread_ms: u32) -> Result<(), Close> {
        if session.who.is_none() {
            return Err(Close::new(Code::GoingAway));
        }
        let frame = server_frame(Kind::GoAway(wire::GoAway {
            code: Code::GoingAway.number(),
            message: Code::GoingAway.text().into(),
            reconnect_delay_ms: rand::random_range(0..spread_ms.max(1)),
        }));
        self.figures.sent(Sent::GoAway);
        write_live(io, session, frame)
    }
}

impl Driver for Gateway {
    type Mail = Mail;

    fn on_connected(&mut self, io: &mut Io<'_>, conn: ConnId) {
        let Some(remote) = io.remote_address(conn) else { return };
        if let Some(close) = self.hub.blocks.address(remote.ip(), || self.hub.host.now()) {
            self.hub.throttle.hit(Limit::Blocked);
            self.figures.login_failures.add(close.code);
            return close_with(io, conn, &close);
        }
        let address = match self.hub.throttle.connected(remote.ip()) {
            Ok(address) => address,
            // Nothing is kept for it, so nothing is to be cleared away when it is gone.
            Err(close) => {
                self.figures.login_failures.add(close.code);
                return close_with(io, conn, &close);
            }
        };
        let session = Session::new(conn, io.now(), self.hub.overflows(self.shard), address);
        self.arm(io, &session);
        self.keep(session);
    }

    fn on_stream_opened(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        let max_bulk = self.settings.rules.limits.max_bulk_streams as usize;
        self.with(io, conn, |gateway, io, session| {
            if stream.dir() != Dir::Bi {
                return Err(Close::because(
                    Code::ProtocolViolation,
                    "unidirectional streams are not used",
                ));
            }
            if stream == live_stream() {
                session.is_open = true;
            } else if session.bulk.len() < max_bulk {
                io.set_priority(conn, stream, BULK_PRIORITY);
                session.bulk.reserve_exact(1);
                session.bulk.push(Bulk { stream, state: BulkState::Asking(Decoder::new()) });
            } else {
                gateway.hub.throttle.hit(Limit::BulkStreams);
                let refused = VarInt::from_u32(Code::Overloaded.number());
                io.stop_sending(conn, stream, refused);
                io.reset(conn, stream, refused);
            }
            Ok(())
        });
    }

    fn on_readable(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        self.with(io, conn, |gateway, io, session| {
            gateway.notice_overflow(io, session)?;
            if stream == live_stream() {
                gateway.read_live(io, session)
            } else {
                gateway.read_bulk(io, session, stream)
            }
        });
    }

    fn on_writable(&mut self, io: &mut Io<'_>, conn: ConnId) {
        self.with(io, conn, |gateway, io, session| gateway.resume(io, session));
    }

    fn on_stopped(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId, _code: VarInt) {
        self.with(io, conn, |_, io, session| {
            if stream == live_stream() {
                let reason = "the live stream was stopped";
                return Err(Close::because(Code::ProtocolViolation, reason));
            }
            // A page that is being read keeps its place until it is there: who asks and gives up
            // in a loop must not have more of them read than others.
            session
                .bulk
                .retain(|bulk| bulk.stream != stream || matches!(bulk.state, BulkState::Working));
            // QUIC counts a stream as open until its other half has been dealt with too.
            io.stop_sending(conn, stream, VarInt::from_u32(0));
            Ok(())
        });
    }

    fn on_timer(&mut self, io: &mut Io<'_>, conn: ConnId) {
        self.with(io, conn, |gateway, io, session| {
            let now = io.now();
            if let Some(close) = session.rules.handle_timeout(&gateway.settings.rules, now) {
                return Err(close);
            }
            let slow = gateway.settings.limits.slow_consumer_timeout;
            if session.stuck_since.is_some_and(|since| since + slow <= now) {
                return Err(Close::new(Code::SlowConsumer));
            }
            gateway.arm(io, session);
            // It may have come because there was more to read than is done in a turn.
            if session.is_open { gateway.read_live(io, session) } else { Ok(()) }
        });
    }

    fn on_closed(&mut self, _io: &mut Io<'_>, conn: ConnId, reason: CloseReason) {
        if let Some(session) = self.take(conn) {
            tracing::debug!(%conn, ?reason, "closed");
            if session.who.is_some() {
                self.figures.ended[Ended::from(&reason) as usize].add(1);
            }
            self.leave(&session);
        }
    }

    fn on_mail(&mut self, io: &mut Io<'_>, mail: Mail) {
        match mail {
            Mail::Answer(conn, frame, answered) => self.with(io, conn, |gateway, io, session| {
                session.rules.answered();
                gateway.note_answer(io, answered);
                write_live(io, session, frame)
            }),
            Mail::Push(conn, mark, frame, asked) => self.with(io, conn, |gateway, io, session| {
                gateway.push(io, session, mark, frame, asked)
            }),
            Mail::Receipt(conn, frame) => self.with(io, conn, |gateway, io, session| {
                if !gateway.is_over_push_limit(io, session, frame.len()) {
                    gateway.figures.sent(Sent::Receipt);
                    let _ = write_live(io, session, frame);
                }
                Ok(())
            }),
            Mail::Head(conn, mark) => self.with(io, conn, |gateway, io, session| {
                gateway.figures.left_out.add(1);
                session.leave_out(mark);
                gateway.wait_for_room(io, session);
                Ok(())
            }),
            Mail::Page(conn, stream, page) => self.with(io, conn, |gateway, io, session| {
                gateway.write_page(io, session, stream, page);
                Ok(())
            }),
            Mail::Close(conn, close) => self.with(io, conn, |_, _, _| Err(close)),
            Mail::Walk(walk) => self.walk(io, *walk),
            Mail::Drain(Drain { reconnect_spread_ms }) => {
                let everybody: Vec<ConnId> =
                    self.sessions.iter().flatten().map(|session| session.conn).collect();
                for conn in everybody {
                    self.with(io, conn, |gateway, io, session| {
                        gateway.send_away(io, session, reconnect_spread_ms)
                    });
                }
            }
        }
    }

    fn on_turn_begin(&mut self) {
        self.hub.renew_settings(&mut self.settings);
    }

    fn on_turn_end(&mut self, _io: &mut Io<'_>) {
        if !self.commands.is_empty() {
            self.hub.command(std::mem::take(&mut self.commands));
        }
    }
}

/// Who asks, now.
fn origin(session: &Session, at: Stamp) -> Option<Origin> {
    let who = session.who.as_ref()?;
    Some(Origin { conn: session.conn, user: who.user.clone(), device: who.device.clone(), at })
}

fn close_with(io: &mut Io<'_>, conn: ConnId, close: &Close) {
    io.close(conn, VarInt::from_u32(close.code.number()), close.phrase().as_bytes());
}
