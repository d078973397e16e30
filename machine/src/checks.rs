//! Checks that several programs have in common. Each takes what is needed and, where it depends on
//! the program, why it matters.

use std::time::Duration;

use crate::finding::{Finding, Level, bytes};
use crate::look::Machine;

/// A clock that takes longer is one that the kernel asks a device for.
const SLOW_CLOCK: Duration = Duration::from_nanos(500);

/// The checks of one machine for one program.
#[derive(Debug, Clone, Copy)]
pub struct Checks<'a> {
    /// What is looked at.
    pub machine: &'a Machine,
    /// File in `/etc/sysctl.d/` into which settings are to be written.
    pub sysctl_file: &'static str,
}

impl Checks<'_> {
    /// Descriptors for so many files and sockets; `wanted` says what they are for.
    pub fn open_files(&self, needed: u64, wanted: String, why: &'static str) -> Finding {
        const CHECK: &str = "open_files";
        let Some(limit) = self.machine.open_files else { return Finding::unknown(CHECK, wanted) };
        let found = match limit.soft {
            Some(soft) => format!("{soft} descriptors"),
            None => "no limit".into(),
        };
        if limit.soft.is_none_or(|soft| soft >= needed) {
            return Finding::good(CHECK, found, wanted);
        }
        let raise = needed.max(4096);
        let fix = match limit.hard.is_some_and(|hard| hard < raise) {
            true => format!("sudo prlimit --pid $$ --nofile={raise}:{raise}"),
            false => format!("ulimit -n {raise}"),
        };
        Finding { check: CHECK, level: Level::Bad, found, needed: wanted, why, fix: vec![fix] }
    }

    /// A receive buffer of `needed` bytes for a socket.
    pub fn receive_buffer(&self, needed: u64, why: &'static str) -> Finding {
        let found = self.machine.receive_buffer;
        self.buffer("udp_receive_buffer", "net.core.rmem_max", found, needed, why)
    }

    /// A send buffer of `needed` bytes for a socket.
    pub fn send_buffer(&self, needed: u64, why: &'static str) -> Finding {
        let found = self.machine.send_buffer;
        self.buffer("udp_send_buffer", "net.core.wmem_max", found, needed, why)
    }

    fn buffer(
        &self,
        check: &'static str,
        key: &str,
        found: Option<u64>,
        needed: u64,
        why: &'static str,
    ) -> Finding {
        let wanted = format!("{key} = {needed}");
        let Some(found) = found else { return Finding::unknown(check, wanted) };
        let shown = format!("{found} bytes");
        if found >= needed {
            return Finding::good(check, shown, wanted);
        }
        let fix = self.sysctl(key, needed);
        Finding { check, level: Level::Advice, found: shown, needed: wanted, why, fix }
    }

    /// Memory for all UDP sockets: `sockets` of them, `buffer` bytes in each direction.
    pub fn udp_memory(&self, sockets: u64, buffer: u64) -> Finding {
        const CHECK: &str = "udp_memory";
        // Two directions; and the kernel counts a datagram with its bookkeeping, about twice its
        // bytes.
        let needed = sockets.max(1).saturating_mul(4).saturating_mul(buffer);
        let wanted = format!("{} for the sockets' buffers", bytes(needed));
        let Some(found) = self.machine.udp_memory else { return Finding::unknown(CHECK, wanted) };
        let shown = format!("{} for all sockets", bytes(found));
        if found >= needed {
            return Finding::good(CHECK, shown, wanted);
        }
        let pages = needed.div_ceil(4096);
        Finding {
            check: CHECK,
            level: Level::Advice,
            found: shown,
            needed: wanted,
            why: "Above it the kernel drops datagrams, whatever room a socket's own buffer has.",
            fix: vec![format!("sudo sysctl -w net.ipv4.udp_mem=\"{pages} {pages} {}\"", 2 * pages)],
        }
    }

    /// Places for `needed` more flows, if a firewall follows connections; `wanted` says whose.
    pub fn conntrack(&self, needed: u64, wanted: String) -> Finding {
        const CHECK: &str = "conntrack";
        let Some((count, most)) = self.machine.conntrack else {
            return Finding::good(CHECK, "no firewall follows connections".into(), wanted);
        };
        let found = format!("{count} of {most} taken");
        if most.saturating_sub(count) >= needed {
            return Finding::good(CHECK, found, wanted);
        }
        let raise = most.saturating_mul(2).max(262_144).max(count.saturating_add(2 * needed));
        Finding {
            check: CHECK,
            level: Level::Advice,
            found,
            needed: wanted,
            why: "Datagrams of a connection that finds no place are dropped.",
            fix: self.sysctl("net.netfilter.nf_conntrack_max", raise),
        }
    }

    /// `needed` cores; `wanted` says for what.
    pub fn cores(&self, needed: u64, wanted: String, why: &'static str) -> Finding {
        const CHECK: &str = "cores";
        let found = self.machine.cores.to_string();
        if self.machine.cores as u64 >= needed {
            return Finding::good(CHECK, found, wanted);
        }
        Finding { check: CHECK, level: Level::Advice, found, needed: wanted, why, fix: Vec::new() }
    }

    /// A clock that is read without asking a device.
    pub fn clock(&self, why: &'static str) -> Finding {
        const CHECK: &str = "clock";
        let machine = self.machine;
        let wanted = format!("a clock that is read in less than {} ns", SLOW_CLOCK.as_nanos());
        let name = machine.clock_source.as_deref().unwrap_or("the system's clock");
        let found = format!("{name}, read in {} ns", machine.clock_read.as_nanos());
        if machine.clock_read < SLOW_CLOCK {
            return Finding::good(CHECK, found, wanted);
        }
        // In the order of what is read fastest.
        let better = ["tsc", "kvm-clock", "arch_sys_counter"]
            .into_iter()
            .find(|better| machine.clock_sources.iter().any(|source| source == better))
            .filter(|better| machine.clock_source.as_deref() != Some(better));
        Finding {
            check: CHECK,
            level: Level::Advice,
            found,
            needed: wanted,
            why,
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

    /// Sets a key now, and at every start of the machine.
    fn sysctl(&self, key: &str, value: u64) -> Vec<String> {
        vec![
            format!("sudo sysctl -w {key}={value}"),
            format!("echo '{key}={value}' | sudo tee -a /etc/sysctl.d/{}", self.sysctl_file),
        ]
    }
}
