//! The command line of `skein-load`: what the user types becomes a call into the library, what
//! comes back becomes text and an exit status.
//!
//! Standard output carries what the user reads or pipes on; progress and errors go to standard
//! error. Each command is a file of its own; the flags of the ready scenarios come from the list of
//! keys.

mod agent;
mod compare;
mod doctor;
mod merge;
mod output;
mod run;
mod scenario;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::exit::{self, Exit, Failure};
use crate::report;
use crate::scenario::Program;

const EXAMPLES: &str = "\
Try it, with a gateway that is started for the purpose:
  skein-load chat --spawn-gateway --pairs 1000 --rate 2000 --for 30s --report DIR

How many users does my gateway hold, at which latency, and why not more?
  skein-load doctor --connections 200000          is this machine fit for it?
  skein-load hold --connections 200000 --for 2m   what does a session cost?
  skein-load ramp --start 2000                    where is the knee?
  skein-load compare BEFORE AFTER                 what has changed?";

/// Load on a Skein gateway, from one connection to a million, with figures that can be trusted.
#[derive(Debug, Parser)]
#[command(
    name = "skein-load",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = help_end(EXAMPLES)
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Commands beside the scenarios.
#[derive(Debug, Subcommand)]
enum Command {
    /// Check this machine's limits, and print the commands that mend them.
    #[command(display_order = 20)]
    Doctor(doctor::Args),
    /// Compare two runs, or a run with a baseline, and fail if it is worse than allowed.
    #[command(display_order = 21)]
    Compare(compare::Args),
    /// Join reports of one run from several machines into one.
    #[command(display_order = 22)]
    Merge(merge::Args),
    /// Make load on this machine for a run that is conducted elsewhere (--agents).
    #[command(display_order = 23)]
    Agent(agent::Args),
    /// Print the JSON Schema of summary.json.
    #[command(display_order = 24)]
    Schema,
}

/// Runs the command that the arguments of the process ask for.
pub fn run() -> ExitCode {
    let matches = command().get_matches();
    log(if matches.subcommand_name() == Some("agent") { AGENT } else { QUIET });
    match execute(&matches) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::tell(&failure.message);
            failure.exit.into()
        }
    }
}

/// Goose says which of its thresholds failed; what holds and what does not is said by our own report.
const QUIET: &str = "error,goose=off";

/// Nobody sits before an agent: its log says who took it, and what came of the run.
const AGENT: &str = "error,goose=off,skein_loadtest::agent=info";

/// What goes wrong inside is written to standard error; `SKEIN_LOG` asks for more.
fn log(otherwise: &str) {
    let level = EnvFilter::try_from_env("SKEIN_LOG").unwrap_or_else(|_| EnvFilter::new(otherwise));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Only a second one is refused.
    let _ = subscriber.try_init();
}

fn execute(matches: &clap::ArgMatches) -> Result<Exit, Failure> {
    match matches.subcommand() {
        Some(("run", own)) => return scenario::run(None, own),
        Some((name, own)) if Program::find(name).is_some() => {
            return scenario::run(Program::find(name), own);
        }
        _ => {}
    }
    // Wrong only if the commands above are.
    let cli = Cli::from_arg_matches(matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Doctor(args) => doctor::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Schema => {
            output::print(&format!("{:#}\n", report::schema()))?;
            Ok(Exit::Ok)
        }
    }
}

fn command() -> clap::Command {
    let presets = Program::ALL.into_iter().map(scenario::preset);
    Cli::command().subcommand(scenario::from_file()).subcommands(presets)
}

/// What stands below the flags: examples, then exit statuses.
fn help_end(examples: &str) -> String {
    format!("{examples}\n\n{}", exit::HELP)
}
