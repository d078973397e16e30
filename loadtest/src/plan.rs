//! What a run is going to do, down to the last figure. A scenario expands to this; nothing behind
//! it reads TOML or flags.
//!
//! A run has four phases, and only the third is measured:
//!
//! ```text
//! ramp      sessions are made, at the fleets' connect rates
//! warm_up   the load runs, so that caches, windows and the store are as they will be
//! measured  what the report is about
//! drain     nothing new is begun; what is under way may still arrive, what is missing then is asked
//!           for
//! ```

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::share::RunId;
use crate::verify::MIN_PAYLOAD;

/// Everything about one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The run: the same for all machines that have a share of it.
    pub id: RunId,
    /// Name of the scenario, for reports.
    pub scenario: String,
    /// Where the load goes.
    pub target: Target,
    /// Who the users are.
    pub identity: Identity,
    /// What they do. At least one.
    pub fleets: Vec<Fleet>,
    /// How long.
    pub phases: Phases,
    /// Instead of one measured phase: the load is raised step by step until it is too much.
    pub ladder: Option<Ladder>,
    /// Threads, each with a socket of its own; 0: one a processor.
    pub shards: usize,
    /// What is begun later than this after it was due counts as late.
    #[serde(with = "seconds")]
    pub late_after: Duration,
    /// What cannot be begun so long after it was due is dropped: counted, never sent. Bounds what a
    /// generator that fell behind tries to catch up on.
    #[serde(with = "seconds")]
    pub drop_after: Duration,
    /// A message without an answer after this counts as failed (it is still checked if it comes).
    #[serde(with = "seconds")]
    pub answer_timeout: Duration,
    /// Handshakes and logins that may be under way at once, in all. Those that are due beyond wait,
    /// and so become late. Bounds the burst that a generator sends.
    pub max_connecting: usize,
    /// Sessions that come back resume with the ticket of their own last connection. Otherwise every
    /// connection pays for a whole handshake, as first ones always do.
    #[serde(default)]
    pub tickets: bool,
    /// Of everything that is drawn: arrival times, think times, sizes, who is slow.
    pub seed: u64,
    /// From where on the generator is itself the limit.
    #[serde(default)]
    pub bounds: Bounds,
}

/// From where on a generator is itself the limit, so that its figures say nothing of the target.
/// Others are not for a plan to choose: see `health`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bounds {
    /// Share of what was begun that may be late, 0 to 1. With more the load was another than the one
    /// that was asked for.
    pub late: f64,
    /// Share of a core that a shard's thread may use over the measured phase, 0 to 1. Beyond it
    /// whatever arrives waits for the generator.
    pub shard_cpu: f64,
    /// Share of the measured phase for which a shard's thread may wait for a core, 0 to 1. Beyond it
    /// latencies are those of the generator's machine, unless the target shares its cores.
    pub shard_wait: f64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { late: 0.01, shard_cpu: 0.95, shard_wait: 0.1 }
    }
}

/// The gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Addresses; sessions take them in turns.
    pub addresses: Vec<SocketAddr>,
    /// Name in the certificate.
    pub server_name: String,
    /// Which certificates are believed.
    pub trust: Trust,
}

/// Which certificates are believed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Those that this system trusts.
    System,
    /// Those whose chain ends in one of these, in PEM. The text, not a path: it also goes to other
    /// machines.
    Pem(String),
}

/// Who the users are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Names this run in user names, message ids and payloads, so that runs on one store do not
    /// meet: 1 - 16 of `[a-z0-9]`.
    pub run: String,
    /// Number of the first user; agents of one run have different ones.
    pub first_user: u64,
    /// Tokens.
    pub credentials: Credentials,
}

