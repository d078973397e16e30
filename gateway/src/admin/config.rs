//! The configuration and the log of a gateway that runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Admin;
use super::problem::{Given, Problem};
use crate::config::Change;

/// A key that has another value now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Changed {
    /// Its full name.
    key: &'static str,
    /// The value before, as in a file.
    from: String,
    /// The new value.
    to: String,
}

impl From<Change> for Changed {
    fn from(Change { key, from, to }: Change) -> Self {
        Self { key, from, to }
    }
}

/// What came of a new configuration.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Reloaded {
    /// In force now.
    changed: Vec<Changed>,
    /// In force after a restart.
    needs_restart: Vec<Changed>,
    /// Other certificates are shown now.
    new_certificates: bool,
    /// Remarks on the configuration.
    remarks: Vec<String>,
}

/// Reads the configuration and all files that it names again, as SIGHUP does, and uses what can
/// change while the gateway runs. If anything is wrong with it, nothing changes.
#[utoipa::path(
    post, path = "/v1/reload", tag = "gateway",
    responses(
        (status = 200, body = Reloaded),
        (status = 422, body = Problem, description = "the new configuration is wrong, and not used")
    )
)]
pub(super) async fn reload(State(admin): State<Arc<Admin>>) -> Result<Json<Reloaded>, Problem> {
    let reload = admin.reload.clone();
    let outcome = tokio::task::spawn_blocking(move || reload.apply_and_tell()).await;
    let failed = |error: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error);
    let applied = match outcome {
        Ok(applied) => applied.map_err(|problems| failed(problems.to_string()))?,
        Err(error) => return Err(failed(error.to_string())),
    };
    Ok(Json(Reloaded {
        changed: applied.changed.into_iter().map(Changed::from).collect(),
        needs_restart: applied.needs_restart.into_iter().map(Changed::from).collect(),
        new_certificates: applied.new_certificates,
        remarks: applied.remarks,
    }))
}

/// What is logged.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    /// As in `log.level`: a level, and levels of parts after commas.
    level: String,
}

/// What is logged now.
#[utoipa::path(get, path = "/v1/log", tag = "gateway", responses((status = 200, body = Log)))]
pub(super) async fn log(State(admin): State<Arc<Admin>>) -> Json<Log> {
    Json(Log { level: admin.reload.log_level().now() })
}

/// Logs at another level, until it is changed again, by this or in the configuration, or the
/// gateway is restarted.
#[utoipa::path(
    put, path = "/v1/log", tag = "gateway", request_body = Log,
    responses((status = 200, body = Log), (status = 400, body = Problem))
)]
pub(super) async fn set_log(
    State(admin): State<Arc<Admin>>,
    Given(log): Given<Log>,
) -> Result<Json<Log>, Problem> {
    crate::config::check_log_level(&log.level)
        .map_err(|why| Problem::bad(format!("`level` = {:?}: {why}", log.level)))?;
    let before = admin.reload.log_level().now();
    admin.reload.log_level().set(&log.level).map_err(Problem::bad)?;
    tracing::info!(from = before, to = log.level, "the log level was changed by an operator");
    Ok(Json(log))
}
