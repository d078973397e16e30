//! Settings of the clustered store and why it cannot be opened.

use std::fmt;
use std::time::Duration;

use crate::StoreError;

/// Where the cluster is and how much is asked of it at once. [`ScyllaOptions::new`] has a default
/// for all but the first two.
#[derive(Debug, Clone)]
pub struct ScyllaOptions {
    /// Nodes to ask first, `host` or `host:port` (9042 if none is given); the others are learned
    /// from them. At least one.
    pub contact_points: Vec<String>,
    /// Keyspace that `skein schema apply` made: a lower-case letter, then lower-case letters,
    /// digits and underscores, 48 characters at most.
    pub keyspace: String,
    /// Name of the data centre whose nodes serve this gateway, and whose majority decides
    /// (`LOCAL_QUORUM`, `LOCAL_SERIAL`). Default none: a majority of all replicas decides. It is
    /// written into the keyspace by `skein schema apply`, and all gateways have the same: two
    /// kinds of majority do not exclude each other.
    pub data_centre: Option<String>,
    /// Who logs in. Default none: the cluster lets everybody in.
    pub credentials: Option<Credentials>,
    /// Encryption of connections to the cluster. Default none.
    pub tls: Option<TlsOptions>,
    /// Longest time to open a connection, login included. Default 5 s, 100 ms - 60 s.
    pub connect_timeout: Duration,
    /// Longest time that one request waits for its answer. Default 10 s, 100 ms - 120 s. Longer
    /// than the server's own limits (`write_request_timeout` and `cas_contention_timeout`, some
    /// seconds), because a request given up here may still be carried out there.
    pub request_timeout: Duration,
    /// Appends under way at once, each of another conversation. Default 512, 1 - 16384. Bounds
    /// what a cluster that answers slowly is asked to do. An append of unknown outcome has no place
    /// while it pauses, and half of all places at the most are for those that ask again; what
    /// memory they take is bounded by what the caller submits.
    pub in_flight: usize,
    /// Longest time that an append waits for a place among those under way, or for the one before
    /// it in its conversation; after it the append fails with [`StoreError::Unavailable`]. Default
    /// 2 s, up to 60 s.
    pub wait: Duration,
    /// Reads under way at once. Default 256, 1 - 16384. More wait, up to `request_timeout`.
    pub reads: usize,
    /// Writes of cursors, members and hints under way at once. Default 256, 1 - 16384. More wait,
    /// up to `request_timeout`.
    pub register_writes: usize,
    /// For how long a message can be read. Default none: for ever. At least
    /// [`MIN_RETENTION`], at most 20 years (the servers' own limit). It is given to each message
    /// when it is written; a change is for messages written after it.
    pub retention: Option<Duration>,
    /// Retention below [`MIN_RETENTION`] is refused unless this is set; only tests have the time
    /// to watch a message expire.
    #[doc(hidden)]
    pub allow_short_retention: bool,
    /// A promise to break, so that tests can show that they notice.
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub planted: Option<super::planted::Planted>,
}

/// Shortest retention. Below it messages would expire while those who are to read them are on
/// their way.
pub const MIN_RETENTION: Duration = Duration::from_secs(3600);

/// Longest retention. The servers refuse a longer time to live.
pub const MAX_RETENTION: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// A user of the cluster.
#[derive(Clone)]
pub struct Credentials {
    /// Name of the role.
    pub user: String,
    /// Its password. Not shown by `Debug`.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How connections are encrypted. A node's certificate must be issued by `ca` and name the
/// address at which the cluster knows the node.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// Certificates that are trusted, PEM.
    pub ca: Vec<u8>,
    /// What the gateway shows to nodes that ask for a certificate. Default none.
    pub client: Option<ClientCertificate>,
}

/// A certificate of the gateway's own.
#[derive(Clone)]
pub struct ClientCertificate {
    /// The chain, the gateway's own certificate first, PEM.
    pub chain: Vec<u8>,
    /// Its private key, PEM. Not shown by `Debug`.
    pub key: Vec<u8>,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

impl ScyllaOptions {
    /// A keyspace of the cluster that these nodes belong to; all else by default.
    pub fn new(contact_points: Vec<String>, keyspace: impl Into<String>) -> Self {
        Self {
            contact_points,
            keyspace: keyspace.into(),
            data_centre: None,
            credentials: None,
            tls: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            in_flight: 512,
            wait: Duration::from_secs(2),
            reads: 256,
            register_writes: 256,
            retention: None,
            allow_short_retention: false,
            #[cfg(debug_assertions)]
            planted: None,
        }
    }