/// Where tokens come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credentials {
    /// Signed here, when a session needs one. User `n` is called `{run}-{n}`.
    Signed {
        /// Private key in PEM (Ed25519, or P-256 in PKCS#8), or at least 32 bytes of a shared secret.
        key: Secret,
        /// How to sign.
        algorithm: Algorithm,
        /// `kid` of the header.
        key_id: Option<String>,
        /// `aud`.
        audience: String,
        /// `iss`.
        issuer: Option<String>,
        /// From the signature to `exp`. Sessions ask for a new one in time.
        #[serde(with = "seconds")]
        lifetime: Duration,
    },
    /// One token a user, in order. The user is its `sub`. A run that needs more users cannot begin.
    Listed(Vec<Secret>),
}

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// ECDSA on P-256.
    #[serde(rename = "ES256")]
    Es256,
    /// A shared secret.
    #[serde(rename = "HS256")]
    Hs256,
}

/// A text that stays out of logs. It is serialised, because agents need it: see
/// [`Plan::without_secrets`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How long the phases are. The ramp takes as long as the sessions need, or fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// The ramp may take this; sessions that are not there then have failed.
    #[serde(with = "seconds")]
    pub ramp_limit: Duration,
    /// Before the load, with all sessions idle: lets memory come to rest, so that it can be read.
    #[serde(with = "seconds")]
    pub settle: Duration,
    /// The load runs unmeasured.
    #[serde(with = "seconds")]
    pub warm_up: Duration,
    /// The load is measured.
    #[serde(with = "seconds")]
    pub measured: Duration,
    /// At most this for what is under way at the end.
    #[serde(with = "seconds")]
    pub drain: Duration,
    /// Share of the sessions at which the ramp also settles, 0 to 1, 0 for never: the lower point
    /// of the slope from which the memory of a session is read.
    pub plateau: f64,
}

/// Loads that rise until an objective breaks. The fleets that write at a rate share each load in the
/// proportion of their rates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ladder {
    /// Messages a second of the first step.
    pub first: f64,
    /// The search ends here at the latest.
    pub last: f64,
    /// From one step to the next.
    pub rise: Rise,
    /// Steps behind the first bad one, each half way between the last good and the first bad load.
    pub refine: u32,
    /// Each step runs so long before it is measured,
    #[serde(with = "seconds")]
    pub settle: Duration,
    /// and is measured for so long, a second at least.
    #[serde(with = "seconds")]
    pub hold: Duration,
    /// A step at which a smaller share of the load than this is acknowledged is not good.
    pub least_share: f64,
}

/// How a ladder rises.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rise {
    /// By so many messages a second.
    Add(f64),
    /// By this factor.
    Multiply(f64),
}

impl Ladder {
    /// The loads, at most 1,000.
    pub fn loads(&self) -> Vec<f64> {
        const MOST: usize = 1000;
        let next = |load: &f64| match self.rise {
            Rise::Add(step) => Some(load + step.max(1.0)),
            Rise::Multiply(factor) => Some(load * factor.max(1.01)),
        };
        std::iter::successors(Some(self.first.max(1.0)), next)
            .take_while(|load| *load <= self.last)
            .take(MOST)
            .collect()
    }
}

/// Sessions that do the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    /// For reports, unique in the plan.
    pub name: String,
    /// What they do.
    pub work: Work,
    /// New sessions a second during the ramp.
    pub connect_rate: f64,
    /// Part of the sessions that misbehaves as networks and phones do.
    pub manners: Manners,
}

/// What a fleet does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Work {
    /// Idle sessions that are heard once in a heartbeat interval.
    Hold {
        /// How many.
        sessions: u64,
    },
    /// Pairs of users, one session each, who write to each other.
    Chat {
        /// How many pairs.
        pairs: u64,
        /// The second of a pair writes too, in turns with the first.
        both_ways: bool,
        /// What is written.
        traffic: Traffic,
    },
    /// One writer and many receiving sessions that share a conversation.
    Group {
        /// How many of these.
        groups: u64,
        /// Sessions that get each message. As long as the protocol has no groups these are the
        /// devices of the writer and of one other user, half and half; see docs/load-testing.md.
        receivers: u64,
        /// What is written, in all groups together.
        traffic: Traffic,
    },
    /// All sessions are lost at once and come back.
    Storm {
        /// How many.
        sessions: u64,
        /// How they are lost.
        cut: Cut,
        /// When, from the start of the measured phase.
        #[serde(with = "seconds")]
        after: Duration,
        /// They come back evenly over this time, from the moment the target can be reached again;
        /// 0: all at once, within `max_connecting`.
        #[serde(with = "seconds")]
        return_over: Duration,
    },
    /// Messages wait for users that are offline; then they log in.
    Sync {
        /// Users who log in.
        receivers: u64,
        /// Messages that wait for each.
        backlog: u64,
        /// Messages that each writer has under way while the backlog is made, before the
        /// measured phase.
        outstanding: u32,
        /// Length of their payloads, bytes.
        payload_bytes: RangeInclusive<u32>,
        /// Logins a second in the measured phase. A user who has synced logs out, and comes again
        /// as a new device with nothing, for as long as the phase lasts.
        login_rate: f64,
    },
    /// Sessions come and go.
    Churn {
        /// Present at a time.
        sessions: u64,
        /// Leave, and as many come, a second.
        rate: f64,
    },
}

