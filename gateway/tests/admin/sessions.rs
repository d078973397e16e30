use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skein_protocol::Code;
use skein_protocol::wire::server_frame;
use tempfile::tempdir;

use crate::api::Api;
use crate::support::process::Gateway;
use crate::support::raw::{Raw, endpoint_with, tls};
use crate::{login, options, until};

fn names(page: &Value) -> Vec<String> {
    let sessions = page["sessions"].as_array().unwrap().iter();
    let mut names: Vec<String> =
        sessions.map(|s| format!("{}/{}", s["user"].as_str().unwrap(), s["device"])).collect();
    names.sort();
    names
}

#[tokio::test]
async fn sessions_are_listed_counted_and_inspected() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let api = Api::of(&gateway);
    let mut alice = login(&gateway, "alice", "phone").await;
    let _tablet = login(&gateway, "alice", "tablet").await;
    let bob = login(&gateway, "bob", "phone").await;
    let _stranger = Raw::connect(gateway.address, dir.path()).await;
    alice.message("bob", "m1", &"x".repeat(5000)).await;
    alice.ack().await;
    until("four connections", || api.get("/v1/sessions/count")["count"] == 4).await;

    let count = |query: &str| api.get(&format!("/v1/sessions/count?{query}"))["count"].clone();
    for (query, expected) in [
        ("logged_in=true", 3),
        ("logged_in=false", 1),
        ("user=alice", 2),
        ("device=phone", 2),
        ("user=alice&device=tablet", 1),
        ("user=nobody", 0),
        ("address=127.0.0.0/8", 4),
        ("address=127.0.0.1", 4),
        ("address=10.0.0.0/8", 0),
        ("idle_over=0s", 4),
        ("idle_over=1h", 0),
        ("behind=true", 0),
    ] {
        assert_eq!(count(query), expected, "{query}");
    }
    let listed = names(&api.get("/v1/sessions?logged_in=true"));
    assert_eq!(listed, [r#"alice/"phone""#, r#"alice/"tablet""#, r#"bob/"phone""#]);
    assert_eq!(names(&api.get("/v1/sessions?user=bob")), [r#"bob/"phone""#]);

    let found = api.get("/v1/sessions?user=alice&device=phone")["sessions"][0].clone();
    let id = found["id"].as_str().unwrap();
    let session = api.get(&format!("/v1/sessions/{id}"));
    assert_eq!(session["user"], "alice");
    assert_eq!((&session["transport"], &session["state"]), (&json!("quic"), &json!("live")));
    let local = alice.endpoint.local_addr().unwrap();
    assert_eq!(session["address"], format!("127.0.0.1:{}", local.port()));
    assert!(session["bytes_in"].as_u64().unwrap() > 5000, "{session}");
    assert!(session["rtt_ms"].as_f64().unwrap() > 0.0, "{session}");
    assert!(session["sent_packets"].as_u64().unwrap() > 0, "{session}");
    for wrong in ["c9.9.9", "c200.0.0", "alice"] {
        assert_eq!(api.call("GET", &format!("/v1/sessions/{wrong}"), None).0, 404, "{wrong}");
    }
    assert_eq!(api.call("GET", "/v1/sessions?usr=a", None).0, 400);

    // Who has gone is not found any more, even where another one has taken the place.
    drop(alice);
    until("alice has gone", || count("user=alice") == 1).await;
    assert_eq!(api.call("GET", &format!("/v1/sessions/{id}"), None).0, 404);
    drop(bob);
}

#[tokio::test]
async fn a_long_list_comes_in_pages_and_everybody_is_on_one() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let api = Api::of(&gateway);
    let mut all = Vec::new();
    for n in 0..25 {
        all.push(login(&gateway, &format!("user-{n}"), "phone").await);
    }
    let (mut found, mut after, mut pages) = (BTreeSet::new(), String::new(), 0);
    loop {
        let page = api.get(&format!("/v1/sessions?limit=4{after}"));
        let sessions = page["sessions"].as_array().unwrap();
        assert!(sessions.len() <= 4);
        for session in sessions {
            let user = session["user"].as_str().unwrap().to_owned();
            assert!(found.insert(user), "on two pages: {session}");
        }
        pages += 1;
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(found.len(), 25);
    assert!(pages >= 7, "{pages}");
}

#[tokio::test]
async fn a_kicked_session_sends_and_receives_nothing_more() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let api = Api::of(&gateway);
    let mut alice = login(&gateway, "alice", "phone").await;
    let mut tablet = login(&gateway, "alice", "tablet").await;
    let mut bob = login(&gateway, "bob", "phone").await;
    bob.message("alice", "m1", "before").await;
    assert_eq!(&alice.push().await.payload[..], b"before");
    assert_eq!(&tablet.push().await.payload[..], b"before");

    let began = Instant::now();
    let wish = json!({ "user": "alice", "device": "phone", "reason": "lost phone" });
    assert_eq!(api.post("/v1/kick", wish)["kicked"], 1);
    // From the answer on: not "soon".
    alice.message("bob", "m2", "from beyond").await;
    bob.message("alice", "m3", "after").await;
    assert_eq!(&tablet.push().await.payload[..], b"after");
    let mut seen = Vec::new();
    let code = loop {
        match alice.next().await {
            Ok(server_frame::Kind::Push(push)) => seen.extend(push.messages),
            Ok(_) => {}
            Err(code) => break code,
        }
    };
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(code, u64::from(Code::Kicked.number()));
    assert_eq!(seen, [], "it was kicked before");
    let log: Vec<_> = bob.pull("alice", 1, 0, false).await;
    assert_eq!(log.iter().map(|m| m.client_msg_id.as_str()).collect::<Vec<_>>(), ["m1", "m3"]);

    // It may come back, and be told to.
    let mut alice = login(&gateway, "alice", "phone").await;
    let found = api.get("/v1/sessions?user=alice&device=phone")["sessions"][0]["id"].clone();
    let wish = json!({ "session": found, "reconnect": true });
    assert_eq!(api.post("/v1/kick", wish.clone())["kicked"], 1);
    assert_eq!(alice.closed().await, u64::from(Code::GoingAway.number()));
    assert_eq!(api.post("/v1/kick", wish)["kicked"], 0);
    assert_eq!(api.call("POST", "/v1/kick", Some(&json!({ "reason": "all" }))).0, 400);
    assert_eq!(api.get("/v1/sessions/count")["count"], 2);
}

/// Somebody sends without a pause; the kick does not wait for a gap, and what was acknowledged is
/// what is in the log.
#[tokio::test]
async fn a_kick_takes_effect_at_once_under_load() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let api = Api::of(&gateway);
    let mut alice = login(&gateway, "alice", "phone").await;
    let bob = login(&gateway, "bob", "phone").await;
    let mut sent = 0;
    for _ in 0..40 {
        sent += 1;
        alice.message("bob", &format!("m{sent}"), "again and again").await;
    }
    let kicked = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let answer = api.post("/v1/kick", json!({ "user": "alice" }));
        (answer["kicked"].clone(), began.elapsed())
    });
    let mut acked = 0;
    let code = loop {
        match alice.next().await {
            Ok(server_frame::Kind::SendAck(ack)) => {
                acked = ack.seq;
                sent += 1;
                alice.message("bob", &format!("m{sent}"), "again and again").await;
            }
            Ok(_) => {}
            Err(code) => break code,
        }
    };
    let (kicked, took) = kicked.await.unwrap();
    assert_eq!((kicked, code), (json!(1), u64::from(Code::Kicked.number())));
    assert!(took < Duration::from_secs(1), "{took:?}");
    // What came before the kick may still be written; after it nothing grows any more.
    let head = || async { bob.pull("alice", 1, 0, false).await.len() as u64 };
    let mut known = head().await;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = head().await;
        if now == known {
            break;
        }
        known = now;
    }
    assert!(known >= acked && known <= sent, "{acked} acknowledged, {known} there, {sent} sent");
}

