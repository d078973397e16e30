//! Attacks that want the gateway to send much, to somebody who has not asked, for little.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use rand::Rng;

use crate::relay::Relay;
use crate::scene::{SMALL, Scene, limits_for_strangers};
use crate::support::process::Options;
use crate::support::raw::{PATIENCE, endpoint};

/// Datagrams that begin connections, and whose answers get lost.
async fn hellos(scene: &Scene, relay: &Relay, count: usize) -> Vec<Vec<u8>> {
    let client = endpoint(&scene.gateway.data, skein_protocol::ALPN);
    let attempts: Vec<_> = (0..count)
        .map(|_| tokio::spawn(client.connect(relay.address, "localhost").unwrap()))
        .collect();
    let sent = async {
        while relay.seen().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, sent).await.unwrap();
    attempts.iter().for_each(tokio::task::JoinHandle::abort);
    relay.seen()
}

fn length(datagrams: &[Vec<u8>]) -> usize {
    datagrams.iter().map(Vec::len).sum()
}

/// RFC 9000 section 8.1: a handshake whose answers are never acknowledged, with all that is sent
/// again for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_in_the_name_of_another_brings_him_at_most_three_times_as_much() {
    let options = Options::default().env("SKEIN_SESSION__HELLO_TIMEOUT", "3s");
    let scene = Scene::start(options).await;
    let relay = Relay::start(scene.gateway.address, false).await;
    for _ in 0..4 {
        hellos(&scene, &relay, 50).await;
    }
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let (sent, answered) = (length(&relay.seen()), relay.answered());
    assert!(answered > 0, "nothing was answered");
    assert!(answered <= 3 * sent, "{sent} bytes were answered with {answered}");
    scene.end(SMALL).await;
}

/// One that is asked to prove its address gets less than it sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_demand_for_proof_is_smaller_than_what_asks_for_it() {
    let options = limits_for_strangers(Options::default());
    let scene = Scene::start(options.env("SKEIN_LIMITS__HANDSHAKES_PER_ADDRESS", "1/h burst 1"));
    let scene = scene.await;
    let victim = Ipv4Addr::new(127, 0, 0, 9);
    let relay = Relay::start_at(victim, scene.gateway.address, false).await;
    hellos(&scene, &relay, 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (sent, answered) = (length(&relay.seen()), relay.answered());
    // From here on each is answered with Retry.
    hellos(&scene, &relay, 300).await;
    let (sent, answered) = (length(&relay.seen()) - sent, relay.answered() - answered);
    assert!(answered <= sent / 2 + 3 * 1200, "{sent} bytes were answered with {answered}");
    scene.end(SMALL).await;
}

/// Sends each of these, and counts the bytes that come back.
fn answers_to(gateway: std::net::SocketAddr, datagrams: Vec<Vec<u8>>) -> (usize, usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let (mut sent, mut answered, mut buffer) = (0, 0, [0; 2048]);
    let mut hear = |socket: &UdpSocket| {
        while let Ok(len) = socket.recv(&mut buffer) {
            answered += len;
        }
    };
    for (n, datagram) in datagrams.iter().enumerate() {
        if socket.send_to(datagram, gateway).is_ok() {
            sent += datagram.len();
        }
        hear(&socket);
        if n % 64 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    std::thread::sleep(Duration::from_millis(200));
    hear(&socket);
    (sent, answered)
}

/// Versions that do not exist: the list of those that do is shorter than the question.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_versions_are_answered_with_less() {
    let scene = Scene::start(Options::default()).await;
    let gateway = scene.gateway.address;
    let question = |n: u32| {
        let mut datagram = vec![0; 1200];
        rand::rng().fill_bytes(&mut datagram);
        datagram[..6].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8]);
        datagram[6..10].copy_from_slice(&n.to_be_bytes());
        datagram[14] = 8;
        datagram
    };
    let flood = move || answers_to(gateway, (0..10_000).map(question).collect());
    let (sent, answered) = tokio::task::spawn_blocking(flood).await.unwrap();
    assert!(answered > 0 && answered * 10 < sent, "{sent} bytes were answered with {answered}");
    scene.end(SMALL).await;
}

/// Packets of connections that do not exist: resets are shorter, and so many in a second.
#[tokio::test(flavor = "multi_thread")]
async fn packets_of_unknown_connections_are_answered_with_less() {
    let scene = Scene::start(Options::default()).await;
    let gateway = scene.gateway.address;
    let stray = |n: usize| {
        let mut datagram = vec![0; 30 + n % 1200];
        rand::rng().fill_bytes(&mut datagram);
        datagram[0] = 0x40 | (datagram[0] & 0x3f);
        datagram
    };
    let flood = move || answers_to(gateway, (0..10_000).map(stray).collect());
    let (sent, answered) = tokio::task::spawn_blocking(flood).await.unwrap();
    assert!(answered < sent, "{sent} bytes were answered with {answered}");
    scene.end(SMALL).await;
}

/// The proof that one address has given is none for another.
#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_was_overheard_is_good_for_nobody_else() {
    let options = limits_for_strangers(Options::default());
    let scene = Scene::start(options.env("SKEIN_LIMITS__HANDSHAKES_PER_ADDRESS", "1/h burst 1"));
    let scene = scene.await;
    let victim = Ipv4Addr::new(127, 0, 0, 9);
    let relay = Relay::start_at(victim, scene.gateway.address, true).await;
    let client = endpoint(&scene.gateway.data, skein_protocol::ALPN);
    let first = client.connect(relay.address, "localhost").unwrap().await.unwrap();
    let before = relay.seen().len();
    // Its second connection shows a token of a Retry.
    let second = client.connect(relay.address, "localhost").unwrap().await.unwrap();
    let proofs: Vec<_> = relay.seen().split_off(before);
    let gateway = scene.gateway.address;
    let replay = move || {
        let thief = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 10), 0)).unwrap();
        thief.set_nonblocking(true).unwrap();
        let (mut sent, mut answered, mut buffer) = (0, 0, [0; 2048]);
        for _ in 0..200 {
            // A token of another address is no proof (RFC 9000 section 8.1.3).
            for proof in &proofs {
                sent += thief.send_to(proof, gateway).unwrap_or(0);
            }
            std::thread::sleep(Duration::from_millis(2));
            while let Ok(len) = thief.recv(&mut buffer) {
                answered += len;
            }
        }
        (sent, answered)
    };
    let (sent, answered) = tokio::task::spawn_blocking(replay).await.unwrap();
    assert!(answered <= 3 * sent, "{sent} bytes were answered with {answered}");
    for connection in [first, second] {
        assert!(connection.close_reason().is_none(), "{:?}", connection.close_reason());
    }
    scene.end(SMALL).await;
}
