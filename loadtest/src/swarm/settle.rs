//! The end of the drain: nothing is written any more, and who misses what was acknowledged asks for
//! it. Only what the log does not have is lost; what is still on its way is not.

use std::cmp::Reverse;

use skein_transport::Io;

use super::session::Line;
use super::shard::{Shard, Task};
use crate::clock::{self, Nanos, SECOND};
use crate::operation::{Failure, Operation};

/// How often it is looked who still has to ask: answers are refused, and more is acknowledged.
const LOOK_EVERY: Nanos = SECOND / 5;

impl Shard {
    /// From now on receivers ask for what they miss.
    pub(super) fn settle_messages(&mut self) {
        self.stop_writing();
        self.settles = true;
        self.tasks.push(Reverse((clock::now(), Task::Ask)));
    }

    /// What was due and is not written never will be.
    pub(super) fn stop_writing(&mut self) {
        let now = clock::now();
        for line in &mut self.lines {
            self.book.tally.queued -= line.backlog.len() as u64;
            for intended in line.backlog.drain(..) {
                self.book.held_back(Operation::SendAck, intended, now);
                self.book.failure(Operation::SendAck, intended, Failure::TimedOut);
            }
        }
    }

    /// Whoever misses something asks for it, if it is not waiting for an answer.
    pub(super) fn ask_for_missing(&mut self, io: &mut Io<'_>) {
        let unsettled: Vec<_> = self.unsettled().collect();
        for (line, to) in unsettled {
            let from = self.lines[line as usize].receiver.position() + 1;
            self.pull(io, line, from, to);
        }
        self.tasks.push(Reverse((clock::now() + LOOK_EVERY, Task::Ask)));
    }

    /// Lines that miss something and cannot tell yet whether it is in the log, with the last number
    /// of it.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = (u32, u64)> {
        let missing = self.channels.iter().filter_map(|channel| {
            let to = channel.stream.missing_to()?;
            Some(receivers_of(channel.line, &self.lines).map(move |line| (line, to)))
        });
        missing.flatten().filter(|(line, to)| !self.lines[*line as usize].receiver.can_tell(*to))
    }
}

/// The lines that receive what a line writes.
pub(super) fn receivers_of(writer: u32, lines: &[Line]) -> impl Iterator<Item = u32> {
    let Line { first, count, .. } = lines[writer as usize];
    (first..first + count).filter(move |line| *line != writer)
}
