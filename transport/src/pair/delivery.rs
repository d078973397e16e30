//! Streams arrive whole, in order and once, whatever the network does.

use super::*;

/// Sends on several streams in pieces, and wants all of it back, in order, once.
fn echo_under(weather: Weather, seed: u64) {
    let mut pair = Pair::new(weather, seed, |_| {});
    pair.server.probe.echo = true;
    let conn = pair.connect();
    pair.run(Duration::from_secs(8));
    assert_eq!(pair.client.probe.connected(), [conn], "seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut want = BTreeMap::new();
    let streams: Vec<StreamId> =
        (0..3).map(|_| pair.client.act(|io| io.open_bi(conn)).unwrap()).collect();
    for round in 0..20 {
        for stream in &streams {
            let piece = match round % 4 {
                0 => rng.random_range(5000..9000),
                _ => rng.random_range(1..300),
            };
            let piece = bytes(&mut rng, piece);
            want.entry((conn, *stream)).or_insert_with(Vec::new).extend_from_slice(&piece);
            pair.client.act(|io| io.write(conn, *stream, piece)).unwrap();
        }
        pair.run(Duration::from_millis(rng.random_range(0..50)));
    }
    for stream in &streams {
        pair.client.act(|io| io.finish(conn, *stream)).unwrap();
    }
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.client.probe.received, want, "seed {seed}");
    assert_eq!(pair.client.probe.finished.len(), 3, "seed {seed}");
    let seen = pair.server.probe.connected();
    assert_eq!(seen.len(), 1, "seed {seed}");

    pair.client.act(|io| io.close(conn, VarInt::from_u32(7), b"enough"));
    pair.run(Duration::from_secs(90));
    let closed = |h: &Heard| matches!(h, Heard::Closed(_));
    assert_eq!(pair.client.probe.count(conn, closed), 1, "seed {seed}");
    assert_eq!(pair.server.probe.count(seen[0], closed), 1, "seed {seed}");
    assert_eq!(pair.client.probe.closed(conn), Some(&CloseReason::Local));
    // Nothing is left of it, on either side.
    for side in [&pair.client, &pair.server] {
        let stats = side.core.counters().read();
        assert_eq!((stats.connections, stats.handshaking), (0, 0), "seed {seed}");
        assert_eq!(side.core.next_deadline(), None, "seed {seed}");
    }
}

#[test]
fn fair_weather() {
    echo_under(Weather::default(), 1);
}

#[test]
fn loss() {
    (0..8).for_each(|seed| echo_under(Weather { loss: 10, ..Weather::default() }, seed));
}

#[test]
fn reorder_and_delay() {
    let weather = Weather { jitter: Duration::from_millis(40), ..Weather::default() };
    (0..8).for_each(|seed| echo_under(weather, seed));
}

#[test]
fn duplication() {
    (0..8).for_each(|seed| echo_under(Weather { duplication: 50, ..Weather::default() }, seed));
}

#[test]
fn all_at_once() {
    let weather = Weather { loss: 8, duplication: 8, jitter: Duration::from_millis(30) };
    (100..112).for_each(|seed| echo_under(weather, seed));
}

#[test]
fn a_full_outbox_refuses_whole_writes_and_says_when_there_is_room() {
    const LIMIT: usize = 64 << 10;
    let mut pair = Pair::new(Weather::default(), 1, |config| config.limits.outbox_bytes = LIMIT);
    pair.server.probe.lazy = true;
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let stream = pair.client.act(|io| io.open_bi(conn)).unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    let mut want = Vec::new();
    let full = loop {
        let piece = bytes(&mut rng, 3000);
        match pair.client.act(|io| io.write(conn, stream, piece.clone())) {
            Ok(()) => want.extend_from_slice(&piece),
            Err(error) => break error,
        }
        pair.run(Duration::from_millis(30));
    };
    assert_eq!(full, WriteError::Full);
    assert!(pair.client.act(|io| io.outbox_bytes(conn)) <= LIMIT);
    // More than the window of the peer and both buffers hold did not get in.
    assert!(want.len() < LIMIT + (64 << 10) + (64 << 10) + 3000, "{}", want.len());
    let writable = |pair: &Pair| pair.client.probe.count(conn, |h| *h == Heard::Writable);
    pair.run(Duration::from_secs(5));
    assert_eq!(writable(&pair), 0);
    // Also a huge one never fits, in a fresh outbox or not.
    let huge = Bytes::from(vec![0; LIMIT + 1]);
    assert_eq!(pair.client.act(|io| io.write(conn, stream, huge)), Err(WriteError::Full));

    pair.server.probe.lazy = false;
    let served = pair.server.probe.connected()[0];
    let Side { core, probe, .. } = &mut pair.server;
    probe.on_readable(&mut Io::new(core), served, stream);
    pair.run(Duration::from_secs(5));
    assert_eq!(writable(&pair), 1);
    assert_eq!(pair.server.probe.received[&(served, stream)], want);
}

