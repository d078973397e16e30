//! How much and how often: limits for addresses, users and conversations that nobody who means well
//! meets.
//!
//! ```text
//! attempt to connect   Throttle::judge       blocked, handshakes of the address
//! connection           connected             connections of the address
//! bytes before Hello   before_login          bytes of the address
//! Hello                may_log_in            addresses that have failed too often
//! frames               said                  frames of the user
//! Send                 message               messages and bytes of the user
//! Send, in its lane    conversation_message  messages and bytes of the conversation
//! bulk request         sync                  requests of the user
//! ```
//!
//! What may happen how often is told by [`Rate`]s of the configuration; `table` keeps the buckets
//! in bounded memory. Networks in `limits.exempt` are held to no limit of addresses, users in
//! `limits.exempt_users` to none of users, and what those send counts for no conversation; neither
//! exempts the other. Each refusal has a number of its own ([`Limit::code`]) and is counted
//! ([`Throttle::hits`]). Every gateway counts for itself.
//!
//! An address that is not proven is judged by a bucket of its own: it fills with packets that anybody
//! can send in somebody else's name. Its end is not a refusal but a Retry, so that nobody can be kept
//! out in that way.

mod address;
mod backoff;
mod clock;
mod hits;
mod networks;
mod rate;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use skein_protocol::server::Close;
use skein_protocol::{Code, ConversationId, UserId};
use skein_transport::{Attempt, Gate, Verdict};

pub(crate) use address::AddressKey;
pub(crate) use address::Connections;
use backoff::Backoff;
pub use clock::LimitClock;
pub use hits::{Hits, Limit};
use networks::Networks;
pub(crate) use networks::canonical;
pub use rate::Rate;
use table::Limiter;

use crate::config::LimitsConfig;

/// A request that came too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooOften {
    /// What it is refused with.
    pub(crate) code: Code,
    /// When there is room for it again.
    pub(crate) retry_after: Duration,
}

/// All of these limits, shared by everything in a gateway.
pub struct Throttle {
    rules: ArcSwap<Rules>,
    connections: Connections,
    backoff: Backoff,
    hits: Hits,
    untracked: Arc<AtomicU64>,
    hasher: RandomState,
    clock: LimitClock,
}

/// What a change of the configuration replaces. Buckets whose rate stays are kept as they are.
struct Rules {
    /// What they were made of.
    limits: LimitsConfig,
    exempt: Networks,
    exempt_users: HashSet<UserId>,
    blocked: Networks,
    connections: Option<u32>,
    unproven: Buckets,
    handshakes: Buckets,
    login_bytes: Buckets,
    failed_logins: Buckets,
    frames: Buckets,
    user_messages: Buckets,
    user_bytes: Buckets,
    conversation_messages: Buckets,
    conversation_bytes: Buckets,
    syncs: Buckets,
}

/// A bucket for each key; `None`: no limit.
type Buckets = Option<Arc<Limiter>>;

impl Throttle {
    /// With everybody's buckets full.
    pub fn new(limits: &LimitsConfig, clock: LimitClock) -> Arc<Self> {
        let untracked = Arc::default();
        Arc::new(Self {
            rules: ArcSwap::from_pointee(Rules::new(limits, None, &clock, &untracked)),
            connections: Connections::new(),
            backoff: Backoff::new(clock.clone()),
            hits: Hits::default(),
            untracked,
            hasher: RandomState::new(),
            clock,
        })
    }

    /// One that lets everything through.
    pub fn off() -> Arc<Self> {
        let everybody = ["0.0.0.0/0", "::/0"].iter().filter_map(|net| net.parse().ok()).collect();
        let limits = LimitsConfig {
            exempt: everybody,
            frames_per_user: None,
            messages_per_user: None,
            message_bytes_per_user: None,
            syncs_per_user: None,
            messages_per_conversation: None,
            message_bytes_per_conversation: None,
            ..LimitsConfig::default()
        };
        Self::new(&limits, LimitClock::machine())
    }

