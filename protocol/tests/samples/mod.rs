//! One frame of every kind, from one story: alice's phone logs in and writes to bob's laptop.
//!
//! `docs/protocol.md` tells the same story with the same bytes.

// Each test crate that includes this file uses its own part of it.
#![allow(dead_code)]

use bytes::Bytes;
use skein_protocol::frame::encode;
use skein_protocol::wire::{client_frame, range, send, server_frame, *};
use skein_protocol::{ConversationId, UserId, limits};

/// When alice's message got its number, Unix milliseconds.
pub(crate) const SENT_MS: u64 = 1_800_000_000_000;

/// The conversation of alice and bob.
pub(crate) fn conversation() -> Bytes {
    let (alice, bob) = (UserId::parse("alice").unwrap(), UserId::parse("bob").unwrap());
    Bytes::copy_from_slice(ConversationId::one_to_one(&alice, &bob).as_bytes())
}

/// The message that alice's phone sends.
pub(crate) fn message() -> Message {
    Message {
        conversation: conversation(),
        seq: 1,
        sender: "alice".into(),
        sender_device: "phone".into(),
        client_msg_id: "m-1".into(),
        time_ms: SENT_MS,
        content_type: String::new(),
        payload: Bytes::from_static(b"Hi, Bob!"),
    }
}

fn cursor(seq: u64) -> Cursor {
    Cursor { conversation: conversation(), seq }
}

/// Every kind of `ClientFrame`, under its field name in `frame.proto`.
pub(crate) fn client_frames() -> Vec<(&'static str, ClientFrame)> {
    use client_frame::Kind;
    let kinds = vec![
        (
            "hello",
            Kind::Hello(Hello {
                versions: vec![1],
                token: "a.b.c".into(),
                device: "phone".into(),
                platform: "example/1".into(),
                store_epoch: 0,
                have: vec![],
            }),
        ),
        (
            "hello.again",
            Kind::Hello(Hello {
                versions: vec![1],
                token: "a.b.c".into(),
                device: "laptop".into(),
                platform: "example/1".into(),
                store_epoch: 4242,
                have: vec![cursor(1)],
            }),
        ),
        ("ping", Kind::Ping(Ping { nonce: 7 })),
        ("pong", Kind::Pong(Pong { nonce: 8 })),
        (
            "send",
            Kind::Send(Send {
                client_msg_id: "m-1".into(),
                content_type: String::new(),
                payload: message().payload,
                retry_after_seq: None,
                known_seq: None,
                target: Some(send::Target::ToUser("bob".into())),
            }),
        ),
        (
            "send.first",
            Kind::Send(Send {
                client_msg_id: "m-1".into(),
                content_type: String::new(),
                payload: message().payload,
                retry_after_seq: None,
                known_seq: Some(0),
                target: Some(send::Target::ToUser("bob".into())),
            }),
        ),
        (
            "send.known",
            Kind::Send(Send {
                client_msg_id: "m-1".into(),
                content_type: String::new(),
                payload: message().payload,
                retry_after_seq: None,
                known_seq: Some(41),
                target: Some(send::Target::Conversation(conversation())),
            }),
        ),
        (
            "send.retry",
            Kind::Send(Send {
                client_msg_id: "m-1".into(),
                content_type: String::new(),
                payload: message().payload,
                retry_after_seq: Some(0),
                known_seq: None,
                target: Some(send::Target::Conversation(conversation())),
            }),
        ),
        ("delivered", Kind::Delivered(Delivered { cursors: vec![cursor(1)] })),
        ("read", Kind::Read(Read { cursors: vec![cursor(1)] })),
        ("refresh_token", Kind::RefreshToken(RefreshToken { token: "d.e.f".into() })),
        ("bye", Kind::Bye(Bye {})),
        ("heads_request", Kind::HeadsRequest(HeadsRequest { conversations: vec![] })),
        (
            "heads_request.one",
            Kind::HeadsRequest(HeadsRequest { conversations: vec![conversation()] }),
        ),
        (
            "pull_request",
            Kind::PullRequest(PullRequest {
                ranges: vec![
                    Range {
                        from: 1,
                        to: 0,
                        backward: false,
                        limit: 0,
                        target: Some(range::Target::Conversation(conversation())),
                    },
                    Range {
                        from: 1,
                        to: 50,
                        backward: true,
                        limit: 20,
                        target: Some(range::Target::WithUser("bob".into())),
                    },
                ],
            }),
        ),
    ];
    kinds.into_iter().map(|(name, kind)| (name, ClientFrame { kind: Some(kind) })).collect()
}

