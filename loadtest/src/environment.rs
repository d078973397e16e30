//! Where and how a run was made: what somebody needs to make it again, or to know why it came out
//! otherwise.

use std::path::Path;

use procfs_core::{CpuInfo, FromRead as _, Meminfo};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A machine that made load, and what it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// The command line.
    pub command: String,
    /// Model of the processor; null where the system does not say.
    pub processor: Option<String>,
    /// Cores that this program could use.
    pub cores: u64,
    /// Memory of the machine, bytes.
    pub memory_bytes: Option<u64>,
    /// Version of the kernel.
    pub kernel: Option<String>,
    /// `release` or `debug`: what this program was built for. Figures of a debug build are of no use.
    pub build: String,
}

impl Environment {
    /// Of this process.
    pub fn look() -> Self {
        let root = Path::new("/proc");
        let processor = CpuInfo::from_file(root.join("cpuinfo")).ok();
        let processor = processor.and_then(|info| info.model_name(0).map(ToOwned::to_owned));
        let memory = Meminfo::from_file(root.join("meminfo")).ok();
        let kernel = std::fs::read_to_string(root.join("sys/kernel/osrelease")).ok();
        Self {
            command: command(),
            processor,
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
            memory_bytes: memory.map(|memory| memory.mem_total),
            kernel: kernel.map(|text| text.trim().to_owned()),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
        }
    }
}

/// As it was typed, as far as that can be known. There are no secrets in it: those are in files.
pub fn command() -> String {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let name = Path::new(&program).file_name().map(|name| name.to_string_lossy().into_owned());
    let quoted = words.map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,%+@".contains(c);
        match !word.is_empty() && word.chars().all(plain) {
            true => word,
            false => format!("'{}'", word.replace('\'', "'\\''")),
        }
    });
    let all: Vec<String> = name.into_iter().chain(quoted).collect();
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let found = Environment::look();
        assert!(found.cores > 0 && found.memory_bytes > Some(0) && found.kernel.is_some());
        assert!(found.command.starts_with("skein_loadtest"), "{found:?}");
    }
}
