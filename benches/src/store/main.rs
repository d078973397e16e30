//! What each store does alone, without a gateway in front: rows a second, latency, rows a
//! transaction, and whose processor time it costs. The embedded store runs on a new folder, the
//! clustered one on a CQL server over loopback, load by load one after the other.
//!
//! ```text
//! cargo run --release -p skein-benches --bin store [-- --json] [--quick] [--cql HOST:PORT]
//! ```
//!
//! Senders work as gateways make them: each has one message under way, and a conversation has one
//! append under way; what waits for it goes into the next one.

mod backend;
mod cpu;
mod load;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use backend::{Backend, Cql};
use load::Load;
use report::{Figures, Report};

/// Measures the stores.
#[derive(Parser)]
struct Args {
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// A tenth of the time: whether it works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// A CQL server that runs already; without it one is started, if there is Java 17.
    #[arg(long, value_name = "HOST:PORT")]
    cql: Option<String>,
    /// Its process, if it is on this machine: its processor time is counted.
    #[arg(long, value_name = "PID", requires = "cql")]
    cql_pid: Option<u32>,
    /// Keyspace there; made if it is missing, and left.
    #[arg(long, default_value = "skein_bench")]
    keyspace: String,
    /// Nodes of the server that is started, and copies of each row: 1 or 3.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// The server that is started answers a write when it is on the disk, as the embedded store
    /// does, instead of when it is in memory.
    #[arg(long)]
    durable: bool,
    /// Folder in which the embedded store gets a folder of its own, gone in the end.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Messages under way.
    #[arg(long, value_delimiter = ',', default_value = "1,64,1024")]
    in_flight: Vec<usize>,
    /// Length of each measurement in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

impl Args {
    fn length(&self) -> Duration {
        let length = Duration::from_secs(self.seconds);
        if self.quick { length / 10 } else { length }
    }
}

fn main() {
    let args = Args::parse();
    let mut backends = vec![Backend::embedded(args.data.as_deref())];
    let left_out = match Cql::open(&args) {
        Ok(cql) => {
            backends.push(Backend::Cql(Box::new(cql)));
            None
        }
        Err(reason) => Some(reason),
    };
    let mut report = Report { server: None, left_out, rows: Vec::new() };
    if let Some(Backend::Cql(cql)) = backends.last() {
        report.server = Some(cql.description.clone());
        // A virtual machine first has to find out what is worth compiling.
        warm_up(&backends[1], args.length() * 2);
    }
    for load in loads(&args.in_flight) {
        for backend in &backends {
            report.rows.push(measure(backend, load, args.length()));
        }
    }
    for backend in backends {
        backend.close();
    }
    if args.json { report.print_json() } else { report.print_tables() }
}

/// Each with its own conversation, then all in one. One message alone is both.
fn loads(in_flight: &[usize]) -> Vec<Load> {
    let own = in_flight.iter().map(|&n| Load { conversations: n, senders: 1 });
    let hot = in_flight.iter().filter(|n| **n > 1);
    own.chain(hot.map(|&n| Load { conversations: 1, senders: n })).collect()
}

fn warm_up(backend: &Backend, length: Duration) {
    for load in loads(&[64]) {
        measure(backend, load, length / 2);
    }
}

fn measure(backend: &Backend, load: Load, length: Duration) -> Figures {
    let look = || (backend.counted(), backend.cpu_seconds());
    let run = load::run(backend.store(), load, length / 5, length, look);
    Figures::new(backend.name(), load, &run)
}
