//! Who is online: user -> devices -> connection.
//!
//! An entry is made when a session is welcomed and removed when its connection closes. A device
//! that connects again takes its entry over; the older connection, closing later, finds that the
//! entry is no longer its own and leaves it alone. So there is never a ghost and never a device
//! that is online and not listed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use skein_protocol::{DeviceId, UserId};
use skein_transport::ConnId;
use thin_vec::{ThinVec, thin_vec};

/// Parts of the table with a lock each, so that shards seldom meet.
const PARTS: usize = 64;

type Part = HashMap<UserId, Devices>;

#[derive(Debug, Clone)]
struct Online {
    device: DeviceId,
    conn: ConnId,
}

/// The devices of one user that are online; most users have one.
#[derive(Debug)]
enum Devices {
    One(Online),
    Many(ThinVec<Online>),
}

impl Devices {
    fn all(&self) -> &[Online] {
        match self {
            Self::One(online) => std::slice::from_ref(online),
            Self::Many(many) => many,
        }
    }

    fn all_mut(&mut self) -> &mut [Online] {
        match self {
            Self::One(online) => std::slice::from_mut(online),
            Self::Many(many) => many,
        }
    }

    fn add(&mut self, online: Online) {
        match self {
            Self::One(first) => *self = Self::Many(thin_vec![first.clone(), online]),
            Self::Many(many) => many.push(online),
        }
    }

    /// Takes those of a connection out; returns whether none is left.
    fn remove(&mut self, conn: ConnId) -> bool {
        match self {
            Self::One(online) => online.conn == conn,
            Self::Many(many) => {
                many.retain(|online| online.conn != conn);
                if let [last] = &many[..] {
                    *self = Self::One(last.clone());
                }
                self.all().is_empty()
            }
        }
    }
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
    max_devices: AtomicUsize,
}

impl Registry {
    /// An empty table that lists at most `max_devices` a user.
    pub fn new(max_devices: usize) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { parts, hasher: RandomState::new(), max_devices: max_devices.into() }
    }

    /// Lists at most so many devices a user from now on; those that are listed stay.
    pub fn set_max_devices(&self, max_devices: usize) {
        self.max_devices.store(max_devices, Ordering::Relaxed);
    }

    /// Lists a device under its connection.
    pub fn enter(&self, user: &UserId, device: &DeviceId, conn: ConnId) -> Entered {
        let mut part = self.part(user);
        let online = Online { device: device.clone(), conn };
        let max_devices = self.max_devices.load(Ordering::Relaxed);
        let devices = match part.entry(user.clone()) {
            Entry::Vacant(vacant) if max_devices > 0 => {
                vacant.insert(Devices::One(online));
                return Entered::New;
            }
            Entry::Vacant(_) => return Entered::TooMany,
            Entry::Occupied(occupied) => occupied.into_mut(),
        };
        if let Some(known) = devices.all_mut().iter_mut().find(|known| known.device == *device) {
            return Entered::Replaced(std::mem::replace(&mut known.conn, conn));
        }
        if devices.all().len() >= max_devices {
            return Entered::TooMany;
        }
        devices.add(online);
        Entered::New
    }

    /// Takes a connection off the list, if the device is still listed under it.
    pub fn leave(&self, user: &UserId, conn: ConnId) {
        let mut part = self.part(user);
        if let Entry::Occupied(mut entry) = part.entry(user.clone())
            && entry.get_mut().remove(conn)
        {
            entry.remove();
        }
    }

    /// Whether a device of the user is listed under this connection.
    pub fn lists(&self, user: &UserId, conn: ConnId) -> bool {
        let part = self.part(user);
        part.get(user).is_some_and(|devices| devices.all().iter().any(|online| online.conn == conn))
    }

    /// Calls `visit` with each connection of the user.
    pub fn for_each(&self, user: &UserId, mut visit: impl FnMut(ConnId)) {
        if let Some(devices) = self.part(user).get(user) {
            devices.all().iter().for_each(|online| visit(online.conn));
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
