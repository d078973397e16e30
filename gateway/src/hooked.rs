//! A store around another one, for those who change some of what it does: planted bugs, and tests
//! that make it slow or let it fail.

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use skein_protocol::{ConversationId, Seq, UserId};
use skein_storage::{
    Append, AppendSink, ConversationIndex, CursorPair, CursorUpdate, Cursors, Direction, Extent,
    MessageLog, MetricsVisitor, Page, Record, Store, StoreError, View,
};

/// What is changed; by itself nothing is.
pub trait Hooks: Send + Sync + 'static {
    /// In the place of [`MessageLog::submit`].
    fn submit(&self, store: &Arc<dyn Store>, group: Vec<Append>, done: Arc<dyn AppendSink>) {
        store.submit(group, done);
    }

    /// Around every request but those that append, raise cursors or close. The store is asked when
    /// the given future is polled first.
    fn around<'a, T: Send + 'a>(
        &'a self,
        request: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        request
    }

    /// What a read of this page brings.
    fn records(&self, records: Vec<Record>, _page: Page) -> Vec<Record> {
        records
    }

    /// Cursors on their way to the store.
    fn updates(&self, updates: Vec<CursorUpdate>) -> Vec<CursorUpdate> {
        updates
    }

    /// Whether the store takes these cursors.
    ///
    /// # Errors
    /// What it says instead.
    fn takes_cursors(&self, _updates: &[CursorUpdate]) -> Result<(), StoreError> {
        Ok(())
    }

    /// Members with whom a conversation begins.
    fn members(&self, members: Vec<UserId>) -> Vec<UserId> {
        members
    }

    /// Conversations of a user.
    fn conversations(&self, listed: Vec<ConversationId>) -> Vec<ConversationId> {
        listed
    }
}

/// The store with the changes.
pub struct Hooked<H> {
    /// What is changed.
    pub hooks: H,
    /// The store as it is.
    pub store: Arc<dyn Store>,
}

impl<H: Hooks> MessageLog for Hooked<H> {
    fn submit(&self, group: Vec<Append>, done: Arc<dyn AppendSink>) {
        self.hooks.submit(&self.store, group, done);
    }

    fn extent(&self, id: ConversationId) -> BoxFuture<'_, Result<Extent, StoreError>> {
        self.hooks.around(Box::pin(async move { self.store.extent(id).await }))
    }

    fn read(
        &self,
        id: ConversationId,
        range: RangeInclusive<Seq>,
        direction: Direction,
        page: Page,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        let read = async move { self.store.read(id, range, direction, page).await };
        let read = self.hooks.around(Box::pin(read));
        Box::pin(async move { Ok(self.hooks.records(read.await?, page)) })
    }

    fn look(&self, id: ConversationId, known: Seq) -> BoxFuture<'_, Result<Extent, StoreError>> {
        self.hooks.around(Box::pin(async move { self.store.look(id, known).await }))
    }

    fn view(
        &self,
        id: ConversationId,
        range: RangeInclusive<Seq>,
        direction: Direction,
        page: Page,
        known: Seq,
    ) -> BoxFuture<'_, Result<View, StoreError>> {
        let view = async move { self.store.view(id, range, direction, page, known).await };
        let view = self.hooks.around(Box::pin(view));
        Box::pin(async move {
            let View { extent, records } = view.await?;
            Ok(View { extent, records: self.hooks.records(records, page) })
        })
    }
}

impl<H: Hooks> Cursors for Hooked<H> {
    fn advance(&self, updates: Vec<CursorUpdate>) -> BoxFuture<'_, Result<(), StoreError>> {
        match self.hooks.takes_cursors(&updates) {
            Ok(()) => self.store.advance(self.hooks.updates(updates)),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn cursors(
        &self,
        user: UserId,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<CursorPair, StoreError>> {
        self.hooks.around(Box::pin(async move { self.store.cursors(user, id).await }))
    }
}

impl<H: Hooks> ConversationIndex for Hooked<H> {
    fn begin(
        &self,
        id: ConversationId,
        members: Vec<UserId>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let members = self.hooks.members(members);
        self.hooks.around(Box::pin(async move { self.store.begin(id, members).await }))
    }

    fn members(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<Option<Vec<UserId>>, StoreError>> {
        self.hooks.around(Box::pin(async move { self.store.members(id).await }))
    }

    fn conversations(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ConversationId>, StoreError>> {
        let read = async move { self.store.conversations(user, after, limit).await };
        let read = self.hooks.around(Box::pin(read));
        Box::pin(async move { Ok(self.hooks.conversations(read.await?)) })
    }
}

impl<H: Hooks> Store for Hooked<H> {
    fn epoch(&self) -> u64 {
        self.store.epoch()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.close()
    }

    fn visit_metrics(&self, visitor: &mut dyn MetricsVisitor) {
        self.store.visit_metrics(visitor);
    }
}
