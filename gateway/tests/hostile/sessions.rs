//! Attacks on the life of sessions: too many, the same again and again, silent ones, ones that
//! outlive their token.

use std::time::{Duration, Instant, SystemTime};

use skein_protocol::Code;
use skein_protocol::wire::{self, client_frame, server_frame};

use crate::scene::{SMALL, Scene, number};
use crate::support::process::Options;
use crate::support::raw::Raw;

#[tokio::test(flavor = "multi_thread")]
async fn sessions_over_the_limit_are_told_so_and_a_place_that_is_left_is_free() {
    // The bystanders have two of them.
    let scene = Scene::start(Options::default().env("SKEIN_LIMITS__MAX_SESSIONS", 3)).await;
    for _ in 0..3 {
        let mut third = scene.login("mallory", "phone").await;
        for n in 0..10 {
            let mut over = scene.connect().await;
            over.hello(&scene.gateway.token(&format!("m{n}")), "phone").await;
            assert_eq!(over.closed().await, number(Code::TooManySessions));
        }
        third.say(client_frame::Kind::Bye(wire::Bye {})).await;
        assert_eq!(third.closed().await, number(Code::Ok));
    }
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_over_the_limit_are_told_so_and_a_place_that_is_left_is_free() {
    let scene = Scene::start(Options::default().env("SKEIN_LIMITS__MAX_DEVICES_PER_USER", 2)).await;
    let mut first = scene.login("mallory", "one").await;
    let _second = scene.login("mallory", "two").await;
    for _ in 0..10 {
        let mut over = scene.connect().await;
        over.hello(&scene.gateway.token("mallory"), "three").await;
        assert_eq!(over.closed().await, number(Code::TooManyDevices));
    }
    first.say(client_frame::Kind::Bye(wire::Bye {})).await;
    assert_eq!(first.closed().await, number(Code::Ok));
    scene.login("mallory", "three").await;
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_device_again_and_again_leaves_one_session_and_no_ghost() {
    let scene = Scene::start(Options::default().env("SKEIN_LIMITS__MAX_DEVICES_PER_USER", 1)).await;
    let mut older = scene.login("mallory", "phone").await;
    for _ in 0..50 {
        let newer = scene.login("mallory", "phone").await;
        assert_eq!(older.closed().await, number(Code::Replaced));
        older = newer;
    }
    // Many at once: all but one are closed again, and nobody is left who hears twice.
    let (gateway, data) = (scene.gateway.address, scene.gateway.data.clone());
    let token = scene.gateway.token("mallory");
    let crowd: Vec<_> = (0..30)
        .map(|_| {
            let (token, data) = (token.clone(), data.clone());
            tokio::spawn(async move {
                let mut raw = Raw::connect(gateway, &data).await;
                raw.hello(&token, "phone").await;
                raw
            })
        })
        .collect();
    let mut alive = vec![older];
    for raw in crowd {
        alive.push(raw.await.unwrap());
    }
    let mut friend = scene.login("eve", "phone").await;
    let mut heard = 0;
    while alive.len() > 1 {
        // Whoever was replaced knows soon; the one who was not is the last to be asked.
        let closed = alive.iter().position(|raw| raw.connection.close_reason().is_some());
        match closed {
            Some(place) => {
                assert_eq!(alive.swap_remove(place).closed().await, number(Code::Replaced));
            }
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    for n in 1..=3 {
        friend.message("mallory", &format!("m{n}"), "once").await;
        friend.ack().await;
        assert_eq!(alive[0].push().await.seq, n);
        heard += 1;
    }
    assert_eq!(heard, 3);
    // With one device allowed, a ghost would keep this one out.
    drop(alive);
    enter_when_free(&scene, "mallory", "tablet").await;
    scene.end(SMALL).await;
}

/// Logs in as soon as the place is free: a connection that its client gave up is found out soon.
async fn enter_when_free(scene: &Scene, user: &str, device: &str) -> Raw {
    let begun = Instant::now();
    loop {
        let mut raw = scene.connect().await;
        raw.hello(&scene.gateway.token(user), device).await;
        match raw.next().await {
            Ok(server_frame::Kind::Welcome(_)) => return raw,
            Err(code) if code == number(Code::TooManyDevices) => {}
            other => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < crate::support::raw::PATIENCE, "a ghost has the place");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_silent_are_evicted_and_leave_no_ghost() {
    let options = Options::default()
        .env("SKEIN_SESSION__HEARTBEAT_INTERVAL", "2s")
        .env("SKEIN_LIMITS__MAX_DEVICES_PER_USER", 1);
    let scene = Scene::start(options).await;
    let begun = Instant::now();
    let mut silent = scene.login("mallory", "phone").await;
    let mut half = scene.login("trudy", "phone").await;
    // Half a frame is no sign of life by the time it has been silent for so long.
    half.say_bytes(&[0xff, 0xff, 0x03, 0x22]).await;
    let mut alive = scene.login("eve", "phone").await;
    let pings = async {
        while silent.connection.close_reason().is_none() || half.connection.close_reason().is_none()
        {
            alive.say(client_frame::Kind::Ping(wire::Ping { nonce: 9 })).await;
            assert!(matches!(alive.next().await, Ok(server_frame::Kind::Pong(_))));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(crate::support::raw::PATIENCE, pings).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(3), "evicted before one and a half intervals");
    assert_eq!(silent.closed().await, number(Code::HeartbeatTimeout));
    assert_eq!(half.closed().await, number(Code::HeartbeatTimeout));
    alive.message("mallory", "m1", "still there?").await;
    assert_eq!(alive.ack().await.seq, 1);
    assert_eq!(silent.next().await, Err(number(Code::HeartbeatTimeout)));
    // At once, without waiting: the places are free.
    scene.login("mallory", "tablet").await;
    scene.login("trudy", "tablet").await;
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_token_unless_that_is_refreshed() {
    let scene = Scene::start(Options::default().env("SKEIN_AUTH__LEEWAY", "0s")).await;
    let two = || Duration::from_secs(3);
    let short = |user| scene.gateway.token_with(user, two(), SystemTime::now());
    let (gateway, data) = (scene.gateway.address, &scene.gateway.data);
    let mut ends = Raw::login(gateway, data, &short("mallory"), "ends").await;
    let mut lives = Raw::login(gateway, data, &short("mallory"), "lives").await;
    let refresh = |token| client_frame::Kind::RefreshToken(wire::RefreshToken { token });
    lives.say(refresh(scene.gateway.token("mallory"))).await;
    let refreshed = lives.next().await.unwrap();
    assert!(matches!(refreshed, server_frame::Kind::TokenRefreshed(_)), "{refreshed:?}");

    let now = SystemTime::now();
    let past = scene.gateway.token_with("mallory", two(), now - Duration::from_secs(60));
    let device = crate::support::process::token(data, "mallory", Some("other"), two() * 9, now);
    let cases = [
        (scene.gateway.token("anna"), Code::BadToken),
        ("garbage".into(), Code::BadToken),
        (String::new(), Code::BadToken),
        ("x".repeat(9 << 10), Code::BadToken),
        (past, Code::TokenExpired),
        (device, Code::DeviceMismatch),
    ];
    for (token, code) in cases {
        let mut raw = scene.login("mallory", "phone").await;
        raw.say(refresh(token)).await;
        assert_eq!(raw.closed().await, number(code));
    }

    assert_eq!(ends.closed().await, number(Code::TokenExpired));
    lives.message("eve", "m1", "still here").await;
    assert_eq!(lives.ack().await.seq, 1);
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_addresses_and_new_keys_in_a_loop_cost_nothing() {
    let scene = Scene::start(Options::default()).await;
    let mut raw = scene.login("mallory", "phone").await;
    for n in 1..=200 {
        if n % 2 == 0 {
            raw.connection.force_key_update();
        } else {
            raw.endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        }
        raw.message("eve", &format!("m{n}"), "moving").await;
        assert_eq!(raw.ack().await.seq, n);
    }
    scene.end(SMALL).await;
}
