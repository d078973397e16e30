//! Records as rows.

use bytes::Bytes;
use scylla::errors::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use skein_protocol::{ClientMsgId, ConversationId, DeviceId, Seq, UserId};

use super::core::unsigned;
use crate::{Record, StoreError};

/// Columns of a message in the order in which statements name them.
pub(super) type MessageRow<'a> = (i64, &'a str, &'a str, &'a str, i64, &'a str, Bytes);

/// The same behind the head of their partition. A server may tell the head of a partition that has
/// no such rows in a row of its own, in which all else is missing.
pub(super) type HeadedRow<'a> = (
    Option<i64>,
    Option<i64>,
    Option<&'a str>,
    Option<&'a str>,
    Option<&'a str>,
    Option<i64>,
    Option<&'a str>,
    Option<Bytes>,
);

/// A row -> the head, and the record if there is one.
pub(super) fn headed(row: HeadedRow<'_>) -> Result<(Option<Seq>, Option<Record>), StoreError> {
    let (head, seq, sender, device, client_msg_id, time_ms, content_type, payload) = row;
    let head = head.map(unsigned).transpose()?;
    let Some(seq) = seq else { return Ok((head, None)) };
    let (Some(sender), Some(device), Some(client_msg_id)) = (sender, device, client_msg_id) else {
        return Err(StoreError::Damaged(format!("message {seq} has no name")));
    };
    let (Some(time_ms), Some(content_type), Some(payload)) = (time_ms, content_type, payload)
    else {
        return Err(StoreError::Damaged(format!("message {seq} is not whole")));
    };
    let row = (seq, sender, device, client_msg_id, time_ms, content_type, payload);
    Ok((head, Some(record(row)?)))
}

/// A row -> the record that it was.
pub(super) fn record(row: MessageRow<'_>) -> Result<Record, StoreError> {
    let (seq, sender, device, client_msg_id, time_ms, content_type, payload) = row;
    let damaged = |what: &str| StoreError::Damaged(format!("message {seq} has no valid {what}"));
    Ok(Record {
        seq: Seq::try_from(seq).map_err(|_| damaged("number"))?,
        sender: UserId::parse(sender).map_err(|_| damaged("sender"))?,
        device: DeviceId::parse(device).map_err(|_| damaged("device"))?,
        client_msg_id: ClientMsgId::parse(client_msg_id).map_err(|_| damaged("client_msg_id"))?,
        // All 64 bits are kept: what is above `i64::MAX` is stored as a negative number.
        time_ms: time_ms as u64,
        content_type: content_type.to_owned(),
        payload,
    })
}

/// The values of one statement of an append's batch.
pub(super) enum Write<'a> {
    /// The partition's head, and what it was.
    Head { head: i64, conversation: ConversationId, bucket: i64, before: Option<i64> },
    /// A message, and for how many seconds it is kept; 0 is for ever.
    Message { conversation: ConversationId, bucket: i64, record: &'a Record, ttl: i32 },
}

impl SerializeRow for Write<'_> {
    fn serialize(
        &self,
        context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        match self {
            Self::Head { head, conversation, bucket, before: None } => {
                (head, &conversation.as_bytes()[..], bucket).serialize(context, writer)
            }
            Self::Head { head, conversation, bucket, before: Some(before) } => {
                (head, &conversation.as_bytes()[..], bucket, before).serialize(context, writer)
            }
            Self::Message { conversation, bucket, record, ttl } => (
                &conversation.as_bytes()[..],
                bucket,
                record.seq as i64,
                record.sender.as_str(),
                record.device.as_str(),
                record.client_msg_id.as_str(),
                record.time_ms as i64,
                record.content_type.as_str(),
                &record.payload[..],
                ttl,
            )
                .serialize(context, writer),
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// Bytes that a record takes in a request, about.
pub(super) fn size(record: &Record) -> usize {
    const BESIDE: usize = 128;
    record.payload.len()
        + record.content_type.len()
        + record.sender.as_str().len()
        + record.device.as_str().len()
        + record.client_msg_id.as_str().len()
        + BESIDE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_may_stand_alone() {
        let alone = (Some(9), None, None, None, None, None, None, None);
        assert_eq!(headed(alone), Ok((Some(9), None)));
        let text = Some("x");
        let whole = (Some(9), Some(7), text, text, text, Some(1), text, Some(Bytes::new()));
        let (head, seen) = headed(whole.clone()).unwrap();
        assert_eq!((head, seen.map(|it| it.seq)), (Some(9), Some(7)));
        for bad in [
            (whole.0, whole.1, None, text, text, whole.5, text, whole.7.clone()),
            (whole.0, whole.1, text, text, text, whole.5, text, None),
        ] {
            assert!(matches!(headed(bad), Err(StoreError::Damaged(_))));
        }
    }

    #[test]
    fn what_cannot_have_been_written_is_damage() {
        let row = (7, "alice", "phone", "m-1", -1, "", Bytes::from_static(b"hello"));
        let read = record(row.clone());
        assert_eq!(read.as_ref().map(|it| (it.seq, it.time_ms)), Ok((7, u64::MAX)));
        for bad in [
            (-7, row.1, row.2, row.3, row.4, row.5, row.6.clone()),
            (row.0, "", row.2, row.3, row.4, row.5, row.6.clone()),
            (row.0, row.1, "", row.3, row.4, row.5, row.6.clone()),
            (row.0, row.1, row.2, "", row.4, row.5, row.6.clone()),
        ] {
            assert!(matches!(record(bad), Err(StoreError::Damaged(_))));
        }
    }
}
