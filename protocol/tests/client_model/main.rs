//! Several devices, a model of a gateway and a bad network, all under a virtual clock.
//!
//! Whatever is lost, repeated, reordered, cut or killed: every message gets exactly one number,
//! the messages of one device to one conversation keep their order, every device sees each
//! conversation's numbers rise by one, and when the trouble ends everybody has everything.
//!
//! `SKEIN_SEEDS=1000` runs more seeds; a failure names its seed.

#![allow(clippy::unwrap_used)]

mod server;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use server::{Conn, Faults, Server};
use skein_protocol::client::{
    BulkAction, BulkId, Client, Config, Event, Origin, Outgoing, Reconnect, Restored, Start,
    StoreOp, Target,
};
use skein_protocol::{ClientMsgId, ConversationId, DeviceId, Seq, UserId};

/// SplitMix64: the same schedule for the same seed.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// One device with what it keeps on disk.
struct Device {
    user: &'static str,
    device: &'static str,
    client: Client,
    conn: Option<Conn>,
    /// Disk: messages not settled, with the head known when they were accepted.
    outbox: Vec<Outgoing>,
    positions: BTreeMap<ConversationId, Seq>,
    epoch: u64,
    /// What the application has seen.
    seen: HashMap<ConversationId, Seq>,
    sent: Vec<(String, String)>,
    acked: HashMap<String, (ConversationId, Seq)>,
}

#[derive(Debug)]
enum Arrival {
    ToServer(Conn, Bytes),
    ToClient(usize, Conn, Bytes),
    Request(usize, Conn, BulkId, Bytes),
    Page(usize, Conn, BulkId, Bytes),
    BulkEnd(usize, Conn, BulkId),
    Connect(usize),
    Connected(usize, Conn),
}

struct World {
    random: Random,
    now: Instant,
    server: Server,
    devices: Vec<Device>,
    /// In order of time, then of origin.
    queue: BTreeMap<(Instant, u64), Arrival>,
    /// A stream keeps its order: nothing arrives before what was sent on it earlier.
    last: HashMap<(Conn, u64), Instant>,
    serial: u64,
    next_conn: Conn,
}

/// A device that does not want what others of its user have already.
const LATE: &str = "pad";

const DEVICES: [(&str, &str); 4] = [("ann", "phone"), ("ann", "pad"), ("bob", "pc"), ("cy", "tv")];

