//! What a run needs, against what the machine has.

use std::time::Duration;

use super::machine::Machine;
use super::{Finding, Level};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Memory of a session on the generator, bytes, with room to spare.
const GENERATOR_BYTES_PER_SESSION: u64 = 12 * KIB;
/// Memory of a session on the gateway, bytes, with room to spare.
const GATEWAY_BYTES_PER_SESSION: u64 = 16 * KIB;
/// Memory of a process without sessions: buffers, histograms, the store's caches.
const PROCESS_BYTES: u64 = 256 * MIB;
/// What `transport` asks the kernel for, for each direction of a socket.
const SOCKET_BUFFER: u64 = 4 * MIB;
/// Descriptors of a process beside its sockets: report, log, poller, store.
const OTHER_FILES: u64 = 256;
/// A clock that takes longer is one that the kernel asks a device for. Each message reads it
/// several times.
const SLOW_CLOCK: Duration = Duration::from_nanos(500);

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
    vec![
        memory(machine, need),
        open_files(machine, need),
        buffer("udp_receive_buffer", "net.core.rmem_max", machine.receive_buffer),
        buffer("udp_send_buffer", "net.core.wmem_max", machine.send_buffer),
        udp_memory(machine, need),
        ports(machine, need),
        conntrack(machine, need),
        cores(machine, need),
        clock(machine),
    ]
}

