//! Which shard a datagram belongs to.
//!
//! All shards share one port (SO_REUSEPORT). By itself the kernel chooses among their sockets by
//! the client's address, so a client whose address changes would land on a shard that does not
//! know it. Here the choice follows the connection id that every datagram carries:
//!
//! ```text
//! connection ids that we issue:  | shard | node | 4 random bytes | 2 bytes of a keyed hash |
//! long header:   byte 6 is the first of the destination's id     (RFC 8999 section 5.1)
//! short header:  byte 1 is the first of the destination's id
//! shard = that byte modulo the number of shards
//! ```
//!
//! A client's first datagrams carry an id of its own choice; the same rule sends all of them to
//! one shard, which then names itself in the ids it issues. The rule runs in the kernel as a
//! classic BPF program, which needs no privilege. Where it does not run, or a joined run of
//! datagrams (GRO) mixes connections, [`shard_of`] finds that a datagram came wrong and it is
//! handed over to the right shard.

use std::{io, net::SocketAddr, time::Duration};

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use rand::Rng;
use ring::hmac;

/// Length of the connection ids that we issue, bytes.
pub(crate) const CID_LEN: usize = 8;
/// What the hash covers.
const NAMED: usize = CID_LEN - 2;

/// The shard that a datagram is for. One that is too short to say is nobody's: 0.
pub(crate) fn shard_of(datagram: &[u8], shards: usize) -> usize {
    steering_byte(datagram).map_or(0, |byte| usize::from(byte) % shards)
}

/// The first byte of the connection id that a datagram is addressed to.
pub(crate) fn steering_byte(datagram: &[u8]) -> Option<u8> {
    let long = datagram.first()? & 0x80 != 0;
    datagram.get(if long { 6 } else { 1 }).copied()
}

/// Issues connection ids that say where they belong.
pub(crate) struct CidGenerator {
    shard: u8,
    node: u8,
    key: hmac::Key,
}

impl CidGenerator {
    pub(crate) fn new(shard: usize, node: u8, key: hmac::Key) -> Self {
        debug_assert!(shard <= usize::from(u8::MAX));
        Self { shard: shard as u8, node, key }
    }

    fn mark(&self, named: &[u8]) -> [u8; 2] {
        let tag = hmac::sign(&self.key, named);
        [tag.as_ref()[0], tag.as_ref()[1]]
    }
}

impl ConnectionIdGenerator for CidGenerator {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CID_LEN];
        rand::rng().fill_bytes(&mut bytes[2..NAMED]);
        bytes[0] = self.shard;
        bytes[1] = self.node;
        let mark = self.mark(&bytes[..NAMED]);
        bytes[NAMED..].copy_from_slice(&mark);
        ConnectionId::new(&bytes)
    }

    /// Ids of an earlier process with the same key are ours too, whatever its shards were: their
    /// owners shall get a stateless reset. Other bytes get no answer at all.
    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        match cid.split_at_checked(NAMED) {
            Some((named, mark)) if mark == self.mark(named) => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Binds one socket for each shard, all to the same port if there are several.
///
/// The flag says whether the kernel steers between them.
pub(crate) fn bind_group(
    listen: SocketAddr,
    shards: usize,
    steer: bool,
    buffer: usize,
) -> io::Result<(Vec<std::net::UdpSocket>, bool)> {
    if listen.port() != 0 {
        // SO_REUSEPORT lets any process of the same user join a port. Without it nobody gets a
        // port that another socket has, so this tells whether we would be alone.
        drop(bind_one(listen, false, buffer)?);
    }
    let shared = shards > 1;
    let first = bind_one(listen, shared, buffer)?;
    let local = first.local_addr()?;
    let mut sockets = vec![first];
    // The program's answer is the place in the group, which is the order of binding.
    for _ in 1..shards {
        sockets.push(bind_one(local, true, buffer)?);
    }
    let steered = shared
        && steer
        && match steer_group(&sockets[0], shards) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "no steering in the kernel: shards hand datagrams over");
                false
            }
        };
    Ok((sockets, steered))
}

/// Binds a socket with the buffers asked for, as far as the system allows.
pub(crate) fn bind_one(
    local: SocketAddr,
    shared: bool,
    buffer: usize,
) -> io::Result<std::net::UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    if local.is_ipv6() {
        // `[::]` means every address, IPv4 too, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    if shared {
        #[cfg(unix)]
        socket.set_reuse_port(true)?;
    }
    for result in [socket.set_recv_buffer_size(buffer), socket.set_send_buffer_size(buffer)] {
        if let Err(error) = result {
            tracing::debug!(%error, "socket buffer stays at the system's default");
        }
    }
    socket.bind(&local.into())?;
    Ok(socket.into())
}

