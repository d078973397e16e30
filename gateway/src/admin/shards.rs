//! What the shards are doing, and who keeps them busy.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use skein_transport::ConnId;
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::problem::{Asked, Problem, span};
use super::sessions::Session;
use crate::walk::{Filter, Measure, Tally, Work};

/// Longest time over which talkers are compared. Below the time in which an answer must be there.
const MAX_OVER: Duration = Duration::from_secs(60);

/// Most talkers in one answer.
const MAX_TALKERS: usize = 200;

/// One shard: a thread with its socket and its connections.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Shard {
    /// Its number.
    shard: usize,
    /// Its thread has ended, which a restart alone mends.
    ended: bool,
    /// Connections, with those that are beginning or ending.
    connections: u64,
    /// Handshakes under way.
    handshaking: u64,
    /// Mail that waits for it.
    mail_waiting: u64,
    /// Bytes that wait for its peers.
    outbox_bytes: u64,
    /// Everything that it has counted since it began.
    counters: std::collections::BTreeMap<String, u64>,
    /// Its sessions in numbers; only where one shard is asked for.
    sessions: Option<ShardSessions>,
}

/// The sessions of a shard in numbers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShardSessions {
    /// Connected and not logged in.
    greeting: u64,
    /// Logged in.
    live: u64,
    /// Pushes to them are being left out.
    behind: u64,
    /// Something waits for room in their outbox.
    stuck: u64,
    /// Open streams of syncs and history.
    bulk_streams: u64,
    /// Sends that wait for an answer.
    unanswered_sends: u64,
    /// Bytes that wait for them.
    outbox_bytes: u64,
    /// The longest silence, milliseconds.
    longest_idle_ms: u64,
}

/// All shards.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Shards {
    shards: Vec<Shard>,
}

fn shard(admin: &Admin, number: usize) -> Option<Shard> {
    let mailbox = admin.hub.mailboxes().get(number)?;
    let stats = mailbox.stats();
    let counters = stats.all().map(|(name, value)| (name.to_owned(), value)).collect();
    Some(Shard {
        shard: number,
        ended: mailbox.has_ended(),
        connections: stats.connections,
        handshaking: stats.handshaking,
        mail_waiting: mailbox.len() as u64,
        outbox_bytes: stats.outbox_total,
        counters,
        sessions: None,
    })
}

/// All shards with their counters.
#[utoipa::path(
    get, path = "/v1/shards", tag = "shards", responses((status = 200, body = Shards))
)]
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Json<Shards> {
    let shards = (0..admin.hub.mailboxes().len()).filter_map(|number| shard(&admin, number));
    Json(Shards { shards: shards.collect() })
}

/// One shard, with its sessions in numbers.
#[utoipa::path(
    get, path = "/v1/shards/{shard}", tag = "shards",
    params(("shard" = usize, Path, description = "its number, from 0")),
    responses(
        (status = 200, body = Shard), (status = 404, body = Problem),
        (status = 503, body = Problem, description = "it does not answer")
    )
)]
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path(number): Path<String>,
) -> Result<Json<Shard>, Problem> {
    let missing = || Problem::missing(format!("there is no shard {number}"));
    let number = number.parse().map_err(|_| missing())?;
    let mut shard = shard(&admin, number).ok_or_else(missing)?;
    let mut all = Tally::default();
    let everybody = Arc::new(Filter::default());
    admin.hub.walk_shard(number, &everybody, &Work::Tally, |step| all.add(&step.tally)).await?;
    shard.sessions = Some(ShardSessions {
        greeting: all.greeting,
        live: all.logged_in,
        behind: all.behind,
        stuck: all.stuck,
        bulk_streams: all.bulk_streams,
        unanswered_sends: all.unanswered,
        outbox_bytes: all.outbox_bytes,
        longest_idle_ms: all.longest_idle_ms,
    });
    Ok(Json(shard))
}

