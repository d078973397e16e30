//! Attacks with much of what is allowed, against the limits on how much and how often. Whoever keeps
//! to them is let through meanwhile: from another address, as another user, in another conversation.

use std::time::{Duration, Instant};

use skein_protocol::Code;
use skein_protocol::frame::encode;
use skein_protocol::wire::{self, client_frame::Kind, server_frame};

use crate::relay::Relay;
use crate::scene::{SMALL, Scene, conversation, limits_for_strangers, number};
use crate::support::process::{Options, token};
use crate::support::raw::{PATIENCE, Raw};

/// QUIC's CONNECTION_REFUSED, RFC 9000 section 20.1.
const CONNECTION_REFUSED: u64 = 0x2;

/// Addresses of this machine.
const MALLORY: u8 = 2;
const EVE: u8 = 3;

fn message(to: &str, id: &str, len: usize) -> Kind {
    Kind::Send(wire::Send {
        target: Some(wire::send::Target::ToUser(to.into())),
        client_msg_id: id.into(),
        payload: vec![b'x'; len].into(),
        ..Default::default()
    })
}

/// Says all of it at once and counts: acknowledged, and refused with this code.
async fn flood(raw: &mut Raw, frames: Vec<Kind>, code: Code) -> (usize, usize) {
    let count = frames.len();
    let (mut acked, mut refused) = (0, 0);
    // No more under way than a session may have: this is about another limit.
    for some in frames.chunks(32) {
        let burst: Vec<u8> = some
            .iter()
            .flat_map(|kind| encode(&wire::ClientFrame { kind: Some(kind.clone()) }))
            .collect();
        raw.say_bytes(&burst).await;
        for _ in some {
            match raw.next().await.unwrap() {
                server_frame::Kind::SendAck(_) => acked += 1,
                server_frame::Kind::Error(error) => {
                    assert_eq!((error.code, error.retry), (code.number(), true), "{error:?}");
                    assert!(error.retry_after_ms > 0 && !error.client_msg_id.is_empty());
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(acked + refused, count);
    (acked, refused)
}

/// A refused send is taken when the time that it was told has passed.
async fn refused_then_taken(raw: &mut Raw, to: &str, len: usize) {
    let send = message(to, "later", len);
    let begun = Instant::now();
    loop {
        raw.say(send.clone()).await;
        match raw.next().await.unwrap() {
            server_frame::Kind::SendAck(_) => return,
            server_frame::Kind::Error(error) => {
                let wait = Duration::from_millis(error.retry_after_ms.into());
                tokio::time::sleep(wait).await;
            }
            other => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "it is never taken");
    }
}

fn refusal_of(error: quinn::ConnectionError) -> u64 {
    match error {
        quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_of_one_address_are_refused_beyond_its_rate() {
    let scene = Scene::limited("SKEIN_LIMITS__HANDSHAKES_PER_ADDRESS", "1/min burst 20").await;
    let attacker = scene.endpoint_at(MALLORY);
    let (mut connected, mut refused) = (0, 0);
    for _ in 0..300 {
        match attacker.connect(scene.gateway.address, "localhost").unwrap().await {
            Ok(connection) => {
                connection.close(0u32.into(), b"");
                connected += 1;
            }
            Err(error) => {
                assert_eq!(refusal_of(error), CONNECTION_REFUSED);
                refused += 1;
            }
        }
    }
    // 20 at once, and 20 that have proven their address.
    assert!((40..45).contains(&connected), "{connected} and {refused}");
    scene.login_at(EVE, "eve", "phone").await;
    scene.end(SMALL).await;
}

/// Whoever sends in somebody else's name empties no bucket of his.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_in_the_name_of_another_do_not_keep_him_out() {
    let scene = Scene::limited("SKEIN_LIMITS__HANDSHAKES_PER_ADDRESS", "1/min burst 5").await;
    let victim = std::net::Ipv4Addr::new(127, 0, 0, EVE);
    let relay = Relay::start_at(victim, scene.gateway.address, false).await;
    let attacker = crate::support::raw::endpoint(&scene.gateway.data, skein_protocol::ALPN);
    let flood: Vec<_> = (0..200)
        .map(|_| tokio::spawn(attacker.connect(relay.address, "localhost").unwrap()))
        .collect();
    let arrived = async {
        while relay.seen().len() < flood.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.unwrap();
    for n in 0..3 {
        scene.login_at(EVE, "eve", &format!("phone{n}")).await;
    }
    flood.iter().for_each(tokio::task::JoinHandle::abort);
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_address_are_closed_beyond_their_number() {
    let scene = Scene::limited("SKEIN_LIMITS__CONNECTIONS_PER_ADDRESS", "20").await;
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(scene.connect_at(MALLORY).await);
    }
    for _ in 0..200 {
        let connecting = scene.endpoint_at(MALLORY).connect(scene.gateway.address, "localhost");
        let connection = connecting.unwrap().await.unwrap();
        let lost = crate::support::raw::lost(&connection).await;
        assert_eq!(crate::support::raw::close_code(&lost), number(Code::TooManyConnections));
    }
    scene.login_at(EVE, "eve", "phone").await;
    // Places that are left are free, each once.
    crowd.truncate(10);
    let begun = Instant::now();
    while crowd.len() < 20 {
        let endpoint = scene.endpoint_at(MALLORY);
        let connection = endpoint.connect(scene.gateway.address, "localhost").unwrap();
        let connection = connection.await.unwrap();
        let opened = tokio::time::timeout(Duration::from_millis(50), connection.closed()).await;
        if opened.is_err() {
            crowd.push(Raw::over(endpoint, connection).await);
        }
        assert!(begun.elapsed() < PATIENCE, "{} of 20 places", crowd.len());
    }
    scene.end(SMALL).await;
}

/// Frames that never end, from many connections at once: flow control bounds each, this bounds all.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_before_the_login_are_bounded_for_an_address() {
    let options = limits_for_strangers(Options::default())
        .env("SKEIN_LIMITS__LOGIN_BYTES_PER_ADDRESS", "1KiB/s burst 256KiB")
        .env("SKEIN_SESSION__HELLO_TIMEOUT", "5s");
    let scene = Scene::start(options).await;
    // The start of a Hello of 65,000 bytes.
    let mut start = vec![0xe8, 0xfb, 0x03, 0x0a];
    start.resize(60_000, b'x');
    let mut crowd = Vec::new();
    for _ in 0..40 {
        let mut raw = scene.connect_at(MALLORY).await;
        raw.say_bytes(&start).await;
        crowd.push(raw);
    }
    scene.login_at(EVE, "eve", "phone").await;
    let (mut closed, mut silent) = (0, 0);
    for raw in &mut crowd {
        match raw.closed().await {
            code if code == number(Code::TooManyLoginBytes) => closed += 1,
            code if code == number(Code::HelloTimeout) => silent += 1,
            other => panic!("{other}"),
        }
    }
    // As many as 256 KiB are enough for, and no more.
    assert!(closed >= 35, "{closed} closed, {silent} silent");
    scene.end(SMALL).await;
}

/// Tokens that are tried out: after a few of them none is looked at any more, and a wait begins.
#[tokio::test(flavor = "multi_thread")]
async fn guessing_tokens_shuts_the_address_out_for_a_while() {
    let scene = Scene::limited("SKEIN_LIMITS__FAILED_LOGINS_PER_ADDRESS", "1/h burst 10").await;
    let elsewhere = tempfile::tempdir().unwrap();
    skein_gateway::dev::DevFiles::of(elsewhere.path()).ensure_token_key().unwrap();
    let (hour, now) = (Duration::from_secs(3600), std::time::SystemTime::now());
    let forged = token(elsewhere.path(), "eve", None, hour, now);
    let mut codes = Vec::new();
    for n in 0..60 {
        let mut raw = scene.connect_at(MALLORY).await;
        raw.hello(if n % 2 == 0 { &forged } else { "a.b.c" }, "phone").await;
        codes.push(raw.closed().await);
    }
    // Ten are forgiven, the eleventh begins the wait.
    let (guessed, waiting) = codes.split_at(11);
    assert!(guessed.iter().all(|code| *code == number(Code::BadToken)), "{codes:?}");
    let shut = waiting.iter().filter(|code| **code == number(Code::TooManyFailedLogins)).count();
    // One more for each wait that was over meanwhile.
    assert!(shut >= 45, "{codes:?}");
    // Not even a good one, from there.
    let mut good = scene.connect_at(MALLORY).await;
    good.hello(&scene.gateway.token("eve"), "phone").await;
    let lost = crate::support::raw::lost(&good.connection).await;
    assert_eq!(crate::support::raw::close_code(&lost), number(Code::TooManyFailedLogins));
    let wait = crate::support::raw::close_delay(&lost).expect("it is told how long");
    scene.login_at(EVE, "eve", "phone").await;
    // It is over when it was said.
    assert!(wait < 2 * PATIENCE, "{wait:?}");
    tokio::time::sleep(wait).await;
    scene.login_at(MALLORY, "mallory", "phone").await;
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_user_are_refused_beyond_the_rate_on_all_devices_together() {
    let scene = Scene::limited("SKEIN_LIMITS__MESSAGES_PER_USER", "10/s burst 50").await;
    let (mut acked, begun) = (0, Instant::now());
    for device in 0..4 {
        let mut raw = scene.login_at(MALLORY, "mallory", &format!("phone{device}")).await;
        let sends = (0..400).map(|n| message(&format!("friend{n}"), &format!("d{device}m{n}"), 10));
        acked += flood(&mut raw, sends.collect(), Code::UserMessageRate).await.0;
        if device == 3 {
            refused_then_taken(&mut raw, "friend", 10).await;
        }
    }
    let most = 50 + 10 * (begun.elapsed().as_secs() as usize + 1);
    assert!((50..=most).contains(&acked), "{acked} of at most {most}");
    let mut eve = scene.login_at(MALLORY, "eve", "phone").await;
    assert_eq!(flood(&mut eve, vec![message("bob", "m1", 10)], Code::Internal).await, (1, 0));
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_a_user_are_refused_beyond_the_rate() {
    let scene =
        Scene::limited("SKEIN_LIMITS__MESSAGE_BYTES_PER_USER", "64KiB/s burst 512KiB").await;
    let mut raw = scene.login_at(MALLORY, "mallory", "phone").await;
    let begun = Instant::now();
    let sends = (0..200).map(|n| message("eve", &format!("m{n}"), 60_000)).collect();
    let (acked, refused) = flood(&mut raw, sends, Code::UserByteRate).await;
    let most = (512 + 64 * (begun.elapsed().as_secs() as usize + 1)) * 1024 / 60_000;
    assert!((8..=most).contains(&acked) && refused > 0, "{acked} of at most {most}");
    refused_then_taken(&mut raw, "eve", 60_000).await;
    scene.end(2 * SMALL).await;
}

/// Both write as fast as they can; the bucket is the conversation's. Somebody who is not in it cannot
/// empty it.
#[tokio::test(flavor = "multi_thread")]
async fn messages_to_a_conversation_are_refused_beyond_the_rate() {
    let scene = Scene::limited("SKEIN_LIMITS__MESSAGES_PER_CONVERSATION", "5/s burst 40").await;
    let mut alice = scene.login_at(MALLORY, "alice", "phone").await;
    alice.message("bob", "first", "hi").await;
    alice.ack().await;
    let mut stranger = scene.login_at(MALLORY, "mallory", "phone").await;
    let target = wire::send::Target::Conversation(conversation("alice", "bob"));
    let foreign = (0..500).map(|n| {
        Kind::Send(wire::Send {
            target: Some(target.clone()),
            client_msg_id: format!("m{n}"),
            ..Default::default()
        })
    });
    for kind in foreign {
        stranger.say(kind).await;
        assert_eq!(stranger.error().await.code, Code::UnknownConversation.number());
    }
    let begun = Instant::now();
    let sends = (0..200).map(|n| message("bob", &format!("a{n}"), 10)).collect();
    let (of_alice, refused) = flood(&mut alice, sends, Code::ConversationMessageRate).await;
    assert!(of_alice >= 39 && refused > 0, "{of_alice} taken, {refused} refused");
    // A repetition of what is there is answered whatever the rate.
    alice.message_again("bob", "first", "hi", Some(0)).await;
    assert_eq!(
        alice.next().await.map(|kind| match kind {
            server_frame::Kind::SendAck(ack) => ack.seq,
            other => panic!("{other:?}"),
        }),
        Ok(1)
    );
    let mut bob = scene.login_at(EVE, "bob", "phone").await;
    let sends = (0..100).map(|n| message("alice", &format!("b{n}"), 10)).collect();
    let (of_bob, _) = count_answers(&mut bob, sends).await;
    let most = 40 + 5 * (begun.elapsed().as_secs() as usize + 1);
    assert!(of_alice + of_bob <= most, "{of_alice} and {of_bob}, of at most {most}");
    // Another one has its own.
    alice.message("carol", "m1", "hi").await;
    assert_eq!(alice.ack().await.seq, 1);
    scene.end(SMALL).await;
}

/// The same as [`flood`] for one who is pushed to meanwhile.
async fn count_answers(raw: &mut Raw, frames: Vec<Kind>) -> (usize, usize) {
    let (mut acked, mut refused) = (0, 0);
    for kind in frames {
        raw.say(kind).await;
        let answer = raw.wait_for(|kind| match kind {
            server_frame::Kind::SendAck(_) => Some(true),
            server_frame::Kind::Error(_) => Some(false),
            _ => None,
        });
        match answer.await.unwrap() {
            true => acked += 1,
            false => refused += 1,
        }
    }
    (acked, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_to_a_conversation_are_refused_beyond_the_rate() {
    let limit = "SKEIN_LIMITS__MESSAGE_BYTES_PER_CONVERSATION";
    let scene = Scene::limited(limit, "64KiB/s burst 512KiB").await;
    let mut raw = scene.login_at(MALLORY, "mallory", "phone").await;
    let sends = (0..100).map(|n| message("eve", &format!("m{n}"), 60_000)).collect();
    let (acked, refused) = flood(&mut raw, sends, Code::ConversationByteRate).await;
    assert!(acked >= 8 && refused > 0, "{acked} taken, {refused} refused");
    refused_then_taken(&mut raw, "eve", 60_000).await;
    scene.end(2 * SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn syncs_of_a_user_are_refused_beyond_the_rate() {
    let scene = Scene::limited("SKEIN_LIMITS__SYNCS_PER_USER", "5/s burst 30").await;
    let raw = scene.login_at(MALLORY, "mallory", "phone").await;
    let heads = || Kind::HeadsRequest(wire::HeadsRequest::default());
    let (mut answered, mut refused, mut wait) = (0, 0, 0);
    for _ in 0..200 {
        match &raw.ask(heads()).await[..] {
            [server_frame::Kind::HeadsPage(_)] => answered += 1,
            [server_frame::Kind::Error(error)] => {
                assert_eq!((error.code, error.retry), (Code::SyncRate.number(), true));
                (refused, wait) = (refused + 1, error.retry_after_ms);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(answered >= 30 && refused > 0 && wait > 0, "{answered}, {refused}, {wait}");
    let eve = scene.login_at(MALLORY, "eve", "phone").await;
    assert!(matches!(&eve.ask(heads()).await[..], [server_frame::Kind::HeadsPage(_)]));
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_blocked_gets_no_answer() {
    let options = limits_for_strangers(Options::default());
    let scene = Scene::start(options.env("SKEIN_LIMITS__BLOCKED", "127.0.0.64/26")).await;
    let mut crowd = Vec::new();
    for last in 64..128 {
        let endpoint = scene.endpoint_at(last);
        let connecting = endpoint.connect(scene.gateway.address, "localhost").unwrap();
        crowd.push((endpoint, tokio::spawn(connecting.into_future())));
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for (_, connecting) in &crowd {
        assert!(!connecting.is_finished(), "it was answered");
        connecting.abort();
    }
    scene.login_at(63, "eve", "phone").await;
    scene.login_at(128, "eve", "tablet").await;
    scene.end(SMALL).await;
}

/// Every limit at its default, and a user who does what busy people do.
#[tokio::test(flavor = "multi_thread")]
async fn who_means_well_meets_no_limit() {
    let scene = Scene::start(limits_for_strangers(Options::default())).await;
    for round in 0..3 {
        let mut raw = scene.login_at(EVE, "eve", "phone").await;
        raw.ask(Kind::HeadsRequest(wire::HeadsRequest::default())).await;
        let sends = (0..100).map(|n| message(&format!("friend{n}"), &format!("r{round}m{n}"), 200));
        assert_eq!(flood(&mut raw, sends.collect(), Code::Internal).await, (100, 0));
        for n in 0..20 {
            raw.pull(&format!("friend{n}"), 1, 0, true).await;
        }
    }
    scene.end(SMALL).await;
}
