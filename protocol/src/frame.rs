//! Length-delimited frames: a varint length, then one protobuf envelope.
//!
//! ```text
//! stream bytes -> Decoder::push -> Decoder::poll::<Frame>() -> Frame
//! Frame -> encode -> Bytes for the stream
//! ```
//!
//! The length is checked against the limit before anything is allocated for it, and a partial
//! frame holds no more memory than has arrived.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

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
    /// The last chunk as it came: frames that lie in it whole are taken without a copy.
    current: Bytes,
    /// The start of a frame whose rest has not come. A copy, because a slice of a datagram would
    /// keep the whole datagram, and a peer may send a byte in each.
    partial: BytesMut,
}

impl Decoder {
    /// An empty decoder. It allocates nothing until part of a frame has to wait.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        if self.partial.is_empty() && self.current.is_empty() {
            self.current = chunk;
            return;
        }
        self.set_aside();
        self.partial.extend_from_slice(&chunk);
    }

    /// Bytes that wait for the rest of their frame.
    pub fn buffered(&self) -> usize {
        self.current.len() + self.partial.len()
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
        if self.partial.is_empty() {
            let Some((prefix, len)) = whole_frame(&self.current, max)? else {
                self.set_aside();
                return Ok(None);
            };
            self.current.advance(prefix);
            return Ok(Some(self.current.split_to(len)));
        }
        let Some((prefix, len)) = whole_frame(&self.partial, max)? else {
            return Ok(None);
        };
        self.partial.advance(prefix);
        let body = self.partial.split_to(len).freeze();
        if self.partial.is_empty() {
            // An idle session keeps no buffer.
            self.partial = BytesMut::new();
        }
        Ok(Some(body))
    }

    fn set_aside(&mut self) {
        self.partial.extend_from_slice(&self.current);
        self.current = Bytes::new();
    }
}

/// Length of the prefix and of the body, if `bytes` begin with a whole frame.
fn whole_frame(bytes: &[u8], max: usize) -> Result<Option<(usize, usize)>, FrameError> {
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
        let (prefix, len) = (i + 1, len as usize);
        return Ok((bytes.len() >= prefix + len).then_some((prefix, len)));
    }
    if bytes.len() >= MAX_PREFIX_BYTES {
        return Err(FrameError::Malformed);
    }
    Ok(None)
}
