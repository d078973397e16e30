//! Addresses and free ports, so that several clusters run at once on one machine.
//!
//! All nodes of a cluster have the same two ports, on 127.0.0.1, .2 and .3; proxies have 127.0.1.1,
//! .2 and .3. Ports are taken below the range from which the system takes those of outgoing
//! connections, so that nothing comes in between while a node is down. A UDP socket on one of them
//! tells other clusters that they are taken.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use super::CqlError;

/// From here on, in pairs.
const FIRST: u16 = 20_000;
/// Linux takes ports of outgoing connections from 32,768 on.
const LAST: u16 = 32_000;

/// Where the nodes of a cluster are.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    nodes: usize,
    native: u16,
    storage: u16,
}

/// Keeps ports from other clusters until it is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    _socket: UdpSocket,
}

impl Addresses {
    pub(crate) fn reserve(nodes: usize, proxies: bool) -> Result<(Self, Reserved), CqlError> {
        let pairs = (LAST - FIRST) / 2;
        let start = rand::random_range(0..pairs);
        for step in 0..pairs {
            let native = FIRST + (start + step) % pairs * 2;
            let addresses = Self { nodes, native, storage: native + 1 };
            let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, native)) else { continue };
            if addresses.are_free(proxies) {
                return Ok((addresses, Reserved { _socket: socket }));
            }
        }
        Err(CqlError::NoPorts)
    }

    fn are_free(self, proxies: bool) -> bool {
        let free = |address| TcpListener::bind(address).is_ok();
        (0..self.nodes).all(|node| {
            free(self.node(node))
                && free((self.node(node).ip(), self.storage).into())
                && (!proxies || free(self.proxy(node)))
        })
    }

    /// Where a node serves clients.
    #[must_use]
    pub fn node(self, node: usize) -> SocketAddr {
        SocketAddr::new(host(0, node), self.native)
    }

    /// Where the proxy of a node listens, if there is one.
    #[must_use]
    pub fn proxy(self, node: usize) -> SocketAddr {
        SocketAddr::new(host(1, node), self.native)
    }

    /// The port on which nodes talk to each other.
    #[must_use]
    pub fn storage(self) -> u16 {
        self.storage
    }

    /// How many nodes there are.
    #[must_use]
    pub fn nodes(self) -> usize {
        self.nodes
    }
}

fn host(third: u8, node: usize) -> IpAddr {
    let last = u8::try_from(node + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 0, third, last).into()
}
