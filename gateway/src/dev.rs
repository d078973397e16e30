//! A certificate and a token key for the first minutes: made once in `DATA/dev`, reused
//! afterwards, and found there by `skein-chat` and `skein token` on the same machine.
//!
//! | File | What |
//! |---|---|
//! | `ca.pem` | the certificate that clients trust; its key is thrown away once it has signed |
//! | `cert.pem`, `key.pem` | the gateway's certificate for localhost, 127.0.0.1 and ::1, and its key |
//! | `token-key.pem` | Ed25519 private key (PKCS#8) that signs tokens |
//! | `token-key.pub.pem` | its public key, which the gateway checks tokens with |
//!
//! A certificate that cannot be used any more is replaced; a token key never is, because tokens
//! are out that it has signed. Each file appears complete or not at all, private ones readable by
//! their owner alone. Whoever can read `token-key.pem` can speak for every user: this is for
//! development, and the command line says so when it serves more than the loopback.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePublicKey, KeypairBytes};
use ed25519_dalek::{SecretKey, SigningKey};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use crate::tls::Certificate;
use crate::whole_file::{self, Access};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Life of the certificate. Long enough to forget about it, short enough that some clients with a
/// bound on it (398 days on Apple systems) accept it.
const VALID_FOR: Duration = Duration::from_secs(365 * DAY.as_secs());

/// A certificate that ends within this time is replaced at the start, so that it does not end
/// under a gateway that runs for weeks.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * DAY.as_secs());

/// Clocks of two machines may differ; a new certificate is valid since a day.
const BACKDATED: Duration = DAY;

/// Why the development files cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The folder or a file in it cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is a token key, and it is not one of ours.
    #[error(
        "{} holds no Ed25519 key in PKCS#8: remove it to get a new one (tokens that the old \
         one signed then end)", path.display()
    )]
    TokenKey {
        /// The key's file.
        path: PathBuf,
    },
    /// The certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
}

/// The files for development of one data folder.
#[derive(Debug, Clone)]
pub struct DevFiles {
    dir: PathBuf,
}

impl DevFiles {
    /// Those of the data folder `data`; nothing is made yet.
    pub fn of(data: &Path) -> Self {
        Self { dir: data.join("dev") }
    }

    /// Certificate that clients trust.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The gateway's certificate.
    pub fn cert(&self) -> PathBuf {
        self.dir.join("cert.pem")
    }

    /// Its private key.
    pub fn key(&self) -> PathBuf {
        self.dir.join("key.pem")
    }

    /// Private key that signs tokens.
    pub fn token_key(&self) -> PathBuf {
        self.dir.join("token-key.pem")
    }

    /// Its public key.
    pub fn token_public_key(&self) -> PathBuf {
        self.dir.join("token-key.pub.pem")
    }

    /// The certificate, made anew if there is none that would be good for a while.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn certificate(&self, now: SystemTime) -> Result<Certificate, DevError> {
        if let Some(certificate) = self.usable_certificate(now) {
            return Ok(certificate);
        }
        self.make_certificate(now).and_then(|()| {
            self.usable_certificate(now).ok_or_else(|| {
                DevError::Make(format!("what was written to {} is not usable", self.dir.display()))
            })
        })
    }

    /// The certificate on disk if clients that trust `ca.pem` accept it, now and for a while.
    fn usable_certificate(&self, now: SystemTime) -> Option<Certificate> {
        let certificate = Certificate::load(&self.cert(), &self.key()).ok()?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.ca()).ok()?).ok()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client =
            WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().ok()?;
        let (own, above) = certificate.chain().split_first()?;
        for time in [now, now + RENEW_BEFORE] {
            let time = UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).ok()?);
            for name in [ServerName::try_from("localhost").ok()?, Ipv4Addr::LOCALHOST.into()] {
                client.verify_server_cert(own, above, &name, &[], time).ok()?;
            }
        }
        Some(certificate)
    }

    fn make_certificate(&self, now: SystemTime) -> Result<(), DevError> {
        let made = Pems::make(now).map_err(|error| DevError::Make(error.to_string()))?;
        self.make_dir()?;
        // What clients look at comes last: while it is the old one, or none, nobody trusts a half.
        self.put(&self.key(), &made.key, Access::Owner)?;
        self.put(&self.cert(), &made.cert, Access::All)?;
        self.put(&self.ca(), &made.ca, Access::All)
    }

    /// The file of the public key that checks tokens; makes the key if there is none.
    ///
    /// # Errors
    /// When the files cannot be written, or the private key is there but cannot be read.
    pub fn ensure_token_key(&self) -> Result<PathBuf, DevError> {
        let private = self.token_key();
        if !private.exists() {
            self.make_dir()?;
            let seed: SecretKey = rand::random();
            // Without the public key inside (version 1): every tool reads that form.
            let pem = KeypairBytes { secret_key: seed, public_key: None };
            let pem = ed25519_dalek::pkcs8::EncodePrivateKey::to_pkcs8_pem(&pem, LineEnding::LF)
                .map_err(|error| DevError::Make(error.to_string()))?;
            self.put(&private, &pem, Access::OwnerOnce)?;
        }
        let pem = fs::read_to_string(&private)
            .map_err(|source| DevError::Io { path: private.clone(), source })?;
        let key = SigningKey::from_pkcs8_pem(&pem)
            .map_err(|_| DevError::TokenKey { path: private.clone() })?;
        let public = key
            .verifying_key()
            .to_public_key_pem(LineEnding::LF)
            .map_err(|error| DevError::Make(error.to_string()))?;
        let path = self.token_public_key();
        if fs::read_to_string(&path).is_ok_and(|there| there == public) {
            return Ok(path);
        }
        self.put(&path, &public, Access::All)?;
        Ok(path)
    }

    fn make_dir(&self) -> Result<(), DevError> {
        fs::create_dir_all(&self.dir)
            .map_err(|source| DevError::Io { path: self.dir.clone(), source })
    }

    /// Writes a file so that it is there complete or not at all, also after a loss of power.
    fn put(&self, path: &Path, text: &str, access: Access) -> Result<(), DevError> {
        whole_file::put(path, text.as_bytes(), access)
            .map_err(|source| DevError::Io { path: path.to_owned(), source })
    }
}

struct Pems {
    ca: String,
    cert: String,
    key: String,
}

impl Pems {
    /// An authority that signs one certificate and is forgotten.
    fn make(now: SystemTime) -> Result<Self, rcgen::Error> {
        let mut ca = params(Vec::new(), "Skein development authority", now)?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

        let names = ["localhost", "127.0.0.1", "::1"].map(String::from).to_vec();
        let mut own = params(names, "Skein development gateway", now)?;
        own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let cert = own.signed_by(&key, &ca)?;
        Ok(Self { ca: ca.pem(), cert: cert.pem(), key: key.serialize_pem() })
    }
}

fn params(
    names: Vec<String>,
    name: &str,
    now: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + VALID_FOR).into();
    // Strict checkers want it (RFC 5280 section 4.2.1.1).
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
