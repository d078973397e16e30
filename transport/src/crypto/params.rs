//! Transport parameters (RFC 9000 section 18), changed on their way.
//!
//! Each side offers the other as many spare connection ids as it likes to take; quinn-proto says 5
//! and gives up to 8. A spare id costs some 100 bytes in tables, and a packet's worth of frames at
//! the start; one spare is enough to change the address once, and it is replaced after that. So
//! the limit is lowered to 2 in what is sent and in what is received.

use bytes::{Buf, BufMut};
use quinn_proto::VarInt;

const ACTIVE_CONNECTION_ID_LIMIT: u64 = 0x0e;
/// Least value that the standard allows.
const TWO: u8 = 2;

/// Lowers `active_connection_id_limit` to 2. Parameters that cannot be read are left as they are:
/// whoever decodes them will say what is wrong.
pub(crate) fn lower_connection_ids(parameters: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parameters.len());
    let mut rest = parameters;
    while rest.has_remaining() {
        let before = rest;
        let (Some(id), Some(length)) = (varint(&mut rest), varint(&mut rest)) else {
            return parameters.to_vec();
        };
        let Some((mut value, after)) =
            usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length))
        else {
            return parameters.to_vec();
        };
        rest = after;
        if id == ACTIVE_CONNECTION_ID_LIMIT && varint(&mut value).is_some_and(|n| n > 2) {
            out.put_slice(&[ACTIVE_CONNECTION_ID_LIMIT as u8, 1, TWO]);
        } else {
            out.put_slice(&before[..before.len() - rest.len()]);
        }
    }
    out
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let (&first, _) = from.split_first()?;
    let length = 1usize << (first >> 6);
    if from.len() < length {
        return None;
    }
    let value = from.get_uint(length) & (u64::MAX >> (66 - 8 * length));
    VarInt::from_u64(value).ok().map(VarInt::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_value_changes() {
        // id 1 = 5 bytes, id 0x0e = 5, a grease id in four bytes with an empty value
        let given = [1, 4, 0x80, 0, 1, 2, 0x0e, 1, 5, 0x80, 0, 0x12, 0x34, 0];
        let mut want = given;
        want[8] = 2;
        assert_eq!(lower_connection_ids(&given), want);
        // Two-byte encoding of 300 shrinks.
        assert_eq!(lower_connection_ids(&[0x0e, 2, 0x41, 0x2c]), [0x0e, 1, 2]);
        // What is low or illegal already stays for the decoder to judge.
        for given in [&[0x0e, 1, 2][..], &[0x0e, 1, 0], &[0x0e, 0]] {
            assert_eq!(lower_connection_ids(given), given);
        }
    }

    #[test]
    fn rubbish_is_left_alone() {
        for given in [&[0x0e][..], &[0x0e, 5, 1], &[0xc0], &[1, 0xff], &[0x0e, 0xff, 1, 2]] {
            assert_eq!(lower_connection_ids(given), given);
        }
    }
}
