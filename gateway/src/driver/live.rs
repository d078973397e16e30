//! The live stream: frames in and answers out, as long as there is room for answers.

use bytes::Bytes;
use skein_protocol::Code;
use skein_protocol::cursor::Mark;
use skein_protocol::frame::encode_into;
use skein_protocol::server::{Close, Event};
use skein_protocol::wire::{self, server_frame::Kind};
use skein_transport::{Io, Read, WriteError};

use super::pages::give_up_pages;
use super::{Gateway, origin};
use crate::hub::conversation_of;
use crate::lane::{Command, CursorKind};
use crate::session::{Behind, Session, live_stream};

impl Gateway {
    pub(super) fn read_live(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
    ) -> Result<(), Close> {
        loop {
            let is_all = self.pump(io, session)?;
            if self.is_over_push_limit(io, session, 0) {
                self.wait_for_room(io, session);
                return Ok(());
            }
            if !is_all {
                // QUIC took the answers, so there is room for more.
                continue;
            }
            match io.read(session.conn, live_stream()) {
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

    /// Handles what the peer has asked for, as long as there is room for answers. Returns whether
    /// that was all.
    pub(super) fn pump(&mut self, io: &mut Io<'_>, session: &mut Session) -> Result<bool, Close> {
        let settings = self.settings.clone();
        let outcome = loop {
            if self.is_over_push_limit(io, session, self.answers.len()) {
                break Ok(false);
            }
            match session.rules.poll_event(&settings.rules) {
                Ok(None) => break Ok(true),
                Ok(Some(event)) => {
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

    pub(super) fn answer(&mut self, kind: Kind) {
        encode_into(&wire::ServerFrame { kind: Some(kind) }, &mut self.answers);
    }

    pub(super) fn raise(&mut self, session: &Session, kind: CursorKind, marks: &[Mark]) {
        for mark in marks {
            if let Some(origin) = origin(session) {
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
    ) -> Result<(), Close> {
        self.notice_overflow(io, session)?;
        if session.is_behind(mark) || self.is_over_push_limit(io, session, frame.len()) {
            session.leave_out(mark);
            self.wait_for_room(io, session);
            return Ok(());
        }
        write_live(io, session, frame)
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
