//! Length-delimited frames: a varint length, then one protobuf envelope.
//!
//! ```text
//! stream bytes -> Decoder::push -> Decoder::poll::<Frame>() -> Frame
//! Frame -> encode -> Bytes for the stream
//! ```
//!
//! The length is checked against the limit before anything is allocated for it, and a partial
//! frame holds memory in proportion to what has arrived of it, not to what it promises.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use thin_vec::ThinVec;

use crate::Code;

/// Longest length prefix: five bytes of seven bits hold every length up to the largest limit.
const MAX_PREFIX_BYTES: usize = 5;

/// Why the bytes are not a frame. Each ends the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The prefix promises more than the limit.
    #[error("frame of {len} bytes, at most {max} are allowed")]
    TooLarge {
        /// Promised length in bytes.
        len: u64,
        /// The limit in bytes.
        max: usize,
    },
    /// The prefix is no varint, or the body no protobuf.
    #[error("frame cannot be parsed")]
    Malformed,
}

impl FrameError {
    /// The code that closes the connection.
    pub fn code(&self) -> Code {
        match self {
            FrameError::TooLarge { .. } => Code::FrameTooLarge,
            FrameError::Malformed => Code::MalformedFrame,
        }
    }
}

/// A frame ready for the stream: prefix and body in one buffer, made once for all recipients.
pub fn encode<M: Message>(frame: &M) -> Bytes {
    let mut buffer = BytesMut::with_capacity(frame.encoded_len() + MAX_PREFIX_BYTES);
    encode_into(frame, &mut buffer);
    buffer.freeze()
}

/// Appends a frame to what already waits for the stream.
pub fn encode_into<M: Message>(frame: &M, buffer: &mut BytesMut) {
    // BytesMut grows as needed, so there is always room.
    frame.encode_length_delimited(buffer).expect("a growing buffer has room");
}

/// Cuts the bytes of one stream into frames. After each [`push`](Decoder::push), poll until `None`.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What has come and is not cut yet: frames that lie in it whole are taken without a copy.
    current: Bytes,
    /// The start of one frame whose rest has not come, never more than that frame. A copy, because
    /// a slice of a datagram would keep the whole datagram, and a peer may send a byte in each.
    partial: ThinVec<u8>,
}

impl Decoder {
    /// An empty decoder. It allocates nothing until part of a frame has to wait.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        if self.current.is_empty() {
            self.current = chunk;
        } else {
            // Only a caller that did not poll until `None` comes here.
            self.current = [&self.current[..], &chunk[..]].concat().into();
        }
    }

    /// Bytes that wait for the rest of their frame.
    pub fn buffered(&self) -> usize {
        self.current.len() + self.partial.len()
    }

    /// Bytes of heap that the waiting part of a frame occupies: none without one, otherwise at
    /// most twice what has come of it, and never more than the frame with its prefix.
    pub fn held(&self) -> usize {
        self.partial.capacity()
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`FrameError`]; the stream cannot be read further.
    pub fn poll<M: Message + Default>(&mut self, max: usize) -> Result<Option<M>, FrameError> {
        match self.poll_body(max)? {
            None => Ok(None),
            Some(body) => M::decode(body).map(Some).map_err(|_| FrameError::Malformed),
        }
    }

    /// The body of the next whole frame, undecoded.
    ///
    /// # Errors
    /// [`FrameError`]; the stream cannot be read further.
    pub fn poll_body(&mut self, max: usize) -> Result<Option<Bytes>, FrameError> {
        if !self.partial.is_empty() {
            return self.complete(max);
        }
        if let Some((prefix, len)) = read_prefix(&self.current, max)?
            && self.current.len() >= prefix + len
        {
            self.current.advance(prefix);
            return Ok(Some(self.current.split_to(len)));
        }
        self.partial = self.current[..].into();
        self.current = Bytes::new();
        Ok(None)
    }

    /// Adds to the waiting part what its frame still lacks, and no byte more.
    fn complete(&mut self, max: usize) -> Result<Option<Bytes>, FrameError> {
        loop {
            let header = read_prefix(&self.partial, max)?;
            // While the prefix itself is cut, its next byte says whether another follows.
            let wanted = header.map_or(self.partial.len() + 1, |(prefix, len)| prefix + len);
            let take = self.current.len().min(wanted - self.partial.len());
            grow(&mut self.partial, take, wanted);
            self.partial.extend_from_slice(&self.current[..take]);
            self.current.advance(take);
            if self.partial.len() < wanted {
                self.current = Bytes::new();
                return Ok(None);
            }
            if let Some((prefix, _)) = header {
                let mut body = Bytes::from_owner(std::mem::take(&mut self.partial));
                body.advance(prefix);
                return Ok(Some(body));
            }
        }
    }
}

/// Makes room for `more` bytes: doubling, so that a trickle is not copied for every byte, but not
/// beyond `wanted`.
fn grow(partial: &mut ThinVec<u8>, more: usize, wanted: usize) {
    let needed = partial.len() + more;
    if needed > partial.capacity() {
        let target = needed.max((2 * partial.len()).min(wanted));
        partial.reserve_exact(target - partial.len());
    }
}

/// Length of the prefix and of the body that `bytes` promise; `None` while the prefix is cut.
fn read_prefix(bytes: &[u8], max: usize) -> Result<Option<(usize, usize)>, FrameError> {
    let mut len = 0u64;
    for (i, &byte) in bytes.iter().take(MAX_PREFIX_BYTES).enumerate() {
        len |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 != 0 {
            continue;
        }
        if len > max as u64 {
            return Err(FrameError::TooLarge { len, max });
        }
        // At most `max`, so it fits.
        return Ok(Some((i + 1, len as usize)));
    }
    if bytes.len() >= MAX_PREFIX_BYTES {
        return Err(FrameError::Malformed);
    }
    Ok(None)
}
