//! Requests on streams of their own: what a receiver misses, and whole backlogs.

use std::cmp::Reverse;

use bytes::Bytes;
use skein_protocol::Code;
use skein_protocol::frame::{self, Decoder};
use skein_protocol::wire::{self, client_frame, range};
use skein_transport::{Io, StreamId, VarInt};

use super::receive::Via;
use super::session::{Bulk, Job, NONE, State, Sync};
use super::shard::{Shard, Task};
use super::traffic::MessageId;
use super::wire::{HeadsPage, Kind, Message, PullPage, ServerFrame};
use crate::clock::{self, Nanos, SECOND};
use crate::operation::{Failure, Operation};
use crate::plan::Work;
use crate::verify::Stamp;

/// A gap that is still there after an answer is asked for again after this.
const AGAIN_AFTER: Nanos = 2 * SECOND;

impl Shard {
    // ---- what a receiver misses

    /// The line's time to look after its gap.
    pub(super) fn mend(&mut self, io: &mut Io<'_>, line: u32) {
        let place = &mut self.lines[line as usize];
        place.mending = false;
        if let Some((from, to)) = place.receiver.gap() {
            self.pull_soon(io, line, from, to);
        }
    }

    /// Asks for everything beyond the position.
    pub(super) fn catch_up(&mut self, io: &mut Io<'_>, line: u32) {
        let from = self.lines[line as usize].receiver.position() + 1;
        self.pull_soon(io, line, from, 0);
    }

    fn pull_soon(&mut self, io: &mut Io<'_>, line: u32, from: u64, to: u64) {
        if !self.pull(io, line, from, to) {
            self.tasks.push(Reverse((clock::now() + SECOND / 5, Task::Catch(line))));
        }
    }

    /// Asks for a part of the log; `to` 0: to its end. `false`: not now, an answer is under way.
    pub(super) fn pull(&mut self, io: &mut Io<'_>, line: u32, from: u64, to: u64) -> bool {
        let place = &mut self.lines[line as usize];
        let index = place.session;
        let session = &self.sessions[index as usize];
        if session.state != State::Live {
            // It asks when it is back.
            return true;
        }
        if session.reading.as_ref().is_some_and(|reading| reading.bulk.is_some()) {
            return false;
        }
        // Up to an unknown end: the answers say how far it was.
        place.receiver.ask(to);
        let target = if place.conversation[0] == 0 {
            let mut name = String::new();
            self.context.users.name(place.peer, &mut name);
            range::Target::WithUser(name)
        } else {
            range::Target::Conversation(Bytes::copy_from_slice(&place.conversation))
        };
        let one = wire::Range { target: Some(target), from, to, ..Default::default() };
        let request = client_frame::Kind::PullRequest(wire::PullRequest { ranges: vec![one] });
        self.request(io, index, request, Job::Mend { next: from, to, is_whole: false })
    }

    // ---- backlogs

    /// A user with a backlog has logged in.
    pub(super) fn begin_sync(&mut self, io: &mut Io<'_>, index: u32, intended: Nanos, now: Nanos) {
        let sync = Sync { intended, begun: now, ..Sync::default() };
        let request = client_frame::Kind::HeadsRequest(wire::HeadsRequest::default());
        if !self.request(io, index, request, Job::Heads(sync)) {
            self.sync_over(io, index, intended, Err(Failure::OutboxFull));
        }
    }

    fn ask_for_backlog(&mut self, io: &mut Io<'_>, index: u32, mut sync: Sync) {
        sync.is_whole = false;
        let writer = &self.lines[self.filler_of(index) as usize];
        let target = range::Target::Conversation(Bytes::copy_from_slice(&writer.conversation));
        let (from, to) = (sync.position + 1, sync.head);
        let one = wire::Range { target: Some(target), from, to, ..Default::default() };
        let request = client_frame::Kind::PullRequest(wire::PullRequest { ranges: vec![one] });
        let intended = sync.intended;
        if !self.request(io, index, request, Job::Backlog(sync)) {
            self.sync_over(io, index, intended, Err(Failure::OutboxFull));
        }
    }

    /// The user is done, one way or the other, and leaves.
    fn sync_over(
        &mut self,
        io: &mut Io<'_>,
        index: u32,
        intended: Nanos,
        result: Result<Nanos, Failure>,
    ) {
        match result {
            Ok(begun) => self.book.success(Operation::Sync, intended, begun, clock::now()),
            Err(failure) => self.book.failure(Operation::Sync, intended, failure),
        }
        self.book.tally.syncing = self.book.tally.syncing.saturating_sub(1);
        // Nothing that belongs to it is left that would be counted again.
        self.sessions[index as usize].reading = None;
        self.leave(io, index);
    }

