//! Whom an operator has shut out: users and networks, for a time or until further notice.
//!
//! The list is in `DATA/blocks.json` and belongs to this gateway alone; several gateways are each
//! told. It is replaced whole, so that a look at it is a load of a pointer. A user is looked up after
//! the login is listed, and whoever blocks one looks for sessions after the list has changed: of two
//! that meet, one sees the other.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use skein_protocol::server::Close;
use skein_protocol::{Code, UserId};

use crate::limits::canonical;
use crate::whole_file::{self, Access};

/// Entries of the list. Each change writes all of it: a megabyte at most. Whoever has more to shut
/// out does it where tokens are issued, or at the edge of the network.
pub const MAX_BLOCKS: usize = 10_000;

/// Longest reason, bytes: it goes into one packet.
pub const MAX_REASON_BYTES: usize = 256;

/// Longest file that is read, bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Who is shut out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// All devices of a user.
    User(String),
    /// All addresses of a network.
    Network(IpNet),
}

impl Target {
    /// The network of an address, or one written with its length.
    ///
    /// # Errors
    /// What would be right.
    pub fn network(text: &str) -> Result<Self, String> {
        let network = match text.parse::<IpNet>() {
            Ok(network) => Ok(network),
            Err(_) => text.parse::<IpAddr>().map(IpNet::from),
        };
        let wrong = |_| "write an address or a network, such as 192.0.2.7 or 2001:db8::/32".into();
        network.map(|network| Self::Network(canonical(network))).map_err(wrong)
    }

    /// As it is looked up, whoever wrote it.
    fn canonical(self) -> Self {
        match self {
            Self::Network(network) => Self::Network(canonical(network)),
            user => user,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}"),
            Self::Network(network) => write!(f, "address {network}"),
        }
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Who.
    #[serde(flatten)]
    pub target: Target,
    /// In words, for the person who is shut out.
    #[serde(default)]
    pub reason: String,
    /// Since when, Unix seconds.
    pub since: u64,
    /// Until when, Unix seconds; none: until further notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

impl Block {
    fn is_over(&self, now: u64) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// How a session that it concerns ends at this time, Unix seconds.
    pub fn close(&self, now: u64) -> Close {
        let close = match self.reason.is_empty() {
            true => Close::new(Code::Blocked),
            false => Close::because(Code::Blocked, self.reason.clone()),
        };
        match self.until {
            Some(until) => close.after(Duration::from_secs(until.saturating_sub(now))),
            None => close,
        }
    }
}

/// Why the list cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error(
        "{}: {why}; mend it, or remove it if nobody is to be shut out any more", path.display()
    )]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There are too many entries.
    #[error("the list has {MAX_BLOCKS} entries already; remove some first")]
    Full,
}

#[derive(Debug, Default)]
struct List {
    all: HashMap<Target, Block>,
    /// Lengths of the networks in it; an address is looked up once for each.
    lengths: BTreeSet<u8>,
}

impl List {
    fn new(all: HashMap<Target, Block>) -> Self {
        let lengths = all.keys().filter_map(|target| match target {
            Target::Network(network) => Some(network.prefix_len()),
            Target::User(_) => None,
        });
        Self { lengths: lengths.collect(), all }
    }
}

/// The list.
#[derive(Debug)]
pub struct Blocks {
    /// None: it is not kept.
    file: Option<PathBuf>,
    list: ArcSwap<List>,
    /// Held by whoever changes the list.
    changing: Mutex<()>,
    refused: AtomicU64,
}

impl Blocks {
    /// Nobody is shut out, and nothing is kept.
    pub fn none() -> Arc<Self> {
        Self::of(None, HashMap::new())
    }

    /// The list of a data folder.
    ///
    /// # Errors
    /// The file is there and cannot be read: to go on would let everybody in.
    pub fn open(data: &Path) -> Result<Arc<Self>, BlocksError> {
        let path = data.join("blocks.json");
        let all = match read(&path)? {
            Some(blocks) => blocks
                .into_iter()
                .map(|block| Block { target: block.target.canonical(), ..block })
                .map(|block| (block.target.clone(), block))
                .collect(),
            None => HashMap::new(),
        };
        Ok(Self::of(Some(path), all))
    }