#[tokio::test]
async fn a_notice_reaches_everybody_or_one_user() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let api = Api::of(&gateway);
    let mut alice = login(&gateway, "alice", "phone").await;
    let mut bob = login(&gateway, "bob", "phone").await;
    let mut stranger = Raw::connect(gateway.address, dir.path()).await;
    let notice = |kind| match kind {
        server_frame::Kind::SystemNotice(notice) => Some(notice.text),
        _ => None,
    };
    assert_eq!(api.post("/v1/notice", json!({ "text": "for bob", "user": "bob" }))["told"], 1);
    assert_eq!(api.post("/v1/notice", json!({ "text": "to all" }))["told"], 2);
    assert_eq!(alice.wait_for(notice).await.unwrap(), "to all");
    assert_eq!(bob.wait_for(notice).await.unwrap(), "for bob");
    assert_eq!(bob.wait_for(notice).await.unwrap(), "to all");
    for wrong in ["", &"x".repeat(1025)] {
        assert_eq!(api.call("POST", "/v1/notice", Some(&json!({ "text": wrong }))).0, 400);
    }
    stranger.enter(&gateway.token("carol"), "phone").await;
}

#[tokio::test]
async fn whoever_reads_too_slowly_for_a_notice_is_not_counted_as_told() {
    let dir = tempdir().unwrap();
    let options = options()
        .env("SKEIN_LIMITS__MAX_FRAME_BYTES", "8KiB")
        .env("SKEIN_LIMITS__MAX_PAYLOAD_BYTES", "4KiB")
        .env("SKEIN_LIMITS__MAX_UNACKED_SENDS", 16)
        .env("SKEIN_LIMITS__OUTBOX_BYTES", "16KiB");
    let gateway = Gateway::start(dir.path(), &options);
    let api = Api::of(&gateway);
    let mut alice = login(&gateway, "alice", "phone").await;
    let mut transport = quinn::TransportConfig::default();
    transport.receive_window(4096u32.into()).stream_receive_window(4096u32.into());
    let tls = tls(dir.path(), &[skein_protocol::ALPN]);
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = endpoint_with(Arc::new(crypto), transport);
    let mut slow = Raw::connect_from(endpoint, gateway.address).await;
    slow.enter(&gateway.token("slow"), "phone").await;
    // Until a push has no room any more, which is smaller than the notice.
    for n in 0..100 {
        alice.message("slow", &format!("m{n}"), &"x".repeat(500)).await;
        alice.ack().await;
    }
    until("one is behind", || api.get("/v1/sessions/count?behind=true")["count"] == 1).await;
    let told = api.post("/v1/notice", json!({ "text": "x".repeat(1024) }));
    assert_eq!(told["told"], 1);
    assert_eq!(api.post("/v1/kick", json!({ "user": "slow" }))["kicked"], 1);
}

