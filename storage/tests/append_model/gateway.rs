//! A gateway's rules for one conversation: those of its lane, in small.
//!
//! It loads head and tail, looks a message up among the recent ones and, if it may be older, in the
//! log, gives it the next number, and has one append under way; what comes meanwhile is the next
//! one. After a conflict it reads again and numbers again what is not in the log.

use skein_protocol::Seq;
use skein_storage::scylla::append::{AppendMachine, Outcome, Request, Step};
use skein_storage::scylla::layout::Layout;

use crate::cluster::{Cluster, Msg, Row};

/// Sizes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Records in one append.
    pub(crate) max_append: usize,
    /// Durable messages whose names stay in memory.
    pub(crate) window: usize,
    /// Planted: an append does not reach over the edge of a bucket.
    pub(crate) splits_at_edge: bool,
}

/// A message on its way to its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Send {
    pub(crate) msg: Msg,
    /// It cannot be in the log at or below this number. `None`: its client does not say.
    pub(crate) after: Option<Seq>,
    /// Planted: it is taken for granted that it is not in the log.
    pub(crate) is_believed_new: bool,
}

/// An append that waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct InFlight {
    pub(crate) machine: AppendMachine<Row>,
    /// What was asked last.
    pub(crate) request: Request,
    /// What was put into the bucket before, and what comes into the next one, if it is split.
    done: Vec<Row>,
    rest: Vec<Row>,
}

impl InFlight {
    fn new(layout: Layout, first: Seq, done: Vec<Row>, rows: Vec<Row>, rest: Vec<Row>) -> Self {
        let (machine, step) = AppendMachine::new(layout, first, rows);
        let (Step::Send(request) | Step::SendLater(request)) = step else {
            unreachable!("an append ends before it has asked");
        };
        Self { machine, request, done, rest }
    }

    /// All numbers of it, with their rows.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (Seq, Row)> {
        let first = self.machine.numbers().start() - self.done.len() as Seq;
        (first..).zip(self.done.iter().chain(self.machine.rows()).chain(&self.rest).copied())
    }
}

/// A conversation in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Lane {
    /// Last durable number.
    head: Seq,
    /// The number after the last one given.
    next: Seq,
    /// Every message up to the last one that has a number.
    window: Vec<Msg>,
    pub(crate) in_flight: Option<InFlight>,
}

/// What became of a message that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handled {
    /// Found as durable among the recent ones or, if `by_scan`, in the log.
    Known { seq: Seq, by_scan: bool },
    /// It has a number and waits.
    Waits,
}

impl Lane {
    /// As it was loaded.
    pub(crate) fn new(head: Seq, tail: Vec<Msg>) -> Self {
        Self { head, next: head + 1, window: tail, in_flight: None }
    }

    fn window_first(&self) -> Seq {
        self.next.saturating_sub(self.window.len() as Seq)
    }

    /// Whether nothing waits here.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.next == self.head + 1
    }

    /// What it takes to be in the log, with its numbers.
    pub(crate) fn durable(&self) -> impl Iterator<Item = (Seq, Msg)> {
        let numbered = (self.window_first()..).zip(self.window.iter().copied());
        numbered.take_while(|(seq, _)| *seq <= self.head)
    }

    pub(crate) fn handle_send(
        &mut self,
        send: Send,
        stamp: u8,
        cluster: &Cluster,
        rules: Rules,
    ) -> Handled {
        let Send { msg, after, is_believed_new } = send;
        if !is_believed_new {
            let known =
                (self.window_first()..).zip(&self.window).filter(|(_, m)| **m == msg).last();
            match known {
                Some((seq, _)) if seq <= self.head => {
                    return Handled::Known { seq, by_scan: false };
                }
                Some(_) => return Handled::Waits,
                None => {}
            }
            // Rows up to the head do not change, so it does not matter when they are read. A torn
            // one, if the head was that of a torn batch, is missed.
            let mut older = after.map_or(0..0, |after| after + 1..self.window_first());
            let is_it = |seq: &Seq| cluster.row(*seq, false).is_some_and(|row| row.msg == msg);
            if let Some(seq) = older.find(is_it) {
                return Handled::Known { seq, by_scan: true };
            }
        }
        self.window.push(msg);
        self.next += 1;
        self.start_append(stamp, cluster.layout(), rules);
        Handled::Waits
    }

    /// Appends all that waits, if nothing is under way.
    pub(crate) fn start_append(&mut self, stamp: u8, layout: Layout, rules: Rules) {
        let waiting = (self.next - self.head - 1) as usize;
        if self.in_flight.is_some() || waiting == 0 {
            return;
        }
        let waiting = &self.window[self.window.len() - waiting..];
        let waiting = waiting.iter().take(rules.max_append);
        let mut rows: Vec<Row> = waiting.map(|&msg| Row { msg, stamp }).collect();
        let first = self.head + 1;
        let bucket = layout.bucket(first);
        let is_inside = |seq: &Seq| !rules.splits_at_edge || layout.bucket(*seq) == bucket;
        let inside = (first..).take(rows.len()).take_while(is_inside).count();
        let rest = rows.split_off(inside);
        self.in_flight = Some(InFlight::new(layout, first, Vec::new(), rows, rest));
    }

    /// Goes on with the second part of an append that was split; `false` if there is none.
    pub(crate) fn start_rest(&mut self, layout: Layout) -> bool {
        match self.in_flight.take() {
            Some(InFlight { machine, rest, .. }) if !rest.is_empty() => {
                let (done, first) = (machine.rows().to_vec(), machine.numbers().end() + 1);
                self.in_flight = Some(InFlight::new(layout, first, done, rest, Vec::new()));
                true
            }
            in_flight => {
                self.in_flight = in_flight;
                false
            }
        }
    }

    /// What was in flight is durable: its messages with their numbers.
    pub(crate) fn appended(&mut self, window: usize) -> Vec<(Msg, Seq)> {
        let Some(append) = self.in_flight.take() else {
            return Vec::new();
        };
        let durable: Vec<_> = append.numbered().map(|(seq, row)| (row.msg, seq)).collect();
        self.head += durable.len() as Seq;
        while self.window.len() > window && self.window_first() <= self.head {
            self.window.remove(0);
        }
        durable
    }

    /// All that was not acknowledged, in order, as repetitions.
    pub(crate) fn unacknowledged(&self) -> Vec<Send> {
        let waiting = (self.next - self.head - 1) as usize;
        let waiting = &self.window[self.window.len() - waiting..];
        let after = Some(self.head);
        waiting.iter().map(|&msg| Send { msg, after, is_believed_new: false }).collect()
    }
}

/// What a gateway knows of the conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Memory {
    Nothing,
    /// Being read; these wait for it.
    Loading(Vec<Send>),
    Ready(Lane),
}

/// One gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Gateway {
    /// What the rows carry that it numbers.
    pub(crate) stamp: u8,
    pub(crate) memory: Memory,
}

impl Gateway {
    pub(crate) fn in_flight(&self) -> Option<&InFlight> {
        match &self.memory {
            Memory::Ready(lane) => lane.in_flight.as_ref(),
            _ => None,
        }
    }

    /// Takes a step of its append; the outcome if that has ended.
    pub(crate) fn follow(&mut self, step: Step) -> Option<Outcome> {
        let Memory::Ready(Lane { in_flight: Some(append), .. }) = &mut self.memory else {
            return None;
        };
        match step {
            Step::Send(request) | Step::SendLater(request) => {
                append.request = request;
                None
            }
            Step::Done(outcome) => Some(outcome),
        }
    }
}
