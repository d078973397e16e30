//! The parts of frames that the swarm looks at, under the numbers of `protocol/proto`. What is not
//! named here is passed over without being decoded, and texts stay slices of what was received: a
//! generator must not spend on a message what a client with a screen spends.

use bytes::Bytes;
use prost::Message as _;
use skein_protocol::{limits, wire};

/// From the gateway.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ServerFrame {
    #[prost(oneof = "Kind", tags = "1, 2, 4, 5, 7, 8, 9, 10, 16, 17")]
    pub(super) kind: Option<Kind>,
}

/// Kinds of [`ServerFrame`]. `Pong` and `Receipt` need no more than having been heard.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    #[prost(message, tag = "1")]
    Welcome(wire::Welcome),
    #[prost(message, tag = "2")]
    Ping(wire::Ping),
    #[prost(message, tag = "4")]
    SendAck(SendAck),
    #[prost(message, tag = "5")]
    Push(Push),
    #[prost(message, tag = "7")]
    Behind(wire::Behind),
    #[prost(message, tag = "8")]
    TokenRefreshed(wire::TokenRefreshed),
    #[prost(message, tag = "9")]
    GoAway(wire::GoAway),
    #[prost(message, tag = "10")]
    Error(wire::Error),
    #[prost(message, tag = "16")]
    HeadsPage(HeadsPage),
    #[prost(message, tag = "17")]
    PullPage(PullPage),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SendAck {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) client_msg_id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) conversation: Bytes,
    #[prost(uint64, tag = "3")]
    pub(super) seq: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Push {
    #[prost(message, repeated, tag = "1")]
    pub(super) messages: Vec<Message>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Message {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) conversation: Bytes,
    #[prost(uint64, tag = "2")]
    pub(super) seq: u64,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) client_msg_id: Bytes,
    #[prost(bytes = "bytes", tag = "8")]
    pub(super) payload: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HeadsPage {
    #[prost(message, repeated, tag = "1")]
    pub(super) heads: Vec<Head>,
    #[prost(bool, tag = "2")]
    pub(super) is_end: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Head {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) conversation: Bytes,
    #[prost(uint64, tag = "2")]
    pub(super) seq: u64,
    #[prost(uint64, tag = "6")]
    pub(super) first_seq: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PullPage {
    #[prost(message, repeated, tag = "3")]
    pub(super) messages: Vec<Message>,
    #[prost(bool, tag = "4")]
    pub(super) is_end: bool,
    #[prost(uint64, tag = "5")]
    pub(super) head: u64,
    #[prost(uint64, tag = "6")]
    pub(super) first_seq: u64,
    #[prost(uint32, tag = "7")]
    pub(super) error_code: u32,
}

/// A `ClientFrame` with a `Send` in it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SendFrame {
    #[prost(message, optional, tag = "4")]
    pub(super) send: Option<Send>,
}

impl SendFrame {
    /// Length of a frame with a payload of so many bytes, if everything else is as long as it may be.
    pub(super) fn longest(payload: usize) -> usize {
        let zeros = |length| Bytes::from(vec![0; length]);
        let send = Send {
            to_user: zeros(limits::MAX_USER_ID_BYTES),
            client_msg_id: zeros(limits::MAX_CLIENT_MSG_ID_BYTES),
            payload: zeros(payload),
        };
        Self { send: Some(send) }.encoded_len()
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Send {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) to_user: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) client_msg_id: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) payload: Bytes,
}

#[cfg(test)]
mod tests {
    use super::super::Room;
    use super::*;

    #[test]
    fn the_longest_payload_fits_a_frame_with_the_longest_names() {
        let default = Room {
            payload: limits::DEFAULT_MAX_PAYLOAD_BYTES,
            frame: limits::DEFAULT_MAX_FRAME_BYTES,
        };
        assert_eq!(default.longest_payload(), limits::DEFAULT_MAX_PAYLOAD_BYTES);
        for frame in [200, 4096, 16_500, 64 << 10, 16 << 20] {
            let longest = Room { payload: usize::MAX, frame }.longest_payload();
            let used = SendFrame::longest(longest);
            assert!(used <= frame && frame - used < 8, "{frame}: {longest} makes {used}");
        }
        assert_eq!(Room { payload: 5, frame: 10 }.longest_payload(), 0);
    }

    #[test]
    fn what_is_looked_at_is_where_the_protocol_has_it() {
        let message = wire::Message {
            conversation: vec![1; 16].into(),
            seq: 7,
            sender: "alice".into(),
            sender_device: "phone".into(),
            client_msg_id: "m-1".into(),
            time_ms: 1_800_000_000_000,
            content_type: "text/plain".into(),
            payload: "hello".into(),
        };
        let slim = Message {
            conversation: message.conversation.clone(),
            seq: 7,
            client_msg_id: "m-1".into(),
            payload: "hello".into(),
        };
        let kinds: [(wire::server_frame::Kind, Option<Kind>); 5] = [
            (
                wire::server_frame::Kind::Push(wire::Push { messages: vec![message.clone()] }),
                Some(Kind::Push(Push { messages: vec![slim.clone()] })),
            ),
            (
                wire::server_frame::Kind::SendAck(wire::SendAck {
                    client_msg_id: "m-1".into(),
                    conversation: vec![1; 16].into(),
                    seq: 7,
                    time_ms: 5,
                    ..Default::default()
                }),
                Some(Kind::SendAck(SendAck {
                    client_msg_id: "m-1".into(),
                    conversation: vec![1; 16].into(),
                    seq: 7,
                })),
            ),
            (
                wire::server_frame::Kind::PullPage(wire::PullPage {
                    range: 3,
                    conversation: vec![1; 16].into(),
                    messages: vec![message],
                    is_end: true,
                    head: 9,
                    first_seq: 2,
                    error_code: 201,
                }),
                Some(Kind::PullPage(PullPage {
                    messages: vec![slim],
                    is_end: true,
                    head: 9,
                    first_seq: 2,
                    error_code: 201,
                })),
            ),
            (
                wire::server_frame::Kind::HeadsPage(wire::HeadsPage {
                    heads: vec![wire::Head {
                        conversation: vec![1; 16].into(),
                        seq: 9,
                        delivered: 1,
                        read: 1,
                        members: Vec::new(),
                        first_seq: 2,
                    }],
                    is_end: true,
                }),
                Some(Kind::HeadsPage(HeadsPage {
                    heads: vec![Head { conversation: vec![1; 16].into(), seq: 9, first_seq: 2 }],
                    is_end: true,
                })),
            ),
            (wire::server_frame::Kind::Pong(wire::Pong { nonce: 1 }), None),
        ];
        for (kind, expected) in kinds {
            let bytes = wire::ServerFrame { kind: Some(kind) }.encode_to_vec();
            assert_eq!(ServerFrame::decode(&bytes[..]).unwrap().kind, expected);
        }
        let send =
            Send { to_user: "bob".into(), client_msg_id: "m-1".into(), payload: "hello".into() };
        let bytes = SendFrame { send: Some(send) }.encode_to_vec();
        let kind = wire::ClientFrame::decode(&bytes[..]).unwrap().kind;
        let Some(wire::client_frame::Kind::Send(send)) = kind else { panic!("{kind:?}") };
        assert_eq!(send.target, Some(wire::send::Target::ToUser("bob".into())));
        assert_eq!((&*send.client_msg_id, &send.payload[..]), ("m-1", &b"hello"[..]));
    }
}
