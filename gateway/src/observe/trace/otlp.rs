//! Finished traces on their way to a collector: OTLP over HTTP, protobuf.
//!
//! A batch a second at most. A collector that does not answer costs the traces of that time and
//! nothing else.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Request, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self as otlp, ResourceSpans, ScopeSpans, Status};
use prost::Message;
use tokio::net::TcpStream;

use super::{Span, Trace, Tracer};

/// How often finished traces are looked for.
const PAUSE: Duration = Duration::from_secs(1);

/// A collector that has not taken a batch by then does not get it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Traces of one request: 64 spans each at the most, some 100 bytes a span.
const BATCH: usize = 256;

/// Path of OTLP over HTTP, where the address names none.
const PATH: &str = "/v1/traces";

/// Where a collector listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    authority: String,
    path: String,
}

impl Endpoint {
    /// Reads `http://HOST:PORT` or the same with a path. A collector is spoken to without TLS: it
    /// runs beside the gateway, and speaks TLS to others.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return None;
        }
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let port = authority.port_u16().unwrap_or(4318);
        let path = if uri.path() == "/" { PATH } else { uri.path() };
        Some(Self { authority: format!("{}:{port}", authority.host()), path: path.to_owned() })
    }
}

/// Sends finished traces for as long as it is polled, and all that are left when `end` comes.
pub async fn export(tracer: Arc<Tracer>, endpoint: Endpoint, end: impl Future<Output = ()>) {
    let mut end = std::pin::pin!(end);
    let mut works = true;
    loop {
        let is_end = tokio::select! {
            () = tokio::time::sleep(PAUSE) => false,
            () = &mut end => true,
        };
        let mut traces = tracer.take(is_end);
        while !traces.is_empty() {
            let rest = traces.split_off(traces.len().min(BATCH));
            let count = traces.len() as u64;
            let sent = tokio::time::timeout(PATIENCE, send(&endpoint, request_of(&traces))).await;
            let sent = sent.unwrap_or_else(|_| Err("it does not answer".into()));
            match &sent {
                Ok(()) => tracer.figures.exported.add_shared(count),
                Err(_) => {
                    tracer.figures.failed_exports.add_shared(1);
                    tracer.figures.dropped.add_shared(count);
                }
            }
            tell(&endpoint, &sent, &mut works);
            traces = rest;
        }
        if is_end {
            return;
        }
    }
}

/// One line when the collector stops taking traces, and one when it takes them again.
fn tell(endpoint: &Endpoint, sent: &Result<(), String>, works: &mut bool) {
    let collector = &endpoint.authority;
    match sent {
        Err(error) if *works => {
            tracing::warn!(%collector, error, "traces are dropped: the collector takes none");
        }
        Ok(()) if !*works => tracing::info!(%collector, "the collector takes traces again"),
        _ => {}
    }
    *works = sent.is_ok();
}

async fn send(endpoint: &Endpoint, body: Vec<u8>) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(&endpoint.authority).await.map_err(|error| text(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
    let request = Request::post(&endpoint.path)
        .header(HOST, &endpoint.authority)
        .header(CONTENT_TYPE, "application/x-protobuf")
        .body(Body::from(body))
        .map_err(|error| text(&error))?;
    let mut connection = std::pin::pin!(connection);
    let response = tokio::select! {
        response = sender.send_request(request) => response.map_err(|error| text(&error))?,
        ended = &mut connection => {
            let why = ended.err().map_or_else(String::new, |error| error.to_string());
            return Err(format!("it closed the connection {why}"));
        }
    };
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("it answers {status}")),
    }
}

fn request_of(traces: &[Trace]) -> Vec<u8> {
    let spans = traces.iter().flat_map(spans_of).collect();
    let scope = InstrumentationScope { name: "skein".into(), ..Default::default() };
    let attributes = vec![
        text("service.name", "skein".into()),
        text("service.version", env!("CARGO_PKG_VERSION").into()),
    ];
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes, ..Default::default() }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..Default::default() }],
            ..Default::default()
        }],
    };
    request.encode_to_vec()
}

fn spans_of(trace: &Trace) -> Vec<otlp::Span> {
    let root = span_id();
    let end = trace.spans.iter().map(|span| span.end).max().unwrap_or(trace.received);
    let mut attributes = vec![number("messaging.message.body.size", trace.bytes as i64)];
    if let Some((conversation, seq)) = trace.place {
        attributes.push(text("skein.conversation", conversation.to_string()));
        attributes.push(number("skein.seq", seq.try_into().unwrap_or(i64::MAX)));
    }
    if trace.left_out_spans > 0 {
        attributes.push(number("skein.spans_left_out", trace.left_out_spans.into()));
    }
    let mut all = vec![otlp::Span {
        trace_id: trace.id.to_vec(),
        span_id: root.clone(),
        name: "message".into(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(trace.received),
        end_time_unix_nano: nanos(end),
        attributes,
        ..Default::default()
    }];
    all.extend(trace.spans.iter().map(|span| child_of(trace, &root, span)));
    all
}

fn child_of(trace: &Trace, root: &[u8], span: &Span) -> otlp::Span {
    let error = |why: &str| Status { message: why.into(), code: StatusCode::Error.into() };
    otlp::Span {
        trace_id: trace.id.to_vec(),
        span_id: span_id(),
        parent_span_id: root.to_vec(),
        name: span.name.into(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end.max(span.start)),
        attributes: span.shard.map(|n| number("skein.shard", n as i64)).into_iter().collect(),
        status: span.failed.map(error),
        ..Default::default()
    }
}

/// Never all zeros.
fn span_id() -> Vec<u8> {
    (rand::random::<u64>() | 1).to_be_bytes().to_vec()
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn text(key: &str, value: String) -> KeyValue {
    attribute(key, Value::StringValue(value))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_collectors() {
        let parsed = |text: &str| Endpoint::parse(text).map(|it| it.authority + &it.path);
        assert_eq!(parsed("http://127.0.0.1:4318").as_deref(), Some("127.0.0.1:4318/v1/traces"));
        assert_eq!(parsed("http://otel/").as_deref(), Some("otel:4318/v1/traces"));
        assert_eq!(parsed("http://[::1]:9/x/y").as_deref(), Some("[::1]:9/x/y"));
        for wrong in ["", "otel:4318", "https://otel:4318", "http://", "http://a@b", "http://a/?x"]
        {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
