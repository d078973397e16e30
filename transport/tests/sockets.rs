//! Engines on real sockets: several shards, steering, moving clients, restarts, stopping.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    net::UdpSocket,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use skein_transport::*;
use support::*;

/// Many clients, each with its own address; everybody is answered, on the shard it belongs to.
fn many_clients(kernel_steering: bool) -> ShardStats {
    let trust = Trust::new();
    let mut config = trust.server("127.0.0.1:0", &Keys::random());
    config.shards = 4;
    config.kernel_steering = kernel_steering;
    let server = Party::start(config, true);
    let mut config = trust.client(ALPN);
    config.shards = 6;
    let client = Party::start(config, false);
    for round in 0..10 {
        for shard in 0..6 {
            let conn = client.connect(shard, server.address());
            assert_eq!(client.wait_connected(), conn, "round {round}");
            let stream = client.on(shard, move |io| io.open_bi(conn)).unwrap();
            assert_eq!(client.ask(conn, stream, "hello"), "hello");
        }
    }
    let per_shard: Vec<u64> = server.engine.stats().iter().map(|s| s.connected).collect();
    assert_eq!(per_shard.iter().sum::<u64>(), 60);
    if cfg!(target_os = "linux") {
        assert!(per_shard.iter().filter(|n| **n > 0).count() > 1, "{per_shard:?}");
    }
    let total = server.total();
    client.engine.stop(0, b"", PATIENCE).unwrap();
    server.engine.stop(0, b"", PATIENCE).unwrap();
    total
}

#[test]
fn the_kernel_brings_every_datagram_to_its_shard() {
    let stats = many_clients(true);
    assert_eq!((stats.handed_over, stats.hand_over_dropped), (0, 0));
}

#[test]
fn without_the_kernel_shards_hand_datagrams_over() {
    let stats = many_clients(false);
    assert!(stats.handed_over > 0 || !cfg!(target_os = "linux"));
    assert_eq!(stats.hand_over_dropped, 0);
}

#[test]
fn a_client_that_moves_keeps_its_connection_and_shard() {
    for kernel_steering in [true, false] {
        let trust = Trust::new();
        let mut config = trust.server("127.0.0.1:0", &Keys::random());
        config.shards = 4;
        config.kernel_steering = kernel_steering;
        let server = Party::start(config, true);
        let client = Party::start(trust.client(ALPN), false);
        let relay = Relay::new(server.address());
        let conn = client.connect(0, relay.address);
        client.wait_connected();
        let served = server.wait_connected();
        let stream = client.on(0, move |io| io.open_bi(conn)).unwrap();
        for _ in 0..10 {
            assert_eq!(client.ask(conn, stream, "still me"), "still me");
            relay.move_client();
        }
        assert_eq!(client.ask(conn, stream, "still me"), "still me");
        let remote = server.on(served.shard(), move |io| io.remote_address(served));
        assert_eq!(remote, Some(relay.seen_as()));
        let stats = server.total();
        assert_eq!((stats.connected, stats.closed, stats.connections), (1, 0, 1));
        assert_eq!(stats.handed_over == 0, kernel_steering || !cfg!(target_os = "linux"));
    }
}

/// A client learns at once that its gateway restarted, if the new one has the old one's keys.
#[test]
fn a_restart_with_the_same_keys_is_noticed_at_once() {
    let trust = Trust::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("transport.key");
    let start = |listen: &str| {
        let mut config = trust.server(listen, &Keys::load_or_create(&path).unwrap());
        config.shards = 2;
        Party::start(config, true)
    };
    let server = start("127.0.0.1:0");
    let address = server.address();
    let relay = Relay::new(address);
    let client = Party::start(trust.client(ALPN), false);
    let conn = client.connect(0, relay.address);
    client.wait_connected();
    let stream = client.on(0, move |io| io.open_bi(conn)).unwrap();
    assert_eq!(client.ask(conn, stream, "one"), "one");

    // The client hears nothing of the end, as if the process had been killed.
    relay.silent.store(true, Ordering::Relaxed);
    server.engine.stop(0, b"", PATIENCE).unwrap();
    let server = start(&address.to_string());
    relay.silent.store(false, Ordering::Relaxed);

    let asked = Instant::now();
    client.on(0, move |io| io.write(conn, stream, "two".into())).unwrap();
    assert_eq!(client.wait_closed(conn), CloseReason::Reset);
    // Its idle timeout is 75 s.
    assert!(asked.elapsed() < Duration::from_secs(15));
    assert_eq!(server.total().responses, 1);

    let again = client.connect(0, relay.address);
    assert_eq!(client.wait_connected(), again);
}

