//! What a hostile peer can do is bounded, and others do not notice.

use super::*;

#[test]
fn half_a_handshake_is_given_up() {
    let mut pair = Pair::new(Weather::default(), 1, |config| {
        config.quic.idle_timeout = Some(Duration::from_secs(300));
    });
    let conn = pair.connect();
    // The Initial arrives, and then the client is silent.
    pair.turn();
    pair.now += DELAY;
    pair.weather.loss = 100;
    pair.turn();
    assert_eq!(pair.server.core.counters().read().handshaking, 1);
    pair.run(Duration::from_secs(30));
    assert_eq!(pair.server.core.counters().read().handshaking, 0);
    assert_eq!(pair.server.core.counters().read().connections, 0);
    assert_eq!(pair.server.probe.heard, [], "nobody came");
    assert_eq!(pair.client.probe.closed(conn), Some(&CloseReason::TimedOut));
    assert_eq!(pair.client.probe.heard.len(), 1);
}

#[test]
fn limits_refuse_and_count() {
    let mut pair = Pair::new(Weather::default(), 1, |config| config.limits.max_connections = 3);
    let conns: Vec<ConnId> = (0..3).map(|_| pair.connect()).collect();
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.client.probe.connected(), conns);
    let to = pair.server.address;
    let too_many = pair.client.act(|io| io.connect(to, "localhost"));
    assert_eq!(too_many, Err(crate::ConnectError::TooMany));
    pair.client.core.limits_mut().max_connections = 100;
    let fourth = pair.connect();
    pair.run(Duration::from_secs(1));
    // RFC 9000 section 20.1: CONNECTION_REFUSED is 2.
    let refused = |reason: Option<&CloseReason>| {
        matches!(reason, Some(CloseReason::Transport { code: 2, from_peer: true, .. }))
    };
    assert!(refused(pair.client.probe.closed(fourth)));
    assert_eq!(pair.server.core.counters().read().refused, 1);
    // One leaves, and there is room.
    pair.client.act(|io| io.close(conns[0], VarInt::from_u32(0), b""));
    pair.run(Duration::from_secs(5));
    let fifth = pair.connect();
    pair.run(Duration::from_secs(1));
    assert!(pair.client.act(|io| io.is_alive(fifth)));
}

#[test]
fn handshakes_at_a_time_are_limited() {
    let mut pair = Pair::new(Weather::default(), 1, |config| config.limits.max_handshakes = 2);
    let conns: Vec<ConnId> = (0..5).map(|_| pair.connect()).collect();
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.client.probe.connected().len(), 2);
    assert_eq!(pair.server.core.counters().read().refused, 3);
    assert_eq!(conns.iter().filter(|c| pair.client.probe.closed(**c).is_some()).count(), 3);
}

#[test]
fn retry_proves_the_address() {
    for validation in [AddressValidation::Always, AddressValidation::UnderPressure(2)] {
        let mut pair = Pair::new(Weather::default(), 1, |config| config.validation = validation);
        let conns: Vec<ConnId> = (0..6).map(|_| pair.connect()).collect();
        pair.run(Duration::from_secs(1));
        let mut connected = pair.client.probe.connected();
        connected.sort();
        assert_eq!(connected, conns);
        let retried = pair.server.core.counters().read().retried;
        let want = if validation == AddressValidation::Always { 6 } else { 3 };
        assert_eq!(retried, want);
    }
}

#[derive(Debug)]
struct Doorkeeper {
    verdict: Verdict,
    asked: Mutex<Vec<Attempt>>,
}

impl Gate for Doorkeeper {
    fn judge(&self, attempt: &Attempt) -> Verdict {
        self.asked.lock().unwrap().push(*attempt);
        self.verdict
    }
}

