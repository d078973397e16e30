//! The client's session rules, without I/O.
//!
//! A driver owns the socket and the clock. It tells what happened through `handle_*`, each with
//! the time, and then asks through `poll_*` until each says `None`:
//!
//! ```text
//! handle_connected(token)    -> poll_live     bytes for the one long-lived stream
//! handle_live(bytes)         -> poll_bulk     open or stop a short stream for sync and history
//! handle_bulk(id, bytes)     -> poll_event    what the application hears
//! handle_bulk_end(id)        -> poll_store    what to remember across restarts
//! handle_disconnected(code)  -> poll_close    give the connection up with this code
//! handle_timeout             -> poll_timeout  when to call handle_timeout
//! ```
//!
//! What it promises to the application:
//! - each message given to [`send`](Client::send) is repeated under its id until it is
//!   acknowledged or refused for good, and one conversation's messages keep their order
//!   (`outbox.rs`);
//! - the messages of a conversation come in order, without duplicates and without gaps, whatever
//!   the connection does (`inbox.rs`, `sync.rs`);
//! - a connection that does not answer is found out (`heartbeat.rs`).
//!
//! Everything it keeps is bounded by [`Config`]. While [`is_congested`](Client::is_congested) says
//! so, the driver leaves the streams unread.

mod heartbeat;
mod inbox;
mod live;
mod outbox;
mod requests;
mod sync;
mod time;
mod types;

use std::time::{Duration, Instant};

pub use types::{
    BulkAction, BulkId, Config, Event, HistoryId, HistoryRequest, MAX_SEQ, Message, Origin,
    Outgoing, ReceiptKind, Reconnect, Restored, SendError, Start, StoreOp, Target,
};

use crate::close::told_delay;
use crate::codes::Retry;
use crate::frame::{Decoder, FrameError};
use crate::limits::{
    DEFAULT_MAX_BULK_STREAMS, DEFAULT_MAX_ENTRIES, DEFAULT_MAX_FRAME_BYTES,
    DEFAULT_MAX_UNACKED_SENDS,
};
use crate::{ClientMsgId, Code, ConversationId, DeviceId, Seq, UserId};
use heartbeat::Heartbeat;
use inbox::{Events, Inbox};
use outbox::Outbox;
use sync::Sync;

/// Largest frame that is taken from a gateway, bytes. A gateway may be configured for larger
/// messages than the default; 16 MiB bounds what a broken one can make us hold.
const MAX_FRAME_BYTES: usize = 16 << 20;

/// Acknowledging one's own message helps nobody but a later login, so it waits long for company.
const OWN_ACK_DELAY: Duration = Duration::from_secs(2);

/// Longest delay that a peer can ask for before a retry.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Longest time ahead that is looked at in a token's expiry; beyond, the token counts as endless.
const MAX_TOKEN_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// A new token is asked for when a tenth of the old one's time is left, or this.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);

/// Sessions that end because a rule was broken, after which another try is not worth it.
const MAX_BROKEN: u32 = 3;

/// Wait after such an end.
const BROKEN_DELAY: Duration = Duration::from_secs(5);

/// Longest wait that a close is obeyed with: what it is for may be over sooner, as when an operator
/// takes a block back.
const LONGEST_TOLD: Duration = Duration::from_secs(3600);

/// Least wait before another token is asked for.
const TOKEN_RETRY: Duration = Duration::from_secs(5);

/// One device's view of the gateway, over any number of connections.
#[derive(Debug)]
pub struct Client {
    config: Config,
    /// Known from the configuration or from the first Welcome.
    user: Option<UserId>,
    device: Option<DeviceId>,
    epoch: u64,
    limits: Limits,
    state: State,
    was_connected: bool,
    decoder: Decoder,
    heartbeat: Heartbeat,
    outbox: Outbox,
    inbox: Inbox,
    sync: Sync,
    events: Events,
    /// Ready for `poll_store`: bounded by the entries of the outbox, and one reset.
    store: std::collections::VecDeque<StoreOp>,
    ack_at: Option<Instant>,
    token: Token,
    /// Why we leave this connection.
    close: Option<Code>,
    close_polled: bool,
    reconnect_delay: Option<Duration>,
    /// The gateway is about to go: nothing new on this connection.
    going: Option<Code>,
    /// A gap is not pulled before this; `None`: at once.
    pull_at: Option<Instant>,
    /// A gateway with lower limits than usual refused our Hello: leave out what may be.
    have_refused: bool,
    /// Sessions in a row that ended because one side broke the rules.
    broken: u32,
    bye: Bye,
    random: u64,
}

