//! The gateway's side of a session, without I/O: bytes and the time in, events and frames out.
//!
//! ```text
//! live stream  -> handle_bytes -> poll_event -> Event (validated)
//!                                    Event::Hello -> accept() -> Welcome
//! bulk stream  -> Decoder -> bulk_request() -> BulkRequest (validated)
//! time         -> poll_timeout / handle_timeout -> Close
//! ```
//!
//! What an event means (who the user is, where a message goes) is decided outside; what a peer
//! may say, and when, is decided here.

use std::time::{Duration, Instant};

use bytes::Bytes;

pub use crate::close::Close;
use crate::cursor::Mark;
use crate::frame::{Decoder, encode};
use crate::limits::{
    HEARTBEAT_GRACE_PERCENT, MAX_CLIENT_MSG_ID_BYTES, MAX_CONTENT_TYPE_BYTES, MAX_PLATFORM_BYTES,
    MAX_TOKEN_BYTES, MIN_TOKEN_INTERVAL,
};
use crate::wire::{self, client_frame, server_frame};
use crate::{ClientMsgId, Code, ConversationId, DeviceId, Seq, UserId, VERSION};

/// What a gateway accepts from a session; shared by all sessions.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Limits, as `Welcome` tells them.
    pub limits: wire::Limits,
    /// Advised in `Welcome`; one and a half of it without a frame evicts. Whoever was told another
    /// one at its login keeps that.
    pub heartbeat_interval: Duration,
    /// Time from the connection to `Hello`.
    pub hello_timeout: Duration,
}

/// Something that the peer asks for, in the order in which it asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Check the token, then call [`ServerSession::accept`] or close.
    Hello(Hello),
    /// A message; answer with SendAck or Error, then call [`ServerSession::answered`].
    Send(Send),
    /// A request that breaks the rules; answer with this error.
    Refused(Refusal),
    /// The device has everything up to these marks.
    Delivered(Vec<Mark>),
    /// The user has read up to these marks.
    Read(Vec<Mark>),
    /// A new token for the running session.
    RefreshToken(String),
    /// Answer a ping with this nonce.
    Ping(u64),
    /// Many frames that mean nothing here have been passed over, and more may follow: a good moment
    /// to look after others.
    PassedOver,
    /// The peer leaves.
    Bye,
}

/// Empty frames, and frames of newer clients, that are passed over at a time.
const PASSED_OVER: usize = 64;

/// The first frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// JSON Web Token, unchecked; at most 8 KiB.
    pub token: String,
    /// The device that the client names; the token may name it instead.
    pub device: Option<DeviceId>,
    /// For operators.
    pub platform: String,
    /// Epoch of the client's data; 0: none.
    pub store_epoch: u64,
    /// What the client has, as far as it told.
    pub have: Vec<Mark>,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To the one-to-one conversation with this user, which begins if it did not exist.
    User(UserId),
    /// To a conversation that exists.
    Conversation(ConversationId),
}

/// A message that a client wants stored and delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// Where to.
    pub target: Target,
    /// Key of deduplication.
    pub client_msg_id: ClientMsgId,
    /// MIME type; empty for plain text.
    pub content_type: String,
    /// What is sent.
    pub payload: Bytes,
    /// The head that the client knew at its first attempt: if the id is in the log, it is above.
    /// `None`: it can only be among the recent ones.
    pub after_seq: Option<Seq>,
}

/// A numbered answer to a request that is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which refusal.
    pub code: Code,
    /// What to do about it, for a person.
    pub message: String,
    /// The send that it answers; empty if none.
    pub client_msg_id: String,
    /// When it may be tried again at the earliest; `None`: as the code says.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// The frame that says so.
    pub fn frame(&self) -> Bytes {
        let (retry, after) = match self.code.retry() {
            crate::codes::Retry::No => (false, 0),
            crate::codes::Retry::After(delay) => {
                let delay = self.retry_after.unwrap_or(delay).as_nanos().div_ceil(1_000_000);
                (true, u32::try_from(delay).unwrap_or(u32::MAX))
            }
        };
        server_frame(server_frame::Kind::Error(wire::Error {
            code: self.code.number(),
            message: self.message.clone(),
            retry_after_ms: after,
            client_msg_id: self.client_msg_id.clone(),
            retry,
        }))
    }
}

/// What `Welcome` tells beside the rules.
#[derive(Debug, Clone)]
pub struct Admission<'a> {
    /// Names this connection in logs.
    pub session: u64,
    /// The token's user.
    pub user: &'a UserId,
    /// The device under which the session is known.
    pub device: &'a DeviceId,
    /// Unix time, milliseconds.
    pub server_time_ms: u64,
    /// Epoch of the store.
    pub store_epoch: u64,
    /// Unix time in milliseconds at which the token ends.
    pub token_expires_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but Hello is accepted.
    Greeting,
    /// Hello was handed out; nothing is decoded until it is accepted.
    Checking,
    /// Welcomed.
    Live,
}

