//! Attacks by volume: much of what is allowed, and nobody who reads the answers.

use std::time::Duration;

use skein_protocol::Code;
use skein_protocol::frame::encode;
use skein_protocol::wire::{self, client_frame::Kind, server_frame};

use crate::scene::{
    SMALL, Scene, conversation, limits_for_strangers, number, strange_conversation,
};
use crate::support::process::Options;

fn frame(kind: Kind) -> bytes::Bytes {
    encode(&wire::ClientFrame { kind: Some(kind) })
}

/// Whatever asks for an answer, from peers who read none: the gateway stops to read, and closes.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_never_reads_is_closed_as_too_slow() {
    let options = limits_for_strangers(Options::default())
        .env("SKEIN_LIMITS__FRAMES_PER_USER", "500/s burst 20000")
        .env("SKEIN_SESSION__SLOW_CONSUMER_TIMEOUT", "2s");
    let scene = Scene::start(options).await;
    let ping = frame(Kind::Ping(wire::Ping { nonce: 7 }));
    // Three bytes, and an answer of a hundred.
    let refused = frame(Kind::Send(wire::Send::default()));
    let sent = frame(Kind::Send(wire::Send {
        target: Some(wire::send::Target::ToUser("eve".into())),
        client_msg_id: "again".into(),
        ..Default::default()
    }));
    let refresh =
        frame(Kind::RefreshToken(wire::RefreshToken { token: scene.gateway.token("mallory3") }));
    let mut crowd = Vec::new();
    for (n, flood) in [ping, refused, sent, refresh].iter().cycle().take(12).enumerate() {
        let mut raw = scene.connect_narrow_at(2).await;
        let (user, device) = (format!("mallory{}", n % 4), format!("phone{n}"));
        raw.enter(&scene.gateway.token(&user), &device).await;
        let flood = flood.repeat(1000);
        crowd.push(tokio::spawn(async move {
            while raw.send.write_all(&flood).await.is_ok() {}
            let code = raw.closed().await;
            // So many short answers find room that the frames are too many before.
            let is_short = n % 4 == 0 && code == number(Code::TooManyFrames);
            assert!(is_short || code == number(Code::SlowConsumer), "{n}: {code}");
        }));
    }
    for raw in crowd {
        raw.await.unwrap();
    }
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_told_what_was_left_out_and_finds_it_in_the_log() {
    let scene = Scene::start(Options::default()).await;
    let mut alice = scene.login("alice", "phone").await;
    let mut deaf = scene.connect_narrow().await;
    deaf.enter(&scene.gateway.token("bob"), "phone").await;
    let text = "x".repeat(20_000);
    let count = 300;
    for n in 1..=count {
        alice.message("bob", &format!("m{n}"), &text).await;
        assert_eq!(alice.ack().await.seq, n);
    }
    // It reads at last: some pushes, then what it missed, then nothing twice.
    let (mut pushed, mut behind) = (0, None);
    while behind.is_none() {
        match deaf.next().await.unwrap() {
            server_frame::Kind::Push(push) => {
                for message in push.messages {
                    assert_eq!(message.seq, pushed + 1);
                    pushed = message.seq;
                }
            }
            server_frame::Kind::Behind(told) => behind = Some(told.heads),
            other => panic!("{other:?}"),
        }
    }
    assert!(pushed < count, "nothing was left out");
    let head = wire::Cursor { conversation: conversation("alice", "bob"), seq: count };
    assert_eq!(behind, Some(vec![head]));
    let rest = deaf.pull("alice", pushed + 1, 0, false).await;
    let seqs: Vec<u64> = rest.iter().map(|message| message.seq).collect();
    assert_eq!(seqs, (pushed + 1..=count).collect::<Vec<_>>());
    // Live again.
    alice.message("bob", "live", "hi").await;
    alice.ack().await;
    assert_eq!(deaf.push().await.seq, count + 1);
    // Six megabytes were stored.
    scene.end(2 * SMALL).await;
}

