//! `skein config`: check a file, print the defaults.

use std::path::PathBuf;

use clap::Subcommand;

use super::Failure;
use super::exit::print;
use crate::auth::Verifier;
use crate::config::{Config, Problem, Problems, Sources, default_file};
use crate::open::scylla_options;
use crate::tls::Certificate;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Tell everything that is wrong with a configuration file.
    ///
    /// Looks at the file alone, not at the environment. The keys and certificates that it names
    /// are read too, unless --no-files is given.
    Check {
        /// The file to check
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Leave out the files that it names: they are on another machine
        #[arg(long)]
        no_files: bool,
    },
    /// Print a configuration file with every key, its unit, range and default.
    Default,
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Default => print(&default_file()),
        Command::Check { file, no_files } => {
            let loaded = Sources::new().file(file)?.read()?;
            if !no_files {
                check_files(&loaded.config)?;
            }
            let remarks = loaded.remarks.iter().map(|remark| format!("{remark}\n"));
            print(&format!("{}{}: good\n", remarks.collect::<String>(), file.display()))
        }
    }
}

/// Reads what the configuration names.
fn check_files(config: &Config) -> Result<(), Problems> {
    let mut problems = Vec::new();
    let mut add = |place: &str, message: String| {
        problems.push(Problem { place: place.into(), message });
    };
    if let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key)
        && let Err(error) = Certificate::load(cert, key)
    {
        add("[tls]", error.to_string());
    }
    if config.auth.names_a_key()
        && let Err(error) = Verifier::from_config(&config.auth)
    {
        add("[auth]", error.to_string());
    }
    if let Err(error) = scylla_options(&config.scylla) {
        add("[scylla]", error.to_string());
    }
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}
