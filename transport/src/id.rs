//! The handle of a connection.

use std::fmt;

/// Handle of a connection: shard, slot and generation in 64 bits.
///
/// A slot is used again after its connection is gone, but with another generation, so that a stale
/// handle never reaches somebody else's connection (a slot would have to be used 2^32 times first).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

/// Slots a shard can address (24 bits).
pub(crate) const MAX_SLOTS: usize = 1 << 24;

impl ConnId {
    pub(crate) fn new(shard: usize, slot: usize, generation: u32) -> Self {
        debug_assert!(shard <= u8::MAX as usize && slot < MAX_SLOTS);
        Self((shard as u64) << 56 | (generation as u64) << 24 | slot as u64)
    }

    /// Index of the shard that owns the connection.
    pub fn shard(self) -> usize {
        (self.0 >> 56) as usize
    }

    /// Index of the connection within its shard; small numbers, used again, good for tables.
    pub fn slot(self) -> usize {
        (self.0 & (MAX_SLOTS as u64 - 1)) as usize
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 24) as u32
    }

    /// The handle that [`as_u64`](Self::as_u64) made this number of.
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// All of it, as a number that is unique within the process.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}.{}.{}", self.shard(), self.slot(), self.generation())
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_survive_the_packing() {
        for (shard, slot, generation) in
            [(0, 0, 0), (255, MAX_SLOTS - 1, u32::MAX), (3, 77, 1), (1, 0, 1 << 31)]
        {
            let id = ConnId::new(shard, slot, generation);
            assert_eq!((id.shard(), id.slot(), id.generation()), (shard, slot, generation));
        }
    }
}