/// Many who never read at all: each holds its outbox and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_never_reads_is_bounded_and_closed() {
    let options = Options::default().env("SKEIN_SESSION__SLOW_CONSUMER_TIMEOUT", "2s");
    let scene = Scene::start(options).await;
    let mut alice = scene.login("alice", "phone").await;
    let mut crowd = Vec::new();
    for n in 0..16 {
        let mut deaf = scene.connect_narrow().await;
        deaf.enter(&scene.gateway.token("bob"), &format!("phone{n}")).await;
        crowd.push(deaf);
    }
    let text = "x".repeat(30_000);
    for n in 1..=100 {
        alice.message("bob", &format!("m{n}"), &text).await;
        assert_eq!(alice.ack().await.seq, n);
    }
    for mut deaf in crowd {
        assert_eq!(deaf.closed().await, number(Code::SlowConsumer));
    }
    // Nobody is left on the list: a new device hears the next message, once.
    let mut fresh = scene.login("bob", "fresh").await;
    alice.message("bob", "m101", "hi").await;
    assert_eq!(alice.ack().await.seq, 101);
    assert_eq!(fresh.push().await.seq, 101);
    scene.end(2 * SMALL).await;
}

/// Together they hold less than each may: the bound of all outboxes. Who reads goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_never_reads_shares_one_bound() {
    const CROWD: usize = 16;
    const TEXT: usize = 10_000;
    const TOTAL: usize = 1 << 20;
    // What QUIC takes beside the outbox, and the one write that an empty outbox has room for.
    const BESIDE: usize = (128 << 10) + TEXT;
    let options = Options::default()
        .env("SKEIN_SHARDS", 1)
        .env("SKEIN_LIMITS__OUTBOX_TOTAL_BYTES", TOTAL)
        .env("SKEIN_LIMITS__OUTBOX_BYTES", 4 * TOTAL);
    let scene = Scene::start(options).await;
    let mut alice = scene.login("alice", "phone").await;
    let mut crowd = Vec::new();
    for n in 0..CROWD {
        let mut deaf = scene.connect_narrow().await;
        deaf.enter(&scene.gateway.token("bob"), &format!("phone{n}")).await;
        crowd.push(deaf);
    }
    let text = "x".repeat(TEXT);
    let count = 300;
    for n in 1..=count {
        alice.message("bob", &format!("m{n}"), &text).await;
        assert_eq!(alice.ack().await.seq, n);
    }
    // Whoever begins to read gets what was queued, hears what was left out, and is served again.
    let mut queued = 0;
    for (n, deaf) in crowd.iter_mut().enumerate() {
        loop {
            match deaf.next().await {
                Ok(server_frame::Kind::Push(_)) => queued += TEXT,
                Ok(server_frame::Kind::Behind(behind)) => {
                    assert_eq!(behind.heads[0].seq, count, "{n}");
                    break;
                }
                other => panic!("{n}: {other:?}"),
            }
        }
    }
    assert!(queued < TOTAL + CROWD * BESIDE, "{queued} bytes were queued");
    assert!(queued > TOTAL / 2, "{queued} bytes were queued");
    alice.message("bob", "last", "hi").await;
    alice.ack().await;
    for deaf in &mut crowd {
        assert_eq!(deaf.push().await.seq, count + 1);
    }
    scene.end(2 * SMALL).await;
}

/// History that is asked for and not read waits in the log, not in memory.
#[tokio::test(flavor = "multi_thread")]
async fn history_that_nobody_reads_is_not_read_ahead() {
    let options = Options::default().env("SKEIN_SESSION__SLOW_CONSUMER_TIMEOUT", "2s");
    let scene = Scene::start(options).await;
    let mut alice = scene.login("alice", "phone").await;
    let text = "x".repeat(50_000);
    for n in 1..=60 {
        alice.message("bob", &format!("m{n}"), &text).await;
        alice.ack().await;
    }
    let range = wire::Range {
        target: Some(wire::range::Target::WithUser("alice".into())),
        ..Default::default()
    };
    let request = frame(Kind::PullRequest(wire::PullRequest { ranges: vec![range; 256] }));
    let mut crowd = Vec::new();
    for n in 0..10 {
        let mut deaf = scene.connect_narrow().await;
        deaf.enter(&scene.gateway.token("bob"), &format!("phone{n}")).await;
        for _ in 0..2 {
            let (mut send, recv) = deaf.connection.open_bi().await.unwrap();
            send.write_all(&request).await.unwrap();
            send.finish().unwrap();
            std::mem::forget(recv);
        }
        crowd.push(deaf);
    }
    for mut deaf in crowd {
        assert_eq!(deaf.closed().await, number(Code::SlowConsumer));
    }
    scene.end(2 * SMALL).await;
}

