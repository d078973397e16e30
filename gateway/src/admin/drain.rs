//! Sending everybody away, spread over a time, and taking it back.
//!
//! Sessions are told to go in equal parts, one part after the other, so that those who take them
//! over meet an even stream of logins. Nobody logs in meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;
use utoipa::ToSchema;

use super::Admin;
use super::problem::{Given, Problem, span};
use crate::hub::Hub;
use crate::walk::{Filter, Work};

/// Time from one part to the next.
const STEP: Duration = Duration::from_millis(100);

/// Longest time that a drain is spread over.
const MAX_OVER: Duration = Duration::from_secs(3600);

/// What is under way.
#[derive(Default)]
pub(super) struct Draining(Mutex<State_>);

#[derive(Default)]
struct State_ {
    /// The last one asked for, until it is taken back.
    wish: Option<Wish>,
}

struct Wish {
    began: Instant,
    over: Duration,
    told: Arc<std::sync::atomic::AtomicU64>,
    task: AbortHandle,
}

impl Draining {
    fn lock(&self) -> MutexGuard<'_, State_> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How to send everybody away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainWish {
    /// Spread over this time, such as 60s; none: all at once. At most 1h.
    over: Option<String>,
    /// Each is told to come back after a random time of up to this; none: 1s.
    reconnect_delay: Option<String>,
}

/// Whether sessions are being sent away, and how far that is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DrainState {
    /// Logins are refused.
    draining: bool,
    /// Sessions that are still here.
    sessions: u64,
    /// Sessions that were told to go.
    told: u64,
    /// Since the drain began, seconds.
    elapsed_seconds: f64,
    /// The time that it is spread over, seconds.
    over_seconds: f64,
    /// Everybody has been told.
    all_told: bool,
}

impl Admin {
    fn drain_state(&self) -> DrainState {
        let state = self.draining.lock();
        let wish = state.wish.as_ref();
        DrainState {
            draining: self.hub.is_draining(),
            sessions: self.hub.sessions() as u64,
            told: wish.map_or(0, |wish| wish.told.load(std::sync::atomic::Ordering::Relaxed)),
            elapsed_seconds: wish.map_or(0.0, |wish| wish.began.elapsed().as_secs_f64()),
            over_seconds: wish.map_or(0.0, |wish| wish.over.as_secs_f64()),
            all_told: wish.is_some_and(|wish| wish.task.is_finished()),
        }
    }
}

/// Whether sessions are being sent away.
#[utoipa::path(
    get, path = "/v1/drain", tag = "gateway", responses((status = 200, body = DrainState))
)]
pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<DrainState> {
    Json(admin.drain_state())
}

/// Refuses logins from now on and tells all sessions to go, spread over a time. Asked again it begins
/// anew. The process goes on: stop it when nobody is left.
#[utoipa::path(
    post, path = "/v1/drain", tag = "gateway", request_body = DrainWish,
    responses((status = 200, body = DrainState), (status = 400, body = Problem))
)]
pub(super) async fn begin(
    State(admin): State<Arc<Admin>>,
    Given(wish): Given<DrainWish>,
) -> Result<Json<DrainState>, Problem> {
    let over = wish.over.as_deref().map_or(Ok(Duration::ZERO), |text| span("over", text))?;
    let delay = wish.reconnect_delay.as_deref();
    let delay = delay.map_or(Ok(Duration::from_secs(1)), |text| span("reconnect_delay", text))?;
    if over > MAX_OVER || delay > MAX_OVER {
        return Err(Problem::bad("`over` and `reconnect_delay`: at most 1h"));
    }
    {
        let mut state = admin.draining.lock();
        if let Some(earlier) = state.wish.take() {
            earlier.task.abort();
        }
        admin.hub.set_draining(true);
        tracing::info!(
            sessions = admin.hub.sessions(),
            ?over,
            "draining, asked for by an operator"
        );
        let told = Arc::default();
        let work = send_away(admin.hub.clone(), over, delay, Arc::clone(&told));
        let task = tokio::spawn(work).abort_handle();
        state.wish = Some(Wish { began: Instant::now(), over, told, task });
    }
    Ok(Json(admin.drain_state()))
}

/// Accepts logins again, unless the gateway is stopping. Sessions that were told to go, go.
#[utoipa::path(
    delete, path = "/v1/drain", tag = "gateway", responses((status = 200, body = DrainState))
)]
pub(super) async fn end(State(admin): State<Arc<Admin>>) -> Json<DrainState> {
    {
        let mut state = admin.draining.lock();
        if let Some(wish) = state.wish.take() {
            wish.task.abort();
            admin.hub.set_draining(false);
            // A stop that is under way is not taken back.
            match admin.hub.is_draining() {
                true => tracing::info!("logins are still refused: the gateway is stopping"),
                false => tracing::info!("logins are accepted again, asked for by an operator"),
            }
        }
    }
    Json(admin.drain_state())
}

async fn send_away(
    hub: Arc<Hub>,
    over: Duration,
    delay: Duration,
    told: Arc<std::sync::atomic::AtomicU64>,
) {
    let everybody = Arc::new(Filter::default());
    let parts = (over.as_millis() / STEP.as_millis()).max(1) as u32;
    let reconnect_spread_ms = delay.as_millis().try_into().unwrap_or(u32::MAX);
    let began = tokio::time::Instant::now();
    for part in 0..parts {
        tokio::time::sleep_until(began + over / parts * part).await;
        let work = Work::SendAway { part, parts, reconnect_spread_ms };
        for shard in 0..hub.mailboxes().len() {
            let step = hub.walk_shard(shard, &everybody, &work, |step| {
                told.fetch_add(step.matched as u64, std::sync::atomic::Ordering::Relaxed);
            });
            if let Err(error) = step.await {
                tracing::warn!(%error, part, "sessions could not be told to go");
            }
        }
    }
    tracing::info!(left = hub.sessions(), "everybody has been told to go");
}