    /// Goes by these limits from now on. Buckets whose rate is another one are full again, and no
    /// others. Connections that exist stay counted, or exempt, as they were.
    pub fn change(&self, limits: &LimitsConfig) {
        let before = self.rules.load();
        if before.limits != *limits {
            let rules = Rules::new(limits, Some(&before), &self.clock, &self.untracked);
            self.rules.store(Arc::new(rules));
        }
    }

    /// What was refused.
    pub fn hits(&self) -> &Hits {
        &self.hits
    }

    /// How often a bucket had no place in its table, see the module's words.
    pub fn untracked(&self) -> u64 {
        self.untracked.load(Ordering::Relaxed)
    }

    /// Counts a connection in. `None`: it is exempt from all limits of addresses.
    ///
    /// # Errors
    /// Its address has as many as it may have.
    pub(crate) fn connected(&self, address: IpAddr) -> Result<Option<AddressKey>, Close> {
        let rules = self.rules.load();
        if rules.exempt.contain(address) {
            return Ok(None);
        }
        let key = AddressKey::new(address, &self.hasher);
        if self.connections.enter(key, rules.connections.unwrap_or(u32::MAX)) {
            return Ok(Some(key));
        }
        Err(self.close(Limit::Connections))
    }

    /// Counts a connection out.
    pub(crate) fn left(&self, key: AddressKey) {
        self.connections.leave(key);
    }

    /// Bytes have come on the live stream of somebody who is not logged in.
    ///
    /// # Errors
    /// Too many came from there.
    pub(crate) fn before_login(&self, key: AddressKey, bytes: usize) -> Result<(), Close> {
        let rules = self.rules.load();
        take(&rules.login_bytes, key.get(), bytes).map_err(|_| self.close(Limit::LoginBytes))
    }

    /// Somebody wants to log in; asked before the token is looked at.
    ///
    /// # Errors
    /// Too many logins from there have failed; it tells how long that counts.
    pub(crate) fn may_log_in(&self, key: AddressKey) -> Result<(), Close> {
        match self.backoff.wait(key) {
            Some(wait) => Err(self.close(Limit::FailedLogins).after(wait)),
            None => Ok(()),
        }
    }

    /// A token was refused. Tokens that were good once do not count: a clock that is wrong is no
    /// attack.
    pub(crate) fn login_failed(&self, key: AddressKey, code: Code) {
        let counts = matches!(code, Code::BadToken | Code::DeviceMismatch);
        if counts && take(&self.rules.load().failed_logins, key.get(), 1).is_err() {
            self.backoff.strike(key);
        }
    }

    /// A user has said so many things on a live stream.
    ///
    /// # Errors
    /// That is more than anybody who means well has to say.
    pub(crate) fn said(&self, user: &UserId, count: usize) -> Result<(), Close> {
        let rules = self.rules.load();
        if rules.is_exempt(user) {
            return Ok(());
        }
        let key = self.hasher.hash_one(user.as_str());
        take(&rules.frames, key, count).map_err(|_| self.close(Limit::Frames))
    }

    /// A user wants to send a message of so many bytes.
    pub(crate) fn message(&self, user: &UserId, bytes: usize) -> Result<(), TooOften> {
        let rules = self.rules.load();
        if rules.is_exempt(user) {
            return Ok(());
        }
        let key = self.hasher.hash_one(user.as_str());
        self.check(Limit::UserMessages, take(&rules.user_messages, key, 1))?;
        self.check(Limit::UserBytes, take(&rules.user_bytes, key, bytes))
    }

    /// A member wants to send a message of so many bytes to a conversation.
    pub(crate) fn conversation_message(
        &self,
        user: &UserId,
        conversation: ConversationId,
        bytes: usize,
    ) -> Result<(), TooOften> {
        let rules = self.rules.load();
        if rules.is_exempt(user) {
            return Ok(());
        }
        let key = self.hasher.hash_one(conversation.as_bytes());
        let taken = take(&rules.conversation_messages, key, 1);
        self.check(Limit::ConversationMessages, taken)?;
        let taken = take(&rules.conversation_bytes, key, bytes);
        self.check(Limit::ConversationBytes, taken)
    }

