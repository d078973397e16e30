//! What goes in and out of the client's session rules: configuration, messages, events.

use std::time::Duration;

use bytes::Bytes;

use crate::ids::IdError;
use crate::limits::MAX_CONTENT_TYPE_BYTES;
use crate::{ClientMsgId, Code, ConversationId, DeviceId, Seq, UserId, wire};

/// Highest sequence number that is taken from a peer. Far beyond any log, and far enough from the
/// end of the type that arithmetic on it cannot overflow.
pub const MAX_SEQ: Seq = 1 << 62;

/// Settings of one client; the defaults suit a phone.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who the token is for. If given, a gateway that knows the token as somebody else's is left
    /// with [`Code::BadToken`]. `None`: whoever `Welcome` names first.
    pub user: Option<UserId>,
    /// Name of this device; `None` takes the one in the token.
    pub device: Option<DeviceId>,
    /// `Hello.platform`; cut to what the protocol allows.
    pub platform: String,
    /// Where a conversation begins that this device has no position of.
    pub start: Start,
    /// How long an acknowledgement of delivery may wait for company.
    pub ack_delay: Duration,
    /// A send that is not answered in this time is sent again on the same connection; doubled for
    /// each further try. Long against a slow fsync, short against a person's patience.
    pub answer_timeout: Duration,
    /// Say something at least this often, even if the gateway advises a longer interval. `None`
    /// goes by its advice.
    pub max_heartbeat: Option<Duration>,
    /// A ping that is not answered in this time, or in four round trips if that is longer, means
    /// that the connection is dead.
    pub ping_timeout: Duration,
    /// A connection that is not welcomed in this time is given up.
    pub welcome_timeout: Duration,
    /// Sends that may wait for their acknowledgement; [`SendError::Full`] beyond. Some megabytes
    /// of envelopes at most.
    pub max_outbox_entries: usize,
    /// Bytes of payload that may wait for their acknowledgement.
    pub max_outbox_bytes: usize,
    /// Bytes of messages that arrived before an earlier one of their conversation. Beyond, they
    /// are left out and pulled once the gap is closed.
    pub max_early_bytes: usize,
    /// Bytes of events that wait for the application; beyond, [`Client::is_congested`] asks the
    /// driver to stop reading.
    ///
    /// [`Client::is_congested`]: super::Client::is_congested
    pub max_event_bytes: usize,
    /// Requests for history that may wait.
    pub max_history_requests: usize,
    /// Bytes of one answer to a request for history; it ends early beyond, and says so.
    pub max_history_bytes: usize,
    /// Conversations of which positions are kept. Far above what a person has.
    pub max_conversations: usize,
    /// Seed of the small random delays that keep many clients from retrying in step.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            user: None,
            device: None,
            platform: String::new(),
            start: Start::Delivered,
            ack_delay: Duration::from_millis(20),
            answer_timeout: Duration::from_secs(10),
            max_heartbeat: None,
            ping_timeout: Duration::from_secs(5),
            welcome_timeout: Duration::from_secs(10),
            max_outbox_entries: 10_000,
            max_outbox_bytes: 32 << 20,
            max_early_bytes: 1 << 20,
            max_event_bytes: 1 << 20,
            max_history_requests: 64,
            max_history_bytes: 4 << 20,
            max_conversations: 100_000,
            seed: 0,
        }
    }
}

/// Where a conversation begins that this device has no position of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// After the last message that the gateway knows to be delivered to any device of the user.
    #[default]
    Delivered,
    /// At the first message that still exists.
    Beginning,
}

/// To whom a message goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// The one-to-one conversation with a user.
    User(UserId),
    /// A conversation that exists.
    Conversation(ConversationId),
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its name, unique for this device for ever.
    pub id: ClientMsgId,
    /// To whom.
    pub to: Target,
    /// MIME type of the payload, at most 128 bytes; empty for plain text.
    pub content_type: String,
    /// What to say.
    pub payload: Bytes,
    /// Whether the id may have been used before: by an earlier process, or because the
    /// application chose it. Only such an id is looked for in the whole log.
    pub origin: Origin,
}

