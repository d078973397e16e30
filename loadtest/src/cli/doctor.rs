//! `skein-load doctor`: is this machine fit?

use std::num::NonZeroU64;

use super::output::print;
use crate::doctor::{Machine, Need, examine, is_fit, text};
use crate::exit::{Exit, Failure};

#[derive(Debug, clap::Args)]
#[command(after_help = super::help_end(
    "Example:\n  skein-load doctor --connections 200000\n  skein-load doctor --remote --json"
))]
pub(super) struct Args {
    /// Sessions that this machine is to make.
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, allow_negative_numbers = true)]
    connections: u64,

    /// Threads of the generator [default: one per core]
    #[arg(long, value_name = "COUNT")]
    shards: Option<NonZeroU64>,

    /// The gateway is on another machine, and takes nothing of this one.
    #[arg(long)]
    remote: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let machine = Machine::look();
    let need = Need {
        connections: args.connections,
        shards: args.shards.map_or(machine.cores as u64, NonZeroU64::get),
        local_gateway: !args.remote,
    };
    let findings = examine(&machine, &need);
    if args.json {
        let json = serde_json::json!({ "fit": is_fit(&findings), "findings": findings });
        print(&format!("{json:#}\n"))?;
    } else {
        print(&text(&findings))?;
    }
    Ok(if is_fit(&findings) { Exit::Ok } else { Exit::CouldNotRun })
}
