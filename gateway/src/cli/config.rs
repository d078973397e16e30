//! `skein config`: check a file, print the defaults.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Subcommand;

use super::Failure;
use super::exit::print;
use crate::config::{Loaded, Problem, Problems, Sources, default_file};
use crate::credentials;
use crate::open::scylla_options;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Tell everything that is wrong with a configuration file.
    ///
    /// Looks at the file alone, unless --environment is given. The keys and certificates that it
    /// names are read too, unless --no-files is given.
    Check {
        /// The file to check
        #[arg(value_name = "FILE", required_unless_present = "environment")]
        file: Option<PathBuf>,
        /// Put the variables of the environment over it, as `skein serve` does
        #[arg(long)]
        environment: bool,
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
        Command::Check { file, environment, no_files } => {
            let mut sources = Sources::new();
            let mut what = "environment".to_owned();
            if let Some(file) = file {
                sources = sources.file(file)?;
                what = file.display().to_string();
            }
            if *environment {
                sources = sources.environment(std::env::vars_os());
            }
            let (loaded, mut problems) = sources.examine();
            if !no_files {
                problems.extend(check_files(&loaded));
            }
            if !problems.is_empty() {
                return Err(Problems(problems).into());
            }
            let mut remarks = loaded.remarks;
            if !no_files {
                remarks.extend(credentials::remarks(&loaded.config, SystemTime::now()));
            }
            let remarks: String = remarks.iter().map(|remark| format!("{remark}\n")).collect();
            print(&format!("{remarks}{what}: good\n"))
        }
    }
}

/// Reads what the configuration names.
fn check_files(loaded: &Loaded) -> Vec<Problem> {
    let bad = credentials::check(&loaded.config).into_iter();
    let mut problems: Vec<Problem> = bad.map(|file| file.problem(loaded)).collect();
    if let Err(error) = scylla_options(&loaded.config.scylla) {
        problems.push(Problem { place: "[scylla]".into(), message: error.to_string() });
    }
    problems
}
