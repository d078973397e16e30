//! Certificates: replaced when their files change, chosen by host name, warned of before they end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn::crypto::rustls::QuicClientConfig;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use skein_protocol::ALPN;

use super::{PATIENCE, Scene};
use crate::support::raw::{Raw, endpoint_with};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Writes NAME.pem and NAME.key for this host.
pub fn make(dir: &Path, name: &str, host: &str, valid_for: Duration) {
    make_until(dir, name, host, SystemTime::now() + valid_for);
}

fn make_until(dir: &Path, name: &str, host: &str, ends: SystemTime) {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.not_after = ends.into();
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), cert.pem()).unwrap();
}

/// Those that trust the certificate in this file.
pub fn trusting(cert: &Path) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls
}

impl Scene {
    /// Whether a client that trusts this file alone is served under this host's name.
    async fn shows(&self, file: &str, host: &str) -> bool {
        let crypto = QuicClientConfig::try_from(trusting(&self.file(file))).unwrap();
        let endpoint = endpoint_with(Arc::new(crypto), quinn::TransportConfig::default());
        endpoint.connect(self.gateway.address, host).unwrap().await.is_ok()
    }

    async fn comes_to_show(&self, file: &str, host: &str) {
        let coming = async {
            while !self.shows(file, host).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, coming).await.expect("it is never shown");
    }
}

const WATCHED: &str = "[tls]\ncert = \"DIR/tls.pem\"\nkey = \"DIR/tls.key\"\nwatch = \"1s\"\n";

#[tokio::test]
async fn new_files_are_shown_without_a_signal_and_bad_ones_are_not() {
    let scene = Scene::start(WATCHED, |dir| make(dir, "tls", "localhost", 90 * DAY));
    let old = scene.file("old.pem");
    std::fs::copy(scene.file("tls.pem"), &old).unwrap();
    let mut session = {
        let crypto = QuicClientConfig::try_from(trusting(&old)).unwrap();
        let endpoint = endpoint_with(Arc::new(crypto), quinn::TransportConfig::default());
        Raw::connect_from(endpoint, scene.gateway.address).await
    };
    session.enter(&scene.gateway.token("alice"), "phone").await;

    make(scene.dir.path(), "tls", "localhost", 90 * DAY);
    scene.comes_to_show("tls.pem", "localhost").await;
    assert!(!scene.shows("old.pem", "localhost").await);
    // Who is there stays.
    session.message("bob", "m1", "hello").await;
    assert_eq!(session.ack().await.seq, 1);

    // A certificate that does not go with its key: told once, and the one before stays.
    std::fs::copy(scene.file("tls.pem"), scene.file("good.pem")).unwrap();
    let before = scene.gateway.log().len();
    std::fs::copy(&old, scene.file("tls.pem")).unwrap();
    let refused = ["the new certificates are not used"];
    let log = scene.logged(before, &refused).await;
    assert!(log.contains("does not go with"), "{log}");
    assert!(scene.shows("good.pem", "localhost").await);
    let log = scene.hang_up().await;
    assert!(log.contains("the new configuration is not used"), "{log}");
    assert!(scene.shows("good.pem", "localhost").await);

    // Good again.
    make(scene.dir.path(), "tls", "localhost", 90 * DAY);
    scene.comes_to_show("tls.pem", "localhost").await;
    assert_eq!(scene.gateway.log().split_off(before).matches(refused[0]).count(), 1);
}

#[tokio::test]
async fn one_that_has_ended_does_not_replace_one_that_is_good() {
    let scene = Scene::start(WATCHED, |dir| make(dir, "tls", "localhost", 90 * DAY));
    std::fs::copy(scene.file("tls.pem"), scene.file("good.pem")).unwrap();
    let before = scene.gateway.log().len();
    make_until(scene.dir.path(), "tls", "localhost", SystemTime::now() - DAY);
    scene.logged(before, &["is still good"]).await;
    let log = scene.hang_up().await;
    assert!(log.contains("the new configuration is not used"), "{log}");
    assert!(scene.shows("good.pem", "localhost").await);
    make(scene.dir.path(), "tls", "localhost", 90 * DAY);
    scene.comes_to_show("tls.pem", "localhost").await;
}

#[tokio::test]
async fn each_host_has_its_certificate_also_after_a_reload() {
    let one = "[tls]\nwatch = \"0s\"\n[[tls.certificates]]\ncert = \"DIR/a.pem\"\n\
               key = \"DIR/a.key\"\n";
    let two = format!("{one}[[tls.certificates]]\ncert = \"DIR/b.pem\"\nkey = \"DIR/b.key\"\n");
    let scene = Scene::start(one, |dir| {
        make(dir, "a", "a.example", 90 * DAY);
        make(dir, "b", "b.example", 90 * DAY);
    });
    assert!(scene.shows("a.pem", "a.example").await);
    assert!(!scene.shows("b.pem", "b.example").await);
    scene.tell(&two).await;
    assert!(scene.shows("a.pem", "a.example").await);
    assert!(scene.shows("b.pem", "b.example").await);

    let bad = two.replace("DIR/b.key", "DIR/a.key").replace("DIR/a.pem", "DIR/nowhere.pem");
    let log = scene.tell(&bad).await;
    assert!(log.contains("nowhere.pem") && log.contains("does not go with"), "{log}");
    assert!(scene.shows("b.pem", "b.example").await);
}

#[tokio::test]
async fn a_certificate_that_ends_within_21_days_is_warned_of() {
    let config =
        format!("{WATCHED}certificates = [{{ cert = \"DIR/b.pem\", key = \"DIR/b.key\" }}]\n");
    let scene = Scene::start(&config, |dir| {
        make(dir, "tls", "localhost", 20 * DAY);
        make(dir, "b", "b.example", 22 * DAY);
    });
    let log = scene.logged(0, &["ends soon"]).await;
    let warned: Vec<&str> = log.lines().filter(|line| line.contains("ends soon")).collect();
    assert_eq!(warned.len(), 1, "{log}");
    assert!(warned[0].contains("tls.pem") && warned[0].contains("WARN"), "{log}");

    let before = scene.gateway.log().len();
    make(scene.dir.path(), "tls", "localhost", 90 * DAY);
    let log = scene.logged(before, &["shows a new certificate"]).await;
    assert!(!log.contains("ends soon"), "{log}");

    let ended = |dir: &Path| make_until(dir, "tls", "localhost", SystemTime::now() - DAY);
    let scene = Scene::start(WATCHED, ended);
    scene.logged(0, &["a certificate has ended"]).await;
}
