//! Several threads at once. Each takes what it needs of a store and runs on its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use skein_protocol::Seq;
use tokio::task::JoinSet;

use super::Factory;
use super::support::*;
use crate::{AppendError, CursorPair, Direction, Store};

const THREADS: u64 = 4;

/// Rivals for one log: each number has one winner, and every loser is told a head that explains
/// its loss.
pub async fn one_append_wins_each_number(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    let mut rivals = JoinSet::new();
    for rival in 0..THREADS {
        let store = store.clone();
        rivals.spawn(async move {
            let name = format!("rival-{rival}");
            let (mut won, mut next): (Vec<Seq>, Seq) = (Vec::new(), 1);
            while won.len() < 50 {
                match outcome(&store, append(c, next, 1, &name)).await {
                    Ok(()) => {
                        won.push(next);
                        next += 1;
                    }
                    Err(AppendError::Conflict { head }) => {
                        assert!(head >= next, "{next} was free, the head is {head}");
                        next = head + 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            (name, won)
        });
    }
    let mut winners = std::collections::BTreeMap::new();
    for (name, won) in rivals.join_all().await {
        for seq in won {
            assert_eq!(winners.insert(seq, name.clone()), None, "{seq} was won twice");
        }
    }
    let read = ok(store.read(c, 1..=u64::MAX, Direction::Forward, ALL).await);
    assert_eq!(seqs(&read), (1..=50 * THREADS).collect::<Vec<_>>());
    for record in &read {
        assert_eq!(*record, message(c, record.seq, &winners[&record.seq]));
    }
}

/// Threads that stay out of each other's way all get through.
pub async fn threads_with_conversations_of_their_own(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let mut threads = JoinSet::new();
    for thread in 0..THREADS {
        let store = store.clone();
        threads.spawn(async move {
            for round in 0..20 {
                let ids = (0..5).map(|n| conversation(100 * thread + n));
                let group = ids.map(|c| append(c, 2 * round + 1, 2, "a")).collect();
                assert!(outcomes(&store, group).await.iter().all(Result::is_ok));
            }
        });
    }
    threads.join_all().await;
    for thread in 0..THREADS {
        for n in 0..5 {
            let c = conversation(100 * thread + n);
            let read = ok(store.read(c, 1..=u64::MAX, Direction::Forward, ALL).await);
            assert_eq!(read, append(c, 1, 40, "a").records);
        }
    }
}

/// Registers end at the highest value whoever writes it, and never fall on the way.
pub async fn cursors_rise_under_concurrency(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let (alice, c) = (user("alice"), conversation(1));
    let mut threads = JoinSet::new();
    for thread in 0..THREADS {
        let (store, alice) = (store.clone(), alice.clone());
        threads.spawn(async move {
            let mut before = CursorPair::default();
            for step in 0..50 {
                // Up and down, but on the whole up; each thread on a course of its own.
                let seq = step + 7 * ((step * (thread + 3)) % 5);
                ok(store.advance(vec![to(&alice, c, seq, seq / 2)]).await);
                let now = ok(store.cursors(alice.clone(), c).await);
                assert!(now.delivered >= before.delivered.max(seq), "{now:?} {before:?} {seq}");
                assert!(now.read >= before.read.max(seq / 2), "{now:?} {before:?} {seq}");
                before = now;
            }
        });
    }
    threads.join_all().await;
    let highest = (0..THREADS)
        .flat_map(|thread| (0..50).map(move |step| step + 7 * ((step * (thread + 3)) % 5)))
        .max()
        .unwrap_or(0);
    let want = CursorPair { delivered: highest, read: highest / 2 };
    assert_eq!(ok(store.cursors(alice, c).await), want);
}

/// Many begin the same conversation at once; it begins once.
pub async fn begin_under_concurrency(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let mut threads = JoinSet::new();
    for thread in 0..THREADS {
        let store = store.clone();
        threads.spawn(async move {
            for n in 0..20 {
                let members = vec![user("alice"), user(&format!("by-{thread}"))];
                ok(store.begin(conversation(n), members).await);
            }
        });
    }
    threads.join_all().await;
    let all: Vec<_> = (0..20).map(conversation).collect();
    assert_eq!(ok(store.conversations(user("alice"), None, 100).await), all);
    for c in all {
        let Some(members) = ok(store.members(c).await) else { panic!("{c} never began") };
        for thread in 0..THREADS {
            let name = user(&format!("by-{thread}"));
            let listed = ok(store.conversations(name.clone(), None, 100).await).contains(&c);
            assert_eq!(listed, members.contains(&name), "index and members disagree on {c}");
        }
    }
}

/// While appends of several records go in, readers see each of them whole or not at all.
pub async fn what_is_read_was_never_half_written(factory: &dyn Factory) {
    const RECORDS: u64 = 7;
    let instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for _ in 0..2 {
        let (store, done): (Arc<dyn Store>, _) = (store.clone(), done.clone());
        readers.spawn(async move {
            let mut seen = 0;
            while !done.load(SeqCst) {
                let head = head(&store, c).await;
                assert_eq!(head % RECORDS, 0, "a part of an append can be seen");
                assert!(head >= seen, "the head fell from {seen} to {head}");
                let read = ok(store.read(c, 1..=u64::MAX, Direction::Backward, ALL).await);
                assert_eq!(read.len() as u64 % RECORDS, 0, "a part of an append can be read");
                assert!(read.len() as u64 >= head, "less can be read than the head says");
                seen = head;
                tokio::task::yield_now().await;
            }
        });
    }
    for n in 0..60 {
        fill(&store, c, n * RECORDS, RECORDS).await;
    }
    done.store(true, SeqCst);
    readers.join_all().await;
}