#[test]
fn the_gate_is_asked_before_anything_is_kept() {
    for verdict in [Verdict::Admit, Verdict::Prove, Verdict::Refuse, Verdict::Ignore] {
        let gate = Arc::new(Doorkeeper { verdict, asked: Mutex::default() });
        let mut pair = Pair::new(Weather::default(), 1, |config| config.gate = Some(gate.clone()));
        let conn = pair.connect();
        pair.run(Duration::from_secs(3));
        let proofs: Vec<bool> = gate.asked.lock().unwrap().iter().map(|a| a.is_proven).collect();
        let stats = pair.server.core.counters().read();
        match verdict {
            Verdict::Admit | Verdict::Prove => {
                assert_eq!(pair.client.probe.connected(), [conn]);
                let proven = verdict == Verdict::Prove;
                assert_eq!(stats.retried, u64::from(proven));
                assert_eq!(proofs, if proven { vec![false, true] } else { vec![false] });
            }
            Verdict::Refuse => {
                let closed = pair.client.probe.closed(conn);
                assert!(
                    matches!(closed, Some(CloseReason::Transport { code: 2, .. })),
                    "{closed:?}"
                );
                assert_eq!((stats.refused, stats.connections), (1, 0));
            }
            Verdict::Ignore => {
                assert_eq!(pair.client.probe.closed(conn), None);
                assert_eq!((stats.responses, stats.connections), (0, 0));
                assert!(proofs.len() > 1, "it tries again");
            }
        }
    }
}

/// RFC 9000 section 8.1: to an address that is not proven goes at most three times what came.
#[test]
fn what_is_sent_to_an_unproven_address_is_at_most_threefold() {
    for validation in [AddressValidation::Off, AddressValidation::Always] {
        let mut pair = Pair::new(Weather::default(), 7, |config| {
            config.validation = validation;
            config.limits.handshake_timeout = Duration::from_secs(60);
        });
        // The victim has sent nothing and drops what comes.
        let victim: SocketAddr = ([10, 6, 6, 6], 666).into();
        let to = pair.server.address;
        pair.connect();
        pair.turn();
        let hellos: Vec<Vec<u8>> = pair.wire.values().map(|(_, _, data)| data.clone()).collect();
        pair.wire.clear();
        let (mut received, mut sent) = (0, 0);
        for round in 0..100 {
            for hello in &hellos {
                // Whole, and too short to be the first of a connection.
                let hello = if round % 3 == 2 { &hello[..600] } else { &hello[..] };
                received += hello.len();
                pair.send(victim, to, hello.to_vec());
            }
            for _ in 0..20 {
                pair.turn();
                pair.now += Duration::from_millis(50);
                // Of the client nothing more is heard.
                pair.wire.retain(|_, (from, receiver, data)| {
                    sent += if *receiver == victim { data.len() } else { 0 };
                    *from == victim
                });
                assert!(sent <= 3 * received, "{received} bytes were answered with {sent}");
            }
        }
        assert!(sent > 0, "nothing was answered");
    }
}

#[test]
fn rubbish_makes_no_state() {
    let mut pair = Pair::new(Weather::default(), 3, |_| {});
    let mut rng = StdRng::seed_from_u64(3);
    let from: SocketAddr = ([10, 6, 6, 6], 666).into();
    let to = pair.server.address;
    for round in 0..3000usize {
        let mut data = bytes(&mut rng, round % 1400).to_vec();
        if let Some(first) = data.first_mut() {
            // Every kind of header.
            *first = (*first & 0x3f) | ((round % 4) as u8) << 6;
        }
        if round % 3 == 0 && data.len() > 5 {
            data[1..5].copy_from_slice(&1u32.to_be_bytes());
        }
        pair.send(from, to, data);
    }
    pair.run(Duration::from_secs(60));
    let stats = pair.server.core.counters().read();
    assert_eq!((stats.connections, stats.handshaking), (0, 0));
    assert_eq!(pair.server.core.next_deadline(), None);
    // And it still serves.
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    assert!(pair.client.act(|io| io.is_alive(conn)));
}

/// Real datagrams with flipped bits, cut and repeated, never panic, and never reach the driver.
#[test]
fn mutated_datagrams_are_survived() {
    for seed in 0..6 {
        let mut pair = Pair::new(Weather::default(), seed, |_| {});
        pair.server.probe.echo = true;
        let conn = pair.connect();
        let mut stream = None;
        for round in 0..60 {
            let copies: Vec<_> = pair.wire.values().cloned().collect();
            for (from, to, mut data) in copies {
                if data.is_empty() {
                    continue;
                }
                let at = pair.rng.random_range(0..data.len());
                data[at] ^= 1 << pair.rng.random_range(0..8u32);
                if round % 2 == 0 {
                    data.truncate(pair.rng.random_range(0..data.len()));
                }
                pair.send(from, to, data);
            }
            pair.run(Duration::from_millis(10));
            if pair.client.probe.connected() == [conn] {
                let stream =
                    *stream.get_or_insert_with(|| pair.client.act(|io| io.open_bi(conn)).unwrap());
                let _ = pair.client.act(|io| io.write(conn, stream, Bytes::from_static(b"m")));
            }
        }
        pair.run(Duration::from_secs(30));
        if let Some(stream) = stream
            && pair.client.act(|io| io.is_alive(conn))
        {
            let got = &pair.client.probe.received[&(conn, stream)];
            assert!(got.iter().all(|byte| *byte == b'm'), "seed {seed}");
        }
    }
}

