//! PEM files -> a certificate that a gateway can show.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// A certificate chain with the private key of its first certificate.
#[derive(Debug)]
pub struct Certificate {
    /// The gateway's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Key of the first one.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Certificate {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
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
        CertifiedKey::from_der(chain.clone(), key_der.clone_key(), &provider).map_err(|error| {
            problem(key, format!("does not go with {}: {error}", cert.display()))
        })?;
        Ok(Self { chain, key: key_der })
    }
}

fn why(error: &PemError, what: &str) -> String {
    match error {
        PemError::Io(error) => error.to_string(),
        PemError::NoItemsFound => format!("holds no {what} in PEM"),
        other => format!("holds no {what} that can be read: {other}"),
    }
}
