//! Closing, dying, opening again.

use super::support::*;
use super::{Factory, Reopen};
use crate::{Direction, StoreError};

/// What was acknowledged is there after every kind of end.
pub async fn acknowledged_messages_survive(factory: &dyn Factory) {
    let mut instance = factory.create().await;
    let c = conversation(1);
    let ends = [Reopen::Killed, Reopen::Closed, Reopen::Killed, Reopen::Killed, Reopen::Closed];
    for (n, how) in (0..).zip(ends) {
        fill(&instance.store(), c, 10 * n, 10).await;
        instance.reopen(how).await;
        let read = ok(instance.store().read(c, 1..=u64::MAX, Direction::Forward, ALL).await);
        assert_eq!(read, append(c, 1, 10 * (n + 1), "filler").records, "after {how:?}");
    }
}

/// The head is known after reopening, to appends as well as to reads.
pub async fn numbering_goes_on_after_reopening(factory: &dyn Factory) {
    let mut instance = factory.create().await;
    let c = conversation(1);
    fill(&instance.store(), c, 0, 3).await;
    for (head_before, how) in [(3, Reopen::Killed), (4, Reopen::Closed)] {
        instance.reopen(how).await;
        let store = instance.store();
        let stale = outcome(&store, append(c, 1, 1, "late")).await;
        assert_eq!(stale, Err(crate::AppendError::Conflict { head: head_before }), "{how:?}");
        fill(&store, c, head_before, 1).await;
        assert_eq!(head(&store, c).await, head_before + 1);
    }
}

/// A log that goes on keeps its epoch.
pub async fn the_epoch_stays(factory: &dyn Factory) {
    let mut instance = factory.create().await;
    let epoch = instance.store().epoch();
    for how in [Reopen::Closed, Reopen::Killed] {
        instance.reopen(how).await;
        assert_eq!(instance.store().epoch(), epoch, "after {how:?}");
    }
}

/// After `close` every call says that the store has stopped; closing again is harmless.
pub async fn a_closed_store_refuses(factory: &dyn Factory) {
    let mut instance = factory.create().await;
    let store = instance.store();
    let (c, alice) = (conversation(1), user("alice"));
    fill(&store, c, 0, 1).await;
    ok(store.close().await);
    let stopped = |error| matches!(error, Some(StoreError::Stopped(_)));
    let appended = outcome(&store, append(c, 2, 1, "a")).await;
    let Err(crate::AppendError::Store(StoreError::Stopped(_))) = appended else {
        panic!("an append after close: {appended:?}")
    };
    assert!(stopped(store.begin(c, vec![alice.clone()]).await.err()));
    assert!(stopped(store.advance(vec![to(&alice, c, 1, 1)]).await.err()));
    assert!(stopped(store.extent(c).await.err()));
    assert!(stopped(store.read(c, 1..=1, Direction::Forward, ALL).await.err()));
    assert!(stopped(store.cursors(alice.clone(), c).await.err()));
    assert!(stopped(store.members(c).await.err()));
    assert!(stopped(store.conversations(alice, None, 1).await.err()));
    ok(store.close().await);
    drop(store);
    instance.reopen(Reopen::Closed).await;
    assert_eq!(head(&instance.store(), c).await, 1);
}

/// What was submitted before `close` is answered and kept.
pub async fn closing_finishes_what_was_submitted(factory: &dyn Factory) {
    let mut instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    let under_way: Vec<_> =
        (1..=50).map(|seq| submit(&store, vec![append(c, seq, 1, "filler")])).collect();
    ok(store.close().await);
    for outcome in futures_util::future::join_all(under_way).await {
        assert_eq!(outcome, [Ok(())]);
    }
    drop(store);
    instance.reopen(Reopen::Closed).await;
    assert_eq!(head(&instance.store(), c).await, 50);
}