/// Every kind of `ServerFrame`, under its field name in `frame.proto`.
pub(crate) fn server_frames() -> Vec<(&'static str, ServerFrame)> {
    use server_frame::Kind;
    let kinds = vec![
        (
            "welcome",
            Kind::Welcome(Welcome {
                version: 1,
                session: 42,
                user: "alice".into(),
                device: "phone".into(),
                server_time_ms: SENT_MS - 1_000,
                heartbeat_interval_ms: limits::DEFAULT_HEARTBEAT_INTERVAL.as_millis() as u32,
                limits: Some(Limits {
                    max_frame_bytes: limits::DEFAULT_MAX_FRAME_BYTES as u32,
                    max_payload_bytes: limits::DEFAULT_MAX_PAYLOAD_BYTES as u32,
                    max_unacked_sends: limits::DEFAULT_MAX_UNACKED_SENDS,
                    max_bulk_streams: limits::DEFAULT_MAX_BULK_STREAMS,
                    max_entries: limits::DEFAULT_MAX_ENTRIES,
                }),
                store_epoch: 4242,
                token_expires_ms: SENT_MS + 3_600_000,
            }),
        ),
        ("ping", Kind::Ping(Ping { nonce: 8 })),
        ("pong", Kind::Pong(Pong { nonce: 7 })),
        (
            "send_ack",
            Kind::SendAck(SendAck {
                client_msg_id: "m-1".into(),
                conversation: conversation(),
                seq: 1,
                time_ms: SENT_MS,
                ..Default::default()
            }),
        ),
        ("push", Kind::Push(Push { messages: vec![message()] })),
        (
            "receipt",
            Kind::Receipt(Receipt {
                conversation: conversation(),
                kind: ReceiptKind::Delivered.into(),
                user: "bob".into(),
                seq: 1,
            }),
        ),
        ("behind", Kind::Behind(Behind { heads: vec![cursor(9)] })),
        ("behind.all", Kind::Behind(Behind { heads: vec![] })),
        (
            "token_refreshed",
            Kind::TokenRefreshed(TokenRefreshed { token_expires_ms: SENT_MS + 7_200_000 }),
        ),
        (
            "go_away",
            Kind::GoAway(GoAway {
                code: 123,
                message: "the gateway is going away".into(),
                reconnect_delay_ms: 500,
            }),
        ),
        (
            "error",
            Kind::Error(Error {
                code: 203,
                message: "too many sends are under way".into(),
                retry_after_ms: 100,
                client_msg_id: "m-65".into(),
                retry: true,
            }),
        ),
        ("system_notice", Kind::SystemNotice(SystemNotice { text: "maintenance at 22:00".into() })),
        (
            "heads_page",
            Kind::HeadsPage(HeadsPage {
                heads: vec![Head {
                    conversation: conversation(),
                    seq: 1,
                    delivered: 1,
                    read: 0,
                    members: vec![MemberCursors { user: "alice".into(), delivered: 1, read: 1 }],
                    first_seq: 1,
                }],
                is_end: true,
            }),
        ),
        (
            "pull_page",
            Kind::PullPage(PullPage {
                range: 0,
                conversation: conversation(),
                messages: vec![message()],
                is_end: true,
                head: 1,
                first_seq: 1,
                error_code: 0,
            }),
        ),
        (
            "pull_page.refused",
            Kind::PullPage(PullPage {
                conversation: conversation(),
                is_end: true,
                first_seq: 1,
                error_code: 201,
                ..Default::default()
            }),
        ),
    ];
    kinds.into_iter().map(|(name, kind)| (name, ServerFrame { kind: Some(kind) })).collect()
}

/// All samples as `("client hello", bytes with prefix)`.
pub(crate) fn encoded() -> Vec<(String, Bytes)> {
    let client = client_frames().into_iter().map(|(n, f)| (format!("client {n}"), encode(&f)));
    let server = server_frames().into_iter().map(|(n, f)| (format!("server {n}"), encode(&f)));
    client.chain(server).collect()
}

/// Lower-case hexadecimal without spaces.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "an odd number of digits: {text}");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}
