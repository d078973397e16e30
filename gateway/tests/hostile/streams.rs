//! Attacks with streams: wrong ones, too many, abandoned ones.

use skein_protocol::Code;
use skein_protocol::frame::encode;
use skein_protocol::wire::{self, client_frame::Kind, server_frame};

use crate::scene::{SMALL, Scene, number};
use crate::support::process::Options;
use crate::support::raw::{PATIENCE, Raw};

/// A bulk request, as bytes.
fn request() -> bytes::Bytes {
    let range = wire::Range {
        target: Some(wire::range::Target::WithUser("eve".into())),
        ..Default::default()
    };
    let pull = wire::PullRequest { ranges: vec![range] };
    encode(&wire::ClientFrame { kind: Some(Kind::PullRequest(pull)) })
}

/// Stores so much that an answer takes many pages.
async fn fill(raw: &mut Raw) {
    let text = "x".repeat(20_000);
    for n in 1..=50 {
        raw.message("eve", &format!("m{n}"), &text).await;
        raw.ack().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_stream_with_anything_but_a_request_is_refused() {
    let scene = Scene::start(Options::default()).await;
    let live = encode(&wire::ClientFrame { kind: Some(Kind::Ping(wire::Ping { nonce: 1 })) });
    let cases: [(&[u8], bool, Code); 6] = [
        (&live, false, Code::ProtocolViolation),
        (&[], true, Code::MalformedFrame),
        (&request()[..5], true, Code::MalformedFrame),
        (&[0xff; 6], false, Code::MalformedFrame),
        (&[0x81, 0x80, 0x04], false, Code::FrameTooLarge),
        (&[2, 0x8a, 0x7f], false, Code::MalformedFrame),
    ];
    for (bytes, finish, code) in cases {
        let mut raw = scene.login("mallory", "phone").await;
        let (mut send, _recv) = raw.connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        if finish {
            send.finish().unwrap();
        }
        assert_eq!(raw.closed().await, number(code), "{bytes:02x?}");
    }
    let mut raw = scene.login("mallory", "phone").await;
    raw.say_bytes(&request()).await;
    assert_eq!(raw.closed().await, number(Code::ProtocolViolation));

    // A kind of a newer client, and an empty frame, are answered on their stream.
    let raw = scene.login("mallory", "phone").await;
    for unknown in [&[0][..], &[5, 0xfa, 0x07, 0x02, 1, 2]] {
        let (mut send, mut recv) = raw.connection.open_bi().await.unwrap();
        send.write_all(unknown).await.unwrap();
        send.finish().unwrap();
        let answer = recv.read_to_end(1 << 16).await.unwrap();
        let [server_frame::Kind::Error(error)] = &crate::support::raw::frames(answer.into())[..]
        else {
            panic!("one error")
        };
        assert_eq!(error.code, Code::InvalidArgument.number());
    }
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_stream_too_many_is_reset_and_the_others_go_on() {
    let scene = Scene::start(Options::default()).await;
    let raw = scene.login("mallory", "phone").await;
    let (mut one, mut answer) = raw.connection.open_bi().await.unwrap();
    let (mut two, _two) = raw.connection.open_bi().await.unwrap();
    one.write_all(&request()[..3]).await.unwrap();
    two.write_all(&request()[..3]).await.unwrap();
    for _ in 0..50 {
        let (mut three, mut refused) = raw.connection.open_bi().await.unwrap();
        let _ = three.write_all(&request()).await;
        let reset = tokio::time::timeout(PATIENCE, refused.read_to_end(1 << 16)).await.unwrap();
        match reset.unwrap_err() {
            quinn::ReadToEndError::Read(quinn::ReadError::Reset(code)) => {
                assert_eq!(code.into_inner(), number(Code::Overloaded));
            }
            other => panic!("{other}"),
        }
    }
    one.write_all(&request()[3..]).await.unwrap();
    one.finish().unwrap();
    let answer = answer.read_to_end(1 << 16).await.unwrap();
    assert!(matches!(
        &crate::support::raw::frames(answer.into())[..],
        [server_frame::Kind::PullPage(_)]
    ));
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_opened_and_given_up_at_any_moment_leave_nothing_behind() {
    let scene = Scene::start(Options::default()).await;
    let mut raw = scene.login("mallory", "phone").await;
    fill(&mut raw).await;
    for n in 0..600u32 {
        let opened = tokio::time::timeout(PATIENCE, raw.connection.open_bi()).await;
        let (mut send, mut recv) = opened.expect("the streams are used up").unwrap();
        match n % 8 {
            // Nothing, half a request, a request: and then a reset.
            0 => send.reset(1u32.into()).unwrap(),
            1 => {
                let _ = send.write_all(&request()[..4]).await;
                let _ = send.reset(1u32.into());
            }
            2 => {
                let _ = send.write_all(&request()).await;
                let _ = send.reset(1u32.into());
            }
            // A request, whole, whose answer is not wanted: before, while and after it comes.
            3 => {
                let _ = send.write_all(&request()).await;
                let _ = send.finish();
                let _ = recv.stop(2u32.into());
            }
            4 => {
                let _ = send.write_all(&request()).await;
                let _ = send.finish();
                let _ = tokio::time::timeout(PATIENCE, recv.read_chunk(100, true)).await.unwrap();
                let _ = recv.stop(2u32.into());
            }
            5 => {
                let _ = recv.stop(2u32.into());
                let _ = send.write_all(&request()).await;
                let _ = send.finish();
            }
            // More than one request, and much more than a request.
            6 => {
                let _ = send.write_all(&request()).await;
                let _ = send.write_all(&request()).await;
                let _ = recv.stop(2u32.into());
                let _ = send.finish();
            }
            _ => {
                let _ = send.write_all(&request()).await;
                let _ = recv.stop(2u32.into());
                let _ = send.write_all(&[0; 50_000]).await;
                let _ = send.reset(1u32.into());
            }
        }
        assert!(raw.connection.close_reason().is_none(), "{:?}", raw.connection.close_reason());
    }
    // It still answers, as often as asked.
    for _ in 0..10 {
        assert_eq!(pull_when_free(&raw).await, 50);
    }
    scene.end(SMALL).await;
}

/// Messages of an answer; asks again while the streams given up before are not yet gone.
async fn pull_when_free(raw: &Raw) -> usize {
    for _ in 0..200 {
        let opened = tokio::time::timeout(PATIENCE, raw.connection.open_bi()).await;
        let (mut send, mut recv) = opened.expect("the streams are used up").unwrap();
        let _ = send.write_all(&request()).await;
        let _ = send.finish();
        let answer = tokio::time::timeout(PATIENCE, recv.read_to_end(64 << 20)).await.unwrap();
        match answer {
            Ok(answer) => {
                let pages = crate::support::raw::frames(answer.into());
                return pages.iter().map(messages).sum();
            }
            Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(_))) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("bulk streams stay refused")
}

fn messages(page: &server_frame::Kind) -> usize {
    match page {
        server_frame::Kind::PullPage(page) => page.messages.len(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn opened_and_reset_by_the_thousand() {
    let scene = Scene::start(Options::default()).await;
    let mut crowd = Vec::new();
    for n in 0..16 {
        let raw = scene.login("mallory", &format!("phone{n}")).await;
        crowd.push(tokio::spawn(async move {
            for _ in 0..200 {
                let opened = tokio::time::timeout(PATIENCE, raw.connection.open_bi()).await;
                let (mut send, _) = opened.expect("the streams are used up").unwrap();
                let _ = send.reset(1u32.into());
            }
            raw
        }));
    }
    for raw in crowd {
        let raw = raw.await.unwrap();
        assert_eq!(pull_when_free(&raw).await, 0);
    }
    scene.end(SMALL).await;
}
