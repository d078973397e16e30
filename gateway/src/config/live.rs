//! Which keys may change while the gateway runs, and what becomes of a new configuration then.

use serde::Serialize;

use super::source::{Loaded, Problem, Problems};
use super::table::{self, Key};
use super::{Config, check};

/// Keys, and sections that end with a point, whose new value is used at once. Every other key needs
/// a restart; also the limits that a client is told when it logs in and would break if they
/// shrank.
const LIVE: &[&str] = &[
    "log.level",
    "admin.token_file",
    "tls.",
    "auth.",
    "limits.max_payload_bytes",
    "limits.max_unacked_sends",
    "limits.max_bulk_streams",
    "limits.max_sessions",
    "limits.max_devices_per_user",
    "limits.max_handshakes",
    "limits.outbox_bytes",
    "limits.outbox_total_bytes",
    "limits.lane_bytes",
    "limits.exempt",
    "limits.exempt_users",
    "limits.blocked",
    "limits.handshakes_per_address",
    "limits.connections_per_address",
    "limits.login_bytes_per_address",
    "limits.failed_logins_per_address",
    "limits.frames_per_user",
    "limits.messages_per_user",
    "limits.message_bytes_per_user",
    "limits.messages_per_conversation",
    "limits.message_bytes_per_conversation",
    "limits.syncs_per_user",
    "session.",
    "drain.",
    "store.patience",
];

/// Whether a running gateway takes a new value of the key.
pub(super) fn is_live(path: &str) -> bool {
    LIVE.iter().any(|live| *live == path || (live.ends_with('.') && path.starts_with(live)))
}

/// A key whose value is another one now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Full name of the key.
    pub key: &'static str,
    /// The value in force before, as TOML.
    pub from: String,
    /// The new value.
    pub to: String,
}

/// A new configuration, as far as a running gateway can use it.
#[derive(Debug, Clone)]
pub struct Merged {
    /// New values of keys that may change, old ones of all others.
    pub config: Config,
    /// What is new in it.
    pub changed: Vec<Change>,
    /// What was asked for as well, and needs a restart.
    pub needs_restart: Vec<Change>,
}

impl Loaded {
    /// What a gateway that runs with `running` makes of this.
    ///
    /// # Errors
    /// The new values do not go together with those that stay.
    pub fn merge_into(&self, running: &Config) -> Result<Merged, Problems> {
        let mut merged =
            Merged { config: running.clone(), changed: Vec::new(), needs_restart: Vec::new() };
        let differs = |key: &&Key| (key.print)(running) != (key.print)(&self.config);
        for key in table::keys().filter(differs) {
            let change =
                Change { key: key.path, from: (key.print)(running), to: (key.print)(&self.config) };
            if is_live(key.path) {
                (key.copy)(&mut merged.config, &self.config);
                merged.changed.push(change);
            } else {
                merged.needs_restart.push(change);
            }
        }
        let mut problems = Vec::new();
        check::across_keys(&merged.config, |key, message| {
            let message = format!("{message} (what needs a restart counts as before)");
            problems.push(Problem { place: self.place(key), message });
        });
        if problems.is_empty() { Ok(merged) } else { Err(Problems(problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn load(text: &str) -> Loaded {
        Sources::new().text("f.toml", text).read().unwrap()
    }

    fn keys(changes: &[Change]) -> Vec<&'static str> {
        changes.iter().map(|change| change.key).collect()
    }

    #[test]
    fn every_entry_of_the_list_is_a_key_or_a_section() {
        for live in LIVE {
            let known = |key: &Key| key.path == *live || live.ends_with('.');
            assert!(table::keys().any(|key| known(key) && is_live(key.path)), "{live}");
            assert!(!live.ends_with('.') || table::keys().any(|key| key.path.starts_with(live)));
        }
        assert!(!is_live("listen") && !is_live("limits.max_frame_bytes") && !is_live("store.kind"));
    }

    #[test]
    fn what_may_change_does_and_the_rest_is_named() {
        let running = load("[limits]\nmax_sessions = 5\n").config;
        let new = load("shards = 3\n[limits]\nmax_sessions = 6\nmax_entries = 9\n");
        let merged = new.merge_into(&running).unwrap();
        assert_eq!(keys(&merged.changed), ["limits.max_sessions"]);
        assert_eq!(keys(&merged.needs_restart), ["shards", "limits.max_entries"]);
        let change = &merged.changed[0];
        assert_eq!((change.from.as_str(), change.to.as_str()), ("5", "6"));
        let mut expected = running.clone();
        expected.limits.max_sessions = 6;
        assert_eq!(merged.config, expected);
        // Nothing is new the second time, and the restart is still owed.
        let again = new.merge_into(&merged.config).unwrap();
        assert_eq!(again.config, expected);
        assert!(again.changed.is_empty() && again.needs_restart.len() == 2);
    }

    #[test]
    fn a_value_that_only_goes_with_a_restart_is_refused_with_its_place() {
        let new = load("[limits]\nmax_frame_bytes = \"128KiB\"\nmax_payload_bytes = \"100KiB\"\n");
        let problems = new.merge_into(&Config::default()).unwrap_err().0;
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].place, "f.toml:3");
        assert!(problems[0].message.contains("needs a restart"), "{}", problems[0]);
    }

    /// A key of a copied value prints as in the configuration it comes from.
    #[test]
    fn every_key_copies_its_own_value() {
        let mut other = Config::default();
        other.limits.max_sessions = 7;
        other.tls.cert = Some("a".into());
        for key in table::keys() {
            let mut to = Config::default();
            (key.copy)(&mut to, &other);
            assert_eq!((key.print)(&to), (key.print)(&other), "{}", key.path);
        }
    }
}
