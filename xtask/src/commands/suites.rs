//! `test`: the tests that need a CQL server.

use std::env;
use std::error::Error;
use std::io;
use std::process::{Command, ExitCode, ExitStatus};

use skein_xtask::cql::{Cluster, OWN, Options, VARIABLE};

/// Test targets that are given one node.
const ON_ONE_NODE: &[&str] = &["conformance_cql"];

/// Test targets that start servers of their own.
const ON_THEIR_OWN: &[&str] = &["servers", "cluster"];

/// Both kinds, even if the first fails; `only` names the targets, all if it is empty.
pub(super) fn run(only: &[String], arguments: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    let known = || ON_ONE_NODE.iter().chain(ON_THEIR_OWN);
    if let Some(unknown) = only.iter().find(|name| !known().any(|known| known == name)) {
        let known: Vec<_> = known().copied().collect();
        return Err(format!("no suite {unknown:?}; there are: {}", known.join(", ")).into());
    }
    let chosen = |suites: &[&'static str]| -> Vec<&'static str> {
        let named = |suite: &str| only.is_empty() || only.iter().any(|name| name == suite);
        suites.iter().copied().filter(|suite| named(suite)).collect()
    };
    let (on_one_node, on_their_own) = (chosen(ON_ONE_NODE), chosen(ON_THEIR_OWN));
    // Before anything runs, so that no server waits for a compiler.
    let all: Vec<_> = on_one_node.iter().chain(&on_their_own).copied().collect();
    let built = cargo(&all).arg("--no-run").status()?;
    if !built.success() {
        return Ok(ExitCode::from(status(built)));
    }
    let mut worst = 0;
    if !on_one_node.is_empty() {
        eprintln!("starting one node, about half a minute");
        // Tests make hundreds of tables.
        let options = Options { throwaway: true, heap_mib: Some(1_024), ..Options::default() };
        let cluster = Cluster::start(options)?;
        let points: Vec<_> = cluster.contact_points().iter().map(ToString::to_string).collect();
        worst = worst.max(test(&on_one_node, &points.join(","), arguments)?);
        if worst != 0 {
            cluster.keep_logs();
        }
        if cluster.node(0).pid().is_none() {
            cluster.keep_logs();
            eprintln!("the server ended under the tests");
        }
    }
    if !on_their_own.is_empty() {
        worst = worst.max(test(&on_their_own, OWN, arguments)?);
    }
    Ok(ExitCode::from(worst))
}

/// Runs tests; says their exit status.
fn test(suites: &[&str], server: &str, arguments: &[String]) -> io::Result<u8> {
    let done = cargo(suites).arg("--").args(arguments).env(VARIABLE, server).status()?;
    Ok(status(done))
}

/// The whole workspace each time: a part of it would be built anew, with other features.
fn cargo(suites: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    for suite in suites {
        cargo.args(["--test", suite]);
    }
    cargo
}

/// None when a signal ended it; cargo's own for tests that failed is 101.
fn status(done: ExitStatus) -> u8 {
    done.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(101)
}