    // ---- streams

    fn request(&mut self, io: &mut Io<'_>, index: u32, kind: client_frame::Kind, job: Job) -> bool {
        let session = &mut self.sessions[index as usize];
        let Some(stream) = io.open_bi(session.conn) else { return false };
        let bytes = frame::encode(&wire::ClientFrame { kind: Some(kind) });
        let written = io.write(session.conn, stream, bytes);
        if written.and_then(|()| io.finish(session.conn, stream)).is_err() {
            io.reset(session.conn, stream, VarInt::from_u32(0));
            return false;
        }
        session.said = (clock::nanos(io.now()) / 1_000_000) as u32;
        let bulk = Bulk { stream, decoder: Decoder::new(), job };
        session.reading.get_or_insert_default().bulk = Some(bulk);
        true
    }

    /// Bytes of an answer.
    pub(super) fn hear_bulk(
        &mut self,
        io: &mut Io<'_>,
        index: u32,
        stream: StreamId,
        bytes: Bytes,
    ) {
        let Some(mut bulk) = self.take_bulk(index, stream) else { return };
        bulk.decoder.push(bytes);
        loop {
            match bulk.decoder.poll::<ServerFrame>(self.terms.max_frame) {
                Ok(Some(frame)) => match frame.kind {
                    Some(Kind::HeadsPage(page)) => self.take_heads(index, &mut bulk.job, &page),
                    Some(Kind::PullPage(page)) => self.take_page(index, &mut bulk.job, &page),
                    // A refusal; the end of the stream follows.
                    Some(Kind::Error(error)) => bulk.job.refused(error.code),
                    _ => {}
                },
                Ok(None) => break,
                Err(_) => return self.break_off(io, index, Failure::BadAnswer),
            }
        }
        if let Some(reading) = self.sessions[index as usize].reading.as_mut() {
            reading.bulk = Some(bulk);
        }
    }

    fn take_bulk(&mut self, index: u32, stream: StreamId) -> Option<Bulk> {
        let reading = self.sessions[index as usize].reading.as_mut()?;
        reading.bulk.take_if(|bulk| bulk.stream == stream)
    }

    /// An answer is over, whole or not; `code`: it was given up with this.
    pub(super) fn bulk_ended(
        &mut self,
        io: &mut Io<'_>,
        index: u32,
        stream: StreamId,
        code: Option<VarInt>,
    ) {
        let Some(mut bulk) = self.take_bulk(index, stream) else { return };
        if let Some(code) = code {
            bulk.job.refused(u32::try_from(code.into_inner()).unwrap_or(u32::MAX));
        }
        match bulk.job {
            Job::Mend { is_whole, .. } => {
                let line = self.sessions[index as usize].line;
                if line != NONE && !is_whole {
                    // There may be more that no push told of.
                    self.tasks.push(Reverse((clock::now() + AGAIN_AFTER, Task::Catch(line))));
                }
                if line != NONE && self.lines[line as usize].receiver.gap().is_some() {
                    self.plan_mend(line, clock::now() + AGAIN_AFTER);
                }
            }
            // What was not read to its end says nothing of what is there.
            Job::Heads(sync) | Job::Backlog(sync) if !sync.is_whole => {
                let failure = sync.refused.map_or(Failure::BadAnswer, Failure::Code);
                self.sync_over(io, index, sync.intended, Err(failure));
            }
            Job::Heads(sync) if sync.head > sync.position => self.ask_for_backlog(io, index, sync),
            Job::Heads(sync) => {
                self.book.ledger.found.lost += self.backlog_of(index);
                self.sync_over(io, index, sync.intended, Err(Failure::BadAnswer));
            }
            Job::Backlog(sync) => {
                self.book.ledger.found.lost += sync.end.saturating_sub(sync.position);
                let whole = sync.position >= sync.end.max(sync.head) && !sync.has_gaps;
                let result = if whole { Ok(sync.begun) } else { Err(Failure::BadAnswer) };
                self.sync_over(io, index, sync.intended, result);
            }
        }
    }

    /// The session ended while a request was under way.
    pub(super) fn bulk_is_lost(&mut self, bulk: Option<Bulk>) {
        let Some(Bulk { job: Job::Heads(sync) | Job::Backlog(sync), .. }) = bulk else { return };
        self.book.failure(Operation::Sync, sync.intended, Failure::SessionEnded);
        self.book.tally.syncing = self.book.tally.syncing.saturating_sub(1);
    }

