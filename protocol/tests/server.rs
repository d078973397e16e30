//! The gateway's session rules: what a peer may say, when, and what happens otherwise.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use skein_protocol::frame::encode;
use skein_protocol::server::{Admission, Close, Event, Rules, ServerSession, bulk_request};
use skein_protocol::wire::{self, client_frame::Kind};
use skein_protocol::{Code, DeviceId, UserId, limits};

fn rules() -> Rules {
    Rules {
        limits: wire::Limits {
            max_frame_bytes: 4096,
            max_payload_bytes: 1024,
            max_unacked_sends: 2,
            max_bulk_streams: 2,
            max_entries: 4,
        },
        heartbeat_interval: Duration::from_secs(20),
        hello_timeout: Duration::from_secs(10),
    }
}

fn frame(kind: Kind) -> Bytes {
    encode(&wire::ClientFrame { kind: Some(kind) })
}

fn hello() -> wire::Hello {
    wire::Hello {
        versions: vec![1],
        token: "t".into(),
        device: "phone".into(),
        ..Default::default()
    }
}

fn send(id: &str) -> wire::Send {
    wire::Send {
        target: Some(wire::send::Target::ToUser("bob".into())),
        client_msg_id: id.into(),
        payload: Bytes::from_static(b"x"),
        ..Default::default()
    }
}

#[test]
fn a_session_keeps_the_heartbeat_that_it_was_told() {
    let now = Instant::now();
    let session = live(now, None);
    for seconds in [1, 60] {
        let heartbeat_interval = Duration::from_secs(seconds);
        let changed = Rules { heartbeat_interval, ..rules() };
        assert_eq!(session.poll_timeout(&changed), now + Duration::from_secs(30));
        assert_eq!(session.handle_timeout(&changed, now + Duration::from_secs(29)), None);
        let close = session.handle_timeout(&changed, now + Duration::from_secs(30)).unwrap();
        assert_eq!(close.code, Code::HeartbeatTimeout);
    }
}

/// A session that was welcomed at `now`, and a token that ends then.
fn live(now: Instant, expires_in: Option<Duration>) -> ServerSession {
    let mut session = ServerSession::new(now);
    session.handle_bytes(frame(Kind::Hello(hello())), now);
    assert!(matches!(session.poll_event(&rules()), Ok(Some(Event::Hello(_)))));
    let user = UserId::parse("alice").unwrap();
    let device = DeviceId::parse("phone").unwrap();
    let admission = Admission {
        session: 1,
        user: &user,
        device: &device,
        server_time_ms: 1_000,
        store_epoch: 7,
        token_expires_ms: expires_in.map(|after| 1_000 + after.as_millis() as u64),
    };
    session.accept(&rules(), &admission, now);
    session
}

fn say(session: &mut ServerSession, kind: Kind) -> Result<Option<Event>, Close> {
    session.handle_bytes(frame(kind), Instant::now());
    session.poll_event(&rules())
}

fn code(outcome: Result<Option<Event>, Close>) -> Code {
    outcome.expect_err("it is not closed").code
}

#[test]
fn nothing_but_hello_comes_first() {
    let mut session = ServerSession::new(Instant::now());
    assert_eq!(code(say(&mut session, Kind::Ping(wire::Ping { nonce: 1 }))), Code::HelloExpected);
}

#[test]
fn hello_is_checked_field_by_field() {
    let outcome = |hello| {
        let mut session = ServerSession::new(Instant::now());
        say(&mut session, Kind::Hello(hello))
    };
    let versions = outcome(wire::Hello { versions: vec![2, 3], ..hello() });
    assert_eq!(code(versions), Code::VersionUnsupported);
    let device = outcome(wire::Hello { device: "a b".into(), ..hello() });
    assert_eq!(code(device), Code::MalformedFrame);
    let platform = "x".repeat(limits::MAX_PLATFORM_BYTES + 1);
    assert_eq!(code(outcome(wire::Hello { platform, ..hello() })), Code::MalformedFrame);
    let have = vec![wire::Cursor { conversation: Bytes::from_static(b"short"), seq: 1 }];
    assert_eq!(code(outcome(wire::Hello { have, ..hello() })), Code::MalformedFrame);
    let newer = wire::Hello { versions: vec![9, 1], ..hello() };
    assert!(matches!(outcome(newer), Ok(Some(Event::Hello(_)))), "one version in common is enough");
}

