//! Bulk streams: the heads after login, pulls of what is missing, history for the application.
//!
//! Every request has a stream of its own, at most as many at once as the gateway allows. The heads
//! come first, because nothing can be pulled before they are known; then one pull at a time, which
//! carries the gaps of many conversations, and history beside it. What fails is asked for again
//! with growing delay, and nothing is kept of a request whose connection is gone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::outbox::backoff;
use super::types::{BulkAction, BulkId, HistoryId, HistoryRequest, Message, Target};
use crate::frame::{self, Decoder};
use crate::wire::{self, client_frame};
use crate::{ConversationId, Seq};

/// Ranges of one conversation in one pull, so that one shattered conversation leaves room for
/// others.
const MAX_RANGES_EACH: usize = 8;

/// First wait before a failed request is repeated, and the longest.
const RETRY_BASE: Duration = Duration::from_millis(500);
const RETRY_CAP: Duration = Duration::from_secs(30);

/// Conversations whose failed pull waits for its time. Beyond, all of them wait together.
const MAX_WAITING: usize = 4096;

/// One open bulk stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) decoder: Decoder,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Heads { complete: bool },
    Pull(Pull),
    History(History),
}

#[derive(Debug)]
pub(super) struct Pull {
    /// As asked for, in order; an answer names its index.
    pub(super) ranges: Vec<(ConversationId, RangeInclusive<Seq>)>,
    /// Conversations in which something came.
    pub(super) moved: BTreeSet<ConversationId>,
}

#[derive(Debug)]
pub(super) struct History {
    pub(super) id: HistoryId,
    pub(super) request: HistoryRequest,
    pub(super) messages: Vec<Message>,
    pub(super) bytes: usize,
    pub(super) head: Seq,
    pub(super) is_end: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Heads {
    /// To be asked for.
    #[default]
    Wanted,
    Running,
    /// Failed; to be asked for again at this time.
    Waiting(Instant),
    Done,
}

#[derive(Debug, Default)]
pub(super) struct Sync {
    streams: BTreeMap<BulkId, Stream>,
    next_id: BulkId,
    heads: Heads,
    /// They were asked for again while they came: the answer may be older than the question.
    heads_again: bool,
    heads_failed: u32,
    pulling: BTreeSet<ConversationId>,
    /// Conversations whose last pull brought nothing: when to try again (`None`: now), and how
    /// often that happened in a row.
    waiting: BTreeMap<ConversationId, (Option<Instant>, u32)>,
    history: VecDeque<(HistoryId, HistoryRequest)>,
    next_history: HistoryId,
    /// Turns between history and pulls when there is one stream for both.
    history_last: bool,
    stops: Vec<BulkId>,
}

impl Sync {
    /// A new session: ask for the heads again.
    pub(super) fn begin_session(&mut self) {
        self.heads = Heads::Wanted;
        self.heads_again = false;
        self.heads_failed = 0;
        self.waiting.clear();
    }

    /// All streams are gone. Returns the conversations that were being pulled.
    pub(super) fn handle_disconnected(&mut self) -> Vec<ConversationId> {
        self.stops.clear();
        let streams = std::mem::take(&mut self.streams);
        for stream in streams.into_values().rev() {
            if let Kind::History(history) = stream.kind {
                self.history.push_front((history.id, history.request));
            }
        }
        std::mem::take(&mut self.pulling).into_iter().collect()
    }

