//! Proxies between drivers and nodes that make faults, one proxy a node.
//!
//! A proxy reads whole frames, so a fault hits one request or one response and never half of one.
//! Streams are numbered anew towards the node: the driver may use a number again while the node
//! still works on what had it before, and every response is known to belong to its request. Which
//! frames have which faults is in [`Faults`], changed at any time; [`Counts`] tells what happened.
//!
//! A request that was forwarded reaches the node even if the driver's connection is cut right
//! behind it: the connection to the node stays until the node has answered all.
//!
//! `scylla-proxy` 0.0.8 is not used because its rules for responses do not know the request, its
//! dice have no seed, its listener ends when it meets a dead node, and one connection cut cuts all
//! of that node.

mod faults;
mod link;
mod outbox;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use faults::{Aim, Answer, Counts, Fault, Faults};

use super::CqlError;
use faults::Judge;

/// So long a driver waits for a proxy that cannot reach its node.
const PATIENCE: Duration = Duration::from_secs(5);

/// The proxies of a cluster. Dropped, they cut all connections and stop listening.
pub struct Proxies {
    gates: Vec<Gate>,
}

/// One proxy.
struct Gate {
    address: SocketAddr,
    door: Arc<Door>,
    listener: Option<JoinHandle<()>>,
}

/// What the listener of a proxy and its connections share.
pub(crate) struct Door {
    judge: Mutex<Judge>,
    counts: Mutex<Counts>,
    /// The drivers' ends of all connections.
    drivers: Mutex<Vec<(u64, TcpStream)>>,
    stop: AtomicBool,
}

impl Proxies {
    /// One proxy for each pair of an address to listen at and the node behind it.
    ///
    /// # Errors
    /// When one cannot listen.
    pub fn start(pairs: &[(SocketAddr, SocketAddr)]) -> Result<Self, CqlError> {
        let gates: Result<_, _> =
            pairs.iter().map(|&(address, node)| Gate::open(address, node)).collect();
        gates.map(|gates| Self { gates })
    }

    /// Where they listen, in the order of the nodes.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.gates.iter().map(|gate| gate.address).collect()
    }

    /// From now on these faults, at every node. What is already delayed stays so.
    ///
    /// # Panics
    /// When the rates are more than 1 together.
    pub fn set_faults(&self, faults: &Faults) {
        for node in 0..self.gates.len() {
            self.set_faults_at(node, faults);
        }
    }

    /// The same at one node, from 0. Each node draws its own numbers from the seed.
    ///
    /// # Panics
    /// When the rates are more than 1 together, or there is no such node.
    pub fn set_faults_at(&self, node: usize, faults: &Faults) {
        *locked(&self.gates[node].door.judge) = Judge::new(faults, node as u64);
    }

    /// No more faults, at any node. What is already delayed still comes late.
    pub fn heal(&self) {
        self.set_faults(&Faults::none());
    }

    /// Cuts all connections of one node, from 0. New ones are taken at once.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn disconnect(&self, node: usize) {
        self.gates[node].door.cut_all();
    }

    /// What happened since the start, at all nodes together.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut all = Counts::default();
        for gate in &self.gates {
            all.add(&locked(&gate.door.counts));
        }
        all
    }
}

impl Gate {
    fn open(address: SocketAddr, node: SocketAddr) -> Result<Self, CqlError> {
        let listener = TcpListener::bind(address)
            .map_err(CqlError::io(format!("a proxy that listens at {address}")))?;
        let address = listener.local_addr().map_err(CqlError::io("address of a proxy"))?;
        let door = Arc::new(Door {
            judge: Mutex::new(Judge::new(&Faults::none(), 0)),
            counts: Mutex::default(),
            drivers: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let shared = door.clone();
        let listener = thread::spawn(move || listen(&listener, node, &shared));
        Ok(Self { address, door, listener: Some(listener) })
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.door.stop.store(true, Ordering::Release);
        // The listener looks at the flag once somebody connects.
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        self.door.cut_all();
    }
}

fn listen(listener: &TcpListener, node: SocketAddr, door: &Arc<Door>) {
    for (id, driver) in (0..).zip(listener.incoming()) {
        if door.stop.load(Ordering::Acquire) {
            return;
        }
        let Ok(driver) = driver else {
            // No sockets left, most likely.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        let door = door.clone();
        // A node that is stopped must not keep other drivers waiting.
        thread::spawn(move || {
            // With no node behind it the driver is hung up on: what it would see without a proxy.
            if let Ok(server) = TcpStream::connect_timeout(&node, PATIENCE) {
                let _ = link::run(id, driver, server, &door);
            }
        });
    }
}

impl Door {
    fn enter(&self, id: u64, driver: &TcpStream) -> std::io::Result<()> {
        let driver = driver.try_clone()?;
        let mut drivers = locked(&self.drivers);
        // What comes in while the proxy ends would not be cut.
        if self.stop.load(Ordering::Acquire) {
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        drivers.push((id, driver));
        Ok(())
    }

    fn leave(&self, id: u64) {
        locked(&self.drivers).retain(|(other, _)| *other != id);
    }

    fn cut_all(&self) {
        for (_, driver) in locked(&self.drivers).iter() {
            let _ = driver.shutdown(std::net::Shutdown::Both);
        }
    }

    fn judge(&self, opcode: u8) -> Option<(Fault, Duration)> {
        locked(&self.judge).judge(opcode)
    }

    fn count(&self, fault: Option<Fault>) {
        locked(&self.counts).count(fault);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
