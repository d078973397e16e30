//! The tables, as versioned migrations.
//!
//! Rules for a new migration: give it the next version; every statement can be repeated
//! (`IF NOT EXISTS`), because an `apply` that was cut off begins the migration again; gateways of
//! the version before keep working on the new schema, or a rolling restart is not possible.

use super::{SchemaOptions, ServerKind};

/// A step from one version of the schema to the next.
pub(super) struct Migration {
    /// 1, 2, ... in order.
    pub(super) version: u32,
    /// What it does, for whoever watches.
    pub(super) title: &'static str,
    /// The statements for a keyspace of this name.
    pub(super) statements: fn(ServerKind, &str) -> Vec<String>,
}

/// All migrations in order.
pub(super) const MIGRATIONS: &[Migration] =
    &[Migration { version: 1, title: "messages, cursors, members", statements: first }];

/// The version that this program works with.
pub(super) const LATEST: u32 = 1;

/// The keyspace.
pub(super) fn keyspace(kind: ServerKind, name: &str, options: &SchemaOptions) -> String {
    let replication = options.replication.cql();
    // ScyllaDB keeps tables in tablets by default, and not all of its versions allow conditional
    // writes there; Cassandra does not know the word.
    let tablets = match kind {
        ServerKind::ScyllaDb => " AND tablets = {'enabled': false}",
        ServerKind::Cassandra => "",
    };
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {name} WITH replication = {replication} \
         AND durable_writes = true{tablets}"
    )
}

/// What `apply` itself needs: which migrations were applied, who applies one now (version 0),
/// and what all gateways must know alike. Only ever written conditionally.
pub(super) fn bookkeeping(name: &str) -> Vec<String> {
    vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {name}.schema_versions (\
             version int PRIMARY KEY, applied_ms bigint, applied_by text)"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {name}.store (\
             id int PRIMARY KEY, epoch bigint, bucket_rows bigint, max_append bigint, \
             data_centre text, may_expire boolean)"
        ),
    ]
}

/// For all tables: nothing is ever deleted but by its time to live, which every replica knows, so
/// that tombstones need not outlive a repair; but a hint for a node that was away (3 h at most)
/// is dropped once it is older than this, and so is what the servers remember of a conditional
/// write. A day is safe for both, and spares the ten days of finished transactions that the
/// default would keep.
const GC_GRACE: &str = "gc_grace_seconds = 86400";

/// For all tables: an append first reads its partition's head, and a conversation that lives for
/// long is spread over many files; levels keep that to a few. Time windows would do nothing for
/// expiry: the head of a partition never expires, so no file that holds one can be dropped whole,
/// and a slow conversation's partition would be spread over all windows of its life. Expired rows
/// go when levels are merged, or when they make up a fifth of a file (`tombstone_threshold`, by
/// default).
const COMPACTION: &str = "compaction = {'class': 'LeveledCompactionStrategy'}";

// Left at the servers' defaults, which suit: compression (LZ4, in chunks of the size of a few
// messages), caching, and `speculative_retry`, which applies to plain reads alone and helps while
// a dead replica has not been noticed.
fn first(_: ServerKind, name: &str) -> Vec<String> {
    vec![
        // The log. `head` is the last number of the last append that went into the partition; it
        // has no time to live, or numbers would come back.
        format!(
            "CREATE TABLE IF NOT EXISTS {name}.messages (\
             conversation blob, bucket bigint, seq bigint, head bigint STATIC, \
             sender text, device text, client_msg_id text, time_ms bigint, \
             content_type text, payload blob, \
             PRIMARY KEY ((conversation, bucket), seq)) \
             WITH {COMPACTION} AND {GC_GRACE}"
        ),
        // A hint where to look for a head.
        format!(
            "CREATE TABLE IF NOT EXISTS {name}.heads (\
             conversation blob PRIMARY KEY, head bigint) WITH {COMPACTION} AND {GC_GRACE}"
        ),
        // Registers: each column is written with its own value as its timestamp.
        format!(
            "CREATE TABLE IF NOT EXISTS {name}.cursors (\
             user text, conversation blob, delivered bigint, read bigint, \
             PRIMARY KEY ((user), conversation)) WITH {COMPACTION} AND {GC_GRACE}"
        ),
        // Who is in a conversation, in the order in which they were named. Only ever written by
        // one conditional batch, so the first list stands.
        format!(
            "CREATE TABLE IF NOT EXISTS {name}.members (\
             conversation blob, place int, user text, \
             PRIMARY KEY ((conversation), place)) WITH {COMPACTION} AND {GC_GRACE}"
        ),
        // In which conversations a user is.
        format!(
            "CREATE TABLE IF NOT EXISTS {name}.conversations (\
             user text, conversation blob, \
             PRIMARY KEY ((user), conversation)) WITH {COMPACTION} AND {GC_GRACE}"
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_follow_one_another() {
        let versions: Vec<_> = MIGRATIONS.iter().map(|migration| migration.version).collect();
        assert_eq!(versions, (1..=LATEST).collect::<Vec<_>>());
    }

    #[test]
    fn every_statement_can_be_repeated() {
        for kind in [ServerKind::Cassandra, ServerKind::ScyllaDb] {
            for text in super::super::statements(kind, "skein", &SchemaOptions::default()) {
                assert!(text.contains(" IF NOT EXISTS "), "{text}");
                assert!(!text.contains("  "), "{text}");
            }
        }
    }

    #[test]
    fn what_only_one_server_knows_goes_to_that_one() {
        let of =
            |kind| super::super::statements(kind, "skein", &SchemaOptions::default()).join(";");
        assert!(of(ServerKind::ScyllaDb).contains("tablets"));
        assert!(!of(ServerKind::Cassandra).contains("tablets"));
    }
}
