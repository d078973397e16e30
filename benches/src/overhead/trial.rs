//! One gateway under load, and what a message cost it.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// A gateway to try.
pub(crate) struct Trial {
    pub(crate) gateway: PathBuf,
    /// Its configuration beside what the load needs.
    pub(crate) set: &'static [&'static str],
}

/// What each of them has to bear.
pub(crate) struct Load {
    pub(crate) program: PathBuf,
    /// Messages a second.
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
}

impl Load {
    /// Processor time of the gateway for each message, microseconds.
    pub(crate) fn micros_per_message(&self, trial: &Trial) -> Result<f64, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(&self.program);
        command
            .args(["chat", "--spawn-gateway", "--pairs", "500", "--warm-up", "3s"])
            .arg("--rate")
            .arg(self.rate.to_string())
            .arg("--for")
            .arg(format!("{}s", self.seconds))
            .arg("--gateway")
            .arg(&trial.gateway)
            .arg("--report")
            .arg(folder.path())
            .stdout(Stdio::null());
        for setting in trial.set {
            command.arg("--gateway-set").arg(setting);
        }
        let status = command.status()?;
        let text = std::fs::read(folder.path().join("summary.json"))
            .map_err(|error| format!("skein-load wrote no report ({status}): {error}"))?;
        let summary: Value = serde_json::from_slice(&text)?;
        if summary["valid"] != true {
            return Err(format!("the run is invalid: {}", summary["reasons"]).into());
        }
        let cpu = summary["gateway"]["cpu_seconds"].as_f64();
        let messages = summary["operations"]["send_ack"]["count"].as_f64();
        match (cpu, messages) {
            (Some(cpu), Some(messages)) if messages > 0.0 => Ok(cpu / messages * 1e6),
            _ => Err("the report has no figures of the gateway".into()),
        }
    }
}
