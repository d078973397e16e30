//! Nobody waits for the store longer than the operator's patience.
//!
//! ```text
//! Load, Scan or Append goes out -> a deadline
//! answered in time              -> the deadline is forgotten
//! not in time                   -> who waits for it is told to try later, and another deadline
//! ```
//!
//! What was submitted may become durable at any time, so it keeps its numbers until the store says
//! what came of it: whoever repeats it waits for that, for as long again. What waits behind it was
//! not submitted, and is dropped; until the outcome is known nothing new is taken for that
//! conversation. So a store that does not answer costs the memory of what it was given.
//!
//! Time is counted in ticks, so that it is the caller's, and a pause of the whole process is
//! nobody's delay.

use std::collections::BTreeMap;

use skein_protocol::{Code, ConversationId, DeviceId, UserId};

use super::{Command, Effect, Lane, Slot, refuse, size_of_command};

/// What is awaited of the store.
#[derive(Debug, Clone)]
pub(super) enum Awaited {
    Load,
    Scan((UserId, DeviceId)),
    Append,
}

/// Names a deadline: the tick at which it is over, and a number of its own.
pub(super) type Ticket = (u64, u64);

/// What is awaited of the store, by when.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// In ticks.
    patience: u32,
    /// Ticks so far.
    now: u64,
    given: u64,
    open: BTreeMap<Ticket, (ConversationId, Awaited)>,
}

impl Deadlines {
    pub(super) fn new(patience: u32) -> Self {
        Self { patience, now: 0, given: 0, open: BTreeMap::new() }
    }

    /// Another patience for those who come from now on.
    pub(super) fn set_patience(&mut self, patience: u32) {
        self.patience = patience;
    }

    pub(super) fn add(&mut self, conversation: ConversationId, awaited: Awaited) -> Ticket {
        self.given += 1;
        // Whatever is left of the tick that runs now comes on top.
        let ticket = (self.now + 1 + u64::from(self.patience), self.given);
        self.open.insert(ticket, (conversation, awaited));
        ticket
    }

    pub(super) fn remove(&mut self, ticket: Ticket) {
        self.open.remove(&ticket);
    }

    /// Those that are over, once time has moved on by a tick.
    fn tick(&mut self) -> Vec<(ConversationId, Awaited)> {
        self.now += 1;
        let open = self.open.split_off(&(self.now + 1, 0));
        std::mem::replace(&mut self.open, open).into_values().collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

impl Lane {
    /// Time moves on. To be called at even intervals; `patience` is counted in these.
    pub fn handle_tick(&mut self, effects: &mut Vec<Effect>) {
        for (conversation, awaited) in self.deadlines.tick() {
            let given_up = match (self.slots.get_mut(&conversation), &awaited) {
                (Some(Slot::Loading { queue, ticket, .. }), Awaited::Load) => {
                    Some((ticket, give_up_sends(queue, effects)))
                }
                (Some(Slot::Ready(state)), Awaited::Scan(sender)) => {
                    state.scan_of(sender).map(|scan| scan.give_up(effects))
                }
                (Some(Slot::Ready(state)), Awaited::Append) => state.give_up(effects),
                _ => None,
            };
            if let Some((ticket, freed)) = given_up {
                *ticket = self.deadlines.add(conversation, awaited);
                self.bytes -= freed;
            }
        }
    }
}

/// Cursors stay: nobody waits for their answer. Returns the bytes of the rest.
fn give_up_sends(queue: &mut Vec<Command>, effects: &mut Vec<Effect>) -> usize {
    let is_send = |command: &mut Command| matches!(command, Command::Send(..));
    let given_up = queue.extract_if(.., is_send);
    given_up
        .map(|command| {
            refuse(&command, Code::StoreUnavailable, effects);
            size_of_command(&command)
        })
        .sum()
}
