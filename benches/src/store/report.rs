//! The figures, for people and for programs.

use serde::Serialize;

use crate::backend::Counted;
use crate::cpu::CpuSeconds;
use crate::load::{Load, Run};

/// Above this share of all cores the processor is what there is too little of.
const BUSY: f64 = 0.85;

/// One load on one store.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    store: &'static str,
    load: Load,
    rows_per_second: f64,
    /// From the moment at which a message could be sent to its outcome.
    p50_us: u64,
    p99_us: u64,
    rows_per_transaction: f64,
    transactions_per_second: f64,
    /// Cores of this process: generator, and the store or the driver of it.
    own_cores: f64,
    /// Cores of the server; `None` if there is none, or none that can be looked at.
    server_cores: Option<f64>,
    /// Attempts whose outcome was not known.
    unknown: u64,
    /// Messages that the store refused for now.
    refused: u64,
}

impl Figures {
    pub(crate) fn new(store: &'static str, load: Load, run: &Run<(Counted, CpuSeconds)>) -> Self {
        let seconds = run.took.as_secs_f64();
        let (counted, cpu) = (run.after.0 - run.before.0, run.after.1 - run.before.1);
        Self {
            store,
            load,
            rows_per_second: run.latency.len() as f64 / seconds,
            p50_us: run.latency.value_at_quantile(0.5),
            p99_us: run.latency.value_at_quantile(0.99),
            rows_per_transaction: counted.rows as f64 / counted.transactions.max(1) as f64,
            transactions_per_second: counted.transactions as f64 / seconds,
            own_cores: cpu.own / seconds,
            server_cores: cpu.server.map(|server| server / seconds),
            unknown: counted.unknown,
            refused: run.refused,
        }
    }

    /// What there was too little of.
    fn limit(&self) -> &'static str {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let server = self.server_cores.unwrap_or(0.0);
        if self.own_cores + server >= BUSY * cores {
            if server > self.own_cores { "server's processor" } else { "own processor" }
        } else if self.store == "cql" {
            "round trips"
        } else {
            "disk"
        }
    }
}

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Which CQL server.
    pub(crate) server: Option<String>,
    /// Why there was none.
    pub(crate) left_out: Option<String>,
    /// In the order in which they were measured.
    pub(crate) rows: Vec<Figures>,
}

impl Report {
    pub(crate) fn print_json(&self) {
        println!("{}", serde_json::to_string(self).expect("numbers can be written"));
    }

    pub(crate) fn print_tables(&self) {
        if let Some(server) = &self.server {
            println!("cql is {server}\n");
        }
        println!(
            "{:<22} {:>8} {:>9} {:>17} {:>9} {:>8} {:>9} {:>10} {:>8} {:>8}  limit",
            "load",
            "store",
            "rows/s",
            "us p50/p99",
            "rows/txn",
            "txn/s",
            "own cores",
            "its server",
            "unknown",
            "refused"
        );
        for row in &self.rows {
            println!(
                "{:<22} {:>8} {:>9.0} {:>17} {:>9.1} {:>8.0} {:>9.2} {:>10} {:>8} {:>8}  {}",
                name(row.load),
                row.store,
                row.rows_per_second,
                format!("{}/{}", row.p50_us, row.p99_us),
                row.rows_per_transaction,
                row.transactions_per_second,
                row.own_cores,
                row.server_cores.map_or("-".into(), |cores| format!("{cores:.2}")),
                row.unknown,
                row.refused,
                row.limit(),
            );
        }
        match &self.left_out {
            Some(reason) => println!("\nThe rows of the clustered store are left out: {reason}"),
            None => self.print_ratios(),
        }
    }

    fn print_ratios(&self) {
        println!("\n{:<22} {:>15} {:>15}", "cql / embedded", "rows/s", "p50");
        for cql in self.rows.iter().filter(|row| row.store == "cql") {
            let own = self.rows.iter().find(|row| row.load == cql.load && row.store != cql.store);
            let Some(own) = own else { continue };
            println!(
                "{:<22} {:>14.2}x {:>14.2}x",
                name(cql.load),
                cql.rows_per_second / own.rows_per_second,
                cql.p50_us as f64 / own.p50_us.max(1) as f64,
            );
        }
    }
}

fn name(load: Load) -> String {
    match load {
        Load { conversations: 1, senders: 1 } => "one message".into(),
        Load { conversations, senders: 1 } => format!("{conversations} one-to-one"),
        Load { senders, .. } => format!("{senders} in a hot group"),
    }
}
