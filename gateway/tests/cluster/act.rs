//! One run on a keyspace of its own: gateways, users who talk all the time, and faults.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skein_protocol::UserId;
use tokio::runtime::Runtime;

use crate::chat::audit;
use crate::chat::checker::{Checker, Kind, Known};
use crate::chat::crowd::{Crowd, Habits};
use crate::chat::device::{Habit, Record};
use crate::chat::history::Device;
use crate::gateways::Gateways;
use crate::site::Site;
use crate::support::process::Gateway;
use crate::switch::Switch;

/// Four messages a second from each of three devices, one in two seconds from the others: what
/// three servers and all clients on two cores can take, and never a moment without an append.
const HABITS: Habits = Habits {
    fast: Habit { pause: Duration::from_millis(600), burst: 3 },
    slow: Habit { pause: Duration::from_secs(3), burst: 2 },
    answer_timeout: Duration::from_secs(4),
    most_waiting: 20,
};

/// Longest time until a cluster that is whole again has answered whatever was sent before, and
/// until all devices have everything at the end.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at what has come of it.
const STEP: Duration = Duration::from_millis(20);

/// A gateway may not have more memory than this, whatever happens: a debug build with a few
/// devices has a quarter of it.
const MOST_MEMORY: u64 = 256 << 20;

/// What kind of run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// Gateways, 1 or 2.
    pub gateways: usize,
    /// A planted bug of the gateways.
    pub bug: Option<&'static str>,
    /// Further settings of the gateways.
    pub settings: Vec<(&'static str, String)>,
}

impl Plan {
    pub fn new(seed: u64, gateways: usize) -> Self {
        Self { seed, gateways, bug: None, settings: Vec::new() }
    }
}

pub struct Act<'a> {
    pub site: &'a Site,
    pub rng: StdRng,
    pub crowd: Crowd,
    pub gateways: Gateways,
    switches: Vec<Switch>,
    pub moves: u32,
    runtime: Runtime,
    /// Removed last.
    _folder: tempfile::TempDir,
}

impl<'a> Act<'a> {
    pub fn new(site: &'a Site, plan: &Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = StdRng::seed_from_u64(plan.seed);
        let mut options = site.options(&site.new_keyspace());
        for (name, value) in &plan.settings {
            options = options.env(name, value);
        }
        if let Some(bug) = plan.bug {
            options = options.env("SKEIN_PLANTED_BUG", bug);
        }
        let gateways = Gateways::start(folder.path(), plan.gateways, options, &mut rng);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let crowd = Crowd::new(gateways.data(), folder.path(), HABITS, rng.random());
        let switches = Vec::new();
        let mut act =
            Self { site, rng, crowd, gateways, switches, moves: 0, runtime, _folder: folder };
        act.meet(|crowd, server| crowd.come(server));
        act
    }

    /// Devices come, each with a switch of its own.
    fn meet(&mut self, come: impl FnOnce(&mut Crowd, &mut dyn FnMut(&Device) -> SocketAddr)) {
        let Self { crowd, gateways, switches, rng, runtime, .. } = self;
        come(crowd, &mut |_| {
            let alive = gateways.alive();
            let at = alive[rng.random_range(0..alive.len())];
            let switch = Switch::start(runtime.handle(), gateways.address(at).unwrap());
            let address = switch.address;
            switches.push(switch);
            address
        });
    }

    pub fn record(&self) -> Record {
        self.crowd.record.clone()
    }

    /// Life goes on until this is so; devices move from gateway to gateway, which is how they
    /// learn what others wrote elsewhere. `false`: it was not so in time.
    pub fn live(&mut self, patience: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let until = Instant::now() + patience;
        loop {
            if done(self) {
                return true;
            }
            if Instant::now() > until {
                return false;
            }
            if self.gateways.len() > 1 && self.rng.random_ratio(1, 15) {
                self.move_one();
            }
            if self.rng.random_ratio(1, 1000) {
                self.crowd.crash_one();
            }
            std::thread::sleep(STEP);
        }
    }

    /// Life goes on for this long.
    pub fn live_for(&mut self, time: Duration) {
        self.live(time, |_| false);
    }

