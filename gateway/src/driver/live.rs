//! The live stream: frames in and answers out, as long as there is room for answers.

use bytes::Bytes;
use skein_protocol::cursor::Mark;
use skein_protocol::frame::encode_into;
use skein_protocol::server::{Close, Event, Send};
use skein_protocol::wire::{self, server_frame::Kind};
use skein_protocol::{Code, UserId};
use skein_transport::{Io, Read, WriteError};

use super::pages::give_up_pages;
use super::{Gateway, origin};
use crate::hub::conversation_of;
use crate::lane::{Command, CursorKind, refusal_of};
use crate::limits::Limit;
use crate::mail::Answered;
use crate::observe::{Received, Sent, Stamp, Tracer};
use crate::session::{Behind, Session, live_stream};

/// Frames of one session that are worked on in a turn of its shard, each a microsecond or two; the
/// rest waits for the next turn. So whoever says much that is cheap to say takes no more of a shard
/// than others. As many as the sends that a session may have under way, so that they stay one batch.
const FRAMES_A_TURN: usize = 64;

/// What an event counts of these: a cursor is as much work as a frame.
fn cost(event: &Event) -> usize {
    match event {
        Event::Delivered(marks) | Event::Read(marks) => marks.len().max(1),
        Event::PassedOver => FRAMES_A_TURN,
        _ => 1,
    }
}

impl Gateway {
    pub(super) fn read_live(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
    ) -> Result<(), Close> {
        let mut said = 0;
        self.read_some(io, session, &mut said)?;
        match &session.who {
            Some(who) if said > 0 => self.hub.throttle.said(&who.user, said),
            _ => Ok(()),
        }
    }

    fn read_some(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
        said: &mut usize,
    ) -> Result<(), Close> {
        loop {
            let is_all = self.pump(io, session, said)?;
            if *said >= FRAMES_A_TURN {
                // The timer comes in the next turn, and goes on here.
                io.set_timer(session.conn, Some(io.now()));
                return Ok(());
            }
            if self.is_over_push_limit(io, session, 0) {
                self.wait_for_room(io, session);
                return Ok(());
            }
            if !is_all {
                // QUIC took the answers, so there is room for more.
                continue;
            }
            match io.read(session.conn, live_stream()) {
                Read::Chunk(chunk) => {
                    if let (None, Some(address)) = (&session.who, session.address) {
                        self.hub.throttle.before_login(address, chunk.len())?;
                    }
                    session.rules.handle_bytes(chunk, io.now());
                }
                Read::Blocked => return Ok(()),
                Read::Fin => return Err(Close::new(Code::Ok)),
                Read::Reset(_) => {
                    let reason = "the live stream was reset";
                    return Err(Close::because(Code::ProtocolViolation, reason));
                }
            }
        }
    }

    /// Handles what the peer has asked for, as long as there is room for answers and it is not
    /// enough for this turn. Returns whether that was all.
    fn pump(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
        said: &mut usize,
    ) -> Result<bool, Close> {
        let settings = self.settings.clone();
        let outcome = loop {
            if *said >= FRAMES_A_TURN {
                break Ok(false);
            }
            if self.is_over_push_limit(io, session, self.answers.len()) {
                break Ok(false);
            }
            match session.rules.poll_event(&settings.rules) {
                Ok(None) => break Ok(true),
                Ok(Some(event)) => {
                    *said += cost(&event);
                    if let Err(close) = self.handle_event(io, session, event) {
                        break Err(close);
                    }
                }
                Err(close) => break Err(close),
            }
        };
        self.write_answers(io, session)?;
        outcome
    }

    pub(super) fn write_answers(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
    ) -> Result<(), Close> {
        if self.answers.is_empty() {
            return Ok(());
        }
        let answers = self.answers.split().freeze();
        write_live(io, session, answers)
    }

    pub(super) fn handle_event(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
        event: Event,
    ) -> Result<(), Close> {
        self.figures.received(kind_of(&event));
        match event {
            Event::Hello(hello) => return self.login(io, session, hello),
            Event::Ping(nonce) => {
                self.figures.sent(Sent::Pong);
                self.answer(Kind::Pong(wire::Pong { nonce }));
            }
            Event::Refused(refusal) => {
                if refusal.code == Code::TooManySends {
                    self.hub.throttle.hit(Limit::UnackedSends);
                }
                self.figures.refused(refusal.code);
                self.answers.extend_from_slice(&refusal.frame());
            }
            Event::PassedOver if session.who.is_none() => {
                return Err(Close::new(Code::HelloExpected));
            }
            Event::PassedOver => {}
            Event::Bye => return Err(Close::new(Code::Ok)),
            Event::RefreshToken(token) => return self.refresh(io, session, &token),
            Event::Send(send) => self.send(io, session, send),
            Event::Delivered(marks) => self.raise(session, CursorKind::Delivered, &marks),
            Event::Read(marks) => self.raise(session, CursorKind::Read, &marks),
        }
        Ok(())
    }

