//! The schema: what it is, making it, and looking whether it is there.
//!
//! [`apply`] may be called at any time, by several programs at once, and again after a crash in
//! the middle: a lock lets one go on, every statement can be repeated, and what was finished is
//! written down in `schema_versions`.

mod lock;
mod options;
mod request;
mod tables;

use std::collections::BTreeMap;

use scylla::client::session::Session;
use scylla::statement::Consistency;

pub use options::{Replication, SchemaError, SchemaOptions, ServerKind};
pub(super) use request::Patience;

use super::connect::{self, Quorum};
use super::layout::Layout;
use super::options::{OpenError, ScyllaOptions};
use crate::MAX_APPEND_RECORDS;
use lock::Lock;

/// The version of the schema that this program works with.
pub const LATEST: u32 = tables::LATEST;

/// What [`apply`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Which server it is.
    pub kind: ServerKind,
    /// Versions that were applied now, in order; empty if all of them were before.
    pub applied: Vec<u32>,
    /// The version that the keyspace has.
    pub version: u32,
}

/// What is in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// Which server it is.
    pub kind: ServerKind,
    /// The highest version that was applied to its end.
    pub version: Option<u32>,
    /// What all gateways must know alike; written by the first version.
    pub made: Option<Made>,
}

/// What was fixed when the keyspace was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Made {
    /// See [`Store::epoch`](crate::Store::epoch).
    pub epoch: u64,
    /// Numbers in a bucket.
    pub bucket_rows: u64,
    /// Records in an append, at most.
    pub max_append: u64,
    /// The data centre whose majority decides; none: a majority of all replicas.
    pub data_centre: Option<String>,
    /// Whether messages were ever written with a time to live.
    pub may_expire: bool,
}

impl Found {
    /// What keeps a gateway with these options from opening the store, if anything does.
    pub fn problem(&self, options: &ScyllaOptions) -> Option<OpenError> {
        let keyspace = options.keyspace.clone();
        let (Some(found), Some(made)) = (self.version, &self.made) else {
            return Some(OpenError::Missing { keyspace });
        };
        let needed = MAX_APPEND_RECORDS as u64;
        if found > LATEST {
            Some(OpenError::Newer { keyspace, found, known: LATEST })
        } else if found < LATEST {
            Some(OpenError::Older { keyspace, found, needed: LATEST })
        } else if made.data_centre != options.data_centre {
            let configured = options.data_centre.clone();
            let found = made.data_centre.clone();
            Some(OpenError::OtherDataCentre { keyspace, found, configured })
        } else if made.max_append < needed {
            Some(OpenError::LongerAppends { keyspace, found: made.max_append, needed })
        } else {
            None
        }
    }
}

impl Made {
    pub(super) fn layout(&self) -> Layout {
        Layout::new(self.bucket_rows.max(1), self.max_append.max(1))
    }
}

/// All statements that make the schema, without a semicolon, in order. `apply` does more: it waits
/// for agreement after each, and writes down what the keyspace was made for.
pub fn statements(kind: ServerKind, keyspace: &str, options: &SchemaOptions) -> Vec<String> {
    let mut all = vec![tables::keyspace(kind, keyspace, options)];
    all.extend(tables::bookkeeping(keyspace));
    for migration in tables::MIGRATIONS {
        all.extend((migration.statements)(kind, keyspace));
    }
    all
}

