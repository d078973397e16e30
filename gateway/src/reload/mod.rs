//! A change of configuration while the gateway runs: on SIGHUP, by `skein ctl reload`, and of
//! certificates whenever their files change.
//!
//! ```text
//! read file, environment, flags -> what may change from it, the rest as it is -> read its files
//!   -> one thing wrong: nothing is changed
//!   -> shards (limits, TLS), hub (rules, limits, token keys), lanes, certificates, admin token,
//!      log level
//! ```
//!
//! Whatever can fail comes before whatever changes something.

mod watch;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use serde::Serialize;
use skein_transport::{Control, EngineConfig, Keys};

use crate::admin_token::AdminToken;
use crate::config::{Change, Config, Loaded, Problem, Problems};
use crate::credentials::Credentials;
use crate::hub::{Hub, ticks};
use crate::log_level::LogLevel;
use crate::mail::Mail;
use crate::notify;
use crate::serve;
use crate::stop::Hangups;
use crate::tls::{self, Certificate, CertificateError, Certificates};
pub use watch::{WARN_BEFORE, watch_certificates};

/// Reads the configuration from all its places.
pub struct Source(Box<ReadAll>);

type ReadAll = dyn Fn() -> Result<Loaded, Problems> + Send + Sync;

impl Source {
    /// Through this function.
    pub fn new(read: impl Fn() -> Result<Loaded, Problems> + Send + Sync + 'static) -> Self {
        Self(Box::new(read))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

/// Everything that a [`Reload`] changes, and what it reads.
pub struct Parts {
    /// Where a new configuration comes from.
    pub source: Source,
    /// The one in force.
    pub config: Config,
    /// Settings and lanes.
    pub hub: Arc<Hub>,
    /// Limits and TLS.
    pub shards: Control<Mail>,
    /// The gateway's own secrets.
    pub keys: Keys,
    /// What is shown.
    pub certificates: Arc<Certificates>,
    /// What operators show; none without an admin listener.
    pub admin_token: Option<AdminToken>,
    /// The level of the log.
    pub log_level: LogLevel,
}

/// Puts new configurations in force.
pub struct Reload {
    source: Source,
    config: ArcSwap<Config>,
    hub: Arc<Hub>,
    shards: Control<Mail>,
    keys: Keys,
    certificates: Arc<Certificates>,
    admin_token: ArcSwapOption<AdminToken>,
    log_level: LogLevel,
    /// One at a time.
    turn: Mutex<()>,
    applied: AtomicU64,
    refused: AtomicU64,
    last_refused: AtomicBool,
}

/// What came of all reloads since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcomes {
    /// How many were put in force.
    pub applied: u64,
    /// How many were not, because something was wrong.
    pub refused: u64,
    /// Whether the latest was refused: the gateway runs with another configuration than its files
    /// say, and would not start with them.
    pub last_refused: bool,
}

/// What came of a new configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// In force now.
    pub changed: Vec<Change>,
    /// Asked for, and in force after a restart.
    pub needs_restart: Vec<Change>,
    /// Whether other certificates are shown.
    pub new_certificates: bool,
    /// Remarks on the configuration, a line each.
    pub remarks: Vec<String>,
}

impl Reload {
    /// For a gateway that runs.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { source, config, hub, shards, keys, certificates, admin_token, log_level } =
            parts;
        Arc::new(Self {
            source,
            config: ArcSwap::from_pointee(config),
            hub,
            shards,
            keys,
            certificates,
            admin_token: ArcSwapOption::new(admin_token.map(Arc::new)),
            log_level,
            turn: Mutex::new(()),
            applied: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            last_refused: AtomicBool::new(false),
        })
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The certificates that are shown.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Whether this is the token of operators.
    pub(crate) fn is_admin_token(&self, shown: &str) -> bool {
        self.admin_token.load().as_ref().is_some_and(|token| token.is(shown))
    }

    /// The level of the log.
    pub fn log_level(&self) -> &LogLevel {
        &self.log_level
    }

