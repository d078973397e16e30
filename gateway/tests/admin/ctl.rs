//! `skein ctl` against a real gateway.

use serde_json::Value;
use tempfile::tempdir;

use crate::support::process::{Gateway, Options, skein};
use crate::support::raw::Raw;
use crate::{login, options};

pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn ctl(gateway: &Gateway, args: &[&str]) -> Ran {
    let admin = gateway.admin.unwrap().to_string();
    let data = gateway.data.to_str().unwrap();
    let all = [&["ctl", "--admin", &admin, "--data", data][..], args].concat();
    let ran = skein(&all, &Options::default());
    Ran {
        status: ran.status.code().unwrap(),
        out: String::from_utf8(ran.stdout).unwrap(),
        err: String::from_utf8(ran.stderr).unwrap(),
    }
}

fn good(gateway: &Gateway, args: &[&str]) -> String {
    let ran = ctl(gateway, args);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{args:?}: {}", ran.out);
    ran.out
}

#[tokio::test]
async fn an_operator_does_without_curl() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let mut alice = login(&gateway, "alice", "phone").await;
    let mut bob = login(&gateway, "bob", "tablet").await;

    let list = good(&gateway, &["sessions", "list"]);
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(&lines[0][..4], ["id", "user", "device", "address"]);
    assert_eq!(lines.len(), 3, "{list}");
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{list}");
    let of_alice = lines.iter().find(|line| line[1] == "alice").unwrap();
    assert_eq!(good(&gateway, &["sessions", "count", "--user", "alice"]), "1\n");
    let shown = good(&gateway, &["sessions", "show", of_alice[0]]);
    assert!(shown.contains("\nuser\talice\n"), "{shown}");
    let json = good(&gateway, &["--json", "sessions", "list"]);
    let users = json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut users: Vec<_> = users.map(|s| s["user"].as_str().unwrap().to_owned()).collect();
    users.sort();
    assert_eq!(users, ["alice", "bob"]);

    assert!(good(&gateway, &["status"]).contains("\nsessions\t2\n"));
    assert_eq!(good(&gateway, &["notice", "hello all"]), "told\t2\n");
    assert!(good(&gateway, &["shards"]).starts_with("shard\tended\t"));
    assert!(good(&gateway, &["shards", "0"]).contains("counters.turns\t"));
    assert!(good(&gateway, &["top", "--over", "0s"]).starts_with("value\tid\tuser\t"));

    assert_eq!(good(&gateway, &["kick", "--user", "alice", "--reason", "bye now"]), "kicked\t1\n");
    assert_eq!(alice.closed().await, 126);
    let blocked = good(&gateway, &["block", "--user", "bob", "--for", "1h", "--reason", "why"]);
    assert!(blocked.contains("kicked\t1"), "{blocked}");
    assert_eq!(bob.closed().await, 127);
    let blocks = good(&gateway, &["blocks"]);
    assert!(blocks.lines().nth(1).unwrap().starts_with("bob\t-\twhy\t"), "{blocks}");
    assert_eq!(good(&gateway, &["unblock", "--user", "bob"]), "");
    let again = ctl(&gateway, &["unblock", "--user", "bob"]);
    assert_eq!(again.status, 1);
    assert!(again.err.contains("404: user bob is not blocked"), "{}", again.err);

    assert_eq!(good(&gateway, &["alive", "--token-file", "/nowhere"]), "alive\ttrue\n");
    assert_eq!(good(&gateway, &["ready", "--token-file", "/nowhere"]), "ready\ttrue\nreasons\t-\n");
    let state = good(&gateway, &["drain", "--over", "200ms", "--wait", "5s"]);
    assert!(state.contains("draining\ttrue\n") && state.contains("sessions\t0\n"), "{state}");
    let unready = ctl(&gateway, &["ready"]);
    assert_eq!(unready.status, 1);
    assert!(unready.err.contains("503: draining: sessions are being sent away"), "{}", unready.err);
    // One that drains is not to be restarted for it.
    assert_eq!(good(&gateway, &["alive"]), "alive\ttrue\n");
    assert!(good(&gateway, &["undrain"]).contains("draining\tfalse\n"));
    let _stays = login(&gateway, "alice", "phone").await;
    let waited = ctl(&gateway, &["drain", "--wait", "1s"]);
    assert_eq!(waited.status, 1);
    assert!(waited.err.contains("1 sessions are still here"), "{}", waited.err);
}

#[test]
fn a_command_that_cannot_be_carried_out_says_why() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    for (args, status, expected) in [
        (&["kick"][..], 2, "--user"),
        (&["block", "--reason", "x"], 2, "--address"),
        (&["block", "--user", "a", "--address", "10.0.0.1"], 2, "cannot be used with"),
        (&["sessions", "show", "alice"], 2, "c0.17.3"),
        (&["sessions", "show", "c0.1.1"], 1, "404: there is no session c0.1.1"),
        (&["block", "--address", "ten"], 1, "400: `address`"),
        (&["status", "--token-file", "/nowhere"], 1, "--token-file"),
        (&["status", "--admin", "127.0.0.1:1"], 1, "no answer from http://127.0.0.1:1"),
    ] {
        let ran = ctl(&gateway, args);
        assert_eq!(ran.status, status, "{args:?}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(expected), "{args:?}: {}", ran.err);
    }
}

/// The gateway's own configuration says where it listens and where the token is.
#[tokio::test]
async fn it_finds_the_gateway_by_its_configuration() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let file = dir.path().join("skein.toml");
    let admin = gateway.admin.unwrap();
    let text = format!("data = {:?}\n[admin]\nlisten = \"{admin}\"\n", dir.path());
    std::fs::write(&file, &text).unwrap();
    let _alice = Raw::login(gateway.address, dir.path(), &gateway.token("alice"), "phone").await;
    let args = ["ctl", "--config", file.to_str().unwrap(), "sessions", "count"];
    let ran = skein(&args, &Options::default());
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "1\n");

    // Also while somebody writes on it, or with no need of it.
    std::fs::write(&file, format!("lane = 3\n{text}")).unwrap();
    let ran = skein(&args, &Options::default());
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "1\n");
    assert!(String::from_utf8_lossy(&ran.stderr).contains("mistakes (1;"), "{ran:?}");
    let (admin, token) = (admin.to_string(), dir.path().join("admin-token"));
    let told = ["--config", "/nowhere", "--admin", &admin, "--token-file", token.to_str().unwrap()];
    let ran = skein(&[&["ctl"][..], &told, &["sessions", "count"]].concat(), &Options::default());
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "1\n", "{ran:?}");
}