/// One session's state: who may say what now. Small, because there are a million of them.
#[derive(Debug)]
pub struct ServerSession {
    state: State,
    decoder: Decoder,
    /// When the peer was last heard; until the login, when it connected.
    last_heard: Instant,
    /// End of the token; the session ends with it.
    expires: Option<Instant>,
    /// When the last new token was handed out.
    refreshed: Option<Instant>,
    /// Sends handed out and not answered.
    unanswered: u32,
    /// Heartbeat interval that the peer was told, in hundredths of a second: it goes by that
    /// whatever the rules say later.
    heartbeat: u16,
}

/// Unit of [`ServerSession::heartbeat`]; its type reaches to 10 minutes.
const HEARTBEAT_UNIT: Duration = Duration::from_millis(10);

impl ServerSession {
    /// A connection that has not said anything.
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Greeting,
            decoder: Decoder::new(),
            last_heard: now,
            expires: None,
            refreshed: None,
            unanswered: 0,
            heartbeat: 0,
        }
    }

    /// Takes bytes of the live stream. Then call [`poll_event`](Self::poll_event) until `None`.
    pub fn handle_bytes(&mut self, chunk: Bytes, now: Instant) {
        self.heard(now);
        self.decoder.push(chunk);
    }

    /// Takes note that the peer is alive, from a frame on another stream.
    pub fn heard(&mut self, now: Instant) {
        // Before the login the time runs from the connection on: a stranger who sends a byte now
        // and then must not hold it open.
        if self.state == State::Live {
            self.last_heard = now;
        }
    }

    /// The next thing that the peer asks for.
    ///
    /// # Errors
    /// The peer broke a rule: close with this.
    pub fn poll_event(&mut self, rules: &Rules) -> Result<Option<Event>, Close> {
        for _ in 0..PASSED_OVER {
            if self.state == State::Checking {
                return Ok(None);
            }
            let max = rules.limits.max_frame_bytes as usize;
            let frame = self
                .decoder
                .poll::<wire::ClientFrame>(max)
                .map_err(|error| Close::because(error.code(), error.to_string()))?;
            let Some(frame) = frame else {
                return Ok(None);
            };
            // A kind from a newer client decodes to none and is passed over.
            if let Some(kind) = frame.kind
                && let Some(event) = self.event(kind, rules)?
            {
                return Ok(Some(event));
            }
        }
        Ok(Some(Event::PassedOver))
    }

    /// Admits the peer; returns the Welcome frame.
    pub fn accept(&mut self, rules: &Rules, admission: &Admission<'_>, now: Instant) -> Bytes {
        self.state = State::Live;
        self.last_heard = now;
        let units = rules.heartbeat_interval.as_millis().div_ceil(HEARTBEAT_UNIT.as_millis());
        self.heartbeat = units.try_into().unwrap_or(u16::MAX);
        self.expires = admission.token_expires_ms.map(|at| expiry(at, admission, now));
        server_frame(server_frame::Kind::Welcome(wire::Welcome {
            version: VERSION,
            session: admission.session,
            user: admission.user.as_str().into(),
            device: admission.device.as_str().into(),
            server_time_ms: admission.server_time_ms,
            heartbeat_interval_ms: rules.heartbeat_interval.as_millis() as u32,
            limits: Some(rules.limits),
            store_epoch: admission.store_epoch,
            token_expires_ms: admission.token_expires_ms.unwrap_or(0),
        }))
    }

    /// Takes a token that was checked; returns the frame that says so.
    pub fn refresh(&mut self, expires_ms: Option<u64>, now_ms: u64, now: Instant) -> Bytes {
        self.expires = expires_ms.map(|at| now + Duration::from_millis(at.saturating_sub(now_ms)));
        server_frame(server_frame::Kind::TokenRefreshed(wire::TokenRefreshed {
            token_expires_ms: expires_ms.unwrap_or(0),
        }))
    }

    /// A send was answered, with whatever outcome.
    pub fn answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// Answers may have been lost: none is waited for any longer. The peer asks again for those
    /// that it misses.
    pub fn forget_unanswered(&mut self) {
        self.unanswered = 0;
    }

    /// For how long nothing has been heard of the peer; until the login, since it connected.
    pub fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_heard)
    }

    /// Sends of the peer that wait for an answer.
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Whether the peer has been welcomed.
    pub fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest. It may move later
    /// without notice; calling too early does no harm.
    pub fn poll_timeout(&self, rules: &Rules) -> Instant {
        let silence = match self.state {
            State::Live => {
                HEARTBEAT_UNIT * u32::from(self.heartbeat) * HEARTBEAT_GRACE_PERCENT / 100
            }
            _ => rules.hello_timeout,
        };
        let silent = self.last_heard + silence;
        self.expires.map_or(silent, |expires| silent.min(expires))
    }

    /// Whether the session must end now.
    pub fn handle_timeout(&self, rules: &Rules, now: Instant) -> Option<Close> {
        if self.expires.is_some_and(|expires| expires <= now) {
            return Some(Close::new(Code::TokenExpired));
        }
        if now < self.poll_timeout(rules) {
            return None;
        }
        Some(Close::new(match self.state {
            State::Live => Code::HeartbeatTimeout,
            _ => Code::HelloTimeout,
        }))
    }

    fn event(&mut self, kind: client_frame::Kind, rules: &Rules) -> Result<Option<Event>, Close> {
        use client_frame::Kind;
        let event = match (self.state, kind) {
            (State::Greeting, Kind::Hello(hello)) => {
                let event = Event::Hello(parse_hello(hello, rules)?);
                self.state = State::Checking;
                event
            }
            (State::Greeting, _) => return Err(Close::new(Code::HelloExpected)),
            (_, Kind::Hello(_)) => return Err(violation("a second Hello")),
            (_, Kind::Ping(ping)) => Event::Ping(ping.nonce),
            (_, Kind::Pong(_)) => return Ok(None),
            (_, Kind::Send(send)) => self.send_event(send, rules),
            (_, Kind::Delivered(wire::Delivered { cursors })) => {
                Event::Delivered(parse_marks(&cursors, rules)?)
            }
            (_, Kind::Read(wire::Read { cursors })) => Event::Read(parse_marks(&cursors, rules)?),
            (_, Kind::RefreshToken(refresh)) => self.refresh_event(refresh)?,
            (_, Kind::Bye(_)) => Event::Bye,
            (_, Kind::HeadsRequest(_) | Kind::PullRequest(_)) => {
                return Err(violation("a bulk request on the live stream"));
            }
        };
        Ok(Some(event))
    }

    fn refresh_event(&mut self, refresh: wire::RefreshToken) -> Result<Event, Close> {
        // The frame has just been heard.
        let now = self.last_heard;
        if self.refreshed.is_some_and(|last| now < last + MIN_TOKEN_INTERVAL) {
            let seconds = MIN_TOKEN_INTERVAL.as_secs();
            let message = format!("a session may show one new token in {seconds} s");
            let client_msg_id = String::new();
            let (code, retry_after) = (Code::Overloaded, None);
            return Ok(Event::Refused(Refusal { code, message, client_msg_id, retry_after }));
        }
        self.refreshed = Some(now);
        Ok(Event::RefreshToken(parse_token(refresh.token)?))
    }

    fn send_event(&mut self, send: wire::Send, rules: &Rules) -> Event {
        let named = send.client_msg_id.clone();
        let refuse = |code: Code, message: String| {
            // An id that breaks its own limit is not sent back.
            let echo = named.len() <= MAX_CLIENT_MSG_ID_BYTES;
            let client_msg_id = if echo { named.clone() } else { String::new() };
            Event::Refused(Refusal { code, message, client_msg_id, retry_after: None })
        };
        if self.unanswered >= rules.limits.max_unacked_sends {
            let max = rules.limits.max_unacked_sends;
            return refuse(Code::TooManySends, format!("{max} sends are waiting for an answer"));
        }
        match parse_send(send, rules) {
            Ok(send) => {
                self.unanswered += 1;
                Event::Send(send)
            }
            Err((code, message)) => refuse(code, message),
        }
    }
}

