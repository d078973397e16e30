//! Answers on bulk streams: heads, pulled messages, history.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::inbox::KnownHead;
use super::sync::{History, Kind, Pull, Stream};
use super::types::{self, BulkAction, BulkId, Event, MAX_SEQ, Message, ReceiptKind};
use super::{Client, MAX_RETRY_AFTER, State};
use crate::limits::DEFAULT_MAX_FRAME_BYTES;
use crate::wire::{self, server_frame};
use crate::{Code, ConversationId, UserId};

/// What a frame does to its stream.
enum Step {
    More,
    /// The answer is complete; whatever follows is not needed.
    Done,
    /// The request was refused, with this error.
    Refused(wire::Error),
    /// The gateway broke the rules.
    Broken(Code),
}

impl Client {
    /// The next thing to do with bulk streams.
    pub fn poll_bulk(&mut self, now: Instant) -> Option<BulkAction> {
        if self.state != State::Live
            || self.close.is_some()
            || self.going.is_some()
            || self.is_congested()
        {
            return None;
        }
        let waiting = self.waits_for_answer();
        let hold = self.pull_at.is_some_and(|at| at > now);
        let inbox = &mut self.inbox;
        let action = self.sync.poll(
            self.limits.bulk_streams,
            self.limits.entries,
            |sync, max, max_each| {
                if hold {
                    Vec::new()
                } else {
                    inbox.take_wanted(max, max_each, |id| sync.is_pulling(id))
                }
            },
        )?;
        if !waiting {
            self.heartbeat.expect_answer(now);
        }
        Some(action)
    }

    /// Bytes of a bulk stream, as they come.
    pub fn handle_bulk(&mut self, id: BulkId, bytes: Bytes, now: Instant) {
        if self.state != State::Live || self.close.is_some() {
            return;
        }
        self.heartbeat.heard(now);
        let Some(mut stream) = self.sync.take(id) else { return };
        stream.decoder.push(bytes);
        let max = self.limits.frame_bytes.max(DEFAULT_MAX_FRAME_BYTES);
        loop {
            let step = match stream.decoder.poll::<wire::ServerFrame>(max) {
                Ok(None) => return self.sync.put(id, stream),
                Ok(Some(wire::ServerFrame { kind: None })) => Step::More,
                Ok(Some(wire::ServerFrame { kind: Some(kind) })) => {
                    self.handle_answer(&mut stream.kind, kind)
                }
                Err(error) => Step::Broken(error.code()),
            };
            match step {
                Step::More => {}
                Step::Done => {
                    self.sync.stop(id);
                    return self.ended(stream, None, now);
                }
                Step::Refused(error) => return self.ended(stream, Some(error), now),
                Step::Broken(code) => {
                    self.leave(code);
                    return self.sync.put(id, stream);
                }
            }
        }
    }

    /// A bulk stream is over: finished by the gateway, or broken.
    pub fn handle_bulk_end(&mut self, id: BulkId, now: Instant) {
        if let Some(stream) = self.sync.take(id) {
            self.ended(stream, None, now);
        }
    }

    fn handle_answer(&mut self, request: &mut Kind, answer: server_frame::Kind) -> Step {
        match (request, answer) {
            (_, server_frame::Kind::Error(error)) => Step::Refused(error),
            (Kind::Heads { complete }, server_frame::Kind::HeadsPage(page)) => {
                *complete = page.is_end;
                page.heads.into_iter().for_each(|head| self.handle_head(head));
                if page.is_end { Step::Done } else { Step::More }
            }
            (Kind::Pull(pull), server_frame::Kind::PullPage(page)) => self.handle_page(pull, page),
            (Kind::History(history), server_frame::Kind::PullPage(page)) => {
                handle_history(history, page, self.config.max_history_bytes)
            }
            _ => Step::Broken(Code::ProtocolViolation),
        }
    }