/// Where the id of an outgoing message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Made just now, never used.
    Fresh,
    /// May have been sent before. `after` is a number that the message's own cannot be at or
    /// below: [`Client::known_head`](super::Client::known_head) when it was accepted, or 0.
    MaybeSent {
        /// Lower bound, exclusive.
        after: Seq,
    },
}

/// Why a message was not accepted for sending.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too much waits already; try again when something was acknowledged.
    #[error("{entries} messages already wait to be acknowledged; wait for some of them")]
    Full {
        /// How many wait.
        entries: usize,
    },
    /// The payload is over the gateway's limit.
    #[error("the payload has {len} bytes, at most {max} are allowed")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The content type is over its limit.
    #[error("the content type has {0} bytes, at most {MAX_CONTENT_TYPE_BYTES} are allowed")]
    ContentType(usize),
    /// A message with this id waits already.
    #[error("a message with the id {0} already waits to be acknowledged")]
    DuplicateId(ClientMsgId),
}

/// One position of a conversation, as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub conversation: ConversationId,
    /// Position, contiguous from 1.
    pub seq: Seq,
    /// Who wrote it.
    pub sender: UserId,
    /// On which device.
    pub device: DeviceId,
    /// The sender's name for it.
    pub id: ClientMsgId,
    /// Unix time of the gateway in milliseconds when it got its number.
    pub time_ms: u64,
    /// MIME type of the payload; empty for plain text.
    pub content_type: String,
    /// What was said.
    pub payload: Bytes,
}

impl Message {
    /// Parses one from the wire.
    ///
    /// # Errors
    /// [`IdError`] when one of its ids breaks the rules.
    pub fn parse(message: wire::Message) -> Result<Self, IdError> {
        Ok(Self {
            conversation: ConversationId::parse(&message.conversation)?,
            seq: message.seq,
            sender: UserId::parse(&message.sender)?,
            device: DeviceId::parse(&message.sender_device)?,
            id: ClientMsgId::parse(&message.client_msg_id)?,
            time_ms: message.time_ms,
            content_type: message.content_type,
            payload: message.payload,
        })
    }

    /// The payload as text, if it is text: an empty or `text/...` content type and valid UTF-8.
    pub fn text(&self) -> Option<&str> {
        if !self.content_type.is_empty() && !self.content_type.starts_with("text/") {
            return None;
        }
        std::str::from_utf8(&self.payload).ok()
    }

    /// What it costs in memory, bytes.
    pub(super) fn cost(&self) -> usize {
        // Struct, ids and table entries beside the payload.
        256 + self.payload.len() + self.content_type.len()
    }
}

/// Which cursor moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReceiptKind {
    /// It arrived on a device.
    Delivered,
    /// The user has read it.
    Read,
}

/// A part of a conversation's past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRequest {
    /// Whose.
    pub of: Target,
    /// First number wanted; 0 counts as 1.
    pub from: Seq,
    /// Last number wanted; 0: up to the head.
    pub to: Seq,
    /// Newest first: with a limit, the last messages of the range.
    pub backward: bool,
    /// At most this many messages; 0: as many as fit into one answer.
    pub limit: u32,
}

/// Names one request for history.
pub type HistoryId = u64;

