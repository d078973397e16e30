//! Writing messages, and what is answered.

use std::cmp::Reverse;
use std::io::Write as _;

use bytes::Bytes;
use rand::RngExt as _;
use skein_protocol::{frame, wire};
use skein_transport::{Io, WriteError};

use super::session::{Channel, Flags, NONE, State};
use super::shard::{Shard, Task};
use super::wire::{Send, SendAck, SendFrame};
use crate::clock::{self, Nanos, SECOND, length};
use crate::operation::{Failure, Operation};
use crate::plan::Work;
use crate::verify::{Acked, Stamp, Times};

/// Messages of one writer that wait because as many as the gateway allows are unanswered. They keep
/// their intended starts. More than this many fail.
const MAX_BACKLOG: usize = 1 << 14;

/// Messages of a closed loop that goes on as long as the load does.
pub(super) const ENDLESS: u32 = u32::MAX;

/// Least wait of a closed loop after a refusal that names none.
const REFUSED: Nanos = SECOND / 1000;

/// What identifies a message on the wire: the run, the stream, the place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageId {
    pub(super) mark: u64,
    pub(super) channel: u64,
    pub(super) counter: u32,
}

impl MessageId {
    fn text(self) -> Bytes {
        let mut text = Vec::with_capacity(40);
        // Writing to memory does not fail.
        let _ = write!(text, "{:x}-{:x}-{:x}", self.mark, self.channel, self.counter);
        text.into()
    }

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.split('-');
        let mut next = || u64::from_str_radix(parts.next()?, 16).ok();
        let (mark, channel, counter) = (next()?, next()?, next()?);
        Some(Self { mark, channel, counter: u32::try_from(counter).ok()? })
    }
}

impl Shard {
    /// The number of a stream among all shards.
    pub(super) fn channel_number(&self, channel: u32) -> u64 {
        (self.context.place.shard as u64) << 32 | u64::from(channel)
    }

    /// One of our streams by its number among all.
    pub(super) fn channel_of(&self, number: u64) -> Option<u32> {
        let channel = number as u32;
        let ours = number == self.channel_number(channel);
        (ours && (channel as usize) < self.channels.len()).then_some(channel)
    }

    // ---- open loop

    /// The timetable says that a fleet writes.
    pub(super) fn message_is_due(&mut self, io: &mut Io<'_>, share: usize, intended: Nanos) {
        let one = &mut self.shares[share];
        if one.writers.is_empty() {
            return;
        }
        let at = if one.draws {
            self.random.random_range(0..one.writers.len())
        } else {
            one.turn = (one.turn + 1) % one.writers.len();
            one.turn
        };
        let line = one.writers[at];
        let place = &mut self.lines[line as usize];
        let session = &self.sessions[place.session as usize];
        let ready = session.state == State::Live && !session.flags.has(Flags::GOING);
        let waiting = self.channels[place.channel as usize].stream.waiting();
        if !ready {
            self.book.failure(Operation::SendAck, intended, Failure::SessionEnded);
        } else if waiting < self.terms.max_unacked && place.backlog.is_empty() {
            self.send(io, line, intended);
        } else if place.backlog.len() < MAX_BACKLOG {
            place.backlog.push_back(intended);
            self.book.tally.queued += 1;
        } else {
            self.book.failure(Operation::SendAck, intended, Failure::WindowFull);
        }
    }

    // ---- closed loop

    /// Every writer has as many under way as it shall, up to `count` messages in all.
    pub(super) fn begin_closed_loop(&mut self, io: &mut Io<'_>, share: usize, count: u32) {
        for at in 0..self.shares[share].writers.len() {
            let line = self.shares[share].writers[at];
            self.lines[line as usize].left = count;
            self.write_more(io, line);
        }
    }

    /// The backlogs of a sync are written.
    pub(super) fn fill(&mut self, io: &mut Io<'_>) {
        for share in 0..self.shares.len() {
            if let Work::Sync { backlog, .. } = *self.work(share) {
                let count = u32::try_from(backlog).unwrap_or(ENDLESS).min(ENDLESS - 1);
                let writers = self.shares[share].writers.len() as u64;
                self.book.tally.fill_left += writers * u64::from(count);
                self.shares[share].writes = true;
                self.begin_closed_loop(io, share, count);
            }
        }
    }