/// Cursors of conversations that do not exist, as fast as they can be said and as many as a user may
/// say. Others may begin conversations meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn cursors_of_strange_conversations_keep_nobody_from_writing() {
    let scene = Scene::start(limits_for_strangers(Options::default())).await;
    let mut crowd = Vec::new();
    for n in 0..3 {
        let mut raw = scene.login_at(2, &format!("mallory{n}"), "phone").await;
        crowd.push(tokio::spawn(async move {
            for round in 0..19 {
                let cursors = (0..256)
                    .map(|_| wire::Cursor { conversation: strange_conversation(), seq: u64::MAX })
                    .collect();
                raw.say(match round % 2 {
                    0 => Kind::Delivered(wire::Delivered { cursors }),
                    _ => Kind::Read(wire::Read { cursors }),
                })
                .await;
            }
            raw.say(Kind::Ping(wire::Ping { nonce: 1 })).await;
            assert!(matches!(raw.next().await, Ok(server_frame::Kind::Pong(_))));
        }));
    }
    let mut honest = scene.login("carol", "phone").await;
    for n in 0..100 {
        honest.message(&format!("friend{n}"), "m1", "hello").await;
        match honest.next().await.unwrap() {
            server_frame::Kind::SendAck(ack) => assert_eq!(ack.seq, 1),
            other => panic!("{other:?}"),
        }
    }
    for raw in crowd {
        raw.await.unwrap();
    }
    scene.end(SMALL).await;
}

/// Large messages to ever new conversations, more than the lanes may hold.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_store_is_bounded() {
    let options = Options::default().env("SKEIN_LANES", 1).env("SKEIN_LIMITS__LANE_BYTES", "1MiB");
    let scene = Scene::start(options).await;
    let payload = bytes::Bytes::from(vec![b'x'; 16_000]);
    let mut crowd = Vec::new();
    for user in 0..4 {
        let mut raw = scene.login(&format!("mallory{user}"), "phone").await;
        let payload = payload.clone();
        crowd.push(tokio::spawn(async move {
            let mut burst = Vec::new();
            for n in 0..60 {
                burst.extend_from_slice(&frame(Kind::Send(wire::Send {
                    target: Some(wire::send::Target::ToUser(format!("friend{n}"))),
                    client_msg_id: "m1".into(),
                    payload: payload.clone(),
                    ..Default::default()
                })));
            }
            raw.say_bytes(&burst).await;
            let mut acked = 0;
            for _ in 0..60 {
                match raw.next().await.unwrap() {
                    server_frame::Kind::SendAck(_) => acked += 1,
                    server_frame::Kind::Error(error) => {
                        assert_eq!((error.code, error.retry), (Code::Overloaded.number(), true));
                    }
                    other => panic!("{other:?}"),
                }
            }
            acked
        }));
    }
    let mut acked = 0;
    for raw in crowd {
        acked += raw.await.unwrap();
    }
    assert!(acked > 0, "nothing was taken");
    scene.end(2 * SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_in_a_loop_leave_nothing_behind() {
    let scene = Scene::start(Options::default()).await;
    for n in 0..300 {
        let raw = scene.connect().await;
        match n % 3 {
            0 => raw.connection.close(0u32.into(), b""),
            1 => raw.connection.close(77u32.into(), &[0xff; 900]),
            _ => drop(raw),
        }
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    scene.end(SMALL).await;
}
