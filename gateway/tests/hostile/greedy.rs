//! Attacks on the processor: what is allowed, cheap to say and dear to do, without an end.

use std::time::{Duration, Instant};

use quinn::ConnectionError;
use skein_protocol::Code;
use skein_protocol::frame::encode;
use skein_protocol::wire::{self, client_frame::Kind, server_frame};

use crate::scene::{SMALL, Scene, limits_for_strangers, number, strange_conversation};
use crate::support::process::Options;
use crate::support::raw::{PATIENCE, Raw, close_code, endpoint, lost};

/// How long those go on that are not stopped.
const WHILE: Duration = Duration::from_secs(2);

/// An address of this machine that is not exempt from limits.
const MALLORY: u8 = 2;

fn frame(kind: Kind) -> bytes::Bytes {
    encode(&wire::ClientFrame { kind: Some(kind) })
}

/// Says this again and again from three devices, and reads whatever comes back, until it is closed.
async fn again_and_again(bytes: &[u8]) {
    let scene = Scene::start(limits_for_strangers(Options::default())).await;
    let mut crowd = Vec::new();
    for n in 0..3 {
        let raw = scene.login_at(MALLORY, "mallory", &format!("phone{n}")).await;
        crowd.push(tokio::spawn(flood(raw, bytes.to_vec())));
    }
    for raw in crowd {
        match raw.await.unwrap() {
            ConnectionError::ApplicationClosed(close) => {
                assert_eq!(close.error_code.into_inner(), number(Code::TooManyFrames));
            }
            // Who is told more than it reads loses datagrams, also the one with the code.
            ConnectionError::Reset => {}
            other => panic!("closed otherwise: {other}"),
        }
    }
    let stopped = scene.metric("skein_sessions_evicted_total{code=\"too_many_frames\"}");
    assert_eq!(stopped, 3.0);
    scene.end(SMALL).await;
}

/// Says this again and again until it is closed, and how.
async fn flood(raw: Raw, bytes: Vec<u8>) -> ConnectionError {
    let Raw { mut send, mut reader, connection, endpoint: _endpoint } = raw;
    let chunk = bytes.repeat(((16 << 10) / bytes.len()).max(1));
    let hearing = tokio::spawn(async move { while reader.next().await.is_ok() {} });
    let endless = async { while send.write_all(&chunk).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, endless).await.expect("it is not stopped");
    hearing.abort();
    lost(&connection).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_without_end_are_stopped() {
    again_and_again(&frame(Kind::Ping(wire::Ping { nonce: 1 }))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_frames_without_end_are_stopped() {
    again_and_again(&[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_frames_without_end_are_stopped() {
    again_and_again(&[5, 0xfa, 0x07, 0x02, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_sends_without_end_are_stopped() {
    again_and_again(&frame(Kind::Send(wire::Send::default()))).await;
}

/// As many cursors as a frame may name, each of a conversation that is not there.
#[tokio::test(flavor = "multi_thread")]
async fn cursors_of_nothing_without_end_are_stopped() {
    let cursors = (0..256).map(|_| wire::Cursor { conversation: strange_conversation(), seq: 1 });
    let delivered = wire::Delivered { cursors: cursors.collect() };
    again_and_again(&frame(Kind::Delivered(delivered))).await;
}

/// A frame that is empty is not the first one, and not for ever no frame.
#[tokio::test(flavor = "multi_thread")]
async fn empty_frames_of_strangers_are_stopped() {
    let scene = Scene::start(Options::default()).await;
    for _ in 0..20 {
        let closed = flood(scene.connect().await, vec![0]).await;
        assert_eq!(close_code(&closed), number(Code::HelloExpected));
    }
    scene.end(SMALL).await;
}

/// As many ranges as fit, all the time on as many streams as there may be.
#[tokio::test(flavor = "multi_thread")]
async fn syncs_without_end_are_stopped() {
    // A rate that this client surely exceeds, however slow the machine is.
    let scene = Scene::limited("SKEIN_LIMITS__SYNCS_PER_USER", "2/s burst 20").await;
    let mut raw = scene.login_at(MALLORY, "mallory", "phone").await;
    for n in 0..100 {
        raw.message("eve", &format!("m{n}"), &"x".repeat(1000)).await;
        raw.ack().await;
    }
    let range = |n: u64| wire::Range {
        target: Some(wire::range::Target::WithUser("eve".into())),
        from: 1 + n % 50,
        backward: n.is_multiple_of(2),
        limit: 10,
        ..Default::default()
    };
    let pull = Kind::PullRequest(wire::PullRequest { ranges: (0..64).map(range).collect() });
    let (mut refused, begun) = (0, Instant::now());
    while refused < 100 {
        let (one, other) = tokio::join!(raw.ask(pull.clone()), raw.ask(pull.clone()));
        for answer in [one, other] {
            match &answer[..] {
                [server_frame::Kind::Error(error)] => {
                    assert_eq!((error.code, error.retry), (Code::SyncRate.number(), true));
                    refused += 1;
                }
                pages => {
                    let is_page = |kind| matches!(kind, &server_frame::Kind::PullPage(_));
                    assert!(pages.iter().all(is_page), "{pages:?}");
                }
            }
        }
        assert!(begun.elapsed() < PATIENCE, "it is not stopped");
    }
    scene.end(2 * SMALL).await;
}

/// Tokens of the greatest length, each with a signature that has to be looked at.
#[tokio::test(flavor = "multi_thread")]
async fn long_tokens_without_end_keep_nobody_waiting() {
    let scene = Scene::start(Options::default()).await;
    let good = scene.gateway.token("mallory");
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let claims = "A".repeat(8000 - header.len() - signature.len());
    let forged = format!("{header}.{claims}.{signature}");
    let client = endpoint(&scene.gateway.data, skein_protocol::ALPN);
    let (begun, mut tried) = (Instant::now(), 0);
    while begun.elapsed() < WHILE {
        let mut raw = Raw::connect_from(client.clone(), scene.gateway.address).await;
        raw.hello(&forged, "phone").await;
        assert_eq!(raw.closed().await, number(Code::BadToken));
        tried += 1;
    }
    assert!(tried > 0);
    scene.end(SMALL).await;
}

/// Handshakes that are finished and thrown away, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_without_end_keep_nobody_waiting() {
    let scene = Scene::start(Options::default()).await;
    let client = endpoint(&scene.gateway.data, skein_protocol::ALPN);
    let begun = Instant::now();
    while begun.elapsed() < WHILE {
        let connecting = client.connect(scene.gateway.address, "localhost").unwrap();
        connecting.await.unwrap().close(0u32.into(), b"");
    }
    scene.end(SMALL).await;
}

/// A whole window in pieces of one byte each, a stream frame for every one.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_single_bytes_keeps_nobody_waiting() {
    let scene = Scene::start(Options::default()).await;
    let mut raw = scene.login("mallory", "phone").await;
    let text = "x".repeat(2000);
    let message = frame(Kind::Send(wire::Send {
        target: Some(wire::send::Target::ToUser("eve".into())),
        client_msg_id: "m1".into(),
        payload: text.into(),
        ..Default::default()
    }));
    let begun = Instant::now();
    for byte in &message {
        raw.say_bytes(std::slice::from_ref(byte)).await;
        if begun.elapsed() < WHILE {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
    assert!(matches!(raw.next().await, Ok(server_frame::Kind::SendAck(_))));
    scene.end(SMALL).await;
}
