//! The admin listener: HTTP for those who run the gateway, and for their machines.
//!
//! Off unless `admin.listen` is set. It is bound before the store is opened, so that a clash of
//! ports is told at once; who connects before the gateway serves waits. It answers until the
//! process ends, also while sessions are being sent away.
//!
//! ```text
//! server.rs    connections of the listener, bounded
//! places.rs    how many, and whose
//! health.rs    /livez /readyz /version: without a token, they tell nothing about users
//! observe/     /metrics: likewise
//! api.rs       /v1/...: behind a token; one file for each subject
//! ```
//!
//! To add a route: a handler with its description, and a line in `api.rs`.

mod api;
mod blocks;
mod config;
mod drain;
mod gateway;
mod health;
mod places;
mod problem;
mod server;
mod sessions;
mod shards;
mod token;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::http::StatusCode;
use tokio::runtime::Handle;

use crate::config::Config;
use crate::hub::Hub;
use crate::observe::Observer;
use crate::reload::Reload;
pub use api::description;
use drain::Draining;
use health::Health;

/// Port that the documents use; nothing listens on it unless it is configured.
pub const DOCUMENTED_PORT: u16 = 7844;

/// What every handler can reach.
pub struct Admin {
    /// The middle of the gateway.
    pub(crate) hub: Arc<Hub>,
    /// What the gateway was told at its start.
    pub(crate) config: Config,
    /// What it is told now, its certificates, and the level of its log.
    pub reload: Arc<Reload>,
    /// When it began to serve.
    pub(crate) started: SystemTime,
    pub(crate) observer: Observer,
    health: Health,
    draining: Draining,
}

impl Admin {
    /// To be made once the gateway serves clients at this address.
    pub fn new(
        hub: Arc<Hub>,
        config: Config,
        reload: Arc<Reload>,
        clients: SocketAddr,
    ) -> Arc<Self> {
        let (health, draining) = (Health::default(), Draining::default());
        let (started, observer) = (SystemTime::now(), Observer::new(clients));
        Arc::new(Self { hub, config, reload, started, observer, health, draining })
    }
}

/// All that the listener answers.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .merge(api::routes(&admin))
        .fallback(|| async { (StatusCode::NOT_FOUND, "nothing is here; see docs/operations.md\n") })
        .with_state(admin)
}

/// Why there is no admin listener.
#[derive(Debug, thiserror::Error)]
#[error("`admin.listen`: cannot listen on {address}: {source}")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// A bound port on which nothing is answered yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds the address.
    ///
    /// # Errors
    /// It cannot be bound.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address bound, with the port that was chosen where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers on this runtime for as long as it lives.
    pub fn serve(self, runtime: &Handle, admin: Arc<Admin>) {
        let address = self.address;
        runtime.spawn(health::watch(admin.clone()));
        runtime.spawn(async move {
            if let Err(error) = server::accept(self.listener, router(admin)).await {
                tracing::error!(%error, %address, "the admin listener is gone");
            }
        });
    }
}
