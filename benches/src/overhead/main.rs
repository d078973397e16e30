//! What counting and limiting costs on the path of a message: processor time of the gateway for a
//! message, with it and without it, in turns.
//!
//! ```text
//! cargo build --release --workspace
//! cargo run --release -p skein-benches --bin overhead -- [metrics|limits] [--rounds N] [--json]
//! ```
//!
//! `metrics`: against the gateway built with `--features unmeasured`, which counts nothing; it is built
//! by this program. `limits`: against the same gateway without them. Each round starts both
//! anew, under the same load from `skein-load`; which of them goes first changes from round to round.

mod trial;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, ValueEnum};
use serde_json::json;

use crate::trial::{Load, Trial};

/// Measures what counting and limiting costs the gateway for each message.
#[derive(Parser)]
struct Args {
    /// What to take away for comparison.
    #[arg(value_enum, default_value = "metrics")]
    what: What,
    /// Pairs of runs.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Messages a second, below what the gateway can do.
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// Measured seconds of each run.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Metrics,
    Limits,
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overhead: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<(), Box<dyn Error>> {
    let own = std::env::current_exe()?;
    let folder = own.parent().ok_or("this program is in no folder")?;
    let gateway = folder.join("skein");
    let (full, bare) = match args.what {
        What::Metrics => {
            let bare = without_metrics(folder)?;
            (Trial { gateway, set: &[] }, Trial { gateway: bare, set: &[] })
        }
        What::Limits => {
            let bare = Trial { gateway: gateway.clone(), set: &[] };
            (Trial { gateway, set: LIMITED }, bare)
        }
    };
    let load = Load { program: folder.join("skein-load"), rate: args.rate, seconds: args.seconds };
    let mut pairs = Vec::new();
    for round in 0..args.rounds {
        let pair = match round % 2 {
            0 => (load.micros_per_message(&full)?, load.micros_per_message(&bare)?),
            _ => {
                let bare = load.micros_per_message(&bare)?;
                (load.micros_per_message(&full)?, bare)
            }
        };
        eprintln!("round {}: {:.2} and {:.2} us a message", round + 1, pair.0, pair.1);
        pairs.push(pair);
    }
    report(args, &pairs);
    Ok(())
}

/// As it is for clients that come over a network: nobody is exempt, and the rates of users and
/// conversations, which skein-load turns off, are those of a gateway by itself.
const LIMITED: &[&str] = &[
    "limits.exempt=",
    "limits.frames_per_user=500/s burst 5000",
    "limits.messages_per_user=50/s burst 500",
    "limits.message_bytes_per_user=2MiB/s burst 16MiB",
    "limits.syncs_per_user=20/s burst 200",
    "limits.messages_per_conversation=200/s burst 2000",
    "limits.message_bytes_per_conversation=8MiB/s burst 64MiB",
];

/// Builds the gateway that counts nothing, beside the others.
fn without_metrics(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let target = folder.parent().ok_or("this program is not in a target folder")?;
    let target = target.join("unmeasured");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = Command::new("cargo")
        .args(["build", "--release", "--locked", "--package", "skein-gateway", "--bin", "skein"])
        .args(["--features", "unmeasured", "--target-dir"])
        .arg(&target)
        .current_dir(root)
        .status()?;
    if !built.success() {
        return Err("the gateway without metrics cannot be built".into());
    }
    Ok(target.join("release/skein"))
}

fn report(args: &Args, pairs: &[(f64, f64)]) {
    let ratios = pairs.iter().map(|(full, bare)| full / bare).collect();
    let (full, bare): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let [full, bare, ratio] = [full, bare, ratios].map(Spread::of);
    if args.json {
        let show = |it: Spread| json!({ "min": it.min, "median": it.median, "max": it.max });
        println!(
            "{}",
            json!({
                "with_us_per_message": show(full),
                "without_us_per_message": show(bare),
                "ratio": show(ratio),
                "rounds": pairs.len(),
            })
        );
        return;
    }
    println!("{:<28} {:>8} {:>8} {:>8}", "us of CPU for a message", "min", "median", "max");
    for (name, spread) in [("with", full), ("without", bare), ("with / without, by pair", ratio)] {
        let Spread { min, median, max } = spread;
        println!("{name:<28} {min:>8.3} {median:>8.3} {max:>8.3}");
    }
}

struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let at = |place: usize| all.get(place).copied().unwrap_or(f64::NAN);
        let last = all.len().saturating_sub(1);
        let median = (at(last / 2) + at(all.len() / 2)) / 2.0;
        Self { min: at(0), median, max: at(last) }
    }
}
