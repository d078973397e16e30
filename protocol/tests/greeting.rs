//! The gateway's side of a login, under a clock of the test's own.

// A helper of a test fails like a test.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use skein_protocol::frame::encode;
use skein_protocol::server::{Admission, Event, Rules, ServerSession};
use skein_protocol::wire::{self, ClientFrame, client_frame::Kind};
use skein_protocol::{Code, DeviceId, UserId, limits};

const SECOND: Duration = Duration::from_secs(1);

fn rules() -> Rules {
    Rules {
        limits: wire::Limits {
            max_frame_bytes: limits::DEFAULT_MAX_FRAME_BYTES as u32,
            max_payload_bytes: limits::DEFAULT_MAX_PAYLOAD_BYTES as u32,
            max_unacked_sends: limits::DEFAULT_MAX_UNACKED_SENDS,
            max_bulk_streams: limits::DEFAULT_MAX_BULK_STREAMS,
            max_entries: limits::DEFAULT_MAX_ENTRIES,
        },
        heartbeat_interval: 20 * SECOND,
        hello_timeout: 10 * SECOND,
    }
}

fn frame(kind: Kind) -> Bytes {
    encode(&ClientFrame { kind: Some(kind) })
}

fn hello() -> Bytes {
    frame(Kind::Hello(wire::Hello {
        versions: vec![1],
        token: "a.b.c".into(),
        device: "phone".into(),
        ..Default::default()
    }))
}

fn accept(session: &mut ServerSession, now: Instant) {
    let (user, device) = (UserId::parse("alice").unwrap(), DeviceId::parse("phone").unwrap());
    let admission = Admission {
        session: 1,
        user: &user,
        device: &device,
        server_time_ms: 1_800_000_000_000,
        store_epoch: 1,
        token_expires_ms: None,
    };
    session.accept(&rules(), &admission, now);
}

/// When the session ends by itself, looking every second; within ten minutes.
fn end(
    session: &mut ServerSession,
    start: Instant,
    mut trickle: impl Iterator<Item = u8>,
) -> (u64, Code) {
    for second in 1..600 {
        let now = start + second * SECOND;
        if let Some(close) = session.handle_timeout(&rules(), now) {
            return (second.into(), close.code);
        }
        if let Some(byte) = trickle.next() {
            session.handle_bytes(Bytes::copy_from_slice(&[byte]), now);
            assert_eq!(session.poll_event(&rules()), Ok(None));
        }
    }
    panic!("the session lives for ever");
}

#[test]
fn a_stranger_cannot_hold_a_connection_open_with_a_trickle() {
    let start = Instant::now();
    let mut silent = ServerSession::new(start);
    assert_eq!(end(&mut silent, start, std::iter::empty()), (10, Code::HelloTimeout));
    // The start of a long frame, a byte a second.
    let mut slow = ServerSession::new(start);
    let bytes = [0x80, 0x40].into_iter().chain(std::iter::repeat(0));
    assert_eq!(end(&mut slow, start, bytes), (10, Code::HelloTimeout));
}

#[test]
fn the_heartbeat_counts_from_the_welcome() {
    let start = Instant::now();
    let mut session = ServerSession::new(start);
    session.handle_bytes(hello(), start);
    assert!(matches!(session.poll_event(&rules()), Ok(Some(Event::Hello(_)))));
    let welcomed = start + 9 * SECOND;
    accept(&mut session, welcomed);
    assert_eq!(end(&mut session, welcomed, std::iter::empty()), (30, Code::HeartbeatTimeout));
}

#[test]
fn frames_behind_hello_are_read_once_it_is_accepted() {
    let now = Instant::now();
    let mut session = ServerSession::new(now);
    let both = [hello(), frame(Kind::Ping(wire::Ping { nonce: 7 }))].concat();
    session.handle_bytes(both.into(), now);
    assert!(matches!(session.poll_event(&rules()), Ok(Some(Event::Hello(_)))));
    session.handle_bytes(frame(Kind::Bye(wire::Bye {})), now);
    assert_eq!(session.poll_event(&rules()), Ok(None));
    accept(&mut session, now);
    assert_eq!(session.poll_event(&rules()), Ok(Some(Event::Ping(7))));
    assert_eq!(session.poll_event(&rules()), Ok(Some(Event::Bye)));
    assert_eq!(session.poll_event(&rules()), Ok(None));
}

#[test]
fn nothing_but_hello_comes_first_and_only_once() {
    let now = Instant::now();
    let mut session = ServerSession::new(now);
    session.handle_bytes(frame(Kind::Ping(wire::Ping { nonce: 7 })), now);
    assert_eq!(session.poll_event(&rules()).unwrap_err().code, Code::HelloExpected);

    let mut session = ServerSession::new(now);
    session.handle_bytes([hello(), hello()].concat().into(), now);
    assert!(matches!(session.poll_event(&rules()), Ok(Some(Event::Hello(_)))));
    accept(&mut session, now);
    assert_eq!(session.poll_event(&rules()).unwrap_err().code, Code::ProtocolViolation);
}
