//! A client that was at one gateway resumes at another that has the same secret, and only there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use skein_transport::Keys;

use super::Scene;
use super::certificates::{make, trusting};
use crate::support::raw::{Raw, endpoint_with};

/// Counts the certificates that it is shown: none in a resumed handshake.
#[derive(Debug)]
struct Counting {
    inner: Arc<WebPkiServerVerifier>,
    shown: AtomicUsize,
}

impl ServerCertVerifier for Counting {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.shown.fetch_add(1, Ordering::Relaxed);
        self.inner.verify_server_cert(own, above, name, ocsp, now)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// A client that keeps tickets, and what it was shown.
fn client(trusts: &Path) -> (quinn::Endpoint, Arc<Counting>) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_file(trusts).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let inner =
        WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    let counting = Arc::new(Counting { inner, shown: AtomicUsize::new(0) });
    let mut tls = trusting(trusts);
    tls.dangerous().set_certificate_verifier(counting.clone());
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    (endpoint_with(Arc::new(crypto), quinn::TransportConfig::default()), counting)
}

/// Logs in there; the ticket comes before the answer does.
async fn visit(endpoint: &quinn::Endpoint, scene: &Scene) {
    let mut raw = Raw::connect_from(endpoint.clone(), scene.gateway.address).await;
    raw.enter(&scene.gateway.token("alice"), "phone").await;
}

const SHARED: &str = "[tls]\ncert = \"DIR/tls.pem\"\nkey = \"DIR/tls.key\"\n\
                      secret_file = \"DIR/secret\"\n";

#[tokio::test]
async fn a_ticket_is_good_at_every_gateway_with_the_secret() {
    let common = tempfile::tempdir().unwrap();
    make(common.path(), "tls", "localhost", Duration::from_secs(90 * 24 * 3600));
    Keys::load_or_create(common.path().join("secret")).unwrap();
    let setup = |dir: &Path| {
        for name in ["tls.pem", "tls.key", "secret"] {
            std::fs::copy(common.path().join(name), dir.join(name)).unwrap();
        }
    };
    let (one, two) = (Scene::start(SHARED, setup), Scene::start(SHARED, setup));
    let alone = Scene::start(&SHARED.replace("secret_file", "#"), setup);

    let (endpoint, counting) = client(&one.file("tls.pem"));
    let shown = || counting.shown.load(Ordering::Relaxed);
    visit(&endpoint, &one).await;
    assert_eq!(shown(), 1);
    visit(&endpoint, &two).await;
    assert_eq!(shown(), 1, "resumed at another gateway");
    visit(&endpoint, &alone).await;
    assert_eq!(shown(), 2, "a gateway with a secret of its own opens no ticket of others");

    // Another secret, by a reload: tickets of before are worth nothing, later ones are.
    visit(&endpoint, &two).await;
    let seen = shown();
    std::fs::remove_file(two.file("secret")).unwrap();
    Keys::load_or_create(two.file("secret")).unwrap();
    two.hang_up().await;
    visit(&endpoint, &two).await;
    assert_eq!(shown(), seen + 1);
    visit(&endpoint, &two).await;
    assert_eq!(shown(), seen + 1);

    // A secret that everybody can read is refused.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(two.file("secret"), open).unwrap();
    let log = two.hang_up().await;
    assert!(log.contains("tls.secret_file") && log.contains("by everybody"), "{log}");
    visit(&endpoint, &two).await;
    assert_eq!(shown(), seen + 1);
}
