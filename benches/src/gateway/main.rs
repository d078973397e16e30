//! A whole gateway under load: memory of an authenticated idle session, durable messages a
//! second, latency at a fixed rate. The gateway is the program `skein` in a process of its own on
//! a new folder, the load comes from this process over loopback.
//!
//! ```text
//! cargo build --release && cargo run --release -p skein-benches --bin gateway [-- --json]
//! ```

mod process;
mod swarm;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use serde::Serialize;

use process::Gateway;
use swarm::{Load, Swarm};

/// Measures a whole gateway.
#[derive(Parser)]
struct Args {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// The program to measure.
    #[arg(long, default_value = "target/release/skein")]
    skein: PathBuf,
    /// Idle sessions at the lower end of the slope.
    #[arg(long, default_value_t = 2_000)]
    from: usize,
    /// Idle sessions at the upper end; 0 leaves this part out.
    #[arg(long, default_value_t = 12_000)]
    to: usize,
    /// Pairs that exchange messages; 0 leaves this part out.
    #[arg(long, default_value_t = 64)]
    pairs: usize,
    /// Messages that each sender has under way when it sends as fast as it is answered.
    #[arg(long, default_value_t = 16)]
    outstanding: usize,
    /// Rates at which latency is measured, messages a second.
    #[arg(long, value_delimiter = ',', default_value = "1000,4000")]
    rates: Vec<u64>,
    /// Length of each measurement in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

#[derive(Serialize)]
struct Report {
    idle_bytes_per_session: Option<f64>,
    logins_per_second: Option<f64>,
    messages: Vec<Messages>,
}

/// One run with messages: 128-byte payloads, one to one, fsynced, delivered and acknowledged.
#[derive(Serialize)]
struct Messages {
    /// `None`: as fast as answers come.
    rate: Option<u64>,
    pairs: usize,
    outstanding: usize,
    acked_per_second: f64,
    delivered_per_second: f64,
    /// From the intended start of the send.
    ack_us: Latency,
    deliver_us: Latency,
    refused: u64,
    gateway_cpu_seconds: f64,
}

#[derive(Serialize)]
struct Latency {
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

fn main() {
    let args = Args::parse();
    let mut report =
        Report { idle_bytes_per_session: None, logins_per_second: None, messages: Vec::new() };
    if args.to > 0 {
        idle(&args, &mut report);
    }
    if args.pairs > 0 {
        report.messages.push(messages(&args, None, 1));
        report.messages.push(messages(&args, None, args.outstanding));
        for &rate in &args.rates {
            report.messages.push(messages(&args, Some(rate), 0));
        }
    }
    if args.json {
        println!("{}", serde_json::to_string(&report).expect("numbers can be written"));
    } else {
        print(&report);
    }
}

fn idle(args: &Args, report: &mut Report) {
    let gateway = Gateway::start(&args.skein);
    let swarm = Swarm::start(&gateway);
    swarm.login(args.from);
    let lower = gateway.settled_bytes();
    let began = std::time::Instant::now();
    swarm.login(args.to - args.from);
    let more = (args.to - args.from) as f64;
    report.logins_per_second = Some(more / began.elapsed().as_secs_f64());
    let upper = gateway.settled_bytes();
    report.idle_bytes_per_session = Some((upper as f64 - lower as f64) / more);
}

fn messages(args: &Args, rate: Option<u64>, outstanding: usize) -> Messages {
    let gateway = Gateway::start(&args.skein);
    let swarm = Swarm::start(&gateway);
    swarm.login(2 * args.pairs);
    let length = Duration::from_secs(args.seconds);
    let load = match rate {
        Some(rate) => Load::Paced { every: Duration::from_secs(1).mul_f64(1.0 / rate as f64) },
        None => Load::Outstanding(outstanding),
    };
    let warm_up = Duration::from_secs(1);
    swarm.send(args.pairs, load);
    std::thread::sleep(warm_up);
    swarm.reset();
    let cpu = gateway.cpu_seconds();
    std::thread::sleep(length);
    let figures = swarm.figures();
    let cpu = gateway.cpu_seconds() - cpu;
    swarm.quiet();
    let latency = |histogram: &hdrhistogram::Histogram<u64>| Latency {
        p50: histogram.value_at_quantile(0.5),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
    };
    Messages {
        rate,
        pairs: args.pairs,
        outstanding,
        acked_per_second: figures.acks.len() as f64 / length.as_secs_f64(),
        delivered_per_second: figures.deliveries.len() as f64 / length.as_secs_f64(),
        ack_us: latency(&figures.acks),
        deliver_us: latency(&figures.deliveries),
        refused: figures.refused,
        gateway_cpu_seconds: cpu,
    }
}

fn print(report: &Report) {
    if let (Some(bytes), Some(logins)) = (report.idle_bytes_per_session, report.logins_per_second) {
        println!("idle session        {bytes:.0} bytes of the gateway's memory (slope)");
        println!("logins              {logins:.0} a second, with the handshake");
    }
    println!(
        "\n{:>12} {:>9} {:>9} {:>27} {:>27} {:>8} {:>7}",
        "load",
        "acked/s",
        "pushed/s",
        "ack us p50/p99/p99.9",
        "push us p50/p99/p99.9",
        "refused",
        "cpu s"
    );
    for run in &report.messages {
        let load = match run.rate {
            Some(rate) => format!("{rate}/s"),
            None => format!("{}x{}", run.pairs, run.outstanding),
        };
        let three = |l: &Latency| format!("{}/{}/{}", l.p50, l.p99, l.p999);
        println!(
            "{load:>12} {:>9.0} {:>9.0} {:>27} {:>27} {:>8} {:>7.2}",
            run.acked_per_second,
            run.delivered_per_second,
            three(&run.ack_us),
            three(&run.deliver_us),
            run.refused,
            run.gateway_cpu_seconds,
        );
    }
}
