//! The Skein SDK: connect, send until acknowledged, receive in order.
//!
//! ```no_run
//! use skein_client::{Client, Event, User};
//!
//! # async fn run(token: String, ca: Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
//! let (client, mut events) = Client::builder()
//!     .server("chat.example.com:7843")
//!     .ca_pem(ca)
//!     .token(token)
//!     .data_dir("./my-device".as_ref())?
//!     .connect()
//!     .await?;
//!
//! // Accepted means: in the outbox, and sent until the gateway has it, whatever happens.
//! let sent = client.send(User("bob"), "hello").await?;
//! println!("it is number {}", sent.acked().await?.seq);
//!
//! while let Some(event) = events.next().await {
//!     if let Event::Message { message, .. } = event {
//!         println!("{}: {}", message.sender, message.text().unwrap_or("(no text)"));
//!         client.mark_read(message.conversation, message.seq).await?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it promises:
//! - a message that [`Client::send`] accepted is sent under its id until the gateway has stored it
//!   or refused it for good, over lost connections, and with a durable [`Outbox`] over restarts;
//!   it is stored once; messages to one conversation keep their order;
//! - the messages of a conversation come in order, without duplicates and without gaps; what was
//!   missed is fetched;
//! - a lost connection is noticed and made again, with growing random delays.
//!
//! The flow through the files:
//!
//! ```text
//! Client -> driver.rs -> the session rules (skein_protocol::client) -> link.rs -> gateway
//!             |  ^
//!             |  +-- keeper.rs: outbox.rs and positions.rs, on a thread of its own
//!             +-> event.rs -> the application          reconnect.rs: when to try again
//! ```

mod builder;
mod driver;
mod error;
mod event;
mod journal;
mod keeper;
mod link;
mod outbox;
mod positions;
mod reconnect;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use skein_protocol::client::{HistoryRequest, Origin, Outgoing};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub(crate) use builder::TokenSource;
pub use builder::{Builder, DEFAULT_PORT};
use driver::Command;
pub use error::{AckError, BuildError, ConnectError, HistoryError, OutgoingError, SendError};
pub use event::{Event, Events};
pub use outbox::{FileOutbox, MemoryOutbox, Outbox, Waiting};
pub use positions::{FilePositions, MemoryPositions, Positions};
pub use skein_protocol as protocol;
pub use skein_protocol::client::{Config, Message, ReceiptKind, Restored, Start, Target};
pub use skein_protocol::{ClientMsgId, Code, ConversationId, DeviceId, Seq, UserId};

