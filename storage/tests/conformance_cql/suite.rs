//! The suite that every backend passes, in small buckets and as delivered.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use libtest_mimic::Trial;
use skein_storage::Store;
use skein_storage::conformance::{self, Factory, Instance, Reopen};
use skein_storage::scylla::{ScyllaOptions, ScyllaStore};

use super::place::{self, AS_DELIVERED, Place, SMALL};

pub fn trials(place: &'static Place) -> Vec<Trial> {
    let layouts = [("small_buckets", SMALL), ("as_delivered", AS_DELIVERED)];
    let all = layouts.into_iter().flat_map(|(layout, bucket_rows)| {
        // Only the log has buckets.
        let behaviours = conformance::behaviours().into_iter().filter(move |(name, _)| {
            bucket_rows == SMALL || !BESIDE_THE_LOG.iter().any(|part| name.contains(part))
        });
        behaviours.map(move |(name, check)| {
            Trial::test(format!("{layout}::{name}"), move || {
                check(&Keyspaces { place, bucket_rows });
                Ok(())
            })
        })
    });
    all.collect()
}

/// What behaviours of the other tables have in their names.
const BESIDE_THE_LOG: [&str; 4] = ["cursors", "conversations_are", "begin", "members"];

/// Each store has a keyspace of its own.
struct Keyspaces {
    place: &'static Place,
    bucket_rows: u64,
}

impl Factory for Keyspaces {
    fn create(&self) -> BoxFuture<'_, Box<dyn Instance>> {
        Box::pin(async {
            let options = self.place.with_schema(self.bucket_rows).await;
            let store = Some(Arc::new(place::open(&options).await));
            Box::new(InKeyspace { place: self.place, store, options }) as Box<dyn Instance>
        })
    }
}

struct InKeyspace {
    place: &'static Place,
    store: Option<Arc<ScyllaStore>>,
    options: ScyllaOptions,
}

impl Drop for InKeyspace {
    fn drop(&mut self) {
        self.place.is_over(&self.options.keyspace);
    }
}

impl Instance for InKeyspace {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().unwrap()
    }

    fn reopen(&mut self, how: Reopen) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let store = self.store.take().unwrap();
            if how == Reopen::Closed {
                store.close().await.unwrap();
            }
            // What a process killed now leaves behind is what the cluster has.
            drop(store);
            self.store = Some(Arc::new(place::open(&self.options).await));
        })
    }
}