    /// A user asks for heads or messages.
    pub(crate) fn sync(&self, user: &UserId) -> Result<(), TooOften> {
        let rules = self.rules.load();
        if rules.is_exempt(user) {
            return Ok(());
        }
        let key = self.hasher.hash_one(user.as_str());
        self.check(Limit::Syncs, take(&rules.syncs, key, 1))
    }

    /// Counts a limit that is kept elsewhere.
    pub(crate) fn hit(&self, limit: Limit) {
        self.hits.add(limit);
    }

    fn check(&self, limit: Limit, taken: Result<(), Duration>) -> Result<(), TooOften> {
        taken.map_err(|retry_after| {
            self.hits.add(limit);
            TooOften { code: limit.code().unwrap_or(Code::Overloaded), retry_after }
        })
    }

    fn close(&self, limit: Limit) -> Close {
        self.hits.add(limit);
        Close::new(limit.code().unwrap_or(Code::Overloaded))
    }
}

impl Gate for Throttle {
    fn judge(&self, attempt: &Attempt) -> Verdict {
        let rules = self.rules.load();
        if rules.blocked.contain(attempt.address) {
            self.hits.add(Limit::Blocked);
            return Verdict::Ignore;
        }
        if rules.exempt.contain(attempt.address) {
            return Verdict::Admit;
        }
        let key = AddressKey::new(attempt.address, &self.hasher).get();
        let (buckets, limit, verdict) = match attempt.is_proven {
            false => (&rules.unproven, Limit::UnprovenHandshakes, Verdict::Prove),
            true => (&rules.handshakes, Limit::Handshakes, Verdict::Refuse),
        };
        if take(buckets, key, 1).is_ok() {
            return Verdict::Admit;
        }
        self.hits.add(limit);
        verdict
    }
}

impl std::fmt::Debug for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Throttle").field("hits", &self.hits).finish_non_exhaustive()
    }
}

impl Rules {
    fn new(
        limits: &LimitsConfig,
        before: Option<&Self>,
        clock: &LimitClock,
        untracked: &Arc<AtomicU64>,
    ) -> Self {
        let buckets = |rate: fn(&LimitsConfig) -> Option<Rate>, kept: fn(&Self) -> &Buckets| {
            let wanted = rate(limits);
            match before.filter(|before| rate(&before.limits) == wanted) {
                Some(before) => kept(before).clone(),
                None => wanted.map(|rate| Arc::new(Limiter::new(rate, clock, untracked))),
            }
        };
        Self {
            limits: limits.clone(),
            exempt: limits.exempt.iter().collect(),
            exempt_users: limits.exempt_users.iter().cloned().collect(),
            blocked: limits.blocked.iter().collect(),
            connections: limits.connections_per_address,
            unproven: buckets(|it| it.handshakes_per_address, |it| &it.unproven),
            handshakes: buckets(|it| it.handshakes_per_address, |it| &it.handshakes),
            login_bytes: buckets(|it| it.login_bytes_per_address, |it| &it.login_bytes),
            failed_logins: buckets(|it| it.failed_logins_per_address, |it| &it.failed_logins),
            frames: buckets(|it| it.frames_per_user, |it| &it.frames),
            user_messages: buckets(|it| it.messages_per_user, |it| &it.user_messages),
            user_bytes: buckets(|it| it.message_bytes_per_user, |it| &it.user_bytes),
            conversation_messages: buckets(
                |it| it.messages_per_conversation,
                |it| &it.conversation_messages,
            ),
            conversation_bytes: buckets(
                |it| it.message_bytes_per_conversation,
                |it| &it.conversation_bytes,
            ),
            syncs: buckets(|it| it.syncs_per_user, |it| &it.syncs),
        }
    }

    fn is_exempt(&self, user: &UserId) -> bool {
        !self.exempt_users.is_empty() && self.exempt_users.contains(user)
    }
}

fn take(buckets: &Buckets, key: u64, amount: usize) -> Result<(), Duration> {
    buckets.as_ref().map_or(Ok(()), |limiter| limiter.take(key, amount))
}