    fn of(file: Option<PathBuf>, all: HashMap<Target, Block>) -> Arc<Self> {
        let list = ArcSwap::from_pointee(List::new(all));
        Arc::new(Self { file, list, changing: Mutex::default(), refused: AtomicU64::new(0) })
    }

    /// Whether the user is shut out at this time.
    pub fn user(&self, user: &UserId, now: impl Fn() -> SystemTime) -> Option<Close> {
        let list = self.list.load();
        if list.all.is_empty() {
            return None;
        }
        let block = list.all.get(&Target::User(user.as_str().into()))?;
        self.refuse(block, now())
    }

    /// Whether the address is shut out at this time.
    pub fn address(&self, address: IpAddr, now: impl Fn() -> SystemTime) -> Option<Close> {
        let list = self.list.load();
        let address = address.to_canonical();
        list.lengths.iter().find_map(|&length| {
            let network = IpNet::new(address, length).ok()?.trunc();
            self.refuse(list.all.get(&Target::Network(network))?, now())
        })
    }

    fn refuse(&self, block: &Block, now: SystemTime) -> Option<Close> {
        let now = unix(now);
        if block.is_over(now) {
            return None;
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Some(block.close(now))
    }

    /// Connections and logins that were refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// All entries that are in force, users first.
    pub fn all(&self, now: SystemTime) -> Vec<Block> {
        let now = unix(now);
        let list = self.list.load();
        let mut all: Vec<Block> =
            list.all.values().filter(|block| !block.is_over(now)).cloned().collect();
        all.sort_by(|a, b| a.target.cmp(&b.target));
        all
    }

    /// Shuts somebody out, in place of an entry that there may be. Writes and syncs a file.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn add(&self, block: Block, now: SystemTime) -> Result<(), BlocksError> {
        self.change(now, |all| {
            if all.len() >= MAX_BLOCKS && !all.contains_key(&block.target) {
                return Err(BlocksError::Full);
            }
            all.insert(block.target.clone(), block);
            Ok(())
        })
    }

    /// Lets somebody in again; whether there was an entry. Writes and syncs a file.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn remove(&self, target: &Target, now: SystemTime) -> Result<bool, BlocksError> {
        self.change(now, |all| Ok(all.remove(target).is_some()))
    }

    fn change<T>(
        &self,
        now: SystemTime,
        change: impl FnOnce(&mut HashMap<Target, Block>) -> Result<T, BlocksError>,
    ) -> Result<T, BlocksError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.list.load().all.clone();
        let now = unix(now);
        all.retain(|_, block| !block.is_over(now));
        let changed = change(&mut all)?;
        if let Some(path) = &self.file {
            write(path, &all).map_err(|source| BlocksError::File { path: path.clone(), source })?;
        }
        self.list.store(Arc::new(List::new(all)));
        Ok(changed)
    }
}

/// Unix seconds; a clock before 1970 is as good as 1970.
pub fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn read(path: &Path) -> Result<Option<Vec<Block>>, BlocksError> {
    let failed = |source| BlocksError::File { path: path.into(), source };
    let damaged = |why: String| BlocksError::Damaged { path: path.into(), why };
    let length = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        known => known.map_err(failed)?.len(),
    };
    if length > MAX_FILE_BYTES {
        return Err(damaged("it is longer than 16 MiB".into()));
    }
    let text = std::fs::read(path).map_err(failed)?;
    serde_json::from_slice(&text).map(Some).map_err(|error| damaged(error.to_string()))
}

