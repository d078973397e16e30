//! What the conductor says, and what a shard does about it.

use skein_transport::Io;

use super::session::{Job, NONE, State};
use super::settle::receivers_of;
use super::shard::{SWEEP_EVERY, Shard};
use super::traffic::ENDLESS;
use super::{CutHow, Order};
use crate::clock::{self, Nanos, SECOND};
use crate::operation::{Failure, Operation};
use crate::plan::Work;
use crate::schedule::Due;

impl Shard {
    /// Does what the conductor says.
    pub(super) fn obey(&mut self, io: &mut Io<'_>, order: Order) {
        let now = clock::now();
        match order {
            Order::Probe(answer) => {
                self.probe = Some(answer);
                match self.shares.iter().find(|share| !share.sessions.is_empty()) {
                    Some(share) => self.dial(io, share.sessions.start, now),
                    None => self.probed(io, NONE, Ok(self.room())),
                }
            }
            Order::Begin(start) => {
                self.next_report = Some((start + SECOND, 0));
                self.next_sweep = start + SWEEP_EVERY;
            }
            Order::Tokens(tokens) => {
                tokens.into_iter().for_each(|token| self.handle_token(io, token));
            }
            Order::Ramp(part) => self.ramp(now, part),
            Order::EndRamp => self.end_ramp(),
            Order::Fill => self.fill(io),
            Order::Load(from) => self.begin_load(io, from),
            Order::Window(window) => self.book.window = window,
            Order::Rate { fleet, per_second, from } => {
                self.settle(io, fleet, now);
                let share = &mut self.shares[fleet];
                share.sends.set_rate(from, per_second * share.part);
            }
            Order::Quiet => self.quiet(io, now),
            Order::Cut { fleet, how } => self.cut(io, fleet, how == CutHow::Close),
            Order::Return { fleet, from } => self.bring_back(fleet, from),
            Order::Settle => self.settle_messages(),
            Order::Finish => self.finish(),
        }
    }

    fn ramp(&mut self, now: Nanos, part: f64) {
        for share in &mut self.shares {
            let fleet = &self.context.plan.fleets[share.fleet];
            let count = (share.sessions.len() as f64 * part.clamp(0.0, 1.0)).ceil() as u32;
            share.dial.end = share.sessions.start + count;
            let rate = fleet.connect_rate * share.part;
            share.connects.set_rate(now, if share.dial.is_empty() { 0.0 } else { rate });
        }
    }

    fn end_ramp(&mut self) {
        for share in &mut self.shares {
            share.dial.start = share.dial.end;
            share.connects.set_rate(0, 0.0);
        }
    }

    fn begin_load(&mut self, io: &mut Io<'_>, from: Nanos) {
        for index in 0..self.shares.len() {
            let rate = self.shares[index].send_rate(self.work(index).traffic());
            let logins = match *self.work(index) {
                Work::Churn { rate, .. } => rate,
                Work::Sync { login_rate, .. } => login_rate,
                _ => 0.0,
            };
            let share = &mut self.shares[index];
            share.turn = 0;
            share.sends.set_rate(from, rate);
            share.connects.set_rate(from, logins * share.part);
            share.writes = true;
            if rate <= 0.0 && share.outstanding > 0 && self.work(index).traffic().is_some() {
                self.begin_closed_loop(io, index, ENDLESS);
            }
        }
    }

    fn quiet(&mut self, io: &mut Io<'_>, now: Nanos) {
        for index in 0..self.shares.len() {
            self.settle(io, index, now);
            let share = &mut self.shares[index];
            if let Some(Due::Dropped { count, first, last }) = share.connects.drop_until(now) {
                // Sessions that could not even be begun, because too many are being made.
                self.book.dropped(Operation::Connect, count, first, last);
            }
            share.sends.set_rate(0, 0.0);
            share.connects.set_rate(0, 0.0);
            share.writes = false;
        }
    }

    fn finish(&mut self) {
        self.close_books();
        self.stop_writing();
        for channel in &mut self.channels {
            let mut expired = Vec::new();
            let ledger = &mut self.book.ledger;
            channel.stream.expire(Nanos::MAX, ledger, |times| expired.push(times));
            let lines = &self.lines;
            let unsure = |seq| {
                let cannot_tell = |line: &u32| !lines[*line as usize].receiver.can_tell(seq);
                receivers_of(channel.line, lines).filter(cannot_tell).count() as u32
            };
            channel.stream.close(unsure, ledger);
            for times in expired {
                self.book.failure(Operation::SendAck, times.intended, Failure::TimedOut);
            }
        }
        let second = self.next_report.take().map_or(0, |next| next.1);
        let report = self.book.report(self.context.place.shard, second, true);
        let _ = self.context.reports.send(report);
    }

    /// What has not ended has failed: nobody may think that it did not count.
    fn close_books(&mut self) {
        let now = clock::now();
        let failure = Failure::TimedOut;
        for (index, session) in self.sessions.iter().enumerate() {
            let reads = self.shares[session.share as usize].receivers.contains(&(index as u32));
            let is_made = matches!(session.state, State::Connecting | State::Greeting);
            if let Some(bulk) = session.reading.as_ref().and_then(|one| one.bulk.as_ref())
                && let Job::Heads(sync) | Job::Backlog(sync) = &bulk.job
            {
                self.book.failure(Operation::Sync, sync.intended, failure);
            }
            let Some(entry) = session.entry.as_ref() else { continue };
            match (entry.resume_since, session.state) {
                (Some(since), State::Away | State::Connecting | State::Greeting)
                    if since <= now
                        || matches!(self.work(session.share as usize), Work::Storm { .. }) =>
                {
                    self.book.failure(Operation::Resume, since.min(now), failure);
                }
                (None, State::Connecting) => {
                    self.book.failure(Operation::Connect, entry.intended, failure);
                }
                (None, State::Greeting) => {
                    self.book.failure(Operation::Login, entry.connected, failure);
                }
                _ => {}
            }
            if reads && is_made {
                self.book.failure(Operation::Sync, entry.intended, failure);
            }
        }
    }
}
