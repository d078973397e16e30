//! What the session rules want done, carried out as far as there is room.

use std::time::Instant;

use skein_protocol::client::{BulkAction, Event as RulesEvent, StoreOp};
use skein_protocol::{ClientMsgId, Code};
use tokio::sync::mpsc;

use super::{Driver, Line};
use crate::error::{AckError, HistoryError};
use crate::event::Event;
use crate::keeper::Job;
use crate::{Ack, History};

impl Driver {
    pub(super) fn pump(&mut self, now: Instant) {
        loop {
            let stored = self.pump_store();
            let told = self.pump_events(now);
            let wrote = self.pump_link(now);
            if !(stored || told || wrote) {
                break;
            }
        }
        if self.rules.unacked() == 0 && self.accepting.is_empty() {
            for reply in self.flushes.drain(..) {
                let _ = reply.send(());
            }
        }
        if self.rules.wants_token() && self.refreshing.is_none() && self.tokens.can_renew() {
            let tokens = self.tokens.clone();
            self.refreshing = Some(Box::pin(async move { tokens.get().await.ok() }));
        }
    }

    fn pump_store(&mut self) -> bool {
        let mut any = false;
        let Some(jobs) = &self.keeper.jobs else { return false };
        while let Ok(permit) = jobs.try_reserve() {
            let job = self.jobs.pop_front().or_else(|| self.rules.poll_store().map(job_of));
            let Some(job) = job else { return any };
            permit.send(job);
            any = true;
        }
        any
    }

    fn pump_events(&mut self, now: Instant) -> bool {
        let mut any = false;
        loop {
            if self.pending.is_none() {
                let Some(event) = self.rules.poll_event() else { return any };
                any = true;
                self.pending = self.translate(event, now);
                continue;
            }
            match self.events.try_reserve() {
                Ok(permit) => {
                    if let Some(event) = self.pending.take() {
                        permit.send(event);
                    }
                }
                Err(mpsc::error::TrySendError::Full(())) => return any,
                Err(mpsc::error::TrySendError::Closed(())) => {
                    // Nobody wants to hear of it: dealt with.
                    let position = self.pending.take().and_then(|event| event.position());
                    if let Some((conversation, seq)) = position {
                        self.rules.handle_consumed(conversation, seq, now);
                    }
                }
            }
        }
    }

    /// Answers those who wait for this event; what is left is for everybody.
    fn translate(&mut self, event: RulesEvent, now: Instant) -> Option<Event> {
        match event {
            RulesEvent::Acked { ref id, conversation, seq, time_ms, trace } => {
                let ack = Ack { conversation, seq, time_ms, trace };
                self.answer(id, &Ok(ack));
            }
            RulesEvent::Rejected { ref id, code, ref reason } => {
                let reason = reason.clone();
                self.answer(id, &Err(AckError::Refused { code, reason }));
            }
            RulesEvent::Connected { .. } => self.backoff.connected(now),
            RulesEvent::History { request, messages, is_end, head } => {
                if let Some(reply) = self.histories.remove(&request) {
                    let _ = reply.send(Ok(History { messages, is_end, head }));
                }
                return None;
            }
            RulesEvent::HistoryFailed { request, code, reason } => {
                if let Some(reply) = self.histories.remove(&request) {
                    let _ = reply.send(Err(HistoryError::Refused { code, reason }));
                }
                return None;
            }
            _ => {}
        }
        Event::from_rules(event, self.retry_in)
    }

    fn answer(&mut self, id: &ClientMsgId, outcome: &Result<Ack, AckError>) {
        for waiter in self.waiters.remove(id).into_iter().flatten() {
            let _ = waiter.send(outcome.clone());
        }
    }

    fn pump_link(&mut self, now: Instant) -> bool {
        if !matches!(self.line, Line::Up(..)) {
            return false;
        }
        match self.rules.poll_close() {
            None => {}
            // We said goodbye; the gateway closes, and if not, `leave_by` does.
            Some(Code::Ok) => {}
            Some(code) => {
                if let Line::Up(link, _) = std::mem::replace(&mut self.line, Line::Stopped) {
                    link.close(code);
                }
                self.lost(None, "", now);
                return true;
            }
        }
        let Line::Up(link, _) = &mut self.line else { return false };
        let mut any = false;
        loop {
            match link.writes.try_reserve() {
                Ok(permit) => {
                    let Some(bytes) = self.rules.poll_live(now) else { break };
                    permit.send(bytes);
                    any = true;
                }
                Err(_) => {
                    self.writer_full = true;
                    break;
                }
            }
        }
        while let Some(action) = self.rules.poll_bulk(now) {
            any = true;
            match action {
                BulkAction::Open { id, request } => link.open_bulk(id, request),
                BulkAction::Stop { id } => link.stop_bulk(id),
            }
        }
        any
    }
}

pub(super) fn job_of(op: StoreOp) -> Job {
    match op {
        StoreOp::Position { conversation, seq } => Job::Position(conversation, seq),
        StoreOp::Reset { epoch } => Job::Reset(epoch),
        StoreOp::Settled { id } => Job::Remove(id),
    }
}
