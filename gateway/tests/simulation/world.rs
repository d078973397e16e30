//! Everything together, in one thread, under one clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use skein_protocol::client::{Event, HistoryRequest, Origin, Outgoing, SendError, Start, Target};
use skein_protocol::{ClientMsgId, UserId};
use skein_storage::StoreError;
use skein_transport::sim::shard_of;

use crate::device::Device;
use crate::net::{Net, Weather};
use crate::oracle::{Oracle, Who};
use crate::phone::{Heard, may_give_up};
use crate::process::{self, Clock, MAX_PAYLOAD, Process, SHARDS};
use crate::random::Random;
use crate::store::{Bug, Disk};

/// Devices; the last one of ann does not want what her others have already.
const DEVICES: [(&str, &str, Start); 6] = [
    ("ann", "phone", Start::Beginning),
    ("ann", "web", Start::Beginning),
    ("ann", "pad", Start::Delivered),
    ("bob", "pc", Start::Beginning),
    ("bob", "phone", Start::Delivered),
    ("cy", "tv", Start::Beginning),
];

/// Turns of one seed; more means that something runs in circles.
const MAX_ROUNDS: u64 = 3_000_000;

/// Longest time in which everybody must have everything once all trouble is over: the longest
/// backoff is a minute, and one conversation's messages go one by one.
const SETTLE: Duration = Duration::from_secs(900);

/// The same with a planted bug. Too short to be a proof, so its end does not count as one.
const SETTLE_BROKEN: Duration = Duration::from_secs(150);

/// Lines of the story that are kept.
const STORY: usize = 60;

/// Something that will happen.
#[derive(Debug)]
enum Plan {
    StartGateway,
    StartApp(usize),
    Reopen(usize),
    Attend(usize),
    Commit,
    DrainEnds(u64),
    /// Restarts a gateway whose store may have stopped.
    OperatorComes,
}

/// How a life ended badly.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// Something was seen that must never be.
    Seen(String),
    /// Somebody still waits for something.
    NoRest(String),
    /// A panic.
    Panic(String),
}

pub(crate) struct World {
    random: Random,
    now: Instant,
    start: Instant,
    clock: Arc<Clock>,
    disk: Arc<Disk>,
    net: Net,
    process: Option<Process>,
    /// Counts the gateway's processes.
    processes: u64,
    devices: Vec<Device>,
    pub(crate) oracle: Oracle,
    plans: BTreeMap<(Instant, u64), Plan>,
    planned: u64,
    /// A commit is planned.
    committing: bool,
    /// Longest time that a commit takes, milliseconds.
    commit_millis: u64,
    messages: u64,
    rounds: u64,
    settle: Duration,
    /// The last things that happened, for whoever looks into a failure.
    story: VecDeque<String>,
}