    /// Life goes on while `work` is done elsewhere.
    pub fn live_while<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let working = scope.spawn(work);
            self.live(Duration::MAX / 4, |_| working.is_finished());
            working.join().unwrap()
        })
    }

    /// Life goes on until so many more messages are acknowledged.
    pub fn live_until_acked(&mut self, more: u64, patience: Duration) -> bool {
        let acked = |act: &Self| act.crowd.record.with(|checker| checker.figures().1);
        let enough = acked(self) + more;
        self.live(patience, |act| acked(act) >= enough)
    }

    fn move_one(&mut self) {
        let alive = self.gateways.alive();
        if alive.is_empty() {
            return;
        }
        let to = alive[self.rng.random_range(0..alive.len())];
        let at = self.rng.random_range(0..self.switches.len());
        if let Some(address) = self.gateways.address(to)
            && self.switches[at].leads_to() != address
        {
            self.switches[at].lead_to(address);
            self.moves += 1;
        }
    }

    /// Devices that are led there are led to gateways that run.
    pub fn lead_away(&mut self, from: SocketAddr) {
        let alive: Vec<SocketAddr> =
            self.gateways.alive().into_iter().filter_map(|at| self.gateways.address(at)).collect();
        for (index, switch) in self.switches.iter().enumerate() {
            if switch.leads_to() == from && !alive.is_empty() {
                switch.lead_to(alive[index % alive.len()]);
                self.moves += 1;
            }
        }
    }

    /// It starts again; its devices are led to it, unless they have found another.
    pub fn restart_gateway(&mut self, at: usize) {
        let old: Vec<SocketAddr> = self.switches.iter().map(Switch::leads_to).collect();
        self.gateways.restart(at, &mut self.rng);
        let alive: Vec<SocketAddr> =
            self.gateways.alive().into_iter().filter_map(|at| self.gateways.address(at)).collect();
        // Whoever was led to where nobody is any more is led to the new one.
        if let Some(address) = self.gateways.address(at) {
            for (switch, old) in self.switches.iter().zip(old) {
                if !alive.contains(&old) {
                    switch.lead_to(address);
                }
            }
        }
    }

    /// Nothing is broken any more: whatever was accepted before is acknowledged soon.
    pub fn recover(&mut self) {
        let mark = self.crowd.record.with(|checker| checker.mark());
        let waiting = move |act: &mut Self| act.crowd.record.with(|c| c.waiting_since(mark));
        if !self.live(PATIENCE, |act| waiting(act).is_none()) {
            let waiting = waiting(self).unwrap_or_default();
            let what = format!("{PATIENCE:?} after the fault was over: {waiting}");
            self.crowd.record.with(|checker| checker.report(Kind::Unsettled, what));
        }
    }

    /// A fresh client of one user reads everything on one gateway.
    pub fn audit_one(&mut self) {
        let user = self.crowd.any_user();
        let alive = self.gateways.alive();
        let at = alive[self.rng.random_range(0..alive.len())];
        self.audit(&user, at);
    }

    /// One of each user, on all gateways.
    pub fn audit_all(&mut self) {
        for user in self.crowd.users().to_vec() {
            for at in self.gateways.alive() {
                self.audit(&user, at);
            }
        }
    }

    fn audit(&mut self, user: &UserId, at: usize) {
        let record = self.record();
        let mut last = String::new();
        let done = self.live(PATIENCE, |act| {
            let Some(gateway) = act.gateways.get(at) else { return true };
            match audit(gateway, act.gateways.data(), user, &record) {
                Ok(_) => true,
                Err(error) => {
                    last = error;
                    false
                }
            }
        });
        if !done {
            let what = format!("a fresh client of {user} cannot read: {last}");
            record.with(|checker| checker.report(Kind::Unsettled, what));
        }
    }

    /// A device that has nothing yet joins each user; then nobody says anything new: everything
    /// must come to its end.
    pub fn settle(&mut self) {
        self.meet(|crowd, server| crowd.add_newcomers(server));
        self.crowd.hush();
        let unsettled = |act: &mut Self| act.crowd.record.with(|checker| checker.unsettled());
        self.live(PATIENCE, |act| unsettled(act).is_none());
        let mut missing = unsettled(self);
        if missing.is_none() {
            self.live(PATIENCE, |act| {
                missing = act.unmarked();
                missing.is_none()
            });
        }
        self.crowd.record.with(|checker| checker.finish(missing));
    }

    /// Nobody says anything for a while: then all know what was said before.
    pub fn fall_silent(&mut self, patience: Duration) {
        self.crowd.hush();
        let unsettled = |act: &mut Self| act.crowd.record.with(|checker| checker.unsettled());
        self.live(patience, |act| unsettled(act).is_none());
        if let Some(what) = unsettled(self) {
            self.crowd.record.with(|checker| checker.report(Kind::Unsettled, what));
        }
        self.crowd.unhush();
    }

    /// What fresh clients of all users miss of cursors.
    fn unmarked(&mut self) -> Option<String> {
        let record = self.record();
        let users = self.crowd.users().to_vec();
        for at in self.gateways.alive() {
            let gateway = self.gateways.get(at)?;
            for user in &users {
                match audit(gateway, self.gateways.data(), user, &record) {
                    Ok(None) => {}
                    Ok(Some(missing)) => return Some(missing),
                    Err(error) => return Some(error),
                }
            }
        }
        None
    }

    /// Memory stays in its bounds, whatever was broken.
    pub fn check_memory(&self) {
        for peak in self.gateways.peaks() {
            assert!(peak < MOST_MEMORY, "a gateway has had {} MiB", peak >> 20);
        }
    }

    pub fn is_clean(&self) -> bool {
        self.crowd.record.with(|checker| checker.counts().is_empty())
    }

    pub fn has_any(&self, kinds: &[Kind]) -> bool {
        self.crowd.record.with(|checker| kinds.iter().any(|&kind| checker.has(kind)))
    }
}

/// A fresh client of this user reads everything; what is missing of its cursors.
fn audit(
    gateway: &Gateway,
    data: &std::path::Path,
    user: &UserId,
    record: &Record,
) -> Result<Option<String>, String> {
    let known: Known = record.with(|checker| checker.known());
    let found = audit::read_all(gateway, data, user)?;
    record.with(|checker| checker.audit(user, &known, &found));
    Ok(Checker::unmarked(&found))
}
