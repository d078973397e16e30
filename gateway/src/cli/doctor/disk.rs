//! Where the data folder lies: its kind, its room, and how long an `fsync` takes.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use skein_machine::{Finding, Level, bytes};

use crate::config::{StoreConfig, StoreKind};

/// An acknowledgement waits for one of these; slower disks make a slow chat of any gateway.
const SLOW_SYNC: Duration = Duration::from_millis(5);
/// Room for messages that is worth starting with, bytes.
const ROOM: u64 = 1 << 30;
/// Writes that are timed; the median counts.
const SYNCS: usize = 32;

/// What the system says of the disk under a folder. A field is `None` where it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Disk {
    kind: Option<Kind>,
    /// What the gateway's user may still write, bytes.
    free: Option<u64>,
    /// Median of small writes, each made durable.
    sync: Option<Duration>,
}

/// What matters about a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Gone when the machine stops.
    Memory,
    /// A container's own layer: gone with the container.
    Layer,
    /// Another machine's, or a program's.
    Elsewhere,
    /// Any other.
    Local,
}

impl Disk {
    /// Looks at the folder, or at the nearest one above it that there is.
    pub(super) fn look(folder: &Path) -> Self {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.into());
        let Some(folder) = folder.ancestors().find(|folder| folder.is_dir()) else {
            return Self::default();
        };
        let free = rustix::fs::statvfs(folder).ok();
        Self {
            kind: kind(folder),
            free: free.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            sync: time_syncs(folder).ok(),
        }
    }
}

#[cfg(target_os = "linux")]
fn kind(folder: &Path) -> Option<Kind> {
    let magic = rustix::fs::statfs(folder).ok()?.f_type;
    // statfs(2), linux/magic.h. Of network file systems those that are met.
    Some(match magic & 0xffff_ffff {
        0x0102_1994 | 0x8584_58f6 => Kind::Memory, // tmpfs, ramfs
        0x794c_7630 => Kind::Layer,                // overlayfs
        // NFS, CIFS, SMB2, FUSE, 9p, Ceph
        0x6969 | 0xff53_4d42 | 0xfe53_4d42 | 0x6573_5546 | 0x0102_1997 | 0x00c3_6400 => {
            Kind::Elsewhere
        }
        _ => Kind::Local,
    })
}

#[cfg(not(target_os = "linux"))]
fn kind(_: &Path) -> Option<Kind> {
    None
}

/// In a file without a name, which is gone afterwards whatever happens.
fn time_syncs(folder: &Path) -> io::Result<Duration> {
    let mut file = tempfile::tempfile_in(folder)?;
    let block = [0x5a; 4096];
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    Ok(took[SYNCS / 2])
}

pub(super) fn examine(disk: &Disk, store: &StoreConfig) -> Vec<Finding> {
    match store.kind {
        StoreKind::Embedded => vec![place(disk, true), room(disk, store), sync(disk)],
        // There are keys in the folder, and no messages.
        StoreKind::Scylla => vec![place(disk, false)],
    }
}

fn place(disk: &Disk, messages: bool) -> Finding {
    const CHECK: &str = "data_folder";
    let wanted = "a local disk that outlives the process".to_owned();
    let lost = if messages { Level::Bad } else { Level::Advice };
    let (found, level, why) = match disk.kind {
        None => return Finding::unknown(CHECK, wanted),
        Some(Kind::Local) => return Finding::good(CHECK, "on a local disk".into(), wanted),
        Some(Kind::Memory) => (
            "in memory (tmpfs)",
            lost,
            "All that lies there is gone when the machine stops: messages, and the keys with which \
             clients resume.",
        ),
        Some(Kind::Layer) => (
            "in a container's layer (overlayfs)",
            lost,
            "All that lies there is gone with the container, also at an upgrade. Mount a volume.",
        ),
        Some(Kind::Elsewhere) => (
            "on a network file system, or one made by a program",
            Level::Advice,
            "Whether an fsync and a lock hold there is up to its server. Use a local disk, or keep \
             messages in ScyllaDB.",
        ),
    };
    Finding { check: CHECK, level, found: found.into(), needed: wanted, why, fix: Vec::new() }
}

