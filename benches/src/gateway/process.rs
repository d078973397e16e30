//! The gateway that is measured.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Sleeps until what connections need only at the beginning is given back.
const SETTLE: Duration = Duration::from_secs(5);

/// A gateway on a folder of its own; both end with this value.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) data: tempfile::TempDir,
}

impl Gateway {
    /// Starts it and waits until it serves.
    pub(crate) fn start(program: &Path) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data.path())
            .env("SKEIN_LIMITS__MAX_SESSIONS", "1000000")
            .env("SKEIN_SESSION__HEARTBEAT_INTERVAL", "5m")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "cannot run {}: {error}; build it with: cargo build --release",
                    program.display()
                )
            });
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        let address = out
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("ready ").map(|at| at.trim().parse()));
        let address = address.expect("the gateway ended").expect("an address");
        Self { child, address, data }
    }

    /// Resident bytes, once they stand still.
    pub(crate) fn settled_bytes(&self) -> u64 {
        std::thread::sleep(SETTLE);
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).expect("this needs /proc");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a VmRSS line");
        let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("a number") * 1024
    }

    /// Processor time so far, user and system.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("this needs /proc");
        // Behind the name in brackets; utime and stime are fields 14 and 15, in ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / 100.0
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
