//! What so many sessions need, against what the machine has.

use skein_machine::{Checks, Finding, Level, Machine, bytes};

use crate::config::{Config, StoreKind};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Memory of a session, bytes: 12 KiB at rest (docs/performance.md), and what it holds while
/// something is under way.
const SESSION_BYTES: u64 = 20 * KIB;
/// Memory of a process without sessions and without a store, bytes.
const PROCESS_BYTES: u64 = 128 * MIB;
/// Memory of the conversations that are kept when as many as possible are busy, bytes
/// (`MAX_CONVERSATIONS` in `serve.rs`, a few KiB each).
const CONVERSATION_BYTES: u64 = 512 * MIB;
/// Memtables that are held at most while the disk is behind (`store.memtable_bytes`).
const MEMTABLES: u64 = 4;
/// What `transport` asks the kernel for, for each direction of a socket, bytes.
const SOCKET_BUFFER: u64 = 4 * MIB;
/// Descriptors beside sockets and the store: log, pollers, admin connections, certificates.
const OTHER_FILES: u64 = 512;
/// Files that the embedded store keeps open, and those that it makes meanwhile.
const EMBEDDED_FILES: u64 = 1_024;
/// Connections to a cluster: to each of a hundred nodes one for each of 32 of its cores.
const SCYLLA_FILES: u64 = 3_200;

/// Why small buffers matter.
const DROPS: &str = "The kernel drops datagrams that find the buffer full. QUIC repairs that with a \
                     timeout, which clients see as latency.";

/// What a configuration asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// Sessions.
    pub(super) sessions: u64,
    /// Threads with a socket each.
    pub(super) shards: u64,
    /// Memory beside that of sessions, at rest, bytes.
    pub(super) base: u64,
    /// Memory that may come on top when much is under way, bytes.
    pub(super) under_load: u64,
    /// Descriptors beside sockets.
    pub(super) files: u64,
}

impl Need {
    pub(super) fn of(config: &Config, sessions: Option<usize>, cores: u64) -> Self {
        let store = &config.store;
        let (store_bytes, store_files) = match store.kind {
            StoreKind::Embedded => {
                let memtables = store.memtable_bytes.saturating_mul(MEMTABLES);
                (store.cache_bytes.saturating_add(memtables), EMBEDDED_FILES)
            }
            StoreKind::Scylla => (0, SCYLLA_FILES),
        };
        let limits = &config.limits;
        let under_way = limits.lane_bytes as u64;
        Self {
            sessions: sessions.unwrap_or(limits.max_sessions) as u64,
            shards: if config.shards == 0 { cores } else { u64::from(config.shards) },
            base: PROCESS_BYTES.saturating_add(store_bytes),
            under_load: CONVERSATION_BYTES
                .saturating_add(under_way)
                .saturating_add(limits.outbox_total_bytes as u64),
            files: OTHER_FILES + store_files,
        }
    }
}

pub(super) fn examine(machine: &Machine, need: &Need) -> Vec<Finding> {
    let checks = Checks { machine, sysctl_file: "90-skein.conf" };
    let files = need.shards.saturating_add(need.files);
    vec![
        memory(machine, need),
        memory_under_load(machine, need),
        checks.open_files(
            files,
            format!("{files} (LimitNOFILE of the service; sessions need none)"),
            "Without a descriptor the store cannot write, and the gateway stops accepting messages.",
        ),
        checks.receive_buffer(SOCKET_BUFFER, DROPS),
        checks.send_buffer(SOCKET_BUFFER, DROPS),
        checks.udp_memory(need.shards, SOCKET_BUFFER),
        checks.conntrack(need.sessions, format!("{} places (one a session)", need.sessions)),
        checks.cores(
            need.shards,
            format!("{} (one for each of `shards`)", need.shards),
            "Threads that take turns on a core wait for each other. Lower `shards`, or leave it at 0.",
        ),
        checks.clock("Every turn of a shard reads the clock; a slow one takes its time."),
    ]
}

fn memory(machine: &Machine, need: &Need) -> Finding {
    const CHECK: &str = "memory";
    let needed = need.base.saturating_add(SESSION_BYTES.saturating_mul(need.sessions));
    let wanted = format!(
        "{} for {} sessions ({} each, {} beside them)",
        bytes(needed),
        need.sessions,
        bytes(SESSION_BYTES),
        bytes(need.base)
    );
    let Some(free) = machine.memory_free() else { return Finding::unknown(CHECK, wanted) };
    let found = format!("{} free", bytes(free));
    if free >= needed {
        return Finding::good(CHECK, found, wanted);
    }
    let fits = free.saturating_sub(need.base) / SESSION_BYTES;
    let mut fix = Vec::new();
    if fits > 0 {
        fix.push(format!("limits.max_sessions = {fits}"));
    }
    if machine.memory_group_left == Some(free) {
        fix.push("sudo systemctl set-property skein.service MemoryMax=infinity".into());
    }
    Finding {
        check: CHECK,
        level: Level::Bad,
        found,
        needed: wanted,
        why: "The gateway takes sessions up to its limit; without the memory for them the kernel \
              ends it, and all of them at once. If it runs already, what it has taken counts as \
              not free.",
        fix,
    }
}

