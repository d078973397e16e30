//! A lane orders a share of the conversations: it deduplicates, gives sequence numbers, batches
//! and keeps cursors. It does no I/O: `handle_*` takes commands and the store's answers, and
//! leaves [`Effect`]s.
//!
//! ```text
//! Send -> dedup (window, else scan of the log) -> next number -> waiting
//!      -> Append, one at a time for each conversation; what comes meanwhile is the next batch
//!      -> appended: Ack, Deliver
//! ```
//!
//! A conversation is loaded when it is first touched and forgotten when it has been idle for
//! long; the log is the truth, so forgetting costs a read and never an answer. After any failed
//! append it is forgotten at once.

mod conversation;
mod cursors;
mod marks;
mod patience;
mod sends;
mod types;
mod window;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use skein_protocol::cursor::Mark;
use skein_protocol::server::{Refusal, Send, Target};
use skein_protocol::{Code, ConversationId, UserId};
use skein_storage::{CursorUpdate, StoreError};
use skein_transport::ConnId;

use conversation::Conversation;
use patience::{Awaited, Deadlines, Ticket};
pub use types::{
    Ack, Command, CursorKind, Delivery, Effect, Found, Load, Loaded, Origin, Peek, Receipt, Scan,
};
pub use window::{Key, Known};

use crate::limits::Throttle;

/// Bounds of one lane.
#[derive(Debug, Clone)]
pub struct LaneConfig {
    /// Durable messages of a conversation whose keys stay in memory.
    pub dedup_window: usize,
    /// Bytes of messages that may wait in this lane, for whatever they wait; over it sends are
    /// refused with "overloaded".
    pub max_bytes: usize,
    /// Messages of one conversation that may wait, so that a lookup stays short.
    pub max_waiting: usize,
    /// Conversations in memory; idle ones over it are forgotten.
    pub max_conversations: usize,
    /// Conversations that may stay beyond these, because the store has not taken their cursors;
    /// and cursors that are kept without their conversation.
    pub max_unwritten: usize,
    /// Conversations that may be on their way from the store. Over it sends are refused with
    /// "overloaded" and cursors wait: a stranger can name any number of conversations. Cursors
    /// may take half of it, and of the other bounds while they wait for a conversation, so that a
    /// flood of them keeps nobody from writing.
    pub max_loading: usize,
    /// How long a send waits for the store, in calls of [`Lane::handle_tick`], before its sender is
    /// told to try later.
    pub patience: u32,
}

/// Bytes that a waiting message is counted for beside its payload: record, keys, queues.
const MESSAGE_OVERHEAD: usize = 512;

/// Bytes that a cursor is counted for while it waits for its conversation: its place in the queue.
const CURSOR_SIZE: usize = size_of::<Command>();

/// Cursors that may wait for the load of another conversation: some 0.15 MB a lane. Of those that
/// are dropped, most are known to the store already: they come with logins. A client that logs in
/// asks for heads, and tells again what they do not have.
const MAX_LATER: usize = 512;

/// What a command has to share with what waits already; see [`LaneConfig`].
struct Bounds {
    bytes: usize,
    /// Commands for one conversation.
    waiting: usize,
    /// Conversations on their way.
    loading: usize,
}

enum Slot {
    /// Being read; commands wait, at most `max_waiting`.
    Loading {
        queue: Vec<Command>,
        /// Another gateway has written on, so pushes to its members are missing.
        grown: bool,
        /// By when it should be there.
        ticket: Ticket,
    },
    Ready(Box<Conversation>),
}

/// One share of the conversations.
pub struct Lane {
    config: LaneConfig,
    /// How much and how often for each conversation.
    throttle: Arc<Throttle>,
    slots: HashMap<ConversationId, Slot>,
    /// Every loaded conversation once, for second-chance eviction.
    clock: VecDeque<ConversationId>,
    /// Conversations whose cursors are to be written.
    dirty: Vec<ConversationId>,
    /// Cursors to be written whose conversation was forgotten; at most `max_unwritten`.
    orphans: Vec<CursorUpdate>,
    /// Slots that are `Loading`.
    loading: usize,
    /// Cursors that wait until another conversation can be loaded: after a restart everybody tells
    /// theirs at once, and only once. At most [`MAX_LATER`]; more are dropped.
    later: VecDeque<(ConversationId, Command)>,
    /// Bytes counted for waiting messages.
    bytes: usize,
    deadlines: Deadlines,
}

