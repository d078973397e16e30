//! What is refused at the door, and in which words.

use std::fs;

use super::support::*;
use crate::embedded::engine::{Table, Write};
use crate::embedded::lock::Lock;
use crate::embedded::{EmbeddedOptions, EmbeddedStore, OpenError, keys, recovery, row};
use crate::{MessageLog, Store};

fn refused(folder: &std::path::Path) -> OpenError {
    match EmbeddedStore::open(folder, options()) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

/// Writes another schema version into a store.
fn set_schema(folder: &std::path::Path, schema: u32) {
    let lock = Lock::take(folder).unwrap();
    let (engine, epoch) = recovery::open(folder, &options(), false).unwrap();
    let value = row::encode_meta(&row::MetaRow { schema, epoch });
    let write = Write { table: Table::Side, key: keys::META.to_vec(), value };
    engine.commit(vec![write], true).unwrap();
    drop(engine);
    lock.leave_in_order();
}

#[test]
fn data_of_a_newer_version_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    set_schema(folder.path(), recovery::SCHEMA + 1);
    let error = refused(folder.path());
    assert!(matches!(error, OpenError::Newer { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("was written by a newer skein (schema 2"), "{text}");
}

#[test]
fn data_older_than_any_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    set_schema(folder.path(), 0);
    assert!(matches!(refused(folder.path()), OpenError::Older { found: 0, .. }));
}

#[test]
fn files_of_a_newer_engine_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    fs::write(folder.path().join("db/version"), b"FJL\x04").unwrap();
    let text = refused(folder.path()).to_string();
    assert!(text.contains("newer skein") && text.contains("engine format 4"), "{text}");
}

#[test]
fn a_store_without_its_marker_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    fs::remove_file(folder.path().join("db/version")).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn a_second_opening_is_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let text = refused(folder.path()).to_string();
    assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
    assert!(text.contains(&folder.path().display().to_string()), "{text}");
    wait(first.close()).unwrap();
    // Closed is closed, although the value is still there.
    drop(open(folder.path()));
}

#[test]
fn a_new_epoch_leaves_the_messages_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let renew = || EmbeddedStore::renew_epoch(folder.path(), &options());
    assert!(renew().unwrap_err().to_string().contains("cannot find a store in"));
    let store = open(folder.path());
    let (first, conversation) = (store.epoch(), conversation(1));
    append_now(&store, append(conversation, 1, 3, "before")).unwrap();
    assert!(matches!(renew(), Err(OpenError::InUse { .. })));
    drop(store);
    let renewed = renew().unwrap();
    assert_ne!(renewed, first);
    let store = open(folder.path());
    assert_eq!(store.epoch(), renewed);
    assert_eq!(wait(store.extent(conversation)).unwrap().head, 3);
}

#[test]
fn a_path_that_is_no_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = refused(&path);
        assert!(matches!(error, OpenError::Path { .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn options_out_of_range_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let bad = EmbeddedOptions { read_threads: 0, ..options() };
    let Err(error) = EmbeddedStore::open(folder.path(), bad) else { panic!("accepted") };
    assert!(error.to_string().contains("read_threads"), "{error}");
}

#[test]
fn a_store_half_made_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let unfinished = folder.path().join("db.new");
    fs::create_dir_all(unfinished.join("keyspaces/0")).unwrap();
    fs::write(unfinished.join("0.jnl"), "half").unwrap();
    let store = open(folder.path());
    assert_eq!(append_now(&store, append(conversation(1), 1, 1, "a")), Ok(()));
    assert!(!unfinished.exists());
}

#[test]
fn each_store_has_an_epoch_of_its_own() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let epoch = open(a.path()).epoch();
    assert_ne!(epoch, open(b.path()).epoch());
    assert_eq!(epoch, open(a.path()).epoch());
}

#[test]
fn dropping_a_store_keeps_everything_and_lets_go() {
    let folder = tempfile::tempdir().unwrap();
    let c = conversation(1);
    for n in 0..5 {
        let store = open(folder.path());
        let (sink, _told) = tell();
        store.submit(vec![append(c, n + 1, 1, "a")], sink);
        drop(store);
    }
    assert_eq!(head(&open(folder.path()), c), 5);
}
