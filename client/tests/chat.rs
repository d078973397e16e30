//! Two people, and a gateway that is killed between them: the program `skein-chat` as its users
//! have it, against the program `skein`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest wait for a line that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running gateway; killed when dropped.
struct Gateway {
    child: Child,
    address: SocketAddr,
    data: PathBuf,
}

impl Gateway {
    /// Starts a gateway on this folder. Its program stands beside this package's once the whole
    /// workspace is built.
    fn start(data: &Path, port: u16) -> Self {
        let chat = Path::new(env!("CARGO_BIN_EXE_skein-chat"));
        let program = chat.with_file_name(format!("skein{}", std::env::consts::EXE_SUFFIX));
        assert!(
            program.exists(),
            "no {}: run cargo build -p skein-gateway first",
            program.display()
        );
        let mut command = Command::new(program);
        command.args(["serve", "--data"]).arg(data).args(["--log-level", "warn", "--listen"]);
        command.arg(format!("127.0.0.1:{port}")).env("SKEIN_STORE__RESERVE_BYTES", "16MiB");
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).find(|line| line.starts_with("ready "));
        let address = ready.expect("the gateway does not start").split_off("ready ".len());
        Self { child, address: address.trim().parse().unwrap(), data: data.into() }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running chat; killed when dropped.
struct Chat {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Chat {
    fn start(gateway: &Gateway, user: &str, flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_skein-chat"))
            .args([user, "--server", &gateway.address.to_string(), "--data"])
            .arg(&gateway.data)
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { input: child.stdin.take(), child, lines }
    }

    /// A chat for scripts, once it is connected.
    fn script(gateway: &Gateway, user: &str, device: &str) -> Self {
        let chat = Self::start(gateway, user, &["--device", device, "--json"]);
        let ready = chat.event("ready");
        assert_eq!((&ready["user"], &ready["device"]), (&json!(user), &json!(device)));
        chat
    }

    fn say(&mut self, line: impl ToString) {
        writeln!(self.input.as_mut().unwrap(), "{}", line.to_string()).unwrap();
    }

    fn send(&mut self, to: &str, text: &str, id: &str) {
        self.say(json!({"cmd": "send", "to": to, "text": text, "id": id}));
    }

    /// The next line that `pick` takes.
    fn line<T>(&self, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect("the line does not come");
            if let Some(picked) = pick(&line) {
                return picked;
            }
        }
    }

    /// The next event of this kind; others are passed over.
    fn event(&self, kind: &str) -> Value {
        self.line(|line| {
            let event: Value = serde_json::from_str(line).expect("one JSON object a line");
            (event["event"] == kind).then_some(event)
        })
    }

    /// Ends the input, and waits for the exit status.
    fn end(mut self) -> i32 {
        drop(self.input.take());
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn scripts_exchange_messages_and_marks() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(data.path(), 0);
    let mut alice = Chat::script(&gateway, "alice", "phone");
    let mut bob = Chat::script(&gateway, "bob", "phone");
    let desk = Chat::script(&gateway, "bob", "desk");

    alice.send("bob", "hi", "m1");
    assert_eq!(alice.event("queued")["id"], "m1");
    let acked = alice.event("acked");
    assert_eq!((&acked["id"], &acked["seq"]), (&json!("m1"), &json!(1)));
    for device in [&bob, &desk] {
        let message = device.event("message");
        assert_eq!(message["conversation"], acked["conversation"]);
        assert_eq!((&message["from"], &message["text"]), (&json!("alice"), &json!("hi")));
        assert_eq!((&message["seq"], &message["id"]), (&json!(1), &json!("m1")));
        assert!(message["time"].is_u64());
    }
    let receipt = alice.line(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        (event["event"] == "receipt" && event["user"] == "bob").then_some(event)
    });
    assert_eq!((&receipt["kind"], &receipt["seq"]), (&json!("delivered"), &json!(1)));

    bob.say(json!({"cmd": "read", "with": "alice", "seq": 1}));
    let read = alice.line(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        (event["kind"] == "read" && event["user"] == "bob").then_some(event)
    });
    assert_eq!((&read["seq"], &read["conversation"]), (&json!(1), &acked["conversation"]));

    bob.say(json!({"cmd": "history", "with": "alice", "from": 1, "to": 50}));
    let history = bob.event("history");
    assert_eq!(history["messages"][0]["text"], "hi");
    assert_eq!(history["is_end"], true);

    bob.say("{\"cmd\":\"sing\"}");
    let error = bob.event("error");
    assert_eq!((&error["code"], &error["retry"]), (&json!(200), &json!(false)));
    assert!(error["message"].as_str().unwrap().contains("send"), "it says what is expected");

    alice.say(json!({"cmd": "quit"}));
    assert_eq!(alice.end(), 0);
    assert_eq!(bob.end(), 0);
}

#[test]
fn a_killed_gateway_loses_nothing_that_was_acknowledged() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(data.path(), 0);
    let address = gateway.address;
    let mut alice = Chat::script(&gateway, "alice", "phone");
    let mut bob = Chat::script(&gateway, "bob", "phone");
    alice.send("bob", "before", "m1");
    alice.event("acked");
    assert_eq!(bob.event("message")["text"], "before");

    gateway.kill();
    alice.send("bob", "while it is down", "m2");
    assert_eq!(alice.event("queued")["id"], "m2");
    let _gateway = Gateway::start(data.path(), address.port());

    assert!(alice.event("disconnected")["reason"].is_string());
    alice.event("reconnected");
    // What was acknowledged before keeps its number; what was not is stored once.
    let acked = alice.event("acked");
    assert_eq!((&acked["id"], &acked["seq"]), (&json!("m2"), &json!(2)));
    alice.send("bob", "again", "m1");
    let acked = alice.event("acked");
    assert_eq!((&acked["id"], &acked["seq"]), (&json!("m1"), &json!(1)));
    let message = bob.event("message");
    assert_eq!((&message["text"], &message["seq"]), (&json!("while it is down"), &json!(2)));
    bob.say(json!({"cmd": "history", "with": "alice"}));
    let history = bob.event("history");
    let texts: Vec<_> =
        history["messages"].as_array().unwrap().iter().map(|m| &m["text"]).collect();
    assert_eq!(texts, ["before", "while it is down"]);
}

#[test]
fn people_see_who_says_what_and_what_became_of_it() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(data.path(), 0);
    let mut alice = Chat::start(&gateway, "alice", &[]);
    let mut bob = Chat::start(&gateway, "bob", &[]);
    for chat in [&alice, &bob] {
        chat.line(|line| line.contains("Connected").then_some(()));
    }
    alice.say("too early");
    alice.line(|line| line.contains("/to").then_some(()));
    alice.say("/to bob");
    alice.say("hello there");
    bob.line(|line| (line.contains("alice") && line.contains("hello there")).then_some(()));
    alice.line(|line| line.contains("read by bob").then_some(()));
    bob.say("/help");
    bob.line(|line| line.contains("/history").then_some(()));
    bob.say("/quit");
    assert_eq!(bob.end(), 0);
}

#[test]
fn without_a_gateway_it_says_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_skein-chat"))
        .args(["alice", "--data"])
        .arg(empty.path())
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("skein -- serve"));
}
