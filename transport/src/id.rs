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

/// The text names no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the handle of a connection, which looks like c0.17.3")]
pub struct ConnIdError;

/// Reads what [`Display`](fmt::Display) wrote.
impl std::str::FromStr for ConnId {
    type Err = ConnIdError;

    fn from_str(text: &str) -> Result<Self, ConnIdError> {
        let mut parts = text.strip_prefix('c').ok_or(ConnIdError)?.splitn(3, '.');
        let mut next = || parts.next().ok_or(ConnIdError);
        let (shard, slot, generation) = (next()?, next()?, next()?);
        let shard: u8 = shard.parse().map_err(|_| ConnIdError)?;
        let slot: usize = slot.parse().map_err(|_| ConnIdError)?;
        let generation = generation.parse().map_err(|_| ConnIdError)?;
        if slot >= MAX_SLOTS {
            return Err(ConnIdError);
        }
        Ok(Self::new(shard.into(), slot, generation))
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
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "c", "c0.1", "0.1.2", "c256.0.0", "c0.16777216.0", "c0.1.2.3", "c-1.0.0"] {
            assert_eq!(text.parse::<ConnId>(), Err(ConnIdError), "{text}");
        }
    }
}
