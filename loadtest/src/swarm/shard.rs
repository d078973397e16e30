//! One shard: calls from the transport and orders in, everything else by way of its parts.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skein_protocol::limits;
use skein_transport::{CloseReason, ConnId, Driver, Io, Read, StreamId, VarInt};

use super::book::Book;
use super::layout::{Share, Tables};
use super::session::{Channel, Flags, Line, Session, State, live_stream};
use super::tickets::Tickets;
use super::{Context, Order, Probe, Room};
use crate::clock::{self, Nanos, SECOND, length};
use crate::operation::{Failure, Operation};
use crate::plan::Work;
use crate::schedule::Due;

/// Things of the timetable that are begun in one turn; what else is due waits until what has
/// arrived was read. A message takes a few microseconds.
const A_TURN: usize = 128;

/// How often streams are searched for answers that did not come; a tenth of them at a time.
pub(super) const SWEEP_EVERY: Nanos = SECOND / 10;

/// What has not arrived this long after it was written is not kept in mind any more: it counts as
/// lost, until it comes. Otherwise one missing message would make a stream keep all that follow it.
const GIVE_UP_AFTER: Nanos = 120 * SECOND;

/// `Delivered` waits this long for company (docs/protocol.md section 7).
pub(super) const ACK_SOON: Nanos = SECOND / 50;
/// For one's own messages alone.
pub(super) const ACK_LATER: Nanos = 2 * SECOND;

/// What is done at a time of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// A line looks after its gap.
    Mend(u32),
    /// A line asks for everything that it does not have.
    Catch(u32),
    /// A line of a closed loop writes again after a refusal.
    Write(u32),
    /// Who misses something at the end asks for it.
    Ask,
}

/// What the gateway said of itself in `Welcome`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) heartbeat: Nanos,
    pub(super) max_frame: usize,
    pub(super) max_payload: usize,
    pub(super) max_unacked: u32,
    pub(super) epoch: u64,
}

/// See the module's words.
pub(super) struct Shard {
    pub(super) context: Context,
    pub(super) sessions: Vec<Session>,
    pub(super) lines: Vec<Line>,
    pub(super) channels: Vec<Channel>,
    pub(super) shares: Vec<Share>,
    /// Session of each connection, by slot.
    pub(super) by_slot: Vec<u32>,
    pub(super) book: Book,
    pub(super) terms: Terms,
    pub(super) random: SmallRng,
    /// Sessions that are to be connected (again), by time.
    pub(super) dials: BinaryHeap<Reverse<(Nanos, u32)>>,
    pub(super) tasks: BinaryHeap<Reverse<(Nanos, Task)>>,
    /// Sessions whose `Delivered` is due, in order of time.
    pub(super) acks_soon: VecDeque<(Nanos, u32)>,
    pub(super) acks_later: VecDeque<(Nanos, u32)>,
    /// Only in a run whose sessions resume with their own.
    pub(super) tickets: Option<Tickets>,
    pub(super) probe: Option<std::sync::mpsc::SyncSender<Result<Room, Probe>>>,
    /// Of this shard.
    pub(super) max_connecting: u64,
    pub(super) scratch: Vec<u8>,
    /// When the next report is due, and about which second.
    pub(super) next_report: Option<(Nanos, u32)>,
    pub(super) next_sweep: Nanos,
    /// The end has come: what is missing is asked for.
    pub(super) settles: bool,
    swept: usize,
}

impl Shard {
    pub(super) fn new(context: Context, tables: Tables, tickets: Option<Tickets>) -> Self {
        let shards = context.place.shards as u64;
        let max_connecting = (context.plan.max_connecting as u64).div_ceil(shards).max(1);
        let seed = context.plan.seed ^ (context.place.shard as u64).wrapping_mul(0x9e37_79b9);
        Self {
            sessions: tables.sessions,
            lines: tables.lines,
            channels: tables.channels,
            shares: tables.shares,
            by_slot: Vec::new(),
            book: Book::default(),
            terms: Terms {
                heartbeat: length(limits::DEFAULT_HEARTBEAT_INTERVAL),
                max_frame: limits::DEFAULT_MAX_FRAME_BYTES,
                max_payload: limits::DEFAULT_MAX_PAYLOAD_BYTES,
                max_unacked: limits::DEFAULT_MAX_UNACKED_SENDS,
                epoch: 0,
            },
            random: SmallRng::seed_from_u64(seed),
            dials: BinaryHeap::new(),
            tasks: BinaryHeap::new(),
            acks_soon: VecDeque::new(),
            acks_later: VecDeque::new(),
            tickets,
            probe: None,
            max_connecting,
            scratch: Vec::new(),
            next_report: None,
            next_sweep: 0,
            settles: false,
            swept: 0,
            context,
        }
    }