/// What makes a talker.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum By {
    /// Bytes from it.
    #[default]
    BytesIn,
    /// Bytes to it.
    BytesOut,
    /// Datagrams from it.
    DatagramsIn,
    /// Datagrams to it.
    DatagramsOut,
    /// Packets to it that were lost.
    LostPackets,
    /// Bytes that wait until it reads: how many now, whatever `over` is.
    OutboxBytes,
}

impl By {
    fn measure(self) -> Measure {
        match self {
            Self::BytesIn => Measure::BytesIn,
            Self::BytesOut => Measure::BytesOut,
            Self::DatagramsIn => Measure::DatagramsIn,
            Self::DatagramsOut => Measure::DatagramsOut,
            Self::LostPackets => Measure::LostPackets,
            Self::OutboxBytes => Measure::OutboxBytes,
        }
    }
}

/// How to compare.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct TopWish {
    /// `bytes_in` (unless given), `bytes_out`, `datagrams_in`, `datagrams_out`, `lost_packets` or
    /// `outbox_bytes`.
    by: Option<By>,
    /// Count for this time, such as 5s, at most 60s; none: since each session began.
    over: Option<String>,
    /// How many, 1 to 200; 20 unless given.
    limit: Option<usize>,
}

/// A session and what it was compared by.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Talker {
    /// The number.
    value: u64,
    session: Session,
}

/// Those with the highest numbers first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Top {
    by: By,
    /// For how long it was counted, seconds; none: since each session began.
    over_seconds: Option<f64>,
    talkers: Vec<Talker>,
}

/// The sessions that keep the gateway busiest.
#[utoipa::path(
    get, path = "/v1/top", tag = "shards", params(TopWish),
    responses((status = 200, body = Top), (status = 400, body = Problem))
)]
pub(super) async fn top(
    State(admin): State<Arc<Admin>>,
    Asked(wish): Asked<TopWish>,
) -> Result<Json<Top>, Problem> {
    let by = wish.by.unwrap_or_default();
    let limit = wish.limit.unwrap_or(20);
    let over = wish.over.as_deref().map(|text| span("over", text)).transpose()?;
    if !(1..=MAX_TALKERS).contains(&limit) || over.is_some_and(|over| over > MAX_OVER) {
        return Err(Problem::bad(format!("`limit`: 1 to {MAX_TALKERS}; `over`: at most 60s")));
    }
    let mut before = HashMap::new();
    let over = over.filter(|over| !over.is_zero() && !matches!(by, By::OutboxBytes));
    if let Some(over) = over {
        before.extend(measure(&admin, by).await?);
        tokio::time::sleep(over).await;
    }
    let now = measure(&admin, by).await?.into_iter();
    let mut risen: Vec<(ConnId, u64)> = now
        .map(|(conn, value)| (conn, value - before.get(&conn).copied().unwrap_or(0).min(value)))
        .filter(|(_, value)| *value > 0)
        .collect();
    risen.sort_unstable_by_key(|(conn, value)| (std::cmp::Reverse(*value), *conn));
    risen.truncate(limit);
    let mut talkers = Vec::new();
    for (conn, value) in risen {
        let one = Arc::new(Filter { conn: Some(conn), ..Filter::default() });
        // Who has gone meanwhile is left out.
        let seen = |step: crate::walk::Step| {
            let seen = step.seen.into_iter();
            talkers.extend(seen.map(|seen| Talker { value, session: seen.into() }));
        };
        admin.hub.walk(&one, &Work::Look(1), seen).await?;
    }
    Ok(Json(Top { by, over_seconds: over.map(|over| over.as_secs_f64()), talkers }))
}

/// 16 bytes a session, for the time of the request.
async fn measure(admin: &Admin, by: By) -> Result<Vec<(ConnId, u64)>, Problem> {
    let mut all = Vec::new();
    let everybody = Arc::new(Filter::default());
    admin
        .hub
        .walk(&everybody, &Work::Measure(by.measure()), |step| all.extend(step.measured))
        .await?;
    Ok(all)
}
