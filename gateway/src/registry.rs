//! Who is online: user -> devices -> connection.
//!
//! An entry is made when a session is welcomed and removed when its connection closes. A device
//! that connects again takes its entry over; the older connection, closing later, finds that the
//! entry is no longer its own and leaves it alone. So there is never a ghost and never a device
//! that is online and not listed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use skein_protocol::{DeviceId, UserId};
use skein_transport::ConnId;

/// Parts of the table with a lock each, so that shards seldom meet.
const PARTS: usize = 64;

type Part = HashMap<UserId, Vec<Online>>;

#[derive(Debug, Clone)]
struct Online {
    device: DeviceId,
    conn: ConnId,
}

/// What came of [`Registry::enter`].
#[derive(Debug, PartialEq, Eq)]
pub enum Entered {
    /// The device was not online.
    New,
    /// The device was online on this connection, which must be closed.
    Replaced(ConnId),
    /// The user has as many devices online as allowed; nothing was entered.
    TooMany,
}

/// The table. Locks are held for a lookup, never across I/O.
pub struct Registry {
    parts: Vec<Mutex<Part>>,
    hasher: RandomState,
    max_devices: usize,
}

impl Registry {
    /// An empty table that lists at most `max_devices` a user.
    pub fn new(max_devices: usize) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { parts, hasher: RandomState::new(), max_devices }
    }

    /// Lists a device under its connection.
    pub fn enter(&self, user: &UserId, device: &DeviceId, conn: ConnId) -> Entered {
        let mut part = self.part(user);
        let devices = part.entry(user.clone()).or_default();
        if let Some(online) = devices.iter_mut().find(|online| online.device == *device) {
            return Entered::Replaced(std::mem::replace(&mut online.conn, conn));
        }
        if devices.len() >= self.max_devices {
            return Entered::TooMany;
        }
        // Nearly every user has one device: no room for more than are there.
        devices.reserve_exact(1);
        devices.push(Online { device: device.clone(), conn });
        Entered::New
    }

    /// Takes a connection off the list, if the device is still listed under it.
    pub fn leave(&self, user: &UserId, conn: ConnId) {
        let mut part = self.part(user);
        if let Entry::Occupied(mut entry) = part.entry(user.clone()) {
            entry.get_mut().retain(|online| online.conn != conn);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    /// Whether a device of the user is listed under this connection.
    pub fn lists(&self, user: &UserId, conn: ConnId) -> bool {
        let part = self.part(user);
        part.get(user).is_some_and(|devices| devices.iter().any(|online| online.conn == conn))
    }

    /// Calls `visit` with each connection of the user.
    pub fn for_each(&self, user: &UserId, mut visit: impl FnMut(ConnId)) {
        if let Some(devices) = self.part(user).get(user) {
            devices.iter().for_each(|online| visit(online.conn));
        }
    }

    /// Users online. Takes every lock in turn; for metrics.
    pub fn users(&self) -> usize {
        self.parts.iter().map(|part| lock(part).len()).sum()
    }

    fn part(&self, user: &UserId) -> MutexGuard<'_, Part> {
        let place = self.hasher.hash_one(user) as usize % PARTS;
        lock(&self.parts[place])
    }
}

/// A thread that panicked while it held the lock left a whole entry or none.
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