    /// The session of a connection, unless it has another one by now.
    fn session_of(&self, conn: ConnId) -> Option<u32> {
        let index = *self.by_slot.get(conn.slot())?;
        let session = self.sessions.get(index as usize)?;
        (session.conn == conn && session.state != State::Idle && session.state != State::Away)
            .then_some(index)
    }

    pub(super) fn work(&self, share: usize) -> &Work {
        &self.context.plan.fleets[self.shares[share].fleet].work
    }

    fn may_dial(&self) -> bool {
        self.book.tally.connecting < self.max_connecting
    }

    fn report(&mut self, now: Nanos) {
        while let Some((at, second)) = self.next_report
            && at <= now
        {
            if self.settles {
                self.book.tally.unsettled = Some(self.unsettled().count() as u64);
            }
            let mut report = self.book.report(self.context.place.shard, second, false);
            report.behind = now - at;
            // Nobody listens any more once the run is over.
            let _ = self.context.reports.send(report);
            self.next_report = Some((at + SECOND, second + 1));
        }
    }

    /// What is due of the timetable.
    fn begin_due(&mut self, io: &mut Io<'_>, now: Nanos) {
        for index in 0..self.shares.len() {
            for _ in 0..A_TURN {
                let Some(due) = self.shares[index].sends.poll(now) else { break };
                self.begin_message(io, index, due);
            }
        }
        for index in 0..self.shares.len() {
            for _ in 0..A_TURN {
                if !self.may_dial() {
                    return;
                }
                let Some(due) = self.shares[index].connects.poll(now) else { break };
                match due {
                    Due::Begin { intended, late } => {
                        if late {
                            self.book.late(Operation::Connect, intended);
                        }
                        self.session_is_due(io, index, intended);
                    }
                    Due::Dropped { count, first, last } => {
                        self.book.dropped(Operation::Connect, count, first, last);
                    }
                }
            }
        }
        while self.may_dial()
            && let Some(&Reverse((at, session))) = self.dials.peek()
            && at <= now
        {
            self.dials.pop();
            self.dial_again(io, session, at);
        }
    }

    fn begin_message(&mut self, io: &mut Io<'_>, share: usize, due: Due) {
        match due {
            Due::Begin { intended, late } => {
                if late {
                    self.book.late(Operation::SendAck, intended);
                }
                self.message_is_due(io, share, intended);
            }
            Due::Dropped { count, first, last } => {
                self.book.dropped(Operation::SendAck, count, first, last);
            }
        }
    }

    /// Before a timetable changes: what was due is begun, or dropped. A generator that is behind
    /// must not forget it.
    pub(super) fn settle(&mut self, io: &mut Io<'_>, share: usize, now: Nanos) {
        while let Some(due) = self.shares[share].sends.poll(now) {
            self.begin_message(io, share, due);
        }
    }

    fn do_tasks(&mut self, io: &mut Io<'_>, now: Nanos) {
        while let Some((_, session)) = self.acks_soon.pop_front_if(|(at, _)| *at <= now) {
            self.say_delivered(io, session);
        }
        while let Some((_, session)) = self.acks_later.pop_front_if(|(at, _)| *at <= now) {
            self.say_delivered(io, session);
        }
        while let Some(&Reverse((at, task))) = self.tasks.peek()
            && at <= now
        {
            self.tasks.pop();
            match task {
                Task::Mend(line) => self.mend(io, line),
                Task::Catch(line) => self.catch_up(io, line),
                Task::Write(line) => self.write_more(io, line),
                Task::Ask => self.ask_for_missing(io),
            }
        }
        if self.next_sweep <= now && self.next_sweep != 0 {
            self.next_sweep = now + SWEEP_EVERY;
            self.sweep(now);
        }
    }