fn room(disk: &Disk, store: &StoreConfig) -> Finding {
    const CHECK: &str = "disk_room";
    let least = store.reserve_bytes.saturating_add(store.journal_bytes);
    let needed = least.saturating_add(ROOM);
    let wanted = format!(
        "{} (store.reserve_bytes, store.journal_bytes, and {} of messages)",
        bytes(needed),
        bytes(ROOM)
    );
    let Some(free) = disk.free else { return Finding::unknown(CHECK, wanted) };
    let found = format!("{} free", bytes(free));
    if free >= needed {
        return Finding::good(CHECK, found, wanted);
    }
    Finding {
        check: CHECK,
        level: if free < least { Level::Bad } else { Level::Advice },
        found,
        needed: wanted,
        why: "Below store.reserve_bytes the gateway refuses messages until there is room again.",
        fix: Vec::new(),
    }
}

fn sync(disk: &Disk) -> Finding {
    const CHECK: &str = "disk_sync";
    let wanted = format!("an fsync in less than {} ms", SLOW_SYNC.as_millis());
    let Some(took) = disk.sync else { return Finding::unknown(CHECK, wanted) };
    let found = format!("{:.2} ms", took.as_secs_f64() * 1e3);
    if took < SLOW_SYNC {
        return Finding::good(CHECK, found, wanted);
    }
    Finding {
        check: CHECK,
        level: Level::Advice,
        found,
        needed: wanted,
        why: "Every acknowledgement waits for one: this is the least latency that a sender sees.",
        fix: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const FIT: Disk = Disk {
        kind: Some(Kind::Local),
        free: Some(10 * GIB),
        sync: Some(Duration::from_micros(300)),
    };

    fn store() -> StoreConfig {
        crate::config::Config::default().store
    }

    fn wrong(disk: Disk, store: &StoreConfig) -> Vec<(&'static str, Level)> {
        let findings = examine(&disk, store);
        let wrong = findings.into_iter().filter(|finding| finding.level != Level::Good);
        wrong.map(|finding| (finding.check, finding.level)).collect()
    }

    #[test]
    fn each_fault_is_seen() {
        let store = store();
        assert_eq!(wrong(FIT, &store), []);
        let cases = [
            (Disk { kind: Some(Kind::Memory), ..FIT }, "data_folder", Level::Bad),
            (Disk { kind: Some(Kind::Layer), ..FIT }, "data_folder", Level::Bad),
            (Disk { kind: Some(Kind::Elsewhere), ..FIT }, "data_folder", Level::Advice),
            (Disk { free: Some(GIB), ..FIT }, "disk_room", Level::Advice),
            (Disk { free: Some(store.reserve_bytes), ..FIT }, "disk_room", Level::Bad),
            (Disk { sync: Some(Duration::from_millis(20)), ..FIT }, "disk_sync", Level::Advice),
        ];
        for (disk, check, level) in cases {
            assert_eq!(wrong(disk, &store), [(check, level)]);
        }
        let silent = wrong(Disk::default(), &store);
        assert_eq!(silent.len(), 3);
        assert!(silent.iter().all(|(_, level)| *level == Level::Unknown));
    }

    #[test]
    fn with_messages_elsewhere_only_keys_are_at_stake() {
        let store = StoreConfig { kind: StoreKind::Scylla, ..store() };
        let full = Disk { free: Some(0), sync: Some(Duration::from_secs(1)), ..FIT };
        assert_eq!(wrong(full, &store), []);
        let memory = Disk { kind: Some(Kind::Memory), ..FIT };
        assert_eq!(wrong(memory, &store), [("data_folder", Level::Advice)]);
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_looked_at_from_above_and_left_alone() {
        let above = tempfile::tempdir().unwrap();
        let disk = Disk::look(&above.path().join("not/yet"));
        assert!(disk.free.is_some() && disk.sync.is_some(), "{disk:?}");
        assert_eq!(std::fs::read_dir(above.path()).unwrap().count(), 0);
    }
}
