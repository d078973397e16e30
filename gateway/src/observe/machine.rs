//! What the system tells of the process and of its sockets. Read when somebody asks; what the
//! system does not tell is left out.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Lines of the system's tables that are read at most: one for each UDP socket of the machine.
const MAX_LINES: usize = 100_000;

/// What the process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Process {
    pub(super) resident_bytes: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
    pub(super) threads: Option<u64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let mut process = Self::default();
        let mut status = String::new();
        if read_to(Path::new("/proc/self/status"), &mut status).is_some() {
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name))?;
                line.split_whitespace().next()?.parse::<u64>().ok()
            };
            process.resident_bytes = field("VmRSS:").map(|kib| kib * 1024);
            process.threads = field("Threads:");
        }
        process.open_fds = std::fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as u64);
        #[cfg(unix)]
        {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            process.cpu_seconds = Some(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9);
            process.max_fds = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        }
        process
    }
}

/// Free bytes of the volume of a folder, for those who are not privileged.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let volume = rustix::fs::statvfs(folder).ok()?;
        Some(volume.f_bavail.saturating_mul(volume.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// Datagrams that the kernel dropped at the sockets of this address, because nobody took them in
/// time, and bytes that wait there now.
pub(super) fn udp_sockets(address: SocketAddr) -> Option<(u64, u64)> {
    let table = if address.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
    let file = File::open(table).ok()?;
    Some(drops_in(BufReader::new(file), address))
}

fn drops_in(table: impl BufRead, address: SocketAddr) -> (u64, u64) {
    let local = local_of(address);
    let (mut dropped, mut waiting) = (0, 0);
    for line in table.lines().take(MAX_LINES).map_while(Result::ok) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(at), Some(queues), Some(drops)) = (fields.get(1), fields.get(4), fields.last())
        else {
            continue;
        };
        if *at == local {
            dropped += drops.parse().unwrap_or(0);
            let received = queues.split_once(':').map_or("", |(_, received)| received);
            waiting += u64::from_str_radix(received, 16).unwrap_or(0);
        }
    }
    (dropped, waiting)
}

/// The address as the kernel's tables show it: words of the machine's byte order, in hex.
fn local_of(address: SocketAddr) -> String {
    let mut text = String::new();
    let words: Vec<[u8; 4]> = match address.ip() {
        IpAddr::V4(ip) => vec![ip.octets()],
        IpAddr::V6(ip) => {
            let bytes = ip.octets();
            (0..4).map(|n| std::array::from_fn(|i| bytes[4 * n + i])).collect()
        }
    };
    for word in words {
        text.push_str(&format!("{:08X}", u32::from_ne_bytes(word)));
    }
    format!("{text}:{:04X}", address.port())
}

fn read_to(path: &Path, text: &mut String) -> Option<()> {
    File::open(path).ok()?.take(64 << 10).read_to_string(text).ok().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_our_sockets_are_found_in_the_kernels_table() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
   1: 0100007F:1EA3 00000000:0000 07 00000000:00000A00 00:00000000 00000000     0        0 1 2 0000000000000000 7
   2: 0100007F:1EA3 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 35
   3: 00000000:1EA3 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 1000
   4: short
";
        if cfg!(target_endian = "little") {
            let address = ([127, 0, 0, 1], 7843).into();
            assert_eq!(drops_in(table.as_bytes(), address), (42, 0xA00));
            let six: SocketAddr = "[::1]:7843".parse().unwrap();
            assert_eq!(local_of(six), "00000000000000000000000001000000:1EA3");
        }
    }

    #[test]
    fn a_real_socket_is_in_the_table_of_this_system() {
        if cfg!(target_os = "linux") {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let address = socket.local_addr().unwrap();
            let from = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            from.send_to(&[0; 100], address).unwrap();
            let (dropped, waiting) = udp_sockets(address).unwrap();
            assert_eq!(dropped, 0);
            assert!(waiting >= 100);
            let process = Process::read();
            assert!(process.resident_bytes > Some(1 << 20) && process.cpu_seconds > Some(0.0));
            assert!(process.open_fds >= Some(2) && process.max_fds > Some(2));
        }
    }
}