fn expiry(at_ms: u64, admission: &Admission<'_>, now: Instant) -> Instant {
    now + Duration::from_millis(at_ms.saturating_sub(admission.server_time_ms))
}

/// A request on a bulk stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BulkRequest {
    /// Heads of these conversations; empty: of all.
    Heads(Vec<ConversationId>),
    /// Messages.
    Pull(Vec<PullRange>),
}

/// One range of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRange {
    /// Of which conversation.
    pub target: Target,
    /// First number wanted; at least 1.
    pub from: Seq,
    /// Last number wanted; `Seq::MAX` for the head.
    pub to: Seq,
    /// Newest first.
    pub backward: bool,
    /// At most this many messages.
    pub limit: u32,
}

/// Reads the one frame of a bulk stream. `None`: a kind from a newer client, to be answered with
/// [`Code::InvalidArgument`].
///
/// # Errors
/// The peer broke a rule: close with this.
pub fn bulk_request(frame: wire::ClientFrame, rules: &Rules) -> Result<Option<BulkRequest>, Close> {
    use client_frame::Kind;
    match frame.kind {
        None => Ok(None),
        Some(Kind::HeadsRequest(request)) => {
            check_entries(request.conversations.len(), rules)?;
            let ids = request.conversations.iter();
            let ids = ids.map(|id| ConversationId::parse(id).map_err(malformed));
            Ok(Some(BulkRequest::Heads(ids.collect::<Result<_, _>>()?)))
        }
        Some(Kind::PullRequest(request)) => {
            check_entries(request.ranges.len(), rules)?;
            let ranges = request.ranges.into_iter().map(parse_range);
            Ok(Some(BulkRequest::Pull(ranges.collect::<Result<_, _>>()?)))
        }
        Some(_) => Err(violation("a live frame on a bulk stream")),
    }
}

