//! docs/openapi.json says what the code says, and the server does what it says.
//! `SKEIN_UPDATE=1` writes it anew.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::api::Api;
use crate::schema::check;
use crate::support::process::Gateway;
use crate::{login, options};

#[test]
fn the_description_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let text = skein_gateway::admin::description().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("SKEIN_UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == text,
        "docs/openapi.json is not current: SKEIN_UPDATE=1 cargo test -p skein-gateway --test admin"
    );
}

/// Method, path as described, path as asked, body, status.
type Call = (&'static str, &'static str, String, Option<Value>, u16);

fn calls(session: &str) -> Vec<Call> {
    let call =
        |method, path: &'static str, status| (method, path, path.to_owned(), None::<Value>, status);
    let with = |method, path, asked: &str, status| (method, path, asked.to_owned(), None, status);
    let body = |method, path: &'static str, body, status| {
        (method, path, path.to_owned(), Some(body), status)
    };
    vec![
        call("get", "/livez", 200),
        call("get", "/readyz", 200),
        call("get", "/version", 200),
        call("get", "/metrics", 200),
        call("get", "/v1/status", 200),
        call("get", "/v1/sessions", 200),
        with("get", "/v1/sessions", "/v1/sessions?user=alice&limit=1", 200),
        with("get", "/v1/sessions", "/v1/sessions?limit=0", 400),
        with("get", "/v1/sessions", "/v1/sessions?after=x", 400),
        call("get", "/v1/sessions/count", 200),
        with("get", "/v1/sessions/count", "/v1/sessions/count?address=x", 400),
        with("get", "/v1/sessions/{id}", &format!("/v1/sessions/{session}"), 200),
        with("get", "/v1/sessions/{id}", "/v1/sessions/c0.99.0", 404),
        call("post", "/v1/reload", 200),
        call("get", "/v1/log", 200),
        body("put", "/v1/log", json!({ "level": "warn,skein_gateway=info" }), 200),
        body("put", "/v1/log", json!({ "level": "loud" }), 400),
        call("get", "/v1/shards", 200),
        with("get", "/v1/shards/{shard}", "/v1/shards/1", 200),
        with("get", "/v1/shards/{shard}", "/v1/shards/9", 404),
        call("get", "/v1/top", 200),
        with("get", "/v1/top", "/v1/top?by=outbox_bytes&over=1s", 200),
        with("get", "/v1/top", "/v1/top?by=noise", 400),
        body("post", "/v1/notice", json!({ "text": "hello" }), 200),
        body("post", "/v1/notice", json!({}), 400),
        body("post", "/v1/blocks", json!({ "user": "mallory", "for": "1h" }), 200),
        body("post", "/v1/blocks", json!({ "address": "192.0.2.1" }), 200),
        body("post", "/v1/blocks", json!({}), 400),
        call("get", "/v1/blocks", 200),
        with("delete", "/v1/blocks", "/v1/blocks?user=mallory", 204),
        with("delete", "/v1/blocks", "/v1/blocks?user=mallory", 404),
        with("delete", "/v1/blocks", "/v1/blocks", 400),
        body("post", "/v1/drain", json!({ "over": "10s" }), 200),
        body("post", "/v1/drain", json!({ "over": "soon" }), 400),
        call("get", "/v1/drain", 200),
        call("delete", "/v1/drain", 200),
        body("post", "/v1/kick", json!({ "user": "alice", "reason": "r" }), 200),
        body("post", "/v1/kick", json!({}), 400),
    ]
}

#[tokio::test]
async fn the_server_does_what_the_description_says() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let api = Api::of(&gateway);
    let _alice = login(&gateway, "alice", "phone").await;
    let session = api.get("/v1/sessions?user=alice")["sessions"][0]["id"].clone();
    // For everybody, so that clients can be made of it.
    let told = Api::with_token(&gateway, "").get("/v1/openapi.json");
    let text = skein_gateway::admin::description().to_json().unwrap();
    assert_eq!(told, serde_json::from_str::<Value>(&text).unwrap());

    let mut tried = BTreeSet::new();
    let mut wrong = Vec::new();
    for (method, path, asked, body, expected) in calls(session.as_str().unwrap()) {
        let (status, answer) = api.call(&method.to_uppercase(), &asked, body.as_ref());
        let name = format!("{method} {asked}");
        assert_eq!(status, expected, "{name}: {answer}");
        tried.insert((method, path));
        let described = &told["paths"][path][method]["responses"][status.to_string()];
        assert!(described.is_object(), "{name}: {status} is not described");
        match &described["content"]["application/json"]["schema"] {
            Value::Null => {
                assert_eq!(answer.is_string(), described["content"].is_object(), "{name}")
            }
            schema => wrong.extend(check(&told, schema, &answer, &name)),
        }
    }
    assert_eq!(wrong, [""; 0]);

    let mut described = BTreeSet::new();
    for (path, methods) in told["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            described.insert((method.as_str(), path.as_str()));
            for key in ["summary", "responses", "tags"] {
                assert!(!operation[key].is_null(), "{method} {path}: no {key}");
            }
            let asked = path.replace("{id}", "c0.0.0").replace("{shard}", "0");
            let locked = Api::with_token(&gateway, "").call(&method.to_uppercase(), &asked, None);
            let is_open = operation["security"] == json!([]);
            assert_eq!(is_open, !path.starts_with("/v1/"), "{method} {path}");
            assert_eq!(locked.0, if is_open { 200 } else { 401 }, "{method} {path}");
            assert_eq!(operation["responses"]["401"].is_object(), !is_open, "{method} {path}");
        }
        for method in ["get", "put", "post", "delete", "patch"] {
            if !methods.as_object().unwrap().contains_key(method) {
                let asked = path.replace("{id}", "c0.0.0").replace("{shard}", "0");
                let (status, _) = api.call(&method.to_uppercase(), &asked, None);
                assert_eq!(status, 405, "{method} {path} is answered and not described");
            }
        }
    }
    assert_eq!(tried, described, "each operation is tried");
}

#[test]
fn the_check_sees_what_is_wrong() {
    let api = json!({ "components": { "schemas": { "Name": { "type": "string" } } } });
    let schema = json!({
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": { "type": "integer" },
            "b": { "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/Name" }] },
            "c": { "type": "array", "items": { "type": "string", "enum": ["x"] } }
        }
    });
    let good = |value: Value| check(&api, &schema, &value, "").is_empty();
    assert!(good(json!({ "a": 1, "b": null, "c": ["x"] })) && good(json!({ "a": 1, "b": "n" })));
    for wrong in [
        json!({}),
        json!([]),
        json!({ "a": "1" }),
        json!({ "a": 1, "b": 2 }),
        json!({ "a": 1, "c": ["y"] }),
        json!({ "a": 1, "d": 1 }),
    ] {
        assert!(!good(wrong.clone()), "{wrong}");
    }
}
