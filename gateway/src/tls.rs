//! PEM files -> certificates that a gateway can show.

mod shown;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::{CertificateFiles, TlsConfig};
pub use shown::Certificates;

/// A certificate chain with the private key of its first certificate.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Where the chain was read.
    pub file: PathBuf,
    /// Host names that it is for, in lower case; the first label may be `*`.
    pub names: Vec<String>,
    /// When the last certificate of the chain to begin begins.
    pub begins: SystemTime,
    /// When the first certificate of the chain to end ends.
    pub ends: SystemTime,
    /// Chain and key.
    pub certified: Arc<CertifiedKey>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct CertificateError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong and what would be right.
    pub why: String,
}

impl Certificate {
    /// Reads a chain and its key, and checks that they belong together.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, CertificateError> {
        let problem = |path: &Path, why: String| CertificateError { path: path.to_owned(), why };
        let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect)
            .map_err(|error| problem(cert, why(&error, "certificate")))?;
        if chain.is_empty() {
            return Err(problem(cert, "holds no certificate in PEM".into()));
        }
        let key_der = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| problem(key, why(&error, "private key")))?;
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(chain, key_der, &provider).map_err(|error| {
            problem(key, format!("does not go with {}: {error}", cert.display()))
        })?;
        let Inside { names, begins, ends } =
            look_into(&certified.cert).map_err(|why| problem(cert, why))?;
        Ok(Self { file: cert.to_owned(), names, begins, ends, certified: Arc::new(certified) })
    }

    /// Why clients refuse it at this time; none if its time is now.
    pub fn out_of_time(&self, now: SystemTime) -> Option<String> {
        let shown = humantime::format_rfc3339_seconds;
        match now {
            now if now >= self.ends => Some(format!("has ended at {}", shown(self.ends))),
            now if now < self.begins => Some(format!("begins at {}", shown(self.begins))),
            _ => None,
        }
    }

    /// The gateway's own certificate first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }
}

/// The certificates of the configuration, the one for everybody first, and what is wrong with the
/// others: the key of the configuration, and a message.
pub fn load(tls: &TlsConfig) -> (Vec<Certificate>, Vec<(&'static str, CertificateError)>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (name, files) in configured(tls) {
        match Certificate::load(&files.cert, &files.key) {
            Ok(certificate) => good.push(certificate),
            Err(error) => bad.push((name, error)),
        }
    }
    (good, bad)
}

/// The first of the new ones that clients would refuse, while what is shown in its place is good.
pub fn worse(
    shown: &[Certificate],
    new: &[Certificate],
    now: SystemTime,
) -> Option<CertificateError> {
    new.iter().find_map(|new| {
        let why = new.out_of_time(now)?;
        let before = shown.iter().find(|before| before.file == new.file)?;
        before.out_of_time(now).is_none().then(|| CertificateError {
            path: new.file.clone(),
            why: format!("{why}, and the one before it is still good"),
        })
    })
}

/// The certificates that the configuration names, each with the key under which it does.
pub fn configured(tls: &TlsConfig) -> Vec<(&'static str, CertificateFiles)> {
    let first = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            Some(("tls.cert", CertificateFiles { cert: cert.clone(), key: key.clone() }))
        }
        _ => None,
    };
    let others = tls.certificates.iter().map(|files| ("tls.certificates", files.clone()));
    first.into_iter().chain(others).collect()
}

/// What a chain says of itself.
struct Inside {
    names: Vec<String>,
    begins: SystemTime,
    ends: SystemTime,
}

fn look_into(chain: &[CertificateDer<'_>]) -> Result<Inside, String> {
    let mut names = Vec::new();
    let (mut begins, mut ends) = (UNIX_EPOCH, None);
    for (place, der) in chain.iter().enumerate() {
        let (_, cert) = X509Certificate::from_der(der)
            .map_err(|error| format!("certificate {} cannot be read: {error}", place + 1))?;
        // Before 1970 is as long ago as 1970.
        let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0));
        let end = time(cert.validity().not_after.timestamp());
        begins = begins.max(time(cert.validity().not_before.timestamp()));
        ends = Some(ends.map_or(end, |other: SystemTime| other.min(end)));
        if place == 0
            && let Ok(Some(alternatives)) = cert.subject_alternative_name()
        {
            let hosts = alternatives.value.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            });
            names.extend(hosts);
        }
    }
    ends.map(|ends| Inside { names, begins, ends }).ok_or_else(|| "holds no certificate".into())
}

fn why(error: &PemError, what: &str) -> String {
    match error {
        PemError::Io(error) => error.to_string(),
        PemError::NoItemsFound => format!("holds no {what} in PEM"),
        other => format!("holds no {what} that can be read: {other}"),
    }
}
