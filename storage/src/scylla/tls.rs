//! PEM -> what the driver needs to encrypt connections.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::options::{ConnectError, TlsOptions};

/// A configuration with a provider that is named: a program that has two of them linked in (the
/// driver brings another) would be stopped by the automatic choice.
pub(super) fn client_config(options: &TlsOptions) -> Result<Arc<ClientConfig>, ConnectError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&options.ca, "the cluster's CA certificate")? {
        roots.add(certificate).map_err(problem("the cluster's CA certificate"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(problem("TLS"))?
        .with_root_certificates(roots);
    let config = match &options.client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let chain = certificates(&client.chain, "the client certificate")?;
            let key = PrivateKeyDer::from_pem_slice(&client.key)
                .map_err(problem("the client certificate's key"))?;
            builder.with_client_auth_cert(chain, key).map_err(problem("the client certificate"))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(
    pem: &[u8],
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let all: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(problem(what))?;
    if all.is_empty() {
        return Err(ConnectError::Tls { what, reason: "holds no certificate in PEM".into() });
    }
    Ok(all)
}

fn problem<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> ConnectError {
    move |error| ConnectError::Tls { what, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        for ca in [&b""[..], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let options = TlsOptions { ca: ca.to_vec(), client: None };
            let error = client_config(&options).err().map(|error| error.to_string());
            let text = error.unwrap_or_default();
            assert!(text.starts_with("the cluster's CA certificate: "), "{text}");
        }
    }
}
