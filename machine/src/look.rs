//! What the system says about itself. A field is `None` where it does not say.

use std::path::Path;
use std::time::{Duration, Instant};

use procfs_core::{FromRead, Meminfo, process};

/// Limits of the machine and of this process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Machine {
    /// Processor cores that this process may use.
    pub cores: usize,
    /// File descriptors that this process may have.
    pub open_files: Option<OpenFiles>,
    /// Memory that can be had without swapping, bytes.
    pub memory_available: Option<u64>,
    /// What the control group of this process leaves it, bytes; `None` also without a limit.
    pub memory_group_left: Option<u64>,
    /// The largest receive buffer a socket can ask for, bytes.
    pub receive_buffer: Option<u64>,
    /// The largest send buffer a socket can ask for, bytes.
    pub send_buffer: Option<u64>,
    /// Memory of all UDP sockets together before the kernel drops, bytes.
    pub udp_memory: Option<u64>,
    /// Ports that a socket without a wish gets, first and last.
    pub ports: Option<(u16, u16)>,
    /// Connections that the firewall follows now, and at most; `None` also without one.
    pub conntrack: Option<(u64, u64)>,
    /// What the kernel reads the time from.
    pub clock_source: Option<String>,
    /// What it could read the time from.
    pub clock_sources: Vec<String>,
    /// How long one reading of the clock takes.
    pub clock_read: Duration,
}

/// Soft and hard limit; `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// In force.
    pub soft: Option<u64>,
    /// Up to which the process may raise it itself.
    pub hard: Option<u64>,
}

impl Machine {
    /// Looks at this machine.
    pub fn look() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            clock_read: clock_read(),
            ..Self::under(Path::new("/"))
        }
    }

    /// The least of what the machine and the control group of this process leave, bytes.
    pub fn memory_free(&self) -> Option<u64> {
        match (self.memory_available, self.memory_group_left) {
            (Some(machine), Some(group)) => Some(machine.min(group)),
            (one, other) => one.or(other),
        }
    }

    /// What the files below `root` say.
    fn under(root: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(root.join(path)).ok();
        let number = |path: &str| text(path)?.trim().parse::<u64>().ok();
        let numbers = |path: &str| -> Option<Vec<u64>> {
            text(path)?.split_whitespace().map(|n| n.parse().ok()).collect()
        };
        let clock = "sys/devices/system/clocksource/clocksource0";
        Self {
            cores: 1,
            open_files: open_files(root),
            memory_available: Meminfo::from_file(root.join("proc/meminfo"))
                .ok()
                .and_then(|memory| memory.mem_available),
            memory_group_left: memory_group_left(root),
            receive_buffer: number("proc/sys/net/core/rmem_max"),
            send_buffer: number("proc/sys/net/core/wmem_max"),
            // In pages; the third is where the kernel begins to drop.
            udp_memory: numbers("proc/sys/net/ipv4/udp_mem")
                .and_then(|pages| pages.get(2).map(|most| most.saturating_mul(PAGE_BYTES))),
            ports: numbers("proc/sys/net/ipv4/ip_local_port_range").and_then(|range| {
                Some((u16::try_from(*range.first()?).ok()?, u16::try_from(*range.get(1)?).ok()?))
            }),
            conntrack: number("proc/sys/net/netfilter/nf_conntrack_count")
                .zip(number("proc/sys/net/netfilter/nf_conntrack_max")),
            clock_source: text(&format!("{clock}/current_clocksource"))
                .map(|name| name.trim().to_owned()),
            clock_sources: text(&format!("{clock}/available_clocksource"))
                .map(|names| names.split_whitespace().map(ToOwned::to_owned).collect())
                .unwrap_or_default(),
            clock_read: Duration::ZERO,
        }
    }
}

/// Size of a page on nearly every machine; where pages are larger the true limit is higher.
const PAGE_BYTES: u64 = 4096;

