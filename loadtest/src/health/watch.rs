//! What one second was like for this machine and for the target on it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::counters::{self, Memory, ThreadTime, Udp};
use super::cpu::Times;
use crate::clock::{self, Nanos, SECOND};
use crate::outcome::Health;

/// Looks once a second, and says what has happened since it looked last.
#[derive(Debug)]
pub struct Watch {
    root: PathBuf,
    at: Nanos,
    udp: Udp,
    threads: BTreeMap<u32, ThreadTime>,
    times: Option<Times>,
    drops: BTreeMap<u64, u64>,
    target: Option<(u32, BTreeMap<u64, u64>)>,
    swapped: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

impl Watch {
    /// Begins now.
    pub fn new() -> Self {
        let mut watch = Self {
            root: "/".into(),
            at: clock::now(),
            udp: Udp::default(),
            threads: BTreeMap::new(),
            times: None,
            drops: BTreeMap::new(),
            target: None,
            swapped: 0,
        };
        watch.look(None);
        watch
    }

    /// What has happened since the last look. `target`: a process on this machine.
    pub fn look(&mut self, target: Option<u32>) -> Health {
        let now = clock::now();
        let passed = now.saturating_sub(self.at).max(1) as f64;
        self.at = now;
        let memory = Memory::look(&self.root);
        let udp = Udp::look(&self.root);
        let (busiest, starved) = self.threads(passed);
        let drops = counters::socket_drops(&self.root, "self").unwrap_or_default();
        let health = Health {
            busiest_shard: busiest,
            starved_shard: starved,
            others_cpu: self.others(target, passed / SECOND as f64),
            behind: 0.0,
            socket_drops: risen(&self.drops, &drops),
            target_socket_drops: self.target_drops(target),
            udp_received: udp.received.saturating_sub(self.udp.received),
            udp_dropped_in: udp.dropped_in.saturating_sub(self.udp.dropped_in),
            udp_dropped_out: udp.dropped_out.saturating_sub(self.udp.dropped_out),
            memory_available: memory.available,
            swapped: memory.swapped.saturating_sub(self.swapped),
            open_files: counters::open_files(&self.root),
        };
        (self.udp, self.drops, self.swapped) = (udp, drops, memory.swapped);
        health
    }

    /// Shares of the time that passed: of the shard that ran longest, and of the one that waited
    /// longest for a core.
    fn threads(&mut self, passed: f64) -> (f64, f64) {
        let threads = counters::shard_threads(&self.root);
        let most = |part: fn(&ThreadTime) -> u64| {
            let shares = threads.iter().filter_map(|(number, now)| {
                // A thread that was not there before has had only a part of the time.
                let before = self.threads.get(number)?;
                Some(part(now).saturating_sub(part(before)) as f64 / passed)
            });
            shares.fold(0.0, f64::max)
        };
        let shares = (most(|time| time.ran), most(|time| time.waited));
        self.threads = threads;
        shares
    }

    fn others(&mut self, target: Option<u32>, seconds: f64) -> Option<f64> {
        let now = Times::look(&self.root, target);
        let before = std::mem::replace(&mut self.times, now);
        self.times.as_ref()?.others_since(before.as_ref()?, seconds)
    }

    fn target_drops(&mut self, target: Option<u32>) -> Option<u64> {
        let process = target?;
        let now = counters::socket_drops(&self.root, &process.to_string())?;
        let since = match &self.target {
            Some((same, before)) if *same == process => risen(before, &now),
            // Seen for the first time, or started again: nothing to compare with.
            _ => 0,
        };
        self.target = Some((process, now));
        Some(since)
    }
}

/// By how much counters rose; of a new socket, all that it has counted.
fn risen(before: &BTreeMap<u64, u64>, now: &BTreeMap<u64, u64>) -> u64 {
    let since = |(socket, count): (&u64, &u64)| {
        count.saturating_sub(before.get(socket).copied().unwrap_or(0))
    };
    now.iter().map(since).sum()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn only_what_is_new_counts() {
        let before = BTreeMap::from([(1, 10), (2, 5)]);
        let now = BTreeMap::from([(1, 12), (3, 4)]);
        assert_eq!(risen(&before, &now), 6);
        assert_eq!(risen(&now, &now), 0);
    }

    /// A socket that nobody reads, with the smallest buffer that the kernel gives.
    #[cfg(target_os = "linux")]
    #[test]
    fn datagrams_that_find_no_room_are_counted() {
        let full = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&full).set_recv_buffer_size(1).unwrap();
        let mut watch = Watch::new();
        assert_eq!(watch.look(Some(std::process::id())).target_socket_drops, Some(0));
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sent = 200;
        for _ in 0..sent {
            sender.send_to(&[0; 1000], full.local_addr().unwrap()).unwrap();
        }
        let health = watch.look(Some(std::process::id()));
        assert!(health.socket_drops >= sent / 2, "{health:?}");
        assert_eq!(health.target_socket_drops, Some(health.socket_drops));
        assert!(health.udp_dropped_in >= health.socket_drops, "{health:?}");
        assert_eq!(watch.look(None).target_socket_drops, None);
    }
}