/// How the sessions of a storm are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// This side closes them all.
    Close,
    /// The gateway is killed and started again, through
    /// the hook of the run. All sessions notice at once.
    Kill,
    /// The gateway is told to stop, says goodbye, and is started again.
    Stop,
    /// Somebody else restarts it. Each session comes back when it notices.
    Await,
}

/// What a fleet writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// How much.
    pub load: Load,
    /// Length of a payload, bytes, drawn evenly. Less than
    /// `verify::MIN_PAYLOAD` is raised to it: what is checked must fit.
    pub payload_bytes: RangeInclusive<u32>,
}

/// How much is written.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Open loop: so many messages a second by the fleet together, whatever is answered.
    Rate {
        /// Messages a second.
        per_second: f64,
        /// How they are spread.
        arrival: Arrival,
    },
    /// Closed loop: each writer has so many under way. Finds the most that the target can do; its
    /// latency figures hide what a user would feel, and reports say so.
    Outstanding(u32),
    /// Each writer waits this long on average (exponentially distributed) after one message is due
    /// before the next is: open loop as well.
    Think {
        /// Mean time between two messages of a writer.
        #[serde(with = "seconds")]
        mean: Duration,
    },
}

/// How messages are spread over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// At equal distances.
    #[default]
    Even,
    /// As independent users would: exponentially distributed distances.
    Poisson,
}

/// Shares of a fleet, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manners {
    /// Read what comes only once in [`SLOW_READ`]. Their deliveries are checked, and their times
    /// left out of the histograms.
    pub slow: f64,
    /// Never say anything after the login, and so are closed by the gateway. Their ends are
    /// expected, and are not counted as lost sessions.
    pub silent: f64,
}

/// How often a slow session reads.
pub const SLOW_READ: Duration = Duration::from_secs(1);

impl Default for Phases {
    fn default() -> Self {
        Self {
            ramp_limit: Duration::from_secs(600),
            settle: Duration::from_secs(1),
            warm_up: Duration::from_secs(3),
            measured: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            plateau: 0.0,
        }
    }
}

impl Plan {
    /// A plan of a new run with the usual limits, without fleets.
    pub fn new(scenario: &str, target: Target, identity: Identity) -> Self {
        Self {
            id: RunId::random(),
            scenario: scenario.to_owned(),
            target,
            identity,
            fleets: Vec::new(),
            phases: Phases::default(),
            ladder: None,
            shards: 0,
            late_after: Duration::from_millis(10),
            drop_after: Duration::from_secs(1),
            answer_timeout: Duration::from_secs(10),
            max_connecting: 1024,
            tickets: false,
            seed: 1,
            bounds: Bounds::default(),
        }
    }

    /// Sessions of all fleets together.
    pub fn sessions(&self) -> u64 {
        self.fleets.iter().map(|fleet| fleet.work.sessions()).sum()
    }

    /// The same with those that are not there from the beginning.
    pub fn all_sessions(&self) -> u64 {
        let later = |fleet: &Fleet| match fleet.work {
            Work::Sync { receivers, .. } => receivers,
            _ => 0,
        };
        self.sessions() + self.fleets.iter().map(later).sum::<u64>()
    }

