//! A message's whole path through the real program: sent, durable, acknowledged, pushed, read,
//! found again after `kill -9`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use skein_protocol::wire::{self, client_frame, server_frame};
use skein_protocol::{Code, ConversationId, UserId};
use support::process::{Gateway, Options};
use support::raw::Raw;

fn conversation(a: &str, b: &str) -> bytes::Bytes {
    let id = ConversationId::one_to_one(&UserId::parse(a).unwrap(), &UserId::parse(b).unwrap());
    bytes::Bytes::copy_from_slice(id.as_bytes())
}

async fn login(gateway: &Gateway, user: &str, device: &str) -> Raw {
    Raw::login(gateway.address, &gateway.data, &gateway.token(user), device).await
}

fn cursor(a: &str, b: &str, seq: u64) -> Vec<wire::Cursor> {
    vec![wire::Cursor { conversation: conversation(a, b), seq }]
}

fn receipt(kind: server_frame::Kind) -> Option<wire::Receipt> {
    match kind {
        server_frame::Kind::Receipt(receipt) => Some(receipt),
        _ => None,
    }
}

async fn heads(raw: &Raw) -> Vec<wire::Head> {
    let request = client_frame::Kind::HeadsRequest(wire::HeadsRequest::default());
    let mut heads = Vec::new();
    for page in raw.ask(request).await {
        let server_frame::Kind::HeadsPage(page) = page else { panic!("{page:?}") };
        heads.extend(page.heads);
    }
    heads
}

#[tokio::test]
async fn a_message_reaches_every_device_but_the_one_that_sent_it() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(data.path(), &Options::default());
    let mut phone = login(&gateway, "alice", "phone").await;
    let mut tablet = login(&gateway, "alice", "tablet").await;
    let mut bob = login(&gateway, "bob", "phone").await;

    phone.message("bob", "m1", "hello").await;
    let ack = phone.ack().await;
    assert_eq!((ack.client_msg_id.as_str(), ack.seq), ("m1", 1));
    assert_eq!(ack.conversation, conversation("alice", "bob"));
    for device in [&mut tablet, &mut bob] {
        let message = device.push().await;
        assert_eq!((message.seq, message.sender.as_str()), (1, "alice"));
        assert_eq!(&message.payload[..], b"hello");
        assert_eq!(message.time_ms, ack.time_ms);
    }

    bob.message("alice", "m1", "hello yourself").await;
    assert_eq!(bob.ack().await.seq, 2);
    for device in [&mut phone, &mut tablet] {
        assert_eq!(device.push().await.sender, "bob", "a device's own message is not pushed to it");
    }
}

#[tokio::test]
async fn cursors_rise_and_the_others_hear_of_it() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(data.path(), &Options::default());
    let mut alice = login(&gateway, "alice", "phone").await;
    let mut bob = login(&gateway, "bob", "phone").await;
    let mut desk = login(&gateway, "bob", "desk").await;
    for n in 1..=3 {
        alice.message("bob", &format!("m{n}"), "hi").await;
        alice.ack().await;
    }

    let cursors = cursor("alice", "bob", 2);
    bob.say(client_frame::Kind::Delivered(wire::Delivered { cursors })).await;
    let delivered = alice.wait_for(receipt).await.unwrap();
    assert_eq!((delivered.kind(), delivered.seq), (wire::ReceiptKind::Delivered, 2));

    // Past the head means up to the head.
    let cursors = cursor("alice", "bob", 99);
    bob.say(client_frame::Kind::Read(wire::Read { cursors })).await;
    for device in [&mut alice, &mut desk] {
        let read = device.wait_for(receipt).await.unwrap();
        assert_eq!((read.kind(), read.seq), (wire::ReceiptKind::Read, 3));
        assert_eq!(read.user, "bob");
    }

    let head = &heads(&bob).await[0];
    assert_eq!((head.seq, head.delivered, head.read), (3, 3, 3));
    let head = &heads(&alice).await[0];
    assert_eq!((head.members[0].user.as_str(), head.members[0].read), ("bob", 3));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_kill_and_a_repeat_keeps_its_number() {
    let data = tempfile::tempdir().unwrap();
    let options = Options::default().env("SKEIN_DEDUP_WINDOW", 2);
    let gateway = Gateway::start(data.path(), &options);
    let mut alice = login(&gateway, "alice", "phone").await;
    for n in 1..=10 {
        alice.message("bob", &format!("m{n}"), &format!("text {n}")).await;
        assert_eq!(alice.ack().await.seq, n);
    }
    gateway.kill();

    let gateway = Gateway::start(data.path(), &options);
    let mut alice = login(&gateway, "alice", "phone").await;
    // Within the window of two, and far beyond it.
    for (id, seq) in [("m10", 10), ("m1", 1), ("m4", 4)] {
        alice.message_again("bob", id, "again", Some(0)).await;
        assert_eq!(alice.ack().await.seq, seq, "{id}");
    }
    alice.message("bob", "m11", "new").await;
    assert_eq!(alice.ack().await.seq, 11);

    let bob = login(&gateway, "bob", "phone").await;
    let head = &heads(&bob).await[0];
    assert_eq!((head.seq, head.delivered), (11, 0));
    let messages = bob.pull("alice", 1, 0, false).await;
    assert_eq!(messages.iter().map(|m| m.seq).collect::<Vec<_>>(), (1..=11).collect::<Vec<_>>());
    assert_eq!(&messages[3].payload[..], b"text 4");
    let messages = bob.pull("alice", 3, 5, true).await;
    assert_eq!(messages.iter().map(|m| m.seq).collect::<Vec<_>>(), [5, 4, 3]);
}

