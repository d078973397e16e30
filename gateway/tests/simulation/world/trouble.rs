//! What goes wrong, and what people do meanwhile.

use std::collections::HashSet;
use std::time::{Duration, UNIX_EPOCH};

use skein_gateway::mail::Drain;
use skein_protocol::client::{HistoryRequest, Origin, Outgoing, SendError, Target};
use skein_protocol::{ClientMsgId, UserId};
use skein_storage::StoreError;

use super::{DEVICES, Plan, Site, World};
use crate::net::Weather;
use crate::process::{MAX_PAYLOAD, MAX_WAITING_BYTES, SHARDS};

/// Longer than anything is on its way: held by the store, by the network, in a thread that does not
/// run.
const RETENTION: Duration = Duration::from_secs(45);

impl World {
    pub(super) fn trouble(&mut self) {
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
            840..855 => {
                let gateway = self.random.index(self.gateways.len());
                self.crash(gateway);
            }
            855..860 => self.drain(),
            860..900 => self.stall(),
            900..925 => self.commit_millis = [1, 10, 300, 6000][self.random.index(4)],
            925..945 => {
                let count = 1 + self.random.index(4);
                let error = StoreError::Unavailable("simulated".into());
                self.disk.memory.fail_next_appends(count, &error);
            }
            945..950 => {
                self.disk.hold([5, 20, 100][self.random.index(3)]);
                let delay = self.random.millis(30_000);
                self.plan(delay, Plan::Release);
            }
            950..955 if self.gateways.len() == 1 => {
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
            970..980 => self.expire(),
            980..990 => self.reload(),
            _ => self.net.weather = Weather::any(&mut self.random),
        }
    }

    /// An operator gives a gateway other limits, under sessions that were told the old ones.
    fn reload(&mut self) {
        let at = self.random.index(self.gateways.len());
        if let Some(process) = &mut self.gateways[at].process {
            process.reload();
        }
    }

    /// Retention removes what is older than anything that is on its way.
    fn expire(&mut self) {
        let at = self.random.index(self.oracle.conversations.len());
        let id = self.oracle.conversations[at].0;
        let flash: HashSet<String> = self
            .devices
            .iter()
            .flat_map(|device| device.flash.outbox.iter().map(|message| message.id.to_string()))
            .collect();
        let now_ms = self.clock.now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let before_ms = now_ms - RETENTION.as_millis() as u64;
        let up_to = self.oracle.may_expire(id, before_ms, |named| flash.contains(named));
        self.disk.memory.expire(id, up_to);
        self.oracle.handle_expired(id, up_to);
        self.tell(|| format!("{id} expires up to {up_to}"));
    }

    /// The store takes what it is given and answers nothing, while people write on. They are told
    /// to try later, and the gateways hold no more than before.
    pub(super) fn hang(&mut self) {
        self.run(Duration::from_secs(2));
        self.disk.hold(100);
        let reads_fail = self.random.chance(50);
        self.disk.fail_reads(if reads_fail { 100 } else { 0 });
        for _ in 0..80 {
            let at = self.random.index(DEVICES.len());
            self.send(at);
            let pause = self.random.millis(1000);
            self.run(pause);
            for site in &self.gateways {
                let Some(process) = &site.process else { continue };
                let waiting = process.hub.waiting_bytes();
                if waiting > MAX_WAITING_BYTES {
                    self.oracle.fail(format!("{waiting} bytes wait"));
                }
            }
        }
        if !self.oracle.tally.contains_key("postponed 301") {
            self.oracle.fail("nobody was told to try later");
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

    /// `kill -9` of a gateway.
    pub(super) fn crash(&mut self, gateway: usize) {
        let is_alone = self.gateways.len() == 1;
        if is_alone && self.gateways[gateway].process.is_some() {
            if self.random.chance(50) {
                // The store is elsewhere. What the gateway has on its way there may come late, when
                // everybody has connected to the next one.
                return self.end_process(gateway, false);
            }
            if self.disk.waiting() > 0 {
                // The last append may have reached the disk, and nobody was told.
                let reaches = self.random.chance(50);
                self.disk.crash(reaches);
            }
        }
        self.end_process(gateway, is_alone);
    }

    pub(super) fn stop_process(&mut self, gateway: usize) {
        self.end_process(gateway, self.gateways.len() == 1);
    }

    /// The process is gone, and if so the machine with the disk as well.
    fn end_process(&mut self, gateway: usize, with_disk: bool) {
        self.count_process(gateway);
        if self.gateways[gateway].process.take().is_none() {
            return;
        }
        if with_disk {
            self.disk.crash(false);
            self.oracle.handle_crash();
        } else {
            self.disk.orphan(gateway);
        }
        let delay = self.random.millis(4000);
        self.plan(delay, Plan::StartGateway(gateway));
    }

    /// Takes the counters of the process over.
    pub(super) fn count_process(&mut self, gateway: usize) {
        let Some(process) = &self.gateways[gateway].process else { return };
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
        let gateway = self.random.index(self.gateways.len());
        let Site { process: Some(process), started } = &self.gateways[gateway] else { return };
        process.hub.drain(Drain { reconnect_spread_ms: 500 });
        let plan = Plan::DrainEnds(gateway, *started);
        let delay = self.random.millis(3000);
        self.plan(delay, plan);
    }

    /// A thread of a gateway does not run for a while: long enough, at times, for its clients to
    /// send again elsewhere what it has not read yet.
    fn stall(&mut self) {
        let most = if self.random.chance(30) { 12_000 } else { 1500 };
        let until = self.now + self.random.millis(most);
        let gateway = self.random.index(self.gateways.len());
        if let Some(process) = &mut self.gateways[gateway].process {
            process.shards[self.random.index(SHARDS)].stalled_until = until;
        }
    }

    /// All trouble is over.
    pub(super) fn heal(&mut self) {
        self.net.weather = Weather::default();
        self.disk.fail_reads(0);
        self.disk.hold(0);
        self.commit_millis = 4;
        for device in &mut self.devices {
            device.cut_until = self.now;
            device.frozen_until = self.now;
        }
        for at in 0..DEVICES.len() {
            self.plan(Duration::ZERO, Plan::Attend(at));
        }
    }
}