/// Makes what is missing. `progress` hears of each step before it is done.
///
/// # Errors
/// [`SchemaError`] says what is in the way, also of a gateway that is to open what is there now. What
/// was done stays; calling again goes on from there.
pub async fn apply(
    options: &ScyllaOptions,
    schema: &SchemaOptions,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<Report, SchemaError> {
    schema.check().map_err(SchemaError::Option)?;
    let session = connect::connect(options).await?;
    let (quorum, keyspace) = (Quorum::of(options), options.keyspace.as_str());
    let kind = kind_of(&session, quorum).await?;
    let tables = tables_of(&session, quorum, keyspace).await?;
    // Whoever may not make keyspaces can still apply to one that was made for them.
    match tables {
        None => {
            schema.replication.check(&nodes_of(&session)).map_err(SchemaError::Option)?;
            progress(&format!("making keyspace {keyspace} on {kind}"));
            request::change(&session, &tables::keyspace(kind, keyspace, schema)).await?;
        }
        Some(_) => progress(&format!("keyspace {keyspace} is there; its replication stays")),
    }
    // Before there is a table there is no lock. Two programs that make these at once meet when
    // each waits for agreement, which comes only when all nodes have the same tables.
    for text in tables::bookkeeping(keyspace) {
        request::change(&session, &text).await?;
    }
    let lock = Lock::take(&session, quorum, keyspace, progress).await?;
    let done = migrate(&session, quorum, options, schema, (kind, &lock), progress).await;
    lock.release().await;
    let (applied, version) = done?;
    let found = look(&session, options).await?;
    if let Some(problem) = found.problem(options) {
        return Err(SchemaError::Unfit(problem));
    }
    let bucket_rows = found.made.map_or(schema.bucket_rows, |made| made.bucket_rows);
    if bucket_rows != schema.bucket_rows {
        progress(&format!("partitions of {bucket_rows} messages stay: they are fixed"));
    }
    Ok(Report { kind, applied, version })
}

/// How many nodes each data centre has.
fn nodes_of(session: &Session) -> BTreeMap<String, usize> {
    let mut nodes = BTreeMap::new();
    for node in session.get_cluster_state().get_nodes_info() {
        *nodes.entry(node.datacenter.clone().unwrap_or_default()).or_default() += 1;
    }
    nodes
}

async fn migrate(
    session: &Session,
    quorum: Quorum,
    options: &ScyllaOptions,
    schema: &SchemaOptions,
    (kind, lock): (ServerKind, &Lock<'_>),
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<(Vec<u32>, u32), SchemaError> {
    let keyspace = options.keyspace.as_str();
    let before = version_of(session, quorum, keyspace).await?.unwrap_or(0);
    if before > LATEST {
        let keyspace = keyspace.into();
        return Err(SchemaError::Newer { keyspace, found: before, known: LATEST });
    }
    let mut applied = Vec::new();
    for migration in tables::MIGRATIONS.iter().filter(|it| it.version > before) {
        let texts = (migration.statements)(kind, keyspace);
        for (n, text) in (1..).zip(&texts) {
            let (version, title, of) = (migration.version, migration.title, texts.len());
            progress(&format!("version {version} ({title}): step {n} of {of}"));
            lock.hold(request::change(session, text)).await?;
        }
        if migration.version == 1 {
            progress("writing down what the keyspace is for");
            lock.hold(write_made(session, quorum, options, schema)).await?;
        }
        // Last, so that a version that is written down is there as a whole.
        let text = format!(
            "INSERT INTO {keyspace}.schema_versions (version, applied_ms, applied_by) \
             VALUES (?, ?, ?) IF NOT EXISTS"
        );
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |time| time.as_millis() as i64);
        let by = format!("skein {}", env!("CARGO_PKG_VERSION"));
        let values = (migration.version as i32, now, by);
        let what = "write down the version";
        lock.hold(request::conditional(session, quorum, what, &text, values)).await?;
        applied.push(migration.version);
    }
    Ok((applied, before.max(LATEST)))
}

/// The first one counts, as everywhere.
async fn write_made(
    session: &Session,
    quorum: Quorum,
    options: &ScyllaOptions,
    schema: &SchemaOptions,
) -> Result<(), SchemaError> {
    let text = format!(
        "INSERT INTO {}.store (id, epoch, bucket_rows, max_append, data_centre) \
         VALUES (1, ?, ?, ?, ?) IF NOT EXISTS",
        options.keyspace
    );
    let data_centre = options.data_centre.as_deref().unwrap_or(EVERYWHERE);
    let epoch = rand::random::<u64>() as i64;
    let values = (epoch, schema.bucket_rows as i64, MAX_APPEND_RECORDS as i64, data_centre);
    let what = "write down what the keyspace is for";
    request::conditional(session, quorum, what, &text, values).await.map(drop)
}

/// In the place of a data centre: a majority of all replicas. No data centre has an empty name.
const EVERYWHERE: &str = "";

/// Gives the keyspace a new [epoch](crate::Store::epoch), by which clients see that its log is
/// another one. For a keyspace into which an older state was restored, before gateways start on it:
/// those that run keep the old one.
///
/// # Errors
/// [`SchemaError`] if the cluster does not answer.
pub async fn renew_epoch(options: &ScyllaOptions) -> Result<u64, SchemaError> {
    let session = connect::connect(options).await?;
    let epoch = rand::random::<u64>();
    let text = format!("UPDATE {}.store SET epoch = ? WHERE id = 1 IF EXISTS", options.keyspace);
    let values = (epoch as i64,);
    let what = "write the epoch";
    request::conditional(&session, Quorum::of(options), what, &text, values).await?;
    Ok(epoch)
}

/// Looks what is there.
///
/// # Errors
/// [`SchemaError`] if the cluster does not answer; that nothing is there is no error.
pub async fn check(options: &ScyllaOptions) -> Result<Found, SchemaError> {
    let session = connect::connect(options).await?;
    look(&session, options).await
}

/// As [`check`], on a session that is open.
pub(super) async fn look(session: &Session, options: &ScyllaOptions) -> Result<Found, SchemaError> {
    let (quorum, keyspace) = (Quorum::of(options), options.keyspace.as_str());
    let kind = kind_of(session, quorum).await?;
    let tables = tables_of(session, quorum, keyspace).await?.unwrap_or_default();
    let has = |name: &str| tables.iter().any(|table| table == name);
    let version = match has("schema_versions") {
        true => version_of(session, quorum, keyspace).await?,
        false => None,
    };
    let made = match has("store") {
        true => made_of(session, quorum, keyspace, Patience::LONG).await?,
        false => None,
    };
    Ok(Found { kind, version, made })
}

async fn version_of(
    session: &Session,
    quorum: Quorum,
    keyspace: &str,
) -> Result<Option<u32>, SchemaError> {
    let text = format!("SELECT version FROM {keyspace}.schema_versions");
    let what = "read the version of the schema";
    let rows: Vec<(i32,)> =
        request::rows(session, quorum.plain, Patience::LONG, what, &text, ()).await?;
    // 0 is the lock.
    Ok(rows.into_iter().map(|(version,)| version.unsigned_abs()).filter(|n| *n > 0).max())
}

type MadeRow = (i64, i64, i64, String, Option<bool>);

pub(super) async fn made_of(
    session: &Session,
    quorum: Quorum,
    keyspace: &str,
    patience: Patience,
) -> Result<Option<Made>, SchemaError> {
    let text = format!(
        "SELECT epoch, bucket_rows, max_append, data_centre, may_expire \
         FROM {keyspace}.store WHERE id = 1"
    );
    let what = "read what the keyspace is for";
    let rows: Vec<MadeRow> =
        request::rows(session, quorum.serial_read, patience, what, &text, ()).await?;
    Ok(rows.into_iter().next().map(|(epoch, bucket_rows, max_append, data_centre, may_expire)| {
        Made {
            epoch: epoch as u64,
            bucket_rows: bucket_rows.unsigned_abs(),
            max_append: max_append.unsigned_abs(),
            data_centre: (data_centre != EVERYWHERE).then_some(data_centre),
            may_expire: may_expire.unwrap_or(false),
        }
    }))
}

/// Notes, before the first message is written with a time to live, that gaps are no damage.
pub(super) async fn note_expiry(
    session: &Session,
    quorum: Quorum,
    keyspace: &str,
) -> Result<(), SchemaError> {
    let text = format!("UPDATE {keyspace}.store SET may_expire = true WHERE id = 1 IF EXISTS");
    let what = "write down that messages expire";
    request::conditional(session, quorum, what, &text, ()).await.map(drop)
}

/// What the server says of itself: only ScyllaDB has this table.
async fn kind_of(session: &Session, quorum: Quorum) -> Result<ServerKind, SchemaError> {
    let own = tables_of(session, quorum, "system_schema").await?.unwrap_or_default();
    let is_scylla = own.iter().any(|table| table == "scylla_tables");
    Ok(if is_scylla { ServerKind::ScyllaDb } else { ServerKind::Cassandra })
}

/// Names of a keyspace's tables; `None` if there is no such keyspace.
async fn tables_of(
    session: &Session,
    quorum: Quorum,
    keyspace: &str,
) -> Result<Option<Vec<String>>, SchemaError> {
    let ask = async |column: &str, table: &str| -> Result<Vec<(String,)>, SchemaError> {
        let text = format!("SELECT {column} FROM system_schema.{table} WHERE keyspace_name = ?");
        // Each node has these tables for itself.
        let one = if quorum.one == Consistency::LocalOne { quorum.one } else { Consistency::One };
        request::rows(
            session,
            one,
            Patience::LONG,
            "read which tables there are",
            &text,
            (keyspace,),
        )
        .await
    };
    if ask("keyspace_name", "keyspaces").await?.is_empty() {
        return Ok(None);
    }
    let names = ask("table_name", "tables").await?;
    Ok(Some(names.into_iter().map(|(name,)| name).collect()))
}
