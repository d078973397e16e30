//! One run: users who talk all the time, a gateway that is killed at random moments and started
//! again on the same port and folder, applications that crash now and then.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skein_protocol::UserId;

use crate::audit;
use crate::checker::Checker;
use crate::device::{App, Habit, Profile, Record, ca};
use crate::history::Device;
use crate::support::process::{Gateway, Options, Starting, token};

/// Longest time for everything to be acknowledged, shown and marked once nobody kills any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// What kind of run.
pub struct Plan {
    pub seed: u64,
    /// A planted bug of the gateway.
    pub bug: Option<&'static str>,
}

/// A gateway, or the time between two of them.
pub struct Storm {
    rng: StdRng,
    folder: tempfile::TempDir,
    data: PathBuf,
    options: Options,
    gateway: Option<Gateway>,
    apps: Vec<App>,
    users: Vec<UserId>,
    pub record: Record,
    pub kills: u32,
    /// Kills before the gateway served.
    pub kills_in_start: u32,
    pub crashes: u32,
    /// How long the last start took.
    start_took: Duration,
}

impl Storm {
    pub fn new(plan: &Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("gateway");
        std::fs::create_dir(&data).unwrap();
        let mut rng = StdRng::seed_from_u64(plan.seed);
        let mut options = Options::default()
            .env("SKEIN_SESSION__HEARTBEAT_INTERVAL", "1s")
            .env("SKEIN_STORE__JOURNAL_BYTES", "64MiB");
        if let Some(bug) = plan.bug {
            options = options.env("SKEIN_PLANTED_BUG", bug);
        }
        let gateway = first_start(&data, &mut options, &mut rng);
        let mut storm = Self {
            rng,
            folder,
            data,
            options,
            gateway: Some(gateway),
            apps: Vec::new(),
            users: Vec::new(),
            record: Record::default(),
            kills: 0,
            kills_in_start: 0,
            crashes: 0,
            start_took: Duration::from_millis(100),
        };
        storm.start_apps();
        storm
    }

    /// Lets it run for a while, kills it, starts it again; sometimes once more before it serves.
    pub fn strike(&mut self) {
        let up = match self.rng.random_range(0..10) {
            0..2 => self.rng.random_range(0..30),
            2..9 => self.rng.random_range(30..1200),
            _ => self.rng.random_range(1200..2500),
        };
        std::thread::sleep(Duration::from_millis(up));
        if let Some(gateway) = self.gateway.take() {
            gateway.kill();
            self.kills += 1;
        }
        while self.rng.random_ratio(1, 4) {
            let options = self.options();
            let starting = Starting::spawn(&self.data, &options);
            let longest = self.start_took.as_micros() as u64;
            let wait = Duration::from_micros(self.rng.random_range(0..=longest));
            std::thread::sleep(wait);
            starting.kill();
            self.kills += 1;
            self.kills_in_start += 1;
        }
        let began = Instant::now();
        let options = self.options();
        self.gateway = Some(Gateway::start(&self.data, &options));
        self.start_took = began.elapsed();
        if self.rng.random_ratio(1, 3) {
            let at = self.rng.random_range(0..self.apps.len());
            self.apps[at].crash();
            self.crashes += 1;
        }
    }

    /// A fresh client of one user reads everything.
    pub fn audit_one(&mut self) {
        let user = self.users[self.rng.random_range(0..self.users.len())].clone();
        self.audit(&user);
    }

    pub fn audit_all(&mut self) {
        for user in self.users.clone() {
            self.audit(&user);
        }
    }

    fn audit(&mut self, user: &UserId) -> Option<String> {
        let gateway = self.gateway.as_ref()?;
        let known = self.record.with(|checker| checker.known());
        let found = audit::read_all(gateway, &self.data, user);
        self.record.with(|checker| checker.audit(user, &known, &found));
        Checker::unmarked(&found)
    }

    /// Nobody says anything new and nobody kills: everything that was begun must come to its end.
    pub fn settle(&mut self) {
        self.apps.iter().for_each(App::hush);
        let until = Instant::now() + PATIENCE;
        let missing = loop {
            let missing = self.record.with(|checker| checker.unsettled()).or_else(|| {
                let mut users = self.users.clone().into_iter();
                users.find_map(|user| self.audit(&user))
            });
            if missing.is_none() || Instant::now() > until {
                break missing;
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        self.record.with(|checker| checker.finish(missing));
    }

    /// The window in which repeats are known without reading changes from start to start.
    fn options(&mut self) -> Options {
        let window = [0, 4, 64, 256][self.rng.random_range(0..4)];
        self.options.clone().env("SKEIN_DEDUP_WINDOW", window)
    }

    fn start_apps(&mut self) {
        let fast = Habit { pause: Duration::from_millis(60), burst: 8 };
        let slow = Habit { pause: Duration::from_millis(800), burst: 2 };
        // Alice and bob talk without end, others now and then; erin also with herself.
        let devices = [
            ("alice", "phone", fast, [("bob", 8), ("carol", 2)]),
            ("alice", "laptop", fast, [("bob", 8), ("dave", 1)]),
            ("bob", "phone", fast, [("alice", 8), ("carol", 1)]),
            ("bob", "tablet", slow, [("alice", 1), ("erin", 1)]),
            ("carol", "phone", slow, [("alice", 1), ("dave", 1)]),
            ("dave", "phone", slow, [("carol", 1), ("erin", 1)]),
            ("erin", "phone", slow, [("dave", 1), ("erin", 1)]),
            ("erin", "watch", slow, [("alice", 1), ("erin", 1)]),
        ];
        for (user, name, habit, peers) in devices {
            let peers = peers.map(|(peer, weight)| (UserId::parse(peer).unwrap(), weight));
            self.start_app(Device::new(user, name), habit, &peers);
        }
    }

    fn start_app(&mut self, device: Device, habit: Habit, peers: &[(UserId, u32)]) {
        let Some(address) = self.gateway.as_ref().map(|gateway| gateway.address) else { return };
        let (user, name) = (device.user.as_str(), device.name.as_str());
        let hours = Duration::from_secs(24 * 3600);
        let profile = Profile {
            peers: peers.to_vec(),
            habit,
            server: address.to_string(),
            token: token(&self.data, user, Some(name), hours, SystemTime::now()),
            ca: ca(&self.data),
            dir: self.folder.path().join(format!("{user}-{name}")),
            device: device.clone(),
        };
        let seed = self.rng.random();
        self.apps.push(App::start(profile, self.record.clone(), seed));
        if !self.users.contains(&device.user) {
            self.users.push(device.user);
        }
    }

    /// A device that has nothing yet joins each user.
    pub fn add_newcomers(&mut self) {
        let habit = Habit { pause: Duration::from_secs(2), burst: 1 };
        for user in self.users.clone() {
            let device = Device::new(user.as_str(), "newcomer");
            self.start_app(device, habit, &[(user, 1)]);
        }
    }
}

/// The port stays over all restarts, so it is outside those that the system hands out: a client
/// could get it while no gateway has it.
fn first_start(data: &Path, options: &mut Options, rng: &mut StdRng) -> Gateway {
    for _ in 0..20 {
        let port = rng.random_range(10_000..30_000) ^ (std::process::id() as u16 & 0xff);
        options.listen = Some(SocketAddr::from(([127, 0, 0, 1], port)));
        if let Some(gateway) = Gateway::try_start(data, options) {
            return gateway;
        }
    }
    panic!("no port is free");
}
