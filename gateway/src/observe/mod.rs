//! What the gateway tells about itself: figures for Prometheus at `/metrics`.
//!
//! Who counts owns plain counters and knows nothing of Prometheus; they are read when somebody
//! asks.
//!
//! ```text
//! count.rs     counters and distributions for the path of a message
//! figures.rs   what shards and hub count
//! flood.rs     keeps floods out of the log
//! machine.rs   what the system tells
//! export.rs    all of it as metrics; text.rs: over prometheus-client
//! reference.rs docs/metrics.md
//! trace/       traces of some messages, for an OpenTelemetry collector
//! ```

mod count;
mod export;
mod figures;
mod flood;
mod machine;
mod reference;
mod text;
mod trace;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text as openmetrics};
use prometheus_client::registry::Registry;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use count::{ByCode, Count, Distribution, Epoch, Sizes, Stamp, Times};
pub use figures::{Ended, HubFigures, PageKind, Received, Sent, ShardFigures, StoreTrouble};
pub use flood::Flood;
pub use reference::reference_page;
pub use trace::{Endpoint, Tracer, export};

use crate::admin::Admin;
use crate::config::StoreKind;
use crate::limits::Limit;
use crate::tls::Certificate;
use export::{Level, Reading, Shard};
use machine::Process;
use text::Out;

/// Of OpenMetrics.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What metrics need beside the hub.
#[derive(Debug)]
pub(crate) struct Observer {
    clients: SocketAddr,
    base_bytes: u64,
}

impl Observer {
    /// To be made when the gateway begins to serve: memory beyond this moment's is its sessions'.
    pub(crate) fn new(clients: SocketAddr) -> Self {
        Self { clients, base_bytes: Process::read().resident_bytes.unwrap_or(0) }
    }
}

pub(crate) fn documented() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// Figures for Prometheus, in the text format of OpenMetrics.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, body = String, content_type = TEXT))
)]
async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let level = level(&admin).await;
    // Files of the system are read: not on a thread that others wait for.
    let body = tokio::task::spawn_blocking(move || page(Page { admin, level })).await;
    ([(CONTENT_TYPE, TEXT)], body.unwrap_or_default())
}

async fn level(admin: &Admin) -> Level {
    let store_up = admin.store_answers().await.is_ok();
    let (hub, reloads) = (&admin.hub, admin.reload.outcomes());
    Level {
        sessions: hub.sessions(),
        max_sessions: hub.settings().limits.max_sessions,
        users: hub.registry.users(),
        conversations: hub.conversations(),
        waiting_bytes: hub.waiting_bytes(),
        pages: hub.page_reads.under_way(),
        mail_lost: (0..hub.mailboxes().len()).map(|shard| u64::from(hub.overflows(shard))).sum(),
        store_up,
        draining: hub.is_draining(),
        ready: admin.unready().await.is_empty(),
        started_seconds: admin
            .started
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |it| it.as_secs_f64()),
        base_bytes: admin.observer.base_bytes,
        disk_reserve_bytes: match admin.config.store.kind {
            StoreKind::Embedded => admin.config.store.reserve_bytes,
            StoreKind::Scylla => 0,
        },
        limits: Limit::ALL
            .iter()
            .map(|limit| (limit.label(), hub.throttle().hits().of(*limit)))
            .collect(),
        untracked: hub.throttle().untracked(),
        reloads: (reloads.applied, reloads.refused),
        reload_refused: reloads.last_refused,
        log_lines_left_out: flood::left_out(),
        certificates: ends_of(&admin.reload.certificates().all()),
        traces: hub.tracer().map(Tracer::counts).unwrap_or_default(),
        disk_free_bytes: None,
        udp: None,
    }
}

/// Files and ends of certificates, Unix time. A file that is named twice is one series.
fn ends_of(certificates: &[Certificate]) -> Vec<(String, u64)> {
    let end = |certificate: &Certificate| {
        let ends = certificate.ends.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
        (certificate.file.display().to_string(), ends)
    };
    certificates.iter().map(end).collect::<BTreeMap<_, _>>().into_iter().collect()
}

struct Page {
    admin: Arc<Admin>,
    level: Level,
}

impl Page {
    fn show(&self, out: &mut Out<'_, '_>) -> std::fmt::Result {
        let hub = &self.admin.hub;
        let figures: Vec<_> =
            (0..hub.mailboxes().len()).map(|shard| hub.figures_of(shard)).collect();
        let shards = hub.mailboxes().iter().zip(&figures);
        let shards = shards.map(|(mailbox, figures)| Shard {
            transport: mailbox.stats(),
            figures,
            mail: mailbox.len(),
        });
        let level = Level {
            disk_free_bytes: machine::free_bytes(&self.admin.config.data),
            udp: machine::udp_sockets(self.admin.observer.clients),
            ..self.level.clone()
        };
        let reading = Reading {
            shards: shards.collect(),
            hub: &hub.figures,
            level,
            process: Process::read(),
            store: &|visitor| hub.store.visit_metrics(visitor),
        };
        reading.show(out)
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Page")
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        self.show(&mut Out(&mut encoder))
    }
}

fn page(collector: impl Collector) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let mut body = String::new();
    // Writing to a text does not fail.
    let _ = openmetrics::encode(&mut body, &registry);
    body
}
