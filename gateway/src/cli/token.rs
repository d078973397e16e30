//! `skein token`: a token on standard output and nothing else.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use skein_protocol::{DeviceId, UserId};

use super::Failure;
use super::exit::print;
use super::settings::Settings;
use crate::config::{Alg, Choice, Config};
use crate::dev::DevFiles;
use crate::token::{Grant, Signer};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Who connects with it: `sub`, 1 to 64 bytes
    #[arg(long, value_name = "USER")]
    user: UserId,

    /// The only device that may use it, 1 to 64 of A-Z a-z 0-9 . _ - [default: any device]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceId>,

    /// How long it is good for, such as 30s, 1h or 7days
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ttl)]
    ttl: Duration,

    /// Sign with this key: a private key in PEM (PKCS#8) for EdDSA or ES256, or a shared secret
    /// for HS256
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Refuse a key that is for another algorithm: EdDSA, ES256 or HS256
    #[arg(long, value_name = "ALG", requires = "key", value_parser = alg)]
    alg: Option<Alg>,

    #[command(flatten)]
    settings: Settings,
}

fn ttl(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.as_secs() >= 1 => Ok(time),
        Ok(_) => Err("it must be at least 1s".into()),
        Err(_) => Err("write a time with its unit, such as 30s, 1h or 7days".into()),
    }
}

fn alg(text: &str) -> Result<Alg, String> {
    let found = Alg::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, alg)| *alg).ok_or_else(|| "choose EdDSA, ES256 or HS256".into())
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = args.settings.load([])?.config;
    let signer = signer(args, &config)?;
    let grant = Grant {
        user: &args.user,
        device: args.device.as_ref(),
        audience: &config.auth.audience,
        issuer: config.auth.issuer.as_deref(),
        issued: SystemTime::now(),
        ttl: args.ttl,
    };
    let token = signer.sign(&grant).map_err(|error| Failure::new("cannot sign", error))?;
    print(&format!("{token}\n"))
}

fn signer(args: &Args, config: &Config) -> Result<Signer, Failure> {
    if let Some(file) = &args.key {
        return Signer::from_file(file, args.alg).map_err(|error| Failure::new("--key", error));
    }
    if config.auth.names_a_key() {
        return Err(Failure::Configuration(
            "the configuration names keys of its own ([auth]), so the gateway does not believe \
             the development key: give the signing key with --key FILE"
                .into(),
        ));
    }
    let file = DevFiles::of(&config.data).token_key();
    if !file.exists() {
        return Err(Failure::Failed(format!(
            "there is no development key {}: start `skein serve` on this data folder first \
             (--data DIR), or give a key with --key FILE",
            file.display()
        )));
    }
    Signer::from_file(&file, None).map_err(|error| Failure::new("development key", error))
}
