//! Where tests keep their stores: keyspaces of one server, each with a name of its own, dropped in
//! the end.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use skein_storage::scylla::schema::{self, Replication, SchemaOptions};
use skein_storage::scylla::{ScyllaOptions, ScyllaStore};

/// Numbers in a bucket where tests are to meet edges.
pub const SMALL: u64 = 64;

/// Numbers in a bucket as delivered.
pub const AS_DELIVERED: u64 = 16_384;

/// The server, and what was made there.
pub struct Place {
    nodes: Vec<SocketAddr>,
    made: Mutex<Vec<String>>,
    /// Those of them that nobody uses any more: tables take memory of the server.
    over: Mutex<Vec<String>>,
    /// Held while the schema is changed: a server of one small JVM gets slower, not faster, by
    /// several changes at once.
    pub changes: tokio::sync::Mutex<()>,
}

impl Place {
    pub fn new(nodes: Vec<SocketAddr>) -> Self {
        Self {
            nodes,
            made: Mutex::default(),
            over: Mutex::default(),
            changes: tokio::sync::Mutex::default(),
        }
    }

    /// Options for a keyspace that is not there yet.
    pub fn new_keyspace(&self) -> ScyllaOptions {
        let keyspace = format!("test_{:016x}", rand::random::<u64>());
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(keyspace.clone());
        let nodes = self.nodes.iter().map(ToString::to_string).collect();
        ScyllaOptions {
            // Busy machines are no errors.
            connect_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(60),
            wait: Duration::from_secs(60),
            ..ScyllaOptions::new(nodes, keyspace)
        }
    }

    /// A keyspace with a schema.
    pub async fn with_schema(&self, bucket_rows: u64) -> ScyllaOptions {
        let options = self.new_keyspace();
        let _one_at_a_time = self.changes.lock().await;
        self.drop_all(&self.over).await;
        schema::apply(&options, &schema_options(bucket_rows), &mut |_| {}).await.unwrap();
        options
    }

    /// A keyspace that can go.
    pub fn is_over(&self, keyspace: &str) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).retain(|it| it != keyspace);
        self.over.lock().unwrap_or_else(PoisonError::into_inner).push(keyspace.to_owned());
    }

    /// A session of the driver's, to look behind the store.
    pub async fn session(&self) -> Session {
        let nodes = SessionBuilder::new().known_nodes_addr(&self.nodes);
        nodes.fetch_schema_metadata(false).build().await.unwrap()
    }

    /// Drops all keyspaces.
    pub fn tidy(&self) {
        if self.nodes.is_empty() {
            return;
        }
        block_on(async {
            self.drop_all(&self.over).await;
            self.drop_all(&self.made).await;
        });
    }

    async fn drop_all(&self, keyspaces: &Mutex<Vec<String>>) {
        let all = std::mem::take(&mut *keyspaces.lock().unwrap_or_else(PoisonError::into_inner));
        if all.is_empty() {
            return;
        }
        let session = self.session().await;
        for keyspace in all {
            let text = format!("DROP KEYSPACE IF EXISTS {keyspace}");
            if let Err(error) = session.query_unpaged(text, ()).await {
                eprintln!("keyspace {keyspace} stays: {error}");
            }
        }
    }
}

pub fn schema_options(bucket_rows: u64) -> SchemaOptions {
    SchemaOptions { replication: Replication::EachDataCentre(1), bucket_rows }
}

pub async fn open(options: &ScyllaOptions) -> ScyllaStore {
    ScyllaStore::open(options.clone()).await.unwrap()
}

pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test)
}
