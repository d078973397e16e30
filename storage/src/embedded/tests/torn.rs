//! A journal that ends anywhere: what is there is always a beginning of what was written.

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skein_protocol::ConversationId;

use super::support::*;
use crate::Append;
use crate::embedded::{EmbeddedStore, OpenError};

const APPENDS: u64 = 30;

/// A store with known appends, closed; its journal cut back to what was written.
fn written(folder: &Path) -> PathBuf {
    let store = open(folder);
    for n in 0..APPENDS {
        let c = conversation(n % 3);
        let first = head(&store, c) + 1;
        assert_eq!(append_now(&store, append(c, first, 1 + n % 4, &format!("t{n}"))), Ok(()));
    }
    drop(store);
    drop(open(folder)); // recovery cuts the journal
    folder.join("db/0.jnl")
}

/// How many of the appends are there; they must be the first ones.
fn beginning(folder: &Path) -> u64 {
    let store = open(folder);
    let mut tags: Vec<u64> = Vec::new();
    for n in 0..3 {
        let c = conversation(n);
        let appends = whole_appends(c, &read_all(&store, c)).unwrap();
        tags.extend(appends.iter().map(|(_, _, tag)| tag[1..].parse::<u64>().unwrap()));
    }
    tags.sort_unstable();
    assert_eq!(tags, (0..tags.len() as u64).collect::<Vec<_>>(), "not the first ones");
    tags.len() as u64
}

#[test]
fn a_cut_journal_gives_a_beginning_and_can_be_written_on() {
    let folder = tempfile::tempdir().unwrap();
    let journal = written(folder.path());
    assert_eq!(beginning(folder.path()), APPENDS);
    let whole = fs::read(&journal).unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let mut len = whole.len();
    let mut before = APPENDS;
    while len > 1000 {
        // Cut, as a crash leaves it: nothing behind, or space that was never written.
        len -= random.random_range(1..len / 8 + 2);
        let mut bytes = whole[..len].to_vec();
        if random.random_bool(0.5) {
            bytes.resize(len + 10_000, 0);
        }
        fs::write(&journal, &bytes).unwrap();
        let there = beginning(folder.path());
        assert!(there <= before, "{there} of a shorter journal, {before} of a longer one");
        before = there;
        // What is written next must not end up behind the torn part.
        let store = open(folder.path());
        let c = conversation(0);
        let next = head(&store, c) + 1;
        assert_eq!(append_now(&store, append(c, next, 2, &format!("t{there}"))), Ok(()));
        drop(store);
        assert_eq!(beginning(folder.path()), there + 1);
    }
    assert!(before < APPENDS / 2, "the cuts went deep enough to show something");
}

/// An append with one payload of many pages that do not compress.
fn large(c: ConversationId) -> Append {
    let mut append = append(c, 1, 1, "large");
    let mut random = StdRng::seed_from_u64(9);
    append.records[0].payload = (0..63_000).map(|_| random.random::<u8>()).collect();
    append
}

/// Marks the store as one that was not closed.
fn as_after_a_crash(folder: &Path) {
    fs::write(folder.join("lock"), "1\n").unwrap();
}

/// A page of the commit under way is missing although later ones are there.
#[test]
fn a_last_commit_with_a_hole_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let journal = written(folder.path());
    let before = fs::read(&journal).unwrap().len();
    let c = conversation(9);
    let store = open(folder.path());
    assert_eq!(append_now(&store, large(c)), Ok(()));
    drop(store);
    let mut bytes = fs::read(&journal).unwrap();
    let page = (before / 4096 + 3) * 4096;
    bytes[page..page + 4096].fill(0);
    bytes.resize(bytes.len() + 100_000, 0);
    fs::write(&journal, &bytes).unwrap();
    as_after_a_crash(folder.path());
    assert_eq!(beginning(folder.path()), APPENDS);
    let store = open(folder.path());
    assert_eq!(head(&store, c), 0);
    assert_eq!(append_now(&store, large(c)), Ok(()));
    assert!(!folder.path().join("db.scratch").exists());
}

/// The same hole with an acknowledged commit behind it is damage, not a crash.
#[test]
fn a_hole_further_in_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let journal = written(folder.path());
    let before = fs::read(&journal).unwrap().len();
    let store = open(folder.path());
    assert_eq!(append_now(&store, large(conversation(9))), Ok(()));
    assert_eq!(append_now(&store, append(conversation(9), 2, 1, "behind")), Ok(()));
    drop(store);
    let mut bytes = fs::read(&journal).unwrap();
    let page = (before / 4096 + 3) * 4096;
    bytes[page..page + 4096].fill(0);
    fs::write(&journal, &bytes).unwrap();
    as_after_a_crash(folder.path());
    let Err(error) = EmbeddedStore::open(folder.path(), options()) else { panic!("opened") };
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert_eq!(fs::read(&journal).unwrap().len(), bytes.len(), "nothing was cut");
}
