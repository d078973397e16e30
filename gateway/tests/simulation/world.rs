//! Everything together, in one thread, under one clock.

mod trouble;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use skein_protocol::UserId;
use skein_protocol::client::{Event, Start};
use skein_transport::sim::shard_of;

use crate::device::Device;
use crate::net::Net;
use crate::oracle::{Oracle, Who};
use crate::phone::{Heard, may_give_up};
use crate::process::{self, Clock, Process, SHARDS};
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

/// Time in which everybody who is connected must hear of what is acknowledged, in peace.
const TOLD: Duration = Duration::from_secs(30);

/// Lines of the story that are kept.
const STORY: usize = 60;

/// Something that will happen.
#[derive(Debug)]
enum Plan {
    StartGateway(usize),
    StartApp(usize),
    Reopen(usize),
    Attend(usize),
    Commit,
    /// Outcomes that were long in coming come.
    Release,
    /// Of which gateway, and its how manieth process.
    DrainEnds(usize, u64),
    /// Restarts the gateway, whose store may have stopped.
    OperatorComes,
}

/// What happens in a world.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Life {
    /// Everything that can.
    Troubled { steps: usize },
    /// The store does not answer for a while.
    StoreHangs,
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

/// A place where a gateway runs.
#[derive(Default)]
struct Site {
    process: Option<Process>,
    /// Counts its processes.
    started: u64,
}

pub(crate) struct World {
    random: Random,
    now: Instant,
    start: Instant,
    clock: Arc<Clock>,
    disk: Arc<Disk>,
    net: Net,
    gateways: Vec<Site>,
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
    /// A world with so many gateways, which share a store.
    pub(crate) fn new(seed: u64, bug: Option<Bug>, gateways: usize) -> Self {
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
            gateways: (0..gateways).map(|_| Site::default()).collect(),
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
        for gateway in 0..gateways {
            world.plan(Duration::ZERO, Plan::StartGateway(gateway));
        }
        for at in 0..DEVICES.len() {
            world.plan(Duration::from_millis(at as u64), Plan::StartApp(at));
        }
        world
    }

    /// Trouble for so many steps, then peace; what was wrong, if anything.
    pub(crate) fn live(&mut self, life: Life) -> Result<(), Wrong> {
        match life {
            Life::Troubled { steps } => {
                for _ in 0..steps {
                    self.trouble();
                    let most = if self.random.chance(6) { 9000 } else { 120 };
                    let pause = self.random.millis(most);
                    self.run(pause);
                    self.oracle.check_disk(&self.disk);
                    self.verdict()?;
                }
            }
            Life::StoreHangs => self.hang(),
        }
        self.heal();
        self.settle(false)?;
        // Cursors may have been lost in trouble, and a new session tells them again; so once more
        // after a restart, in which nothing else may change.
        for gateway in 0..self.gateways.len() {
            self.crash(gateway);
        }
        self.settle(true)?;
        self.check_sessions();
        for gateway in 0..self.gateways.len() {
            self.count_process(gateway);
        }
        self.oracle.count("conflicts", self.disk.conflicts.load(Ordering::Relaxed));
        self.oracle.count("late", self.disk.late.load(Ordering::Relaxed));
        self.oracle.count("held", self.disk.held.load(Ordering::Relaxed));
        self.verdict()
    }

    fn verdict(&self) -> Result<(), Wrong> {
        let seen = |wrong| Err(Wrong::Seen(format!("{wrong}\n{}", self.story())));
        self.oracle.wrong.clone().map_or(Ok(()), seen)
    }

