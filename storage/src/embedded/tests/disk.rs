//! A disk that is really full, and that fsync is really called.

use std::path::Path;
use std::process::Command;

use super::support::*;
use crate::embedded::EmbeddedStore;
use crate::embedded::faults::Bug;
use crate::{AppendError, Store, StoreError};

/// Appends until the store stops; returns how many appends were acknowledged and the reason.
fn fill(store: &EmbeddedStore) -> (u64, String) {
    let c = conversation(1);
    for n in 0..100_000 {
        let mut append = append(c, n + 1, 1, &format!("f{n}"));
        append.records[0].payload = filling(n);
        match append_now(store, append) {
            Ok(()) => {}
            Err(AppendError::Store(StoreError::Stopped(reason))) => return (n, reason),
            other => panic!("{other:?}"),
        }
    }
    panic!("the limit was never met")
}

/// 16 KiB that do not compress.
fn filling(n: u64) -> bytes::Bytes {
    let mut state = n;
    let noise = (0..16 * 1024).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    noise.collect::<Vec<u8>>().into()
}

/// What must hold once the disk was full: in this process, and after opening again.
fn check_stopped(store: EmbeddedStore, acked: u64) {
    let c = conversation(1);
    assert!(acked > 10, "{acked} appends only: the limit was met too early to show anything");
    assert_eq!(head(&store, c), acked, "nothing can be read that was not acknowledged");
    let later = append_now(&store, append(c, acked + 1, 1, "later"));
    assert!(matches!(later, Err(AppendError::Store(StoreError::Stopped(_)))), "{later:?}");
    check_content(&store, acked);
    assert!(matches!(wait(store.close()), Err(StoreError::Stopped(_))));
}

fn check_content(store: &EmbeddedStore, acked: u64) {
    for (n, record) in read_all(store, conversation(1)).iter().enumerate().take(acked as usize) {
        assert_eq!(record.seq, n as u64 + 1);
        assert!(record.payload == filling(n as u64), "content of {}", record.seq);
    }
}

/// Opens again where there is room. The append that failed may be there, nothing after it.
fn check_reopened(folder: &Path, acked: u64) {
    let store = open(folder);
    let c = conversation(1);
    let now = head(&store, c);
    assert!((acked..=acked + 1).contains(&now), "{acked} were acknowledged, {now} are there");
    check_content(&store, acked);
    assert_eq!(append_now(&store, append(c, now + 1, 1, "on")), Ok(()));
    drop(store);
    assert_eq!(head(&open(folder), c), now + 1);
}