    /// Users of all fleets together.
    pub fn users(&self) -> u64 {
        self.fleets.iter().map(|fleet| fleet.work.users()).sum()
    }

    /// Messages a second that are due in the measured phase, if a timetable says so.
    pub fn offered(&self) -> Option<f64> {
        if self.ladder.is_some() {
            return None;
        }
        let offered = self.fleets.iter().filter_map(|fleet| {
            match (fleet.work.traffic()?.load, &fleet.work) {
                (Load::Rate { per_second, .. }, _) => Some(Some(per_second)),
                (Load::Think { mean }, work) if !mean.is_zero() => {
                    Some(Some(work.writers() as f64 / mean.as_secs_f64()))
                }
                _ => Some(None),
            }
        });
        let offered: Option<Vec<f64>> = offered.collect();
        offered.filter(|rates| !rates.is_empty()).map(|rates| rates.iter().sum())
    }

    /// The same plan for a report: no key, no token.
    pub fn without_secrets(&self) -> Self {
        let mut plan = self.clone();
        match &mut plan.identity.credentials {
            Credentials::Signed { key, .. } => key.0.clear(),
            Credentials::Listed(tokens) => tokens.clear(),
        }
        plan
    }
}

impl Work {
    /// Name of the kind, as in scenarios.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hold { .. } => "hold",
            Self::Chat { .. } => "chat",
            Self::Group { .. } => "group",
            Self::Storm { .. } => "storm",
            Self::Sync { .. } => "sync",
            Self::Churn { .. } => "churn",
        }
    }

    /// Sessions that the ramp makes.
    pub fn sessions(&self) -> u64 {
        match *self {
            Self::Hold { sessions }
            | Self::Storm { sessions, .. }
            | Self::Churn { sessions, .. } => sessions,
            Self::Chat { pairs, .. } => 2 * pairs,
            Self::Group { groups, receivers, .. } => groups * (1 + receivers),
            // The writers; receivers come in the measured phase.
            Self::Sync { receivers, .. } => receivers,
        }
    }

    /// What is dealt to agents and to shards as a whole: sessions, pairs, groups, backlogs.
    pub fn units(&self) -> u64 {
        match *self {
            Self::Hold { sessions }
            | Self::Storm { sessions, .. }
            | Self::Churn { sessions, .. } => sessions,
            Self::Chat { pairs, .. } => pairs,
            Self::Group { groups, .. } => groups,
            Self::Sync { receivers, .. } => receivers,
        }
    }

    /// Users that it needs.
    pub fn users(&self) -> u64 {
        match *self {
            Self::Hold { sessions }
            | Self::Storm { sessions, .. }
            | Self::Churn { sessions, .. } => sessions,
            Self::Chat { pairs, .. } => 2 * pairs,
            Self::Group { groups, .. } => 2 * groups,
            Self::Sync { receivers, .. } => 2 * receivers,
        }
    }

    /// Sessions that write in the measured phase.
    pub fn writers(&self) -> u64 {
        match *self {
            Self::Chat { pairs, both_ways, .. } => pairs * if both_ways { 2 } else { 1 },
            Self::Group { groups, .. } => groups,
            _ => 0,
        }
    }

    /// What it writes, if it writes in the measured phase.
    pub fn traffic(&self) -> Option<&Traffic> {
        match self {
            Self::Chat { traffic, .. } | Self::Group { traffic, .. } => Some(traffic),
            _ => None,
        }
    }

    /// Longest payload that it writes at any time, bytes; 0: it writes nothing.
    pub fn longest_payload(&self) -> usize {
        let lengths = match self {
            Self::Sync { payload_bytes, .. } => Some(payload_bytes),
            work => work.traffic().map(|traffic| &traffic.payload_bytes),
        };
        lengths.map_or(0, |lengths| (*lengths.end() as usize).max(MIN_PAYLOAD))
    }

    /// See [`traffic`](Self::traffic).
    pub fn traffic_mut(&mut self) -> Option<&mut Traffic> {
        match self {
            Self::Chat { traffic, .. } | Self::Group { traffic, .. } => Some(traffic),
            _ => None,
        }
    }
}

/// Durations as a number of seconds.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
