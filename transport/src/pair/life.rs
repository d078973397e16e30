//! The life of a connection: how it ends, its timers, its keys, its address, its slot.

use super::*;

#[test]
fn close_is_told_to_the_peer_with_code_and_words() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let served = pair.server.probe.connected()[0];
    pair.server.act(|io| io.close(served, VarInt::from_u32(42), b"go away"));
    assert!(!pair.server.act(|io| io.is_alive(served)));
    pair.run(Duration::from_secs(5));
    let reason = CloseReason::Peer { code: 42, reason: Bytes::from_static(b"go away") };
    assert_eq!(pair.client.probe.closed(conn), Some(&reason));
    assert_eq!(pair.server.probe.closed(served), Some(&CloseReason::Local));
}

#[test]
fn an_idle_connection_times_out_on_both_sides() {
    let mut pair = Pair::new(Weather::default(), 1, |config| {
        config.quic.idle_timeout = Some(Duration::from_secs(20));
    });
    let conn = pair.connect();
    pair.run(Duration::from_secs(15));
    assert!(pair.client.act(|io| io.is_alive(conn)));
    pair.run(Duration::from_secs(10));
    let served = pair.server.probe.connected()[0];
    assert_eq!(pair.client.probe.closed(conn), Some(&CloseReason::TimedOut));
    assert_eq!(pair.server.probe.closed(served), Some(&CloseReason::TimedOut));
}

#[test]
fn timers_fire_once_and_can_be_moved_and_cleared() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let timers = |pair: &Pair| pair.client.probe.count(conn, |h| *h == Heard::Timer);
    let in_ms = |pair: &mut Pair, ms| {
        let at = pair.now + Duration::from_millis(ms);
        pair.client.act(|io| io.set_timer(conn, Some(at)));
    };
    in_ms(&mut pair, 500);
    pair.run(Duration::from_millis(499));
    assert_eq!(timers(&pair), 0);
    pair.run(Duration::from_millis(2));
    assert_eq!(timers(&pair), 1);
    in_ms(&mut pair, 100);
    in_ms(&mut pair, 900);
    pair.run(Duration::from_millis(800));
    assert_eq!(timers(&pair), 1, "moved to later");
    in_ms(&mut pair, 10);
    pair.run(Duration::from_millis(20));
    assert_eq!(timers(&pair), 2, "moved to earlier");
    in_ms(&mut pair, 10);
    pair.client.act(|io| io.set_timer(conn, None));
    pair.run(Duration::from_secs(2));
    assert_eq!(timers(&pair), 2, "cleared");
    // A time that has passed already comes up at once, and does not hold the turn.
    in_ms(&mut pair, 0);
    pair.run(Duration::from_millis(1));
    assert_eq!(timers(&pair), 3);
}

#[test]
fn a_changed_address_keeps_the_connection() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    pair.server.probe.echo = true;
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let stream = pair.client.act(|io| io.open_bi(conn)).unwrap();
    let served = pair.server.probe.connected()[0];
    for port in 6000..6006 {
        pair.client_seen_as.set_port(port);
        pair.client.act(|io| io.write(conn, stream, Bytes::from_static(b"x"))).unwrap();
        pair.run(Duration::from_secs(3));
        let remote = pair.server.act(|io| io.remote_address(served));
        assert_eq!(remote, Some(pair.client_seen_as));
    }
    assert_eq!(pair.client.probe.received[&(conn, stream)], b"xxxxxx");
}

#[test]
fn keys_change_many_times() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    pair.server.probe.echo = true;
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let stream = pair.client.act(|io| io.open_bi(conn)).unwrap();
    let served = pair.server.probe.connected()[0];
    for round in 0..12 {
        // Each side in turn, and both at once.
        if round % 3 != 0 {
            pair.client.core.alive(conn).unwrap().quic.force_key_update();
        }
        if round % 3 != 1 {
            pair.server.core.alive(served).unwrap().quic.force_key_update();
        }
        pair.client.act(|io| io.write(conn, stream, Bytes::from_static(b"k"))).unwrap();
        pair.run(Duration::from_secs(2));
        assert_eq!(pair.client.probe.received[&(conn, stream)].len(), round + 1);
    }
}

#[test]
fn a_session_is_resumed_with_a_ticket() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    let received = |pair: &mut Pair| {
        let conn = pair.connect();
        pair.run(Duration::from_secs(1));
        pair.client.act(|io| io.stats(conn)).unwrap().bytes_received
    };
    let (first, second) = (received(&mut pair), received(&mut pair));
    // A resumed handshake has no certificate and no signature in it.
    assert!(second + 1000 < first, "{first} bytes, then {second}");
}

/// A connection with a configuration of its own resumes with the ticket that is in it, and nobody
/// else does.
#[test]
fn a_ticket_can_be_kept_apart() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    let to = pair.server.address;
    let own = |shared: &ClientTls| {
        let mut config = (*shared.config).clone();
        config.resumption = rustls::client::Resumption::in_memory_sessions(1);
        ClientTls::new(config)
    };
    let tls = [own(&pair.tls), own(&pair.tls)];
    let mut resumed = Vec::new();
    for of in [0, 1, 1, 0, 0] {
        let tls = tls[of].clone();
        pair.client.act(|io| io.connect_with(to, "localhost", &tls)).unwrap();
        pair.run(Duration::from_secs(1));
        resumed.extend(pair.client.probe.resumed.pop());
    }
    assert_eq!(resumed, [false, false, true, true, true]);
}

#[test]
fn slots_are_used_again_with_another_generation() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let conn = pair.connect();
        pair.run(Duration::from_secs(1));
        assert!(seen.insert(conn), "{conn} came twice");
        assert!(conn.slot() < 2);
        pair.client.act(|io| io.close(conn, VarInt::from_u32(0), b""));
        pair.run(Duration::from_secs(10));
        for old in &seen {
            assert!(!pair.client.act(|io| io.is_alive(*old)));
        }
    }
    assert_eq!(pair.client.probe.heard.len(), 40);
    assert_eq!(pair.server.probe.heard.len(), 40);
}
