//! What is in `deploy/` against the real program: every query of the dashboard and of the alert
//! rules asks for metrics, labels and values that a running gateway exports, and uses them as
//! their kind permits; configurations, variables and command lines are such as it takes.
//!
//! ```text
//! exporter.rs     a gateway, what it exports
//! query.rs        one query against that: names, labels, values, rates of counters alone
//! dashboard.rs    the queries of deploy/grafana/skein.json
//! rules.rs        the rules of deploy/prometheus/alerts.yaml, and what docs/operations.md says of them
//! files.rs        configurations, variables, command lines, the hook for renewed certificates
//! deployments.rs  what each deployment runs with, against its ports, probes and volumes
//! pages.rs        commands and configuration in docs/operations.md and its neighbours
//! ```

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod dashboard;
mod deployments;
mod exporter;
mod files;
mod pages;
mod query;
mod rules;
#[path = "../support/mod.rs"]
mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use exporter::Exported;
use skein_storage::scylla::ScyllaStats;
use support::process::{Gateway, Options};

/// What a gateway exports that has just begun to serve: everything that it will ever export is there
/// from the beginning, at zero.
fn exporter_of_tests() -> Exported {
    let data = tempfile::tempdir().unwrap();
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let options = Options::default().env("SKEIN_ADMIN__LISTEN", admin);
    let gateway = Gateway::start(data.path(), &options);
    let mut exported = Exported::of(gateway.admin.unwrap());
    // The other store needs a cluster; its figures go the same way.
    ScyllaStats::default().visit(&mut exported);
    exported
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of the repository.
fn read(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All problems at once.
fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
