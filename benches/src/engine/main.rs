//! Our engine against plain quinn: memory of an idle connection, connections and echoes a second.
//!
//! The servers echo, in a process of their own, one after the other. quinn is tuned: the same
//! windows, stream limits, congestion control, cipher, key exchange and certificate.
//!
//! Rates are measured twice: with each engine at both ends, as whoever takes it has it; and with
//! our client mode as the generator for both, which tells the servers apart.
//!
//! ```text
//! cargo run --release -p skein-benches --bin engine [-- --json] [--quick]
//! ```

#[cfg(feature = "heap")]
mod heap;
mod load;
mod quinn_load;
mod report;
mod servers;
mod setup;

use std::{io, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};

use crate::{load::Load, quinn_load::QuinnLoad, report::Report, servers::Child};

/// Measures our engine against plain quinn on this machine.
#[derive(Parser)]
struct Args {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// A short run, to see that it works; its figures are rough.
    #[arg(long)]
    quick: bool,
    /// Measure only this one.
    #[arg(long, value_enum)]
    only: Option<Kind>,
    /// Take ChaCha20-Poly1305 for both instead of AES-128-GCM.
    #[arg(long)]
    chacha: bool,
    /// Threads of the server: shards, or workers of the quinn server's runtime.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Say what the generator's end holds of an idle connection, and nothing else.
    #[cfg(feature = "heap")]
    #[arg(long)]
    heap: bool,
    /// Be the server (the program starts itself with this).
    #[arg(long, value_enum, hide = true)]
    serve: Option<Kind>,
}

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Our engine.
    Skein,
    /// quinn on tokio.
    Quinn,
}

/// How much is measured.
struct Plan {
    /// Idle connections at the two ends of the slope.
    idle: [usize; 2],
    /// Connections that echo, with one message in flight each.
    echoing: usize,
    warm_up: Duration,
    echo_for: Duration,
    /// Time for acknowledgements and timers after the connections are made.
    settle: Duration,
}

impl Plan {
    fn new(quick: bool) -> Self {
        let seconds = Duration::from_secs;
        match quick {
            true => Self {
                idle: [500, 2000],
                echoing: 64,
                warm_up: Duration::from_millis(300),
                echo_for: seconds(1),
                settle: seconds(2),
            },
            false => Self {
                idle: [5000, 20_000],
                echoing: 64,
                warm_up: seconds(1),
                echo_for: seconds(5),
                settle: seconds(4),
            },
        }
    }
}

/// Connections and echoes a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    connects: f64,
    echoes: f64,
}

/// One server's figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    idle_bytes: f64,
    /// Under our generator.
    rates: Rates,
    /// With the same engine at both ends.
    both_ends: Rates,
    /// Processor time of the server.
    cpu_per_connect: f64,
    cpu_per_echo: f64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.serve {
        Some(kind) => servers::serve(kind, args.threads, args.chacha),
        #[cfg(feature = "heap")]
        None if args.heap => heap::measure(args.threads, args.chacha),
        None => measure(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("engine: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> io::Result<()> {
    let plan = Plan::new(args.quick);
    let mut report = Report::default();
    for kind in [Kind::Quinn, Kind::Skein] {
        if args.only.is_none_or(|only| only == kind) {
            let mut figures = measure_one(kind, &plan, args)?;
            match kind {
                Kind::Skein => report.skein = Some(figures),
                Kind::Quinn => {
                    figures.both_ends = quinn_at_both_ends(&plan, args)?;
                    report.quinn = Some(figures);
                }
            }
        }
    }
    if args.json {
        report.print_json()
    } else {
        report.print_table()
    }
    Ok(())
}

fn measure_one(kind: Kind, plan: &Plan, args: &Args) -> io::Result<Figures> {
    let server = Child::start(kind, args.threads, args.chacha)?;
    let load = Load::start(server.address, args.chacha)?;

    // A few first, so that what both sides set up once is not counted.
    load.connect(plan.echoing)?;
    let before = server.cpu()?;
    let (echoes, count) = load.echo(plan.warm_up, plan.echo_for)?;
    let cpu_per_echo = (server.cpu()? - before).as_secs_f64() / count as f64;

    let mut cpu = server.cpu()?;
    let begun = load.connect(plan.idle[0] - plan.echoing)?;
    let mut connecting = server.cpu()? - cpu;
    load.touch_all()?;
    std::thread::sleep(plan.settle);
    let low = server.resident()?;
    cpu = server.cpu()?;
    let ramp = load.connect(plan.idle[1] - plan.idle[0])?;
    connecting += server.cpu()? - cpu;
    load.touch_all()?;
    std::thread::sleep(plan.settle);
    let high = server.resident()?;

    let made = (plan.idle[1] - plan.echoing) as f64;
    let rates = Rates { connects: made / (begun + ramp).as_secs_f64(), echoes };
    Ok(Figures {
        idle_bytes: (high.saturating_sub(low)) as f64 / (plan.idle[1] - plan.idle[0]) as f64,
        rates,
        both_ends: rates,
        cpu_per_connect: connecting.as_secs_f64() / made,
        cpu_per_echo,
    })
}

fn quinn_at_both_ends(plan: &Plan, args: &Args) -> io::Result<Rates> {
    let server = Child::start(Kind::Quinn, args.threads, args.chacha)?;
    let mut load = QuinnLoad::start(server.address, args.chacha)?;
    load.connect(plan.echoing)?;
    let echoes = load.echo(plan.warm_up, plan.echo_for)?;
    let more = plan.idle[1] - plan.echoing;
    let connects = more as f64 / load.connect(more)?.as_secs_f64();
    Ok(Rates { connects, echoes })
}
