//! What sessions are held to and may be changed while the gateway runs.
//!
//! The [`Hub`](crate::hub::Hub) holds one set of it for everybody. A change puts another set in its
//! place, whole: nobody ever sees half of one. Shards look once a turn, so that a turn goes by one
//! set from beginning to end.

use std::sync::Arc;
use std::time::Duration;

use skein_protocol::server::Rules;

use crate::auth::Verifier;

/// One set of settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What peers may say, and when.
    pub rules: Rules,
    /// What sessions may hold.
    pub limits: SessionLimits,
    /// Who may log in.
    pub verifier: Arc<Verifier>,
}

/// Bounds of what a session may hold.
#[derive(Debug, Clone)]
pub struct SessionLimits {
    /// Sessions of the whole gateway.
    pub max_sessions: usize,
    /// Pushes beyond this many bytes in a session's outbox are left out.
    pub push_bytes: usize,
    /// A shard whose outboxes hold more than this many bytes together treats each of them that is
    /// not empty as full.
    pub shard_outbox_bytes: usize,
    /// A session that is behind for this long is closed.
    pub slow_consumer_timeout: Duration,
}
