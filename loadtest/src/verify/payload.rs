//! What a message carries so that its receivers can check it.
//!
//! ```text
//! 0   "SKL1"
//! 4   CRC-32 of everything behind it
//! 8   run
//! 16  stream
//! 24  intended start, nanoseconds of the sender's clock
//! 32  counter
//! 36  filler up to the length that was asked for
//! ```
//! Numbers are little-endian.
//!
//! The checksum is `crc32fast`: it uses the processor's instructions, and the compressor of the
//! histogram logs brings it along anyway.

use crate::clock::Nanos;

/// Least length, bytes.
pub const MIN_PAYLOAD: usize = 36;

const MAGIC: &[u8; 4] = b"SKL1";

/// What a payload says of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The run and the process that wrote it.
    pub run: u64,
    /// Which of the run's streams.
    pub stream: u64,
    /// When it was to be sent.
    pub intended: Nanos,
    /// Its place in the stream, from 0.
    pub counter: u32,
}

impl Stamp {
    /// Writes a payload of `length` bytes, at least [`MIN_PAYLOAD`].
    pub fn write(&self, length: usize, into: &mut Vec<u8>) {
        let begin = into.len();
        into.extend_from_slice(MAGIC);
        into.extend_from_slice(&[0; 4]);
        into.extend_from_slice(&self.run.to_le_bytes());
        into.extend_from_slice(&self.stream.to_le_bytes());
        into.extend_from_slice(&self.intended.to_le_bytes());
        into.extend_from_slice(&self.counter.to_le_bytes());
        // Different in each message, and as hard to compress as what people send encrypted.
        let mut state = self.intended ^ u64::from(self.counter) ^ 0x9e37_79b9_7f4a_7c15;
        while into.len() - begin < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let left = length - (into.len() - begin);
            into.extend_from_slice(&state.to_le_bytes()[..left.min(8)]);
        }
        let sum = crc32fast::hash(&into[begin + 8..]);
        into[begin + 4..begin + 8].copy_from_slice(&sum.to_le_bytes());
    }

    /// What a payload says; `None` if it is not one of ours, or not as it was written.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (head, rest) = payload.split_first_chunk::<8>()?;
        let (magic, sum) = head.split_first_chunk::<4>()?;
        if magic != MAGIC || crc32fast::hash(rest).to_le_bytes() != sum {
            return None;
        }
        let (run, rest) = rest.split_first_chunk()?;
        let (stream, rest) = rest.split_first_chunk()?;
        let (intended, rest) = rest.split_first_chunk()?;
        let (counter, _) = rest.split_first_chunk()?;
        Some(Self {
            run: u64::from_le_bytes(*run),
            stream: u64::from_le_bytes(*stream),
            intended: u64::from_le_bytes(*intended),
            counter: u32::from_le_bytes(*counter),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_any_change_is_seen(
            run: u64, stream: u64, intended: u64, counter: u32,
            length in 0usize..400, at: usize, flip in 1u8..,
        ) {
            let stamp = Stamp { run, stream, intended, counter };
            let mut bytes = vec![7; 3];
            stamp.write(length, &mut bytes);
            let mut payload = bytes.split_off(3);
            prop_assert_eq!(&bytes, &[7; 3]);
            prop_assert_eq!(payload.len(), length.max(MIN_PAYLOAD));
            prop_assert_eq!(Stamp::read(&payload), Some(stamp));
            let cut = at % payload.len();
            prop_assert_eq!(Stamp::read(&payload[..cut]), None);
            payload[cut] ^= flip;
            prop_assert_eq!(Stamp::read(&payload), None);
        }

        #[test]
        fn anything_else_is_not_ours(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(Stamp::read(&bytes), None);
        }
    }
}