#[cfg(target_os = "linux")]
fn steer_group(socket: &std::net::UdpSocket, shards: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let mut program = bpf::program(shards as u32);
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the descriptor is open for the length of the call (`socket` is borrowed), and the
    // option takes a `sock_fprog` of the given size whose `filter` points at `len` instructions,
    // which live in `program` until the function returns. The kernel copies them.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn steer_group(_: &std::net::UdpSocket, _: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// [`shard_of`] for the kernel.
#[cfg(target_os = "linux")]
mod bpf {
    use libc::{
        BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_JA, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_MOD, BPF_RET,
        sock_filter,
    };

    /// The accumulator is loaded from the UDP payload; a load past its end makes the answer 0.
    pub(super) fn program(shards: u32) -> [sock_filter; 7] {
        let op = |code: u32, k, jt, jf| sock_filter { code: code as u16, jt, jf, k };
        [
            op(BPF_LD | BPF_B | BPF_ABS, 0, 0, 0),
            // A long header goes on, a short one skips two.
            op(BPF_JMP | BPF_JSET | BPF_K, 0x80, 0, 2),
            op(BPF_LD | BPF_B | BPF_ABS, 6, 0, 0),
            op(BPF_JMP | BPF_JA, 1, 0, 0),
            op(BPF_LD | BPF_B | BPF_ABS, 1, 0, 0),
            op(BPF_ALU | BPF_MOD | BPF_K, shards, 0, 0),
            op(BPF_RET | BPF_A, 0, 0, 0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keys;

    #[test]
    fn ids_name_their_shard_and_prove_themselves() {
        let keys = Keys::random();
        for shard in [0, 1, 7, 255] {
            let mut ours = CidGenerator::new(shard, 42, keys.cid_key());
            let cid = ours.generate_cid();
            assert_eq!((cid.len(), cid[0], cid[1]), (CID_LEN, shard as u8, 42));
            let later = CidGenerator::new(3, 9, keys.cid_key());
            assert!(later.validate(&cid).is_ok(), "after a restart");
            let mut short = vec![0x40];
            short.extend_from_slice(&cid);
            assert_eq!(shard_of(&short, 256), shard);
            let mut long = vec![0xc0, 0, 0, 0, 1, CID_LEN as u8];
            long.extend_from_slice(&cid);
            assert_eq!(shard_of(&long, 256), shard);
            let mut forged = cid.to_vec();
            forged[4] ^= 1;
            assert!(ours.validate(&ConnectionId::new(&forged)).is_err());
            assert!(ours.validate(&ConnectionId::new(&cid[..3])).is_err());
        }
    }

    #[test]
    fn short_datagrams_belong_somewhere() {
        for length in 0..8 {
            assert_eq!(shard_of(&vec![0xff; length], 1), 0);
            assert!(shard_of(&vec![0xff; length], 3) < 3);
        }
    }

    /// The kernel and `shard_of` agree on every kind of datagram, whoever sends it.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_steers_as_we_do() {
        const SHARDS: usize = 3;
        let listen = "127.0.0.1:0".parse().unwrap();
        let (sockets, steered) = bind_group(listen, SHARDS, true, 1 << 20).unwrap();
        assert!(steered, "SO_ATTACH_REUSEPORT_CBPF is there since Linux 4.5");
        let to = sockets[0].local_addr().unwrap();
        for socket in &sockets {
            socket.set_nonblocking(true).unwrap();
        }
        let mut rng = rand::rng();
        for round in 0..300usize {
            // A new source address every time: the kernel's own choice would go astray.
            let from = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut datagram = vec![0; 1 + round % 40];
            rng.fill_bytes(&mut datagram);
            from.send_to(&datagram, to).unwrap();
            let mut buffer = [0; 64];
            let got: Vec<usize> =
                (0..SHARDS).filter(|i| sockets[*i].recv(&mut buffer).is_ok()).collect();
            assert_eq!(got, [shard_of(&datagram, SHARDS)], "{datagram:02x?}");
        }
    }

    #[test]
    fn a_taken_port_is_an_error() {
        let listen = "127.0.0.1:0".parse().unwrap();
        let shards = if cfg!(target_os = "linux") { 2 } else { 1 };
        let (sockets, _) = bind_group(listen, shards, true, 1 << 16).unwrap();
        let taken = sockets[0].local_addr().unwrap();
        let error = bind_group(taken, shards, true, 1 << 16).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
