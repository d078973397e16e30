//! Whether the gateway lives, and whether clients should be sent to it.
//!
//! `/livez` fails when only a restart helps: a shard has ended, or stands still while mail waits
//! for it. `/readyz` fails while new clients are better served elsewhere: the store does not
//! answer or takes no writes (its volume is nearly full, or it has stopped), or sessions are being
//! sent away. A gateway that is not ready is not to be restarted for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use skein_protocol::{ALPN, ConversationId, UserId};
use skein_storage::Store;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Admin;
use crate::config::Choice;

/// How often the shards are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A shard that has not taken its mail for so many looks stands still. A turn takes milliseconds.
const MAX_LOOKS: u32 = 10;

/// The store must answer within this time.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// For how long an answer of the store is trusted: however many ask, it is not asked more often.
const STORE_TRUST: Duration = Duration::from_secs(1);

/// Nobody has this name: names of users come from tokens, and this one is for probes.
const PROBE: &str = "skein-health-probe";

/// What was seen lately.
#[derive(Default)]
pub(super) struct Health {
    stands_still: AtomicBool,
    store: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
}

pub(super) fn documented() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(livez)).routes(routes!(readyz)).routes(routes!(version))
}

/// Looks at the shards for as long as it is polled.
pub(super) async fn watch(admin: Arc<Admin>) {
    let mut seen = vec![Seen::default(); admin.hub.mailboxes().len()];
    loop {
        tokio::time::sleep(LOOK).await;
        let mut stands_still = false;
        for (mailbox, seen) in admin.hub.mailboxes().iter().zip(&mut seen) {
            stands_still |= seen.stands_still(mailbox.stats().turns, !mailbox.is_empty());
        }
        match (admin.health.stands_still.swap(stands_still, Relaxed), stands_still) {
            (false, true) => tracing::error!("a shard stands still; a restart is needed"),
            (true, false) => tracing::warn!("the shard goes on that stood still"),
            _ => {}
        }
    }
}

/// What was seen of a shard so far.
#[derive(Clone, Default)]
struct Seen {
    turns: u64,
    /// Looks in a row at which it had not taken its mail.
    looks: u32,
}

impl Seen {
    /// A look at its turns so far, and whether mail waits for it.
    fn stands_still(&mut self, turns: u64, mail_waits: bool) -> bool {
        self.looks = if turns == self.turns && mail_waits { self.looks + 1 } else { 0 };
        self.turns = turns;
        self.looks >= MAX_LOOKS
    }
}

impl Admin {
    /// Whether the gateway can go on; otherwise why not.
    pub(crate) fn is_alive(&self) -> Result<(), &'static str> {
        if self.hub.mailboxes().iter().any(|mailbox| mailbox.has_ended()) && !self.hub.is_draining()
        {
            return Err("a shard has ended");
        }
        if self.health.stands_still.load(Relaxed) {
            return Err("a shard stands still");
        }
        Ok(())
    }

    /// What keeps new clients away; nothing if the gateway is ready.
    pub(crate) async fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Err(why) = self.is_alive() {
            reasons.push(why.into());
        }
        if self.hub.is_draining() {
            reasons.push("draining: sessions are being sent away".into());
        }
        if let Err(why) = self.store_answers().await {
            reasons.push(why);
        }
        reasons
    }

    /// Whether the store takes reads and writes; asked once a second at most.
    pub(crate) async fn store_answers(&self) -> Result<(), String> {
        // Those who come while it is asked wait for the same answer.
        let mut known = self.health.store.lock().await;
        if let Some((at, answer)) = &*known
            && at.elapsed() < STORE_TRUST
        {
            return answer.clone();
        }
        let asked = tokio::time::timeout(STORE_PATIENCE, probe(&*self.hub.store)).await;
        let answer = asked.unwrap_or_else(|_| {
            Err(format!("the store did not answer within {} s", STORE_PATIENCE.as_secs()))
        });
        *known = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// Asks for what the store can tell with least effort: whether its writer takes work, and a cursor
/// that nobody has.
async fn probe(store: &dyn Store) -> Result<(), String> {
    store.advance(Vec::new()).await.map_err(|error| error.to_string())?;
    let Ok(nobody) = UserId::parse(PROBE) else { return Ok(()) };
    let conversation = ConversationId::one_to_one(&nobody, &nobody);
    store.cursors(nobody, conversation).await.map_err(|error| error.to_string())?;
    Ok(())
}

/// Whether the process can go on; if not, only a restart helps.
#[utoipa::path(
    get, path = "/livez", tag = "health",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 500, body = String, content_type = "text/plain", description = "why not")
    )
)]
async fn livez(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    match admin.is_alive() {
        Ok(()) => (StatusCode::OK, "ok\n".into()),
        Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
    }
}

/// The answer of `/readyz`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Whether there is no reason against it.
    ready: bool,
    /// What keeps new clients away.
    reasons: Vec<String>,
}

/// Whether clients should be sent here. A gateway that is not ready is not to be restarted for it.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness))
)]
async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, Json<Readiness>) {
    let reasons = admin.unready().await;
    let status = match reasons.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(Readiness { ready: reasons.is_empty(), reasons }))
}

/// The answer of `/version`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Version {
    /// Of the program.
    version: &'static str,
    /// What clients and gateway agree on in the handshake.
    protocol: String,
    /// Kind of the store.
    store: &'static str,
    /// When the gateway began to serve (RFC 3339).
    started: String,
    /// For how long it has served, seconds.
    uptime_seconds: u64,
}

/// What runs here, and since when.
#[utoipa::path(
    get, path = "/version", tag = "health", responses((status = 200, body = Version))
)]
async fn version(State(admin): State<Arc<Admin>>) -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION"),
        protocol: String::from_utf8_lossy(ALPN).into_owned(),
        store: admin.config.store.kind.name(),
        started: humantime::format_rfc3339_seconds(admin.started).to_string(),
        uptime_seconds: admin.started.elapsed().map_or(0, |up| up.as_secs()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_stands_still_while_it_leaves_its_mail() {
        let mut seen = Seen::default();
        let mut looks = |turns, mail_waits, times| {
            (0..times).map(|_| seen.stands_still(turns, mail_waits)).collect::<Vec<_>>()
        };
        assert!(!looks(1, true, MAX_LOOKS as usize).contains(&true), "it is watched a while first");
        assert_eq!(looks(1, true, 2), [true, true]);
        assert_eq!(looks(2, true, 1), [false], "it goes on");
        assert!(!looks(2, false, 100).contains(&true), "an idle one has nothing to do");
        assert!(!looks(2, true, MAX_LOOKS as usize - 1).contains(&true));
        assert_eq!(looks(2, true, 1), [true]);
    }
}
