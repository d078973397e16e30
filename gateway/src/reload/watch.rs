//! Looks at the files of certificates: shows new ones when they have changed, and warns of those
//! that end soon.
//!
//! The files are looked at again and again instead of being watched by the kernel: a mounted secret
//! changes by a swap of links above it, which a watch on the file does not see, and some network
//! file systems tell nothing. What it costs is a `stat` a file every few seconds.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Reload;
use crate::config::TlsConfig;
use crate::tls::{self, Certificate};

/// A certificate that ends within this time is warned of.
pub const WARN_BEFORE: Duration = Duration::from_secs(21 * 24 * 3600);

/// How often it is warned of.
const WARN_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// How often the clock is looked at where the files are not.
const IDLE: Duration = Duration::from_secs(10);

/// What is known of a file without reading it: when it was written, its length, and where the system
/// has it. `None`: it is not there.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Does both for as long as it is polled.
pub async fn watch_certificates(reload: Arc<Reload>) {
    // Nothing: they may have changed since the start read them.
    let mut known = Vec::new();
    let mut failed: Option<String> = None;
    let mut warned: Option<SystemTime> = None;
    loop {
        let now = SystemTime::now();
        if warned.is_none_or(|at| now.duration_since(at).map_or(true, |age| age >= WARN_AGAIN)) {
            warned = Some(now);
            reload.certificates().all().iter().for_each(|one| warn(one, now));
        }
        let pause = reload.config().tls.watch.unwrap_or(IDLE);
        tokio::time::sleep(pause).await;
        let config = reload.config();
        if config.tls.watch.is_none() {
            continue;
        }
        // A file system that is gone keeps one of the threads that are there for waiting.
        let Ok(seen) = tokio::task::spawn_blocking(move || stamps(&config.tls)).await else {
            return;
        };
        // After a failure it is tried again, also if the files look the same: they may have been
        // read while they were being written.
        if seen == known && failed.is_none() {
            continue;
        }
        known = seen;
        let renewing = reload.clone();
        let renewed = tokio::task::spawn_blocking(move || renewing.renew_certificates()).await;
        match renewed {
            Ok(Ok(is_new)) => {
                if is_new {
                    tell(&reload.certificates().all());
                    warned = None;
                }
                failed = None;
            }
            Ok(Err(error)) => {
                let error = error.to_string();
                if failed.as_ref() != Some(&error) {
                    tracing::error!(error, "the new certificates are not used; the old ones stay");
                }
                failed = Some(error);
            }
            // The runtime ends.
            Err(_) => return,
        }
    }
}

/// Where and how the files are now.
fn stamps(tls: &TlsConfig) -> Vec<Stamp> {
    let files = tls::configured(tls);
    files.iter().flat_map(|(_, files)| [stamp(&files.cert), stamp(&files.key)]).collect()
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    #[cfg(unix)]
    let place = std::os::unix::fs::MetadataExt::ino(&found);
    #[cfg(not(unix))]
    let place = 0;
    Some((found.modified().ok()?, found.len(), place))
}

fn tell(all: &[Certificate]) {
    for one in all {
        tracing::info!(
            file = %one.file.display(),
            ends = %humantime::format_rfc3339_seconds(one.ends),
            "shows a new certificate"
        );
    }
}

/// Whole days until then; none if it is past.
fn days_until(then: SystemTime, now: SystemTime) -> Option<u64> {
    then.duration_since(now).ok().map(|left| left.as_secs() / (24 * 3600))
}

fn warn(certificate: &Certificate, now: SystemTime) {
    let file = certificate.file.display();
    let ends = humantime::format_rfc3339_seconds(certificate.ends);
    match days_until(certificate.ends, now) {
        None => tracing::error!(%file, %ends, "a certificate has ended: clients refuse it"),
        Some(days) if certificate.ends <= now + WARN_BEFORE => {
            tracing::warn!(%file, %ends, days, "a certificate ends soon");
        }
        Some(_) => {}
    }
}
