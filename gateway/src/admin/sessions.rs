//! Sessions: who is here, and who is to go.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use skein_protocol::server::Close;
use skein_protocol::{Code, DeviceId, UserId};
use skein_transport::ConnId;
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::problem::{Asked, Given, Problem, span};
use crate::blocks::{MAX_REASON_BYTES, Target};
use crate::walk::{Filter, Seen, Work};

/// Sessions on one page, at most.
const MAX_PAGE: usize = 1000;

/// Sessions on one page unless asked for.
const PAGE: usize = 100;

/// Which sessions, and how many of them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Of this user.
    user: Option<String>,
    /// Of devices of this name.
    device: Option<String>,
    /// From this address or network.
    address: Option<String>,
    /// true: logged in; false: connected and not logged in.
    logged_in: Option<bool>,
    /// Silent for longer than this, such as 20s.
    idle_over: Option<String>,
    /// Whether pushes are being left out because the session reads too slowly.
    behind: Option<bool>,
    /// `next` of the page before.
    after: Option<String>,
    /// Most sessions on the page: 1 to 1000, 100 unless given.
    limit: Option<usize>,
}

impl Which {
    fn filter(&self) -> Result<Arc<Filter>, Problem> {
        Ok(Arc::new(Filter {
            user: self.user.as_deref().map(user).transpose()?,
            device: self.device.as_deref().map(device).transpose()?,
            network: self.address.as_deref().map(network).transpose()?,
            conn: None,
            logged_in: self.logged_in,
            idle_over: self.idle_over.as_deref().map(|text| span("idle_over", text)).transpose()?,
            behind: self.behind,
        }))
    }

    /// Where the page begins: shard and place.
    fn start(&self) -> Result<(usize, usize), Problem> {
        let Some(after) = &self.after else { return Ok((0, 0)) };
        let parts = after.split_once('.');
        let start = parts.and_then(|(shard, at)| Some((shard.parse().ok()?, at.parse().ok()?)));
        start.ok_or_else(|| Problem::bad("`after`: give `next` of the page before"))
    }
}

pub(super) fn user(text: &str) -> Result<UserId, Problem> {
    UserId::parse(text).map_err(|error| Problem::bad(format!("`user`: {error}")))
}

fn device(text: &str) -> Result<DeviceId, Problem> {
    DeviceId::parse(text).map_err(|error| Problem::bad(format!("`device`: {error}")))
}

pub(super) fn network(text: &str) -> Result<ipnet::IpNet, Problem> {
    match Target::network(text).map_err(|why| Problem::bad(format!("`address`: {why}")))? {
        Target::Network(network) => Ok(network),
        Target::User(_) => Err(Problem::bad("`address`: not an address")),
    }
}

/// A session, or a connection that has not logged in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Session {
    /// Its name in the log and in other requests.
    id: String,
    /// Who logged in.
    user: Option<String>,
    /// On which device.
    device: Option<String>,
    /// Where the peer is now: IP address and port.
    address: String,
    /// What it is connected by.
    transport: &'static str,
    /// `live`, or `greeting` before the login.
    state: &'static str,
    /// Since when nothing was heard of it, milliseconds.
    idle_ms: u64,
    /// Smoothed round-trip time, milliseconds.
    rtt_ms: f64,
    /// Packets to it that were declared lost.
    lost_packets: u64,
    /// Packets sent to it.
    sent_packets: u64,
    /// Bytes that may be on their way to it at once.
    congestion_window: u64,
    /// Bytes of datagrams from it.
    bytes_in: u64,
    /// Bytes of datagrams to it.
    bytes_out: u64,
    /// Bytes that wait until it reads.
    outbox_bytes: u64,
    /// Pushes are being left out, because it reads too slowly.
    behind: bool,
    /// For how long something has waited for room in its outbox, milliseconds.
    stuck_ms: Option<u64>,
    /// Open streams of syncs and history.
    bulk_streams: u64,
    /// Its sends that wait for an answer.
    unanswered_sends: u32,
}

impl From<Seen> for Session {
    fn from(seen: Seen) -> Self {
        let (user, device) = match seen.who {
            Some((user, device)) => (Some(user.to_string()), Some(device.to_string())),
            None => (None, None),
        };
        Self {
            id: seen.conn.to_string(),
            state: if user.is_some() { "live" } else { "greeting" },
            user,
            device,
            address: seen.stats.remote.to_string(),
            transport: "quic",
            idle_ms: seen.idle.as_millis() as u64,
            rtt_ms: seen.stats.rtt.as_micros() as f64 / 1000.0,
            lost_packets: seen.stats.lost_packets,
            sent_packets: seen.stats.sent_packets,
            congestion_window: seen.stats.congestion_window,
            bytes_in: seen.stats.bytes_received,
            bytes_out: seen.stats.bytes_sent,
            outbox_bytes: seen.outbox_bytes as u64,
            behind: seen.behind,
            stuck_ms: seen.stuck.map(|stuck| stuck.as_millis() as u64),
            bulk_streams: seen.bulk_streams as u64,
            unanswered_sends: seen.unanswered,
        }
    }
}

/// One page of sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Sessions {
    sessions: Vec<Session>,
    /// Give it as `after` to have the next page; none: this is the last.
    next: Option<String>,
}

impl Sessions {
    fn of(seen: Vec<Seen>, next: Option<String>) -> Self {
        Self { sessions: seen.into_iter().map(Session::from).collect(), next }
    }
}

