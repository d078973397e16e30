//! Who talks where.

use skein_protocol::ConversationId;

use super::support::*;
use super::{Factory, Reopen};

/// A conversation is found from each member, and its members from it.
pub async fn conversations_are_listed(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let (ab, ac, alone) = (conversation(2), conversation(1), conversation(3));
    assert_eq!(ok(store.members(ab).await), None);
    ok(store.begin(ab, vec![alice.clone(), bob.clone()]).await);
    ok(store.begin(ac, vec![carol.clone(), alice.clone()]).await);
    // A user may talk to themselves.
    ok(store.begin(alone, vec![alice.clone(), alice.clone()]).await);
    assert_eq!(ok(store.members(ab).await), Some(vec![alice.clone(), bob.clone()]));
    assert_eq!(ok(store.members(ac).await), Some(vec![carol.clone(), alice.clone()]));
    assert_eq!(ok(store.conversations(alice, None, 10).await), [ac, ab, alone]);
    assert_eq!(ok(store.conversations(bob, None, 10).await), [ab]);
    assert_eq!(ok(store.conversations(carol, None, 10).await), [ac]);
    assert_eq!(ok(store.conversations(user("dave"), None, 10).await), []);
}

/// Pages follow one another in the order of ids, wherever the last one ended.
pub async fn conversations_are_paged(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let alice = user("alice");
    // Begun out of order; only even numbers exist.
    for n in [8, 2, 20, 4, 16, 6, 10, 14, 12, 18] {
        ok(store.begin(conversation(n), vec![alice.clone(), user("bob")]).await);
    }
    let even = |range: std::ops::RangeInclusive<u64>| -> Vec<ConversationId> {
        range.filter(|n| n % 2 == 0).map(conversation).collect()
    };
    let mut met = Vec::new();
    loop {
        let page = ok(store.conversations(alice.clone(), met.last().copied(), 3).await);
        if page.is_empty() {
            break;
        }
        met.extend(page);
    }
    assert_eq!(met, even(1..=20));
    // After one that is not in the list, and after the end.
    let after = |n| store.conversations(alice.clone(), Some(conversation(n)), 100);
    assert_eq!(ok(after(7).await), even(8..=20));
    assert_eq!(ok(after(20).await), []);
    assert_eq!(ok(after(u64::MAX).await), []);
    assert_eq!(ok(store.conversations(alice, None, 0).await), []);
}

/// The first beginning counts.
pub async fn beginning_again_changes_nothing(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let (alice, bob) = (user("alice"), user("bob"));
    let c = conversation(1);
    for members in [["alice", "bob"], ["alice", "bob"], ["bob", "mallory"]] {
        ok(store.begin(c, members.map(user).to_vec()).await);
    }
    assert_eq!(ok(store.members(c).await), Some(vec![alice.clone(), bob]));
    assert_eq!(ok(store.conversations(alice, None, 10).await), [c]);
    assert_eq!(ok(store.conversations(user("mallory"), None, 10).await), []);
}

/// A name that is the beginning of another one has an index of its own.
pub async fn members_of_similar_names_are_apart(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let longest = "x".repeat(64);
    let names = ["a", "ab", "a b", "A", "b", "\u{e4}", &longest, &longest[..63]];
    for (n, name) in (1..).zip(names) {
        ok(store.begin(conversation(n), vec![user(name)]).await);
    }
    for (n, name) in (1..).zip(names) {
        assert_eq!(ok(store.conversations(user(name), None, 10).await), [conversation(n)]);
    }
}

/// A beginning is durable when it resolves.
pub async fn beginnings_survive(factory: &dyn Factory) {
    let mut instance = factory.create().await;
    let alice = user("alice");
    for (n, how) in [(1, Reopen::Killed), (2, Reopen::Closed)] {
        ok(instance.store().begin(conversation(n), vec![alice.clone()]).await);
        instance.reopen(how).await;
        let store = instance.store();
        let want: Vec<_> = (1..=n).map(conversation).collect();
        assert_eq!(ok(store.conversations(alice.clone(), None, 10).await), want, "{how:?}");
        assert_eq!(ok(store.members(conversation(n)).await), Some(vec![alice.clone()]));
    }
}