/// What the gateway accepts.
#[derive(Debug, Clone, Copy)]
struct Limits {
    frame_bytes: usize,
    payload_bytes: usize,
    unacked_sends: usize,
    bulk_streams: usize,
    entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: DEFAULT_MAX_FRAME_BYTES,
            // Unknown before Welcome; what is too long then is refused when it is its turn.
            payload_bytes: MAX_FRAME_BYTES,
            unacked_sends: DEFAULT_MAX_UNACKED_SENDS as usize,
            bulk_streams: DEFAULT_MAX_BULK_STREAMS as usize,
            entries: DEFAULT_MAX_ENTRIES as usize,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Offline,
    /// Connected, Hello not written yet.
    Greeting {
        token: String,
        since: Instant,
    },
    /// Hello is written.
    Greeted {
        since: Instant,
    },
    Live,
}

/// The running session's token.
#[derive(Debug, Default)]
struct Token {
    /// The gateway's clock as Welcome told it, Unix milliseconds, and when that was.
    clock: Option<(u64, Instant)>,
    /// When to ask the application for another one.
    refresh_at: Option<Instant>,
    expires_at: Option<Instant>,
    wanted: bool,
    /// A new one that is to be written.
    fresh: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bye {
    No,
    Wanted,
    Written,
}

impl Client {
    /// A client that is not connected yet.
    pub fn new(config: Config, restored: Restored, now: Instant) -> Self {
        let mut inbox = Inbox::default();
        let mut positions = restored.positions;
        positions.truncate(config.max_conversations);
        if restored.epoch != 0 {
            inbox.restore(positions);
        }
        Self {
            user: config.user.clone(),
            device: config.device.clone(),
            epoch: restored.epoch,
            limits: Limits::default(),
            state: State::Offline,
            was_connected: false,
            decoder: Decoder::new(),
            heartbeat: Heartbeat::new(now),
            outbox: Outbox::default(),
            inbox,
            sync: Sync::default(),
            events: Events::default(),
            store: Default::default(),
            ack_at: None,
            token: Token::default(),
            close: None,
            close_polled: false,
            reconnect_delay: None,
            going: None,
            pull_at: None,
            have_refused: false,
            broken: 0,
            bye: Bye::No,
            random: config.seed,
            config,
        }
    }

    // --- the application ---

    /// Takes a message for delivery; [`Event::Acked`] or [`Event::Rejected`] will follow.
    ///
    /// # Errors
    /// [`SendError`]; nothing was kept.
    pub fn send(&mut self, message: Outgoing) -> Result<(), SendError> {
        self.outbox.push(message, self.user.as_ref(), &self.config, self.limits.payload_bytes)
    }

    /// Whether [`send`](Self::send) would take the message now.
    ///
    /// # Errors
    /// What `send` would answer.
    pub fn check_send(&self, message: &Outgoing) -> Result<(), SendError> {
        self.outbox.check(message, &self.config, self.limits.payload_bytes)
    }

    /// The user has read the conversation up to `seq`. A lower number than before changes nothing.
    pub fn mark_read(&mut self, conversation: ConversationId, seq: Seq) {
        self.inbox.mark_read(conversation, seq, &self.config);
    }

    /// Asks for a part of the past; [`Event::History`] or [`Event::HistoryFailed`] will follow,
    /// after a reconnect if need be. `None` when too many requests wait already.
    pub fn request_history(&mut self, request: HistoryRequest) -> Option<HistoryId> {
        if self.sync.history_waiting() >= self.config.max_history_requests {
            return None;
        }
        Some(self.sync.request_history(request))
    }

