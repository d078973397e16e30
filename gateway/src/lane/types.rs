//! What goes into a lane and what comes out of it.

use std::sync::Arc;

use skein_protocol::cursor::Mark;
use skein_protocol::server::{Refusal, Send};
use skein_protocol::{ClientMsgId, ConversationId, DeviceId, Seq, UserId};
use skein_storage::{Append, CursorPair, Extent, Record};
use skein_transport::ConnId;

use super::window::{Key, Known};
use crate::observe::Stamp;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The connection that gets the answer.
    pub conn: ConnId,
    /// Its user.
    pub user: UserId,
    /// Its device.
    pub device: DeviceId,
    /// When it asked.
    pub at: Stamp,
}

/// Which cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorKind {
    /// Arrived on a device.
    Delivered,
    /// Read by the user.
    Read,
}

/// What a lane is asked to do with one conversation.
#[derive(Debug, Clone)]
pub enum Command {
    /// Store and deliver a message.
    Send(Origin, Send),
    /// Raise a cursor.
    Cursor(Origin, CursorKind, Seq),
    /// Tell the origin the head if it is past this number.
    TellIfPast(Origin, Seq),
}

/// What has to happen next, outside.
#[derive(Debug)]
pub enum Effect {
    /// Read a conversation, then call [`Lane::handle_loaded`](super::Lane::handle_loaded).
    Load(Load),
    /// Look for keys in the log, then call [`Lane::handle_scanned`](super::Lane::handle_scanned).
    Scan(Scan),
    /// Submit, then call [`Lane::handle_appended`](super::Lane::handle_appended).
    Append(Append),
    /// Acknowledge a message that is durable.
    Ack(Ack),
    /// Refuse a request.
    Refuse(ConnId, Refusal),
    /// Push a durable message to everybody but the session that sent it.
    Deliver(Delivery),
    /// Tell the others about a cursor.
    Receipt(Receipt),
    /// Tell one session that a conversation has grown to this head.
    Head(ConnId, Mark),
    /// The same for all sessions of these users: there is something that was not pushed to them.
    Grown(Mark, Arc<[UserId]>),
    /// Read how far the log reaches, then call [`Lane::handle_looked`](super::Lane::handle_looked).
    Look(ConversationId),
}

/// Asks for a conversation's state.
#[derive(Debug, Clone)]
pub struct Load {
    /// Which.
    pub conversation: ConversationId,
    /// Members to begin it with if it does not exist.
    pub begin: Option<Vec<UserId>>,
    /// How many records of the tail are wanted.
    pub tail: usize,
}

/// A conversation as it stands in the store.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Who is in it.
    pub members: Vec<UserId>,
    /// Its log.
    pub extent: Extent,
    /// What is known of the last records, ascending, up to the head.
    pub tail: Vec<Known>,
    /// Cursors in the order of `members`.
    pub cursors: Vec<CursorPair>,
}

/// Asks which of these messages of one device are in a part of the log.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Whose log.
    pub conversation: ConversationId,
    /// First number to look at.
    pub from: Seq,
    /// Last number to look at.
    pub to: Seq,
    /// The device that retries.
    pub sender: (UserId, DeviceId),
    /// What it retries.
    pub keys: Vec<Key>,
}

/// What a scan found: key, number and time in milliseconds.
pub type Found = Vec<(Key, Seq, u64)>;

/// An answer to a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// To whom.
    pub conn: ConnId,
    /// Which send.
    pub client_msg_id: ClientMsgId,
    /// In which conversation it is.
    pub conversation: ConversationId,
    /// At which number.
    pub seq: Seq,
    /// Since when, Unix milliseconds.
    pub time_ms: u64,
    /// When it was asked for, if this answers the first attempt.
    pub asked: Stamp,
}

/// A durable message on its way to the members.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Where it was said.
    pub conversation: ConversationId,
    /// What was said.
    pub record: Record,
    /// Who hears it.
    pub members: Arc<[UserId]>,
    /// The session that sent it and gets no push.
    pub origin: ConnId,
    /// When it came.
    pub asked: Stamp,
}

/// A cursor that moved.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// Where.
    pub conversation: ConversationId,
    /// Which cursor.
    pub kind: CursorKind,
    /// Whose.
    pub user: UserId,
    /// To where.
    pub seq: Seq,
    /// Who hears of it.
    pub members: Arc<[UserId]>,
    /// The session that moved it.
    pub origin: ConnId,
}

/// What a loaded conversation knows.
#[derive(Debug, Clone)]
pub struct Peek {
    /// Last number that is known to be durable.
    pub known: Seq,
    /// Members in order of the cursors.
    pub members: Arc<[UserId]>,
    /// Their cursors.
    pub cursors: Vec<CursorPair>,
}
