//! Who talks with whom in a run, and when it has come to its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skein_protocol::UserId;

use super::device::{App, Habit, Profile, Record, ca};
use super::history::Device;
use crate::support::process::token;

/// How often it is looked whether all that was begun has come to its end.
const STEP: Duration = Duration::from_millis(100);

/// The longest run, as tokens know it.
const TOKENS_LAST: Duration = Duration::from_secs(24 * 3600);

/// How much those who talk all the time have to say, and the others; and what all have in common.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    pub fast: Habit,
    pub slow: Habit,
    /// After this time without an answer a message is sent again on the same connection.
    pub answer_timeout: Duration,
    /// Messages of a device that may wait for their acknowledgement before it falls silent.
    pub most_waiting: usize,
}

/// The users, their devices, and what all of them have seen.
pub struct Crowd {
    rng: StdRng,
    /// The gateways' folder with the certificate and the key of tokens.
    data: PathBuf,
    /// Where the devices keep their files.
    folder: PathBuf,
    habits: Habits,
    apps: Vec<App>,
    users: Vec<UserId>,
    pub record: Record,
    pub crashes: u32,
}

impl Crowd {
    /// Nobody yet.
    pub fn new(data: &Path, folder: &Path, habits: Habits, seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            data: data.into(),
            folder: folder.into(),
            habits,
            apps: Vec::new(),
            users: Vec::new(),
            record: Record::default(),
            crashes: 0,
        }
    }

    /// Five users on eight devices. `server` tells to which address a device connects.
    pub fn come(&mut self, mut server: impl FnMut(&Device) -> SocketAddr) {
        let Habits { fast, slow, .. } = self.habits;
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
            let device = Device::new(user, name);
            let peers = peers.map(|(peer, weight)| (UserId::parse(peer).unwrap(), weight));
            let server = server(&device);
            self.start(device, habit, &peers, server);
        }
    }

    /// A device that has nothing yet joins each user, and says little.
    pub fn add_newcomers(&mut self, mut server: impl FnMut(&Device) -> SocketAddr) {
        let habit = Habit { pause: Duration::from_secs(2), burst: 1 };
        for user in self.users.clone() {
            let device = Device::new(user.as_str(), "newcomer");
            let server = server(&device);
            self.start(device, habit, &[(user, 1)], server);
        }
    }

    fn start(&mut self, device: Device, habit: Habit, peers: &[(UserId, u32)], server: SocketAddr) {
        let (user, name) = (device.user.as_str(), device.name.as_str());
        let profile = Profile {
            peers: peers.to_vec(),
            habit,
            server: server.to_string(),
            token: token(&self.data, user, Some(name), TOKENS_LAST, SystemTime::now()),
            ca: ca(&self.data),
            answer_timeout: self.habits.answer_timeout,
            most_waiting: self.habits.most_waiting,
            dir: self.folder.join(format!("{user}-{name}")),
            device: device.clone(),
        };
        self.apps.push(App::start(profile, self.record.clone(), self.rng.random()));
        if !self.users.contains(&device.user) {
            self.users.push(device.user);
        }
    }

    pub fn users(&self) -> &[UserId] {
        &self.users
    }

    pub fn any_user(&mut self) -> UserId {
        self.users[self.rng.random_range(0..self.users.len())].clone()
    }

    /// One application crashes and starts again.
    pub fn crash_one(&mut self) {
        let at = self.rng.random_range(0..self.apps.len());
        self.apps[at].crash();
        self.crashes += 1;
    }

    /// Nothing new is said from now on.
    pub fn hush(&self) {
        self.apps.iter().for_each(App::hush);
    }

    /// All go on talking.
    pub fn unhush(&self) {
        self.apps.iter().for_each(App::unhush);
    }

    /// Nobody says anything new: everything that was begun must come to its end within `patience`.
    /// `unfinished` tells what else is not yet as it must be.
    pub fn settle(&mut self, patience: Duration, mut unfinished: impl FnMut() -> Option<String>) {
        self.hush();
        let until = Instant::now() + patience;
        let missing = loop {
            let missing = self.record.with(|checker| checker.unsettled()).or_else(&mut unfinished);
            if missing.is_none() || Instant::now() > until {
                break missing;
            }
            std::thread::sleep(STEP);
        };
        self.record.with(|checker| checker.finish(missing));
    }
}
