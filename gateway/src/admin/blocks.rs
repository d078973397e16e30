//! Shutting out users and networks, and letting them in again.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::problem::{Asked, Given, Problem, span};
use super::sessions::{check_reason, network, throw_out, user};
use crate::blocks::{Block, BlocksError, Target, unix};
use crate::walk::Filter;

/// Whom to shut out: a user or an address.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBlock {
    /// A user, on all devices.
    user: Option<String>,
    /// An address or a network.
    address: Option<String>,
    /// In words, for the person; at most 256 bytes.
    #[serde(default)]
    reason: String,
    /// For how long, such as 24h; none: until further notice.
    #[serde(rename = "for")]
    length: Option<String>,
}

/// Whom to let in again: a user or an address.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Whom {
    /// A user.
    user: Option<String>,
    /// The address or the network, as it was blocked.
    address: Option<String>,
}

/// Somebody who is shut out.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Blocked {
    /// A user.
    user: Option<String>,
    /// A network.
    address: Option<String>,
    /// In words.
    reason: String,
    /// Since when (RFC 3339).
    since: String,
    /// Until when (RFC 3339); none: until further notice.
    until: Option<String>,
}

impl From<Block> for Blocked {
    fn from(block: Block) -> Self {
        let (user, address) = match block.target {
            Target::User(user) => (Some(user), None),
            Target::Network(network) => (None, Some(network.to_string())),
        };
        let shown = |seconds: u64| {
            // Beyond year 9999 there is no way to write it.
            let time = UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799));
            humantime::format_rfc3339_seconds(time).to_string()
        };
        let (since, until) = (shown(block.since), block.until.map(shown));
        Self { user, address, reason: block.reason, since, until }
    }
}

/// Everybody who is shut out.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Blocks {
    blocks: Vec<Blocked>,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NowBlocked {
    block: Blocked,
    /// Sessions that were ended for it.
    kicked: u64,
}

fn target(user_given: Option<&str>, address: Option<&str>) -> Result<Target, Problem> {
    match (user_given, address) {
        (Some(text), None) => Ok(Target::User(user(text)?.as_str().into())),
        (None, Some(text)) => Ok(Target::Network(network(text)?)),
        _ => Err(Problem::bad("name either a user or an address")),
    }
}

/// Everybody who is shut out by an operator.
#[utoipa::path(
    get, path = "/v1/blocks", tag = "blocks", responses((status = 200, body = Blocks))
)]
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Json<Blocks> {
    let blocks = admin.hub.blocks.all(SystemTime::now());
    Json(Blocks { blocks: blocks.into_iter().map(Blocked::from).collect() })
}

/// Shuts a user or a network out of this gateway and ends its sessions. The list outlives restarts.
/// Clients are told code 127, the reason, and how long it lasts if it has an end.
#[utoipa::path(
    post, path = "/v1/blocks", tag = "blocks", request_body = NewBlock,
    responses(
        (status = 200, body = NowBlocked), (status = 400, body = Problem),
        (status = 507, body = Problem, description = "the list is full, or cannot be written")
    )
)]
pub(super) async fn add(
    State(admin): State<Arc<Admin>>,
    Given(new): Given<NewBlock>,
) -> Result<Json<NowBlocked>, Problem> {
    let target = target(new.user.as_deref(), new.address.as_deref())?;
    let length = new.length.as_deref().map(|text| span("for", text)).transpose()?;
    check_reason(&new.reason)?;
    let now = SystemTime::now();
    let since = unix(now);
    let until = length.map(|length| since.saturating_add(length.as_secs().max(1)));
    let block = Block { target: target.clone(), reason: new.reason, since, until };
    let told = block.clone();
    change(&admin, move |blocks| blocks.add(block, now)).await?;
    tracing::info!(who = %target, reason = %told.reason, ?until, "blocked by an operator");
    let filter = match target {
        Target::User(name) => Filter { user: Some(user(&name)?), ..Filter::default() },
        Target::Network(network) => Filter { network: Some(network), ..Filter::default() },
    };
    let kicked = throw_out(&admin, filter, told.close(since)).await?;
    Ok(Json(NowBlocked { block: told.into(), kicked }))
}

/// Lets a user or a network in again.
#[utoipa::path(
    delete, path = "/v1/blocks", tag = "blocks", params(Whom),
    responses(
        (status = 204, description = "done"), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 507, body = Problem)
    )
)]
pub(super) async fn remove(
    State(admin): State<Arc<Admin>>,
    Asked(whom): Asked<Whom>,
) -> Result<StatusCode, Problem> {
    let target = target(whom.user.as_deref(), whom.address.as_deref())?;
    let (gone, now) = (target.clone(), SystemTime::now());
    if !change(&admin, move |blocks| blocks.remove(&gone, now)).await? {
        return Err(Problem::missing(format!("{target} is not blocked")));
    }
    tracing::info!(who = %target, "let in again by an operator");
    Ok(StatusCode::NO_CONTENT)
}

/// A change syncs a file, which may take a while.
async fn change<T: Send + 'static>(
    admin: &Admin,
    change: impl FnOnce(&crate::blocks::Blocks) -> Result<T, BlocksError> + Send + 'static,
) -> Result<T, Problem> {
    let blocks = admin.hub.blocks.clone();
    let changed = tokio::task::spawn_blocking(move || change(&blocks)).await;
    let failed = |error: String| Problem::new(StatusCode::INSUFFICIENT_STORAGE, error);
    match changed {
        Ok(changed) => changed.map_err(|error| failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}