    fn handle_head(&mut self, head: wire::Head) {
        // A kind of conversation that a newer gateway knows.
        let Ok(id) = ConversationId::parse(&head.conversation) else { return };
        let known = KnownHead {
            seq: head.seq.min(MAX_SEQ),
            first_seq: head.first_seq.min(MAX_SEQ),
            delivered: head.delivered.min(head.seq).min(MAX_SEQ),
            read: head.read.min(MAX_SEQ),
        };
        self.inbox.handle_head(id, &known, &self.config, &mut self.events);
        for member in head.members {
            let Ok(user) = UserId::parse(&member.user) else { continue };
            let delivered = (ReceiptKind::Delivered, member.delivered);
            for (kind, seq) in [delivered, (ReceiptKind::Read, member.read)] {
                self.handle_member(id, kind, user.clone(), seq);
            }
        }
    }

    fn handle_page(&mut self, pull: &mut Pull, page: wire::PullPage) -> Step {
        let Some((id, _)) = pull.ranges.get(page.range as usize) else {
            return Step::Broken(Code::ProtocolViolation);
        };
        let id = *id;
        let last = page.range as usize + 1 == pull.ranges.len();
        if !page.messages.is_empty() {
            pull.moved.insert(id);
        }
        for message in page.messages {
            if message.conversation.as_ref() != id.as_bytes() {
                return Step::Broken(Code::ProtocolViolation);
            }
            self.handle_message(message);
        }
        if page.error_code == 0 {
            self.inbox.handle_seen_head(id, page.head.min(MAX_SEQ), &self.config);
            self.inbox.handle_first(id, page.first_seq.min(MAX_SEQ), &mut self.events);
        } else {
            let code = page.error_code;
            let reason = types::describe(code.into(), "");
            self.events.push(Event::Error { code, reason, retry: true });
        }
        if last && page.is_end { Step::Done } else { Step::More }
    }

    /// The request is over, one way or another: see what is still missing.
    fn ended(&mut self, stream: Stream, refused: Option<wire::Error>, now: Instant) {
        let least = refused.as_ref().map_or(Duration::ZERO, |error| {
            Duration::from_millis(error.retry_after_ms.into()).min(MAX_RETRY_AFTER)
        });
        match stream.kind {
            Kind::Heads { complete: true } => {
                self.sync.heads_done();
                self.inbox.handle_heads_end(&mut self.events);
                self.pull_now();
            }
            Kind::Heads { complete: false } => {
                self.report_refusal(refused);
                self.sync.heads_failed(now, least);
            }
            Kind::Pull(pull) => {
                let failed = refused.is_some();
                self.report_refusal(refused);
                let ids: std::collections::BTreeSet<_> =
                    pull.ranges.iter().map(|(id, _)| *id).collect();
                for id in ids {
                    let gap = self.inbox.has_gap(id);
                    let moved = pull.moved.contains(&id) && !failed;
                    if self.sync.pull_ended(id, gap, moved, now, least) {
                        self.inbox.want_again(id);
                    }
                }
            }
            Kind::History(history) => self.history_ended(history, refused),
        }
    }

    fn history_ended(&mut self, history: History, refused: Option<wire::Error>) {
        let History { id: request, messages, head, is_end, .. } = history;
        self.events.push(match refused {
            Some(error) => Event::HistoryFailed {
                request,
                code: error.code,
                reason: types::describe(error.code.into(), &error.message),
            },
            None => Event::History { request, messages, is_end, head },
        });
    }

    fn report_refusal(&mut self, refused: Option<wire::Error>) {
        if let Some(error) = refused {
            let reason = types::describe(error.code.into(), &error.message);
            self.events.push(Event::Error { code: error.code, reason, retry: true });
        }
    }
}

fn handle_history(history: &mut History, page: wire::PullPage, max_bytes: usize) -> Step {
    if page.range != 0 {
        return Step::Broken(Code::ProtocolViolation);
    }
    if page.error_code != 0 {
        let (code, message) = (page.error_code, String::new());
        return Step::Refused(wire::Error { code, message, ..Default::default() });
    }
    // The head may grow between two pages. Forwards the answer reaches the last one that was told,
    // backwards it began at the first.
    if history.messages.is_empty() || !history.request.backward {
        history.head = page.head;
    }
    for message in page.messages {
        // What this version cannot read is left out.
        let Ok(message) = Message::parse(message) else { continue };
        history.bytes += message.cost();
        history.messages.push(message);
    }
    history.is_end = page.is_end;
    if page.is_end || history.bytes > max_bytes { Step::Done } else { Step::More }
}
