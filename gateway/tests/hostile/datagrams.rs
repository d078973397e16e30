//! Attacks below the connection: datagrams that no honest endpoint sends, handshakes that go
//! nowhere.

use std::net::UdpSocket;
use std::time::Duration;

use rand::{Rng, RngExt};
use skein_protocol::wire::server_frame;

use crate::relay::Relay;
use crate::scene::{SMALL, Scene};
use crate::support::process::Options;
use crate::support::raw::{PATIENCE, Raw, endpoint};

/// TLS alert 120, no_application_protocol, as RFC 9001 section 4.8 carries it.
const NO_APPLICATION_PROTOCOL: u64 = 0x178;

/// Nonsense that gets further and further into the gateway before it is found out.
fn nonsense(kind: usize) -> Vec<u8> {
    let mut rng = rand::rng();
    let mut datagram = vec![0; rng.random_range(0..1500)];
    rng.fill_bytes(&mut datagram);
    let mut start = |bytes: &[u8]| {
        let len = bytes.len().min(datagram.len());
        datagram[..len].copy_from_slice(&bytes[..len]);
    };
    match kind % 8 {
        0 => {}
        1 => return Vec::new(),
        // A short header with a connection id of an unlikely shard.
        2 => start(&[0x40, 0xff, 0xff]),
        // Version 0, a version from the future, a reserved one.
        3 => start(&[0xc0, 0, 0, 0, 0, 8]),
        4 => start(&[0xc0, 0x6b, 0x33, 0x43, 0xcf, 8]),
        5 => start(&[0xc0, 0x0a, 0x0a, 0x0a, 0x0a, 20]),
        // Version 1: an Initial, and one with a token of ours, as it seems.
        6 => start(&[0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0]),
        // Connection ids that are too long.
        _ => start(&[0xd0, 0, 0, 0, 1, 0xff]),
    }
    datagram
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_dropped() {
    let scene = Scene::start(Options::default()).await;
    let gateway = scene.gateway.address;
    let flood = move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let (mut sent, mut answered, mut buffer) = (0, 0, [0; 2048]);
        for kind in 0..8_000 {
            let datagram = nonsense(kind);
            if socket.send_to(&datagram, gateway).is_ok() {
                sent += datagram.len();
            }
            while let Ok(len) = socket.recv(&mut buffer) {
                answered += len;
            }
            if kind % 64 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(answered <= sent, "{sent} bytes were answered with {answered}");
    };
    for flooded in [flood, flood].map(tokio::task::spawn_blocking) {
        flooded.await.unwrap();
    }
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_or_none_is_refused_by_tls() {
    let scene = Scene::start(Options::default()).await;
    let data = &scene.gateway.data;
    let mut endpoints: Vec<_> =
        [&b"h3"[..], b"skein/2", b"skein", b"\xff"].map(|alpn| endpoint(data, alpn)).into();
    let none = crate::support::raw::tls(data, &[]);
    let none = quinn::crypto::rustls::QuicClientConfig::try_from(none).unwrap();
    endpoints.push(crate::support::raw::endpoint_with(
        std::sync::Arc::new(none),
        quinn::TransportConfig::default(),
    ));
    for endpoint in endpoints {
        let refused = endpoint.connect(scene.gateway.address, "localhost").unwrap().await;
        match refused.unwrap_err() {
            quinn::ConnectionError::ConnectionClosed(close) => {
                assert_eq!(u64::from(close.error_code), NO_APPLICATION_PROTOCOL);
            }
            other => panic!("{other}"),
        }
    }
    scene.end(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_cut_and_altered_datagrams_change_nothing() {
    let scene = Scene::start(Options::default()).await;
    let relay = Relay::start(scene.gateway.address, true).await;
    let token = scene.gateway.token("mallory");
    let mut raw = Raw::login(relay.address, &scene.gateway.data, &token, "phone").await;
    for n in 1..=20 {
        raw.message("eve", &format!("m{n}"), "once").await;
        assert_eq!(raw.ack().await.seq, n);
    }
    let strange = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    strange.connect(scene.gateway.address).await.unwrap();
    for _ in 0..10 {
        for datagram in relay.seen() {
            for altered in variants(&datagram) {
                // From the client's address, and from another.
                relay.outer.send(&altered).await.unwrap();
                strange.send(&altered).await.unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    raw.message("eve", "m21", "once").await;
    assert_eq!(raw.ack().await.seq, 21);
    let all = raw.pull("eve", 1, 0, false).await;
    assert_eq!(all.iter().map(|m| m.seq).collect::<Vec<_>>(), (1..=21).collect::<Vec<_>>());
    scene.end(SMALL).await;
}

fn variants(datagram: &[u8]) -> Vec<Vec<u8>> {
    let mut rng = rand::rng();
    let mut all = vec![datagram.to_vec(), datagram[..rng.random_range(0..datagram.len())].to_vec()];
    for _ in 0..4 {
        let mut flipped = datagram.to_vec();
        // Half of them in the header, where nothing is authenticated yet.
        let within = if rng.random() { datagram.len().min(32) } else { datagram.len() };
        flipped[rng.random_range(0..within)] ^= 1 << rng.random_range(0..8);
        all.push(flipped);
    }
    let mut longer = datagram.to_vec();
    longer.extend_from_slice(datagram);
    all.push(longer);
    all
}

/// Initial packets only, as from addresses that are not the sender's own: the answers get lost.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_go_nowhere_keep_nobody_out() {
    let options = Options::default()
        .env("SKEIN_LIMITS__MAX_HANDSHAKES", 64)
        .env("SKEIN_SESSION__HELLO_TIMEOUT", "3s");
    let scene = Scene::start(options).await;
    let relay = Relay::start(scene.gateway.address, false).await;
    let attacker = endpoint(&scene.gateway.data, skein_protocol::ALPN);
    let flood: Vec<_> = (0..500)
        .map(|_| tokio::spawn(attacker.connect(relay.address, "localhost").unwrap()))
        .collect();
    let arrived = async {
        while relay.seen().len() < flood.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.unwrap();
    for n in 0..10 {
        let mut honest = scene.login("mallory", &format!("phone{n}")).await;
        honest.message("eve", "m1", "hello").await;
        let ack = honest.next().await.unwrap();
        assert!(matches!(ack, server_frame::Kind::SendAck(_)), "{ack:?}");
    }
    flood.iter().for_each(tokio::task::JoinHandle::abort);
    scene.end(SMALL).await;
}
