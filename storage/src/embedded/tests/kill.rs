//! A process that appends is killed at random moments; nothing acknowledged may be missing.
//!
//! `kill -9` leaves what the system was given, so this shows what is acknowledged too early,
//! written in parts or numbered wrongly; that fsync is called shows in `disk`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::support::*;
use crate::embedded::faults::Bug;
use crate::embedded::{EmbeddedOptions, EmbeddedStore};
use crate::{AppendError, ConversationIndex, CursorPair, CursorUpdate, Cursors, MessageLog};

/// Kills in an ordinary run; `SKEIN_KILL_ROUNDS` asks for another number.
const ROUNDS: u64 = 12;

const CONVERSATIONS: u64 = 6;

const BUGS: [(&str, Bug); 3] = [
    ("ack-before-write", Bug::AckBeforeWrite),
    ("split-batch", Bug::SplitBatch),
    ("no-head-check", Bug::NoHeadCheck),
];

#[test]
fn nothing_acknowledged_is_lost_by_kills() {
    let rounds = std::env::var("SKEIN_KILL_ROUNDS").ok().and_then(|n| n.parse().ok());
    let acked = torture("none", rounds.unwrap_or(ROUNDS)).unwrap();
    assert!(acked > 50, "only {acked} appends were acknowledged: this shows nothing");
}

/// The same with so many bytes that files are flushed, merged and let go of all the while, the
/// journal's too when there are more rounds than in an ordinary run.
#[test]
fn nothing_is_lost_while_files_come_and_go() {
    let rounds = std::env::var("SKEIN_KILL_ROUNDS").ok().and_then(|n| n.parse().ok());
    torture("large", rounds.unwrap_or(4)).unwrap();
}

#[test]
fn planted_bugs_are_seen() {
    for (name, _) in BUGS {
        let seen = torture(name, 40).expect_err(name);
        println!("{name}: {seen}");
    }
}

/// Kills a child again and again and checks after each kill. Returns how many appends were
/// acknowledged in all, or what was wrong.
fn torture(bug: &str, rounds: u64) -> Result<usize, String> {
    let seed = std::env::var("SKEIN_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("bug {bug}, {rounds} rounds, SKEIN_KILL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut acked = Acked::default();
    let mut last_journal = String::new();
    let longest = if bug == "large" { 600_000 } else { 60_000 };
    for round in 0..rounds {
        let mut child = spawn(folder.path(), bug, round, random.random());
        let lines = listen(&mut child);
        // Some die while they open or make the store, most while they write.
        if random.random_ratio(1, 4) {
            std::thread::sleep(Duration::from_millis(random.random_range(0..40)));
        } else {
            acked.hear(&lines, Some(Duration::from_secs(60)));
            std::thread::sleep(Duration::from_micros(random.random_range(0..longest)));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while acked.hear(&lines, None) {}
        let store = EmbeddedStore::open(folder.path(), child_options()).unwrap();
        let checked = acked.check(&store);
        // Whether the next child finds a store that was closed is left to chance.
        let journals = std::fs::read_dir(folder.path().join("db")).unwrap().flatten();
        let names = journals.map(|entry| entry.file_name().to_string_lossy().into_owned());
        last_journal = names.filter(|name| name.ends_with(".jnl")).max().unwrap_or_default();
        drop(store);
        checked.map_err(|what| format!("{what}; round {round}, SKEIN_KILL_SEED={seed}"))?;
    }
    println!("bug {bug}: {} appends acknowledged, journal {last_journal}", acked.appends.len());
    Ok(acked.appends.len())
}

fn child_options() -> EmbeddedOptions {
    EmbeddedOptions { memtable_bytes: 1 << 20, ..options() }
}

fn spawn(folder: &Path, bug: &str, round: u64, seed: u64) -> Child {
    let task = format!("{bug} {round} {seed} {}", folder.display());
    let mut command = Command::new(std::env::current_exe().unwrap());
    as_child(&mut command, "embedded::tests::kill::child", &task)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn listen(child: &mut Child) -> Receiver<String> {
    let (sender, lines) = channel();
    let out = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if let Some(said) = said(&line) {
                let _ = sender.send(said.to_string());
            }
        }
    });
    lines
}

/// What children said was acknowledged.
#[derive(Default)]
struct Acked {
    /// Tag to (conversation, first number, count).
    appends: BTreeMap<String, (u64, u64, u64)>,
    begun: Vec<u64>,
}

