use serde_json::json;
use tempfile::tempdir;

use crate::api::Api;
use crate::ctl::ctl;
use crate::options;
use crate::support::process::Gateway;

#[test]
fn the_log_level_changes_while_it_is_written() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options().env("SKEIN_LOG", "error"));
    let api = Api::of(&gateway);
    assert_eq!(api.get("/v1/log"), json!({ "level": "error" }));
    api.post("/v1/drain", json!({}));
    assert!(!gateway.log().contains("draining"), "{}", gateway.log());
    assert_eq!(ctl(&gateway, &["log", "info"]).out, "info\n");
    assert_eq!(ctl(&gateway, &["log"]).out, "info\n");
    api.post("/v1/drain", json!({}));
    assert!(gateway.log().contains("draining"), "{}", gateway.log());
    let wrong = ctl(&gateway, &["log", "loud"]);
    assert_eq!(wrong.status, 1);
    assert!(wrong.err.contains("400: `level` = \"loud\": must be off"), "{}", wrong.err);
    assert_eq!(api.get("/v1/log"), json!({ "level": "info" }));
}

#[test]
fn a_reload_tells_what_changed_and_what_is_wrong() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("skein.toml");
    std::fs::write(&file, "[limits]\nmax_sessions = 10\n").unwrap();
    let gateway = Gateway::start(dir.path(), &options().env("SKEIN_CONFIG", file.display()));
    std::fs::write(&file, "lanes = 8\n[limits]\nmax_sessions = 20\n").unwrap();
    let ran = ctl(&gateway, &["reload"]);
    assert_eq!(
        ran.out,
        "what\tkey\tfrom\tto\n\
         changed\tlimits.max_sessions\t10\t20\n\
         needs a restart\tlanes\t16\t8\n",
        "{}",
        ran.err
    );
    std::fs::write(&file, "lane = 8\n[limits]\nmax_sessions = 0\n").unwrap();
    let ran = ctl(&gateway, &["reload"]);
    assert_eq!(ran.status, 1);
    for expected in ["422: ", "the nearest right one is `lanes`", "`limits.max_sessions` = 0"] {
        assert!(ran.err.contains(expected), "{expected}: {}", ran.err);
    }
    let (status, again) = Api::of(&gateway).call("POST", "/v1/reload", None);
    assert_eq!((status, again["changed"].clone()), (422, serde_json::Value::Null));
}