    /// Reads the configuration and everything that it names, and puts it in force as far as that is
    /// possible without a restart. Reads files, so it is not for a thread that must not wait.
    ///
    /// # Errors
    /// All that is wrong; then nothing is changed.
    pub fn apply(&self) -> Result<Applied, Problems> {
        let _turn = self.take_turn();
        let running = self.config();
        let loaded = (self.source.0)()?;
        let merged = loaded.merge_into(&running)?;
        let config = merged.config;
        let found = Credentials::load(&config, SystemTime::now())
            .map_err(|error| error.problems(&loaded))?;
        let failed = |place: &str, error: String| {
            Problems(vec![Problem { place: place.into(), message: error }])
        };
        self.is_no_worse(&found.certificates)
            .map_err(|error| failed("[tls]", error.to_string()))?;
        let engine = self
            .engine_config(&config, found.tickets.as_ref())
            .map_err(|error| failed("[tls]", error.to_string()))?;
        self.shards.change(&engine).map_err(|error| failed("[tls]", error.to_string()))?;

        // Nothing fails from here on.
        let new_certificates = self.certificates.replace(found.certificates);
        self.admin_token.store(found.admin_token.map(Arc::new));
        let settings = serve::settings(&config, found.verifier, self.hub.mailboxes().len());
        self.hub.change_settings(settings);
        self.hub.throttle.change(&config.limits);
        self.hub.registry.set_max_devices(config.limits.max_devices_per_user);
        let lane_bytes = config.limits.lane_bytes.div_ceil(config.lanes as usize);
        self.hub.change_lanes(lane_bytes, ticks(config.store.patience));
        if merged.changed.iter().any(|change| change.key == "log.level")
            && let Err(error) = self.log_level.set(&config.log.level)
        {
            // It is a level, so the log itself is gone.
            tracing::warn!(error, "the level of the log cannot be changed");
        }
        self.config.store(Arc::new(config));
        Ok(Applied {
            changed: merged.changed,
            needs_restart: merged.needs_restart,
            new_certificates,
            remarks: loaded.remarks,
        })
    }

    /// The same, with a line in the log for everything that came of it.
    ///
    /// # Errors
    /// See [`Reload::apply`].
    pub fn apply_and_tell(&self) -> Result<Applied, Problems> {
        notify::reloading();
        let outcome = self.apply();
        notify::ready();
        let count = if outcome.is_ok() { &self.applied } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
        self.last_refused.store(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Ok(applied) => applied.tell(),
            Err(problems) => {
                for Problem { place, message } in &problems.0 {
                    tracing::error!(place, problem = message, "the new configuration is not used");
                }
            }
        }
        outcome
    }

    /// What came of [`Reload::apply_and_tell`].
    pub fn outcomes(&self) -> Outcomes {
        Outcomes {
            applied: self.applied.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            last_refused: self.last_refused.load(Ordering::Relaxed),
        }
    }

    /// Reads the certificates of the configuration in force again, and shows them if all are good.
    ///
    /// # Errors
    /// What is wrong with one; then those that were shown stay.
    pub fn renew_certificates(&self) -> Result<bool, CertificateError> {
        let _turn = self.take_turn();
        let (good, bad) = tls::load(&self.config().tls);
        match bad.into_iter().next() {
            Some((_, error)) => Err(error),
            // Made for development, and not looked at again.
            None if good.is_empty() => Ok(false),
            None => {
                self.is_no_worse(&good)?;
                Ok(self.certificates.replace(good))
            }
        }
    }

    /// Whether these can be shown without shutting clients out that come in now.
    fn is_no_worse(&self, new: &[Certificate]) -> Result<(), CertificateError> {
        tls::worse(&self.certificates.all(), new, SystemTime::now()).map_or(Ok(()), Err)
    }

    fn engine_config(
        &self,
        config: &Config,
        tickets: Option<&Keys>,
    ) -> Result<EngineConfig, rustls::Error> {
        serve::engine_config(config, self.certificates.clone(), &self.keys, tickets)
    }

    /// No state is behind it that a panic could leave half done.
    fn take_turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Applied {
    fn tell(&self) {
        for remark in &self.remarks {
            tracing::warn!("{remark}");
        }
        for Change { key, from, to } in &self.changed {
            tracing::info!(key, from, to, "changed");
        }
        for Change { key, from, to } in &self.needs_restart {
            tracing::warn!(key, running = from, wanted = to, "a restart is needed for this");
        }
        tracing::info!(
            changed = self.changed.len(),
            needs_restart = self.needs_restart.len(),
            new_certificates = self.new_certificates,
            "read the configuration again"
        );
    }
}

/// Reads the configuration again at every SIGHUP, for as long as it is polled.
pub async fn on_hangups(mut hangups: Hangups, reload: Arc<Reload>) {
    while hangups.next().await.is_some() {
        let reload = reload.clone();
        // What came of it is in the log.
        let _ = tokio::task::spawn_blocking(move || reload.apply_and_tell()).await;
    }
}
