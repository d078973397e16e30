//! The command line.

mod background;
mod suites;

use std::error::Error;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use skein_xtask::cql::jars::{Jars, VERSION};
use skein_xtask::cql::{Java, Options};

/// Work on the workspace that cargo alone does not do
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Line {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A real CQL server (Apache Cassandra 5) on this machine
    ///
    /// Needs a Java 17 and, the first time, Maven, which fetches 67 MB into target/cql. One node
    /// takes about 1 GB of memory.
    #[command(subcommand)]
    Cql(Cql),
}

#[derive(Subcommand)]
enum Cql {
    /// Start a server that stays until `cargo xtask cql down`
    Up(Up),
    /// Take down what `up` started, with its data
    Down,
    /// See that a server can be had: find Java 17, fetch the server if it is not there
    Fetch,
    /// Run the tests that need a CQL server, on servers that are there for their time
    Test {
        /// Only this suite; may be given several times
        #[arg(long = "suite", value_name = "NAME")]
        suites: Vec<String>,
        /// Goes to the tests, for instance a part of a test's name
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

#[derive(Args)]
struct Up {
    /// How many nodes: 1 or 3, at 127.0.0.1, .2 and .3
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Answer a write only when it is on the disk
    #[arg(long)]
    durable: bool,
    /// For measurements: optimise as in production, which takes longer to start
    #[arg(long)]
    optimised: bool,
}

/// Does what the command line says. The exit status of tests is passed on; 2 is a failure of ours.
pub(crate) fn run() -> ExitCode {
    let What::Cql(what) = Line::parse().what;
    let done: Result<ExitCode, Box<dyn Error>> = match what {
        Cql::Up(Up { nodes, durable, optimised }) => {
            let options = Options { nodes, durable, optimised, ..Options::default() };
            background::up(Options { throwaway: true, ..options })
        }
        Cql::Down => background::down(),
        Cql::Fetch => fetch(),
        Cql::Test { suites, arguments } => suites::run(&suites, &arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

fn fetch() -> Result<ExitCode, Box<dyn Error>> {
    let (java, _) = (Java::find()?, Jars::get()?);
    println!("Apache Cassandra {VERSION} on {}", java.program().display());
    Ok(ExitCode::SUCCESS)
}