fn new_client(user: &str, device: &str, restored: Restored, now: Instant) -> Client {
    let config = Config {
        user: Some(UserId::parse(user).unwrap()),
        device: Some(DeviceId::parse(device).unwrap()),
        max_early_bytes: 2000,
        start: if device == LATE { Start::Delivered } else { Start::Beginning },
        ..Config::default()
    };
    Client::new(config, restored, now)
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let devices = DEVICES
            .iter()
            .map(|&(user, device)| Device {
                user,
                device,
                client: new_client(user, device, Restored::default(), now),
                conn: None,
                outbox: Vec::new(),
                positions: BTreeMap::new(),
                epoch: 0,
                seen: HashMap::new(),
                sent: Vec::new(),
                acked: HashMap::new(),
            })
            .collect();
        let mut world = Self {
            random: Random(seed),
            now,
            server: Server::new(),
            devices,
            queue: BTreeMap::new(),
            last: HashMap::new(),
            serial: 0,
            next_conn: 0,
        };
        for at in 0..DEVICES.len() {
            world.after(Duration::ZERO, Arrival::Connect(at));
        }
        world
    }

    fn after(&mut self, delay: Duration, arrival: Arrival) {
        self.serial += 1;
        self.queue.insert((self.now + delay, self.serial), arrival);
    }

    /// On a stream of a connection: 5 - 80 ms, never before what went earlier.
    fn travel(&mut self, conn: Conn, stream: u64, arrival: Arrival) {
        let delay = Duration::from_millis(5 + self.random.below(75));
        let at =
            (self.now + delay).max(self.last.get(&(conn, stream)).copied().unwrap_or(self.now));
        self.last.insert((conn, stream), at);
        self.after(at - self.now, arrival);
    }

    /// Bytes in pieces, as a network cuts them.
    fn pieces(&mut self, mut bytes: Bytes) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        while bytes.len() > 1 && self.random.chance(30) {
            let at = 1 + self.random.below(bytes.len() as u64 - 1) as usize;
            pieces.push(bytes.split_to(at));
        }
        pieces.push(bytes);
        pieces
    }

    fn server_out(&mut self, out: server::Out) {
        for (conn, bytes) in out {
            let Some(at) = self.devices.iter().position(|d| d.conn == Some(conn)) else { continue };
            for piece in self.pieces(bytes) {
                self.travel(conn, 0, Arrival::ToClient(at, conn, piece));
            }
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Connect(at) if self.devices[at].conn.is_none() => {
                self.next_conn += 1;
                let conn = self.next_conn;
                self.devices[at].conn = Some(conn);
                self.after(Duration::from_millis(40), Arrival::Connected(at, conn));
            }
            Arrival::Connect(_) => {}
            Arrival::Connected(at, conn) if self.devices[at].conn == Some(conn) => {
                let device = &mut self.devices[at];
                self.server.connect(conn, device.user, device.device);
                device.client.handle_connected("token".into(), self.now);
            }
            Arrival::ToServer(conn, bytes) => {
                let out = self.server.live(conn, bytes, &mut self.random);
                self.server_out(out);
            }
            Arrival::Request(at, conn, id, bytes) => {
                for page in self.server.bulk(conn, bytes, &mut self.random) {
                    for piece in self.pieces(page) {
                        self.travel(conn, 2 * id + 2, Arrival::Page(at, conn, id, piece));
                    }
                }
                self.travel(conn, 2 * id + 2, Arrival::BulkEnd(at, conn, id));
            }
            Arrival::ToClient(at, conn, bytes) if self.devices[at].conn == Some(conn) => {
                self.devices[at].client.handle_live(bytes, self.now);
            }
            Arrival::Page(at, conn, id, bytes) if self.devices[at].conn == Some(conn) => {
                self.devices[at].client.handle_bulk(id, bytes, self.now);
            }
            Arrival::BulkEnd(at, conn, id) if self.devices[at].conn == Some(conn) => {
                self.devices[at].client.handle_bulk_end(id, self.now);
            }
            // The connection is gone, and what was on its way with it.
            _ => {}
        }
    }

    /// Everything that a device wants to do now.
    fn pump(&mut self, at: usize) {
        loop {
            let now = self.now;
            let device = &mut self.devices[at];
            if device.client.poll_timeout().is_some_and(|due| due <= now) {
                device.client.handle_timeout(now);
            }
            let mut idle = true;
            while let Some(event) = self.devices[at].client.poll_event() {
                idle = false;
                self.event(at, event);
            }
            while let Some(op) = self.devices[at].client.poll_store() {
                idle = false;
                self.devices[at].store(op);
            }
            let Some(conn) = self.devices[at].conn else { return };
            if let Some(code) = self.devices[at].client.poll_close() {
                panic!("nothing is broken, but {code}");
            }
            while let Some(bytes) = self.devices[at].client.poll_live(now) {
                idle = false;
                for piece in self.pieces(bytes) {
                    self.travel(conn, 1, Arrival::ToServer(conn, piece));
                }
            }
            while let Some(action) = self.devices[at].client.poll_bulk(now) {
                idle = false;
                if let BulkAction::Open { id, request } = action {
                    self.travel(conn, 2 * id + 3, Arrival::Request(at, conn, id, request));
                }
            }
            if idle {
                return;
            }
        }
    }

    fn event(&mut self, at: usize, event: Event) {
        let now = self.now;
        let device = &mut self.devices[at];
        match event {
            Event::Message { message, .. } => {
                let first = if device.device == LATE { message.seq - 1 } else { 0 };
                let seen = device.seen.entry(message.conversation).or_insert(first);
                assert_eq!(message.seq, *seen + 1, "{} {}", device.user, device.device);
                *seen = message.seq;
                let row = &self.server.logs[&message.conversation][message.seq as usize - 1];
                assert_eq!(row.payload, message.payload);
                assert_eq!(row.id, message.id.as_str());
                device.client.handle_consumed(message.conversation, message.seq, now);
            }
            Event::Acked { id, conversation, seq, .. } => {
                let row = &self.server.logs[&conversation][seq as usize - 1];
                assert_eq!(row.id, id.as_str(), "acknowledged with another's number");
                let first = device.acked.entry(id.to_string()).or_insert((conversation, seq));
                assert_eq!(*first, (conversation, seq), "one message, two numbers");
            }
            Event::Disconnected { .. } | Event::Connected { .. } | Event::Postponed { .. } => {}
            Event::Error { retry: true, .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }

    fn lose_connection(&mut self, at: usize) {
        let now = self.now;
        let device = &mut self.devices[at];
        let Some(conn) = device.conn.take() else { return };
        let reconnect = device.client.handle_disconnected(None, "cut", now);
        assert!(matches!(reconnect, Reconnect::After(_)));
        self.server.disconnect(conn);
        let delay = Duration::from_millis(self.random.below(3000));
        self.after(delay, Arrival::Connect(at));
    }

    /// `kill -9` of the application: only what is on disk stays.
    fn kill(&mut self, at: usize) {
        self.lose_connection(at);
        let now = self.now;
        let device = &mut self.devices[at];
        let restored = Restored {
            epoch: device.epoch,
            positions: device.positions.iter().map(|(&id, &seq)| (id, seq)).collect(),
        };
        device.client = new_client(device.user, device.device, restored, now);
        device.seen = device.positions.clone().into_iter().collect();
        for message in device.outbox.clone() {
            device.client.send(message).unwrap();
        }
    }

    fn send(&mut self, at: usize) {
        let others = ["ann", "bob", "cy"];
        let device = &mut self.devices[at];
        let to = others[self.random.below(3) as usize];
        let id = format!("{}-{}-{}", device.user, device.device, device.sent.len());
        let target = Target::User(UserId::parse(to).unwrap());
        let after = device.client.known_head(&target);
        let message = Outgoing {
            id: ClientMsgId::parse(&id).unwrap(),
            to: target,
            content_type: String::new(),
            payload: format!("{id} to {to}").into(),
            origin: Origin::Fresh,
        };
        device.client.send(message.clone()).unwrap();
        device.outbox.push(Outgoing { origin: Origin::MaybeSent { after }, ..message });
        device.sent.push((id, to.into()));
    }

    /// Until `end`, or until nothing is left to do but heartbeats.
    fn run(&mut self, end: Instant) {
        for at in 0..self.devices.len() {
            self.pump(at);
        }
        loop {
            let arrival = self.queue.first_key_value().map(|(&(at, _), _)| at);
            let timers = self.devices.iter().filter(|d| d.conn.is_some());
            let timer = timers.filter_map(|d| d.client.poll_timeout()).min();
            let next = arrival.into_iter().chain(timer).min().unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            while let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= self.now
            {
                let arrival = entry.remove();
                self.arrive(arrival);
            }
            for at in 0..self.devices.len() {
                self.pump(at);
            }
        }
    }

    /// One step of trouble.
    fn trouble(&mut self) {
        let at = self.random.below(self.devices.len() as u64) as usize;
        match self.random.below(100) {
            0..70 => self.send(at),
            70..80 => {
                let out = self.server.flush(&mut self.random);
                self.server_out(out);
            }
            80..90 => self.lose_connection(at),
            90..96 => self.kill(at),
            96..98 => {
                self.server.restart();
                (0..self.devices.len()).for_each(|at| self.lose_connection(at));
            }
            _ => {
                let pause = Duration::from_secs(self.random.below(60));
                self.run(self.now + pause);
            }
        }
        let pause = Duration::from_millis(self.random.below(150));
        self.run(self.now + pause);
    }

    fn check(&self) {
        for device in &self.devices {
            assert!(device.outbox.is_empty(), "{:?} is not settled", device.outbox);
            for (id, _) in &device.sent {
                assert!(device.acked.contains_key(id), "{id} was never acknowledged");
            }
        }
        for (id, log) in &self.server.logs {
            self.check_log(*id, log);
            for device in &self.devices {
                if !self.server.members[id].iter().any(|member| member == device.user) {
                    continue;
                }
                let seen = match device.seen.get(id) {
                    None if device.device == LATE => continue,
                    seen => seen.copied().unwrap_or(0),
                };
                assert_eq!(seen, log.len() as Seq, "{} {}", device.user, device.device);
                let delivered = self.server.delivered.get(&(device.user.into(), *id));
                assert_eq!(delivered, Some(&seen), "acknowledged");
            }
        }
    }

    /// Each id once, and each device's messages in the order in which it sent them.
    fn check_log(&self, id: ConversationId, log: &[server::Row]) {
        for device in &self.devices {
            let mine = log.iter().filter(|r| r.sender == device.user && r.device == device.device);
            let mine: Vec<&str> = mine.map(|row| row.id.as_str()).collect();
            let me = UserId::parse(device.user).unwrap();
            let sent: Vec<&str> = device
                .sent
                .iter()
                .filter(|(_, to)| {
                    ConversationId::one_to_one(&me, &UserId::parse(to).unwrap()) == id
                })
                .map(|(id, _)| id.as_str())
                .collect();
            assert_eq!(mine, sent, "order and number of {}'s messages", device.device);
        }
    }
}

impl Device {
    fn store(&mut self, op: StoreOp) {
        match op {
            StoreOp::Position { conversation, seq } => {
                let before = self.positions.insert(conversation, seq).unwrap_or(0);
                assert!(before <= seq, "a position moved back");
            }
            StoreOp::Reset { epoch } => {
                self.positions.clear();
                self.epoch = epoch;
            }
            StoreOp::Settled { id } => self.outbox.retain(|message| message.id != id),
        }
    }
}

fn scenario(seed: u64, faults: Faults, steps: usize) {
    let mut world = World::new(seed);
    world.server.faults = faults;
    for _ in 0..steps {
        world.trouble();
    }
    world.server.faults = Faults::default();
    let out = world.server.flush(&mut world.random);
    world.server_out(out);
    // The longest backoff is a minute, and one conversation's messages go one by one.
    world.run(world.now + Duration::from_secs(900));
    world.check();
}

fn seeds() -> u64 {
    std::env::var("SKEIN_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40)
}

fn run_seeds(faults: Faults) {
    for seed in 0..seeds() {
        let outcome = std::panic::catch_unwind(|| scenario(seed, faults, 150));
        if let Err(panic) = outcome {
            eprintln!("seed {seed} with {faults:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn nothing_is_lost_on_a_clean_gateway_with_lost_connections() {
    run_seeds(Faults::default());
}

#[test]
fn nothing_is_lost_when_pushes_are_lost_repeated_and_reordered() {
    run_seeds(Faults { drop_push: 20, repeat_push: 20, hold_push: 20, ..Faults::default() });
}

#[test]
fn nothing_is_lost_when_answers_are_lost_or_refused() {
    run_seeds(Faults { refuse: 15, ignore: 10, forget_ack: 15, ..Faults::default() });
}

#[test]
fn nothing_is_lost_when_everything_fails_now_and_then() {
    run_seeds(Faults {
        refuse: 10,
        ignore: 5,
        forget_ack: 10,
        drop_push: 15,
        repeat_push: 10,
        hold_push: 15,
        refuse_bulk: 20,
        cut_bulk: 20,
    });
}
