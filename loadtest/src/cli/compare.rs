//! `skein-load compare`: what has changed, and is it worse than allowed?

use std::path::PathBuf;

use super::output::print;
use crate::compare::{Baseline, Comparison, DEFAULT_TOLERANCE, Tolerance};
use crate::exit::{Exit, Failure};
use crate::report::{Summary, read_summary};

const EXAMPLES: &str = "\
Examples:
  skein-load compare before/ after/
  skein-load compare before/ after/ --tolerance 5%
  skein-load compare good/ --write-baseline chat.baseline.toml
  skein-load compare new/ --baseline chat.baseline.toml

A baseline is a short TOML file, meant to be edited: take out the figures that do not matter, and
give others a tolerance of their own.";

#[derive(Debug, clap::Args)]
#[command(after_help = super::help_end(EXAMPLES))]
pub(super) struct Args {
    /// Reports: folders, or their summary.json. Of two, the first is the one before.
    #[arg(required = true, num_args = 1..=2, value_name = "RUN")]
    runs: Vec<PathBuf>,

    /// Compare one run with this file.
    #[arg(long, value_name = "FILE", conflicts_with = "write_baseline")]
    baseline: Option<PathBuf>,

    /// Make a baseline of one run.
    #[arg(long, value_name = "FILE")]
    write_baseline: Option<PathBuf>,

    /// Allowed change for the worse, such as 5% [default: 10%, or what the baseline says]
    #[arg(long, value_name = "SHARE")]
    tolerance: Option<Tolerance>,

    /// Compare runs that were asked for different loads all the same.
    #[arg(long)]
    unlike: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let tolerance = args.tolerance.map(|tolerance| tolerance.0);
    let comparison = match (&args.runs[..], &args.baseline, &args.write_baseline) {
        ([run], Some(file), None) => {
            let baseline = Baseline::read(file).map_err(|e| Failure::usage(e.to_string()))?;
            let compared = baseline.compare(&valid(run)?, tolerance);
            compared.map_err(|why| Failure::usage(format!("{}: {why}", file.display())))?
        }
        ([run], None, Some(file)) => {
            let baseline = Baseline::of(&valid(run)?, tolerance.unwrap_or(DEFAULT_TOLERANCE));
            baseline.write(file).map_err(|e| Failure::could_not_run(e.to_string()))?;
            return Ok(Exit::Ok);
        }
        ([before, after], None, None) => {
            let tolerance = tolerance.unwrap_or(DEFAULT_TOLERANCE);
            Comparison::of_runs(&valid(before)?, &valid(after)?, tolerance)
        }
        ([_], None, None) => {
            return Err(Failure::usage(
                "one run is compared with a second one, or with --baseline",
            ));
        }
        _ => return Err(Failure::usage("a baseline goes with one run")),
    };
    if !comparison.unlike.is_empty() && !args.unlike {
        return Err(Failure::usage(format!(
            "the runs are not alike, so a difference in their figures says nothing:\n  {}\n\
             compare runs of the same load, or give --unlike to see them side by side",
            comparison.unlike.join("\n  ")
        )));
    }
    match args.json {
        true => {
            let json = serde_json::to_string_pretty(&comparison);
            let json = json.map_err(|error| Failure::could_not_run(error.to_string()))?;
            print(&format!("{json}\n"))?;
        }
        false => print(&comparison.text())?,
    }
    Ok(if comparison.good { Exit::Ok } else { Exit::Regressed })
}

/// A run whose figures may be believed.
fn valid(path: &std::path::Path) -> Result<Summary, Failure> {
    let summary = read_summary(path).map_err(|error| Failure::could_not_run(error.to_string()))?;
    if summary.valid && !summary.ended_early {
        return Ok(summary);
    }
    let why = match summary.reasons.first() {
        Some(reason) => reason.detail.as_str(),
        None => "it was ended early",
    };
    Err(Failure {
        exit: Exit::Invalid,
        message: format!("{}: its figures must not be compared: {why}", path.display()),
    })
}