    // ---- pages

    fn take_heads(&mut self, index: u32, job: &mut Job, page: &HeadsPage) {
        let Job::Heads(sync) = job else { return };
        sync.is_whole |= page.is_end;
        let line = self.filler_of(index);
        let writer = &self.lines[line as usize];
        // Its user may be in others that the run knows nothing of.
        let Some(head) = page.heads.iter().find(|one| one.conversation[..] == writer.conversation)
        else {
            return;
        };
        // What is older than the backlog is none of this run's.
        let first = self.channels[writer.channel as usize].first;
        sync.head = head.seq;
        sync.position = first.max(head.first_seq).saturating_sub(1);
        sync.end = first.saturating_sub(1).saturating_add(self.backlog_of(index));
    }

    fn take_page(&mut self, index: u32, job: &mut Job, page: &PullPage) {
        let line = self.sessions[index as usize].line;
        match job {
            Job::Mend { next, to, is_whole } if line != NONE => {
                *is_whole |= page.is_end && page.error_code == 0;
                let now = clock::now();
                let receiver = &mut self.lines[line as usize].receiver;
                if page.error_code == 0 {
                    receiver.begins_at(page.first_seq);
                }
                if let Some(last) = page.messages.last() {
                    receiver.ask(last.seq);
                }
                for message in &page.messages {
                    // The log is read in order: what it passes over is not in it.
                    if message.seq > *next {
                        self.lines[line as usize].receiver.has_read(message.seq - 1);
                    }
                    *next = message.seq.saturating_add(1).max(*next);
                    self.take_in(index, message, Via::Pull, now);
                }
                // Without an end the answer is up to a head that may have moved since: what lies
                // behind the last message is not known to be missing.
                let receiver = &mut self.lines[line as usize].receiver;
                if page.is_end && page.error_code == 0 && *to != 0 {
                    receiver.has_read(page.head.min(*to));
                    receiver.answered(*to);
                } else if page.error_code == Code::UnknownConversation.number() {
                    // Nothing of it is there.
                    receiver.answered(*to);
                }
            }
            Job::Backlog(sync) => {
                let writer = self.lines[self.filler_of(index) as usize].channel;
                let writer = self.channel_number(writer);
                page.messages.iter().for_each(|one| self.check_backlog(sync, writer, one));
                sync.is_whole |= page.is_end && page.error_code == 0;
                sync.refused = (page.error_code != 0).then_some(page.error_code).or(sync.refused);
            }
            _ => {}
        }
    }

    /// One message of a backlog: the next, unchanged, in the order in which it was written.
    fn check_backlog(&mut self, sync: &mut Sync, writer: u64, message: &Message) {
        let found = &mut self.book.ledger.found;
        if message.seq <= sync.position {
            found.duplicated += 1;
            return;
        }
        // What lies between is missing, as far as anything was written.
        let between = sync.position.saturating_add(1)..message.seq.min(sync.end.saturating_add(1));
        sync.has_gaps |= message.seq - sync.position > 1;
        found.lost += between.end.saturating_sub(between.start);
        sync.position = message.seq;
        let id = MessageId::parse(&message.client_msg_id);
        let ours = id.filter(|id| id.mark == self.context.mark);
        let Some(id) = ours.filter(|id| id.channel == writer) else {
            // It has a number of its own between those of the backlog.
            sync.end = sync.end.saturating_add(1);
            match ours {
                Some(_) => found.misdelivered += 1,
                None => found.foreign += 1,
            }
            return;
        };
        let read = Stamp::read(&message.payload);
        if read.is_none_or(|read| (read.stream, read.counter) != (id.channel, id.counter)) {
            found.corrupted += 1;
        }
        if id.counter < sync.counter {
            found.reordered += 1;
        }
        sync.counter = id.counter.saturating_add(1);
        found.delivered += 1;
    }

    /// Messages that wait for the session's user.
    fn backlog_of(&self, index: u32) -> u64 {
        match *self.work(self.sessions[index as usize].share as usize) {
            Work::Sync { backlog, .. } => backlog,
            _ => 0,
        }
    }

    /// The line that wrote the backlog of a session's user: writers and receivers are laid out in the
    /// same order.
    fn filler_of(&self, index: u32) -> u32 {
        let session = &self.sessions[index as usize];
        let share = &self.shares[session.share as usize];
        share.writers[(index - share.receivers.start) as usize]
    }
}
