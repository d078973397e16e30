//! The life of a session: connect, log in, be heard, be lost, come back.

use std::cmp::Reverse;

use bytes::Bytes;
use skein_protocol::codes::Retry;
use skein_protocol::wire::{self, client_frame};
use skein_protocol::{Code, VERSION, frame};
use skein_transport::{CloseReason, Io, VarInt};

use super::Probe;
use super::session::{Entry, Flags, NONE, Session, State, live_stream};
use super::shard::Shard;
use crate::clock::{self, Nanos, SECOND, length};
use crate::identity::{RENEW_BEFORE, Request, Token};
use crate::operation::{Failure, Operation};
use crate::plan::{SLOW_READ, Work};

/// First and longest step of the backoff (docs/protocol.md section 9).
const BACKOFF: (Nanos, Nanos) = (SECOND / 2, 30 * SECOND);

/// Longest wait that a gateway can ask for.
const MAX_DELAY: Nanos = 3600 * SECOND;

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
        self.book.dropped(Operation::Connect, intended, 1);
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
        match io.connect(address, &target.server_name) {
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
        self.book.success(Operation::Connect, entry.intended, entry.dialed, now);
        let token = entry.token.take();
        let conn = session.conn;
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
                let seconds = (until / SECOND) as u32;
                if seconds > session.token_until {
                    session.token_until = seconds;
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
        session.token_until = (until / SECOND) as u32;
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
            return self.probed(io, index, Ok(()));
        }
        self.book.success(Operation::Login, entry.connected, entry.greeted, now);
        if let Some(since) = entry.resume_since {
            self.book.success(Operation::Resume, since, entry.dialed, now);
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
            terms.max_frame = limits.max_frame_bytes as usize;
        }
    }

    /// The answer to a probe; the books begin anew.
    pub(super) fn probed(&mut self, io: &mut Io<'_>, index: u32, result: Result<(), Probe>) {
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

    // ---- be heard

    /// Writes a frame to the live stream.
    pub(super) fn say(&mut self, io: &mut Io<'_>, index: u32, kind: client_frame::Kind) -> bool {
        self.write(io, index, frame::encode(&wire::ClientFrame { kind: Some(kind) })).is_ok()
    }

    pub(super) fn write(
        &mut self,
        io: &mut Io<'_>,
        index: u32,
        bytes: Bytes,
    ) -> Result<(), skein_transport::WriteError> {
        let session = &mut self.sessions[index as usize];
        io.write(session.conn, live_stream(), bytes)?;
        session.said = (clock::nanos(io.now()) / MS) as u32;
        Ok(())
    }

    /// When the session must act of itself: it is to be heard, or to read, or waits for a `Pong`.
    pub(super) fn set_timer(&mut self, io: &mut Io<'_>, index: u32) {
        let session = &self.sessions[index as usize];
        let said = Nanos::from(session.said) * MS;
        let now = clock::now();
        let answer = length(self.context.plan.answer_timeout);
        let interval = self.terms.heartbeat / 10 * 9;
        let overdue = now.saturating_sub(said) >= interval;
        let beat = said
            + match (session.flags.has(Flags::PINGED), overdue) {
                (true, true) => answer,
                // The answer will have come by then, and the next ping be due.
                (true, false) => answer.min(interval),
                (false, _) => interval,
            };
        let read = now + length(SLOW_READ);
        let silent = session.flags.has(Flags::SILENT);
        let at = match (silent, session.flags.has(Flags::UNREAD)) {
            (true, true) => Some(read),
            (true, false) => None,
            (false, true) => Some(read.min(beat)),
            (false, false) => Some(beat),
        };
        io.set_timer(session.conn, at.map(clock::instant));
    }

    /// The session's time has come.
    pub(super) fn beat(&mut self, io: &mut Io<'_>, index: u32) {
        let session = &mut self.sessions[index as usize];
        if session.state != State::Live {
            return;
        }
        let now = clock::now();
        let quiet = now.saturating_sub(Nanos::from(session.said) * MS);
        if session.flags.has(Flags::PINGED) {
            if quiet >= length(self.context.plan.answer_timeout) {
                return self.break_off(io, index, Failure::TimedOut);
            }
        } else if quiet >= self.terms.heartbeat / 10 * 9 && !session.flags.has(Flags::SILENT) {
            session.flags.set(Flags::PINGED);
            let left = u64::from(session.token_until).saturating_sub(now / SECOND);
            if left < RENEW_BEFORE && !session.flags.has(Flags::RENEWING) {
                session.flags.set(Flags::RENEWING);
                let (shard, user) = (self.context.place.shard, session.user);
                self.context.mint.request(Request { shard, session: index, user });
            }
            self.say(io, index, client_frame::Kind::Ping(wire::Ping { nonce: 1 }));
        }
        self.set_timer(io, index);
    }

    // ---- end

    /// The session ends because we want it to, or are told to.
    pub(super) fn leave(&mut self, io: &mut Io<'_>, index: u32) {
        let session = &self.sessions[index as usize];
        if session.state != State::Idle && session.state != State::Away {
            io.close(session.conn, VarInt::from_u32(0), b"");
        }
        self.writes_are_lost(index);
        self.forget(index);
        self.set_state(index, State::Idle);
    }

    /// Gives the connection up, and treats it as lost.
    pub(super) fn break_off(&mut self, io: &mut Io<'_>, index: u32, failure: Failure) {
        io.close(self.sessions[index as usize].conn, VarInt::from_u32(0), b"");
        self.ended(io, index, failure, String::new(), None);
    }

    pub(super) fn handle_closed(&mut self, io: &mut Io<'_>, index: u32, reason: CloseReason) {
        let (failure, words) = match reason {
            CloseReason::Peer { code, reason } => (
                Failure::Code(u32::try_from(code).unwrap_or(u32::MAX)),
                String::from_utf8_lossy(&reason).into_owned(),
            ),
            CloseReason::TimedOut => (Failure::TimedOut, String::new()),
            CloseReason::Reset => (Failure::Reset, String::new()),
            CloseReason::Transport { code, detail, .. } => (Failure::Transport(code), detail),
            CloseReason::Local | CloseReason::Stopped => return,
        };
        let told = self.sessions[index as usize].entry.as_ref().and_then(|entry| entry.told);
        self.ended(io, index, failure, words, told);
    }

    /// The gateway is about to go (docs/protocol.md section 9): what is unanswered is waited for,
    /// then we leave, and come back after the time that it said.
    pub(super) fn handle_go_away(&mut self, io: &mut Io<'_>, index: u32, notice: &wire::GoAway) {
        let session = &mut self.sessions[index as usize];
        if session.state != State::Live {
            return;
        }
        session.flags.set(Flags::GOING);
        let told = Some(Nanos::from(notice.reconnect_delay_ms) * MS);
        session.entry.get_or_insert_default().told = told;
        self.go_if_answered(io, index, notice.code);
    }

    /// Leaves a gateway that is going, once nothing is unanswered.
    pub(super) fn go_if_answered(&mut self, io: &mut Io<'_>, index: u32, code: u32) {
        let session = &self.sessions[index as usize];
        let line = self.lines.get(session.line as usize);
        let channel = line.and_then(|line| self.channels.get(line.channel as usize));
        if session.state == State::Live && channel.is_none_or(|one| one.stream.waiting() == 0) {
            let told = session.entry.as_ref().and_then(|entry| entry.told);
            io.close(session.conn, VarInt::from_u32(0), b"");
            self.ended(io, index, Failure::Code(code), String::new(), told);
        }
    }

    /// A connection has ended against our wish. `delay`: it was told when to come back.
    pub(super) fn ended(
        &mut self,
        io: &mut Io<'_>,
        index: u32,
        failure: Failure,
        words: String,
        delay: Option<Nanos>,
    ) {
        let session = &mut self.sessions[index as usize];
        let in_login = session.state == State::Greeting;
        if session.state != State::Live {
            return self.attempt_failed(io, index, failure, in_login, words);
        }
        let now = clock::now();
        let share = &self.shares[session.share as usize];
        let expected = share.cut
            || session.flags.has(Flags::SILENT) && failure == Failure::Code(121)
            || session.flags.has(Flags::GOING) && delay.is_some();
        if !expected {
            self.book.tally.lost += 1;
        }
        let (held, receives) = (share.held, share.receivers.contains(&index));
        self.book.end(failure);
        self.writes_are_lost(index);
        self.forget(index);
        if receives {
            return self.set_state(index, State::Idle);
        }
        self.set_state(index, State::Away);
        let delay = delay.unwrap_or_else(|| retry_delay(failure).unwrap_or(MAX_DELAY));
        let due = now + delay.min(MAX_DELAY);
        self.sessions[index as usize].entry =
            Some(Box::new(Entry { resume_since: Some(due), ..Entry::default() }));
        if !held && retry_delay(failure).is_some() {
            let at = due + self.backoff(index);
            self.dials.push(Reverse((at, index)));
        }
    }

    fn attempt_failed(
        &mut self,
        io: &mut Io<'_>,
        index: u32,
        failure: Failure,
        in_login: bool,
        words: String,
    ) {
        if self.probe.is_some() {
            return self.probed(io, index, Err(Probe { failure, in_login, words }));
        }
        let session = &self.sessions[index as usize];
        let intended = session
            .entry
            .as_ref()
            .map_or(0, |entry| if in_login { entry.connected } else { entry.intended });
        let operation = if in_login { Operation::Login } else { Operation::Connect };
        self.book.failure(operation, intended, failure);
        self.book.tally.failed += 1;
        self.book.end(failure);
        let share = &self.shares[session.share as usize];
        let held = share.held;
        if share.receivers.contains(&index) {
            self.book.failure(Operation::Sync, intended, failure);
            self.book.tally.syncing = self.book.tally.syncing.saturating_sub(1);
            self.sessions[index as usize].entry = None;
            return self.set_state(index, State::Idle);
        }
        self.set_state(index, State::Away);
        if let Some(delay) = retry_delay(failure)
            && !held
        {
            let at = clock::now() + delay + self.backoff(index);
            self.dials.push(Reverse((at, index)));
        }
    }

    /// Full jitter: a random part of a time that doubles.
    fn backoff(&mut self, index: u32) -> Nanos {
        let attempts = &mut self.sessions[index as usize].attempts;
        let most = (BACKOFF.0 << (*attempts).min(16)).min(BACKOFF.1);
        *attempts = attempts.saturating_add(1);
        self.jitter(most)
    }

    // ---- storms

    /// The fleet's sessions are about to be lost.
    pub(super) fn cut(&mut self, io: &mut Io<'_>, share: usize, close: bool) {
        let one = &mut self.shares[share];
        one.cut = true;
        one.held = close;
        if !close {
            return;
        }
        let now = clock::now();
        for index in one.sessions.clone() {
            if self.sessions[index as usize].state == State::Idle {
                continue;
            }
            self.leave(io, index);
            self.set_state(index, State::Away);
            self.sessions[index as usize].entry =
                Some(Box::new(Entry { resume_since: Some(now), ..Entry::default() }));
        }
    }

    /// They come back evenly over the time that the plan says.
    pub(super) fn bring_back(&mut self, share: usize, from: Nanos) {
        let over = match *self.work(share) {
            Work::Storm { return_over, .. } => length(return_over),
            _ => 0,
        };
        let one = &mut self.shares[share];
        one.cut = false;
        if !std::mem::take(&mut one.held) {
            return;
        }
        let count = one.sessions.len() as u64;
        for (place, index) in one.sessions.clone().enumerate() {
            let session = &mut self.sessions[index as usize];
            if session.state != State::Away {
                continue;
            }
            let at = from + (u128::from(over) * place as u128 / u128::from(count.max(1))) as u64;
            if let Some(entry) = session.entry.as_mut() {
                entry.resume_since = Some(at);
            }
            session.attempts = 0;
            self.dials.push(Reverse((at, index)));
        }
    }

    // ----

    /// What belongs to the connection that is no more.
    fn forget(&mut self, index: u32) {
        let session: &mut Session = &mut self.sessions[index as usize];
        session.entry = None;
        let transient = Flags::ACK_SOON
            | Flags::ACK_LATER
            | Flags::PINGED
            | Flags::UNREAD
            | Flags::RENEWING
            | Flags::GOING;
        session.flags.clear(transient);
        if let Some(reading) = session.reading.take() {
            self.bulk_is_lost(reading.bulk);
        }
    }

    /// Keeps the counts of sessions by state.
    pub(super) fn set_state(&mut self, index: u32, state: State) {
        let session = &mut self.sessions[index as usize];
        let tally = &mut self.book.tally;
        let count = |of: State, tally: &mut super::Tally, change: i64| {
            let number = match of {
                State::Connecting | State::Greeting => &mut tally.connecting,
                State::Live => &mut tally.live,
                State::Idle | State::Away => return,
            };
            *number = number.saturating_add_signed(change);
        };
        count(session.state, tally, -1);
        count(state, tally, 1);
        session.state = state;
        if state == State::Away || state == State::Idle {
            // Two attempts never share a connection.
            session.conn = skein_transport::ConnId::from_u64(u64::MAX);
        }
    }
}

/// How long to wait after such an end; `None`: another attempt would end the same way.
fn retry_delay(failure: Failure) -> Option<Nanos> {
    match failure {
        Failure::Code(number) => match Code::from_number(u64::from(number)) {
            // A new token is made for each attempt.
            Some(Code::TokenExpired) => Some(0),
            Some(code) => match code.retry() {
                Retry::After(delay) => Some(length(delay)),
                Retry::No => None,
            },
            None if (300..400).contains(&number) => Some(SECOND),
            None => None,
        },
        Failure::NoToken => None,
        // A refusal by TLS stays one; what is not the peer's word may pass.
        Failure::Transport(code) => (!(0x100..0x200).contains(&code)).then_some(0),
        _ => Some(0),
    }
}