/// Initials from many addresses that answer nothing: state up to the limits, Retry beyond, and all
/// of it forgotten in the end. Others still get in.
#[test]
fn a_flood_of_initials_is_bounded() {
    let mut pair = Pair::new(Weather::default(), 1, |config| {
        config.validation = AddressValidation::UnderPressure(20);
        config.limits.max_handshakes = 40;
    });
    let home = pair.client_seen_as;
    for attempt in 0..400u16 {
        // Each from an address of its own, at which nobody hears the answer.
        pair.client_seen_as = ([10, 7, (attempt >> 8) as u8, attempt as u8], 1000 + attempt).into();
        pair.connect();
        pair.turn();
    }
    pair.client_seen_as = home;
    pair.now += DELAY;
    pair.turn();
    let stats = pair.server.core.counters().read();
    assert_eq!(stats.handshaking, 21, "{stats:?}");
    assert_eq!((stats.retried, stats.connected), (379, 0), "{stats:?}");
    // Who is really there proves it and is served, flood or not.
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    assert!(pair.client.probe.connected().contains(&conn));
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.server.core.counters().read().handshaking, 0);
}

/// Connections that come and go leave nothing.
#[test]
fn a_storm_of_connections_leaves_nothing() {
    let mut pair = Pair::new(Weather { loss: 3, ..Weather::default() }, 9, |_| {});
    pair.server.probe.echo = true;
    for round in 0..40u32 {
        let conns: Vec<ConnId> = (0..25).map(|_| pair.connect()).collect();
        pair.run(Duration::from_millis(u64::from(round % 7) * 20));
        for (at, conn) in conns.into_iter().enumerate() {
            if at % 3 == 0 {
                pair.client.act(|io| io.close(conn, VarInt::from_u32(round), b"bye"));
            } else if let Some(stream) = pair.client.act(|io| io.open_bi(conn)) {
                pair.client.act(|io| io.write(conn, stream, Bytes::from_static(b"x"))).unwrap();
                pair.client.act(|io| io.close(conn, VarInt::from_u32(round), b"bye"));
            }
        }
    }
    pair.run(Duration::from_secs(200));
    for side in [&pair.client, &pair.server] {
        let stats = side.core.counters().read();
        assert_eq!((stats.connections, stats.handshaking), (0, 0), "{stats:?}");
        assert_eq!(side.core.next_deadline(), None);
        // Everybody who was announced was taken leave of, once.
        let mut open = BTreeMap::new();
        for (conn, heard) in &side.probe.heard {
            match heard {
                Heard::Connected => *open.entry(*conn).or_insert(0) += 1,
                Heard::Closed(_) => *open.entry(*conn).or_insert(0) -= 1,
                _ => {}
            }
        }
        // -1: begun here, and ended before it was complete.
        assert!(open.values().all(|n| (-1..=0).contains(n)));
    }
}

/// A peer that never reads what it asked for costs its windows and its outbox, not more.
#[test]
fn a_peer_that_never_reads_is_bounded() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let stream = pair.client.act(|io| io.open_bi(conn)).unwrap();
    pair.client.act(|io| io.write(conn, stream, Bytes::from_static(b"more!"))).unwrap();
    pair.run(Duration::from_secs(1));
    pair.client.probe.lazy = true;
    let served = pair.server.probe.connected()[0];
    let mut taken = 0;
    for _ in 0..2000 {
        let piece = Bytes::from(vec![0; 1000]);
        if pair.server.act(|io| io.write(served, stream, piece)).is_ok() {
            taken += 1000;
        }
        pair.run(Duration::from_millis(2));
    }
    let quic = &QuicConfig::default();
    let limit = quic.stream_window as usize + Limits::default().outbox_bytes;
    assert!(taken <= limit, "{taken} of {limit}");
    assert!(pair.server.core.counters().read().outbox_full > 0);
}
