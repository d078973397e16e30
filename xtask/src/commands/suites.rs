//! `test`: the tests that need a CQL server.

use std::env;
use std::error::Error;
use std::process::{Command, ExitCode};

use skein_xtask::cql::{Cluster, Options, VARIABLE};

/// Test targets that are given one node. Those that start servers of their own stand in [`OWN`].
const ON_ONE_NODE: &[&str] = &["conformance_cql"];

pub(super) fn run(arguments: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    eprintln!("starting one node, about half a minute");
    let cluster = Cluster::start(Options::default())?;
    let points: Vec<_> = cluster.contact_points().iter().map(ToString::to_string).collect();
    let mut tests = cargo(ON_ONE_NODE);
    let status = tests.arg("--").args(arguments).env(VARIABLE, points.join(",")).status()?;
    if !status.success() {
        eprintln!("the server was asked at {}", points.join(","));
    }
    // Killed by a signal: no status.
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(101)))
}

/// The whole workspace each time: a part of it would be built anew, with other features.
fn cargo(suites: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--workspace", "--locked"]);
    for suite in suites {
        cargo.args(["--test", suite]);
    }
    cargo
}