/// What the application hears. Events of one conversation come in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The gateway has welcomed this device.
    Connected {
        /// Who we are.
        user: UserId,
        /// On which device.
        device: DeviceId,
        /// The gateway's name of the connection.
        session: u64,
        /// Whether an earlier connection of this client is continued.
        again: bool,
    },
    /// The connection is gone.
    Disconnected {
        /// The code that closed it, if there was one.
        code: Option<u64>,
        /// In words.
        reason: String,
        /// When to connect again; `None`: never by itself.
        reconnect: Reconnect,
    },
    /// The gateway's log was replaced: all positions start anew.
    StoreReset {
        /// Of the new log.
        epoch: u64,
    },
    /// The next message of a conversation. Report it with `handle_consumed` once it is dealt with.
    Message {
        /// The message.
        message: Message,
        /// It was sent by this client, which has reported or will report it as
        /// [`Event::Acked`] as well.
        sent_here: bool,
    },
    /// A message of ours is durable.
    Acked {
        /// Its name.
        id: ClientMsgId,
        /// Where it is.
        conversation: ConversationId,
        /// Its position.
        seq: Seq,
        /// When it got its number, Unix time of the gateway in milliseconds.
        time_ms: u64,
        /// Id of its trace in OpenTelemetry, if the gateway traces it.
        trace: Option<[u8; 16]>,
    },
    /// A message of ours was refused for good and is forgotten.
    Rejected {
        /// Its name.
        id: ClientMsgId,
        /// Why, as a number of the table of codes.
        code: u32,
        /// In words.
        reason: String,
    },
    /// A message of ours was refused for now and will be sent again.
    Postponed {
        /// Its name.
        id: ClientMsgId,
        /// Why, as a number of the table of codes.
        code: u32,
        /// In words.
        reason: String,
        /// When it will be sent again.
        retry_in: Duration,
    },
    /// A cursor of a member has moved.
    Receipt {
        /// Where.
        conversation: ConversationId,
        /// Which cursor.
        kind: ReceiptKind,
        /// Whose.
        user: UserId,
        /// Up to which number.
        seq: Seq,
    },
    /// These positions no longer exist, or cannot be understood by this version.
    Skipped {
        /// Where.
        conversation: ConversationId,
        /// First number left out.
        from: Seq,
        /// Last number left out.
        to: Seq,
    },
    /// The answer to a request for history.
    History {
        /// Which request.
        request: HistoryId,
        /// The messages, in the order asked for.
        messages: Vec<Message>,
        /// Nothing more follows for the range.
        is_end: bool,
        /// The conversation's head when it was read.
        head: Seq,
    },
    /// A request for history was refused.
    HistoryFailed {
        /// Which request.
        request: HistoryId,
        /// Why, as a number of the table of codes.
        code: u32,
        /// In words.
        reason: String,
    },
    /// The operator says something to everybody who is online.
    Notice {
        /// In words, for the person.
        text: String,
    },
    /// Something was refused that is not about a send.
    Error {
        /// Why, as a number of the table of codes.
        code: u32,
        /// In words.
        reason: String,
        /// Whether it will be tried again.
        retry: bool,
    },
}

impl Event {
    /// What it costs in memory while it waits, bytes.
    pub(super) fn cost(&self) -> usize {
        match self {
            Event::Message { message, .. } => message.cost(),
            Event::History { messages, .. } => messages.iter().map(Message::cost).sum(),
            Event::Notice { text } => 128 + text.len(),
            _ => 128,
        }
    }
}

/// What to do after a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconnect {
    /// Connect again with backoff, not sooner than this.
    After(Duration),
    /// Connect again, but only with a new token.
    WithNewToken,
    /// The same would fail again, or somebody else took our place: leave it to the application.
    Never,
}

/// What the application should keep across restarts. Apply in order; losing the last ones in a
/// crash repeats messages, never loses any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOp {
    /// The application has everything up to here.
    Position {
        /// Where.
        conversation: ConversationId,
        /// Up to which number.
        seq: Seq,
    },
    /// The positions belong to this log now; all earlier ones are void.
    Reset {
        /// Epoch of the gateway's store.
        epoch: u64,
    },
    /// The message is acknowledged or refused for good: forget it.
    Settled {
        /// Its name.
        id: ClientMsgId,
    },
}

/// What is known from earlier processes.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Epoch of the store that the positions belong to; 0 when there are none.
    pub epoch: u64,
    /// Per conversation, up to where the application has everything.
    pub positions: Vec<(ConversationId, Seq)>,
}

/// What to do with bulk streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BulkAction {
    /// Open a stream, write these bytes, finish it; then feed what comes back.
    Open {
        /// Names the stream in `handle_bulk`.
        id: BulkId,
        /// The whole request.
        request: Bytes,
    },
    /// Nothing more is wanted from this stream.
    Stop {
        /// Which stream.
        id: BulkId,
    },
}

/// Names one bulk stream; never reused.
pub type BulkId = u64;

/// A code as the number that `Error` carries, with the name of the table where it is known.
pub(super) fn describe(code: u64, text: &str) -> String {
    match (Code::from_number(code), text.is_empty()) {
        (Some(code), true) => code.text().to_owned(),
        (None, true) => format!("code {code}"),
        (_, false) => text.to_owned(),
    }
}
