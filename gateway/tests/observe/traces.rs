//! Traces at a collector: a small receiver of OTLP over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use skein_protocol::ConversationId;
use skein_protocol::wire::{self, client_frame};

use crate::support::http::get;
use crate::support::process::{Gateway, Options};
use crate::support::raw::Raw;

/// Takes what gateways send, and ends with the test.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let spans = Arc::default();
        let collector = Self { address, spans: Arc::clone(&spans) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                spans.lock().unwrap().extend(receive(stream.unwrap()));
            }
        });
        collector
    }

    /// All spans of a trace, once there are so many.
    fn trace(&self, id: &[u8], at_least: usize) -> Vec<Span> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let spans = self.spans.lock().unwrap();
            let found: Vec<Span> =
                spans.iter().filter(|span| span.trace_id == id).cloned().collect();
            if found.len() >= at_least || Instant::now() > until {
                return found;
            }
            drop(spans);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn receive(stream: TcpStream) -> Vec<Span> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut head, mut length) = (String::new(), Vec::new(), 0);
    while reader.read_line(&mut line).unwrap() > 2 {
        let lower = line.trim().to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        head.push(lower);
        line.clear();
    }
    assert_eq!(head[0], "post /v1/traces http/1.1");
    assert!(head.contains(&"content-type: application/x-protobuf".to_owned()), "{head:?}");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    reader.into_inner().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
    let mut spans = Vec::new();
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        let name = attributes.iter().find(|it| it.key == "service.name").unwrap();
        let skein = Value::StringValue("skein".into());
        assert_eq!(name.value.clone().unwrap().value, Some(skein));
        spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    spans
}

fn options(collector: SocketAddr) -> Options {
    Options::default()
        .env("SKEIN_ADMIN__LISTEN", "127.0.0.1:0")
        .env("SKEIN_TRACE__ENDPOINT", format!("http://{collector}"))
        .env("SKEIN_TRACE__ONE_IN", 1)
}

async fn login(gateway: &Gateway, user: &str) -> Raw {
    Raw::login(gateway.address, &gateway.data, &gateway.token(user), "phone").await
}

fn conversation() -> ConversationId {
    let user = |name| skein_protocol::UserId::parse(name).unwrap();
    ConversationId::one_to_one(&user("alice"), &user("bob"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_followed_from_its_arrival_to_its_delivery() {
    let collector = Collector::start();
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options(collector.address));
    let (mut alice, mut bob) = (login(&gateway, "alice").await, login(&gateway, "bob").await);
    alice.message("bob", "m1", "a secret").await;
    let ack = alice.ack().await;
    assert_eq!(ack.trace_id.len(), 16);
    let message = bob.push().await;
    let cursor = wire::Cursor { conversation: message.conversation, seq: message.seq };
    bob.say(client_frame::Kind::Delivered(wire::Delivered { cursors: vec![cursor] })).await;

    let id = ack.trace_id.clone();
    let found = tokio::task::spawn_blocking(move || (collector.trace(&id, 6), collector));
    let (mut spans, collector) = found.await.unwrap();
    spans.sort_by_key(|span| (span.start_time_unix_nano, span.end_time_unix_nano));
    let root = spans.iter().find(|span| span.parent_span_id.is_empty()).unwrap().clone();
    assert_eq!(root.name, "message");
    let mut names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["ack", "append", "delivered", "message", "push", "queue"]);
    for span in spans.iter().filter(|span| span.span_id != root.span_id) {
        assert_eq!(span.parent_span_id, root.span_id, "{}", span.name);
        assert!(root.start_time_unix_nano <= span.start_time_unix_nano, "{}", span.name);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{}", span.name);
        assert!(span.end_time_unix_nano <= root.end_time_unix_nano, "{}", span.name);
    }
    let of = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    assert_eq!(of("queue").end_time_unix_nano, of("append").start_time_unix_nano);
    assert_eq!(of("append").end_time_unix_nano, of("ack").start_time_unix_nano);
    let said = format!("{root:?}");
    assert!(said.contains(&conversation().to_string()), "{said}");
    // Who talks, and what about, stays here.
    let all = format!("{spans:?}");
    assert!(!["alice", "bob", "secret"].iter().any(|word| all.contains(word)), "{all}");

    // What is under way when the gateway stops goes out, too: nobody has said that this arrived.
    alice.message("bob", "m2", "again").await;
    let second = alice.ack().await;
    bob.push().await;
    drop((alice, bob));
    gateway.terminate();
    let left = tokio::task::spawn_blocking(move || collector.trace(&second.trace_id, 5));
    assert_eq!(left.await.unwrap().len(), 5);
}

/// Whether anybody takes traces or not, messages go on, and it is counted and told once.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_costs_its_traces_alone() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options(nobody));
    let admin = gateway.admin.unwrap();
    let (mut alice, mut bob) = (login(&gateway, "alice").await, login(&gateway, "bob").await);
    let until = Instant::now() + Duration::from_secs(30);
    let mut sent = 0;
    loop {
        sent += 1;
        alice.message("bob", &format!("m{sent}"), "hello").await;
        alice.ack().await;
        let message = bob.push().await;
        let cursor = wire::Cursor { conversation: message.conversation, seq: message.seq };
        bob.say(client_frame::Kind::Delivered(wire::Delivered { cursors: vec![cursor] })).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let page = tokio::task::spawn_blocking(move || get(admin, "/metrics").body).await.unwrap();
        let line = page.lines().find(|line| line.starts_with("skein_trace_export_failures_total "));
        let failures: f64 = line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
        if failures >= 2.0 || Instant::now() > until {
            assert!(failures >= 2.0);
            break;
        }
    }
    assert_eq!(gateway.log().matches("the collector takes none").count(), 1, "{}", gateway.log());
}

#[tokio::test]
async fn without_a_collector_nothing_is_traced() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &Options::default());
    let mut alice = login(&gateway, "alice").await;
    alice.message("bob", "m1", "hello").await;
    assert!(alice.ack().await.trace_id.is_empty());
}
