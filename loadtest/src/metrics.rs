//! Figures of a running run for Prometheus, on request: `--metrics HOST:PORT`.
//!
//! `prometheus-client`, the library of the Prometheus project, writes the text; `hyper` speaks HTTP.
//! One thread of its own serves it, with few connections at a time, so that nobody who asks can
//! disturb the load. What is served is the last snapshot: rates and times are of the last whole
//! second, counts are of the whole run.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

use crate::outcome::{Phase, Snapshot};

/// Connections at a time; further ones wait in the kernel.
const MAX_CONNECTIONS: usize = 8;

/// A client that has not said what it wants by then is dropped.
const PATIENCE: Duration = Duration::from_secs(5);

/// Served as long as the process lives.
#[derive(Debug, Clone)]
pub struct Metrics {
    latest: Arc<Mutex<Snapshot>>,
    address: SocketAddr,
}

impl Metrics {
    /// Begins to serve at an address.
    ///
    /// # Errors
    /// The address cannot be bound, or no thread can be had.
    pub fn serve(address: impl std::net::ToSocketAddrs) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let latest = Arc::new(Mutex::new(Snapshot::default()));
        let metrics = Self { latest: latest.clone(), address: listener.local_addr()? };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut registry = Registry::with_prefix("skein_load");
        registry.register_collector(Box::new(Latest(latest)));
        std::thread::Builder::new().name("metrics".into()).spawn(move || {
            // Ends with the process. A listener that breaks serves nothing more; the run goes on.
            if let Err(error) = runtime.block_on(accept(listener, Arc::new(registry))) {
                tracing::warn!(%error, "figures for Prometheus are not served any more");
            }
        })?;
        Ok(metrics)
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to say from now on.
    pub fn set(&self, snapshot: &Snapshot) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = snapshot.clone();
    }
}

async fn accept(listener: TcpListener, registry: Arc<Registry>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Of one connection, or for want of descriptors: both pass.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let registry = registry.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let response = answer(&request, &registry);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away takes nothing with it.
            let _ = tokio::time::timeout(2 * PATIENCE, connection).await;
            drop(place);
        });
    }
}

fn answer<B>(request: &Request<B>, registry: &Registry) -> Response<String> {
    let plain = |status, text: &str| {
        let mut response = Response::new(text.to_owned());
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "figures are at /metrics\n");
    }
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
    }
    let mut body = String::new();
    if text::encode(&mut body, registry).is_err() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the figures cannot be written\n");
    }
    let mut response = Response::new(body);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// Writes the last snapshot each time it is asked.
#[derive(Debug)]
struct Latest(Arc<Mutex<Snapshot>>);

impl Collector for Latest {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut out = Out(&mut encoder);
        out.run(&snapshot)?;
        out.second(&snapshot)
    }
}