    /// A line writes what its backlog or its closed loop has for it.
    pub(super) fn write_more(&mut self, io: &mut Io<'_>, line: u32) {
        loop {
            let place = &mut self.lines[line as usize];
            let session = &self.sessions[place.session as usize];
            if session.state != State::Live || session.flags.has(Flags::GOING) {
                return;
            }
            let share = &self.shares[session.share as usize];
            let waiting = self.channels[place.channel as usize].stream.waiting();
            let intended = if let Some(&intended) = place.backlog.front()
                && waiting < self.terms.max_unacked
            {
                place.backlog.pop_front();
                self.book.tally.queued -= 1;
                self.book.held_back(Operation::SendAck, intended, clock::now());
                intended
            } else if share.writes
                && place.left > 0
                && waiting < share.outstanding.min(self.terms.max_unacked)
            {
                if place.left != ENDLESS {
                    place.left -= 1;
                }
                clock::now()
            } else {
                return;
            };
            if !self.send(io, line, intended) {
                return;
            }
        }
    }

    /// A session is back: what waited for it goes on.
    pub(super) fn resume_writing(&mut self, io: &mut Io<'_>, index: u32) {
        let line = self.sessions[index as usize].line;
        if line != NONE && self.lines[line as usize].channel != NONE {
            self.write_more(io, line);
        }
    }

    // ----

    /// Writes one message. `false`: it could not be, and has been counted.
    fn send(&mut self, io: &mut Io<'_>, line: u32, intended: Nanos) -> bool {
        let now = clock::now();
        let place = &self.lines[line as usize];
        let (index, peer, channel) = (place.session, place.peer, place.channel);
        let stream = &mut self.channels[channel as usize].stream;
        if !stream.make_room() {
            // Only messages that were acknowledged and have not arrived are there.
            let before = now.saturating_sub(length(self.context.plan.answer_timeout));
            stream.give_up(before, &mut self.book.ledger);
            if !stream.make_room() {
                self.book.failure(Operation::SendAck, intended, Failure::WindowFull);
                return false;
            }
        }
        let counter = stream.next();
        let frame = self.encode(index, peer, channel, counter, intended);
        match self.write(io, index, frame) {
            Ok(()) => {
                let stream = &mut self.channels[channel as usize].stream;
                stream.sent(Times { intended, sent: now }, &mut self.book.ledger);
                true
            }
            Err(error) => {
                let failure = match error {
                    WriteError::Full => Failure::OutboxFull,
                    WriteError::Closed => Failure::SessionEnded,
                };
                self.book.failure(Operation::SendAck, intended, failure);
                false
            }
        }
    }

    fn encode(
        &mut self,
        index: u32,
        peer: u32,
        channel: u32,
        counter: u32,
        intended: Nanos,
    ) -> Bytes {
        let share = self.sessions[index as usize].share as usize;
        let lengths = match self.work(share) {
            Work::Sync { payload_bytes, .. } => payload_bytes.clone(),
            work => work.traffic().map_or(0..=0, |traffic| traffic.payload_bytes.clone()),
        };
        let length = match (*lengths.start(), *lengths.end()) {
            (least, most) if least < most => self.random.random_range(least..=most),
            (least, _) => least,
        };
        let number = self.channel_number(channel);
        let stamp = Stamp { run: self.context.mark, stream: number, intended, counter };
        self.scratch.clear();
        stamp.write(length as usize, &mut self.scratch);
        let payload = Bytes::copy_from_slice(&self.scratch);
        let mut name = String::new();
        self.context.users.name(peer, &mut name);
        let id = MessageId { mark: self.context.mark, channel: number, counter };
        let send = Send { to_user: name.into(), client_msg_id: id.text(), payload };
        frame::encode(&SendFrame { send: Some(send) })
    }