#[tokio::test]
async fn long_history_comes_in_pages_that_fit_into_frames() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(data.path(), &Options::default());
    let mut alice = login(&gateway, "alice", "phone").await;
    let text = "x".repeat(20_000);
    for n in 1..=40 {
        alice.message("bob", &format!("m{n}"), &text).await;
        alice.ack().await;
    }
    let bob = login(&gateway, "bob", "phone").await;
    let seqs: Vec<u64> = bob.pull("alice", 1, 0, false).await.iter().map(|m| m.seq).collect();
    assert_eq!(seqs, (1..=40).collect::<Vec<_>>());
    // The user who never wrote or was written to has an empty conversation.
    assert_eq!(bob.pull("nobody", 1, 0, false).await, []);
}

#[tokio::test]
async fn heads_come_in_pages_that_fit_into_small_frames() {
    let data = tempfile::tempdir().unwrap();
    let options = Options::default()
        .env("SKEIN_LIMITS__MAX_FRAME_BYTES", "4KiB")
        .env("SKEIN_LIMITS__MAX_PAYLOAD_BYTES", "1KiB");
    let gateway = Gateway::start(data.path(), &options);
    let mut alice = login(&gateway, "alice", "phone").await;
    let count = 100;
    for n in 0..count {
        alice.message(&format!("{n:0>60}"), &format!("m{n}"), "hi").await;
        alice.ack().await;
    }
    let mut listed = std::collections::BTreeSet::new();
    let pages = alice.ask(client_frame::Kind::HeadsRequest(wire::HeadsRequest::default())).await;
    for page in &pages {
        let server_frame::Kind::HeadsPage(page) = page else { panic!("{page:?}") };
        assert!(prost::Message::encoded_len(page) <= 4096);
        listed.extend(page.heads.iter().map(|head| head.conversation.clone()));
    }
    assert_eq!(listed.len(), count);
    assert!(pages.len() > 2);
}

#[tokio::test]
async fn a_device_may_reconnect_to_a_full_gateway() {
    let data = tempfile::tempdir().unwrap();
    let gateway =
        Gateway::start(data.path(), &Options::default().env("SKEIN_LIMITS__MAX_SESSIONS", 1));
    let _older = login(&gateway, "alice", "phone").await;
    let mut newer = login(&gateway, "alice", "phone").await;
    let mut refused = Raw::connect(gateway.address, data.path()).await;
    refused.hello(&gateway.token("bob"), "phone").await;
    assert_eq!(refused.closed().await, u64::from(Code::TooManySessions.number()));
    newer.message("bob", "m1", "hi").await;
    newer.ack().await;
}

#[tokio::test]
async fn a_device_that_connects_again_replaces_its_older_connection() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(data.path(), &Options::default());
    let mut older = login(&gateway, "alice", "phone").await;
    let mut newer = login(&gateway, "alice", "phone").await;
    assert_eq!(older.closed().await, u64::from(Code::Replaced.number()));
    // The older one's end does not take the newer one off the list.
    let mut bob = login(&gateway, "bob", "phone").await;
    bob.message("alice", "m1", "still there?").await;
    assert_eq!(newer.push().await.sender, "bob");
    assert!(older.next().await.is_err());
}

#[tokio::test]
async fn what_a_client_has_is_answered_with_what_it_lacks() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(data.path(), &Options::default());
    let mut alice = login(&gateway, "alice", "phone").await;
    for n in 1..=5 {
        alice.message("bob", &format!("m{n}"), "hi").await;
        alice.ack().await;
    }
    let mut bob = Raw::connect(gateway.address, data.path()).await;
    bob.hello(&gateway.token("bob"), "phone").await;
    let Ok(server_frame::Kind::Welcome(welcome)) = bob.next().await else { panic!("no welcome") };
    drop(bob);

    let mut bob = Raw::connect(gateway.address, data.path()).await;
    bob.say(client_frame::Kind::Hello(wire::Hello {
        versions: vec![skein_protocol::VERSION],
        token: gateway.token("bob"),
        device: "phone".into(),
        store_epoch: welcome.store_epoch,
        have: cursor("alice", "bob", 3),
        ..Default::default()
    }))
    .await;
    let behind = bob
        .wait_for(|kind| match kind {
            server_frame::Kind::Behind(behind) => Some(behind),
            _ => None,
        })
        .await
        .unwrap();
    assert_eq!(behind.heads, cursor("alice", "bob", 5));
    let receipt = alice.wait_for(receipt).await.unwrap();
    assert_eq!((receipt.kind(), receipt.seq), (wire::ReceiptKind::Delivered, 3));
}

#[tokio::test]
async fn a_stop_sends_everybody_away_and_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(data.path(), &Options::default());
    let mut alice = login(&gateway, "alice", "phone").await;
    alice.message("bob", "m1", "hi").await;
    alice.ack().await;
    let cursors = cursor("alice", "bob", 1);
    alice.say(client_frame::Kind::Read(wire::Read { cursors })).await;
    let stopped = tokio::task::spawn_blocking(move || gateway.terminate());
    let go_away = alice
        .wait_for(|kind| match kind {
            server_frame::Kind::GoAway(go_away) => Some(go_away),
            _ => None,
        })
        .await
        .unwrap();
    assert_eq!(go_away.code, Code::GoingAway.number());
    alice.say(client_frame::Kind::Bye(wire::Bye {})).await;
    assert_eq!(alice.closed().await, u64::from(Code::Ok.number()));
    assert!(stopped.await.unwrap().success());

    let gateway = Gateway::start(data.path(), &Options::default());
    let alice = login(&gateway, "alice", "phone").await;
    assert_eq!(heads(&alice).await[0].read, 1);
}