    fn send(&mut self, io: &Io<'_>, session: &mut Session, send: Send) {
        let Some(mut origin) = origin(session, Stamp::default()) else { return };
        if let Err(early) = self.hub.throttle.message(&origin.user, send.payload.len()) {
            let refusal = refusal_of(&send, early.code, Some(early.retry_after));
            self.figures.refused(early.code);
            self.answers.extend_from_slice(&refusal.frame());
            session.rules.answered();
            return;
        }
        origin.at = self.stamp_of(io, &origin.user, &send);
        let conversation = conversation_of(&origin.user, &send.target);
        self.commands.push((conversation, Command::Send(origin, send)));
    }

    pub(super) fn answer(&mut self, kind: Kind) {
        encode_into(&wire::ServerFrame { kind: Some(kind) }, &mut self.answers);
    }

    pub(super) fn raise(&mut self, session: &Session, kind: CursorKind, marks: &[Mark]) {
        for mark in marks {
            if let Some(tracer) = self.hub.tracer()
                && tracer.may_concern(mark.conversation)
                && let Some(who) = &session.who
            {
                tracer.delivered(&who.user, (mark.conversation, mark.seq), self.shard);
            }
            if let Some(origin) = origin(session, Stamp::default()) {
                self.commands.push((mark.conversation, Command::Cursor(origin, kind, mark.seq)));
            }
        }
    }

    pub(super) fn push(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
        mark: Mark,
        frame: Bytes,
        asked: Stamp,
    ) -> Result<(), Close> {
        self.notice_overflow(io, session)?;
        if session.is_behind(mark) || self.is_over_push_limit(io, session, frame.len()) {
            self.figures.left_out.add(1);
            self.trace(asked, |tracer| tracer.pushed(asked.trace, self.shard, true));
            session.leave_out(mark);
            self.wait_for_room(io, session);
            return Ok(());
        }
        self.figures.sent(Sent::Push);
        self.trace(asked, |tracer| tracer.pushed(asked.trace, self.shard, false));
        if let Some(micros) = asked.until(self.stamp(io)) {
            self.figures.push.note(micros);
        }
        write_live(io, session, frame)
    }

    /// The moment of this turn, and the number of a trace if this message is chosen for one.
    fn stamp_of(&self, io: &Io<'_>, user: &UserId, send: &Send) -> Stamp {
        let mut stamp = self.stamp(io);
        if let Some(tracer) = self.hub.tracer() {
            stamp.trace = tracer.begin(user, send.payload.len());
        }
        stamp
    }

    /// The moment of this turn.
    pub(super) fn stamp(&self, io: &Io<'_>) -> Stamp {
        self.hub.figures.epoch.stamp(io.now())
    }

    /// Notes what happens to a message, if it is traced.
    fn trace(&self, stamp: Stamp, note: impl FnOnce(&Tracer)) {
        if stamp.trace != 0
            && let Some(tracer) = self.hub.tracer()
        {
            note(tracer);
        }
    }

    /// An answer to a send goes out.
    pub(super) fn note_answer(&self, io: &Io<'_>, answered: Answered) {
        match answered {
            Answered::Refused(code) => self.figures.refused(code),
            Answered::Durable(asked) => {
                self.figures.sent(Sent::SendAck);
                self.trace(asked, |tracer| tracer.acked(asked.trace, self.shard));
                if let Some(micros) = asked.until(self.stamp(io)) {
                    self.figures.ack.note(micros);
                }
            }
        }
    }

    /// If mail for this shard was lost, some of it may have been for this session, whatever it
    /// was: a push, an answer, a page, or the order to close.
    pub(super) fn notice_overflow(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
    ) -> Result<(), Close> {
        let overflows = self.hub.overflows(self.shard);
        let Some(who) = session.who.as_ref().filter(|_| session.overflows != overflows) else {
            return Ok(());
        };
        session.overflows = overflows;
        if !self.hub.registry.lists(&who.user, session.conn) {
            return Err(Close::new(Code::Replaced));
        }
        session.rules.forget_unanswered();
        give_up_pages(io, session);
        session.behind = Some(Behind::everything());
        self.wait_for_room(io, session);
        Ok(())
    }
}

fn kind_of(event: &Event) -> Received {
    match event {
        Event::Hello(_) => Received::Hello,
        Event::Ping(_) => Received::Ping,
        Event::Refused(_) => Received::Refused,
        Event::PassedOver => Received::PassedOver,
        Event::Bye => Received::Bye,
        Event::RefreshToken(_) => Received::RefreshToken,
        Event::Send(_) => Received::Send,
        Event::Delivered(_) => Received::Delivered,
        Event::Read(_) => Received::Read,
    }
}

/// Writes to the live stream. What does not fit ends the session: room was left for it.
pub(super) fn write_live(io: &mut Io<'_>, session: &Session, frame: Bytes) -> Result<(), Close> {
    if !session.is_open {
        return Ok(());
    }
    match io.write(session.conn, live_stream(), frame) {
        Ok(()) | Err(WriteError::Closed) => Ok(()),
        Err(WriteError::Full) => Err(Close::new(Code::SlowConsumer)),
    }
}
