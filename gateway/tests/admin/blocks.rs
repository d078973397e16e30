use std::time::Duration;

use serde_json::json;
use skein_protocol::Code;
use tempfile::tempdir;

use crate::api::Api;
use crate::support::process::Gateway;
use crate::support::raw::{Raw, close_code, close_delay, endpoint, lost};
use crate::{login, options, until};

const BLOCKED: u64 = Code::Blocked as u64;

async fn refused(gateway: &Gateway, user: &str) -> u64 {
    let mut raw = Raw::connect(gateway.address, &gateway.data).await;
    raw.hello(&gateway.token(user), "phone").await;
    raw.closed().await
}

/// `skein_limit_hits_total` of those who are shut out.
fn blocked_hits(api: &Api) -> u64 {
    let metrics = api.get("/metrics");
    let series = "skein_limit_hits_total{limit=\"blocked\"} ";
    metrics
        .as_str()
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix(series))
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_blocked_user_is_out_and_stays_out_over_a_restart() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let api = Api::of(&gateway);
    let mallory = login(&gateway, "mallory", "phone").await;
    let mut tablet = login(&gateway, "mallory", "tablet").await;
    let _alice = login(&gateway, "alice", "phone").await;
    let done = api.post("/v1/blocks", json!({ "user": "mallory", "reason": "spam" }));
    assert_eq!((&done["kicked"], &done["block"]["reason"]), (&json!(2), &json!("spam")));
    let kicked = lost(&mallory.connection).await;
    assert_eq!(
        (close_code(&kicked), close_delay(&kicked)),
        (BLOCKED, None),
        "until further notice"
    );
    assert_eq!(tablet.closed().await, BLOCKED);
    assert_eq!(refused(&gateway, "mallory").await, BLOCKED);
    // Nothing of the refused login stays.
    assert_eq!(api.get("/v1/sessions/count?user=mallory")["count"], 0);
    until("one session", || api.get("/v1/status")["sessions"] == 1).await;
    assert_eq!(api.get("/v1/status")["blocks_refused"], 1);
    assert_eq!(blocked_hits(&api), 1);
    drop(gateway);

    let gateway = Gateway::start(dir.path(), &options());
    let api = Api::of(&gateway);
    assert_eq!(refused(&gateway, "mallory").await, BLOCKED);
    let blocks = api.get("/v1/blocks");
    assert_eq!(blocks["blocks"].as_array().unwrap().len(), 1);
    assert_eq!(blocks["blocks"][0]["user"], "mallory");
    api.delete("/v1/blocks?user=mallory");
    assert_eq!(api.call("DELETE", "/v1/blocks?user=mallory", None).0, 404);
    login(&gateway, "mallory", "phone").await;
}

#[tokio::test]
async fn a_blocked_address_is_out_for_as_long_as_it_was_said() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let api = Api::of(&gateway);
    let alice = login(&gateway, "alice", "phone").await;
    let stranger = Raw::connect(gateway.address, dir.path()).await;
    // A client has done its part of the handshake before the gateway has.
    until("two connections", || api.get("/v1/sessions/count")["count"] == 2).await;
    let done = api.post("/v1/blocks", json!({ "address": "127.0.0.1/8", "for": "6s" }));
    assert_eq!((&done["kicked"], &done["block"]["address"]), (&json!(2), &json!("127.0.0.0/8")));
    let kicked = lost(&alice.connection).await;
    assert_eq!(
        (close_code(&kicked), close_delay(&kicked)),
        (BLOCKED, Some(Duration::from_secs(6)))
    );
    assert_eq!(close_code(&lost(&stranger.connection).await), BLOCKED);
    let endpoint = endpoint(dir.path(), skein_protocol::ALPN);
    let connection = endpoint.connect(gateway.address, "localhost").unwrap().await.unwrap();
    let lost = lost(&connection).await;
    assert_eq!(close_code(&lost), BLOCKED);
    let left = close_delay(&lost).expect("it has an end");
    assert!(left <= Duration::from_secs(6), "{left:?}");
    assert_eq!(blocked_hits(&api), 1);
    // Its time comes to an end by itself.
    until("the block is over", || api.get("/v1/blocks")["blocks"].as_array().unwrap().is_empty())
        .await;
    login(&gateway, "alice", "phone").await;

    // Others are not concerned.
    assert_eq!(api.post("/v1/blocks", json!({ "address": "10.0.0.0/8" }))["kicked"], 0);
    login(&gateway, "bob", "phone").await;
    for wrong in [
        json!({}),
        json!({ "user": "a", "address": "10.0.0.1" }),
        json!({ "address": "10.0.0" }),
        json!({ "user": "" }),
        json!({ "user": "a", "for": "soon" }),
        json!({ "user": "a", "reason": "x".repeat(257) }),
        json!({ "usr": "a" }),
    ] {
        assert_eq!(api.call("POST", "/v1/blocks", Some(&wrong)).0, 400, "{wrong}");
    }
}