#[test]
fn nothing_is_decoded_until_hello_is_accepted() {
    let now = Instant::now();
    let mut session = ServerSession::new(now);
    let mut both = frame(Kind::Hello(hello())).to_vec();
    both.extend_from_slice(&frame(Kind::Ping(wire::Ping { nonce: 5 })));
    session.handle_bytes(both.into(), now);
    assert!(matches!(session.poll_event(&rules()), Ok(Some(Event::Hello(_)))));
    assert_eq!(session.poll_event(&rules()), Ok(None));
    let (user, device) = (UserId::parse("a").unwrap(), DeviceId::parse("d").unwrap());
    let admission = Admission {
        session: 1,
        user: &user,
        device: &device,
        server_time_ms: 0,
        store_epoch: 0,
        token_expires_ms: None,
    };
    session.accept(&rules(), &admission, now);
    assert_eq!(session.poll_event(&rules()), Ok(Some(Event::Ping(5))));
}

#[test]
fn a_second_hello_and_misplaced_requests_end_the_session() {
    let now = Instant::now();
    for kind in [
        Kind::Hello(hello()),
        Kind::HeadsRequest(wire::HeadsRequest::default()),
        Kind::PullRequest(wire::PullRequest::default()),
    ] {
        assert_eq!(code(say(&mut live(now, None), kind)), Code::ProtocolViolation);
    }
    let misplaced = wire::ClientFrame { kind: Some(Kind::Bye(wire::Bye {})) };
    assert_eq!(bulk_request(misplaced, &rules()).unwrap_err().code, Code::ProtocolViolation);
}

#[test]
fn a_send_that_breaks_a_rule_is_refused_and_the_session_goes_on() {
    let mut session = live(Instant::now(), None);
    let refused = |session: &mut ServerSession, send| match say(session, Kind::Send(send)) {
        Ok(Some(Event::Refused(refusal))) => (refusal.code, refusal.client_msg_id),
        other => panic!("{other:?}"),
    };
    let no_target = wire::Send { target: None, ..send("m1") };
    assert_eq!(refused(&mut session, no_target), (Code::InvalidArgument, "m1".into()));
    let payload = Bytes::from(vec![0; 1025]);
    let too_long = wire::Send { payload, ..send("m2") };
    assert_eq!(refused(&mut session, too_long), (Code::PayloadTooLarge, "m2".into()));
    let long_id = "x".repeat(65);
    assert_eq!(refused(&mut session, send(&long_id)), (Code::InvalidArgument, String::new()));
    let target = Some(wire::send::Target::Conversation(Bytes::from_static(&[9; 16])));
    let unknown_kind = wire::Send { target, ..send("m3") };
    assert_eq!(refused(&mut session, unknown_kind), (Code::InvalidArgument, "m3".into()));
    assert!(matches!(say(&mut session, Kind::Send(send("m4"))), Ok(Some(Event::Send(_)))));
}

#[test]
fn sends_without_an_answer_are_counted() {
    let mut session = live(Instant::now(), None);
    for id in ["m1", "m2"] {
        assert!(matches!(say(&mut session, Kind::Send(send(id))), Ok(Some(Event::Send(_)))));
    }
    let Ok(Some(Event::Refused(refusal))) = say(&mut session, Kind::Send(send("m3"))) else {
        panic!("not refused");
    };
    assert_eq!(refusal.code, Code::TooManySends);
    session.answered();
    assert!(matches!(say(&mut session, Kind::Send(send("m3"))), Ok(Some(Event::Send(_)))));
    // Answers that were lost inside the gateway must not keep their places for ever.
    session.forget_unanswered();
    for id in ["m1", "m2"] {
        assert!(matches!(say(&mut session, Kind::Send(send(id))), Ok(Some(Event::Send(_)))));
    }
    assert!(matches!(say(&mut session, Kind::Send(send("m3"))), Ok(Some(Event::Refused(_)))));
    // One that was not lost after all comes late and does no harm.
    (0..9).for_each(|_| session.answered());
    assert!(matches!(say(&mut session, Kind::Send(send("m3"))), Ok(Some(Event::Send(_)))));
}

