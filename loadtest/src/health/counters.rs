//! Counters of the kernel about this machine and its processes. A field is `None` or 0 where the
//! system does not say.

use std::collections::BTreeMap;
use std::path::Path;

use procfs_core::process::Schedstat;
use procfs_core::{FromRead as _, Meminfo};

use crate::doctor::memory_group_left;

/// Threads of the generator that do its work are called this and their number.
const SHARD: &str = "shard-";

/// Size of a page on nearly every machine, bytes.
const PAGE_BYTES: u64 = 4096;

/// Datagrams of the whole machine (of this network namespace) since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Udp {
    /// Handed to sockets.
    pub(super) received: u64,
    /// Dropped because a socket had no room, or the kernel no memory.
    pub(super) dropped_in: u64,
    /// Could not be sent for want of room.
    pub(super) dropped_out: u64,
}

impl Udp {
    pub(super) fn look(root: &Path) -> Self {
        let mut udp = Self::default();
        if let Ok(text) = std::fs::read_to_string(root.join("proc/net/snmp")) {
            udp.add_ipv4(&text);
        }
        if let Ok(text) = std::fs::read_to_string(root.join("proc/net/snmp6")) {
            udp.add_ipv6(&text);
        }
        udp
    }

    /// Two lines: names, then values.
    fn add_ipv4(&mut self, text: &str) {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp:"));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            self.add(name, value);
        }
    }

    /// A line each.
    fn add_ipv6(&mut self, text: &str) {
        for line in text.lines().filter_map(|line| line.strip_prefix("Udp6")) {
            if let Some((name, value)) = line.split_once(char::is_whitespace) {
                self.add(name, value.trim());
            }
        }
    }

    fn add(&mut self, name: &str, value: &str) {
        let Ok(value) = value.parse::<u64>() else { return };
        match name {
            "InDatagrams" => self.received += value,
            "RcvbufErrors" | "MemErrors" => self.dropped_in += value,
            "SndbufErrors" => self.dropped_out += value,
            _ => {}
        }
    }
}

/// Datagrams that the sockets of a process have dropped, by socket. `None` if it cannot be looked
/// into: it is gone, or belongs to somebody else.
pub(super) fn socket_drops(root: &Path, process: &str) -> Option<BTreeMap<u64, u64>> {
    let own = sockets(&root.join("proc").join(process).join("fd"))?;
    let mut drops = BTreeMap::new();
    for file in ["udp", "udp6"] {
        // Of the process, which may be in another network namespace.
        let path = root.join("proc").join(process).join("net").join(file);
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        drops.extend(
            text.lines()
                .skip(1)
                .filter_map(socket_line)
                .filter(|(inode, _)| own.binary_search(inode).is_ok()),
        );
    }
    Some(drops)
}

/// Number and drops of a line of `/proc/net/udp`.
fn socket_line(line: &str) -> Option<(u64, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    Some((fields.get(9)?.parse().ok()?, fields.get(12)?.parse().ok()?))
}

/// Numbers of the sockets among a process' descriptors, in order.
fn sockets(folder: &Path) -> Option<Vec<u64>> {
    let mut found: Vec<u64> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.ok()?.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect();
    found.sort_unstable();
    Some(found)
}

/// Descriptors of this process.
pub(super) fn open_files(root: &Path) -> u64 {
    std::fs::read_dir(root.join("proc/self/fd")).map_or(0, |files| files.count() as u64)
}

/// Time of one thread since it started, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ThreadTime {
    /// On a core.
    pub(super) ran: u64,
    /// It could have run, and had no core.
    pub(super) waited: u64,
}

/// The shards' threads of this process, by their number in the system.
pub(super) fn shard_threads(root: &Path) -> BTreeMap<u32, ThreadTime> {
    let Ok(threads) = std::fs::read_dir(root.join("proc/self/task")) else {
        return BTreeMap::new();
    };
    let time = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        if !name.starts_with(SHARD) {
            return None;
        }
        let Schedstat { sum_exec_runtime, run_delay, .. } =
            Schedstat::from_file(entry.path().join("schedstat")).ok()?;
        Some((number, ThreadTime { ran: sum_exec_runtime, waited: run_delay }))
    };
    threads.filter_map(time).collect()
}

/// Memory of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Bytes that can be had without swapping: of the machine, or less if this program's control
    /// group has less.
    pub(super) available: Option<u64>,
    /// Bytes swapped in and out since it started.
    pub(super) swapped: u64,
}

impl Memory {
    pub(super) fn look(root: &Path) -> Self {
        let machine = Meminfo::from_file(root.join("proc/meminfo")).ok();
        let machine = machine.and_then(|memory| memory.mem_available);
        let available = [machine, memory_group_left(root)].into_iter().flatten().min();
        let swapped = std::fs::read_to_string(root.join("proc/vmstat")).map_or(0, |text| {
            let lines = text.lines().filter_map(|line| line.split_once(' '));
            let pages = lines.filter(|(name, _)| matches!(*name, "pswpin" | "pswpout"));
            pages.filter_map(|(_, pages)| pages.trim().parse::<u64>().ok()).sum::<u64>()
                * PAGE_BYTES
        });
        Self { available, swapped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn both_families_are_added_up() {
        let root = machine(&[
            (
                "proc/net/snmp",
                "Ip: Forwarding DefaultTTL\nIp: 1 64\n\
                 Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors MemErrors\n\
                 Udp: 1000 7 20 900 15 3 2\nUdpLite: InDatagrams\nUdpLite: 9\n",
            ),
            ("proc/net/snmp6", "Udp6InDatagrams \t50\nUdp6RcvbufErrors\t4\nUdp6NoPorts 1\n"),
            ("proc/vmstat", "pgpgin 5\npswpin 2\npswpout 3\n"),
        ]);
        let expected = Udp { received: 1050, dropped_in: 21, dropped_out: 3 };
        assert_eq!(Udp::look(root.path()), expected);
        assert_eq!(Memory::look(root.path()).swapped, 5 * 4096);
        assert_eq!(Udp::look(Path::new("/nowhere")), Udp::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn sockets_of_a_process_are_told_from_others() {
        let root = machine(&[
            (
                "proc/7/net/udp",
                "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid \
                 timeout inode ref pointer drops\n \
                 2398: 0100007F:5ADA 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 \
                 41 2 00000000d2900784 13\n \
                 2399: 0100007F:5ADB 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 \
                 42 2 00000000d2900785 99\nnonsense\n",
            ),
            ("proc/7/fd/0", ""),
        ]);
        std::os::unix::fs::symlink("socket:[41]", root.path().join("proc/7/fd/3")).unwrap();
        std::os::unix::fs::symlink("/dev/null", root.path().join("proc/7/fd/4")).unwrap();
        assert_eq!(socket_drops(root.path(), "7"), Some(BTreeMap::from([(41, 13)])));
        assert_eq!(socket_drops(root.path(), "8"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_busy_shard_is_seen() {
        let root = Path::new("/");
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("shard-77".into()).spawn(move || {
            // Until the sender is gone.
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                std::hint::spin_loop();
            }
        });
        let ran = || shard_threads(root).values().map(|time| time.ran).sum::<u64>();
        let before = ran();
        while ran() < before + 20_000_000 {
            std::thread::yield_now();
        }
        drop(stop);
        thread.unwrap().join().unwrap();
        assert!(open_files(root) >= 3);
        assert!(Memory::look(root).available > Some(0));
    }
}
