//! Requests to a gateway, and its answers or why there are none.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::table;
use crate::cli::Failure;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Longest wait for an answer: the gateway gives a request up before that.
const ANSWER: Duration = Duration::from_secs(130);

/// A gateway's admin listener.
pub(super) struct Gateway {
    agent: Agent,
    address: SocketAddr,
    token: Option<String>,
}

impl Gateway {
    /// Without a token only what is told to everybody is answered.
    pub(super) fn new(address: SocketAddr, token: Option<String>) -> Self {
        let agent = Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(ANSWER))
            // The body says what is wrong.
            .http_status_as_error(false)
            // A token must not go to whatever proxy the environment names.
            .proxy(None)
            .build()
            .new_agent();
        Self { agent, address, token }
    }

    pub(super) fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        let request = self.agent.get(self.url(path)).header("authorization", self.bearer());
        self.answer(request.query_pairs(pairs(query)).call())
    }

    /// Whether it can go on. The answer is a word for people, so its status alone counts.
    pub(super) fn alive(&self) -> Result<(), Failure> {
        self.text(self.agent.get(self.url("/livez")).call()).map(drop)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.agent.post(self.url(path)).header("authorization", self.bearer());
        self.answer(request.send_json(body))
    }

    pub(super) fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.agent.put(self.url(path)).header("authorization", self.bearer());
        self.answer(request.send_json(body))
    }

    pub(super) fn delete(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        let request = self.agent.delete(self.url(path)).header("authorization", self.bearer());
        self.answer(request.query_pairs(pairs(query)).call())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token.as_deref().unwrap_or_default())
    }

    fn answer(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Value, Failure> {
        let text = self.text(answer)?;
        // Nothing to tell is told by an empty body.
        let text = if text.is_empty() { "null" } else { &text };
        serde_json::from_str(text).map_err(|error| {
            Failure::Failed(format!("http://{} is no admin listener: {error}", self.address))
        })
    }

    /// The body of an answer that is good.
    fn text(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<String, Failure> {
        let address = self.address;
        let mut answer = answer.map_err(|error| {
            Failure::Failed(format!(
                "no answer from http://{address}: {error}; is it `admin.listen` of a gateway that \
                 runs? Name another one with --admin"
            ))
        })?;
        let status = answer.status();
        let text = answer.body_mut().read_to_string();
        let text = text.map_err(|error| Failure::new("the answer cannot be read", error))?;
        if status.is_success() {
            return Ok(text);
        }
        let body: Option<Value> = serde_json::from_str(&text).ok();
        let error = match &body {
            Some(body) if body["error"].is_string() => table::cell(&body["error"]),
            // `/readyz`.
            Some(body) if body["reasons"].is_array() => table::cell(&body["reasons"]),
            _ => text.trim().to_owned(),
        };
        Err(Failure::Failed(format!("the gateway says {}: {error}", status.as_u16())))
    }
}

fn pairs<'a>(query: &'a [(&str, String)]) -> impl Iterator<Item = (&'a str, &'a str)> {
    query.iter().map(|(name, value)| (*name, value.as_str()))
}
