//! What the gateway tells about itself: figures for Prometheus at `/metrics`.
//!
//! Who counts owns plain counters and knows nothing of Prometheus; they are read when somebody
//! asks.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::admin::Admin;

/// Of OpenMetrics.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) fn routes() -> Router<Arc<Admin>> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let mut registry = Registry::with_prefix("skein");
    registry.register_collector(Box::new(Figures(admin)));
    let mut body = String::new();
    // Writing to a text does not fail.
    let _ = text::encode(&mut body, &registry);
    ([(CONTENT_TYPE, TEXT)], body)
}

/// Reads all counters when it is asked.
struct Figures(Arc<Admin>);

impl std::fmt::Debug for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let sessions = ConstGauge::new(self.0.hub.sessions() as u64);
        let metric = encoder.encode_descriptor(
            "sessions",
            "Sessions logged in",
            None,
            sessions.metric_type(),
        )?;
        sessions.encode(metric)
    }
}
