//! Attacks with what is asked for: absurd ranges, too many entries.

use skein_protocol::wire::{self, client_frame::Kind, server_frame};
use skein_protocol::{Code, limits};

use crate::scene::{SMALL, Scene, conversation, number, strange_conversation};
use crate::support::process::Options;

fn range(from: u64, to: u64, backward: bool, limit: u32) -> wire::Range {
    let target = Some(wire::range::Target::WithUser("eve".into()));
    wire::Range { target, from, to, backward, limit }
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_ranges_are_answered_with_what_there_is() {
    let scene = Scene::start(Options::default()).await;
    let mut raw = scene.login("mallory", "phone").await;
    for n in 1..=5 {
        raw.message("eve", &format!("m{n}"), "hi").await;
        raw.ack().await;
    }
    const MAX: u64 = u64::MAX;
    let cases: [(wire::Range, &[u64]); 14] = [
        (range(0, 0, false, 0), &[1, 2, 3, 4, 5]),
        (range(0, 0, true, 0), &[5, 4, 3, 2, 1]),
        (range(0, MAX, false, u32::MAX), &[1, 2, 3, 4, 5]),
        (range(1, MAX, true, u32::MAX), &[5, 4, 3, 2, 1]),
        (range(0, MAX, true, 1), &[5]),
        (range(0, 1, true, 0), &[1]),
        (range(0, 0, false, 1), &[1]),
        (range(5, 4, false, 0), &[]),
        (range(MAX, 1, true, 0), &[]),
        (range(MAX, MAX, false, 0), &[]),
        (range(MAX, 0, true, 1), &[]),
        (range(6, MAX, false, 0), &[]),
        (range(5, MAX, true, 0), &[5]),
        (range(1, 1, true, 1), &[1]),
    ];
    // Each by itself, and all in one.
    for (range, expected) in &cases {
        let request = wire::PullRequest { ranges: vec![range.clone()] };
        assert_eq!(pulled(&raw.ask(Kind::PullRequest(request)).await, 1), [*expected]);
    }
    let ranges: Vec<_> = cases.iter().map(|case| case.0.clone()).collect();
    let expected: Vec<_> = cases.iter().map(|case| case.1).collect();
    let request = wire::PullRequest { ranges };
    assert_eq!(pulled(&raw.ask(Kind::PullRequest(request)).await, cases.len()), expected);
    scene.end(SMALL).await;
}

/// Numbers of the messages by range; every range must have ended.
fn pulled(pages: &[server_frame::Kind], count: usize) -> Vec<Vec<u64>> {
    let mut found = vec![(Vec::new(), false); count];
    for page in pages {
        let server_frame::Kind::PullPage(page) = page else { panic!("{page:?}") };
        assert_eq!(page.error_code, 0);
        let (seqs, ended) = &mut found[page.range as usize];
        assert!(!*ended, "a page behind the last");
        seqs.extend(page.messages.iter().map(|message| message.seq));
        *ended = page.is_end;
    }
    assert!(found.iter().all(|range| range.1), "a range did not end");
    found.into_iter().map(|range| range.0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_users_is_not_there() {
    use wire::range::Target::{Conversation, WithUser};
    let scene = Scene::start(Options::default()).await;
    let raw = scene.login("mallory", "phone").await;
    let of = |target| wire::Range { target: Some(target), ..Default::default() };
    let ranges = vec![
        of(Conversation(conversation("anna", "ben"))),
        of(Conversation(strange_conversation())),
        of(WithUser("nobody".into())),
        of(WithUser("mallory".into())),
    ];
    let codes: Vec<u32> = raw
        .ask(Kind::PullRequest(wire::PullRequest { ranges }))
        .await
        .into_iter()
        .map(|page| match page {
            server_frame::Kind::PullPage(page) => {
                assert!(page.is_end && page.messages.is_empty());
                page.error_code
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let unknown = Code::UnknownConversation.number();
    assert_eq!(codes, [unknown, unknown, 0, 0]);
    let nothing = raw.ask(Kind::PullRequest(wire::PullRequest::default())).await;
    assert_eq!(nothing.len(), 1);
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_against_the_rules_close_by_number() {
    use wire::range::Target::{Conversation, WithUser};
    let scene = Scene::start(Options::default()).await;
    let many = limits::DEFAULT_MAX_ENTRIES as usize + 1;
    let of = |target| wire::Range { target, ..Default::default() };
    let heads = |conversations| Kind::HeadsRequest(wire::HeadsRequest { conversations });
    let pull = |ranges| Kind::PullRequest(wire::PullRequest { ranges });
    let cases = [
        heads(vec![strange_conversation(); many]),
        heads(vec![b""[..].into()]),
        // As many empty entries as a frame holds.
        heads(vec![bytes::Bytes::new(); 30_000]),
        pull(vec![of(Some(WithUser("eve".into()))); many]),
        pull(vec![of(None)]),
        pull(vec![of(None); 30_000]),
        pull(vec![of(Some(WithUser(String::new())))]),
        pull(vec![of(Some(WithUser("\u{1}".into())))]),
        pull(vec![of(Some(Conversation(vec![1; 17].into())))]),
    ];
    for request in cases {
        let mut raw = scene.login("mallory", "phone").await;
        let (mut send, _recv) = raw.connection.open_bi().await.unwrap();
        let frame = wire::ClientFrame { kind: Some(request) };
        let _ = send.write_all(&skein_protocol::frame::encode(&frame)).await;
        assert_eq!(raw.closed().await, number(Code::MalformedFrame));
    }
    let cursor = wire::Cursor { conversation: strange_conversation(), seq: u64::MAX };
    let empty = wire::Cursor::default();
    for cursors in [vec![cursor; many], vec![empty.clone()], vec![empty; 30_000]] {
        let mut raw = scene.login("mallory", "phone").await;
        raw.say(Kind::Delivered(wire::Delivered { cursors })).await;
        assert_eq!(raw.closed().await, number(Code::MalformedFrame));
    }
    scene.end(SMALL).await;
}

/// Small frames are the operator's choice, and the gateway keeps to it as well.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_heads_fit_into_the_smallest_frames() {
    let options = Options::default()
        .env("SKEIN_LIMITS__MAX_FRAME_BYTES", "4KiB")
        .env("SKEIN_LIMITS__MAX_PAYLOAD_BYTES", "3KiB");
    let scene = Scene::start(options).await;
    let mut raw = scene.login("mallory", "phone").await;
    for n in 0..60 {
        let long = format!("{n:064}");
        raw.message(&long, "m1", "hi").await;
        raw.ack().await;
    }
    let mut seen = 0;
    for page in raw.ask(Kind::HeadsRequest(wire::HeadsRequest::default())).await {
        let len = prost::Message::encoded_len(&wire::ServerFrame { kind: Some(page.clone()) });
        assert!(len <= 4096, "a frame of {len} bytes");
        let server_frame::Kind::HeadsPage(page) = page else { panic!("{page:?}") };
        seen += page.heads.len();
    }
    assert_eq!(seen, 60);
    scene.end(SMALL).await;
}
