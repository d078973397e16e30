//! What sessions hear on their live streams: checked, recorded, acknowledged.

use std::cmp::Reverse;

use bytes::Bytes;
use skein_protocol::frame::Decoder;
use skein_protocol::wire::{self, client_frame};
use skein_transport::{Io, VarInt};

use super::session::{Flags, State};
use super::shard::{ACK_LATER, ACK_SOON, Shard, Task};
use super::traffic::MessageId;
use super::wire::{Kind, Message, ServerFrame};
use crate::clock::{self, Nanos, SECOND};
use crate::operation::{Failure, Operation};
use crate::verify::{Arrival, Seen, Stamp};

/// A gap is looked after when what is on its way has had time to come.
const MEND_AFTER: Nanos = SECOND / 5;

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Push,
    Pull,
}

impl Shard {
    /// Bytes of the live stream.
    pub(super) fn hear(&mut self, io: &mut Io<'_>, index: u32, bytes: Bytes) {
        let session = &mut self.sessions[index as usize];
        session.flags.clear(Flags::PINGED);
        let conn = session.conn;
        let mut decoder = session
            .reading
            .as_mut()
            .map_or_else(Decoder::new, |reading| std::mem::take(&mut reading.live));
        decoder.push(bytes);
        loop {
            match decoder.poll::<ServerFrame>(self.terms.max_frame) {
                Ok(Some(frame)) => {
                    if let Some(kind) = frame.kind {
                        self.handle(io, index, kind);
                    }
                    // What was heard may have ended the session.
                    if self.sessions[index as usize].conn != conn {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let code = VarInt::from_u32(error.code().number());
                    io.close(conn, code, b"");
                    let words = error.to_string();
                    return self.ended(io, index, Failure::BadAnswer, words, None);
                }
            }
        }
        let session = &mut self.sessions[index as usize];
        if decoder.held() > 0 {
            session.reading.get_or_insert_default().live = decoder;
        } else if session.reading.as_ref().is_some_and(|reading| reading.bulk.is_none()) {
            session.reading = None;
        }
    }

    fn handle(&mut self, io: &mut Io<'_>, index: u32, kind: Kind) {
        if self.sessions[index as usize].state == State::Greeting {
            return match kind {
                Kind::Welcome(welcome) => self.handle_welcome(io, index, &welcome),
                // Says why; the close with the same code follows.
                Kind::Error(_) | Kind::GoAway(_) => {}
                _ => self.break_off(io, index, Failure::BadAnswer),
            };
        }
        match kind {
            Kind::SendAck(ack) => self.handle_ack(io, index, &ack),
            Kind::Push(push) => {
                let now = clock::now();
                for message in &push.messages {
                    self.take_in(index, message, Via::Push, now);
                }
                self.say_delivered_soon(index, now);
            }
            Kind::Error(error) => self.handle_refusal(io, index, &error),
            Kind::Behind(behind) => self.handle_behind(io, index, &behind),
            Kind::GoAway(notice) => self.handle_go_away(io, index, &notice),
            Kind::Ping(ping) => {
                self.say(io, index, client_frame::Kind::Pong(wire::Pong { nonce: ping.nonce }));
            }
            Kind::TokenRefreshed(_) => {}
            Kind::Welcome(_) | Kind::HeadsPage(_) | Kind::PullPage(_) => {
                self.break_off(io, index, Failure::BadAnswer);
            }
        }
    }

    /// One message came to a session: is it the right one, at the right place, unchanged?
    pub(super) fn take_in(&mut self, index: u32, message: &Message, via: Via, now: Nanos) {
        let line = self.sessions[index as usize].line;
        let id = MessageId::parse(&message.client_msg_id);
        let Some(id) = id.filter(|id| id.mark == self.context.mark) else {
            self.book.ledger.found.foreign += 1;
            return;
        };
        let channel = self.channel_of(id.channel);
        let Some(channel) = channel.filter(|channel| self.hears(line, *channel)) else {
            // A backlog is checked where its reader asks for it.
            let is_for_it = channel.is_some_and(|channel| self.is_for(line, channel));
            self.book.ledger.found.misdelivered += u64::from(!is_for_it);
            return;
        };
        let stamp =
            Stamp { run: self.context.mark, stream: id.channel, intended: 0, counter: id.counter };
        let read = Stamp::read(&message.payload).map(|read| Stamp { intended: 0, ..read });
        let intact = read == Some(stamp);
        self.learn(line, &message.conversation);
        let receiver = &mut self.lines[line as usize].receiver;
        let ledger = &mut self.book.ledger;
        let seen = match via {
            Via::Push => receiver.pushed(message.seq, ledger),
            Via::Pull => receiver.pulled(message.seq, ledger),
        };
        if seen == Seen::First {
            if !intact {
                self.book.ledger.found.corrupted += 1;
            }
            // One's own message comes back only to a session that did not see its answer.
            if self.channels[channel as usize].line != line {
                self.arrived(index, channel, id.counter, message.seq, now);
            }
        }
        if self.lines[line as usize].receiver.gap().is_some() {
            self.plan_mend(line, now + MEND_AFTER);
        }
    }

    /// Whether a line is of the conversation that a channel writes to, and checks what comes.
    fn hears(&self, line: u32, channel: u32) -> bool {
        let writer = self.channels[channel as usize].line;
        let place = self.lines.get(line as usize);
        place.is_some_and(|one| (one.first..one.first + one.count).contains(&writer))
    }

    /// Whether what is written to a channel is meant for a line: both are of the same two users.
    fn is_for(&self, line: u32, channel: u32) -> bool {
        let users = |line: u32| {
            let place = self.lines.get(line as usize)?;
            let (own, peer) = (self.sessions[place.session as usize].user, place.peer);
            Some((own.min(peer), own.max(peer)))
        };
        let of_line = users(line);
        of_line.is_some() && of_line == users(self.channels[channel as usize].line)
    }

    fn arrived(&mut self, index: u32, channel: u32, counter: u32, seq: u64, now: Nanos) {
        let stream = &mut self.channels[channel as usize].stream;
        let arrival = stream.arrived(counter, seq, &mut self.book.ledger);
        let Arrival::New { times, complete } = arrival else { return };
        let session = &self.sessions[index as usize];
        let present = Nanos::from(session.since) * (SECOND / 1000) <= times.intended;
        // Who was away, or reads once in a while, does not tell the target's time; nor does it where
        // it is the last of many.
        let is_timed = present && !session.flags.has(Flags::SLOW);
        let place = &self.lines[self.channels[channel as usize].line as usize];
        let is_last_of_many = complete && place.count > 2;
        for operation in
            [Operation::Deliver].into_iter().chain(is_last_of_many.then_some(Operation::FanOut))
        {
            match is_timed {
                true => self.book.success(operation, times.intended, times.sent, now),
                false => self.book.untimed(operation, times.intended),
            }
        }
    }

    /// The gateway left pushes out, or the conversation grew while we were away.
    fn handle_behind(&mut self, io: &mut Io<'_>, index: u32, behind: &wire::Behind) {
        let line = self.sessions[index as usize].line;
        let Some(place) = self.lines.get(line as usize) else { return };
        let position = place.receiver.position();
        let concerned = behind.heads.is_empty()
            || behind
                .heads
                .iter()
                .any(|head| head.conversation[..] == place.conversation && head.seq > position);
        if concerned {
            self.catch_up(io, line);
        }
    }

    /// A look at the line's gap at this time.
    pub(super) fn plan_mend(&mut self, line: u32, at: Nanos) {
        let place = &mut self.lines[line as usize];
        if !place.mending {
            place.mending = true;
            self.tasks.push(Reverse((at, Task::Mend(line))));
        }
    }

    /// Keeps the conversation's id, which the gateway makes.
    pub(super) fn learn(&mut self, line: u32, conversation: &[u8]) {
        let place = &mut self.lines[line as usize];
        if place.conversation[0] == 0
            && let Ok(id) = conversation.try_into()
        {
            place.conversation = id;
        }
    }

    // ---- Delivered

    fn say_delivered_soon(&mut self, index: u32, now: Nanos) {
        let flags = &mut self.sessions[index as usize].flags;
        if !flags.has(Flags::ACK_SOON) {
            flags.set(Flags::ACK_SOON);
            self.acks_soon.push_back((now + ACK_SOON, index));
        }
    }

    pub(super) fn say_delivered_later(&mut self, index: u32) {
        let flags = &mut self.sessions[index as usize].flags;
        if !flags.has(Flags::ACK_SOON) && !flags.has(Flags::ACK_LATER) {
            flags.set(Flags::ACK_LATER);
            self.acks_later.push_back((clock::now() + ACK_LATER, index));
        }
    }

    /// Everything up to the position has come.
    pub(super) fn say_delivered(&mut self, io: &mut Io<'_>, index: u32) {
        let session = &mut self.sessions[index as usize];
        let due = session.flags.has(Flags::ACK_SOON) || session.flags.has(Flags::ACK_LATER);
        session.flags.clear(Flags::ACK_SOON | Flags::ACK_LATER);
        let Some(place) = self.lines.get(session.line as usize) else { return };
        let silent = session.flags.has(Flags::SILENT);
        if !due || silent || session.state != State::Live || place.conversation[0] == 0 {
            return;
        }
        let cursor = wire::Cursor {
            conversation: Bytes::copy_from_slice(&place.conversation),
            seq: place.receiver.position(),
        };
        let delivered = wire::Delivered { cursors: vec![cursor] };
        self.say(io, index, client_frame::Kind::Delivered(delivered));
    }
}