    /// A message is durable, says the gateway.
    pub(super) fn handle_ack(&mut self, io: &mut Io<'_>, index: u32, ack: &SendAck) {
        let now = clock::now();
        let line = self.sessions[index as usize].line;
        let id = MessageId::parse(&ack.client_msg_id)
            .filter(|id| id.mark == self.context.mark && line != NONE)
            .filter(|id| self.channel_of(id.channel) == Some(self.lines[line as usize].channel));
        let Some(id) = id else {
            self.book.ledger.found.false_acks += 1;
            return;
        };
        self.learn(line, &ack.conversation);
        let place = &mut self.lines[line as usize];
        place.receiver.own(ack.seq);
        let Channel { stream, first, .. } = &mut self.channels[place.channel as usize];
        let acked = stream.acked(id.counter, ack.seq, &mut self.book.ledger);
        if acked != Acked::False && (*first == 0 || ack.seq < *first) {
            *first = ack.seq;
        }
        match acked {
            Acked::Yes(times) => {
                // Who reads once in a while does not tell the target's time.
                match self.sessions[index as usize].flags.has(Flags::SLOW) {
                    true => self.book.untimed(Operation::SendAck, times.intended),
                    false => {
                        self.book.success(Operation::SendAck, times.intended, times.sent, now);
                    }
                }
                self.filled(index);
            }
            Acked::TooLate => self.filled(index),
            Acked::False => {}
        }
        self.say_delivered_later(index);
        if self.sessions[index as usize].flags.has(Flags::GOING) {
            return self.go_if_answered(io, index, 0);
        }
        self.write_more(io, line);
    }

    /// A message is refused.
    pub(super) fn handle_refusal(&mut self, io: &mut Io<'_>, index: u32, error: &wire::Error) {
        let line = self.sessions[index as usize].line;
        let id = MessageId::parse(error.client_msg_id.as_bytes())
            .filter(|id| id.mark == self.context.mark && line != NONE)
            .filter(|id| self.channel_of(id.channel) == Some(self.lines[line as usize].channel));
        let Some(id) = id else {
            // Not about a message.
            return self.book.end(Failure::Code(error.code));
        };
        let channel = self.lines[line as usize].channel;
        let stream = &mut self.channels[channel as usize].stream;
        if let Some(times) = stream.refused(id.counter, &mut self.book.ledger) {
            self.book.failure(Operation::SendAck, times.intended, Failure::Code(error.code));
        }
        let share = &self.shares[self.sessions[index as usize].share as usize];
        if share.outstanding > 0 {
            // Another in its place, not sooner than the gateway asks for.
            let left = &mut self.lines[line as usize].left;
            if *left != ENDLESS {
                *left = left.saturating_add(1).min(ENDLESS - 1);
            }
            let wait = Nanos::from(error.retry_after_ms) * (SECOND / 1000);
            self.tasks.push(Reverse((clock::now() + wait.max(REFUSED), Task::Write(line))));
        } else {
            self.write_more(io, line);
        }
    }

    /// The session of a writer has ended: what was not answered never will be.
    pub(super) fn writes_are_lost(&mut self, index: u32) {
        let line = self.sessions[index as usize].line;
        let Some(place) = self.lines.get_mut(line as usize).filter(|one| one.channel != NONE)
        else {
            return;
        };
        let mut failed: Vec<Nanos> = place.backlog.drain(..).collect();
        self.book.tally.queued -= failed.len() as u64;
        for &intended in &failed {
            self.book.held_back(Operation::SendAck, intended, clock::now());
        }
        let stream = &mut self.channels[place.channel as usize].stream;
        let mut again = 0u32;
        stream.expire(Nanos::MAX, &mut self.book.ledger, |times| {
            failed.push(times.intended);
            again += 1;
        });
        if place.left != ENDLESS && self.book.tally.fill_left > 0 {
            place.left = place.left.saturating_add(again).min(ENDLESS - 1);
        }
        for intended in failed {
            self.book.failure(Operation::SendAck, intended, Failure::SessionEnded);
        }
    }

    /// One more message of a backlog is there.
    fn filled(&mut self, index: u32) {
        let share = self.sessions[index as usize].share as usize;
        if matches!(self.work(share), Work::Sync { .. }) {
            self.book.tally.fill_left = self.book.tally.fill_left.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_messages_are_read_back_and_fit() {
        let id = MessageId { mark: u64::MAX, channel: 7 << 32 | 9, counter: u32::MAX };
        let text = id.text();
        assert!(text.len() <= skein_protocol::limits::MAX_CLIENT_MSG_ID_BYTES);
        assert_eq!(MessageId::parse(&text), Some(id));
        for wrong in [&b""[..], b"1-2", b"1-2-zz", b"\xff", b"1-2-fffffffff"] {
            assert_eq!(MessageId::parse(wrong), None);
        }
    }
}
