//! `skein-load merge`: reports of one run from several machines become one.

use std::path::PathBuf;

use super::output::print;
use crate::exit::{Exit, Failure};
use crate::merge;
use crate::objective::Objective;
use crate::report::{self, ReportError, read_summary, table};

#[derive(Debug, clap::Args)]
#[command(after_help = super::help_end(
    "Example:\n  skein-load merge machine1/ machine2/ machine3/ --report whole/"
))]
pub(super) struct Args {
    /// Folders of the reports
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    runs: Vec<PathBuf>,

    /// Folder for the report of all
    #[arg(long, value_name = "DIR")]
    report: PathBuf,

    /// Replace the report that the folder holds
    #[arg(long)]
    overwrite: bool,

    /// What must hold, instead of the objectives of the first report
    #[arg(long, value_name = "OBJECTIVE")]
    objective: Vec<Objective>,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let failed = |error: ReportError| Failure::could_not_run(error.to_string());
    let objectives = match args.objective.is_empty() {
        true => objectives_of(&args.runs[0]).map_err(failed)?,
        false => args.objective.clone(),
    };
    let whole =
        merge::read(&args.runs).map_err(|error| Failure::could_not_run(error.to_string()))?;
    report::prepare(&args.report, args.overwrite).map_err(failed)?;
    let summary = report::write(&whole, &objectives, &args.report).map_err(failed)?;
    print(&table(&summary))?;
    Ok(summary.exit())
}

/// What a report was judged by. A report says it as text that an objective was made of.
fn objectives_of(run: &std::path::Path) -> Result<Vec<Objective>, ReportError> {
    let verdicts = read_summary(run)?.objectives;
    Ok(verdicts.iter().filter_map(|verdict| verdict.objective.parse().ok()).collect())
}
