//! One program at a time changes the schema.
//!
//! The lock is version 0 of `schema_versions`, a row that goes away by itself when its holder
//! does not renew it. Statements can be repeated, so a holder that was slower than its lock harms
//! nothing: the lock spares servers that settle changes of the schema between themselves two
//! tables of one name made at once.

use std::time::Duration;

use scylla::client::session::Session;

use super::super::connect::Quorum;
use super::options::SchemaError;
use super::request::{self, Conditional, Patience};

/// Seconds after which a holder that says nothing is taken for dead.
const LEASE_SECONDS: i32 = 20;

/// How often a holder says that it lives: some of it may be lost.
const RENEWAL: Duration = Duration::from_secs(4);

/// How often it is tried, a second apart: long enough for another one to make all tables.
const ATTEMPTS: u32 = 120;

/// The lock, held.
pub(super) struct Lock<'a> {
    session: &'a Session,
    quorum: Quorum,
    keyspace: &'a str,
    holder: String,
}

impl<'a> Lock<'a> {
    pub(super) async fn take(
        session: &'a Session,
        quorum: Quorum,
        keyspace: &'a str,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Self, SchemaError> {
        // The number tells two holders of one process apart.
        let holder = format!("process {} ({:08x})", std::process::id(), rand::random::<u32>());
        let lock = Self { session, quorum, keyspace, holder };
        let text = format!(
            "INSERT INTO {keyspace}.schema_versions (version, applied_by) VALUES (0, ?) \
             IF NOT EXISTS USING TTL {LEASE_SECONDS}"
        );
        let mut other = String::new();
        for attempt in 0..ATTEMPTS {
            let what = "take the lock of the schema";
            match request::conditional(session, quorum, what, &text, (&lock.holder,)).await? {
                Conditional::Applied => return Ok(lock),
                Conditional::Not => {}
            }
            // An attempt whose answer was lost may have taken it.
            other = lock.holder_now().await?;
            if other == lock.holder {
                return Ok(lock);
            }
            if attempt == 0 {
                progress(&format!("waiting for {other}, which is applying the schema"));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(SchemaError::Busy { holder: other })
    }

    async fn holder_now(&self) -> Result<String, SchemaError> {
        let keyspace = self.keyspace;
        let text = format!("SELECT applied_by FROM {keyspace}.schema_versions WHERE version = 0");
        let rows: Vec<(Option<String>,)> = request::rows(
            self.session,
            self.quorum.serial_read,
            Patience::LONG,
            "read the lock",
            &text,
            (),
        )
        .await?;
        Ok(rows.into_iter().find_map(|(holder,)| holder).unwrap_or_default())
    }

    /// Does something, and holds the lock meanwhile.
    ///
    /// # Errors
    /// Also when the lock was lost.
    pub(super) async fn hold<T>(
        &self,
        work: impl Future<Output = Result<T, SchemaError>>,
    ) -> Result<T, SchemaError> {
        self.renew().await?;
        tokio::pin!(work);
        loop {
            match tokio::time::timeout(RENEWAL, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.renew().await?,
            }
        }
    }

    /// Holds it for another lease.
    async fn renew(&self) -> Result<(), SchemaError> {
        let text = format!(
            "UPDATE {}.schema_versions USING TTL {LEASE_SECONDS} SET applied_by = ? \
             WHERE version = 0 IF applied_by = ?",
            self.keyspace
        );
        let values = (&self.holder, &self.holder);
        let what = "hold the lock of the schema";
        match request::conditional(self.session, self.quorum, what, &text, values).await? {
            Conditional::Applied => Ok(()),
            Conditional::Not => Err(SchemaError::Busy { holder: self.holder_now().await? }),
        }
    }

    /// Lets go. If that fails the lease ends by itself.
    pub(super) async fn release(self) {
        let text = format!(
            "DELETE FROM {}.schema_versions WHERE version = 0 IF applied_by = ?",
            self.keyspace
        );
        let what = "release the lock of the schema";
        let done =
            request::conditional(self.session, self.quorum, what, &text, (&self.holder,)).await;
        if let Err(error) = done {
            tracing::debug!(%error, "the lock of the schema was left to end by itself");
        }
    }
}
