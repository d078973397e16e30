//! The real program takes a new configuration, new keys and new certificates while it serves.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "helpers of tests")]

#[path = "../support/mod.rs"]
mod support;

mod certificates;
mod settings;
mod tickets;

use std::path::{Path, PathBuf};
use std::time::Duration;

use support::process::{Gateway, Options};

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway with a configuration file, which can be written anew.
struct Scene {
    dir: tempfile::TempDir,
    gateway: Gateway,
}

impl Scene {
    /// Starts a gateway that was told this. `setup` makes files in the folder first.
    fn start(config: &str, setup: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        setup(dir.path());
        let file = dir.path().join("skein.toml");
        std::fs::write(&file, in_folder(dir.path(), config)).unwrap();
        let options =
            Options::default().env("SKEIN_CONFIG", file.display()).env("SKEIN_LOG", "info");
        let gateway = Gateway::start(&dir.path().join("data"), &options);
        Self { dir, gateway }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes another configuration and waits until the gateway has said what it makes of it.
    async fn tell(&self, config: &str) -> String {
        std::fs::write(self.file("skein.toml"), in_folder(self.dir.path(), config)).unwrap();
        self.hang_up().await
    }

    /// SIGHUP; what the gateway logs until it has dealt with it.
    async fn hang_up(&self) -> String {
        let before = self.gateway.log().len();
        self.gateway.signal("HUP");
        let outcomes = ["read the configuration again", "the new configuration is not used"];
        self.logged(before, &outcomes).await
    }

    /// The log after this place, once one of these is in it.
    async fn logged(&self, after: usize, wanted: &[&str]) -> String {
        let said = async {
            loop {
                let log = self.gateway.log().split_off(after);
                if log.ends_with('\n') && wanted.iter().any(|wanted| log.contains(wanted)) {
                    return log;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, said)
            .await
            .unwrap_or_else(|_| panic!("none of {wanted:?} is in the log:\n{}", self.gateway.log()))
    }
}

/// The configuration with DIR as its folder.
fn in_folder(dir: &Path, config: &str) -> String {
    config.replace("DIR", &dir.display().to_string())
}
