//! What a run needs, against what the machine has.

use skein_machine::{Checks, Finding, Level, Machine, bytes};

const MIB: u64 = 1 << 20;

/// Memory of an idle session on the generator, bytes, as measured (docs/performance.md).
const GENERATOR_BYTES_PER_SESSION: u64 = 11_805;
/// Memory of an idle session on the gateway, bytes, as measured (docs/performance.md).
const GATEWAY_BYTES_PER_SESSION: u64 = 12_234;
/// So much more is asked for, percent: what was measured differs by less from run to run.
const MARGIN: u64 = 2;
/// Memory of a process without sessions: buffers, histograms, the store's caches.
const PROCESS_BYTES: u64 = 128 * MIB;
/// What `transport` asks the kernel for, for each direction of a socket.
const SOCKET_BUFFER: u64 = 4 * MIB;
/// Descriptors of a process beside its sockets: report, log, poller, store.
const OTHER_FILES: u64 = 256;
/// Why small buffers matter.
const DROPS: &str = "The kernel drops datagrams that find the buffer full. QUIC repairs that with a \
                     timeout, which shows as latency that is not the gateway's; the run may be \
                     invalid.";

/// What a run asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Sessions that this machine makes.
    pub connections: u64,
    /// Threads with a socket each.
    pub shards: u64,
    /// Whether the gateway is on this machine too.
    pub local_gateway: bool,
}

/// Every check, in the order of what ends a run first.
pub fn examine(machine: &Machine, need: &Need) -> Vec<Finding> {
    let checks = Checks { machine, sysctl_file: "90-skein-load.conf" };
    let sockets = need.shards.max(1);
    let sides = if need.local_gateway { 2 } else { 1 };
    let cores = if need.local_gateway { need.shards + 1 } else { need.shards };
    let files = need.shards.saturating_add(OTHER_FILES);
    vec![
        memory(machine, need),
        checks.open_files(
            files,
            format!("{files} (a socket a thread carries all of its sessions)"),
            "A thread that gets no socket cannot start.",
        ),
        checks.receive_buffer(SOCKET_BUFFER, DROPS),
        checks.send_buffer(SOCKET_BUFFER, DROPS),
        checks.udp_memory(sides * sockets, SOCKET_BUFFER),
        ports(machine, need),
        checks.conntrack(sockets, format!("{sockets} places (one a thread)")),
        checks.cores(
            cores,
            format!("{cores} (a core for each of {} threads, the rest)", need.shards),
            "Generator and gateway take turns on a core, so the highest rate is less than either \
             could do, and waiting for the core counts as latency.",
        ),
        checks.clock(
            "Every message reads the clock several times; a slow one takes the generator's time.",
        ),
    ]
}

fn memory(machine: &Machine, need: &Need) -> Finding {
    let processes = if need.local_gateway { 2 } else { 1 };
    let base = processes * PROCESS_BYTES;
    let (measured, sides) = if need.local_gateway {
        (GENERATOR_BYTES_PER_SESSION + GATEWAY_BYTES_PER_SESSION, "generator and gateway")
    } else {
        (GENERATOR_BYTES_PER_SESSION, "the generator")
    };
    let each = measured * (100 + MARGIN) / 100;
    let needed = base.saturating_add(each.saturating_mul(need.connections));
    let wanted = format!(
        "{} for {} sessions on {sides} ({measured} bytes each as measured, {MARGIN} % to spare, {} for \
         {processes} programs)",
        bytes(needed),
        need.connections,
        bytes(base)
    );
    let Some(free) = machine.memory_free() else { return Finding::unknown("memory", wanted) };
    let found = format!("{} free", bytes(free));
    if free >= needed {
        return Finding::good("memory", found, wanted);
    }
    let fits = free.saturating_sub(base) / each;
    let mut fix = vec![format!("skein-load hold --connections {fits}")];
    if machine.memory_group_left == Some(free) {
        fix.push("systemctl set-property UNIT MemoryMax=infinity".into());
    }
    Finding {
        check: "memory",
        level: Level::Bad,
        found,
        needed: wanted,
        why: "Without it the machine swaps or kills a process. Take fewer sessions, or several \
              machines and `skein-load merge`.",
        fix,
    }
}

