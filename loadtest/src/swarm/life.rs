//! A session goes on and ends: it is heard, it is lost, it is told to go, it comes back.

use std::cmp::Reverse;

use bytes::Bytes;
use skein_protocol::close::told_delay;
use skein_protocol::codes::Retry;
use skein_protocol::wire::{self, client_frame};
use skein_protocol::{Code, frame};
use skein_transport::{CloseReason, Io, VarInt};

use super::Probe;
use super::session::{Entry, Flags, Session, State, live_stream};
use super::shard::Shard;
use crate::clock::{self, Nanos, SECOND, length};
use crate::identity::{RENEW_BEFORE, Request};
use crate::operation::{Failure, Operation};
use crate::plan::SLOW_READ;

/// First and longest step of the backoff (docs/protocol.md section 9).
const BACKOFF: (Nanos, Nanos) = (SECOND / 2, 30 * SECOND);

/// Longest wait that a gateway can ask for.
const MAX_DELAY: Nanos = 3600 * SECOND;

const MS: Nanos = 1_000_000;

impl Shard {
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
        if session.state == State::Greeting {
            // Nobody says Welcome.
            return self.break_off(io, index, Failure::TimedOut);
        }
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
        let evicted = session.flags.has(Flags::SILENT)
            && failure == Failure::Code(Code::HeartbeatTimeout.number());
        let expected = share.cut || evicted || session.flags.has(Flags::GOING) && delay.is_some();
        let (held, receives) = (share.held, share.receivers.contains(&index));
        if expected {
            self.book.tally.expected += 1;
        } else {
            self.book.tally.lost += 1;
            self.book.end(failure);
        }
        self.writes_are_lost(index);
        self.forget(index);
        if receives {
            return self.set_state(index, State::Idle);
        }
        self.set_state(index, State::Away);
        let delay = delay.or(retry_delay(failure, &words)).unwrap_or(0);
        let due = now + delay.min(MAX_DELAY);
        // One that was silent was not to go on: another one comes in its place.
        let resume_since = (!evicted).then_some(due);
        self.sessions[index as usize].entry =
            Some(Box::new(Entry { resume_since, ..Entry::default() }));
        if !held && retry_delay(failure, &words).is_some() {
            let at = due + self.backoff(index);
            self.dials.push(Reverse((at, index)));
        }
    }

    pub(super) fn attempt_failed(
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
        // A return is measured as a whole, over all its attempts.
        if session.entry.as_ref().is_none_or(|entry| entry.resume_since.is_none()) {
            self.book.failure(operation, intended, failure);
        }
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
        if let Some(delay) = retry_delay(failure, &words)
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
                State::Away => &mut tally.away,
                State::Idle => return,
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

/// How long to wait after such an end, as the peer's words or its code say; `None`: another attempt
/// would end the same way.
fn retry_delay(failure: Failure, words: &str) -> Option<Nanos> {
    match failure {
        Failure::Code(number) => match Code::from_number(u64::from(number)) {
            // A new token is made for each attempt.
            Some(Code::TokenExpired) => Some(0),
            Some(code) => match code.retry() {
                Retry::After(delay) => {
                    Some(length(told_delay(words).unwrap_or(delay)).min(MAX_DELAY))
                }
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