/// A limit on file sizes makes a write to the journal fail half-way, on any Unix machine.
#[test]
fn a_write_that_fails_half_way_stops_the_store() {
    if !cfg!(unix) {
        println!("skipped: needs a shell that can limit file sizes");
        return;
    }
    if let Some(folder) = child_task() {
        let store = open(Path::new(&folder));
        let (acked, reason) = fill(&store);
        say(&format!("{acked} {reason}"));
        check_stopped(store, acked);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // The journal is allocated ahead when it is made, and cut to its content when it is opened.
    drop(open(folder.path()));
    let mut shell = Command::new("sh");
    // Without the trap the signal would end the process; ignored, the write fails with EFBIG.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\""]);
    shell.arg(std::env::current_exe().unwrap());
    let name = "embedded::tests::disk::a_write_that_fails_half_way_stops_the_store";
    let ran = as_child(&mut shell, name, &folder.path().display().to_string()).output().unwrap();
    let out = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{out}{}", String::from_utf8_lossy(&ran.stderr));
    let said = out.lines().find_map(said).unwrap();
    println!("{said}");
    let (acked, reason) = said.split_once(' ').unwrap();
    assert!(reason.contains("writing failed"), "{reason}");
    check_reopened(folder.path(), acked.parse().unwrap());
}

/// A small volume of its own, where the user may mount one (in a namespace): ENOSPC for real.
#[test]
fn a_full_volume_stops_the_store_and_loses_nothing() {
    let name = "embedded::tests::disk::a_full_volume_stops_the_store_and_loses_nothing";
    if let Some(volume) = child_task() {
        let (volume, folder) = (Path::new(&volume), Path::new(&volume).join("store"));
        let ballast = volume.join("ballast");
        std::fs::write(&ballast, vec![1; 8 << 20]).unwrap();
        let store = open(&folder);
        let (acked, reason) = fill(&store);
        check_stopped(store, acked);
        std::fs::remove_file(ballast).unwrap();
        check_reopened(&folder, acked);
        say(&format!("{acked} {reason}"));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=24m none \"$1\" || exit 77; shift; exec \"$@\"";
    let mut shell = Command::new("unshare");
    shell.args(["--map-root-user", "--mount", "sh", "-c", mount, "sh"]);
    shell.arg(folder.path()).arg(std::env::current_exe().unwrap());
    let ran = as_child(&mut shell, name, &folder.path().display().to_string()).output();
    let ran = match ran {
        Ok(ran) if ran.stdout.is_empty() => {
            let why = String::from_utf8_lossy(&ran.stderr).into_owned();
            println!("skipped: no volume can be mounted here: {}", why.trim());
            return;
        }
        Ok(ran) => ran,
        Err(error) => {
            println!("skipped: no volume can be mounted here: unshare: {error}");
            return;
        }
    };
    let out = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{out}{}", String::from_utf8_lossy(&ran.stderr));
    let said = out.lines().find_map(said).unwrap();
    println!("{said}");
    assert!(said.contains("writing failed"), "{said}");
}

/// Under a tracer: between any two acknowledgements that wait for each other lies an fsync.
#[test]
fn an_fsync_stands_before_each_acknowledgement() {
    const APPENDS: u64 = 20;
    let name = "embedded::tests::disk::an_fsync_stands_before_each_acknowledgement";
    if let Some(task) = child_task() {
        let (bug, folder) = task.split_once(' ').unwrap();
        let options = options();
        if bug == "no-sync" {
            options.faults.plant(Bug::NoSync);
        }
        let store = EmbeddedStore::open(folder, options).unwrap();
        for n in 1..=APPENDS {
            assert_eq!(append_now(&store, append(conversation(1), n, 1, "a")), Ok(()));
            say("acked");
        }
        // Not closed: closing syncs too, and is not what is looked at.
        std::process::exit(0);
    }
    for (bug, sound) in [("none", true), ("no-sync", false)] {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace");
        let mut tracer = Command::new("strace");
        tracer.args(["-f", "-e", "trace=fdatasync,fsync,write", "-o"]).arg(&trace);
        tracer.arg(std::env::current_exe().unwrap());
        let task = format!("{bug} {}", folder.path().join("store").display());
        let ran = as_child(&mut tracer, name, &task).output();
        let Ok(trace) = std::fs::read_to_string(&trace) else {
            println!("skipped: no process can be traced here: {ran:?}");
            return;
        };
        let calls: Vec<&str> = trace
            .lines()
            .filter_map(|line| match line {
                _ if line.contains("fdatasync(") => Some("sync"),
                _ if line.contains(">acked<") => Some("ack"),
                _ => None,
            })
            .collect();
        if !calls.contains(&"ack") {
            println!("skipped: no process can be traced here: {ran:?}");
            return;
        }
        // The first append's fsync stands before the first acknowledgement, and so on.
        let early = calls.split(|call| *call == "ack").filter(|before| before.is_empty()).count();
        // After the last acknowledgement there may or may not be anything.
        let trailing = usize::from(calls.last() == Some(&"ack"));
        assert_eq!(early - trailing == 0, sound, "bug {bug}: {calls:?}");
        println!("bug {bug}: {} calls, {} too early", calls.len(), early - trailing);
    }
}