#[test]
fn a_stopped_stream_takes_no_more_and_others_go_on() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    pair.server.probe.lazy = true;
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let open = |pair: &mut Pair| pair.client.act(|io| io.open_bi(conn)).unwrap();
    let (bulk, live) = (open(&mut pair), open(&mut pair));
    for _ in 0..40 {
        let piece = Bytes::from(vec![1; 4000]);
        pair.client.act(|io| io.write(conn, bulk, piece)).unwrap();
    }
    pair.run(Duration::from_secs(1));
    assert!(pair.client.act(|io| io.outbox_bytes(conn)) > 0, "the window is full");
    assert!(pair.client.act(|io| io.outbox_total()) > 0);
    // Another stream passes by, although the first is full.
    pair.client.act(|io| io.write(conn, live, Bytes::from_static(b"hello"))).unwrap();
    let served = pair.server.probe.connected()[0];
    pair.server.act(|io| io.stop_sending(served, bulk, VarInt::from_u32(3)));
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.client.act(|io| io.outbox_bytes(conn)), 0);
    assert_eq!(pair.client.act(|io| io.outbox_total()), 0);
    let late = Bytes::from_static(b"late");
    assert_eq!(pair.client.act(|io| io.write(conn, bulk, late)), Err(WriteError::Closed));
    let read = pair.server.act(|io| io.read(served, live));
    assert_eq!(read, Read::Chunk(Bytes::from_static(b"hello")));
}

#[test]
fn the_end_of_a_stream_waits_behind_its_bytes() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let stream = pair.client.act(|io| io.open_bi(conn)).unwrap();
    let body = Bytes::from(vec![9; 200_000]);
    pair.client.act(|io| io.write(conn, stream, body.clone())).unwrap();
    pair.client.act(|io| io.finish(conn, stream)).unwrap();
    assert!(pair.client.act(|io| io.finish(conn, stream)).is_err(), "a stream ends once");
    pair.run(Duration::from_secs(10));
    let served = pair.server.probe.connected()[0];
    assert_eq!(pair.server.probe.received[&(served, stream)], body);
    assert_eq!(pair.server.probe.finished, [(served, stream)]);
}

/// A live message overtakes a backlog that fills the send window many times over.
#[test]
fn bulk_does_not_stand_in_front_of_live() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    let conn = pair.connect();
    pair.run(Duration::from_secs(1));
    let open = |pair: &mut Pair| pair.client.act(|io| io.open_bi(conn)).unwrap();
    let (live, bulk) = (open(&mut pair), open(&mut pair));
    pair.client.act(|io| {
        io.set_priority(conn, bulk, -1);
        io.write(conn, bulk, Bytes::from(vec![1; 200_000])).unwrap();
        io.write(conn, live, Bytes::from_static(b"urgent")).unwrap();
    });
    // One way, not the round trip that would make room in the window.
    pair.run(DELAY + DELAY / 2);
    let served = pair.server.probe.connected()[0];
    assert_eq!(pair.server.probe.received.get(&(served, live)).map(Vec::len), Some(6));
    let so_far = pair.server.probe.received.get(&(served, bulk)).map_or(0, Vec::len);
    assert!(so_far < 50_000, "{so_far}");
    pair.run(Duration::from_secs(20));
    assert_eq!(pair.server.probe.received[&(served, bulk)].len(), 200_000);
}

#[test]
fn the_total_counts_what_waits_for_everybody_and_forgets_who_leaves() {
    let mut pair = Pair::new(Weather::default(), 1, |_| {});
    pair.server.probe.lazy = true;
    let conns = [pair.connect(), pair.connect(), pair.connect()];
    pair.run(Duration::from_secs(1));
    for (n, conn) in conns.into_iter().enumerate() {
        let stream = pair.client.act(|io| io.open_bi(conn)).unwrap();
        for _ in 0..40 + n {
            let piece = Bytes::from(vec![1; 4000]);
            pair.client.act(|io| io.write(conn, stream, piece)).unwrap();
        }
        pair.client.act(|io| io.finish(conn, stream)).unwrap();
    }
    pair.run(Duration::from_secs(1));
    let waits = |pair: &mut Pair| conns.map(|conn| pair.client.act(|io| io.outbox_bytes(conn)));
    let before = waits(&mut pair);
    assert!(before.iter().all(|bytes| *bytes > 0), "{before:?}");
    assert_eq!(pair.client.act(|io| io.outbox_total()), before.iter().sum::<usize>());
    pair.client.act(|io| io.close(conns[0], VarInt::from_u32(0), b""));
    let left = pair.client.act(|io| io.outbox_total());
    assert_eq!(left, before[1] + before[2]);
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.client.core.counters().read().outbox_total as usize, left);
}