#[test]
fn too_many_entries_end_the_session() {
    let cursor = wire::Cursor { conversation: Bytes::from_static(&[1; 16]), seq: 1 };
    let delivered =
        |count| Kind::Delivered(wire::Delivered { cursors: vec![cursor.clone(); count] });
    let mut session = live(Instant::now(), None);
    assert!(matches!(say(&mut session, delivered(4)), Ok(Some(Event::Delivered(_)))));
    assert_eq!(code(say(&mut session, delivered(5))), Code::MalformedFrame);
}

#[test]
fn silence_evicts_after_one_and_a_half_intervals_and_any_frame_is_life() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut session = live(start, None);
    assert_eq!(session.poll_timeout(&rules()), at(30));
    assert_eq!(session.handle_timeout(&rules(), at(29)), None);
    session.handle_bytes(frame(Kind::Pong(wire::Pong { nonce: 0 })), at(29));
    assert_eq!(session.handle_timeout(&rules(), at(58)), None);
    let close = session.handle_timeout(&rules(), at(59)).unwrap();
    assert_eq!(close.code, Code::HeartbeatTimeout);
    let greeting = ServerSession::new(start);
    assert_eq!(greeting.handle_timeout(&rules(), at(9)), None);
    assert_eq!(greeting.handle_timeout(&rules(), at(10)).unwrap().code, Code::HelloTimeout);
}

#[test]
fn the_session_ends_with_its_token_unless_it_is_refreshed() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut session = live(start, Some(Duration::from_secs(15)));
    assert_eq!(session.poll_timeout(&rules()), at(15));
    let close = session.handle_timeout(&rules(), at(15)).unwrap();
    assert_eq!(close.code, Code::TokenExpired);
    session.handle_bytes(frame(Kind::Pong(wire::Pong { nonce: 0 })), at(10));
    session.refresh(Some(60_000), 40_000, at(10));
    assert_eq!(session.handle_timeout(&rules(), at(29)), None);
    assert_eq!(session.handle_timeout(&rules(), at(30)).unwrap().code, Code::TokenExpired);
}

#[test]
fn kinds_from_a_newer_client_are_passed_over() {
    let mut session = live(Instant::now(), None);
    // Field 200, length-delimited, two bytes: a kind that this version does not know.
    let unknown = [5, 0xc2, 0x0c, 2, 1, 2];
    let mut bytes = unknown.to_vec();
    bytes.extend_from_slice(&frame(Kind::Ping(wire::Ping { nonce: 3 })));
    session.handle_bytes(bytes.into(), Instant::now());
    assert_eq!(session.poll_event(&rules()), Ok(Some(Event::Ping(3))));
    assert!(matches!(bulk_request(wire::ClientFrame::default(), &rules()), Ok(None)));
}

proptest! {
    /// Whatever a peer says, the session answers with events or one close, and holds no more
    /// than one frame.
    #[test]
    fn no_bytes_break_the_rules(chunks in prop::collection::vec(
        prop::collection::vec(any::<u8>(), 0..200), 0..40,
    ), welcomed in any::<bool>()) {
        let now = Instant::now();
        let mut session = if welcomed { live(now, None) } else { ServerSession::new(now) };
        'all: for chunk in chunks {
            session.handle_bytes(chunk.into(), now);
            loop {
                match session.poll_event(&rules()) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(close) => {
                        prop_assert!((100..200).contains(&close.code.number()));
                        break 'all;
                    }
                }
            }
        }
    }
}

#[test]
fn tokens_are_not_checked_as_fast_as_they_come() {
    let start = Instant::now();
    let mut session = live(start, Some(Duration::from_secs(60)));
    let mut show = |after| {
        let token = wire::RefreshToken { token: "new".into() };
        session.handle_bytes(frame(Kind::RefreshToken(token)), start + after);
        session.poll_event(&rules()).unwrap()
    };
    let refused =
        |event| matches!(event, Some(Event::Refused(refusal)) if refusal.code == Code::Overloaded);
    assert_eq!(show(Duration::ZERO), Some(Event::RefreshToken("new".into())));
    for _ in 0..100 {
        assert!(refused(show(limits::MIN_TOKEN_INTERVAL / 2)));
    }
    assert_eq!(show(limits::MIN_TOKEN_INTERVAL), Some(Event::RefreshToken("new".into())));
    assert!(refused(show(limits::MIN_TOKEN_INTERVAL)));
}
