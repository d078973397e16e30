//! `skein serve`: from the command line to a running gateway.

use std::time::SystemTime;

use skein_storage::scylla::{ConnectError, OpenError};
use skein_transport::StartError;

use super::banner;
use super::settings::Settings;
use super::{Failure, exit, log};
use crate::config::{Loaded, Problems};
use crate::credentials::{Credentials, CredentialsError};
use crate::launch::Launch;
use crate::open::OpenStoreError;
use crate::reload::Source;
use crate::serve::{self, ServeError};
use crate::stop;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address and UDP port to serve on [default: 127.0.0.1:7843, this machine only]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,

    /// Address and TCP port of metrics, health and `skein ctl`, such as 127.0.0.1:7844 [default: off]
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<String>,

    /// Threads that serve connections, 0: one per core [default: 0]
    #[arg(long, value_name = "NUMBER")]
    shards: Option<String>,

    /// Certificate chain (PEM) [default: a self-made one for this machine]
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,

    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,

    /// Public key (PEM) or shared secret that tokens are checked with [default: a self-made one]
    #[arg(long, value_name = "FILE")]
    auth_key: Option<String>,

    /// JSON Web Key Set that tokens are checked with
    #[arg(long, value_name = "FILE")]
    auth_jwks: Option<String>,

    /// off, error, warn, info, debug or trace; SKEIN_LOG does the same [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,

    /// Stop when standard input ends too: for programs that start a gateway for themselves
    #[arg(long, hide = true)]
    until_stdin_ends: bool,

    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let loaded = args.load()?;
    let log_level = log::start(&loaded.config.log)?;
    for remark in &loaded.remarks {
        tracing::warn!("{remark}");
    }
    let (handle, stop, hangups) =
        stop::on_signals().map_err(|error| Failure::new("cannot watch signals", error))?;
    if args.until_stdin_ends {
        stop::on_end_of_input(handle)
            .map_err(|error| Failure::new("cannot watch standard input", error))?;
    }

    let credentials = Credentials::load(&loaded.config, SystemTime::now())
        .map_err(|error| unusable(error, &loaded))?;
    let (config, development) = (loaded.config, credentials.development);
    if let Some(warning) = banner::exposure(development, config.listen) {
        tracing::warn!("{warning}");
    }
    let told = config.clone();
    let ready = move |serving| {
        // A gateway whose output nobody reads serves all the same.
        let _ = exit::print(&banner::ready(&told, development, serving));
    };
    let (source, ready) = (Source::new(move || args.load()), ready.into());
    start(Launch { config, credentials, source, hangups, log_level, stop, ready })
}

impl Args {
    /// The configuration, as file and environment are now.
    fn load(&self) -> Result<Loaded, Problems> {
        self.settings.load([
            ("--listen", "listen", self.listen.clone()),
            ("--admin", "admin.listen", self.admin.clone()),
            ("--shards", "shards", self.shards.clone()),
            ("--tls-cert", "tls.cert", self.tls_cert.clone()),
            ("--tls-key", "tls.key", self.tls_key.clone()),
            ("--auth-key", "auth.key_file", self.auth_key.clone()),
            ("--auth-jwks", "auth.jwks_file", self.auth_jwks.clone()),
            ("--log-level", "log.level", self.log_level.clone()),
            ("--log-format", "log.format", self.log_format.clone()),
        ])
    }
}

fn unusable(error: CredentialsError, loaded: &Loaded) -> Failure {
    match error {
        CredentialsError::Development(error) => Failure::new("development files", error),
        files @ CredentialsError::Files(_) => files.problems(loaded).into(),
    }
}

fn start(launch: Launch) -> Result<(), Failure> {
    serve::run(launch).map_err(|error| match &error {
        ServeError::Engine(StartError::Bind { .. }) => {
            Failure::Failed(format!("{error}; choose another address with --listen ADDR:PORT"))
        }
        ServeError::Admin(_) => {
            Failure::Failed(format!("{error}; choose another address with --admin ADDR:PORT"))
        }
        ServeError::Store(OpenStoreError::File(_)) => Failure::Configuration(error.to_string()),
        ServeError::Store(OpenStoreError::Scylla(OpenError::Connect(
            ConnectError::Unreachable { .. },
        ))) => Failure::Failed(format!("{error}; see scylla.contact_points")),
        _ => Failure::Failed(error.to_string()),
    })
}