impl Acked {
    /// Takes one line; `false` when there are no more.
    fn hear(&mut self, lines: &Receiver<String>, patience: Option<Duration>) -> bool {
        let line = match patience {
            None => lines.recv().ok(),
            Some(patience) => match lines.recv_timeout(patience) {
                Ok(line) => Some(line),
                Err(RecvTimeoutError::Disconnected) => None,
                Err(RecvTimeoutError::Timeout) => panic!("the child says nothing"),
            },
        };
        let Some(line) = line else { return false };
        let words: Vec<&str> = line.split(' ').collect();
        let number = |n: usize| words[n].parse().unwrap();
        match words[0] {
            "acked" => {
                let known = (number(1), number(2), number(3));
                assert_eq!(self.appends.insert(words[4].into(), known), None, "told twice");
            }
            "begun" => self.begun.push(number(1)),
            other => panic!("the child said {other}"),
        }
        true
    }

    fn check(&self, store: &EmbeddedStore) -> Result<(), String> {
        let mut present = BTreeMap::new();
        for n in 0..CONVERSATIONS {
            let c = conversation(n);
            let log = read_all(store, c);
            if log.len() as u64 != head(store, c) {
                return Err(format!("{c}: {} messages, head {}", log.len(), head(store, c)));
            }
            for (first, count, tag) in whole_appends(c, &log)? {
                if let Some(before) = present.insert(tag.clone(), (n, first, count)) {
                    return Err(format!("{c}: append {tag} is there twice, see {before:?}"));
                }
            }
            let cursors = wait(store.cursors(user("alice"), c)).map_err(|e| e.to_string())?;
            if cursors.delivered.max(cursors.read) > log.len() as u64 {
                return Err(format!("{c}: {cursors:?} is beyond the head {}", log.len()));
            }
            let members = wait(store.members(c)).map_err(|e| e.to_string())?;
            let index = wait(store.conversations(user("alice"), None, 100)).unwrap();
            if members.is_some() != index.contains(&c) {
                return Err(format!("{c}: members and index disagree"));
            }
            if members.is_none() && (self.begun.contains(&n) || !log.is_empty()) {
                return Err(format!("{c}: it had begun, and that is lost"));
            }
        }
        for (tag, acked) in &self.appends {
            match present.get(tag) {
                Some(found) if found == acked => {}
                found => return Err(format!("{tag} was acknowledged as {acked:?}, is {found:?}")),
            }
        }
        Ok(())
    }
}

/// Runs in a process of its own until it is killed; in an ordinary run it does nothing.
#[test]
fn child() {
    let Some(task) = child_task() else { return };
    let words: Vec<&str> = task.splitn(4, ' ').collect();
    let [bug, round, seed, folder] = words[..] else { panic!("task {task}") };
    let options = child_options();
    if let Some((_, bug)) = BUGS.iter().find(|(name, _)| *name == bug) {
        options.faults.plant(*bug);
    }
    let store = Arc::new(EmbeddedStore::open(folder, options).unwrap());
    for n in 0..CONVERSATIONS {
        wait(store.begin(conversation(n), vec![user("alice"), user("bob")])).unwrap();
        say(&format!("begun {n}"));
    }
    let seed: u64 = seed.parse().unwrap();
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let large = if bug == "large" { LARGE.to_string() } else { String::new() };
            let (store, name) = (store.clone(), format!("{large}{round}-{writer}"));
            std::thread::spawn(move || write(&store, &name, seed.wrapping_add(writer)))
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

/// Appends for ever, in rivalry with others that do the same.
fn write(store: &EmbeddedStore, name: &str, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut heads = BTreeMap::new();
    for group in 0.. {
        let (sink, told) = tell();
        let mut appends = Vec::new();
        let mut known = Vec::new();
        for index in 0..random.random_range(1..6) {
            let n = random.random_range(0..CONVERSATIONS);
            let next = heads.entry(n).or_insert_with(|| head(store, conversation(n)));
            let count = random.random_range(1..8);
            let tag = format!("{name}-{group}-{index}");
            appends.push(append(conversation(n), *next + 1, count, &tag));
            known.push((n, *next + 1, count, tag));
            *next += count;
        }
        let expected = appends.len();
        store.submit(appends, sink);
        for (index, outcome) in told.iter().take(expected) {
            let (n, first, count, tag) = &known[index];
            match outcome {
                Ok(()) => {
                    say(&format!("acked {n} {first} {count} {tag}"));
                    let last = first + count - 1;
                    let to = CursorPair { delivered: last, read: last / 2 };
                    let update =
                        CursorUpdate { user: user("alice"), conversation: conversation(*n), to };
                    drop(store.advance(vec![update]));
                }
                Err(AppendError::Conflict { head }) => {
                    heads.insert(*n, head);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}
