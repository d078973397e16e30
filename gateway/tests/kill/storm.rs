//! One run: users who talk all the time, a gateway that is killed at random moments and started
//! again on the same port and folder, applications that crash now and then.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skein_protocol::UserId;

use crate::chat::audit;
use crate::chat::checker::Checker;
use crate::chat::crowd::{Crowd, Habits};
use crate::chat::device::{Habit, Record};
use crate::support::process::{Gateway, Options, Starting};

/// Longest time for everything to be acknowledged, shown and marked once nobody kills any more.
const PATIENCE: Duration = Duration::from_secs(60);

const HABITS: Habits = Habits {
    fast: Habit { pause: Duration::from_millis(60), burst: 8 },
    slow: Habit { pause: Duration::from_millis(800), burst: 2 },
    answer_timeout: Duration::from_secs(10),
    most_waiting: 200,
};

/// What kind of run.
pub struct Plan {
    pub seed: u64,
    /// A planted bug of the gateway.
    pub bug: Option<&'static str>,
}

/// A gateway, or the time between two of them.
pub struct Storm {
    rng: StdRng,
    data: PathBuf,
    options: Options,
    gateway: Option<Gateway>,
    pub crowd: Crowd,
    pub kills: u32,
    /// Kills before the gateway served.
    pub kills_in_start: u32,
    /// How long the last start took.
    start_took: Duration,
    /// Removed last.
    _folder: tempfile::TempDir,
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
        let mut crowd = Crowd::new(&data, folder.path(), HABITS, rng.random());
        crowd.come(|_| gateway.address);
        Self {
            rng,
            data,
            options,
            gateway: Some(gateway),
            crowd,
            kills: 0,
            kills_in_start: 0,
            start_took: Duration::from_millis(100),
            _folder: folder,
        }
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
            self.crowd.crash_one();
        }
    }

    /// A fresh client of one user reads everything.
    pub fn audit_one(&mut self) {
        let user = self.crowd.any_user();
        self.audit(&user);
    }

    pub fn audit_all(&mut self) {
        for user in self.crowd.users().to_vec() {
            self.audit(&user);
        }
    }

    fn audit(&self, user: &UserId) {
        if let Some(gateway) = &self.gateway {
            audit(gateway, &self.data, user, &self.crowd.record);
        }
    }

    /// Nobody says anything new and nobody kills: everything that was begun must come to its end.
    pub fn settle(&mut self) {
        let Self { crowd, gateway, data, .. } = self;
        let Some(gateway) = gateway else { return };
        let (users, record) = (crowd.users().to_vec(), crowd.record.clone());
        crowd
            .settle(PATIENCE, || users.iter().find_map(|user| audit(gateway, data, user, &record)));
    }

    /// A device that has nothing yet joins each user.
    pub fn add_newcomers(&mut self) {
        if let Some(gateway) = &self.gateway {
            self.crowd.add_newcomers(|_| gateway.address);
        }
    }

    /// The window in which repeats are known without reading changes from start to start.
    fn options(&mut self) -> Options {
        let window = [0, 4, 64, 256][self.rng.random_range(0..4)];
        self.options.clone().env("SKEIN_DEDUP_WINDOW", window)
    }
}

/// A fresh client of this user reads everything; what is missing of its cursors.
fn audit(gateway: &Gateway, data: &Path, user: &UserId, record: &Record) -> Option<String> {
    let known = record.with(|checker| checker.known());
    let found = audit::read_all(gateway, data, user).unwrap();
    record.with(|checker| checker.audit(user, &known, &found));
    Checker::unmarked(&found)
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
