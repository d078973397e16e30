//! Frames of the CQL binary protocol, version 4, as far as tests need them.
//!
//! Source: `native_protocol_v4.spec` of Apache Cassandra. The `scylla` driver speaks version 4 only,
//! so there is none of the outer framing of version 5. Bodies are left alone: they may be
//! compressed.

use std::io::{self, Read};

/// Bytes of a header: version, flags, stream (2), opcode, length of the body (4).
pub(crate) const HEADER: usize = 9;

/// The longest body that the protocol allows.
const MAX_BODY: usize = 256 << 20;

/// Opcodes of section 2.4.
pub(crate) mod opcode {
    pub(crate) const ERROR: u8 = 0x00;
    pub(crate) const STARTUP: u8 = 0x01;
    pub(crate) const READY: u8 = 0x02;
    pub(crate) const AUTHENTICATE: u8 = 0x03;
    pub(crate) const QUERY: u8 = 0x07;
    pub(crate) const RESULT: u8 = 0x08;
    pub(crate) const EXECUTE: u8 = 0x0A;
    pub(crate) const BATCH: u8 = 0x0D;
    pub(crate) const AUTH_RESPONSE: u8 = 0x0F;
    pub(crate) const AUTH_SUCCESS: u8 = 0x10;
}

/// A whole frame, header included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame(Vec<u8>);

impl Frame {
    /// A request, uncompressed.
    pub(crate) fn request(stream: i16, opcode: u8, body: &[u8]) -> Self {
        Self::new(0x04, stream, opcode, body)
    }

    /// The response to a request of this stream that tells of an error; `body` is section 9's.
    pub(crate) fn error(stream: i16, body: &[u8]) -> Self {
        Self::new(0x84, stream, opcode::ERROR, body)
    }

    fn new(version: u8, stream: i16, opcode: u8, body: &[u8]) -> Self {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend([version, 0]);
        bytes.extend(stream.to_be_bytes());
        bytes.push(opcode);
        bytes.extend(length.to_be_bytes());
        bytes.extend(body);
        Self(bytes)
    }

    /// The next frame; none at an end between two frames.
    ///
    /// # Errors
    /// When reading fails, an end in the middle included, and at another version than 4.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = vec![0; HEADER];
        if from.read(&mut bytes[..1])? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut bytes[1..])?;
        if bytes[0] & 0x7F != 4 {
            return Err(invalid("not a frame of CQL version 4"));
        }
        let length = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]) as usize;
        if length > MAX_BODY {
            return Err(invalid("a frame longer than CQL allows"));
        }
        bytes.resize(HEADER + length, 0);
        from.read_exact(&mut bytes[HEADER..])?;
        Ok(Some(Self(bytes)))
    }

    pub(crate) fn opcode(&self) -> u8 {
        self.0[4]
    }

    /// Which request a response belongs to; negative for events.
    pub(crate) fn stream(&self) -> i16 {
        i16::from_be_bytes([self.0[2], self.0[3]])
    }

    pub(crate) fn set_stream(&mut self, stream: i16) {
        self.0[2..4].copy_from_slice(&stream.to_be_bytes());
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.0[HEADER..]
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