/// Sessions one by one, in no particular order. Those that begin or end meanwhile may be missing.
#[utoipa::path(
    get, path = "/v1/sessions", tag = "sessions", params(Which),
    responses((status = 200, body = Sessions), (status = 400, body = Problem))
)]
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Sessions>, Problem> {
    let filter = which.filter()?;
    let limit = which.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Problem::bad(format!("`limit`: 1 to {MAX_PAGE}")));
    }
    let mut sessions = Vec::new();
    if filter.user.is_some() {
        // A user has few devices, and all of them fit on a page.
        let work = Work::Look(1);
        admin.hub.walk(&filter, &work, |step| sessions.extend(step.seen)).await?;
        return Ok(Json(Sessions::of(sessions, None)));
    }
    let (mut shard, mut at) = which.start()?;
    while shard < admin.hub.mailboxes().len() {
        if sessions.len() >= limit {
            return Ok(Json(Sessions::of(sessions, Some(format!("{shard}.{at}")))));
        }
        let work = Work::Look(limit - sessions.len());
        let step = admin.hub.step(shard, at, &filter, &work).await?;
        sessions.extend(step.seen);
        (shard, at) = step.next.map_or((shard + 1, 0), |next| (shard, next));
    }
    Ok(Json(Sessions::of(sessions, None)))
}

/// A number of sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Count {
    /// How many there are.
    count: u64,
}

/// How many sessions there are. `after` and `limit` mean nothing here.
#[utoipa::path(
    get, path = "/v1/sessions/count", tag = "sessions", params(Which),
    responses((status = 200, body = Count), (status = 400, body = Problem))
)]
pub(super) async fn count(
    State(admin): State<Arc<Admin>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Count>, Problem> {
    let count = admin.hub.walk(&which.filter()?, &Work::Count, drop).await?;
    Ok(Json(Count { count: count as u64 }))
}

/// One session.
#[utoipa::path(
    get, path = "/v1/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "`id` of the session")),
    responses((status = 200, body = Session), (status = 404, body = Problem))
)]
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
) -> Result<Json<Session>, Problem> {
    let gone = || Problem::missing(format!("there is no session {id}"));
    let conn: ConnId = id.parse().map_err(|_| gone())?;
    if conn.shard() >= admin.hub.mailboxes().len() {
        return Err(gone());
    }
    let filter = Arc::new(Filter { conn: Some(conn), ..Filter::default() });
    let mut seen = None;
    let look = Work::Look(1);
    admin.hub.walk(&filter, &look, |step| seen = step.seen.into_iter().next()).await?;
    seen.map(|seen| Json(seen.into())).ok_or_else(gone)
}

/// Whom to throw out. At least one of `session`, `user`, `device` and `address`; those that are given
/// must all be true of a session.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Kick {
    /// `id` of a session.
    session: Option<String>,
    /// All devices of a user.
    user: Option<String>,
    /// Devices of this name.
    device: Option<String>,
    /// All from this address or network.
    address: Option<String>,
    /// In words, for the person; at most 256 bytes.
    #[serde(default)]
    reason: String,
    /// true: come back (code 123); false: do not come back by yourself (code 126).
    #[serde(default)]
    reconnect: bool,
}

/// How many sessions were ended.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Kicked {
    /// How many.
    kicked: u64,
}

pub(super) fn check_reason(text: &str) -> Result<(), Problem> {
    match text.len() <= MAX_REASON_BYTES {
        true => Ok(()),
        false => Err(Problem::bad(format!("`reason`: at most {MAX_REASON_BYTES} bytes"))),
    }
}

/// Ends sessions, now: when the answer comes they are closed. They may come back, unless they are
/// blocked.
#[utoipa::path(
    post, path = "/v1/kick", tag = "sessions", request_body = Kick,
    responses((status = 200, body = Kicked), (status = 400, body = Problem))
)]
pub(super) async fn kick(
    State(admin): State<Arc<Admin>>,
    Given(kick): Given<Kick>,
) -> Result<Json<Kicked>, Problem> {
    let conn: Option<ConnId> = match &kick.session {
        Some(id) => {
            let wrong = |_| Problem::bad(format!("`session`: {id:?} names no session"));
            Some(id.parse().map_err(wrong)?)
        }
        None => None,
    };
    let filter = Filter {
        conn,
        user: kick.user.as_deref().map(user).transpose()?,
        device: kick.device.as_deref().map(device).transpose()?,
        network: kick.address.as_deref().map(network).transpose()?,
        ..Filter::default()
    };
    if filter == Filter::default() {
        return Err(Problem::bad(
            "name a session, a user, a device or an address; to send everybody away, drain",
        ));
    }
    check_reason(&kick.reason)?;
    let code = if kick.reconnect { Code::GoingAway } else { Code::Kicked };
    let close = match kick.reason.is_empty() {
        true => Close::new(code),
        false => Close::because(code, kick.reason),
    };
    let kicked = throw_out(&admin, filter, close).await?;
    Ok(Json(Kicked { kicked }))
}

/// Closes all sessions that are meant.
pub(super) async fn throw_out(admin: &Admin, filter: Filter, close: Close) -> Result<u64, Problem> {
    if filter.conn.is_some_and(|conn| conn.shard() >= admin.hub.mailboxes().len()) {
        return Ok(0);
    }
    let told = close.clone();
    let filter = Arc::new(filter);
    let kicked = admin.hub.walk(&filter, &Work::Close(close), drop).await?;
    tracing::info!(kicked, code = %told.code.name(), reason = %told.reason, ?filter, "sessions ended by an operator");
    Ok(kicked as u64)
}
