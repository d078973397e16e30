//! The store in memory passes the suite.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use futures_util::future::BoxFuture;
use skein_storage::Store;
use skein_storage::conformance::{Factory, Instance, Reopen};
use skein_storage::memory::MemoryStore;

struct Memory;

impl Factory for Memory {
    fn create(&self) -> BoxFuture<'_, Box<dyn Instance>> {
        Box::pin(async { Box::new(InMemory(Arc::new(MemoryStore::new()))) as Box<dyn Instance> })
    }
}

struct InMemory(Arc<MemoryStore>);

impl Instance for InMemory {
    fn store(&self) -> Arc<dyn Store> {
        self.0.clone()
    }

    fn reopen(&mut self, how: Reopen) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if how == Reopen::Closed {
                self.0.close().await.unwrap();
            }
            self.0.crash();
        })
    }
}

skein_storage::conformance_tests!(Memory);
