//! `skein doctor`: is this machine fit for what the configuration promises? Looks, and changes
//! nothing: what is too small comes with the command that mends it.
//!
//! ```text
//! capacity.rs   memory, descriptors, UDP, cores, clock   (checks of skein-machine)
//! disk.rs       where the data folder lies, its room, its fsync
//! ```

mod capacity;
mod disk;

use std::num::NonZeroUsize;

use skein_machine::{Finding, Level, Machine, is_fit, text};

use super::Failure;
use super::exit::print;
use super::settings::Settings;
use crate::config::Config;
use capacity::Need;
use disk::Disk;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Sessions to plan for [default: limits.max_sessions]
    #[arg(long, value_name = "NUMBER")]
    sessions: Option<NonZeroUsize>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = args.settings.load([])?.config;
    let findings = examine(&config, args.sessions.map(NonZeroUsize::get));
    if args.json {
        let json = serde_json::json!({ "fit": is_fit(&findings), "findings": findings });
        print(&format!("{json:#}\n"))?;
    } else {
        print(&text(&findings))?;
    }
    if is_fit(&findings) {
        return Ok(());
    }
    let bad = findings.iter().filter(|finding| finding.level == Level::Bad);
    let names: Vec<_> = bad.map(|finding| finding.check).collect();
    Err(Failure::Unfit(format!("this machine is not fit: {}", names.join(", "))))
}

/// Every check, in the order of what ends a gateway first.
fn examine(config: &Config, sessions: Option<usize>) -> Vec<Finding> {
    let machine = Machine::look();
    let need = Need::of(config, sessions, machine.cores as u64);
    let mut findings = capacity::examine(&machine, &need);
    findings.extend(disk::examine(&Disk::look(&config.data), &config.store));
    findings
}