fn memory(machine: &Machine, need: &Need) -> Finding {
    let processes = if need.local_gateway { 2 } else { 1 };
    let base = processes * PROCESS_BYTES;
    let each = if need.local_gateway {
        GENERATOR_BYTES_PER_SESSION + GATEWAY_BYTES_PER_SESSION
    } else {
        GENERATOR_BYTES_PER_SESSION
    };
    let needed = base.saturating_add(each.saturating_mul(need.connections));
    let free = match (machine.memory_available, machine.memory_group_left) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (one, other) => one.or(other),
    };
    let side = if need.local_gateway { "generator and gateway" } else { "the generator" };
    let wanted = format!(
        "{} for {} sessions ({} each on {side})",
        bytes(needed),
        need.connections,
        bytes(each)
    );
    let Some(free) = free else { return unknown("memory", wanted) };
    let found = format!("{} free", bytes(free));
    if free >= needed {
        return good("memory", found, wanted);
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

fn open_files(machine: &Machine, need: &Need) -> Finding {
    let needed = need.shards.saturating_add(OTHER_FILES);
    let wanted = format!("{needed} (a socket a thread carries all of its sessions)");
    let Some(limit) = machine.open_files else { return unknown("open_files", wanted) };
    let found = match limit.soft {
        Some(soft) => format!("{soft} descriptors"),
        None => "no limit".into(),
    };
    if limit.soft.is_none_or(|soft| soft >= needed) {
        return good("open_files", found, wanted);
    }
    let raise = needed.max(4096);
    let mut fix = vec![format!("ulimit -n {raise}")];
    if limit.hard.is_some_and(|hard| hard < raise) {
        fix = vec![format!("sudo prlimit --pid $$ --nofile={raise}:{raise}")];
    }
    Finding {
        check: "open_files",
        level: Level::Bad,
        found,
        needed: wanted,
        why: "A thread that gets no socket cannot start.",
        fix,
    }
}

fn buffer(check: &'static str, key: &str, found: Option<u64>) -> Finding {
    let wanted = format!("{key} = {SOCKET_BUFFER}");
    let Some(found) = found else { return unknown(check, wanted) };
    let shown = format!("{found} bytes");
    if found >= SOCKET_BUFFER {
        return good(check, shown, wanted);
    }
    Finding {
        check,
        level: Level::Advice,
        found: shown,
        needed: wanted,
        why: "The kernel drops datagrams that find the buffer full. QUIC repairs that with a \
              timeout, which shows as latency that is not the gateway's; the run may be invalid.",
        fix: sysctl(key, SOCKET_BUFFER),
    }
}

fn udp_memory(machine: &Machine, need: &Need) -> Finding {
    let sides = if need.local_gateway { 2 } else { 1 };
    // The kernel counts a datagram with its bookkeeping, about twice its bytes.
    let needed = sides * need.shards.max(1).saturating_mul(4 * SOCKET_BUFFER);
    let wanted = format!("{} for the sockets' buffers", bytes(needed));
    let Some(found) = machine.udp_memory else { return unknown("udp_memory", wanted) };
    let shown = format!("{} for all sockets", bytes(found));
    if found >= needed {
        return good("udp_memory", shown, wanted);
    }
    let pages = needed.div_ceil(4096);
    Finding {
        check: "udp_memory",
        level: Level::Advice,
        found: shown,
        needed: wanted,
        why: "Above it the kernel drops datagrams, whatever room a socket's own buffer has.",
        fix: vec![format!("sudo sysctl -w net.ipv4.udp_mem=\"{pages} {pages} {}\"", 2 * pages)],
    }
}

fn ports(machine: &Machine, need: &Need) -> Finding {
    let needed = need.shards.max(1);
    let wanted = format!("{needed} (one a thread, however many sessions)");
    let Some((first, last)) = machine.ports else { return unknown("ports", wanted) };
    let free = u64::from(last.saturating_sub(first)) + 1;
    let found = format!("{first} to {last}");
    if free >= needed {
        return good("ports", found, wanted);
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

fn conntrack(machine: &Machine, need: &Need) -> Finding {
    let wanted = format!("{} places (one a thread)", need.shards.max(1));
    let Some((count, most)) = machine.conntrack else {
        return good("conntrack", "no firewall follows connections".into(), wanted);
    };
    let found = format!("{count} of {most} taken");
    if most.saturating_sub(count) >= need.shards.max(1) {
        return good("conntrack", found, wanted);
    }
    Finding {
        check: "conntrack",
        level: Level::Advice,
        found,
        needed: wanted,
        why: "Datagrams of a connection that finds no place are dropped.",
        fix: sysctl("net.netfilter.nf_conntrack_max", most.saturating_mul(2).max(262_144)),
    }
}

fn cores(machine: &Machine, need: &Need) -> Finding {
    let needed = if need.local_gateway { need.shards + 1 } else { need.shards };
    let found = format!("{}", machine.cores);
    let wanted = format!("{needed} (a core for each of {} threads, the rest)", need.shards);
    if machine.cores as u64 >= needed {
        return good("cores", found, wanted);
    }
    Finding {
        check: "cores",
        level: Level::Advice,
        found,
        needed: wanted,
        why: "Generator and gateway take turns on a core, so the highest rate is less than either \
              could do, and waiting for the core counts as latency.",
        fix: Vec::new(),
    }
}

fn clock(machine: &Machine) -> Finding {
    let wanted = format!("a clock that is read in less than {} ns", SLOW_CLOCK.as_nanos());
    let name = machine.clock_source.as_deref().unwrap_or("the system's clock");
    let found = format!("{name}, read in {} ns", machine.clock_read.as_nanos());
    if machine.clock_read < SLOW_CLOCK {
        return good("clock", found, wanted);
    }
    // In the order of what is read fastest.
    let better = ["tsc", "kvm-clock", "arch_sys_counter"]
        .into_iter()
        .find(|better| machine.clock_sources.iter().any(|source| source == better))
        .filter(|better| machine.clock_source.as_deref() != Some(better));
    Finding {
        check: "clock",
        level: Level::Advice,
        found,
        needed: wanted,
        why: "Every message reads the clock several times; a slow one takes the generator's time.",
        fix: better
            .map(|better| {
                format!(
                    "echo {better} | sudo tee \
                     /sys/devices/system/clocksource/clocksource0/current_clocksource"
                )
            })
            .into_iter()
            .collect(),
    }
}

fn sysctl(key: &str, value: u64) -> Vec<String> {
    vec![
        format!("sudo sysctl -w {key}={value}"),
        format!("echo '{key}={value}' | sudo tee -a /etc/sysctl.d/90-skein-load.conf"),
    ]
}

fn good(check: &'static str, found: String, needed: String) -> Finding {
    Finding { check, level: Level::Good, found, needed, why: "", fix: Vec::new() }
}

fn unknown(check: &'static str, needed: String) -> Finding {
    let found = "this system does not say".into();
    Finding { check, level: Level::Unknown, found, needed, why: "", fix: Vec::new() }
}

fn bytes(count: u64) -> String {
    bytesize::ByteSize(count).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::OpenFiles;
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
        let fits = (4 * GIB - 512 * MIB) / (28 * KIB);
        assert_eq!(finding.fix, [format!("skein-load hold --connections {fits}")]);
        let need = Need { connections: fits, ..NEED };
        assert!(super::super::is_fit(&examine(&machine, &need)));
        let far = Need { local_gateway: false, ..NEED };
        assert!(super::super::is_fit(&examine(&machine, &far)));
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