fn write(path: &Path, all: &HashMap<Target, Block>) -> io::Result<()> {
    let mut blocks: Vec<&Block> = all.values().collect();
    blocks.sort_by(|a, b| a.target.cmp(&b.target));
    let mut text = serde_json::to_vec_pretty(&blocks)?;
    text.push(b'\n');
    whole_file::put(path, &text, Access::Owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(target: Target, until: Option<u64>) -> Block {
        Block { target, reason: "spam".into(), since: 1, until }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn user(name: &str) -> Target {
        Target::User(name.into())
    }

    #[test]
    fn users_and_networks_are_shut_out_until_their_time_is_over() {
        let blocks = Blocks::none();
        let (alice, bob) = (UserId::parse("alice").unwrap(), UserId::parse("bob").unwrap());
        blocks.add(block(user("alice"), Some(100)), at(1)).unwrap();
        for network in ["10.1.2.3/16", "2001:db8::1", "192.0.2.7", "::ffff:172.16.0.0/108"] {
            blocks.add(block(Target::network(network).unwrap(), None), at(1)).unwrap();
        }
        let close = blocks.user(&alice, || at(99)).unwrap();
        assert_eq!((close.code, &*close.phrase()), (Code::Blocked, "spam (retry after 1 s)"));
        assert_eq!(blocks.user(&alice, || at(100)), None);
        assert_eq!(blocks.user(&bob, || at(1)), None);
        for (address, expected) in [
            ("10.1.99.1", true),
            ("::ffff:10.1.0.9", true),
            ("10.2.0.1", false),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
        ] {
            let refused = blocks.address(address.parse().unwrap(), || at(1));
            assert_eq!(refused.is_some(), expected, "{address}");
            assert_eq!(refused.and_then(|close| close.retry_after), None, "it has no end");
        }
        assert_eq!(blocks.refused(), 6);
        assert!(blocks.remove(&Target::network("10.1.0.0/16").unwrap(), at(1)).unwrap());
        assert_eq!(blocks.address("10.1.99.1".parse().unwrap(), || at(1)), None);
        assert!(!blocks.remove(&user("bob"), at(1)).unwrap());
        assert!(Target::network("10.1.2").is_err());
    }

    #[test]
    fn the_list_survives_a_restart_and_a_damaged_one_lets_nobody_in() {
        let data = tempfile::tempdir().unwrap();
        let blocks = Blocks::open(data.path()).unwrap();
        blocks.add(block(user("alice"), None), at(1)).unwrap();
        blocks.add(block(user("bob"), Some(5)), at(1)).unwrap();
        blocks.add(block(Target::network("10.0.0.0/8").unwrap(), None), at(1)).unwrap();
        let known = blocks.all(at(2));
        assert_eq!(known.len(), 3);
        drop(blocks);
        let blocks = Blocks::open(data.path()).unwrap();
        assert_eq!(blocks.all(at(2)), known);
        // What is over goes with the next change.
        blocks.remove(&user("alice"), at(9)).unwrap();
        assert_eq!(Blocks::open(data.path()).unwrap().all(at(2)).len(), 1);

        // An embedded network that was written by hand is found, and is let in again by its name.
        let text = r#"[{"network": "::ffff:10.9.0.0/112", "since": 1}]"#;
        std::fs::write(data.path().join("blocks.json"), text).unwrap();
        let blocks = Blocks::open(data.path()).unwrap();
        assert!(blocks.address("10.9.1.1".parse().unwrap(), || at(1)).is_some());
        assert!(blocks.remove(&Target::network("10.9.0.0/16").unwrap(), at(1)).unwrap());

        std::fs::write(data.path().join("blocks.json"), "[{").unwrap();
        let error = Blocks::open(data.path()).unwrap_err().to_string();
        assert!(error.contains("mend it, or remove it"), "{error}");
    }

    #[test]
    fn the_list_is_bounded() {
        let blocks = Blocks::none();
        let many = (0..MAX_BLOCKS).map(|n| user(&n.to_string()));
        let all = many.map(|target| (target.clone(), block(target, None))).collect();
        blocks.list.store(Arc::new(List::new(all)));
        assert!(matches!(blocks.add(block(user("one more"), None), at(1)), Err(BlocksError::Full)));
        blocks.add(block(user("7"), Some(9)), at(1)).unwrap();
    }
}