/// A frame of the gateway, ready for the stream.
pub fn server_frame(kind: server_frame::Kind) -> Bytes {
    encode(&wire::ServerFrame { kind: Some(kind) })
}

fn parse_hello(hello: wire::Hello, rules: &Rules) -> Result<Hello, Close> {
    if !hello.versions.contains(&VERSION) {
        let spoken = format!("this gateway speaks version {VERSION}");
        return Err(Close::because(Code::VersionUnsupported, spoken));
    }
    if hello.platform.len() > MAX_PLATFORM_BYTES {
        return Err(malformed(format!("platform is over {MAX_PLATFORM_BYTES} bytes")));
    }
    let device = match hello.device.as_str() {
        "" => None,
        device => Some(DeviceId::parse(device).map_err(malformed)?),
    };
    Ok(Hello {
        token: parse_token(hello.token)?,
        device,
        platform: hello.platform,
        store_epoch: hello.store_epoch,
        have: parse_marks(&hello.have, rules)?,
    })
}

fn parse_token(token: String) -> Result<String, Close> {
    if token.len() > MAX_TOKEN_BYTES {
        let reason = format!("the token is over {MAX_TOKEN_BYTES} bytes");
        return Err(Close::because(Code::BadToken, reason));
    }
    Ok(token)
}

fn parse_marks(cursors: &[wire::Cursor], rules: &Rules) -> Result<Vec<Mark>, Close> {
    check_entries(cursors.len(), rules)?;
    let mark = |cursor: &wire::Cursor| {
        let conversation = ConversationId::parse(&cursor.conversation).map_err(malformed)?;
        Ok(Mark { conversation, seq: cursor.seq })
    };
    cursors.iter().map(mark).collect()
}

fn parse_send(send: wire::Send, rules: &Rules) -> Result<Send, (Code, String)> {
    let invalid = |what: String| (Code::InvalidArgument, what);
    let client_msg_id =
        ClientMsgId::parse(&send.client_msg_id).map_err(|error| invalid(error.to_string()))?;
    let target = match send.target {
        Some(wire::send::Target::ToUser(user)) => {
            Target::User(UserId::parse(&user).map_err(|error| invalid(error.to_string()))?)
        }
        Some(wire::send::Target::Conversation(id)) => Target::Conversation(
            ConversationId::parse(&id).map_err(|error| invalid(error.to_string()))?,
        ),
        None => return Err(invalid("a send needs to_user or conversation".into())),
    };
    if send.content_type.len() > MAX_CONTENT_TYPE_BYTES {
        return Err(invalid(format!("content_type is over {MAX_CONTENT_TYPE_BYTES} bytes")));
    }
    let max = rules.limits.max_payload_bytes as usize;
    if send.payload.len() > max {
        let len = send.payload.len();
        let message = format!("the payload has {len} bytes, at most {max} are allowed");
        return Err((Code::PayloadTooLarge, message));
    }
    Ok(Send {
        target,
        client_msg_id,
        content_type: send.content_type,
        payload: send.payload,
        after_seq: send.retry_after_seq.or(send.known_seq),
    })
}

fn parse_range(range: wire::Range) -> Result<PullRange, Close> {
    let target = match range.target {
        Some(wire::range::Target::Conversation(id)) => {
            Target::Conversation(ConversationId::parse(&id).map_err(malformed)?)
        }
        Some(wire::range::Target::WithUser(user)) => {
            Target::User(UserId::parse(&user).map_err(malformed)?)
        }
        None => return Err(malformed("a range needs a conversation or with_user")),
    };
    Ok(PullRange {
        target,
        from: range.from.max(1),
        to: if range.to == 0 { Seq::MAX } else { range.to },
        backward: range.backward,
        limit: if range.limit == 0 { u32::MAX } else { range.limit },
    })
}

fn check_entries(count: usize, rules: &Rules) -> Result<(), Close> {
    let max = rules.limits.max_entries as usize;
    if count > max {
        return Err(malformed(format!("{count} entries in a frame, at most {max} are allowed")));
    }
    Ok(())
}

fn malformed(what: impl ToString) -> Close {
    Close::because(Code::MalformedFrame, what.to_string())
}

fn violation(what: &str) -> Close {
    Close::because(Code::ProtocolViolation, what)
}
