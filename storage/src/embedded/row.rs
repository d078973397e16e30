//! What a row holds: a version byte, then a protobuf message. Protobuf because `prost` is in the
//! program anyway, its output is the same for the same input, and a later field costs no rewrite.
//!
//! The number of a message and the owner of cursors stand in the key, not in the row. A row with
//! another version byte, or one that does not decode, is damage and is reported as such.

use bytes::{Buf, Bytes};
use prost::Message;
use skein_protocol::{ClientMsgId, DeviceId, Seq, UserId};

use crate::{CursorPair, Record, StoreError};

/// Version of every kind of row so far.
const VERSION: u8 = 1;

#[derive(Clone, PartialEq, Message)]
struct MessageRow {
    #[prost(string, tag = "1")]
    sender: String,
    #[prost(string, tag = "2")]
    device: String,
    #[prost(string, tag = "3")]
    client_msg_id: String,
    #[prost(uint64, tag = "4")]
    time_ms: u64,
    #[prost(string, tag = "5")]
    content_type: String,
    #[prost(bytes = "bytes", tag = "6")]
    payload: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct CursorRow {
    #[prost(uint64, tag = "1")]
    delivered: u64,
    #[prost(uint64, tag = "2")]
    read: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MembersRow {
    #[prost(string, repeated, tag = "1")]
    users: Vec<String>,
}

/// Which data this is; the meta row.
#[derive(Clone, PartialEq, Message)]
pub(super) struct MetaRow {
    /// Version of keys and rows together.
    #[prost(uint32, tag = "1")]
    pub(super) schema: u32,
    /// See [`crate::Store::epoch`].
    #[prost(fixed64, tag = "2")]
    pub(super) epoch: u64,
}

/// The row of a message.
pub(super) fn encode_message(record: &Record) -> Bytes {
    encode(&MessageRow {
        sender: record.sender.as_str().into(),
        device: record.device.as_str().into(),
        client_msg_id: record.client_msg_id.as_str().into(),
        time_ms: record.time_ms,
        content_type: record.content_type.clone(),
        payload: record.payload.clone(),
    })
}

/// The message in a row; its payload shares the row's memory.
pub(super) fn decode_message(seq: Seq, row: Bytes) -> Result<Record, StoreError> {
    let row: MessageRow = decode("message", row)?;
    Ok(Record {
        seq,
        sender: UserId::parse(&row.sender).map_err(|e| damaged("message", &e))?,
        device: DeviceId::parse(&row.device).map_err(|e| damaged("message", &e))?,
        client_msg_id: ClientMsgId::parse(&row.client_msg_id)
            .map_err(|e| damaged("message", &e))?,
        time_ms: row.time_ms,
        content_type: row.content_type,
        payload: row.payload,
    })
}

/// The row of cursors.
pub(super) fn encode_cursors(pair: CursorPair) -> Bytes {
    encode(&CursorRow { delivered: pair.delivered, read: pair.read })
}

/// The cursors in a row.
pub(super) fn decode_cursors(row: Bytes) -> Result<CursorPair, StoreError> {
    let row: CursorRow = decode("cursor", row)?;
    Ok(CursorPair { delivered: row.delivered, read: row.read })
}

/// The row of members, in the order given.
pub(super) fn encode_members(members: &[UserId]) -> Bytes {
    encode(&MembersRow { users: members.iter().map(|user| user.as_str().into()).collect() })
}

/// The members in a row.
pub(super) fn decode_members(row: Bytes) -> Result<Vec<UserId>, StoreError> {
    let row: MembersRow = decode("members", row)?;
    row.users.iter().map(|user| UserId::parse(user).map_err(|e| damaged("members", &e))).collect()
}

/// The meta row.
pub(super) fn encode_meta(meta: &MetaRow) -> Bytes {
    encode(meta)
}

/// What the meta row says. Its fields are read whatever the version byte is, so that data of a
/// newer version can be named.
pub(super) fn decode_meta(mut row: Bytes) -> Result<MetaRow, StoreError> {
    row.advance(row.len().min(1));
    MetaRow::decode(row).map_err(|e| damaged("meta", &e))
}

fn encode(message: &impl Message) -> Bytes {
    let mut row = Vec::with_capacity(1 + message.encoded_len());
    row.push(VERSION);
    message.encode_raw(&mut row);
    row.into()
}

fn decode<M: Message + Default>(kind: &str, mut row: Bytes) -> Result<M, StoreError> {
    match row.first() {
        Some(&VERSION) => row.advance(1),
        Some(other) => return Err(damaged(kind, &format!("version {other} is unknown"))),
        None => return Err(damaged(kind, &"it is empty")),
    }
    M::decode(row).map_err(|e| damaged(kind, &e))
}

fn damaged(kind: &str, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("a {kind} row cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(payload: &[u8]) -> Record {
        Record {
            seq: 7,
            sender: UserId::parse("alice").unwrap(),
            device: DeviceId::parse("phone").unwrap(),
            client_msg_id: ClientMsgId::parse("m-1").unwrap(),
            time_ms: 1_700_000_000_000,
            content_type: "text/x".into(),
            payload: Bytes::copy_from_slice(payload),
        }
    }

    #[test]
    fn rows_are_these_bytes() {
        let want = b"\x01\x0a\x05alice\x12\x05phone\x1a\x03m-1\x20\x80\xd0\x95\xff\xbc\x31\
            \x2a\x06text/x\x32\x02hi";
        assert_eq!(encode_message(&record(b"hi")), &want[..]);
        let pair = CursorPair { delivered: 300, read: 1 };
        assert_eq!(encode_cursors(pair), &b"\x01\x08\xac\x02\x10\x01"[..]);
        let users = [UserId::parse("a").unwrap(), UserId::parse("b").unwrap()];
        assert_eq!(encode_members(&users), &b"\x01\x0a\x01a\x0a\x01b"[..]);
        let meta = MetaRow { schema: 1, epoch: 0x0102_0304_0506_0708 };
        assert_eq!(encode_meta(&meta), &b"\x01\x08\x01\x11\x08\x07\x06\x05\x04\x03\x02\x01"[..]);
    }

    #[test]
    fn other_versions_and_broken_rows_are_damage() {
        let good = encode_message(&record(b"hi"));
        let mut other = good.to_vec();
        other[0] = 2;
        for bad in [Bytes::new(), other.into(), good.slice(..good.len() - 1)] {
            assert!(matches!(decode_message(7, bad), Err(StoreError::Damaged(_))));
        }
        // A row without a sender decodes as protobuf, but nobody can have written it.
        assert!(matches!(decode_message(7, Bytes::from_static(&[1])), Err(StoreError::Damaged(_))));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(payload: Vec<u8>, delivered: u64, read: u64) {
            let record = record(&payload);
            prop_assert_eq!(decode_message(7, encode_message(&record)), Ok(record));
            let pair = CursorPair { delivered, read };
            prop_assert_eq!(decode_cursors(encode_cursors(pair)), Ok(pair));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = decode_message(1, bytes.clone().into());
            let _ = decode_members(bytes.clone().into());
            let _ = decode_meta(bytes.into());
        }
    }
}