    /// The application has dealt with the conversation's events up to `seq`: they may be
    /// acknowledged, and will not be shown again.
    pub fn handle_consumed(&mut self, conversation: ConversationId, seq: Seq, now: Instant) {
        let Some(urgent) = self.inbox.handle_consumed(conversation, seq) else { return };
        let delay = if urgent { self.config.ack_delay } else { OWN_ACK_DELAY };
        let at = now + delay;
        self.ack_at = Some(self.ack_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Says goodbye: pending acknowledgements and a Bye are written, then [`poll_close`] gives
    /// [`Code::Ok`].
    ///
    /// [`poll_close`]: Self::poll_close
    pub fn handle_leave(&mut self) {
        match self.state {
            State::Live if self.bye == Bye::No => self.bye = Bye::Wanted,
            State::Live => {}
            _ => self.leave(Code::Ok),
        }
    }

    // --- getters ---

    /// Who we are, once it is known.
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// On which device, once it is known.
    pub fn device(&self) -> Option<&DeviceId> {
        self.device.as_ref()
    }

    /// Whether the gateway has welcomed us and the connection stands.
    pub fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// Sends that wait for their acknowledgement.
    pub fn unacked(&self) -> usize {
        self.outbox.len()
    }

    /// Bytes of payload of the sends that wait for their acknowledgement.
    pub fn unacked_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// The conversation that a target means; `None` while it is not known who we are.
    pub fn conversation(&self, target: &Target) -> Option<ConversationId> {
        match target {
            Target::Conversation(id) => Some(*id),
            Target::User(other) => {
                self.user.as_ref().map(|user| ConversationId::one_to_one(user, other))
            }
        }
    }

    /// The conversation's head as far as it is known; a message that is sent later cannot have a
    /// number at or below it. Keep it with a message as [`Origin::MaybeSent`].
    pub fn known_head(&self, target: &Target) -> Seq {
        self.conversation(target).map_or(0, |id| self.inbox.head(id))
    }

    /// Up to where the conversation has been given out without a gap.
    pub fn position(&self, conversation: ConversationId) -> Seq {
        self.inbox.position(conversation)
    }

    /// Whether everything that is known to exist has been given out.
    pub fn is_synced(&self) -> bool {
        self.is_live() && self.sync.is_done() && !self.inbox.is_wanting()
    }

    /// Too much waits for the application: leave the streams unread for now. Flow control then
    /// holds the gateway back, and it says `Behind` for what it leaves out.
    pub fn is_congested(&self) -> bool {
        self.events.bytes() > self.config.max_event_bytes
    }

    /// Bytes kept for messages that arrived before an earlier one, and for events.
    pub fn buffered(&self) -> usize {
        self.inbox.early_bytes() + self.events.bytes()
    }

    /// The session's token ends soon: get another one and give it to `handle_token`.
    pub fn wants_token(&self) -> bool {
        self.token.wanted
    }

    // --- the connection ---

    /// A connection stands and its live stream is open.
    pub fn handle_connected(&mut self, token: String, now: Instant) {
        self.decoder = Decoder::new();
        self.heartbeat.reset(now);
        self.token = Token::default();
        self.close = None;
        self.close_polled = false;
        self.reconnect_delay = None;
        self.going = None;
        self.pull_at = None;
        self.state = State::Greeting { token, since: now };
    }

    /// The connection is gone: closed by the peer with `code`, broken (`None`), or given up by us
    /// after `poll_close`. Says what to do next.
    pub fn handle_disconnected(
        &mut self,
        code: Option<u64>,
        reason: &str,
        now: Instant,
    ) -> Reconnect {
        let code = self.close.map(|code| u64::from(code.number())).or(code);
        if code == Some(Code::MalformedFrame.number().into()) && self.state != State::Live {
            self.have_refused = true;
        }
        self.broken = if code.is_some_and(is_broken_rule) { self.broken + 1 } else { 0 };
        let reconnect = self.verdict(code, reason);
        self.state = State::Offline;
        self.decoder = Decoder::new();
        self.token = Token::default();
        self.close = None;
        self.heartbeat.reset(now);
        self.outbox.handle_disconnected();
        for conversation in self.sync.handle_disconnected() {
            self.inbox.want_again(conversation);
        }
        let reason = code.map_or(reason.to_owned(), |code| types::describe(code, reason));
        self.events.push(Event::Disconnected { code, reason, reconnect });
        reconnect
    }

    fn verdict(&self, code: Option<u64>, reason: &str) -> Reconnect {
        let asked = self.reconnect_delay.unwrap_or_default();
        let Some(number) = code else { return Reconnect::After(asked) };
        match Code::from_number(number) {
            Some(Code::Ok) if self.bye != Bye::No => Reconnect::Never,
            Some(
                Code::BadToken
                | Code::DeviceMismatch
                | Code::Replaced
                | Code::Kicked
                | Code::VersionUnsupported,
            ) => Reconnect::Never,
            Some(Code::TokenExpired) => Reconnect::WithNewToken,
            _ if is_broken_rule(number) => {
                // A fresh connection may do better; after a few, nothing will.
                if self.broken < MAX_BROKEN {
                    Reconnect::After(BROKEN_DELAY)
                } else {
                    Reconnect::Never
                }
            }
            Some(code) => match code.retry() {
                Retry::After(delay) => {
                    let delay = told_delay(reason).map_or(delay, |told| told.min(LONGEST_TOLD));
                    Reconnect::After(delay.max(asked))
                }
                Retry::No => Reconnect::After(asked),
            },
            // The gateway's own trouble, under a newer number.
            None if (300..400).contains(&number) => {
                Reconnect::After(Duration::from_secs(1).max(asked))
            }
            None => Reconnect::After(asked),
        }
    }

    /// Why to give the connection up, once. Close it with this code, then call
    /// `handle_disconnected`.
    pub fn poll_close(&mut self) -> Option<Code> {
        if let Some(code) = self.going
            && !self.waits_for_answer()
        {
            self.leave(code);
        }
        if self.bye == Bye::Written && self.close.is_none() && self.state == State::Live {
            self.leave(Code::Ok);
        }
        if self.close_polled {
            return None;
        }
        self.close_polled = self.close.is_some();
        self.close
    }

    fn leave(&mut self, code: Code) {
        self.close.get_or_insert(code);
    }

    fn leave_for(&mut self, error: &FrameError) {
        self.leave(error.code());
    }

    // --- what comes out ---

    /// What the application hears next.
    pub fn poll_event(&mut self) -> Option<Event> {
        let refused = self.inbox.take_refused();
        if refused > 0 {
            self.events.push(Event::Error {
                code: Code::InvalidArgument.number(),
                reason: format!("{refused} messages of too many conversations were left out"),
                retry: false,
            });
        }
        self.events.pop()
    }

    /// What to remember next.
    pub fn poll_store(&mut self) -> Option<StoreOp> {
        if let Some(op) = self.store.pop_front() {
            return Some(op);
        }
        let (conversation, seq) = self.inbox.take_dirty()?;
        Some(StoreOp::Position { conversation, seq })
    }

    /// A delay with up to half of itself added, so that many clients do not retry in step.
    fn spread(&mut self, delay: Duration) -> Duration {
        // SplitMix64: spreads a counter well enough for a delay.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = ((z ^ (z >> 31)) >> 48) as u32;
        delay + delay / 2 * share / (1 << 16)
    }

    fn settle(&mut self, id: &ClientMsgId) -> Option<outbox::Entry> {
        let entry = self.outbox.settle(id)?;
        self.store.push_back(StoreOp::Settled { id: id.clone() });
        Some(entry)
    }
}

/// 100 - 109, and what a newer gateway has put among the ends of a connection; not the ones that
/// say what to do.
fn is_broken_rule(number: u64) -> bool {
    match Code::from_number(number) {
        Some(code) => matches!(
            code,
            Code::ProtocolViolation
                | Code::FrameTooLarge
                | Code::MalformedFrame
                | Code::HelloExpected
        ),
        None => (100..200).contains(&number),
    }
}