#[test]
fn stop_tells_every_client_and_ends_in_time() {
    let trust = Trust::new();
    let mut config = trust.server("127.0.0.1:0", &Keys::random());
    config.shards = 2;
    let server = Party::start(config, true);
    let client = Party::start(trust.client(ALPN), false);
    let conns: Vec<ConnId> = (0..50).map(|_| client.connect(0, server.address())).collect();
    for _ in &conns {
        client.wait_connected();
        server.wait_connected();
    }
    let begun = Instant::now();
    server.engine.stop(77, b"restarting", Duration::from_secs(10)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    let mut told = 0;
    while let Ok(heard) = server.heard.try_recv() {
        told += usize::from(matches!(heard, Heard::Closed(_, CloseReason::Stopped)));
    }
    assert_eq!(told, 50);
    for conn in conns {
        let reason = CloseReason::Peer { code: 77, reason: "restarting".into() };
        let heard = client.on(0, move |io| io.is_alive(conn));
        if heard {
            assert_eq!(client.wait_closed(conn), reason);
        }
    }
}

#[test]
fn a_driver_can_stop_its_shard() {
    let trust = Trust::new();
    let server = Party::start(trust.server("127.0.0.1:0", &Keys::random()), true);
    for mailbox in server.engine.mailboxes() {
        assert!(mailbox.send(Box::new(|io| io.stop())).is_ok());
    }
    let end = Instant::now() + PATIENCE;
    while server.heard.recv_timeout(Duration::from_millis(1)).is_ok() || !ended(&server.engine) {
        assert!(Instant::now() < end);
    }
}

fn ended(engine: &Engine<Action>) -> bool {
    !engine.is_running()
}

#[test]
fn a_second_engine_cannot_join_the_port() {
    let trust = Trust::new();
    let server = Party::start(trust.server("127.0.0.1:0", &Keys::random()), true);
    let mut config = trust.server("127.0.0.1:0", &Keys::random());
    config.listen = server.engine.local_addr();
    let error = Engine::<Action>::bind(config).err().unwrap();
    assert!(
        matches!(&error, StartError::Bind { source, .. }
            if source.kind() == std::io::ErrorKind::AddrInUse),
        "{error}"
    );
}

#[test]
fn another_protocol_is_refused_by_name() {
    let trust = Trust::new();
    let server = Party::start(trust.server("127.0.0.1:0", &Keys::random()), true);
    let client = Party::start(trust.client(b"other/9"), false);
    let conn = client.connect(0, server.address());
    match client.wait_closed(conn) {
        // 0x100 + alert 120, no_application_protocol (RFC 9001 section 8.1).
        CloseReason::Transport { code: 0x178, from_peer: true, .. } => {}
        other => panic!("{other:?}"),
    }
    assert!(server.heard.try_recv().is_err(), "the driver never heard of it");
}

#[test]
fn an_unknown_certificate_is_refused() {
    let server = Party::start(Trust::new().server("127.0.0.1:0", &Keys::random()), true);
    let client = Party::start(Trust::new().client(ALPN), false);
    let conn = client.connect(0, server.address());
    assert!(matches!(client.wait_closed(conn), CloseReason::Transport { from_peer: false, .. }));
}

#[test]
fn an_unknown_version_is_told_ours() {
    let trust = Trust::new();
    let server = Party::start(trust.server("127.0.0.1:0", &Keys::random()), true);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // RFC 8999 section 5.1: flags, version, destination id, source id.
    let mut hello = vec![0xc0, 0xfa, 0xce, 0xb0, 0x0c, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 9];
    hello.resize(1200, 0);
    socket.send_to(&hello, server.address()).unwrap();
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).unwrap();
    let answer = &buffer[..length];
    assert_eq!(answer[1..5], [0; 4], "version negotiation");
    assert_eq!(answer[5..16], [1, 9, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(answer[16..].chunks(4).any(|version| version == [0, 0, 0, 1]));
    // A short datagram gets no longer answer.
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket.send_to(&hello[..100], server.address()).unwrap();
    assert!(socket.recv(&mut buffer).is_err());
}

/// However often a client asks for streams, it has as many as the limit says, and what it left
/// behind is gone.
#[test]
fn a_flood_of_streams_meets_the_limit() {
    let trust = Trust::new();
    let mut config = trust.server("127.0.0.1:0", &Keys::random());
    config.quic.max_uni_streams = 2;
    let server = Party::start(config, false);
    let client = Party::start(trust.client(ALPN), false);
    let conn = client.connect(0, server.address());
    client.wait_connected();
    let opened = client.on(0, move |io| (0..1_000_000).filter_map(|_| io.open_bi(conn)).count());
    assert_eq!(opened, 3);
    // Opening and abandoning goes on for as long as the peer likes, at its own pace.
    let mut abandoned = 0;
    let end = Instant::now() + PATIENCE;
    while abandoned < 300 && Instant::now() < end {
        abandoned += client.on(0, move |io| {
            let mut count = 0;
            while let Some(stream) = io.open_uni(conn) {
                let _ = io.write(conn, stream, "x".into());
                io.reset(conn, stream, VarInt::from_u32(1));
                count += 1;
            }
            count
        });
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(abandoned >= 300);
    assert_eq!(server.total().connections, 1);
}

/// While rubbish comes in, others are served.
#[test]
fn rubbish_does_not_disturb_others() {
    let trust = Trust::new();
    let mut config = trust.server("127.0.0.1:0", &Keys::random());
    config.shards = 2;
    let server = Party::start(config, true);
    let client = Party::start(trust.client(ALPN), false);
    let conn = client.connect(0, server.address());
    client.wait_connected();
    let stream = client.on(0, move |io| io.open_bi(conn)).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 0..2000u32 {
        let mut datagram = vec![round as u8; (round as usize * 7) % 1300 + 1];
        datagram[0] = (round % 256) as u8;
        if datagram.len() > 5 && round % 2 == 0 {
            datagram[1..5].copy_from_slice(&1u32.to_be_bytes());
            datagram[5] = 8;
        }
        let _ = socket.send_to(&datagram, server.address());
        if round % 100 == 0 {
            assert_eq!(client.ask(conn, stream, "fine?"), "fine?");
        }
    }
    let stats = server.total();
    assert!(stats.datagrams_in > 1000);
    assert_eq!((stats.closed, stats.connected), (0, 1));
}

#[test]
fn mail_is_taken_in_order_and_bounded() {
    let trust = Trust::new();
    let mut config = trust.server("127.0.0.1:0", &Keys::random());
    config.shards = 1;
    config.limits.mailbox = 100;
    let server = Party::start(config, true);
    let mailbox = server.engine.mailboxes().remove(0);
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let (done, finished) = std::sync::mpsc::channel();
    assert!(mailbox.send(Box::new(move |_| held.recv().unwrap())).is_ok());
    while !mailbox.is_empty() {
        std::thread::yield_now();
    }
    let actions = (0..150).map(|i| -> Action {
        let done = done.clone();
        Box::new(move |_| done.send(i).unwrap())
    });
    let Err(MailboxFull(rest)) = mailbox.send_all(actions) else { panic!("it is not full") };
    assert_eq!(rest.len(), 50);
    hold.send(()).unwrap();
    let got: Vec<i32> = (0..100).map(|_| finished.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(got, (0..100).collect::<Vec<_>>());
    assert_eq!(server.total().mailbox_full, 50);
}

/// Whoever comes after a change meets the new certificate and the new limits; whoever is there stays.
#[test]
fn certificate_and_limits_change_under_running_connections() {
    let (old, new) = (Trust::new(), Trust::new());
    let keys = Keys::random();
    let mut config = old.server("127.0.0.1:0", &keys);
    config.shards = 2;
    let server = Party::start(config, true);
    let control = server.engine.control();
    let before = Party::start(old.client(ALPN), false);
    let conn = before.connect(0, server.address());
    before.wait_connected();
    let stream = before.on(0, move |io| io.open_bi(conn)).unwrap();
    assert_eq!(before.ask(conn, stream, "one"), "one");

    control.change(&new.server("127.0.0.1:0", &keys)).unwrap();
    let after = Party::start(new.client(ALPN), false);
    let second = after.connect(0, server.address());
    assert_eq!(after.wait_connected(), second);
    let stranger = Party::start(old.client(ALPN), false);
    let refused = stranger.connect(0, server.address());
    assert!(matches!(stranger.wait_closed(refused), CloseReason::Transport { .. }));
    assert_eq!(before.ask(conn, stream, "two"), "two");

    let mut full = new.server("127.0.0.1:0", &keys);
    full.limits.max_connections = 0;
    control.change(&full).unwrap();
    let refused = after.connect(0, server.address());
    assert!(matches!(after.wait_closed(refused), CloseReason::Transport { code: 2, .. }));
    assert_eq!(before.ask(conn, stream, "three"), "three");
    assert_eq!(server.total().refused, 1);
}
