//! A session begins: the timetable says so, the handshake, the token, `Hello` and `Welcome`.

use bytes::Bytes;
use skein_protocol::VERSION;
use skein_protocol::wire::{self, client_frame};
use skein_transport::{Io, VarInt};

use super::session::{Entry, Flags, NONE, State, live_stream};
use super::shard::Shard;
use super::{Probe, Room};
use crate::clock::{self, Nanos, SECOND, length};
use crate::identity::{Request, Token};
use crate::operation::{Failure, Operation};
use crate::plan::Work;

/// Frames are taken up to what the gateway says, within these bounds, bytes: its own words must
/// pass, and a broken one must not make every session keep what it promises.
const FRAME_BYTES: (usize, usize) = (4 << 10, 16 << 20);

const MS: Nanos = 1_000_000;

impl Shard {
    // ---- connect

    /// Something of a fleet's sessions is due: one of the ramp, one that is replaced, a login.
    pub(super) fn session_is_due(&mut self, io: &mut Io<'_>, share: usize, intended: Nanos) {
        let one = &mut self.shares[share];
        if let Some(session) = one.dial.next() {
            if one.dial.is_empty() {
                // The rest of the plan's rate is for what comes after the ramp.
                one.connects.set_rate(0, 0.0);
            }
            // A probe may have been the first.
            if self.sessions[session as usize].state == State::Idle {
                self.dial(io, session, intended);
            }
            return;
        }
        match self.work(share) {
            Work::Churn { .. } => self.replace_one(io, share, intended),
            Work::Sync { .. } => self.log_one_in(io, share, intended),
            _ => {}
        }
    }

    /// The next session of the fleet leaves, and comes again at once.
    fn replace_one(&mut self, io: &mut Io<'_>, share: usize, intended: Nanos) {
        let one = &mut self.shares[share];
        for _ in 0..one.sessions.len() {
            let index = one.sessions.start + (one.turn % one.sessions.len()) as u32;
            one.turn += 1;
            if self.sessions[index as usize].state == State::Live {
                self.leave(io, index);
                self.dial(io, index, intended);
                return;
            }
        }
        self.book.dropped(Operation::Connect, 1, intended, intended);
    }

    /// The next user with a backlog logs in, as a device that has nothing.
    fn log_one_in(&mut self, io: &mut Io<'_>, share: usize, intended: Nanos) {
        let one = &mut self.shares[share];
        for _ in 0..one.receivers.len() {
            let index = one.receivers.start + (one.turn % one.receivers.len()) as u32;
            one.turn += 1;
            let session = &mut self.sessions[index as usize];
            if session.state == State::Idle {
                session.device += 1;
                if let Some(tickets) = &mut self.tickets {
                    tickets.forget(index);
                }
                self.book.tally.syncing += 1;
                self.dial(io, index, intended);
                return;
            }
        }
        // All of them are syncing: the target is slower than the timetable.
        self.book.failure(Operation::Sync, intended, Failure::WindowFull);
    }

    /// Begins a connection.
    pub(super) fn dial(&mut self, io: &mut Io<'_>, index: u32, intended: Nanos) {
        let now = clock::now();
        let session = &mut self.sessions[index as usize];
        let entry = session.entry.get_or_insert_default();
        **entry =
            Entry { intended, dialed: now, resume_since: entry.resume_since, ..Entry::default() };
        let target = &self.context.plan.target;
        let address = target.addresses[index as usize % target.addresses.len()];
        // A probe is nobody's first connection.
        let own = self.tickets.as_mut().filter(|_| self.probe.is_none());
        let connected = match own.map(|tickets| tickets.tls_of(index)) {
            Some(tls) => io.connect_with(address, &target.server_name, &tls),
            None => io.connect(address, &target.server_name),
        };
        match connected {
            Ok(conn) => {
                session.conn = conn;
                if self.by_slot.len() <= conn.slot() {
                    self.by_slot.resize(conn.slot() + 1, NONE);
                }
                self.by_slot[conn.slot()] = index;
                self.set_state(index, State::Connecting);
                let (shard, user) = (self.context.place.shard, self.sessions[index as usize].user);
                self.context.mint.request(Request { shard, session: index, user });
            }
            Err(_) => self.attempt_failed(io, index, Failure::CannotDial, false, String::new()),
        }
    }

    /// One whose time to come back has come.
    pub(super) fn dial_again(&mut self, io: &mut Io<'_>, index: u32, at: Nanos) {
        if self.sessions[index as usize].state == State::Away {
            self.dial(io, index, at);
        }
    }

    pub(super) fn handle_connected(&mut self, io: &mut Io<'_>, index: u32) {
        let now = clock::now();
        let session = &mut self.sessions[index as usize];
        let Some(entry) = session.entry.as_mut() else { return };
        entry.connected = now;
        if entry.resume_since.is_none() {
            self.book.success(Operation::Connect, entry.intended, entry.dialed, now);
        }
        let token = entry.token.take();
        let conn = session.conn;
        self.book.tally.resumed += u64::from(io.is_resumed(conn) == Some(true));
        let until = now + length(self.context.plan.answer_timeout);
        io.set_timer(conn, Some(clock::instant(until)));
        self.set_state(index, State::Greeting);
        if io.open_bi(conn) != Some(live_stream()) {
            // It allows no stream at all.
            return self.break_off(io, index, Failure::BadAnswer);
        }
        if let Some((token, until)) = token {
            self.greet(io, index, token, until);
        }
    }

