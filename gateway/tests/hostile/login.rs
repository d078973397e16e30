//! Attacks before the welcome: no Hello, a wrong one, a token that is not good.

use std::time::{Duration, SystemTime};

use skein_gateway::dev::DevFiles;
use skein_protocol::wire::{self, client_frame::Kind};
use skein_protocol::{Code, VERSION, limits};

use crate::scene::{SMALL, Scene, number, strange_conversation};
use crate::support::process::{Options, token};

const HOUR: Duration = Duration::from_secs(3600);

fn hello(token: String) -> wire::Hello {
    wire::Hello { versions: vec![VERSION], token, device: "phone".into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_say_hello_is_closed() {
    let options = Options::default().env("SKEIN_SESSION__HELLO_TIMEOUT", "2s");
    let scene = Scene::start(options).await;
    let mut crowd = Vec::new();
    for n in 0..200 {
        let mut raw = scene.connect().await;
        match n % 4 {
            // Not even a stream.
            0 => {}
            // Half a Hello, half a length, a long frame promised.
            1 => raw.say_bytes(&[30, 10, 28]).await,
            2 => raw.say_bytes(&[0x80]).await,
            _ => raw.say_bytes(&[0xff, 0xff, 0x03, 10]).await,
        }
        crowd.push(raw);
    }
    // One keeps the stream busy, without ever coming to the end of a frame.
    let mut trickle = scene.connect().await;
    trickle.say_bytes(&[0xff, 0xff, 0x03]).await;
    let (connection, mut send) = (trickle.connection.clone(), trickle.send);
    let busy = tokio::spawn(async move {
        while send.write_all(&[10]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    for mut raw in crowd {
        assert_eq!(raw.closed().await, number(Code::HelloTimeout));
    }
    let error = crate::support::raw::lost(&connection).await;
    assert_eq!(crate::support::raw::close_code(&error), number(Code::HelloTimeout));
    busy.await.unwrap();
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_frame_is_hello_and_no_other_is() {
    let scene = Scene::start(Options::default()).await;
    let ping = Kind::Ping(wire::Ping { nonce: 1 });
    let firsts = [
        ping.clone(),
        Kind::Bye(wire::Bye {}),
        Kind::Send(wire::Send::default()),
        Kind::RefreshToken(wire::RefreshToken { token: scene.gateway.token("mallory") }),
        Kind::HeadsRequest(wire::HeadsRequest::default()),
    ];
    for first in firsts {
        let mut raw = scene.connect().await;
        raw.say(first).await;
        assert_eq!(raw.closed().await, number(Code::HelloExpected));
    }
    let mut raw = scene.login("mallory", "phone").await;
    raw.say(Kind::Hello(hello(scene.gateway.token("mallory")))).await;
    assert_eq!(raw.closed().await, number(Code::ProtocolViolation));
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_against_the_rules_is_refused_by_number() {
    let scene = Scene::start(Options::default()).await;
    let good = hello(scene.gateway.token("mallory"));
    let cursor = || wire::Cursor { conversation: strange_conversation(), seq: 1 };
    let short = wire::Cursor { conversation: b"\x01short"[..].into(), seq: 1 };
    let many = limits::DEFAULT_MAX_ENTRIES as usize + 1;
    let cases = [
        (wire::Hello { versions: Vec::new(), ..good.clone() }, Code::VersionUnsupported),
        (wire::Hello { versions: vec![0, 2, u32::MAX], ..good.clone() }, Code::VersionUnsupported),
        (wire::Hello { versions: vec![7; 10_000], ..good.clone() }, Code::VersionUnsupported),
        (wire::Hello { device: String::new(), ..good.clone() }, Code::DeviceMismatch),
        (wire::Hello { device: "no space".into(), ..good.clone() }, Code::MalformedFrame),
        (wire::Hello { device: "x".repeat(65), ..good.clone() }, Code::MalformedFrame),
        (wire::Hello { platform: "x".repeat(65), ..good.clone() }, Code::MalformedFrame),
        (wire::Hello { have: vec![short], ..good.clone() }, Code::MalformedFrame),
        (wire::Hello { have: vec![cursor(); many], ..good.clone() }, Code::MalformedFrame),
    ];
    for (hello, code) in cases {
        let mut raw = scene.connect().await;
        raw.say(Kind::Hello(hello)).await;
        assert_eq!(raw.closed().await, number(code));
    }
    // Much, but within the rules.
    let mut raw = scene.connect().await;
    let have = (1..many).map(|_| cursor()).collect();
    raw.say(Kind::Hello(wire::Hello { have, ..good })).await;
    raw.next().await.unwrap();
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_good_here_opens_nothing() {
    let scene = Scene::start(Options::default()).await;
    let elsewhere = tempfile::tempdir().unwrap();
    DevFiles::of(elsewhere.path()).ensure_token_key().unwrap();
    let now = SystemTime::now();
    let good = scene.gateway.token("mallory");
    let parts: Vec<&str> = good.split('.').collect();
    let unsigned = "eyJhbGciOiJub25lIn0";
    let cases = [
        (String::new(), Code::BadToken),
        ("garbage".into(), Code::BadToken),
        ("..".into(), Code::BadToken),
        ("\u{0}\u{10ffff}".into(), Code::BadToken),
        ("x".repeat(8 << 10), Code::BadToken),
        ("x".repeat((8 << 10) + 1), Code::BadToken),
        ("x".repeat(60_000), Code::BadToken),
        (format!("{}.{}.", parts[0], parts[1]), Code::BadToken),
        (format!("{unsigned}.{}.", parts[1]), Code::BadToken),
        (format!("{}.{}.{}", parts[0], parts[1], parts[2].to_lowercase()), Code::BadToken),
        (token(elsewhere.path(), "mallory", None, HOUR, now), Code::BadToken),
        (scene.gateway.token_with("mallory", HOUR, now - 2 * HOUR), Code::TokenExpired),
        (token(&scene.gateway.data, "mallory", Some("tablet"), HOUR, now), Code::DeviceMismatch),
    ];
    for (token, code) in cases {
        let mut raw = scene.connect().await;
        raw.say(Kind::Hello(hello(token.clone()))).await;
        assert_eq!(raw.closed().await, number(code), "{token:.80}");
    }
    // One that ends after the sun does is good, and no time overflows.
    let mut raw = scene.connect().await;
    raw.enter(&scene.gateway.token_with("mallory", Duration::MAX, now), "phone").await;
    raw.say(Kind::Ping(wire::Ping { nonce: 1 })).await;
    raw.next().await.unwrap();
    scene.end(SMALL).await;
}