impl Lane {
    /// An empty lane.
    pub fn new(config: LaneConfig, throttle: Arc<Throttle>) -> Self {
        Self {
            deadlines: Deadlines::new(config.patience),
            config,
            throttle,
            slots: HashMap::new(),
            clock: VecDeque::new(),
            dirty: Vec::new(),
            orphans: Vec::new(),
            loading: 0,
            later: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Goes by another [`LaneConfig::max_bytes`] and [`LaneConfig::patience`] from now on.
    pub fn set_bounds(&mut self, max_bytes: usize, patience: u32) {
        self.config.max_bytes = max_bytes;
        self.config.patience = patience;
        self.deadlines.set_patience(patience);
    }

    /// Takes a command for a conversation.
    pub fn handle_command(
        &mut self,
        conversation: ConversationId,
        command: Command,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let size = size_of_command(&command);
        let Bounds { bytes, waiting, loading } = self.bounds_for(&command);
        let fits = self.bytes + size <= bytes;
        let may_load = self.loading < loading;
        match self.slots.get_mut(&conversation) {
            Some(Slot::Ready(_)) => self.apply(conversation, command, now_ms, effects),
            Some(Slot::Loading { queue, .. }) if fits && queue.len() < waiting => {
                self.bytes += size;
                queue.push(command);
            }
            None if fits && may_load => {
                let begin = begin_with(&command);
                self.start_loading(conversation, begin, vec![command], false, effects);
            }
            _ if fits && self.later.len() < MAX_LATER && matches!(command, Command::Cursor(..)) => {
                self.bytes += size;
                self.later.push_back((conversation, command));
            }
            _ => refuse(&command, Code::Overloaded, effects),
        }
    }

    /// Takes up cursors that found no place, as far as there is one now. Those that stay behind
    /// wait for a load that is under way.
    fn resume_later(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        for _ in 0..self.later.len() {
            let Some((_, next)) = self.later.front() else { return };
            if self.loading >= self.bounds_for(next).loading {
                return;
            }
            let Some((conversation, command)) = self.later.pop_front() else { return };
            self.bytes -= size_of_command(&command);
            self.handle_command(conversation, command, now_ms, effects);
        }
    }

    /// Takes the answer to [`Effect::Load`]; `None`: there is no such conversation.
    pub fn handle_loaded(
        &mut self,
        conversation: ConversationId,
        loaded: Result<Option<Loaded>, StoreError>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Slot::Loading { queue, grown, ticket }) = self.slots.remove(&conversation) else {
            return;
        };
        self.deadlines.remove(ticket);
        self.loading -= 1;
        // Counted again by whatever it waits for next.
        self.bytes -= queue.iter().map(size_of_command).sum::<usize>();
        match loaded {
            Ok(Some(loaded)) => {
                let mut state = Conversation::new(loaded, self.config.dedup_window);
                if grown {
                    let known = state.known();
                    effects.extend(state.tell(conversation, known));
                }
                self.slots.insert(conversation, Slot::Ready(Box::new(state)));
                self.clock.push_back(conversation);
                for command in queue {
                    self.handle_command(conversation, command, now_ms, effects);
                }
                // Not before: what was loaded for these commands must not go ahead of them.
                self.evict();
            }
            // A first message to a user was asked for by somebody who came later.
            Ok(None) => match queue.iter().find_map(begin_with) {
                None => queue.iter().for_each(|c| refuse(c, Code::UnknownConversation, effects)),
                begin => self.start_loading(conversation, begin, queue, grown, effects),
            },
            Err(error) => queue.iter().for_each(|c| refuse(c, code_of(&error), effects)),
        }
        self.resume_later(now_ms, effects);
    }

    /// Head and cursors, if the conversation is in memory; they are newer than the store's.
    pub fn peek(&self, conversation: ConversationId) -> Option<Peek> {
        match self.slots.get(&conversation)? {
            Slot::Ready(state) => Some(state.peek()),
            Slot::Loading { .. } => None,
        }
    }

    /// Messages that wait for the store.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes
    }

    /// Conversations in memory, and those on their way there.
    pub fn conversations(&self) -> usize {
        self.slots.len()
    }