    pub(super) fn handle_token(&mut self, io: &mut Io<'_>, token: Token) {
        let Token { session: index, text, until } = token;
        let Some(session) = self.sessions.get_mut(index as usize) else { return };
        let Some(text) = text else {
            if matches!(session.state, State::Connecting | State::Greeting) {
                self.break_off(io, index, Failure::NoToken);
            }
            return;
        };
        match (session.state, session.entry.as_mut()) {
            (State::Connecting, Some(entry)) => entry.token = Some((text, until)),
            (State::Greeting, Some(entry)) if entry.greeted == 0 => {
                self.greet(io, index, text, until);
            }
            (State::Live, _) if session.flags.has(Flags::RENEWING) => {
                session.flags.clear(Flags::RENEWING);
                if seconds(until) > session.token_until {
                    session.token_until = seconds(until);
                    let token = String::from_utf8_lossy(&text).into_owned();
                    let frame = client_frame::Kind::RefreshToken(wire::RefreshToken { token });
                    self.say(io, index, frame);
                }
            }
            _ => {}
        }
    }

    // ---- log in

    fn greet(&mut self, io: &mut Io<'_>, index: u32, token: Bytes, until: Nanos) {
        let session = &mut self.sessions[index as usize];
        session.token_until = seconds(until);
        let hello = wire::Hello {
            versions: vec![VERSION],
            token: String::from_utf8_lossy(&token).into_owned(),
            device: format!("d{}", session.device),
            platform: concat!("skein-load/", env!("CARGO_PKG_VERSION")).into(),
            store_epoch: self.terms.epoch,
            have: self.have(index),
        };
        self.say(io, index, client_frame::Kind::Hello(hello));
        // A connection that is lost now ends by itself.
        if let Some(entry) = self.sessions[index as usize].entry.as_mut() {
            entry.greeted = clock::now();
        }
    }

    /// What the session tells of its conversation when it logs in again.
    fn have(&self, index: u32) -> Vec<wire::Cursor> {
        let line = self.lines.get(self.sessions[index as usize].line as usize);
        line.filter(|line| self.terms.epoch != 0 && line.conversation[0] != 0)
            .map(|line| wire::Cursor {
                conversation: Bytes::copy_from_slice(&line.conversation),
                seq: line.receiver.position(),
            })
            .into_iter()
            .collect()
    }

    pub(super) fn handle_welcome(&mut self, io: &mut Io<'_>, index: u32, welcome: &wire::Welcome) {
        let now = clock::now();
        let Some(entry) = self.sessions[index as usize].entry.take() else { return };
        self.take_terms(welcome);
        if self.probe.is_some() {
            return self.probed(io, index, Ok(self.room()));
        }
        match entry.resume_since {
            None => self.book.success(Operation::Login, entry.connected, entry.greeted, now),
            Some(since) => self.book.success(Operation::Resume, since, entry.dialed, now),
        }
        self.book.tally.logins += 1;
        let session = &mut self.sessions[index as usize];
        (session.since, session.said) = ((now / MS) as u32, (now / MS) as u32);
        session.attempts = 0;
        session.flags.clear(Flags::GOING | Flags::PINGED | Flags::RENEWING | Flags::UNREAD);
        self.set_state(index, State::Live);
        self.set_timer(io, index);
        let share = self.sessions[index as usize].share as usize;
        let waits = self.shares[share].receivers.contains(&index);
        if waits {
            self.begin_sync(io, index, entry.intended, now);
        } else if entry.resume_since.is_some() && self.sessions[index as usize].line != NONE {
            // What was under way on the old connection may have been stored, and pushed to nobody.
            self.catch_up(io, self.sessions[index as usize].line);
        }
        self.resume_writing(io, index);
    }

    fn take_terms(&mut self, welcome: &wire::Welcome) {
        let terms = &mut self.terms;
        terms.heartbeat = Nanos::from(welcome.heartbeat_interval_ms.max(100)) * MS;
        terms.epoch = welcome.store_epoch;
        if let Some(limits) = &welcome.limits {
            terms.max_unacked = limits.max_unacked_sends.max(1);
            terms.max_payload = limits.max_payload_bytes as usize;
            terms.max_frame = (limits.max_frame_bytes as usize).clamp(FRAME_BYTES.0, FRAME_BYTES.1);
        }
    }

    /// What a message may be, as far as the gateway has said.
    pub(super) fn room(&self) -> Room {
        Room { payload: self.terms.max_payload, frame: self.terms.max_frame }
    }

    /// The answer to a probe; the books begin anew.
    pub(super) fn probed(&mut self, io: &mut Io<'_>, index: u32, result: Result<Room, Probe>) {
        let Some(answer) = self.probe.take() else { return };
        if let Some(session) = self.sessions.get_mut(index as usize) {
            session.entry = None;
            session.attempts = 0;
            if session.state != State::Idle {
                io.close(session.conn, VarInt::from_u32(0), b"");
            }
            self.set_state(index, State::Idle);
        }
        self.book = Default::default();
        let _ = answer.send(result);
    }
}

/// A time in seconds; what is beyond counts as endless.
fn seconds(at: Nanos) -> u32 {
    u32::try_from(at / SECOND).unwrap_or(u32::MAX)
}