/// Labels and a value.
type Labelled<V> = (Vec<(&'static str, String)>, V);

struct Out<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Out<'_, '_> {
    /// What is true of the whole run.
    fn run(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let phases = [Phase::Ramp, Phase::WarmUp, Phase::Measured, Phase::Drain, Phase::Over];
        let phase = phases.map(|phase| {
            let word = serde_json::to_value(phase).ok();
            let word = word.and_then(|word| word.as_str().map(ToOwned::to_owned));
            let is_now = f64::from(u8::from(phase == snapshot.phase));
            (vec![("phase", word.unwrap_or_default())], is_now)
        });
        self.gauges("phase", "1 for the phase that the run is in", phase)?;
        self.gauge("elapsed_seconds", "Since the start of the run", snapshot.elapsed)?;
        let valid = f64::from(u8::from(snapshot.reasons.is_empty()));
        self.gauge("valid", "1 as long as nothing is known against the figures", valid)?;
        let sessions = &snapshot.sessions;
        let states = [
            ("planned", sessions.planned),
            ("connected", sessions.connected),
            ("connecting", snapshot.connecting),
        ];
        self.gauges("sessions", "Sessions", states.map(|(s, n)| (state(s), n as f64)))?;
        let ends = [("lost", sessions.lost), ("failed", sessions.failed)];
        let help = "Sessions that ended, or attempts that failed, against the plan";
        self.counters("session_ends", help, ends.map(|(s, n)| (state(s), n)))?;
        let found = &snapshot.correctness;
        let messages =
            [("sent", found.sent), ("acked", found.acked), ("delivered", found.delivered)];
        self.counters("messages", "Messages", messages.map(|(s, n)| (state(s), n)))?;
        let wrong = [
            ("lost", found.lost),
            ("unchecked", found.unchecked),
            ("duplicated", found.duplicated),
            ("reordered", found.reordered),
            ("corrupted", found.corrupted),
            ("false_acks", found.false_acks),
            ("misdelivered", found.misdelivered),
        ];
        let help = "Messages that were not treated as they must be";
        self.counters("wrong_messages", help, wrong.map(|(s, n)| (vec![("kind", s.into())], n)))
    }

    /// What is true of the last second.
    fn second(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let Some(point) = &snapshot.last else { return Ok(()) };
        let side = |side: &str| vec![("side", side.to_owned())];
        let mut cores = vec![(side("generator"), point.generator_cpu)];
        cores.extend(point.target_cpu.map(|cpu| (side("gateway"), cpu)));
        self.gauges("cpu_cores", "Cores in use in the last second", cores)?;
        let mut memory = vec![(side("generator"), point.generator_rss as f64)];
        memory.extend(point.target_rss.map(|rss| (side("gateway"), rss as f64)));
        self.gauges("resident_bytes", "Resident memory", memory)?;

        let health = &point.health;
        let help = "Share of a core that the generator's busiest thread used in the last second";
        self.gauge("busiest_thread_ratio", help, health.busiest_shard)?;
        let help =
            "Share of the last second in which a thread of the generator had to wait for a core";
        self.gauge("starved_thread_ratio", help, health.starved_shard)?;
        let mut drops = vec![(side("generator"), health.socket_drops as f64)];
        drops.extend(health.target_socket_drops.map(|drops| (side("gateway"), drops as f64)));
        self.gauges("udp_drops", "Datagrams dropped at sockets in the last second", drops)?;
        let memory = health.memory_available.map(|bytes| (vec![], bytes as f64));
        self.gauges("memory_available_bytes", "Memory that can be had without swapping", memory)?;

        let operations = || point.operations.iter();
        let counts = operations().flat_map(|(name, figures)| {
            let results = [
                ("ok", figures.count),
                ("error", figures.errors),
                ("late", figures.late),
                ("dropped", figures.dropped),
            ];
            results.map(|(result, count)| {
                (vec![("operation", name.to_string()), ("result", result.into())], count as f64)
            })
        });
        self.gauges("operations_per_second", "Operations of the last second", counts)?;
        let times = operations().flat_map(|(name, figures)| {
            let histogram = figures.response.unpack().ok().filter(|one| !one.is_empty());
            histogram.into_iter().flat_map(move |histogram| {
                [("0.5", 0.5), ("0.99", 0.99), ("0.999", 0.999), ("1", 1.0)].map(|(word, q)| {
                    let labels = vec![("operation", name.to_string()), ("quantile", word.into())];
                    (labels, histogram.value_at_quantile(q) as f64 / 1e6)
                })
            })
        });
        let help = "Response time of the last second, from the moment at which it was due";
        self.gauges("response_seconds", help, times)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = Labelled<f64>>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        values.into_iter().try_for_each(|(labels, value)| {
            ConstGauge::new(value).encode(encoder.encode_family(&labels)?)
        })
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = Labelled<u64>>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        values.into_iter().try_for_each(|(labels, value)| {
            ConstCounter::new(value).encode(encoder.encode_family(&labels)?)
        })
    }
}

fn state(word: &str) -> Vec<(&'static str, String)> {
    vec![("state", word.to_owned())]
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;
    use crate::sample;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(address: SocketAddr, path: &str) -> String {
        ask(address, &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    #[test]
    fn the_last_snapshot_is_served() {
        let metrics = Metrics::serve("127.0.0.1:0").unwrap();
        let before = get(metrics.address(), "/metrics");
        assert!(before.contains("skein_load_phase{phase=\"ramp\"} 1.0"), "{before}");
        let outcome = sample::chat();
        metrics.set(&Snapshot {
            phase: Phase::Measured,
            elapsed: 28.0,
            sessions: outcome.sessions.clone(),
            correctness: outcome.correctness,
            last: outcome.timeline.last().cloned(),
            ..Snapshot::default()
        });
        let answer = get(metrics.address(), "/metrics");
        for line in [
            "HTTP/1.1 200 OK",
            "application/openmetrics-text",
            "# TYPE skein_load_messages counter",
            "skein_load_phase{phase=\"measured\"} 1.0",
            "skein_load_sessions{state=\"connected\"} 2000.0",
            "skein_load_messages_total{state=\"acked\"} 16500",
            "skein_load_wrong_messages_total{kind=\"lost\"} 0",
            "skein_load_cpu_cores{side=\"gateway\"} 0.55",
            "skein_load_busiest_thread_ratio 0.2",
            "skein_load_udp_drops{side=\"gateway\"} 0.0",
            "skein_load_operations_per_second{operation=\"send_ack\",result=\"ok\"} 500.0",
            "skein_load_response_seconds{operation=\"send_ack\",quantile=\"0.5\"} 0.00065",
            "# EOF",
        ] {
            assert!(answer.contains(line), "{line}: {answer}");
        }
    }

    #[test]
    fn what_is_not_served_is_said() {
        let metrics = Metrics::serve("127.0.0.1:0").unwrap();
        assert!(get(metrics.address(), "/").contains("404"));
        let post = "POST /metrics HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n";
        assert!(ask(metrics.address(), post).contains("405"));
        assert!(ask(metrics.address(), "nonsense\r\n\r\n").contains("400"));
        let taken = Metrics::serve(metrics.address());
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
