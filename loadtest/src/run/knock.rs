//! Is there anybody at all?

use std::io;
use std::net::{SocketAddr, UdpSocket};

/// A datagram to an address, and what the system hears of it. Where nothing listens the machine there says
/// so (ICMP: port unreachable), but only a socket of that one address is told, and the generator's are not.
pub(super) struct Knock(UdpSocket);

impl Knock {
    /// None: it cannot be found out.
    pub(super) fn at(address: SocketAddr) -> Option<Self> {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(address).ok()?;
        socket.set_nonblocking(true).ok()?;
        // Without the fixed bit: whoever speaks QUIC ignores it (RFC 9000, section 17.2).
        socket.send(&[0]).ok()?;
        Some(Self(socket))
    }

    /// Whether it was said that nothing listens there.
    pub(super) fn is_refused(&self) -> bool {
        let heard = self.0.recv(&mut [0]);
        heard.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }
}