    /// Names the first option that is outside its range.
    pub(super) fn check(&self) -> Result<(), String> {
        let millis = |time: Duration| time.as_millis();
        let places = 1..=16_384;
        let bad = if self.contact_points.iter().all(|point| point.trim().is_empty()) {
            "contact_points must name at least one node"
        } else if !is_keyspace_name(&self.keyspace) {
            "keyspace must be a lower-case letter followed by lower-case letters, digits and \
             underscores, 48 at most"
        } else if !(100..=60_000).contains(&millis(self.connect_timeout)) {
            "connect_timeout must be 100 ms - 60 s"
        } else if !(100..=120_000).contains(&millis(self.request_timeout)) {
            "request_timeout must be 100 ms - 120 s"
        } else if !places.contains(&self.in_flight) {
            "in_flight must be 1 - 16384"
        } else if millis(self.wait) > 60_000 {
            "wait must be at most 60 s"
        } else if !places.contains(&self.reads) || !places.contains(&self.register_writes) {
            "reads and register_writes must be 1 - 16384"
        } else if self.retention.is_some_and(|time| time > MAX_RETENTION) {
            "retention must be at most 20 years"
        } else if self.retention.is_some_and(|time| {
            let least =
                if self.allow_short_retention { Duration::from_secs(1) } else { MIN_RETENTION };
            time < least
        }) {
            "retention must be at least 1 h"
        } else {
            return Ok(());
        };
        Err(bad.into())
    }
}

/// Whether it needs no quotes in CQL, so that what an operator types in `cqlsh` works.
pub fn is_keyspace_name(name: &str) -> bool {
    name.len() <= 48
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Why the cluster cannot be talked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// An option is outside its range.
    #[error("{0}")]
    Option(String),
    /// No node could be reached, or none that answers.
    #[error("no node of the cluster can be reached at {}: {reason}", contact_points.join(", "))]
    Unreachable {
        /// Where it was tried.
        contact_points: Vec<String>,
        /// What the driver said.
        reason: String,
    },
    /// The cluster does not let this user in.
    #[error("the cluster refuses {}: {reason}; check the user and the password", user.as_deref().map_or_else(|| "a gateway without a user".into(), |user| format!("user {user}")))]
    Refused {
        /// Who tried.
        user: Option<String>,
        /// What the server said.
        reason: String,
    },
    /// A certificate or a key cannot be used.
    #[error("{what}: {reason}")]
    Tls {
        /// Which of them.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The data centre that was asked for is not part of the cluster.
    #[error("the cluster has no data centre {wanted}; it has {}", found.join(", "))]
    NoSuchDataCentre {
        /// From the options.
        wanted: String,
        /// Those that the cluster has.
        found: Vec<String>,
    },
    /// A request failed.
    #[error("cannot {what}: {source}")]
    Request {
        /// What was tried.
        what: String,
        /// What came of it.
        source: StoreError,
    },
}

/// Why the store in a cluster was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The cluster was not reached, or not with these options.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nothing was made yet, or not to its end.
    #[error("keyspace {keyspace} has no schema, or only a part of it: run `skein schema apply`")]
    Missing {
        /// The keyspace.
        keyspace: String,
    },
    /// Made by an earlier version of the program.
    #[error(
        "keyspace {keyspace} has schema version {found}, this skein needs {needed}: run `skein schema apply`"
    )]
    Older {
        /// The keyspace.
        keyspace: String,
        /// Its version.
        found: u32,
        /// The version of this program.
        needed: u32,
    },
    /// Made by a later version of the program.
    #[error(
        "keyspace {keyspace} has schema version {found}, this skein knows up to {known}: upgrade skein"
    )]
    Newer {
        /// The keyspace.
        keyspace: String,
        /// Its version.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// The keyspace was made for another kind of majority.
    #[error("keyspace {keyspace} belongs to {}, the configuration says {}: all gateways must have the same", domain(.found), domain(.configured))]
    OtherDataCentre {
        /// The keyspace.
        keyspace: String,
        /// Whose majority decides there.
        found: Option<String>,
        /// The configured one.
        configured: Option<String>,
    },
    /// Appends of this program are longer than the keyspace was made for.
    #[error(
        "keyspace {keyspace} was made for appends of {found} records, this skein makes them {needed} long: use the version that made it"
    )]
    LongerAppends {
        /// The keyspace.
        keyspace: String,
        /// Records of an append that it was made for.
        found: u64,
        /// Records of an append of this program.
        needed: u64,
    },
}

fn domain(data_centre: &Option<String>) -> String {
    match data_centre {
        Some(name) => format!("data centre {name}"),
        None => "all data centres".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ScyllaOptions {
        ScyllaOptions::new(vec!["127.0.0.1".into()], "skein")
    }

    #[test]
    fn defaults_are_inside_their_ranges() {
        assert_eq!(options().check(), Ok(()));
        assert!(ScyllaOptions::new(vec![], "skein").check().is_err());
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(ScyllaOptions { retention: hour, ..options() }.check(), Ok(()));
        let minute = Some(Duration::from_secs(60));
        assert!(ScyllaOptions { retention: minute, ..options() }.check().is_err());
        let tests = ScyllaOptions { retention: minute, allow_short_retention: true, ..options() };
        assert_eq!(tests.check(), Ok(()));
        assert!(ScyllaOptions { in_flight: 0, ..options() }.check().is_err());
    }

    #[test]
    fn keyspace_names_need_no_quotes() {
        for good in ["skein", "s", "skein_2", &"k".repeat(48)] {
            assert!(is_keyspace_name(good), "{good}");
        }
        for bad in ["", "Skein", "2skein", "_s", "a-b", "a.b", "a\"b", "\u{e4}", &"k".repeat(49)] {
            assert!(!is_keyspace_name(bad), "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials { user: "skein".into(), password: "secret".into() };
        assert!(!format!("{credentials:?}").contains("secret"));
        let client = ClientCertificate { chain: b"chain".to_vec(), key: b"secret".to_vec() };
        let tls = TlsOptions { ca: b"ca".to_vec(), client: Some(client) };
        assert!(!format!("{tls:?}").contains(&format!("{:?}", b"secret")));
    }
}