fn memory_under_load(machine: &Machine, need: &Need) -> Finding {
    const CHECK: &str = "memory_under_load";
    let needed = need
        .base
        .saturating_add(SESSION_BYTES.saturating_mul(need.sessions))
        .saturating_add(need.under_load);
    let wanted = format!(
        "{} (with what may wait: limits.outbox_total_bytes, limits.lane_bytes, busy conversations)",
        bytes(needed)
    );
    let Some(free) = machine.memory_free() else { return Finding::unknown(CHECK, wanted) };
    let found = format!("{} free", bytes(free));
    if free >= needed {
        return Finding::good(CHECK, found, wanted);
    }
    Finding {
        check: CHECK,
        level: Level::Advice,
        found,
        needed: wanted,
        why: "Enough for sessions at rest, and not for all that may wait when clients read slowly \
              and the store is behind. Lower these limits or limits.max_sessions, or add memory.",
        fix: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use skein_machine::{OpenFiles, is_fit};

    use super::*;

    const GIB: u64 = 1 << 30;

    fn fit() -> Machine {
        Machine {
            cores: 8,
            open_files: Some(OpenFiles { soft: Some(65_536), hard: None }),
            memory_available: Some(24 * GIB),
            memory_group_left: None,
            receive_buffer: Some(4 << 20),
            send_buffer: Some(4 << 20),
            udp_memory: Some(GIB),
            ports: None,
            conntrack: None,
            clock_source: Some("tsc".into()),
            clock_sources: vec!["tsc".into()],
            clock_read: Duration::from_nanos(25),
        }
    }

    fn need() -> Need {
        Need::of(&Config::default(), None, 8)
    }

    /// What is not in order.
    fn wrong(machine: &Machine, need: &Need) -> Vec<Finding> {
        examine(machine, need).into_iter().filter(|f| f.level != Level::Good).collect()
    }

    #[test]
    fn a_fit_machine_is_told_so() {
        assert_eq!(wrong(&fit(), &need()), []);
    }

    #[test]
    fn memory_says_how_many_sessions_fit() {
        let machine = Machine { memory_available: Some(GIB), ..fit() };
        let findings = wrong(&machine, &need());
        assert_eq!((findings[0].check, findings[0].level), ("memory", Level::Bad));
        let fits = findings[0].fix[0].strip_prefix("limits.max_sessions = ").unwrap();
        let fits: usize = fits.parse().unwrap();
        let few = Need::of(&Config::default(), Some(fits), 8);
        // What may wait on top is advice.
        let left = wrong(&machine, &few);
        assert!(is_fit(&left), "{left:#?}");
        assert_eq!(left[0].check, "memory_under_load");
        let one_more = Need::of(&Config::default(), Some(fits + 1), 8);
        assert!(!is_fit(&wrong(&machine, &one_more)));
    }

    #[test]
    fn a_machine_too_small_for_any_session_gets_no_number() {
        let machine = Machine { memory_available: Some(MIB), ..fit() };
        assert!(wrong(&machine, &need())[0].fix.is_empty());
    }

    #[test]
    fn a_firewall_needs_a_place_for_each_session() {
        let machine = Machine { conntrack: Some((10, 65_536)), ..fit() };
        let findings = wrong(&machine, &need());
        assert_eq!((findings.len(), findings[0].check), (1, "conntrack"));
        assert_eq!(findings[0].fix[0], "sudo sysctl -w net.netfilter.nf_conntrack_max=262144");
        assert!(findings[0].fix[1].ends_with("/etc/sysctl.d/90-skein.conf"));
    }

    #[test]
    fn the_configuration_decides_what_is_needed() {
        let mut config = Config::default();
        let embedded = need();
        config.store.kind = StoreKind::Scylla;
        let scylla = Need::of(&config, None, 8);
        assert!(scylla.base < embedded.base && scylla.files > embedded.files);
        config.shards = 64;
        let many = Need::of(&config, None, 8);
        assert_eq!(many.shards, 64);
        let findings = wrong(&fit(), &many);
        assert!(findings.iter().any(|finding| finding.check == "cores"), "{findings:#?}");
        let soft = Some(OpenFiles { soft: Some(1_024), hard: Some(1_024) });
        let findings = wrong(&Machine { open_files: soft, ..fit() }, &embedded);
        assert_eq!((findings[0].check, findings[0].level), ("open_files", Level::Bad));
    }
}