/// A device that is logged in, or tries to be. Clones are the same client.
#[derive(Debug, Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Client {
    /// Begin here.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Sends a message under an id of its own.
    ///
    /// # Errors
    /// [`SendError`]; it will not be sent.
    pub async fn send(
        &self,
        to: impl IntoTarget,
        content: impl Into<Content>,
    ) -> Result<SendHandle, SendError> {
        let id = format!("{:032x}", rand::random::<u128>());
        let id = ClientMsgId::parse(&id).map_err(|_| SendError::Closed)?;
        self.submit(id, to.into_target()?, content.into(), Origin::Fresh).await
    }

    /// Sends a message under an id of the application's. The same id again means the same
    /// message: it is stored once, and answered alike.
    ///
    /// # Errors
    /// [`SendError`]; it will not be sent.
    pub async fn send_as(
        &self,
        id: ClientMsgId,
        to: impl IntoTarget,
        content: impl Into<Content>,
    ) -> Result<SendHandle, SendError> {
        // An earlier process may have sent it.
        let origin = Origin::MaybeSent { after: 0 };
        self.submit(id, to.into_target()?, content.into(), origin).await
    }

    /// The user has read a conversation up to `seq`; the others and the user's other devices hear
    /// of it.
    ///
    /// # Errors
    /// The name breaks the rules, or the client has ended.
    pub async fn mark_read(&self, with: impl IntoTarget, seq: Seq) -> Result<(), SendError> {
        let of = with.into_target()?;
        self.commands.send(Command::Read { of, seq }).await.map_err(|_| SendError::Closed)
    }

    /// Messages `from` to `to` of a conversation, oldest first; `to` 0 means up to the last. The
    /// answer may be shorter; then it says so.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn history(
        &self,
        with: impl IntoTarget,
        from: Seq,
        to: Seq,
    ) -> Result<History, HistoryError> {
        self.ask(with.into_target(), from, to, false, 0).await
    }

    /// The last `count` messages of a conversation, newest first.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn latest(&self, with: impl IntoTarget, count: u32) -> Result<History, HistoryError> {
        self.ask(with.into_target(), 0, 0, true, count.max(1)).await
    }

    /// Waits until every message that was accepted is acknowledged or refused.
    pub async fn flush(&self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Flush { reply }).await.is_ok() {
            let _ = done.await;
        }
    }

    /// The device is on another network now: its connection moves there, or is made anew at once.
    pub async fn network_changed(&self) {
        let _ = self.commands.send(Command::NetworkChanged).await;
    }

    /// Connects now instead of later, and also after an end that the client leaves alone.
    pub async fn reconnect(&self) {
        let _ = self.commands.send(Command::Reconnect).await;
    }

    /// Leaves the gateway and waits until everything is put away. What is not acknowledged stays
    /// in the outbox; [`flush`](Self::flush) first to wait for it.
    pub async fn close(self) {
        let _ = self.commands.send(Command::Close).await;
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }

    async fn submit(
        &self,
        id: ClientMsgId,
        to: Target,
        content: Content,
        origin: Origin,
    ) -> Result<SendHandle, SendError> {
        let Content { content_type, payload } = content;
        let message = Outgoing { id, to, content_type, payload, origin };
        let (reply, answer) = oneshot::channel();
        let command = Command::Send { message, reply };
        self.commands.send(command).await.map_err(|_| SendError::Closed)?;
        answer.await.map_err(|_| SendError::Closed)?
    }

    async fn ask(
        &self,
        of: Result<Target, SendError>,
        from: Seq,
        to: Seq,
        backward: bool,
        limit: u32,
    ) -> Result<History, HistoryError> {
        let of = of.map_err(|error| HistoryError::Refused {
            code: Code::InvalidArgument.number(),
            reason: error.to_string(),
        })?;
        let request = HistoryRequest { of, from, to, backward, limit };
        let (reply, answer) = oneshot::channel();
        let command = Command::History { request, reply };
        self.commands.send(command).await.map_err(|_| HistoryError::Closed)?;
        answer.await.map_err(|_| HistoryError::Closed)?
    }
}

/// A message that was accepted. Dropping it changes nothing for the message.
#[derive(Debug)]
pub struct SendHandle {
    id: ClientMsgId,
    ack: oneshot::Receiver<Result<Ack, AckError>>,
}

impl SendHandle {
    /// The message's name.
    pub fn id(&self) -> &ClientMsgId {
        &self.id
    }

    /// Waits until the gateway has stored the message.
    ///
    /// # Errors
    /// [`AckError`]: it was refused for good, or the client ended.
    pub async fn acked(self) -> Result<Ack, AckError> {
        self.ack.await.unwrap_or(Err(AckError::Closed))
    }
}

/// Where a message of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The conversation.
    pub conversation: ConversationId,
    /// Its position there.
    pub seq: Seq,
    /// Unix time of the gateway in milliseconds when it got its number.
    pub time_ms: u64,
    /// Id of its trace in OpenTelemetry, if the gateway traces it.
    pub trace: Option<[u8; 16]>,
}

/// A part of a conversation's past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The messages, in the order that was asked for.
    pub messages: Vec<Message>,
    /// Nothing more follows for what was asked. If not, ask again behind the last message.
    pub is_end: bool,
    /// The conversation's last number when it was read.
    pub head: Seq,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// MIME type of the payload; empty means plain text in UTF-8.
    pub content_type: String,
    /// The bytes.
    pub payload: Bytes,
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self { content_type: String::new(), payload: text.into() }
    }
}

/// The one-to-one conversation with the user of this name.
#[derive(Debug, Clone, Copy)]
pub struct User<'a>(pub &'a str);

/// Names a conversation.
pub trait IntoTarget {
    /// The conversation.
    ///
    /// # Errors
    /// The name breaks the rules of its kind.
    fn into_target(self) -> Result<Target, SendError>;
}

impl IntoTarget for Target {
    fn into_target(self) -> Result<Target, SendError> {
        Ok(self)
    }
}

impl IntoTarget for UserId {
    fn into_target(self) -> Result<Target, SendError> {
        Ok(Target::User(self))
    }
}

impl IntoTarget for ConversationId {
    fn into_target(self) -> Result<Target, SendError> {
        Ok(Target::Conversation(self))
    }
}

impl IntoTarget for User<'_> {
    fn into_target(self) -> Result<Target, SendError> {
        Ok(Target::User(UserId::parse(self.0)?))
    }
}