    fn settle(&mut self, cursors: bool) -> Result<(), Wrong> {
        let (peace, end) = (self.now, self.now + self.settle);
        loop {
            self.run(Duration::from_secs(5));
            self.oracle.check_disk(&self.disk);
            // Between two gateways nobody carries news.
            let peace = (self.gateways.len() == 1).then_some(peace);
            self.oracle.check_told(peace, self.now - TOLD);
            self.verdict()?;
            let installations: Vec<u32> = self.devices.iter().map(|d| d.installation).collect();
            let running = self.gateways.iter().all(|gateway| gateway.process.is_some());
            let is_late = self.disk.late.load(Ordering::Relaxed) > 0;
            let unsettled = if cursors || (self.gateways.len() == 1 && !is_late) {
                self.oracle.unsettled(&installations, cursors, &self.disk)
            } else {
                // No gateway hears of what another has written, alive or dead, so that who is
                // connected to it is told at the next login, or when it is acknowledged.
                let unanswered = self.oracle.unanswered(&installations);
                unanswered.or_else(|| self.oracle.untold_acks())
            };
            match unsettled {
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
        for Site { process, started } in &self.gateways {
            let sessions = process.as_ref().map(|process| process.hub.sessions());
            story.push(format!("gateway's process {started}, sessions {sessions:?}"));
        }
        story.join("\n")
    }

    /// Nobody is listed who is not there, and everybody who is there is listed.
    fn check_sessions(&mut self) {
        // Longer than a silent peer is kept; and a session may just have ended with its token.
        self.run(Duration::from_secs(40));
        let live =
            |device: &Device| device.app.as_ref().is_some_and(|app| app.driver().rules.is_live());
        let end = self.now + Duration::from_secs(10);
        while !self.devices.iter().all(live) && self.now < end {
            self.run(Duration::from_secs(1));
        }
        let (mut listed, mut sessions, mut connections) = (0, 0, 0);
        for site in &mut self.gateways {
            let Some(process) = &mut site.process else {
                return self.oracle.fail("a gateway does not run");
            };
            for user in ["ann", "bob", "cy"] {
                for conn in process.hub.connections_of(&UserId::parse(user).unwrap()) {
                    listed += 1;
                    let shard = &mut process.shards[conn.shard()].shard;
                    if !shard.act(|_, io| io.is_alive(conn)) {
                        self.oracle.fail(format!("{user} is listed under {conn}, which is gone"));
                    }
                }
            }
            sessions += process.hub.sessions();
            let stats = process.shards.iter().map(|shard| shard.shard.stats());
            connections += stats.map(|stats| stats.connections as usize).sum::<usize>();
        }
        let live = self.devices.iter().filter(|device| live(device)).count();
        if [listed, sessions, connections, live] != [DEVICES.len(); 4] {
            self.oracle.fail(format!(
                "{live} devices are live, {listed} listed, {sessions} counted, {connections} \
                 connections"
            ));
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
            Plan::StartGateway(gateway) => {
                let site = &mut self.gateways[gateway];
                if site.process.is_none() {
                    site.started += 1;
                    let (store, clock) = (self.disk.seat(gateway), self.clock.clone());
                    let random = self.random.fork();
                    site.process = Some(Process::start(gateway, store, clock, now, random));
                }
            }
            Plan::StartApp(at) => {
                let clock = self.clock.clone();
                let (gateways, random) = (self.gateways.len(), &mut self.random);
                let positions = self.devices[at].start(gateways, clock, now, random);
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
                let waiting = self.disk.waiting();
                let count = match self.random.chance(70) {
                    true => waiting,
                    false => 1 + self.random.index(waiting),
                };
                self.disk.commit(count);
            }
            Plan::Release => self.disk.hold(0),
            Plan::OperatorComes if self.gateways[0].process.is_none() => {
                self.disk.crash(false);
                self.oracle.handle_crash();
            }
            Plan::OperatorComes => self.stop_process(0),
            Plan::DrainEnds(gateway, process) => {
                if process == self.gateways[gateway].started {
                    self.stop_process(gateway);
                }
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        let devices = self.devices.iter().filter_map(|device| device.next(self.now));
        let processes = self.gateways.iter().filter_map(|gateway| gateway.process.as_ref());
        let processes = processes.filter_map(|process| process.next(self.now));
        let plans = self.plans.keys().next().map(|&(at, _)| at);
        devices.chain(processes).chain(plans).chain(self.net.next()).min()
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
        for gateway in 0..self.gateways.len() {
            self.turn_gateway(gateway);
        }
        if !self.committing && self.disk.waiting() > 0 {
            self.committing = true;
            let delay = Duration::from_micros(200) + self.random.millis(self.commit_millis);
            self.plan(delay, Plan::Commit);
        }
    }

    fn deliver(&mut self, from: std::net::SocketAddr, to: std::net::SocketAddr, data: Vec<u8>) {
        let sites = self.gateways.iter_mut().enumerate();
        let mut sites = sites.filter(|(gateway, _)| process::address(*gateway) == to);
        if let Some((_, site)) = sites.next() {
            if let Some(process) = &mut site.process {
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
        self.oracle.handle_event(at, event, &self.disk, self.now);
    }

    fn turn_gateway(&mut self, gateway: usize) {
        let now = self.now;
        let Some(process) = &mut self.gateways[gateway].process else { return };
        process.work(now);
        for shard in &mut process.shards {
            if shard.due(now).is_some_and(|due| due <= now) {
                let received = std::mem::take(&mut shard.received);
                for (to, data) in shard.shard.turn(now, received) {
                    self.net.send(now, process::address(gateway), to, data);
                }
            }
        }
    }
}
