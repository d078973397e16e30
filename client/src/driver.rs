//! The task that owns the session rules, the connection and all timers.
//!
//! ```text
//! wait for one input (command, bytes, timer, ...) -> rules.handle_*
//! pump: rules.poll_*                              -> link, keeper, events
//! ```
//! Nothing in `pump` waits: what finds its channel full stays in the rules and is asked for again
//! when there is room.

mod output;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::ConnectionError;
use skein_protocol::client::{
    Client as Rules, HistoryId, HistoryRequest, Origin, Outgoing, Reconnect,
    SendError as OutgoingError, Target,
};
use skein_protocol::{ClientMsgId, Code, Seq};
use tokio::sync::{mpsc, oneshot};

use crate::error::{AckError, ConnectError, HistoryError, SendError};
use crate::event::{Consumed, Event};
use crate::keeper::{Job, Keeper, Kept};
use crate::link::{self, BulkInput, Dialer, Link};
use crate::outbox::Waiting;
use crate::reconnect::Backoff;
use crate::{Ack, History, SendHandle, TokenSource};

/// How long leaving may take: the last acknowledgements, Bye, and the gateway's close.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the application asks for.
pub(crate) enum Command {
    Send { message: Outgoing, reply: oneshot::Sender<Result<SendHandle, SendError>> },
    Read { of: Target, seq: Seq },
    History { request: HistoryRequest, reply: oneshot::Sender<Result<History, HistoryError>> },
    Flush { reply: oneshot::Sender<()> },
    NetworkChanged,
    Reconnect,
    Close,
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A connection with the token to greet it with.
type Dialed = Result<(String, Box<Link>), ConnectError>;

/// Where the connection stands.
enum Line {
    /// Waiting until it is time to connect.
    Waiting(Instant),
    Connecting(Boxed<(Dialer, Dialed)>),
    Up(Box<Link>, Boxed<ConnectionError>),
    /// Not before the application asks for it.
    Stopped,
}

/// A message that is on its way into the outbox.
struct Accepting {
    message: Outgoing,
    reply: oneshot::Sender<Result<SendHandle, SendError>>,
}

pub(crate) struct Driver {
    pub(crate) rules: Rules,
    pub(crate) keeper: Keeper,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) consumed: Arc<Consumed>,
    pub(crate) tokens: TokenSource,
    /// Bounds of what waits, with what is on its way into the outbox.
    pub(crate) max_outbox_bytes: usize,
    pub(crate) max_outbox_entries: usize,
    dialer: Option<Dialer>,
    line: Line,
    backoff: Backoff,
    /// Jobs that found the keeper busy.
    jobs: VecDeque<Job>,
    accepting: HashMap<ClientMsgId, Accepting>,
    waiters: HashMap<ClientMsgId, Vec<oneshot::Sender<Result<Ack, AckError>>>>,
    histories: HashMap<HistoryId, oneshot::Sender<Result<History, HistoryError>>>,
    flushes: Vec<oneshot::Sender<()>>,
    /// The next event for the application, which found the queue full.
    pending: Option<Event>,
    refreshing: Option<Boxed<Option<String>>>,
    /// The writer has no room: ask again when it has.
    writer_full: bool,
    /// Set while we leave.
    leave_by: Option<Instant>,
    /// The wait that belongs to the last Disconnected of the rules.
    retry_in: Option<Duration>,
}

/// One thing that happened.
enum Input {
    Command(Option<Command>),
    Kept(Option<Kept>),
    EventRoom,
    JobRoom,
    WriteRoom,
    Consumed,
    Live(Option<Bytes>),
    Bulk(Option<BulkInput>),
    Closed(ConnectionError),
    Connected(Box<Dialer>, Dialed),
    Token(Option<String>),
    Timer,
}

