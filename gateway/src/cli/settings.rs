//! Flags that several commands share, and the way from them to a configuration.

use std::path::PathBuf;

use clap::Args;

use crate::config::{Loaded, Problems, Sources};

/// Where the configuration comes from.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// Configuration file (TOML); `skein config default` prints one
    #[arg(long, value_name = "FILE", env = "SKEIN_CONFIG")]
    pub(super) config: Option<PathBuf>,

    /// Folder for messages, keys and the development certificate [default: ./skein-data]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<String>,

    /// Set any key of the configuration, for instance limits.max_sessions=5000; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(super) set: Vec<(String, String)>,
}

impl Settings {
    /// Reads file and environment, and puts the flags over them. `flags` are those of the command
    /// itself: flag, key, value.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub(super) fn load(
        &self,
        flags: impl IntoIterator<Item = (&'static str, &'static str, Option<String>)>,
    ) -> Result<Loaded, Problems> {
        self.sources(flags)?.read()
    }

    /// The same before anybody looks what is wrong with them.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn sources(
        &self,
        flags: impl IntoIterator<Item = (&'static str, &'static str, Option<String>)>,
    ) -> Result<Sources, Problems> {
        let mut sources = Sources::new();
        if let Some(path) = &self.config {
            sources = sources.file(path)?;
        }
        sources = sources.environment(std::env::vars_os());
        for (key, value) in &self.set {
            sources = sources.flag("--set", key, value);
        }
        for (flag, key, value) in flags.into_iter().chain([("--data", "data", self.data.clone())]) {
            if let Some(value) = value {
                sources = sources.flag(flag, key, value);
            }
        }
        Ok(sources)
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
        None => Err("write KEY=VALUE, for instance limits.max_sessions=5000".into()),
    }
}