impl World {
    pub(crate) fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut random = Random::new(seed);
        let now = Instant::now();
        let who = DEVICES.map(|(user, device, start)| Who {
            user: UserId::parse(user).unwrap(),
            device: device.into(),
            start,
        });
        let devices = who.iter().cloned().enumerate();
        let mut world = Self {
            now,
            start: now,
            clock: Arc::default(),
            disk: Disk::new(random.fork(), bug),
            net: Net::new(random.fork()),
            process: None,
            processes: 0,
            devices: devices.map(|(at, who)| Device::new(at, who, now)).collect(),
            oracle: Oracle::new(who.into()),
            plans: BTreeMap::new(),
            planned: 0,
            committing: false,
            commit_millis: 4,
            messages: 0,
            rounds: 0,
            settle: if bug.is_some() { SETTLE_BROKEN } else { SETTLE },
            story: VecDeque::new(),
            random,
        };
        world.plan(Duration::ZERO, Plan::StartGateway);
        for at in 0..DEVICES.len() {
            world.plan(Duration::from_millis(at as u64), Plan::StartApp(at));
        }
        world
    }

    /// Trouble for so many steps, then peace; what was wrong, if anything.
    pub(crate) fn live(&mut self, steps: usize) -> Result<(), Wrong> {
        for _ in 0..steps {
            self.trouble();
            let most = if self.random.chance(6) { 9000 } else { 120 };
            let pause = self.random.millis(most);
            self.run(pause);
            self.oracle.check_disk(&self.disk);
            self.verdict()?;
        }
        self.heal();
        self.settle(false)?;
        // Cursors may have been lost in trouble, and a new session tells them again; so once more
        // after a restart, in which nothing else may change.
        self.crash();
        self.settle(true)?;
        self.check_sessions();
        self.count_process();
        self.verdict()
    }

    fn verdict(&self) -> Result<(), Wrong> {
        let seen = |wrong| Err(Wrong::Seen(format!("{wrong}\n{}", self.story())));
        self.oracle.wrong.clone().map_or(Ok(()), seen)
    }

    fn settle(&mut self, cursors: bool) -> Result<(), Wrong> {
        let end = self.now + self.settle;
        loop {
            self.run(Duration::from_secs(5));
            self.oracle.check_disk(&self.disk);
            self.verdict()?;
            let installations: Vec<u32> = self.devices.iter().map(|d| d.installation).collect();
            let running = self.process.is_some();
            match self.oracle.unsettled(&installations, cursors, &self.disk) {
                None if running => return Ok(()),
                what if self.now > end => {
                    let after = self.settle;
                    let what = format!("no rest after {after:?} of peace: {what:?}");
                    return Err(Wrong::NoRest(format!("{what}\n{}", self.story())));
                }
                _ => {}
            }
        }
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.story.len() == STORY {
            self.story.pop_front();
        }
        let at = (self.now - self.start).as_secs_f64();
        self.story.push_back(format!("{at:10.3} {}", what()));
    }

    /// The last things that happened, and how everybody stands.
    fn story(&self) -> String {
        let mut story: Vec<String> = self.story.iter().cloned().collect();
        for (at, device) in self.devices.iter().enumerate() {
            let app = device.app.as_ref().map(|app| app.driver().summary());
            story.push(format!("device {at}, installation {}: {app:?}", device.installation));
        }
        let process = self.process.as_ref().map(|process| process.hub.sessions());
        story.push(format!("gateway {}, sessions {process:?}", self.processes));
        story.join("\n")
    }

    // ---- trouble

    fn trouble(&mut self) {
        let at = self.random.index(DEVICES.len());
        let now = self.now;
        let what = self.random.below(1000);
        if what >= 610 {
            self.tell(|| format!("trouble {what} for device {at}"));
        }
        match what {
            0..480 => self.send(at),
            480..560 => self.read(at),
            560..610 => self.ask_history(at),
            610..660 => {
                let address = &mut self.devices[at].address;
                address.set_port(address.port() + 1);
            }
            660..700 => self.devices[at].cut_until = now + self.random.millis(40_000),
            700..740 => self.devices[at].frozen_until = now + self.random.millis(40_000),
            740..780 => self.stop_listening(at),
            780..830 => self.kill(at, false),
            830..840 => self.kill(at, true),
            840..855 => self.crash(),
            855..860 => self.drain(),
            860..900 => self.stall(),
            900..925 => self.commit_millis = [1, 10, 300, 6000][self.random.index(4)],
            925..945 => {
                let count = 1 + self.random.index(4);
                let error = StoreError::Unavailable("simulated".into());
                self.disk.memory.fail_next_appends(count, &error);
            }
            945..955 => {
                let survives = self.random.chance(50);
                self.disk.memory.stop_at_next_append("simulated", survives);
                // An operator notices, some time.
                let notice = self.random.millis(8000);
                self.plan(notice, Plan::OperatorComes);
            }
            955..970 => {
                let percent = [0, 10, 60][self.random.index(3)];
                self.disk.fail_reads(percent);
            }
            _ => self.net.weather = Weather::any(&mut self.random),
        }
    }

    fn send(&mut self, at: usize) {
        let count = if self.random.chance(20) { 8 } else { 1 };
        let users = ["ann", "bob", "cy"];
        let to = UserId::parse(users[self.random.index(3)]).unwrap();
        for _ in 0..count {
            self.send_one(at, &to);
        }
    }

    fn send_one(&mut self, at: usize, to: &UserId) {
        self.messages += 1;
        let id = format!("m{}-{}", self.messages, self.devices[at].who.device);
        let too_large = self.random.chance(1);
        let len = match self.random.below(10) {
            _ if too_large => MAX_PAYLOAD + 1,
            0..3 => MAX_PAYLOAD - 20,
            _ => 40,
        };
        let payload = bytes::Bytes::from(format!("{id} to {to} {:len$}", ""));
        let payload = payload.slice(..len);
        let device = &mut self.devices[at];
        let Some(app) = &mut device.app else { return };
        let target = Target::User(to.clone());
        let message = Outgoing {
            id: ClientMsgId::parse(&id).unwrap(),
            to: target.clone(),
            content_type: String::new(),
            payload: payload.clone(),
            origin: Origin::Fresh,
        };
        let (taken, after) = app.act(|phone, _| {
            let after = phone.rules.known_head(&target);
            (phone.rules.send(message.clone()), after)
        });
        match taken {
            Ok(()) => {
                let kept = Outgoing { origin: Origin::MaybeSent { after }, ..message };
                device.flash.outbox.push(kept);
                let installation = device.installation;
                self.oracle.handle_sent(at, installation, &id, to, payload, too_large);
            }
            Err(SendError::TooLarge { .. }) if too_large => {}
            Err(error) => self.oracle.fail(format!("a send is not taken: {error}")),
        }
        self.turn_app(at);
    }

    fn read(&mut self, at: usize) {
        let seen = self.oracle.seen(at);
        let Some((&id, &seq)) = seen.iter().nth(self.random.index(seen.len())) else { return };
        let Some(app) = &mut self.devices[at].app else { return };
        let seq = 1 + self.random.below(seq);
        app.act(|phone, _| phone.rules.mark_read(id, seq));
        self.oracle.handle_read(at, id, seq);
        self.turn_app(at);
    }

    fn ask_history(&mut self, at: usize) {
        let users = ["ann", "bob", "cy"];
        let with = UserId::parse(users[self.random.index(3)]).unwrap();
        let request = HistoryRequest {
            of: Target::User(with),
            from: self.random.below(10),
            to: if self.random.chance(50) { 0 } else { 3 + self.random.below(30) },
            backward: self.random.chance(50),
            limit: self.random.below(8) as u32,
        };
        let Some(app) = &mut self.devices[at].app else { return };
        let id = app.act(|phone, _| phone.rules.request_history(request.clone()));
        if let Some(id) = id {
            self.oracle.handle_asked(at, id, request);
        }
        self.turn_app(at);
    }

    fn stop_listening(&mut self, at: usize) {
        let Some(app) = &mut self.devices[at].app else { return };
        app.act(|phone, _| phone.lazy = true);
        let delay = self.random.millis(30_000);
        self.plan(delay, Plan::Attend(at));
    }

    fn kill(&mut self, at: usize, wiped: bool) {
        if self.devices[at].app.is_none() {
            return;
        }
        match wiped {
            true => self.devices[at].wipe(),
            false => self.devices[at].kill(&mut self.random),
        }
        let delay = self.random.millis(3000);
        self.plan(delay, Plan::StartApp(at));
    }

    /// `kill -9` of the gateway.
    fn crash(&mut self) {
        if self.process.is_some() && self.disk.memory.waiting() > 0 && self.random.chance(50) {
            // The last append reached the disk, and nobody was told.
            self.disk.memory.stop_at_next_append("killed", true);
            self.disk.memory.commit_some(1);
        }
        self.stop_process();
    }

    fn stop_process(&mut self) {
        self.count_process();
        if self.process.take().is_none() {
            return;
        }
        self.disk.memory.crash();
        self.oracle.handle_crash();
        self.plans.retain(|_, plan| !matches!(plan, Plan::Commit));
        self.committing = false;
        let delay = self.random.millis(4000);
        self.plan(delay, Plan::StartGateway);
    }

    /// Takes the counters of the process over.
    fn count_process(&mut self) {
        let Some(process) = &self.process else { return };
        for shard in &process.shards {
            let stats = shard.shard.stats();
            self.oracle.count("mail lost", stats.mailbox_full);
            self.oracle.count("outbox full", stats.outbox_full);
            self.oracle.count("connections closed", stats.closed);
        }
        self.oracle.count("gateways", 1);
    }

    /// A stop that was asked for.
    fn drain(&mut self) {
        let Some(process) = &self.process else { return };
        process.hub.broadcast(|| {
            skein_gateway::mail::Mail::Drain(skein_gateway::mail::Drain {
                reconnect_spread_ms: 500,
            })
        });
        let delay = self.random.millis(3000);
        self.plan(delay, Plan::DrainEnds(self.processes));
    }

    fn stall(&mut self) {
        let until = self.now + self.random.millis(1500);
        if let Some(process) = &mut self.process {
            process.shards[self.random.index(SHARDS)].stalled_until = until;
        }
    }

    // ---- peace

    fn heal(&mut self) {
        self.net.weather = Weather::default();
        self.disk.fail_reads(0);
        self.commit_millis = 4;
        for device in &mut self.devices {
            device.cut_until = self.now;
            device.frozen_until = self.now;
        }
        for at in 0..DEVICES.len() {
            self.plan(Duration::ZERO, Plan::Attend(at));
        }
    }

    /// Nobody is listed who is not there, and everybody who is there is listed.
    fn check_sessions(&mut self) {
        // Longer than a silent peer is kept.
        self.run(Duration::from_secs(40));
        let Some(process) = &mut self.process else {
            return self.oracle.fail("the gateway does not run");
        };
        let mut listed = 0;
        for user in ["ann", "bob", "cy"] {
            for conn in process.hub.connections_of(&UserId::parse(user).unwrap()) {
                listed += 1;
                let shard = &mut process.shards[conn.shard()].shard;
                if !shard.act(|_, io| io.is_alive(conn)) {
                    self.oracle.fail(format!("{user} is listed under {conn}, which is gone"));
                }
            }
        }
        let live =
            |device: &Device| device.app.as_ref().is_some_and(|app| app.driver().rules.is_live());
        let live = self.devices.iter().filter(|device| live(device)).count();
        let sessions = process.hub.sessions();
        if (listed, sessions, live) != (DEVICES.len(), DEVICES.len(), DEVICES.len()) {
            let what = format!("{live} devices are live, {listed} listed, {sessions} counted");
            self.oracle.fail(what);
        }
        let connections: u64 =
            process.shards.iter().map(|shard| shard.shard.stats().connections).sum();
        if connections != DEVICES.len() as u64 {
            self.oracle.fail(format!("{connections} connections"));
        }
    }

    // ---- time

    fn plan(&mut self, delay: Duration, plan: Plan) {
        self.planned += 1;
        self.plans.insert((self.now + delay, self.planned), plan);
    }

    fn carry_out(&mut self, plan: Plan) {
        let now = self.now;
        if !matches!(plan, Plan::Commit) {
            self.tell(|| format!("{plan:?}"));
        }
        match plan {
            Plan::StartGateway => {
                if self.process.is_none() {
                    self.processes += 1;
                    let (disk, clock) = (self.disk.clone(), self.clock.clone());
                    let random = self.random.fork();
                    self.process = Some(Process::start(disk, clock, now, random));
                }
            }
            Plan::StartApp(at) => {
                let clock = self.clock.clone();
                let positions = self.devices[at].start(clock, now, &mut self.random);
                self.oracle.handle_started(at, positions);
                self.turn_app(at);
            }
            Plan::Reopen(at) => {
                if let Some(app) = &mut self.devices[at].app {
                    app.act(|phone, _| phone.reopen(now));
                    self.turn_app(at);
                }
            }
            Plan::Attend(at) => {
                if let Some(app) = &mut self.devices[at].app {
                    app.act(|phone, _| phone.lazy = false);
                    self.turn_app(at);
                }
            }
            Plan::Commit => {
                self.committing = false;
                let waiting = self.disk.memory.waiting();
                let count = match self.random.chance(70) {
                    true => waiting,
                    false => 1 + self.random.index(waiting),
                };
                self.disk.memory.commit_some(count);
            }
            Plan::OperatorComes if self.process.is_none() => self.disk.memory.crash(),
            Plan::OperatorComes => self.stop_process(),
            Plan::DrainEnds(process) => {
                if process == self.processes {
                    self.stop_process();
                }
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        let devices = self.devices.iter().filter_map(|device| device.next(self.now));
        let process = self.process.iter().filter_map(|process| process.next(self.now));
        let plans = self.plans.keys().next().map(|&(at, _)| at);
        devices.chain(process).chain(plans).chain(self.net.next()).min()
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.oracle.wrong.is_none() {
            let next = self.next().unwrap_or(end);
            if next > end {
                break;
            }
            self.rounds += 1;
            if self.rounds > MAX_ROUNDS {
                self.oracle.fail("it runs in circles");
            }
            self.now = self.now.max(next);
            self.clock.set(self.now - self.start);
            self.round();
        }
        self.now = self.now.max(end);
        self.clock.set(self.now - self.start);
    }

    fn round(&mut self) {
        while let Some(entry) = self.plans.first_entry().filter(|e| e.key().0 <= self.now) {
            let plan = entry.remove();
            self.carry_out(plan);
        }
        while let Some(datagram) = self.net.arrived(self.now) {
            self.deliver(datagram.from, datagram.to, datagram.data);
        }
        for at in 0..self.devices.len() {
            if self.devices[at].next(self.now).is_some_and(|due| due <= self.now) {
                self.turn_app(at);
            }
        }
        self.turn_gateway();
        if !self.committing && self.disk.memory.waiting() > 0 {
            self.committing = true;
            let delay = Duration::from_micros(200) + self.random.millis(self.commit_millis);
            self.plan(delay, Plan::Commit);
        }
    }

    fn deliver(&mut self, from: std::net::SocketAddr, to: std::net::SocketAddr, data: Vec<u8>) {
        if to == process::address() {
            if let Some(process) = &mut self.process {
                let shard = &mut process.shards[shard_of(&data, SHARDS)];
                // The socket's buffer.
                if shard.received.len() < 64 {
                    shard.received.push((from, data));
                }
            }
            return;
        }
        let device = self.devices.iter_mut().find(|device| device.address == to);
        if let Some(device) = device
            && device.cut_until <= self.now
            && device.app.is_some()
            && device.received.len() < 64
        {
            device.received.push((from, data));
        }
    }

    fn turn_app(&mut self, at: usize) {
        let now = self.now;
        let device = &mut self.devices[at];
        if device.frozen_until > now {
            return;
        }
        let Some(app) = &mut device.app else { return };
        let sent = app.turn(now, std::mem::take(&mut device.received));
        let heard = app.act(|phone, _| std::mem::take(&mut phone.heard));
        if device.cut_until <= now {
            for (to, data) in sent {
                self.net.send(now, device.address, to, data);
            }
        }
        for heard in heard {
            match heard {
                Heard::Event(event) => self.hear(at, event),
                Heard::Store(op) => self.devices[at].flash.write(op),
                Heard::GaveUp(code) if may_give_up(code) => {
                    let delay = self.random.millis(5000);
                    self.plan(delay, Plan::Reopen(at));
                }
                Heard::GaveUp(code) => {
                    self.oracle.fail(format!("device {at} gives up with {code:?}"));
                }
            }
        }
        let flash = &mut self.devices[at].flash;
        if self.random.chance(50) {
            flash.sync(flash.unsynced());
        }
    }

    fn hear(&mut self, at: usize, event: Event) {
        let dull = matches!(event, Event::Message { .. } | Event::Receipt { .. });
        if !dull {
            self.tell(|| format!("device {at}: {event:?}"));
        }
        self.oracle.handle_event(at, event, &self.disk);
    }

    fn turn_gateway(&mut self) {
        let now = self.now;
        let Some(process) = &mut self.process else { return };
        process.work(now);
        for shard in &mut process.shards {
            if shard.due(now).is_some_and(|due| due <= now) {
                let received = std::mem::take(&mut shard.received);
                for (to, data) in shard.shard.turn(now, received) {
                    self.net.send(now, process::address(), to, data);
                }
            }
        }
    }
}
