//! What the application hears.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skein_protocol::client::{self, Message, ReceiptKind};
use skein_protocol::{ClientMsgId, ConversationId, DeviceId, Seq, UserId};
use tokio::sync::{Notify, mpsc};

/// Something happened. The events of one conversation come in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The gateway has welcomed this device for the first time.
    Connected {
        /// Who we are.
        user: UserId,
        /// On which device.
        device: DeviceId,
        /// The gateway's name of the connection, for its logs.
        session: u64,
    },
    /// The connection stands again.
    Reconnected {
        /// The gateway's name of the connection, for its logs.
        session: u64,
    },
    /// The connection is gone, or a try to make one has failed.
    Disconnected {
        /// The code, if the gateway gave one.
        code: Option<u64>,
        /// In words.
        reason: String,
        /// When it is tried again. `None`: not before [`Client::reconnect`] is called, because
        /// the same would fail again or another connection took this device's place.
        ///
        /// [`Client::reconnect`]: crate::Client::reconnect
        retry_in: Option<Duration>,
    },
    /// The next message of a conversation: in order, without duplicates, without gaps.
    Message {
        /// The message.
        message: Message,
        /// This client sent it, and reports it as [`Event::Acked`] as well.
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
        /// Unix time of the gateway in milliseconds when it got its number.
        time_ms: u64,
        /// Id of its trace in OpenTelemetry, if the gateway traces it.
        trace: Option<[u8; 16]>,
    },
    /// A message of ours was refused for good; it will not be sent again.
    Rejected {
        /// Its name.
        id: ClientMsgId,
        /// Why, as a number of the table of codes.
        code: u32,
        /// In words.
        reason: String,
    },
    /// A message of ours was refused for now and is sent again by itself.
    Postponed {
        /// Its name.
        id: ClientMsgId,
        /// Why, as a number of the table of codes.
        code: u32,
        /// In words.
        reason: String,
        /// When.
        retry_in: Duration,
    },
    /// Somebody has received or read a conversation up to a number.
    Receipt {
        /// Where.
        conversation: ConversationId,
        /// Received or read.
        kind: ReceiptKind,
        /// Who. Our own user, if it was read on another device.
        user: UserId,
        /// Up to which number.
        seq: Seq,
    },
    /// These positions no longer exist, or are of a kind that this version cannot read.
    Skipped {
        /// Where.
        conversation: ConversationId,
        /// First number left out.
        from: Seq,
        /// Last number left out.
        to: Seq,
    },
    /// The gateway's log was replaced: numbers start anew.
    StoreReset {
        /// Of the new log.
        epoch: u64,
    },
    /// The operator of the gateway says something to everybody who is online.
    Notice {
        /// In words, for the person.
        text: String,
    },
    /// Something else went wrong.
    Error {
        /// Why, as a number of the table of codes; 0 if it is not about the gateway.
        code: u32,
        /// In words.
        reason: String,
        /// Whether it is tried again by itself.
        retry: bool,
    },
}

impl Event {
    /// What the session rules report, apart from what the driver handles itself.
    pub(crate) fn from_rules(event: client::Event, retry_in: Option<Duration>) -> Option<Self> {
        use client::Event as Rules;
        Some(match event {
            Rules::Connected { user, device, session, again: false } => {
                Event::Connected { user, device, session }
            }
            Rules::Connected { session, again: true, .. } => Event::Reconnected { session },
            Rules::Disconnected { code, reason, .. } => {
                Event::Disconnected { code, reason, retry_in }
            }
            Rules::StoreReset { epoch } => Event::StoreReset { epoch },
            Rules::Message { message, sent_here } => Event::Message { message, sent_here },
            Rules::Acked { id, conversation, seq, time_ms, trace } => {
                Event::Acked { id, conversation, seq, time_ms, trace }
            }
            Rules::Rejected { id, code, reason } => Event::Rejected { id, code, reason },
            Rules::Postponed { id, code, reason, retry_in } => {
                Event::Postponed { id, code, reason, retry_in }
            }
            Rules::Receipt { conversation, kind, user, seq } => {
                Event::Receipt { conversation, kind, user, seq }
            }
            Rules::Skipped { conversation, from, to } => Event::Skipped { conversation, from, to },
            Rules::Notice { text } => Event::Notice { text },
            Rules::Error { code, reason, retry } => Event::Error { code, reason, retry },
            Rules::History { .. } | Rules::HistoryFailed { .. } => return None,
        })
    }

    /// The position that is dealt with once this event is.
    pub(crate) fn position(&self) -> Option<(ConversationId, Seq)> {
        match self {
            Event::Message { message, .. } => Some((message.conversation, message.seq)),
            Event::Skipped { conversation, to, .. } => Some((*conversation, *to)),
            _ => None,
        }
    }
}

/// The stream of events.
///
/// A message counts as delivered when the application has dealt with it: when it asks for the next
/// event, or says [`done`](Events::done). Only then is it acknowledged to the gateway and not
/// shown again after a restart.
///
/// Read it, or drop it: while a mebibyte of events waits here the client leaves the connection
/// unread, acknowledgements of sends included. Once it is dropped, events are discarded.
#[derive(Debug)]
pub struct Events {
    pub(crate) queue: mpsc::Receiver<Event>,
    pub(crate) consumed: Arc<Consumed>,
    pub(crate) last: Option<(ConversationId, Seq)>,
}

impl Events {
    /// The next event; `None` once the client has ended. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        self.done();
        let event = self.queue.recv().await?;
        self.last = event.position();
        Some(event)
    }

    /// The last event is dealt with.
    pub fn done(&mut self) {
        if let Some((conversation, seq)) = self.last.take() {
            self.consumed.mark(conversation, seq);
        }
    }
}

/// What the application has dealt with and the driver does not know yet: one number for each
/// conversation.
#[derive(Debug, Default)]
pub(crate) struct Consumed {
    marks: Mutex<HashMap<ConversationId, Seq>>,
    pub(crate) news: Notify,
}

impl Consumed {
    fn mark(&self, conversation: ConversationId, seq: Seq) {
        self.lock().insert(conversation, seq);
        self.news.notify_one();
    }

    pub(crate) fn take(&self) -> HashMap<ConversationId, Seq> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ConversationId, Seq>> {
        // The map is whole even if somebody panicked while holding it.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
