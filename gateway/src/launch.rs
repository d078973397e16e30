//! What the command line hands to the gateway proper: everything read, checked and opened that
//! can be before the first socket.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::auth::Verifier;
use crate::config::Config;
use crate::stop::Stop;

/// Everything that a gateway needs to start.
#[derive(Debug)]
pub struct Launch {
    /// What it was told; every value is inside its range.
    pub config: Config,
    /// What it proves itself with.
    pub certificate: Certificate,
    /// Whom it believes.
    pub verifier: Verifier,
    /// When it ends.
    pub stop: Stop,
}

/// A certificate chain with the private key of its first certificate.
#[derive(Debug)]
pub struct Certificate {
    /// The gateway's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Key of the first one.
    pub key: PrivateKeyDer<'static>,
}
