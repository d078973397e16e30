//! From options to a session of the driver.

use std::sync::Arc;
use std::time::Duration;

use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::statement::{Consistency, SerialConsistency};

use super::errors;
use super::options::{ConnectError, ScyllaOptions};
use super::tls;

/// Silence after which a connection is asked for a sign of life, and how long it may take to give
/// one. A node that vanished without closing its connections is noticed after both.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// After this time a request that can be repeated is put to a second node as well, once. A node
/// that hangs with its connections open is so got round.
const SECOND_OPINION: Duration = Duration::from_secs(1);

/// Longest time for all nodes to agree on a change of the schema.
const SCHEMA_AGREEMENT: Duration = Duration::from_secs(60);

/// Whose majority decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quorum {
    /// Of plain reads and writes, and of the commit of a conditional one.
    pub(super) plain: Consistency,
    /// Of the decision of a conditional write.
    pub(super) serial: SerialConsistency,
    /// Of a read that first finishes what is being decided.
    pub(super) serial_read: Consistency,
    /// One replica, near if there is a choice: for hints, which may be wrong.
    pub(super) one: Consistency,
}

impl Quorum {
    pub(super) fn of(options: &ScyllaOptions) -> Self {
        if options.data_centre.is_some() {
            Self {
                plain: Consistency::LocalQuorum,
                serial: SerialConsistency::LocalSerial,
                serial_read: Consistency::LocalSerial,
                one: Consistency::LocalOne,
            }
        } else {
            Self {
                plain: Consistency::Quorum,
                serial: SerialConsistency::Serial,
                serial_read: Consistency::Serial,
                one: Consistency::One,
            }
        }
    }
}

/// Opens a session and sees that the data centre is there.
pub(super) async fn connect(options: &ScyllaOptions) -> Result<Session, ConnectError> {
    options.check().map_err(ConnectError::Option)?;
    let quorum = Quorum::of(options);
    let mut policy = DefaultPolicy::builder().token_aware(true);
    if let Some(data_centre) = &options.data_centre {
        // Another data centre could not form our majority anyway.
        policy = policy.prefer_datacenter(data_centre.clone()).permit_dc_failover(false);
    }
    // The driver repeats what is marked as idempotent, and nothing else.
    let profile = ExecutionProfile::builder()
        .consistency(quorum.plain)
        .serial_consistency(Some(quorum.serial))
        .request_timeout(Some(options.request_timeout))
        .load_balancing_policy(policy.build())
        .speculative_execution_policy(Some(Arc::new(SimpleSpeculativeExecutionPolicy {
            max_retry_count: 1,
            retry_interval: SECOND_OPINION,
        })))
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(options.contact_points.iter().map(|point| point.trim()))
        .default_execution_profile_handle(profile.into_handle())
        .connection_timeout(options.connect_timeout)
        .hostname_resolution_timeout(Some(options.connect_timeout))
        .pool_size(PoolSize::default())
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE)
        // Routing needs no more than the names of our tables.
        .keyspaces_to_fetch([options.keyspace.as_str()])
        .fetch_full_schema_metadata(false)
        .schema_agreement_timeout(SCHEMA_AGREEMENT)
        // Whoever changes the schema asks no table whose place must be known.
        .refresh_metadata_on_auto_schema_agreement(false);
    if let Some(credentials) = &options.credentials {
        builder = builder.user(&credentials.user, &credentials.password);
    }
    if let Some(tls) = &options.tls {
        builder = builder.tls_context(Some(tls::client_config(tls)?));
    }
    let session = builder.build().await.map_err(|error| errors::connecting(&error, options))?;
    check_data_centre(&session, options)?;
    Ok(session)
}

fn check_data_centre(session: &Session, options: &ScyllaOptions) -> Result<(), ConnectError> {
    let Some(wanted) = &options.data_centre else { return Ok(()) };
    let state = session.get_cluster_state();
    let mut found: Vec<_> =
        state.get_nodes_info().iter().filter_map(|node| node.datacenter.clone()).collect();
    found.sort();
    found.dedup();
    if found.contains(wanted) {
        return Ok(());
    }
    Err(ConnectError::NoSuchDataCentre { wanted: wanted.clone(), found })
}
