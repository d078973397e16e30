//! `skein serve`: from the command line to a running gateway.

use std::time::SystemTime;

use skein_storage::scylla::{ConnectError, OpenError};
use skein_transport::StartError;

use super::banner::{self, Development};
use super::settings::Settings;
use super::{Failure, exit, log};
use crate::auth::Verifier;
use crate::config::{Config, TokenKey};
use crate::dev::DevFiles;
use crate::launch::Launch;
use crate::open::OpenStoreError;
use crate::serve::{self, ServeError};
use crate::stop;
use crate::tls::Certificate;

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

    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let loaded = args.settings.load([
        ("--listen", "listen", args.listen),
        ("--admin", "admin.listen", args.admin),
        ("--shards", "shards", args.shards),
        ("--tls-cert", "tls.cert", args.tls_cert),
        ("--tls-key", "tls.key", args.tls_key),
        ("--auth-key", "auth.key_file", args.auth_key),
        ("--auth-jwks", "auth.jwks_file", args.auth_jwks),
        ("--log-level", "log.level", args.log_level),
        ("--log-format", "log.format", args.log_format),
    ])?;
    log::start(&loaded.config.log)?;
    for remark in &loaded.remarks {
        tracing::warn!("{remark}");
    }
    let stop = stop::on_signals().map_err(|error| Failure::new("cannot watch signals", error))?;

    let mut config = loaded.config;
    let (certificate, verifier, development) = credentials(&mut config)?;
    if let Some(warning) = banner::exposure(development, config.listen) {
        tracing::warn!("{warning}");
    }
    let told = config.clone();
    let ready = move |serving| {
        // A gateway whose output nobody reads serves all the same.
        let _ = exit::print(&banner::ready(&told, development, serving));
    };
    start(Launch { config, certificate, verifier, stop, ready: ready.into() })
}

/// What the gateway shows and what it believes: as configured, or else made for development.
fn credentials(config: &mut Config) -> Result<(Certificate, Verifier, Development), Failure> {
    let dev = DevFiles::of(&config.data);
    let failed = |error| Failure::new("development files", error);
    let mut development = Development::default();

    let certificate = match (&config.tls.cert, &config.tls.key) {
        (Some(cert), Some(key)) => Certificate::load(cert, key)
            .map_err(|error| Failure::Configuration(format!("[tls] {error}")))?,
        _ => {
            development.certificate = true;
            dev.certificate(SystemTime::now()).map_err(failed)?
        }
    };
    if !config.auth.names_a_key() {
        development.token_key = true;
        config.auth.keys = vec![TokenKey::of(dev.ensure_token_key().map_err(failed)?)];
    }
    let verifier = Verifier::from_config(&config.auth)
        .map_err(|error| Failure::Configuration(format!("[auth] {error}")))?;
    Ok((certificate, verifier, development))
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