    fn apply(
        &mut self,
        conversation: ConversationId,
        command: Command,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Slot::Ready(state)) = self.slots.get_mut(&conversation) else {
            return;
        };
        state.touch();
        let (Command::Send(origin, _)
        | Command::Cursor(origin, ..)
        | Command::TellIfPast(origin, _)) = &command;
        if !state.has_member(&origin.user) {
            refuse(&command, Code::UnknownConversation, effects);
            return;
        }
        match command {
            Command::Send(origin, send) => {
                self.send(conversation, origin, send, now_ms, effects);
            }
            Command::Cursor(origin, kind, seq) => {
                self.raise(conversation, (origin, kind, seq), effects);
            }
            Command::TellIfPast(origin, seq) => {
                let head = state.known();
                if head > seq {
                    effects.push(Effect::Head(origin.conn, Mark { conversation, seq: head }));
                }
            }
        }
    }

    /// What may wait before this command may not wait as well.
    fn bounds_for(&self, command: &Command) -> Bounds {
        let LaneConfig { max_bytes, max_waiting, max_loading, .. } = self.config;
        let share = |all: usize| match command {
            Command::Send(..) => all,
            Command::Cursor(..) | Command::TellIfPast(..) => all.div_ceil(2),
        };
        Bounds { bytes: share(max_bytes), waiting: share(max_waiting), loading: share(max_loading) }
    }

    fn start_loading(
        &mut self,
        conversation: ConversationId,
        begin: Option<Vec<UserId>>,
        queue: Vec<Command>,
        grown: bool,
        effects: &mut Vec<Effect>,
    ) {
        self.loading += 1;
        self.bytes += queue.iter().map(size_of_command).sum::<usize>();
        let ticket = self.deadlines.add(conversation, Awaited::Load);
        self.slots.insert(conversation, Slot::Loading { queue, grown, ticket });
        let tail = self.config.dedup_window;
        effects.push(Effect::Load(Load { conversation, begin, tail }));
    }

    /// Drops a conversation's state. Returns the commands that had no effect yet, in order.
    fn forget(&mut self, conversation: ConversationId) -> Vec<Command> {
        let Some(Slot::Ready(state)) = self.slots.remove(&conversation) else {
            return Vec::new();
        };
        self.clock.retain(|id| *id != conversation);
        let (sends, freed, marks) = state.into_unacknowledged(&mut self.deadlines);
        self.bytes -= freed;
        let sends = sends.into_iter().map(|(origin, send)| Command::Send(origin, send));
        sends.chain(self.keep_cursors(conversation, marks)).collect()
    }

    /// Forgets conversations that nobody has used since the hand last passed them. One whose
    /// cursors the store does not have yet stays, unless the store has taken none for so long
    /// that memory is at stake: a device tells its position once, so a cursor lost here would be
    /// lost until it moves again.
    fn evict(&mut self) {
        let most = self.config.max_conversations + self.config.max_unwritten;
        // Twice round at most: the first pass takes the second chance away.
        let mut steps = 2 * self.clock.len();
        while self.clock.len() > self.config.max_conversations && steps > 0 {
            steps -= 1;
            let in_need = self.clock.len() > most;
            let Some(id) = self.clock.pop_front() else {
                return;
            };
            let forget = match self.slots.get_mut(&id) {
                Some(Slot::Ready(state)) => state.may_be_forgotten(in_need),
                // Not in the clock: forgetting takes a conversation out of both.
                _ => continue,
            };
            if forget {
                self.slots.remove(&id);
            } else {
                self.clock.push_back(id);
            }
        }
    }
}

/// What a waiting command counts for in the lane's bytes.
fn size_of_command(command: &Command) -> usize {
    match command {
        Command::Send(_, send) => size_of_send(send),
        Command::Cursor(..) | Command::TellIfPast(..) => CURSOR_SIZE,
    }
}

fn size_of_send(send: &Send) -> usize {
    send.payload.len() + MESSAGE_OVERHEAD
}

/// The members that a first message to a user begins a conversation with.
fn begin_with(command: &Command) -> Option<Vec<UserId>> {
    let Command::Send(origin, Send { target: Target::User(peer), .. }) = command else {
        return None;
    };
    let mut members = vec![origin.user.clone(), peer.clone()];
    members.sort();
    members.dedup();
    Some(members)
}

pub(crate) fn code_of(error: &StoreError) -> Code {
    match error {
        StoreError::Unavailable(_) => Code::StoreUnavailable,
        StoreError::Stopped(_) => Code::StoreStopped,
        StoreError::Damaged(_) => Code::Internal,
    }
}

fn refuse(command: &Command, code: Code, effects: &mut Vec<Effect>) {
    match command {
        Command::Send(origin, send) => refuse_send(origin.conn, send, code, effects),
        // Nobody waits for an answer to a cursor: it is raised again by the next one.
        Command::Cursor(..) | Command::TellIfPast(..) => {}
    }
}

fn refuse_send(conn: ConnId, send: &Send, code: Code, effects: &mut Vec<Effect>) {
    effects.push(Effect::Refuse(conn, refusal_of(send, code, None)));
}

/// The answer to a send that is not carried out.
pub(crate) fn refusal_of(send: &Send, code: Code, retry_after: Option<Duration>) -> Refusal {
    let client_msg_id = send.client_msg_id.as_str().into();
    Refusal { code, message: code.text().into(), client_msg_id, retry_after }
}