#[tokio::test]
async fn shards_tell_what_they_do_and_talkers_are_found() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let api = Api::of(&gateway);
    let mut loud = login(&gateway, "loud", "phone").await;
    let _quiet = login(&gateway, "quiet", "phone").await;
    for n in 0..20 {
        loud.message("bob", &format!("m{n}"), &"x".repeat(10_000)).await;
        loud.ack().await;
    }
    let top = api.get("/v1/top?limit=1");
    assert_eq!((&top["by"], &top["over_seconds"]), (&json!("bytes_in"), &Value::Null));
    assert_eq!(top["talkers"].as_array().unwrap().len(), 1);
    assert_eq!(top["talkers"][0]["session"]["user"], "loud");
    assert!(top["talkers"][0]["value"].as_u64().unwrap() > 200_000);
    // Whoever was loud before is not loud now.
    let mut talker = login(&gateway, "talker", "phone").await;
    let asked = tokio::task::spawn_blocking({
        let api = Api::of(&gateway);
        move || api.get("/v1/top?by=bytes_in&over=1s&limit=1")
    });
    for n in 0..200 {
        talker.message("bob", &format!("m{n}"), &"x".repeat(1000)).await;
        talker.ack().await;
        if asked.is_finished() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(asked.await.unwrap()["talkers"][0]["session"]["user"], "talker");

    let shards = api.get("/v1/shards");
    let shards = shards["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 2);
    let all: u64 = shards.iter().map(|shard| shard["connections"].as_u64().unwrap()).sum();
    assert_eq!(all, 3);
    assert!(shards[0]["counters"]["turns"].as_u64().unwrap() > 0);
    let live: u64 = (0..2)
        .map(|n| api.get(&format!("/v1/shards/{n}"))["sessions"]["live"].as_u64().unwrap())
        .sum();
    assert_eq!(live, 3);
    assert_eq!(api.call("GET", "/v1/shards/2", None).0, 404);
}
