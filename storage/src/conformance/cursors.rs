//! Registers whose highest value wins.

use super::support::*;
use super::{Factory, Reopen};
use crate::CursorPair;

/// Nothing stored reads as zero.
pub async fn cursors_start_at_zero(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let (alice, c) = (user("alice"), conversation(1));
    assert_eq!(ok(store.cursors(alice.clone(), c).await), CursorPair::default());
    ok(store.advance(Vec::new()).await);
    ok(store.advance(vec![to(&alice, c, 0, 0)]).await);
    assert_eq!(ok(store.cursors(alice, c).await), CursorPair::default());
}

/// Each register keeps its highest value, in whatever order values come; zero leaves it alone.
pub async fn cursors_only_rise(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let (alice, c) = (user("alice"), conversation(1));
    let steps = [((5, 0), (5, 0)), ((3, 4), (5, 4)), ((0, 2), (5, 4)), ((9, 9), (9, 9))];
    for ((delivered, read), want) in steps {
        ok(store.advance(vec![to(&alice, c, delivered, read)]).await);
        let now = ok(store.cursors(alice.clone(), c).await);
        assert_eq!((now.delivered, now.read), want);
    }
    // Several values for one register in one call.
    let many = [20, 12, 30, 7].map(|seq| to(&alice, c, seq, seq + 1)).to_vec();
    ok(store.advance(many).await);
    let want = CursorPair { delivered: 30, read: 31 };
    assert_eq!(ok(store.cursors(alice, c).await), want);
}

/// A cursor belongs to one user in one conversation.
pub async fn cursors_of_others_are_apart(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let users = ["a", "ab", "abc"].map(user);
    let mut updates = Vec::new();
    for (u, user) in (1..).zip(&users) {
        updates.extend((1..=3).map(|c| to(user, conversation(c), 10 * u + c, u)));
    }
    ok(store.advance(updates).await);
    for (u, user) in (1..).zip(&users) {
        for c in 1..=3 {
            let want = CursorPair { delivered: 10 * u + c, read: u };
            assert_eq!(ok(store.cursors(user.clone(), conversation(c)).await), want);
        }
    }
}

/// A store that is closed in good order keeps the last values.
pub async fn cursors_survive_closing(factory: &dyn Factory) {
    let mut instance = factory.create().await;
    let (alice, c) = (user("alice"), conversation(1));
    for seq in 1..=3 {
        ok(instance.store().advance(vec![to(&alice, c, seq, seq)]).await);
        instance.reopen(Reopen::Closed).await;
        let now = ok(instance.store().cursors(alice.clone(), c).await);
        assert_eq!(now, CursorPair { delivered: seq, read: seq });
    }
}
