//! Every deadline of the client's rules, and the life of its token.

use std::time::{Duration, Instant};

use super::{Client, MAX_TOKEN_TIME, State, TOKEN_MARGIN, TOKEN_RETRY};
use crate::Code;
use crate::limits::MAX_TOKEN_BYTES;

impl Client {
    /// A token that was asked for by [`wants_token`](Self::wants_token), or `None` if there is
    /// none to be had now.
    pub fn handle_token(&mut self, token: Option<String>, now: Instant) {
        self.token.wanted = false;
        match token {
            Some(token) if token.len() <= MAX_TOKEN_BYTES => {
                self.token.fresh = Some(token);
                // In case that no answer comes.
                self.token.refresh_at = self.next_token_try(now);
            }
            _ => self.token.refresh_at = self.next_token_try(now),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.outbox.handle_timeout(now);
        for conversation in self.sync.handle_timeout(now) {
            self.inbox.want_again(conversation);
        }
        match self.state {
            State::Offline => {}
            State::Greeting { since, .. } | State::Greeted { since } => {
                if now >= since + self.config.welcome_timeout {
                    self.leave(Code::HelloTimeout);
                }
            }
            State::Live => self.live_timeout(now),
        }
    }

    fn live_timeout(&mut self, now: Instant) {
        if self.is_congested() {
            // Nobody reads, so nothing can be heard.
            self.heartbeat.excuse(now);
        }
        if self.heartbeat.dead_at(self.config.ping_timeout).is_some_and(|at| at <= now) {
            self.heartbeat.died(self.outbox.under_way() == 0);
            self.leave(Code::HeartbeatTimeout);
        }
        if self.heartbeat.ping_due() <= now || self.probe_at().is_some_and(|at| at <= now) {
            self.heartbeat.probe(now);
        }
        if self.pull_at.is_some_and(|at| at <= now) {
            self.pull_now();
        }
        if self.token.refresh_at.is_some_and(|at| at <= now) {
            self.token.refresh_at = None;
            self.token.wanted = true;
        }
    }

    /// Somebody waits for an answer and nothing was heard for long: ask whether anybody is there.
    fn probe_at(&self) -> Option<Instant> {
        if !self.waits_for_answer() {
            return None;
        }
        Some(self.heartbeat.silent_since() + self.config.ping_timeout)
    }

    pub(super) fn pull_now(&mut self) {
        self.pull_at = None;
    }

    pub(super) fn waits_for_answer(&self) -> bool {
        self.outbox.under_way() > 0 || !self.sync.is_idle()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let mut due: Vec<Instant> = Vec::with_capacity(8);
        match self.state {
            State::Offline => return None,
            State::Greeting { since, .. } | State::Greeted { since } => {
                due.push(since + self.config.welcome_timeout);
            }
            State::Live => {
                match self.heartbeat.dead_at(self.config.ping_timeout) {
                    Some(at) => due.push(at),
                    None => {
                        due.push(self.heartbeat.ping_due());
                        due.extend(self.probe_at());
                    }
                }
                due.extend(self.token.refresh_at);
                due.extend(self.ack_at);
                due.extend(self.pull_at);
                due.extend(self.outbox.poll_timeout());
                due.extend(self.sync.poll_timeout());
            }
        }
        due.into_iter().min()
    }

    /// A moment to try the token again: half way to its end, but not at once.
    pub(super) fn next_token_try(&self, now: Instant) -> Option<Instant> {
        let left = self.token.expires_at?.saturating_duration_since(now);
        Some(now + (left / 2).max(TOKEN_RETRY))
    }

    /// The gateway's clock now, Unix milliseconds.
    fn server_now(&self, now: Instant) -> u64 {
        let Some((told, at)) = self.token.clock else { return 0 };
        let passed = now.saturating_duration_since(at).as_millis();
        told.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    pub(super) fn set_token_expiry(&mut self, expires_ms: u64, now: Instant) {
        self.token.refresh_at = None;
        self.token.expires_at = None;
        let left = Duration::from_millis(expires_ms.saturating_sub(self.server_now(now)));
        if expires_ms == 0 || left > MAX_TOKEN_TIME {
            return;
        }
        self.token.expires_at = Some(now + left);
        let early = (left / 10).max(TOKEN_MARGIN).min(left / 2);
        self.token.refresh_at = Some(now + left - early);
    }
}
