//! What the acts of a long run came to, in a file that outlives an interruption.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use crate::run::Tally;

/// The acts of one run, which began with one seed.
pub struct Ledger {
    /// `None`: kept in memory alone.
    path: Option<PathBuf>,
    next_seed: u64,
    total: Tally,
}

/// A line of the file.
#[derive(serde::Serialize, serde::Deserialize)]
struct Line {
    seed: u64,
    #[serde(flatten)]
    tally: Tally,
}

impl Ledger {
    /// The one that the environment names, as far as it has come; its first line says with which
    /// seed it began.
    pub fn open(seed: u64) -> Self {
        let path = std::env::var_os("SKEIN_CLUSTER_LEDGER").map(PathBuf::from);
        let mut ledger = Self { path, next_seed: seed, total: Tally::default() };
        let text = ledger.path.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        for line in text.unwrap_or_default().lines() {
            let line: Line = serde_json::from_str(line).unwrap();
            ledger.count(&line);
        }
        ledger
    }

    /// Of the act that is to be played now.
    pub fn next_seed(&self) -> u64 {
        self.next_seed
    }

    pub fn total(&self) -> &Tally {
        &self.total
    }

    /// An act is over.
    pub fn enter(&mut self, seed: u64, tally: Tally) {
        let line = Line { seed, tally };
        self.count(&line);
        if let Some(path) = &self.path {
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            writeln!(file, "{}", serde_json::to_string(&line).unwrap()).unwrap();
            file.sync_data().unwrap();
        }
    }

    pub fn told(&self) -> String {
        serde_json::to_string_pretty(&self.total).unwrap()
    }

    fn count(&mut self, line: &Line) {
        self.total.add(&line.tally);
        self.next_seed = line.seed.wrapping_add(1);
    }
}