impl Driver {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        rules: Rules,
        keeper: Keeper,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
        consumed: Arc<Consumed>,
        tokens: TokenSource,
        (max_outbox_entries, max_outbox_bytes): (usize, usize),
        dialer: Dialer,
        backoff: Backoff,
    ) -> Self {
        Self {
            rules,
            keeper,
            commands,
            events,
            consumed,
            tokens,
            max_outbox_bytes,
            max_outbox_entries,
            dialer: Some(dialer),
            line: Line::Waiting(Instant::now()),
            backoff,
            jobs: VecDeque::new(),
            accepting: HashMap::new(),
            waiters: HashMap::new(),
            histories: HashMap::new(),
            flushes: Vec::new(),
            pending: None,
            refreshing: None,
            writer_full: false,
            leave_by: None,
            retry_in: None,
        }
    }

    /// Until the application closes the client or drops it.
    pub(crate) async fn run(mut self) {
        loop {
            self.pump(Instant::now());
            if self.has_left(Instant::now()) {
                break;
            }
            let input = self.next_input().await;
            self.handle(input, Instant::now());
        }
        self.shut_down().await;
    }

    async fn shut_down(mut self) {
        if let Line::Up(link, _) = std::mem::replace(&mut self.line, Line::Stopped) {
            link.close(Code::Ok);
        }
        if let Some(dialer) = self.dialer.take() {
            dialer.shut_down().await;
        }
        self.take_consumed(Instant::now());
        if let Some(jobs) = &self.keeper.jobs {
            for job in self.jobs.drain(..) {
                let _ = jobs.send(job).await;
            }
            while let Some(op) = self.rules.poll_store() {
                let _ = jobs.send(output::job_of(op)).await;
            }
        }
        self.keeper.stop().await;
    }

    fn has_left(&self, now: Instant) -> bool {
        let Some(by) = self.leave_by else { return false };
        now >= by || !matches!(self.line, Line::Up(..))
    }

    // --- input ---

    /// Waits for whatever comes first. Every branch can be cancelled without loss.
    async fn next_input(&mut self) -> Input {
        let deadline = self.deadline();
        let listening = !self.rules.is_congested();
        let jobs = self.keeper.jobs.clone();
        let job_room = async {
            match &jobs {
                Some(jobs) => drop(jobs.reserve().await),
                None => std::future::pending().await,
            }
        };
        let timer = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let refreshing = async {
            match &mut self.refreshing {
                Some(future) => future.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // First, so that no more answers wait than there can be jobs.
            kept = self.keeper.kept.recv() => Input::Kept(kept),
            input = line_input(&mut self.line, listening, self.writer_full) => input,
            () = self.consumed.news.notified() => Input::Consumed,
            () = job_room, if !self.jobs.is_empty() => Input::JobRoom,
            _ = self.events.reserve(), if self.pending.is_some() => Input::EventRoom,
            token = refreshing => Input::Token(token),
            command = self.commands.recv(), if self.jobs.is_empty() && self.leave_by.is_none() => {
                Input::Command(command)
            }
            () = timer => Input::Timer,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let rules = self.rules.poll_timeout();
        let line = match self.line {
            Line::Waiting(at) => Some(at),
            _ => None,
        };
        rules.into_iter().chain(line).chain(self.leave_by).min()
    }

    fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Command(Some(command)) => self.handle_command(command, now),
            Input::Command(None) => self.leave(now),
            Input::Kept(Some(kept)) => self.handle_kept(kept),
            Input::Kept(None) => {
                // The keeper is gone, and with it every promise about what is kept.
                tracing::error!("the keeper has ended");
                self.leave(now);
            }
            Input::EventRoom | Input::JobRoom => {}
            Input::WriteRoom => self.writer_full = false,
            Input::Consumed => self.take_consumed(now),
            Input::Live(Some(bytes)) => self.rules.handle_live(bytes, now),
            Input::Live(None) => self.lost(None, "the gateway ended the session", now),
            Input::Bulk(Some(BulkInput::Bytes(id, bytes))) => {
                self.rules.handle_bulk(id, bytes, now);
            }
            Input::Bulk(Some(BulkInput::End(id))) => self.rules.handle_bulk_end(id, now),
            Input::Bulk(None) => {}
            Input::Closed(error) => self.handle_closed(&error, now),
            Input::Connected(dialer, outcome) => self.handle_connected(*dialer, outcome, now),
            Input::Token(token) => {
                self.refreshing = None;
                self.rules.handle_token(token, now);
            }
            Input::Timer => {
                if matches!(self.line, Line::Waiting(at) if at <= now) {
                    self.connect();
                }
            }
        }
        self.rules.handle_timeout(now);
    }

    fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Send { message, reply } => self.accept(message, reply),
            Command::Read { of, seq } => {
                if let Some(conversation) = self.rules.conversation(&of) {
                    self.rules.mark_read(conversation, seq);
                }
            }
            Command::History { request, reply } => match self.rules.request_history(request) {
                Some(id) => drop(self.histories.insert(id, reply)),
                None => drop(reply.send(Err(HistoryError::Busy))),
            },
            Command::Flush { reply } => self.flushes.push(reply),
            Command::NetworkChanged => self.network_changed(now),
            Command::Reconnect => {
                self.backoff.reset();
                if matches!(self.line, Line::Waiting(_) | Line::Stopped) {
                    self.line = Line::Waiting(now);
                }
            }
            Command::Close => self.leave(now),
        }
    }

    fn network_changed(&mut self, now: Instant) {
        self.backoff.reset();
        if let Line::Waiting(at) = &mut self.line {
            *at = now;
        }
        for endpoint in self.dialer.iter().flat_map(Dialer::endpoints) {
            if let Err(error) = link::rebind(&endpoint) {
                tracing::warn!(%error, "no new socket");
            }
        }
    }

    /// Takes a message into the outbox, from where it goes to the rules.
    fn accept(&mut self, message: Outgoing, reply: oneshot::Sender<Result<SendHandle, SendError>>) {
        match self.rules.check_send(&message) {
            // Asked for twice: one message, and both hear of it.
            Err(OutgoingError::DuplicateId(id)) => {
                let handle = self.handle_for(id);
                return drop(reply.send(Ok(handle)));
            }
            Err(error) => return drop(reply.send(Err(error.into()))),
            Ok(()) => {}
        }
        let on_the_way: usize =
            self.accepting.values().map(|other| other.message.payload.len()).sum();
        let bytes = self.rules.unacked_bytes() + on_the_way + message.payload.len();
        if self.accepting.contains_key(&message.id) {
            return drop(reply.send(Err(OutgoingError::DuplicateId(message.id).into())));
        }
        let entries = self.rules.unacked() + self.accepting.len();
        if bytes > self.max_outbox_bytes || entries >= self.max_outbox_entries {
            return drop(reply.send(Err(OutgoingError::Full { entries }.into())));
        }
        let after = match message.origin {
            Origin::Fresh => self.rules.known_head(&message.to),
            Origin::MaybeSent { after } => after,
        };
        self.jobs.push_back(Job::Add(Waiting {
            id: message.id.clone(),
            to: message.to.clone(),
            content_type: message.content_type.clone(),
            payload: message.payload.clone(),
            after,
        }));
        self.accepting.insert(message.id.clone(), Accepting { message, reply });
    }

    fn handle_kept(&mut self, kept: Kept) {
        match kept {
            Kept::Added(messages) => {
                for kept in messages {
                    let Some(Accepting { message, reply }) = self.accepting.remove(&kept.id) else {
                        continue;
                    };
                    let answer = match self.rules.send(message) {
                        Ok(()) => Ok(self.handle_for(kept.id)),
                        Err(error) => {
                            self.jobs.push_back(Job::Remove(kept.id));
                            Err(error.into())
                        }
                    };
                    let _ = reply.send(answer);
                }
            }
            Kept::Failed(ids, reason) => {
                for id in ids {
                    if let Some(Accepting { reply, .. }) = self.accepting.remove(&id) {
                        let _ = reply.send(Err(SendError::Storage(reason.clone())));
                    }
                }
            }
            Kept::Trouble(reason) => {
                tracing::error!(%reason, "what should be remembered is not");
                self.pending.get_or_insert(Event::Error { code: 0, reason, retry: false });
            }
        }
    }

    fn handle_for(&mut self, id: ClientMsgId) -> SendHandle {
        let (sender, ack) = oneshot::channel();
        self.waiters.entry(id.clone()).or_default().push(sender);
        SendHandle { id, ack }
    }

    fn take_consumed(&mut self, now: Instant) {
        for (conversation, seq) in self.consumed.take() {
            self.rules.handle_consumed(conversation, seq, now);
        }
    }

    // --- the connection ---

    fn connect(&mut self) {
        let Some(mut dialer) = self.dialer.take() else { return };
        let tokens = self.tokens.clone();
        self.line = Line::Connecting(Box::pin(async move {
            let token = match tokens.get().await {
                Ok(token) => token,
                Err(reason) => return (dialer, Err(ConnectError::Token(reason))),
            };
            let link = dialer.connect().await;
            (dialer, link.map(|link| (token, Box::new(link))))
        }));
    }

    fn handle_connected(&mut self, dialer: Dialer, outcome: Dialed, now: Instant) {
        self.dialer = Some(dialer);
        self.writer_full = false;
        match outcome {
            Ok((token, link)) => {
                let closed = Box::pin(link.closed());
                self.line = Line::Up(link, closed);
                self.rules.handle_connected(token, now);
            }
            Err(ConnectError::Closed(code, reason)) => self.lost(Some(code), &reason, now),
            Err(error) => self.lost(None, &error.to_string(), now),
        }
    }

    fn handle_closed(&mut self, error: &ConnectionError, now: Instant) {
        // What came before the close still counts: acknowledgements may be among it.
        if let Line::Up(link, _) = &mut self.line {
            while let Ok(bytes) = link.live.try_recv() {
                self.rules.handle_live(bytes, now);
            }
        }
        let (code, reason) = link::explain(error);
        self.lost(code, &reason, now);
    }

    /// There is no connection any longer, or none came about.
    fn lost(&mut self, code: Option<u64>, reason: &str, now: Instant) {
        self.line = Line::Stopped;
        self.refreshing = None;
        let reconnect = self.rules.handle_disconnected(code, reason, now);
        let least = match reconnect {
            _ if self.leave_by.is_some() => None,
            Reconnect::Never => None,
            Reconnect::WithNewToken => self.tokens.can_renew().then_some(Duration::ZERO),
            Reconnect::After(least) => Some(least),
        };
        self.retry_in = least.map(|least| self.backoff.next(least, rand::random(), now));
        if let Some(wait) = self.retry_in {
            self.line = Line::Waiting(now + wait);
        }
    }

    fn leave(&mut self, now: Instant) {
        if self.leave_by.is_none() {
            self.take_consumed(now);
            self.leave_by = Some(now + LEAVE_TIMEOUT);
            self.rules.handle_leave();
        }
    }
}

/// What comes from the connection, or from the attempt to make one.
async fn line_input(line: &mut Line, listening: bool, writer_full: bool) -> Input {
    match line {
        Line::Waiting(_) | Line::Stopped => std::future::pending().await,
        Line::Connecting(future) => {
            let (dialer, outcome) = future.await;
            Input::Connected(Box::new(dialer), outcome)
        }
        Line::Up(link, closed) => tokio::select! {
            biased;
            error = closed => Input::Closed(error),
            _ = link.writes.reserve(), if writer_full => Input::WriteRoom,
            bytes = link.live.recv(), if listening => Input::Live(bytes),
            input = link.bulk.recv(), if listening => Input::Bulk(input),
        },
    }
}