fn open_files(root: &Path) -> Option<OpenFiles> {
    let limits = process::Limits::from_file(root.join("proc/self/limits")).ok()?.max_open_files;
    let value = |limit| match limit {
        process::LimitValue::Unlimited => None,
        process::LimitValue::Value(value) => Some(value),
    };
    Some(OpenFiles { soft: value(limits.soft_limit), hard: value(limits.hard_limit) })
}

/// The least that any group from this process's own up to the root leaves (cgroup v2).
pub fn memory_group_left(root: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let top = root.join("sys/fs/cgroup");
    let number = |file: &Path| {
        std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u64>().ok())
    };
    top.join(own)
        .ancestors()
        .take_while(|folder| folder.starts_with(&top))
        .filter_map(|folder| {
            let limit = number(&folder.join("memory.max"))?;
            Some(limit.saturating_sub(number(&folder.join("memory.current"))?))
        })
        .min()
}

fn clock_read() -> Duration {
    const READS: u32 = 10_000;
    let begun = Instant::now();
    for _ in 0..READS {
        std::hint::black_box(Instant::now());
    }
    begun.elapsed() / READS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that Linux lists, in its order.
    const LIMITS: [&str; 16] = [
        "cpu time",
        "file size",
        "data size",
        "stack size",
        "core file size",
        "resident set",
        "processes",
        "open files",
        "locked memory",
        "address space",
        "file locks",
        "pending signals",
        "msgqueue size",
        "nice priority",
        "realtime priority",
        "realtime timeout",
    ];

    /// What every Linux lists, and what we read.
    const MEMORY: &str = "MemTotal MemFree MemAvailable Buffers Cached SwapCached Active Inactive \
        SwapTotal SwapFree Dirty Writeback Mapped Slab Committed_AS VmallocTotal VmallocUsed \
        VmallocChunk";

    fn machine(files: &[(&str, &str)]) -> Machine {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Machine::under(root.path())
    }

    #[test]
    fn what_the_files_say_is_read() {
        let limits: String = LIMITS
            .iter()
            .map(|name| match name.ends_with("priority") {
                true => format!("Max {name} 0 0\n"),
                false => format!("Max {name} 1024 unlimited units\n"),
            })
            .collect();
        let memory: String = MEMORY.split(' ').map(|name| format!("{name}: 2000 kB\n")).collect();
        let clock = "sys/devices/system/clocksource/clocksource0";
        let found = machine(&[
            ("proc/self/limits", &format!("Limit Soft Hard Units\n{limits}")),
            ("proc/meminfo", &memory),
            ("proc/sys/net/core/rmem_max", "212992\n"),
            ("proc/sys/net/core/wmem_max", "4194304\n"),
            ("proc/sys/net/ipv4/udp_mem", "100\t200\t300\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "7\n"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
            (&format!("{clock}/current_clocksource"), "hpet\n"),
            (&format!("{clock}/available_clocksource"), "tsc hpet \n"),
        ]);
        let expected = Machine {
            cores: 1,
            open_files: Some(OpenFiles { soft: Some(1024), hard: None }),
            memory_available: Some(2000 * 1024),
            memory_group_left: None,
            receive_buffer: Some(212_992),
            send_buffer: Some(4 << 20),
            udp_memory: Some(300 * 4096),
            ports: Some((32_768, 60_999)),
            conntrack: Some((7, 262_144)),
            clock_source: Some("hpet".into()),
            clock_sources: vec!["tsc".into(), "hpet".into()],
            clock_read: Duration::ZERO,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn the_tightest_group_counts() {
        let found = machine(&[
            ("proc/self/cgroup", "0::/system.slice/load.service\n"),
            ("sys/fs/cgroup/system.slice/load.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/load.service/memory.current", "10\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "1000\n"),
            ("sys/fs/cgroup/system.slice/memory.current", "400\n"),
        ]);
        assert_eq!(found.memory_group_left, Some(600));
    }

    #[test]
    fn a_system_that_says_nothing_is_no_error() {
        assert_eq!(machine(&[]), Machine { cores: 1, ..Machine::default() });
        assert!(Machine::look().clock_read > Duration::ZERO);
    }
}