    pub(super) fn want_heads(&mut self) {
        match self.heads {
            Heads::Done => self.heads = Heads::Wanted,
            Heads::Running => self.heads_again = true,
            Heads::Wanted | Heads::Waiting(_) => {}
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.heads == Heads::Done && self.pulling.is_empty() && self.waiting.is_empty()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    pub(super) fn history_waiting(&self) -> usize {
        self.history.len()
            + self.streams.values().filter(|s| matches!(s.kind, Kind::History(_))).count()
    }

    pub(super) fn request_history(&mut self, request: HistoryRequest) -> HistoryId {
        self.next_history += 1;
        self.history.push_back((self.next_history, request));
        self.next_history
    }

    pub(super) fn is_pulling(&self, id: ConversationId) -> bool {
        self.pulling.contains(&id) || self.waiting.get(&id).is_some_and(|(at, _)| at.is_some())
    }

    /// The next thing to do with streams. `wanted` gives ranges to pull.
    pub(super) fn poll(
        &mut self,
        max_streams: usize,
        max_entries: usize,
        mut wanted: impl FnMut(&Self, usize, usize) -> Vec<(ConversationId, RangeInclusive<Seq>)>,
    ) -> Option<BulkAction> {
        if let Some(id) = self.stops.pop() {
            return Some(BulkAction::Stop { id });
        }
        if self.streams.len() >= max_streams.max(1) {
            return None;
        }
        if self.heads == Heads::Wanted {
            self.heads = Heads::Running;
            let request = wire::HeadsRequest::default();
            let kind = Kind::Heads { complete: false };
            return Some(self.open(client_frame::Kind::HeadsRequest(request), kind));
        }
        if !self.history_last
            && let Some(action) = self.open_history()
        {
            return Some(action);
        }
        if self.pulling.is_empty() && self.heads == Heads::Done {
            let ranges = wanted(self, max_entries.max(1), MAX_RANGES_EACH);
            if !ranges.is_empty() {
                return Some(self.open_pull(ranges));
            }
        }
        self.open_history()
    }

    fn open_history(&mut self) -> Option<BulkAction> {
        let (id, request) = self.history.pop_front()?;
        self.history_last = true;
        let range = wire::Range {
            target: Some(match &request.of {
                Target::User(user) => wire::range::Target::WithUser(user.to_string()),
                Target::Conversation(id) => wire::range::Target::Conversation(bytes_of(*id)),
            }),
            from: request.from,
            to: request.to,
            backward: request.backward,
            limit: request.limit,
        };
        let history =
            History { id, request, messages: Vec::new(), bytes: 0, head: 0, is_end: false };
        let pull = wire::PullRequest { ranges: vec![range] };
        Some(self.open(client_frame::Kind::PullRequest(pull), Kind::History(history)))
    }

    fn open_pull(&mut self, ranges: Vec<(ConversationId, RangeInclusive<Seq>)>) -> BulkAction {
        self.history_last = false;
        self.pulling.extend(ranges.iter().map(|(id, _)| *id));
        let request = wire::PullRequest {
            ranges: ranges
                .iter()
                .map(|(id, range)| wire::Range {
                    target: Some(wire::range::Target::Conversation(bytes_of(*id))),
                    from: *range.start(),
                    to: *range.end(),
                    backward: false,
                    limit: 0,
                })
                .collect(),
        };
        let kind = Kind::Pull(Pull { ranges, moved: BTreeSet::new() });
        self.open(client_frame::Kind::PullRequest(request), kind)
    }

    fn open(&mut self, request: client_frame::Kind, kind: Kind) -> BulkAction {
        self.next_id += 1;
        let id = self.next_id;
        self.streams.insert(id, Stream { decoder: Decoder::new(), kind });
        let request = frame::encode(&wire::ClientFrame { kind: Some(request) });
        BulkAction::Open { id, request }
    }

    /// The stream, taken out to be worked on; put it back with [`put`](Self::put).
    pub(super) fn take(&mut self, id: BulkId) -> Option<Stream> {
        self.streams.remove(&id)
    }

    pub(super) fn put(&mut self, id: BulkId, stream: Stream) {
        self.streams.insert(id, stream);
    }

    /// Has the driver give up a stream that was taken.
    pub(super) fn stop(&mut self, id: BulkId) {
        self.stops.push(id);
    }

    /// The heads are complete.
    pub(super) fn heads_done(&mut self) {
        self.heads_failed = 0;
        self.heads = match std::mem::take(&mut self.heads_again) {
            true => Heads::Wanted,
            false => Heads::Done,
        };
    }

    /// The heads did not come; ask again, not sooner than `at_least` from now.
    pub(super) fn heads_failed(&mut self, now: Instant, at_least: Duration) {
        let wait = backoff(RETRY_BASE, self.heads_failed, RETRY_CAP).max(at_least);
        self.heads_failed = self.heads_failed.saturating_add(1);
        self.heads_again = false;
        self.heads = Heads::Waiting(now + wait);
    }

    /// A pull of this conversation has ended. `gap`: something is still missing; `moved`:
    /// something came. Returns whether to want it again at once.
    pub(super) fn pull_ended(
        &mut self,
        id: ConversationId,
        gap: bool,
        moved: bool,
        now: Instant,
        at_least: Duration,
    ) -> bool {
        self.pulling.remove(&id);
        if !gap || (moved && at_least.is_zero()) {
            self.waiting.remove(&id);
            return gap;
        }
        let tries = self.waiting.get(&id).map_or(0, |&(_, tries)| tries);
        if self.waiting.len() >= MAX_WAITING {
            return true;
        }
        let wait = backoff(RETRY_BASE, tries, RETRY_CAP).max(at_least);
        self.waiting.insert(id, (Some(now + wait), tries.saturating_add(1)));
        false
    }

    /// Returns the conversations that may be pulled again.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<ConversationId> {
        if let Heads::Waiting(at) = self.heads
            && at <= now
        {
            self.heads = Heads::Wanted;
        }
        let mut due = Vec::new();
        for (&id, (at, _)) in &mut self.waiting {
            if at.is_some_and(|at| at <= now) {
                *at = None;
                due.push(id);
            }
        }
        due
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let heads = match self.heads {
            Heads::Waiting(at) => Some(at),
            _ => None,
        };
        let pulls = self.waiting.values().filter_map(|&(at, _)| at).min();
        heads.into_iter().chain(pulls).min()
    }
}

fn bytes_of(id: ConversationId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}
