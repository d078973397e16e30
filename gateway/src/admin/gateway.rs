//! The gateway as a whole: how it is, what it tells everybody, what it logs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use skein_protocol::limits::MAX_NOTICE_BYTES;
use skein_protocol::server::server_frame;
use skein_protocol::wire::{self, server_frame::Kind};
use utoipa::ToSchema;

use super::Admin;
use super::problem::{Given, Problem};
use super::sessions::user;
use crate::walk::{Filter, Work};

/// How the gateway is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    /// Version of the program.
    version: &'static str,
    /// Since when it serves, seconds.
    uptime_seconds: u64,
    /// Whether clients should be sent to it.
    ready: bool,
    /// What keeps new clients away.
    reasons: Vec<String>,
    /// Logins are refused because sessions are being sent away.
    draining: bool,
    /// Sessions.
    sessions: u64,
    /// Users who are online.
    users: u64,
    /// Threads that serve connections.
    shards: u64,
    /// Users and networks that are blocked.
    blocks: u64,
    /// Connections and logins that were refused because of a block.
    blocks_refused: u64,
    /// Bytes of messages that wait for the store.
    waiting_bytes: u64,
}

/// How the gateway is, in short.
#[utoipa::path(
    get, path = "/v1/status", tag = "gateway", responses((status = 200, body = Status))
)]
pub(super) async fn status(State(admin): State<Arc<Admin>>) -> Json<Status> {
    let reasons = admin.unready().await;
    let hub = &admin.hub;
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: admin.started.elapsed().map_or(0, |up| up.as_secs()),
        ready: reasons.is_empty(),
        reasons,
        draining: hub.is_draining(),
        sessions: hub.sessions() as u64,
        users: hub.registry.users() as u64,
        shards: hub.mailboxes().len() as u64,
        blocks: hub.blocks.all(std::time::SystemTime::now()).len() as u64,
        blocks_refused: hub.blocks.refused(),
        waiting_bytes: hub.waiting_bytes() as u64,
    })
}

/// What to tell, and whom.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Notice {
    /// 1 to 1024 bytes.
    text: String,
    /// All devices of this user; none: everybody.
    user: Option<String>,
}

/// How many heard it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Told {
    /// Sessions that it was sent to; those that read too slowly are passed over.
    told: u64,
}

/// Tells everybody who is online, or one user, a text from the operator. It is not kept, and clients
/// that are older than it pass over it.
#[utoipa::path(
    post, path = "/v1/notice", tag = "gateway", request_body = Notice,
    responses((status = 200, body = Told), (status = 400, body = Problem))
)]
pub(super) async fn notice(
    State(admin): State<Arc<Admin>>,
    Given(notice): Given<Notice>,
) -> Result<Json<Told>, Problem> {
    if !(1..=MAX_NOTICE_BYTES).contains(&notice.text.len()) {
        return Err(Problem::bad(format!("`text`: 1 to {MAX_NOTICE_BYTES} bytes")));
    }
    let user = notice.user.as_deref().map(user).transpose()?;
    let filter = Arc::new(Filter { user, logged_in: Some(true), ..Filter::default() });
    let text = notice.text.clone();
    let frame = server_frame(Kind::SystemNotice(wire::SystemNotice { text }));
    let told = admin.hub.walk(&filter, &Work::Say(frame), drop).await?;
    tracing::info!(told, text = %notice.text, "a notice was sent by an operator");
    Ok(Json(Told { told: told as u64 }))
}
