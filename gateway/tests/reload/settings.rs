//! Limits, heartbeat, token keys.

use std::path::Path;
use std::time::{Duration, SystemTime};

use skein_gateway::config::Alg;
use skein_gateway::token::{Grant, Signer};
use skein_protocol::wire::{client_frame, server_frame};
use skein_protocol::{ALPN, Code, UserId, wire};

use super::Scene;
use crate::support::raw::{Raw, endpoint};

fn number(code: Code) -> u64 {
    u64::from(code.number())
}

async fn ping(raw: &mut Raw) {
    raw.say(client_frame::Kind::Ping(wire::Ping { nonce: 7 })).await;
    let pong = raw.wait_for(|kind| match kind {
        server_frame::Kind::Pong(pong) => Some(pong.nonce),
        _ => None,
    });
    assert_eq!(pong.await, Ok(7));
}

impl Scene {
    async fn connect(&self) -> Raw {
        let endpoint = endpoint(&self.gateway.data, ALPN);
        Raw::connect_from(endpoint, self.gateway.address).await
    }

    async fn alice(&self, device: &str) -> (Raw, wire::Welcome) {
        let mut raw = self.connect().await;
        let welcome = raw.enter(&self.gateway.token("alice"), device).await;
        (raw, welcome)
    }

    /// The code with which a token is refused.
    async fn refused(&self, token: &str, device: &str) -> u64 {
        let mut raw = self.connect().await;
        raw.hello(token, device).await;
        raw.closed().await
    }
}

#[tokio::test]
async fn new_limits_hold_and_sessions_stay() {
    let before = "lanes = 4\n[limits]\nmax_devices_per_user = 1\n[session]\n\
                  heartbeat_interval = \"20s\"\n";
    let scene = Scene::start(before, |_| {});
    let (mut phone, welcome) = scene.alice("phone").await;
    assert_eq!(welcome.heartbeat_interval_ms, 20_000);
    let token = scene.gateway.token("alice");
    assert_eq!(scene.refused(&token, "tablet").await, number(Code::TooManyDevices));

    let log = scene
        .tell(
            "lanes = 8\n[limits]\nmax_devices_per_user = 2\nmax_payload_bytes = 1000\n[session]\n\
             heartbeat_interval = \"30s\"\n",
        )
        .await;
    for part in ["limits.max_devices_per_user", "limits.max_payload_bytes", "heartbeat_interval"] {
        assert!(log.lines().any(|line| line.contains(part) && line.contains("changed")), "{log}");
    }
    let restart = |line: &str| line.contains("a restart is needed") && line.contains("lanes");
    assert!(log.lines().any(restart), "{log}");
    let (_tablet, welcome) = scene.alice("tablet").await;
    assert_eq!(welcome.heartbeat_interval_ms, 30_000);
    assert_eq!(welcome.limits.unwrap().max_payload_bytes, 1000);
    assert_eq!(scene.refused(&token, "watch").await, number(Code::TooManyDevices));
    phone.message("bob", "m1", &"x".repeat(1001)).await;
    assert_eq!(phone.error().await.code, Code::PayloadTooLarge.number());

    // Everything that is wrong is told, and nothing is changed.
    let log = scene
        .tell("lanes = 9\n[limits]\nmax_devices_per_user = 3\nmax_session = 5\nmax_entries = 0\n")
        .await;
    for part in [
        "skein.toml:4",
        "unknown key `limits.max_session`; the nearest right one is `limits.max_sessions`",
        "skein.toml:5",
        "must be 1 to 4096",
    ] {
        assert!(log.contains(part), "{log}");
    }
    assert_eq!(scene.refused(&token, "watch").await, number(Code::TooManyDevices));
    ping(&mut phone).await;

    // A file that is gone is an error, too.
    std::fs::remove_file(scene.file("skein.toml")).unwrap();
    let log = scene.hang_up().await;
    assert!(log.contains("cannot be read"), "{log}");
    ping(&mut phone).await;
}

/// A token for alice by this secret.
fn signed(secret: &Path) -> String {
    let signer = Signer::from_file(secret, Some(Alg::HS256)).unwrap();
    let grant = Grant {
        user: &UserId::parse("alice").unwrap(),
        device: None,
        audience: "skein",
        issuer: None,
        issued: SystemTime::now(),
        ttl: Duration::from_secs(600),
    };
    signer.sign(&grant).unwrap()
}

#[tokio::test]
async fn token_keys_change_under_running_sessions() {
    let config = "[auth]\nkey_file = \"DIR/key\"\n";
    let scene = Scene::start(config, |dir| {
        for name in ["key", "old", "new"] {
            std::fs::write(dir.join(name), name.repeat(32)).unwrap();
        }
    });
    let (first, old, new) =
        (signed(&scene.file("key")), signed(&scene.file("old")), signed(&scene.file("new")));
    let mut phone = scene.connect().await;
    phone.enter(&first, "phone").await;

    // The same file with another key in it.
    std::fs::copy(scene.file("old"), scene.file("key")).unwrap();
    assert_eq!(scene.refused(&old, "tablet").await, number(Code::BadToken));
    scene.hang_up().await;
    assert_eq!(scene.refused(&first, "tablet").await, number(Code::BadToken));
    scene.connect().await.enter(&old, "tablet").await;
    ping(&mut phone).await;

    // Another file, while the one before is still good; and a third that is none.
    let both = "[auth]\nkeys = [{ file = \"DIR/old\" }, { file = \"DIR/new\" }]\n";
    scene.tell(both).await;
    for token in [&old, &new] {
        scene.connect().await.enter(token, "tablet").await;
    }
    let log =
        scene.tell("[auth]\nkeys = [{ file = \"DIR/new\" }, { file = \"DIR/nowhere\" }]\n").await;
    assert!(log.contains("skein.toml:2") && log.contains("nowhere"), "{log}");
    scene.connect().await.enter(&old, "tablet").await;
}