fn ports(machine: &Machine, need: &Need) -> Finding {
    let needed = need.shards.max(1);
    let wanted = format!("{needed} (one a thread, however many sessions)");
    let Some((first, last)) = machine.ports else { return Finding::unknown("ports", wanted) };
    let free = u64::from(last.saturating_sub(first)) + 1;
    let found = format!("{first} to {last}");
    if free >= needed {
        return Finding::good("ports", found, wanted);
    }
    Finding {
        check: "ports",
        level: Level::Bad,
        found,
        needed: wanted,
        why: "A thread that gets no port cannot start.",
        fix: vec!["sudo sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"".into()],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use skein_machine::OpenFiles;

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
            ports: Some((32_768, 60_999)),
            conntrack: None,
            clock_source: Some("tsc".into()),
            clock_sources: vec!["tsc".into(), "hpet".into()],
            clock_read: Duration::from_nanos(25),
        }
    }

    const NEED: Need = Need { connections: 200_000, shards: 2, local_gateway: true };

    fn only(machine: &Machine, need: &Need) -> Finding {
        let wrong = examine(machine, need).into_iter().filter(|f| f.level != Level::Good);
        let mut wrong = wrong.collect::<Vec<_>>();
        assert_eq!(wrong.len(), 1, "{wrong:#?}");
        wrong.remove(0)
    }

    #[test]
    fn a_fit_machine_is_told_so() {
        let findings = examine(&fit(), &NEED);
        assert!(findings.iter().all(|f| f.level == Level::Good), "{findings:#?}");
        assert!(super::super::is_fit(&findings));
    }

    #[test]
    fn each_limit_is_seen_with_its_remedy() {
        let files = Some(OpenFiles { soft: Some(64), hard: Some(4096) });
        let hard = Some(OpenFiles { soft: Some(64), hard: Some(64) });
        let slow = Duration::from_micros(2);
        let hpet = Some("hpet".to_owned());
        let cases: [(Machine, &str, Level, &str); 9] = [
            (Machine { memory_available: Some(GIB), ..fit() }, "memory", Level::Bad, "hold"),
            (Machine { open_files: files, ..fit() }, "open_files", Level::Bad, "ulimit -n 4096"),
            (Machine { open_files: hard, ..fit() }, "open_files", Level::Bad, "sudo prlimit"),
            (
                Machine { receive_buffer: Some(212_992), ..fit() },
                "udp_receive_buffer",
                Level::Advice,
                "sudo sysctl -w net.core.rmem_max=4194304",
            ),
            (
                Machine { send_buffer: Some(212_992), ..fit() },
                "udp_send_buffer",
                Level::Advice,
                "sudo sysctl -w net.core.wmem_max=4194304",
            ),
            (
                Machine { udp_memory: Some(1 << 20), ..fit() },
                "udp_memory",
                Level::Advice,
                "sudo sysctl -w net.ipv4.udp_mem=\"16384 16384 32768\"",
            ),
            (Machine { ports: Some((5, 5)), ..fit() }, "ports", Level::Bad, "sudo sysctl -w"),
            (
                Machine { conntrack: Some((10, 10)), ..fit() },
                "conntrack",
                Level::Advice,
                "sudo sysctl -w net.netfilter.nf_conntrack_max=262144",
            ),
            (
                Machine { clock_read: slow, clock_source: hpet, ..fit() },
                "clock",
                Level::Advice,
                "echo tsc | sudo tee",
            ),
        ];
        for (machine, check, level, fix) in cases {
            let finding = only(&machine, &NEED);
            assert_eq!((finding.check, finding.level), (check, level));
            assert!(!finding.why.is_empty());
            assert!(finding.fix[0].contains(fix), "{finding:#?}");
        }
        assert_eq!(only(&Machine { cores: 2, ..fit() }, &NEED).check, "cores");
    }

    #[test]
    fn memory_says_how_many_sessions_fit() {
        let machine = Machine { memory_available: Some(4 * GIB), ..fit() };
        let finding = only(&machine, &NEED);
        let fits = (4 * GIB - 256 * MIB) / 24_519;
        assert_eq!(finding.fix, [format!("skein-load hold --connections {fits}")]);
        let need = Need { connections: fits, ..NEED };
        assert!(super::super::is_fit(&examine(&machine, &need)));
        let far = Need { local_gateway: false, ..NEED };
        assert!(super::super::is_fit(&examine(&machine, &far)));
    }

    /// 22.4 GiB by the measured slopes on one machine, 11 GiB for the generator alone.
    #[test]
    fn a_million_sessions_need_what_was_measured() {
        let fits = |local_gateway, tenths_of_gib: u64| {
            let memory_available = Some(tenths_of_gib * GIB / 10);
            let machine = Machine { memory_available, udp_memory: None, ..fit() };
            let need = Need { connections: 1_000_000, local_gateway, ..NEED };
            super::super::is_fit(&examine(&machine, &need))
        };
        assert!(fits(true, 235) && !fits(true, 223));
        assert!(fits(false, 115) && !fits(false, 109));
    }

    #[test]
    fn a_group_that_is_tighter_than_the_machine_counts() {
        let machine = Machine { memory_group_left: Some(GIB), ..fit() };
        assert!(only(&machine, &NEED).fix[1].contains("MemoryMax"));
    }

    #[test]
    fn what_the_system_does_not_say_stops_nobody() {
        let findings = examine(&Machine { cores: 8, ..Machine::default() }, &NEED);
        assert!(super::super::is_fit(&findings));
        assert!(findings.iter().any(|finding| finding.level == Level::Unknown));
        let text = super::super::text(&findings);
        assert!(text.contains("?       memory"), "{text}");
    }
}
