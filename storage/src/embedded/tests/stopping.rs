//! After a failed write the store stands still; short of space it waits.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;

use super::support::*;
use crate::embedded::{EmbeddedOptions, EmbeddedStore};
use crate::{
    AppendError, ConversationIndex, CursorPair, CursorUpdate, Cursors, MessageLog, Store,
    StoreError,
};

fn is_stopped(error: &StoreError) -> bool {
    matches!(error, StoreError::Stopped(reason) if reason.contains("a planted fault"))
}

#[test]
fn a_failed_commit_stops_all_writes_and_no_reads() {
    let folder = tempfile::tempdir().unwrap();
    let options = options();
    let faults = options.faults.clone();
    let store = EmbeddedStore::open(folder.path(), options).unwrap();
    let (c, d, alice) = (conversation(1), conversation(2), user("alice"));
    assert_eq!(append_now(&store, append(c, 1, 2, "good")), Ok(()));
    faults.fail_commit.store(true, Relaxed);
    let (sink, told) = tell();
    // Good ones and a conflict, in several groups: all of them rested on the commit.
    store.submit(vec![append(c, 3, 1, "bad"), append(c, 9, 1, "bad")], sink.clone());
    store.submit(vec![append(d, 1, 1, "bad")], sink);
    for (_, outcome) in told.iter().take(3) {
        match outcome {
            Err(AppendError::Store(error)) => assert!(is_stopped(&error), "{error}"),
            // The conflict may have been decided in a round of its own, before or after.
            Err(AppendError::Conflict { head: 2 }) => {}
            other => panic!("{other:?}"),
        }
    }
    // Later ones too, of every kind.
    let later = append_now(&store, append(d, 1, 1, "later"));
    assert!(matches!(&later, Err(AppendError::Store(e)) if is_stopped(e)), "{later:?}");
    assert!(is_stopped(&wait(store.begin(d, vec![alice.clone()])).unwrap_err()));
    let to = CursorPair { delivered: 1, read: 1 };
    let update = CursorUpdate { user: alice.clone(), conversation: c, to };
    assert!(is_stopped(&wait(store.advance(vec![update])).unwrap_err()));
    // Reads go on and show what was durable.
    assert_eq!(read_all(&store, c), append(c, 1, 2, "good").records);
    assert_eq!(head(&store, d), 0);
    assert!(is_stopped(&wait(store.close()).unwrap_err()));
    drop(store);
    let store = open(folder.path());
    assert_eq!(read_all(&store, c), append(c, 1, 2, "good").records);
    assert_eq!(append_now(&store, append(c, 3, 1, "again")), Ok(()));
}

#[test]
fn short_of_space_it_refuses_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { reserve_bytes: 1 << 30, ..options() };
    let faults = options.faults.clone();
    // Room for one message above the reserve, not for a hundred.
    faults.free_bytes.store((1 << 30) + (16 << 10), Relaxed);
    let store = EmbeddedStore::open(folder.path(), options).unwrap();
    let c = conversation(1);
    assert_eq!(append_now(&store, append(c, 1, 1, "a")), Ok(()));
    let refused = append_now(&store, append(c, 2, 100, "b"));
    let Err(AppendError::Store(StoreError::Unavailable(text))) = &refused else {
        panic!("{refused:?}")
    };
    assert!(text.contains("nearly full") && text.contains("1024 MiB"), "{text}");
    assert_eq!(store.stats().refused_for_space, 1);
    assert_eq!(head(&store, c), 1, "reads go on");
    faults.free_bytes.store(2 << 30, Relaxed);
    assert_eq!(append_now(&store, append(c, 2, 100, "c")), Ok(()), "it needs no restart");
}

#[test]
fn too_many_reads_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { read_threads: 1, waiting_reads: 1, ..options() };
    let store = EmbeddedStore::open(folder.path(), options).unwrap();
    // One read holds the thread until it is let go, the next one waits, a third finds no place.
    let (begun, has_begun) = channel();
    let (let_go, held) = channel::<()>();
    let first = store.reads.run(move |_| {
        begun.send(()).unwrap();
        Ok(held.recv().is_err())
    });
    has_begun.recv().unwrap();
    let second = store.extent(conversation(1));
    let third = wait(store.extent(conversation(1)));
    assert!(matches!(third, Err(StoreError::Unavailable(_))), "{third:?}");
    drop(let_go);
    assert_eq!(wait(first), Ok(true));
    assert_eq!(wait(second).unwrap().head, 0);
    let stats = store.stats();
    assert_eq!((stats.refused_reads, stats.reads), (1, 2));
}

/// A panic inside the engine fails one read; the thread goes on.
#[test]
fn a_read_that_panics_harms_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { read_threads: 1, ..options() };
    let store = EmbeddedStore::open(folder.path(), options).unwrap();
    let broken = wait(store.reads.run(|_| -> Result<(), StoreError> { panic!("planted") }));
    assert!(matches!(broken, Err(StoreError::Unavailable(_))), "{broken:?}");
    assert_eq!(head(&store, conversation(1)), 0);
}

#[test]
fn it_counts_what_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let c = conversation(1);
    assert_eq!(append_now(&store, append(c, 1, 3, "a")), Ok(()));
    assert_eq!(append_now(&store, append(c, 4, 2, "b")), Ok(()));
    assert!(append_now(&store, append(c, 4, 2, "c")).is_err());
    let stats = store.stats();
    assert_eq!((stats.appends, stats.rows, stats.conflicts), (2, 5, 1));
    assert_eq!((stats.commits, stats.max_commit_rows), (2, 3));
    assert!(stats.row_bytes > 0 && stats.commit_micros > 0);
    assert_eq!(stats.commit_latency.iter().sum::<u64>(), 2);
}
