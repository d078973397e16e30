//! A signal asks the process to stop; a second one ends it at once. The test program starts
//! itself as the process that is signalled.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

const ROLE: &str = "SKEIN_TEST_SIGNALLED";

/// Does nothing in the ordinary run. As a child: says what it sees, ends as it is told to.
#[test]
fn signalled() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (_, stop, mut hangups) = skein_gateway::stop::on_signals().unwrap();
    println!("\nsay listening");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        loop {
            tokio::select! {
                () = stop.requested() => return,
                Some(()) = hangups.next() => println!("\nsay reloading"),
            }
        }
    });
    println!("\nsay stopping");
    if role == "stubborn" {
        loop {
            std::thread::park();
        }
    }
}

struct Signalled {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Signalled {
    fn start(role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "signalled", "--nocapture"])
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads on until the child says this.
    fn hear(&mut self, word: &str) {
        let wanted = format!("say {word}");
        assert!(self.lines.any(|line| line.unwrap() == wanted), "the child never said {word}");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn end(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

#[test]
fn the_first_signal_asks_and_leaves_time() {
    for signal in ["INT", "TERM"] {
        let mut child = Signalled::start("obedient");
        child.hear("listening");
        child.signal(signal);
        child.hear("stopping");
        assert!(child.end().success(), "SIG{signal}");
    }
}

#[test]
fn the_second_signal_ends_the_process_at_once() {
    for (first, second, status) in
        [("INT", "INT", 130), ("TERM", "TERM", 143), ("TERM", "INT", 130)]
    {
        let mut child = Signalled::start("stubborn");
        child.hear("listening");
        child.signal(first);
        child.hear("stopping");
        child.signal(second);
        assert_eq!(child.end().code(), Some(status), "SIG{first}, SIG{second}");
    }
}

#[test]
fn a_hangup_asks_for_something_else_and_ends_nothing() {
    let mut child = Signalled::start("obedient");
    child.hear("listening");
    for _ in 0..2 {
        child.signal("HUP");
        child.hear("reloading");
    }
    child.signal("TERM");
    child.hear("stopping");
    assert!(child.end().success());
}