    /// Looks at a tenth of the streams for answers that have not come in time.
    fn sweep(&mut self, now: Nanos) {
        let limit = length(self.context.plan.answer_timeout);
        let Some(before) = now.checked_sub(limit) else { return };
        let forget = now.saturating_sub(limit.saturating_mul(2).max(GIVE_UP_AFTER));
        for _ in 0..self.channels.len().div_ceil(10) {
            self.swept = (self.swept + 1) % self.channels.len();
            let channel = &mut self.channels[self.swept];
            let line = &mut self.lines[channel.line as usize];
            let book = &mut self.book;
            let mut expired = Vec::new();
            channel.stream.expire(before, &mut book.ledger, |times| expired.push(times.intended));
            channel.stream.give_up(forget, &mut book.ledger);
            while let Some(intended) = line.backlog.pop_front_if(|intended| *intended < before) {
                book.tally.queued -= 1;
                book.held_back(Operation::SendAck, intended, now);
                expired.push(intended);
            }
            for intended in expired {
                book.failure(Operation::SendAck, intended, Failure::TimedOut);
            }
        }
    }

    /// Reads all that a stream has.
    fn read(&mut self, io: &mut Io<'_>, index: u32, conn: ConnId, stream: StreamId) {
        loop {
            match io.read(conn, stream) {
                Read::Chunk(bytes) if stream == live_stream() => self.hear(io, index, bytes),
                Read::Chunk(bytes) => self.hear_bulk(io, index, stream, bytes),
                Read::Fin if stream != live_stream() => self.bulk_ended(io, index, stream, None),
                Read::Reset(code) if stream != live_stream() => {
                    self.bulk_ended(io, index, stream, Some(code));
                }
                // The gateway never ends the live stream alone; a close follows.
                Read::Fin | Read::Reset(_) => {}
                Read::Blocked => return,
            }
            // What was heard may have ended the session.
            if self.sessions[index as usize].conn != conn {
                return;
            }
        }
    }

    /// A random time up to `most`.
    pub(super) fn jitter(&mut self, most: Nanos) -> Nanos {
        if most == 0 { 0 } else { self.random.random_range(0..=most) }
    }
}

impl Driver for Shard {
    type Mail = Order;

    fn on_connected(&mut self, io: &mut Io<'_>, conn: ConnId) {
        match self.session_of(conn) {
            Some(index) => self.handle_connected(io, index),
            None => io.close(conn, VarInt::from_u32(0), b""),
        }
    }

    fn on_stream_opened(&mut self, _io: &mut Io<'_>, _conn: ConnId, _stream: StreamId) {}

    fn on_readable(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        let Some(index) = self.session_of(conn) else { return };
        let session = &mut self.sessions[index as usize];
        if session.flags.has(Flags::SLOW) && session.state == State::Live && stream == live_stream()
        {
            if !session.flags.has(Flags::UNREAD) {
                session.flags.set(Flags::UNREAD);
                self.set_timer(io, index);
            }
            return;
        }
        self.read(io, index, conn, stream);
    }

    fn on_writable(&mut self, _io: &mut Io<'_>, _conn: ConnId) {}

    fn on_timer(&mut self, io: &mut Io<'_>, conn: ConnId) {
        let Some(index) = self.session_of(conn) else { return };
        let session = &mut self.sessions[index as usize];
        if session.flags.has(Flags::UNREAD) {
            session.flags.clear(Flags::UNREAD);
            self.read(io, index, conn, live_stream());
            if self.sessions[index as usize].conn != conn {
                return;
            }
        }
        self.beat(io, index);
    }

    fn on_closed(&mut self, io: &mut Io<'_>, conn: ConnId, reason: CloseReason) {
        if let Some(index) = self.session_of(conn) {
            self.handle_closed(io, index, reason);
        }
    }

    fn on_mail(&mut self, io: &mut Io<'_>, order: Order) {
        self.obey(io, order);
    }

    fn next_tick(&self) -> Option<Instant> {
        let may_dial = self.may_dial();
        let connects = self.shares.iter().filter(|_| may_dial).filter_map(|s| s.connects.next());
        let sends = self.shares.iter().filter_map(|share| share.sends.next());
        let dial = self.dials.peek().filter(|_| may_dial).map(|next| next.0.0);
        let others = [
            dial,
            self.tasks.peek().map(|next| next.0.0),
            self.acks_soon.front().map(|next| next.0),
            self.acks_later.front().map(|next| next.0),
            self.next_report.map(|next| next.0),
            (self.next_sweep != 0 && !self.channels.is_empty()).then_some(self.next_sweep),
        ];
        let next = sends.chain(connects).chain(others.into_iter().flatten()).min();
        next.map(clock::instant)
    }

    fn on_tick(&mut self, io: &mut Io<'_>) {
        let now = clock::now();
        self.begin_due(io, now);
        self.do_tasks(io, now);
        self.report(now);
    }
}
