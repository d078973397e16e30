//! The API as any HTTP client has it, and its lock.

use serde_json::Value;
use tempfile::tempdir;

use crate::options;
use crate::support::process::Gateway;

/// A client with a token.
pub(crate) struct Api {
    agent: ureq::Agent,
    base: String,
    token: String,
}

impl Api {
    pub(crate) fn of(gateway: &Gateway) -> Self {
        let token = std::fs::read_to_string(gateway.data.join("admin-token")).unwrap();
        Self::with_token(gateway, token.trim_end())
    }

    pub(crate) fn with_token(gateway: &Gateway, token: &str) -> Self {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
        let base = format!("http://{}", gateway.admin.unwrap());
        Self { agent: agent.new_agent(), base, token: token.into() }
    }

    /// Status and body; `null` for none.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token));
        let body = body.map_or_else(String::new, Value::to_string);
        let mut answer = self.agent.run(request.body(body).unwrap()).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let body = match answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()) {
            Some("application/json") => serde_json::from_str(&text).unwrap(),
            Some(_) => Value::String(text),
            None => Value::Null,
        };
        (answer.status().as_u16(), body)
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.good("GET", path, None)
    }

    pub(crate) fn post(&self, path: &str, body: Value) -> Value {
        self.good("POST", path, Some(&body))
    }

    pub(crate) fn delete(&self, path: &str) -> Value {
        self.good("DELETE", path, None)
    }

    fn good(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.call(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }
}

#[test]
fn nothing_is_told_or_done_without_the_token() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let right = std::fs::read_to_string(dir.path().join("admin-token")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(dir.path().join("admin-token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    for wrong in ["", "x", &right.trim_end()[1..], &format!("{}0", right.trim_end())] {
        let api = Api::with_token(&gateway, wrong);
        for (method, path) in
            [("GET", "/v1/sessions"), ("POST", "/v1/drain"), ("DELETE", "/v1/blocks?user=a")]
        {
            let (status, body) = api.call(method, path, None);
            assert_eq!(status, 401, "{method} {path}: {body}");
            assert!(body["error"].as_str().unwrap().contains("admin.token_file"));
        }
    }
    assert_eq!(Api::of(&gateway).get("/v1/drain")["draining"], false);
    // A token of one's own, and it is not made elsewhere.
    drop(gateway);
    let file = dir.path().join("mine");
    std::fs::write(&file, "a token of one's own".replace(' ', "-") + "\n").unwrap();
    let gateway =
        Gateway::start(dir.path(), &options().env("SKEIN_ADMIN__TOKEN_FILE", file.display()));
    assert_eq!(Api::with_token(&gateway, "a-token-of-one's-own").get("/v1/status")["sessions"], 0);
    assert_eq!(Api::of(&gateway).call("GET", "/v1/status", None).0, 401);
}

#[test]
fn the_token_is_changed_by_a_reload() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let (file, before) = (dir.path().join("admin-token"), Api::of(&gateway));
    std::fs::write(&file, "short\n").unwrap();
    let (status, refused) = before.call("POST", "/v1/reload", None);
    assert_eq!(status, 422, "{refused}");
    assert!(refused.to_string().contains("admin.token_file"), "{refused}");
    // Gone, another one is made.
    std::fs::remove_file(&file).unwrap();
    before.good("POST", "/v1/reload", None);
    let after = Api::of(&gateway);
    assert_ne!(before.token, after.token);
    assert_eq!(before.call("GET", "/v1/status", None).0, 401);
    assert_eq!(after.get("/v1/status")["sessions"], 0);
}
