//! What a process on this machine uses, from `/proc`. `procfs-core` reads the files: their fields
//! have names there, not positions.

use procfs_core::FromRead as _;
use procfs_core::process::{Stat, Status};

/// Ticks a second of `/proc/PID/stat`: `USER_HZ`, 100 on every Linux.
const TICKS: f64 = 100.0;

/// Memory and processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Resident bytes.
    pub rss: u64,
    /// Processor time since its start, user and system, seconds.
    pub cpu_seconds: f64,
}

impl Usage {
    /// Of a process; `None` if there is none with this number, or no `/proc`.
    pub fn of(pid: u32) -> Option<Self> {
        let status = Status::from_file(format!("/proc/{pid}/status")).ok()?;
        let stat = Stat::from_file(format!("/proc/{pid}/stat")).ok()?;
        Some(Self {
            rss: status.vmrss? * 1024,
            cpu_seconds: (stat.utime + stat.stime) as f64 / TICKS,
        })
    }

    /// Of this process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something_and_none_uses_nothing() {
        let own = Usage::own().unwrap();
        assert!(own.rss > 1 << 20);
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
