//! Attacks inside the live stream: bytes that are no frames, frames that are no requests.

use skein_protocol::wire::{self, client_frame::Kind, server_frame};
use skein_protocol::{Code, limits};

use crate::scene::{SMALL, Scene, conversation, number, strange_conversation};
use crate::support::process::Options;
use crate::support::raw::Raw;

/// A frame with this body.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut len = body.len();
    while len >= 0x80 {
        frame.push(len as u8 | 0x80);
        len >>= 7;
    }
    frame.push(len as u8);
    frame.extend_from_slice(body);
    frame
}

async fn pong(raw: &mut Raw, nonce: u64) {
    raw.say(Kind::Ping(wire::Ping { nonce })).await;
    let pong = raw.next().await.unwrap();
    assert_eq!(pong, server_frame::Kind::Pong(wire::Pong { nonce }));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_frame_close_by_number() {
    let scene = Scene::start(Options::default()).await;
    let over = limits::DEFAULT_MAX_FRAME_BYTES + 1;
    // Groups in groups: an end to the recursion must be found before the end of the stack.
    let deep = vec![0x7b; 60_000];
    // The same inside a Hello and a Send.
    let deep_field = |tag: u8| {
        let mut body = vec![tag, 0xd0, 0x86, 0x03];
        body.extend_from_slice(&[0x7b; 50_000]);
        body
    };
    let cases: Vec<(Vec<u8>, Code)> = vec![
        (framed(&vec![0; over]), Code::FrameTooLarge),
        (vec![0x81, 0x80, 0x04], Code::FrameTooLarge),
        (vec![0xff, 0xff, 0xff, 0xff, 0x0f], Code::FrameTooLarge),
        (vec![0xff, 0xff, 0xff, 0xff, 0x7f], Code::FrameTooLarge),
        (vec![0xff; 6], Code::MalformedFrame),
        (vec![0x80; 600], Code::MalformedFrame),
        (framed(&[0xff; 40]), Code::MalformedFrame),
        (framed(&[0x0a, 0x05, 1]), Code::MalformedFrame),
        (
            framed(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Code::MalformedFrame,
        ),
        // Field 0, a wire type that does not exist, a field of the wrong type.
        (framed(&[0x00, 0x01]), Code::MalformedFrame),
        (framed(&[0x07, 0x01]), Code::MalformedFrame),
        (framed(&[0x20, 0x01]), Code::MalformedFrame),
        // Text that is not UTF-8.
        (framed(&[0x22, 0x04, 0x0a, 0x02, 0xff, 0xfe]), Code::MalformedFrame),
        (framed(&deep), Code::MalformedFrame),
        (framed(&deep_field(0x0a)), Code::MalformedFrame),
        (framed(&deep_field(0x22)), Code::MalformedFrame),
    ];
    for (bytes, code) in cases {
        for logged_in in [false, true] {
            let mut raw = scene.connect().await;
            if logged_in {
                raw.enter(&scene.gateway.token("mallory"), "phone").await;
            }
            raw.say_bytes(&bytes).await;
            let shown = &bytes[..bytes.len().min(12)];
            assert_eq!(raw.closed().await, number(code), "{logged_in} {shown:02x?}");
        }
    }
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_never_do_more_than_close() {
    let scene = Scene::start(Options::default()).await;
    for n in 0..100 {
        let mut raw = scene.connect().await;
        if n % 2 == 0 {
            raw.enter(&scene.gateway.token("mallory"), "phone").await;
        }
        let mut bytes = [0; 200];
        rand::fill(&mut bytes);
        // Short frames, so that most get as far as protobuf.
        for frame in bytes.chunks(10) {
            raw.say_bytes(&framed(frame)).await;
        }
        raw.say_bytes(&[0xff; 6]).await;
        let code = raw.closed().await;
        assert!((100..200).contains(&code) || code == 0, "{code}");
    }
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_or_breaks_inside_a_frame_ends_the_session() {
    let scene = Scene::start(Options::default()).await;
    for n in 0..30 {
        let mut raw = scene.connect().await;
        if n % 2 == 0 {
            raw.enter(&scene.gateway.token("mallory"), "phone").await;
        }
        raw.say_bytes(&[0x80, 0x80, 0x02, 0x22]).await;
        let code = match n % 3 {
            // To finish is to leave, whatever was cut off by it.
            0 => {
                raw.send.finish().unwrap();
                Code::Ok
            }
            1 => {
                raw.send.reset(7u32.into()).unwrap();
                Code::ProtocolViolation
            }
            _ => {
                raw.stop_reading();
                Code::ProtocolViolation
            }
        };
        assert_eq!(raw.closed().await, number(code), "{n}");
    }
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_client_may_say_is_passed_over() {
    let scene = Scene::start(Options::default()).await;
    let mut raw = scene.login("mallory", "phone").await;
    // An empty frame, unknown kinds, an unknown field inside a known kind.
    raw.say_bytes(&framed(&[])).await;
    raw.say_bytes(&framed(&[0xfa, 0x07, 0x02, 1, 2])).await;
    raw.say_bytes(&framed(&[0xf8, 0xff, 0xff, 0xff, 0x0f, 1])).await;
    raw.say_bytes(&framed(&[0x12, 0x06, 0x08, 0x05, 0xfa, 0x07, 0x01, 0x01])).await;
    let known = raw.next().await.unwrap();
    assert_eq!(known, server_frame::Kind::Pong(wire::Pong { nonce: 5 }));
    raw.say(Kind::Pong(wire::Pong { nonce: 77 })).await;
    pong(&mut raw, 6).await;
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_against_the_rules_are_refused_one_by_one() {
    use wire::send::Target::{Conversation, ToUser};
    let scene = Scene::start(Options::default()).await;
    let mut raw = scene.login("mallory", "phone").await;
    let good = wire::Send {
        target: Some(ToUser("eve".into())),
        client_msg_id: "m".into(),
        payload: b"hi"[..].into(),
        ..Default::default()
    };
    let to = |target| wire::Send { target: Some(target), ..good.clone() };
    let with_id = |id: &str| wire::Send { client_msg_id: id.into(), ..good.clone() };
    let mut other_kind = conversation("anna", "ben").to_vec();
    other_kind[0] = 9;
    let large = vec![b'x'; limits::DEFAULT_MAX_PAYLOAD_BYTES + 1];
    let cases = [
        (wire::Send { target: None, ..good.clone() }, Code::InvalidArgument),
        (to(ToUser(String::new())), Code::InvalidArgument),
        (to(ToUser("x".repeat(65))), Code::InvalidArgument),
        (to(ToUser("\u{7}".into())), Code::InvalidArgument),
        (to(Conversation(b"short"[..].into())), Code::InvalidArgument),
        (to(Conversation(other_kind.into())), Code::InvalidArgument),
        (to(Conversation(strange_conversation())), Code::UnknownConversation),
        // It exists, and is the bystanders'.
        (to(Conversation(conversation("anna", "ben"))), Code::UnknownConversation),
        (with_id(""), Code::InvalidArgument),
        (with_id(&"x".repeat(65)), Code::InvalidArgument),
        (with_id(&"x".repeat(60_000)), Code::InvalidArgument),
        (with_id("a\nb"), Code::InvalidArgument),
        (wire::Send { content_type: "x".repeat(129), ..good.clone() }, Code::InvalidArgument),
        (wire::Send { payload: large.into(), ..good.clone() }, Code::PayloadTooLarge),
    ];
    for (send, code) in cases {
        let id = send.client_msg_id.clone();
        raw.say(Kind::Send(send)).await;
        let error = raw.error().await;
        assert_eq!(error.code, code.number(), "{}", error.message);
        assert_eq!(error.client_msg_id, if id.len() > 64 { "" } else { &id });
    }
    // None of it left a trace, and nothing else suffers.
    raw.say(Kind::Send(good)).await;
    assert_eq!(raw.ack().await.seq, 1);
    raw.message_again("eve", "m", "hi", Some(u64::MAX)).await;
    assert_eq!(raw.ack().await.seq, 1);
    raw.message_again("eve", "n", "hi", Some(u64::MAX)).await;
    assert_eq!(raw.ack().await.seq, 2);
    // Not even by one who may not: the conversation of others cannot be read.
    let foreign = conversation("anna", "ben");
    let heads = wire::HeadsRequest { conversations: vec![foreign.clone()] };
    let [server_frame::Kind::HeadsPage(page)] = &raw.ask(Kind::HeadsRequest(heads)).await[..]
    else {
        panic!("one page")
    };
    assert!(page.is_end && page.heads.is_empty(), "{page:?}");
    let cursors = vec![wire::Cursor { conversation: foreign, seq: 1 }];
    raw.say(Kind::Read(wire::Read { cursors })).await;
    pong(&mut raw, 1).await;
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_sends_than_may_be_under_way_are_refused_and_the_rest_is_whole() {
    let scene = Scene::start(Options::default()).await;
    let mut raw = scene.login("mallory", "phone").await;
    let mut burst = Vec::new();
    let count = 2_000;
    for n in 0..count {
        let send = wire::Send {
            target: Some(wire::send::Target::ToUser("eve".into())),
            client_msg_id: format!("m{n}"),
            ..Default::default()
        };
        let frame = wire::ClientFrame { kind: Some(Kind::Send(send)) };
        burst.extend_from_slice(&skein_protocol::frame::encode(&frame));
    }
    let (mut send, mut reader) = (raw.send, raw.reader);
    let sent = tokio::spawn(async move {
        send.write_all(&burst).await.unwrap();
        send
    });
    let (mut acked, mut refused) = (Vec::new(), 0);
    while acked.len() + refused < count {
        match reader.next().await.unwrap() {
            server_frame::Kind::SendAck(ack) => acked.push(ack.seq),
            server_frame::Kind::Error(error) => {
                assert_eq!((error.code, error.retry), (Code::TooManySends.number(), true));
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 0, "nothing was refused");
    assert_eq!(acked, (1..=acked.len() as u64).collect::<Vec<_>>());
    (raw.send, raw.reader) = (sent.await.unwrap(), reader);
    raw.message("eve", "last", "hi").await;
    assert_eq!(raw.ack().await.seq, acked.len() as u64 + 1);
    scene.end(SMALL).await;
}
