//! The command line of `skein`: what the user types becomes a call into the library, what comes
//! back becomes text and an exit status.
//!
//! Standard output carries what the user reads or pipes on; log and errors go to standard error.
//! Each command is a file of its own.

pub mod banner;
mod config;
mod ctl;
mod doctor;
mod exit;
mod log;
mod schema;
mod serve;
mod settings;
mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::Failure;

const EXIT_CODES: &str = "\
Exit status:
  0    done; `serve`: stopped as it was asked to
  1    something failed; the last line on standard error says what
  2    the command line is wrong
  3    the configuration is wrong: file, environment, or a value given by a flag
  4    `schema`, `doctor`: the cluster or this machine is not what is needed
  130  ended by a second SIGINT before the stop was complete (143: SIGTERM)";

/// The Skein gateway: instant messages over QUIC.
#[derive(Debug, Parser)]
#[command(
    name = "skein",
    version,
    arg_required_else_help = true,
    after_help = EXIT_CODES
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a gateway.
    ///
    /// Works without any configuration: it then serves this machine alone, keeps its data in
    /// ./skein-data, and makes a certificate and a token key for development there.
    #[command(after_help = EXIT_CODES)]
    Serve(serve::Args),
    /// Check a configuration file, or print one with every key and its default.
    #[command(subcommand)]
    Config(config::Command),
    /// Ask a running gateway, or tell it: sessions, kicks, blocks, drain.
    ///
    /// The gateway must have an admin listener (`--admin`, or `admin.listen` in its configuration).
    Ctl(ctl::Args),
    /// Tell whether this machine is fit for what the configuration promises, and what mends it.
    ///
    /// Looks at memory, descriptors, buffers of UDP, the firewall, cores, clock, and at the disk
    /// under the data folder, in which it times a few writes. Changes nothing. Run it as the user
    /// and with the limits of the service: `sudo systemd-run --pipe -p User=skein
    /// -p LimitNOFILE=65536 skein doctor --config FILE`.
    #[command(after_help = EXIT_CODES)]
    Doctor(doctor::Args),
    /// Make, check or print the tables of a store in a cluster.
    #[command(subcommand, after_help = EXIT_CODES)]
    Schema(schema::Command),
    /// Print a token with which a client may connect as a user.
    ///
    /// Without --key it is signed with the development key that `skein serve` made in the data
    /// folder. For anything but development, the service that knows the users signs tokens.
    Token(token::Args),
    /// Print the version.
    Version,
}

/// Runs the command that the arguments of the process ask for.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Config(command) => config::run(&command),
        Command::Ctl(args) => ctl::run(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Schema(command) => schema::run(&command),
        Command::Token(args) => token::run(&args),
        Command::Version => exit::print(&format!("skein {}\n", env!("CARGO_PKG_VERSION"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
