//! Which certificate is shown to whom, replaceable while connections come.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, sign::SigningKey};

use super::Certificate;

/// The certificates that are shown now.
pub struct Certificates {
    shown: ArcSwap<Shown>,
}

struct Shown {
    /// In the order of the configuration; the first is for everybody.
    all: Vec<Certificate>,
    /// Places in `all`, by host name.
    by_name: HashMap<String, Vec<usize>>,
}

impl Certificates {
    /// Shows these, the first of them to everybody for whose host no other is.
    pub fn new(all: Vec<Certificate>) -> Arc<Self> {
        Arc::new(Self { shown: ArcSwap::from_pointee(Shown::new(all)) })
    }

    /// Shows these to whoever begins a connection from now on. Whether anything is new in them.
    pub fn replace(&self, all: Vec<Certificate>) -> bool {
        let chains = |all: &[Certificate]| -> Vec<_> {
            all.iter().map(|one| (one.file.clone(), one.chain().to_vec())).collect()
        };
        let is_new = chains(&self.shown.load().all) != chains(&all);
        self.shown.store(Arc::new(Shown::new(all)));
        is_new
    }

    /// Those that are shown, the one for everybody first.
    pub fn all(&self) -> Vec<Certificate> {
        self.shown.load().all.clone()
    }
}

impl Shown {
    fn new(all: Vec<Certificate>) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, certificate) in all.iter().enumerate() {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_default().push(place);
            }
        }
        Self { all, by_name }
    }

    /// The first that is for this host and whose key the client understands; else the first of all.
    fn choose(&self, host: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let understands = |key: &Arc<dyn SigningKey>| key.choose_scheme(schemes).is_some();
        let named = host.map(|host| self.places_of(host)).into_iter().flatten();
        let everybody = (0..self.all.len()).take(1);
        let mut candidates = named.chain(everybody).filter_map(|place| self.all.get(place));
        candidates.find(|one| understands(&one.certified.key)).map(|one| one.certified.clone())
    }

    /// Certificates for the host by its name, then those for all hosts beside it (RFC 6125 section
    /// 6.4.3: `*` stands for one whole label).
    fn places_of(&self, host: &str) -> impl Iterator<Item = usize> {
        let host = host.to_ascii_lowercase();
        let any = host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let of = |name: &str| self.by_name.get(name).cloned().unwrap_or_default();
        let wild = any.map(|any| of(&any)).unwrap_or_default();
        of(&host).into_iter().chain(wild)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.shown.load().choose(hello.server_name(), hello.signature_schemes())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.shown.load().all.iter().map(|one| &one.file)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::{Duration, SystemTime};

    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm,
    };

    use super::*;

    const P256: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    const ED25519: SignatureScheme = SignatureScheme::ED25519;

    fn made(
        dir: &Path,
        file: &str,
        hosts: &[&str],
        alg: &'static SignatureAlgorithm,
        ends: SystemTime,
    ) -> Certificate {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.not_after = ends.into();
        let key = KeyPair::generate_for(alg).unwrap();
        let cert = params.self_signed(&key).unwrap();
        let (cert_file, key_file) = (dir.join(file), dir.join(format!("{file}.key")));
        std::fs::write(&cert_file, cert.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        Certificate::load(&cert_file, &key_file).unwrap()
    }

    fn soon() -> SystemTime {
        SystemTime::now() + Duration::from_secs(1000)
    }

    fn chosen(shown: &Shown, host: &str, schemes: &[SignatureScheme]) -> Option<PathBuf> {
        let host = Some(host).filter(|host| !host.is_empty());
        let key = shown.choose(host, schemes)?;
        let of = |one: &&Certificate| Arc::ptr_eq(&one.certified, &key);
        shown.all.iter().find(of).and_then(|one| one.file.file_name()).map(PathBuf::from)
    }

    #[test]
    fn each_host_gets_its_certificate_and_everybody_else_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let p256 =
            |file, hosts: &[&str]| made(dir.path(), file, hosts, &PKCS_ECDSA_P256_SHA256, soon());
        let shown = Shown::new(vec![
            p256("first", &["chat.example.com"]),
            p256("other", &["Chat.example.ORG", "old.example.org"]),
            p256("wild", &["*.example.net", "old.example.org"]),
            made(dir.path(), "ed", &["b.example.net"], &PKCS_ED25519, soon()),
        ]);
        for (host, file) in [
            ("", "first"),
            ("chat.example.com", "first"),
            ("nobody.example", "first"),
            ("chat.example.org", "other"),
            ("CHAT.example.org", "other"),
            ("old.example.org", "other"),
            ("a.example.net", "wild"),
            ("a.a.example.net", "first"),
            ("example.net", "first"),
        ] {
            assert_eq!(chosen(&shown, host, &[P256]), Some(file.into()), "{host}");
        }
        // A key that the client does not understand is passed over.
        assert_eq!(chosen(&shown, "b.example.net", &[ED25519, P256]), Some("ed".into()));
        assert_eq!(chosen(&shown, "b.example.net", &[P256]), Some("wild".into()));
        assert_eq!(chosen(&shown, "b.example.net", &[SignatureScheme::RSA_PSS_SHA256]), None);
    }

    #[test]
    fn what_is_replaced_is_told_from_what_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let make = || made(dir.path(), "a", &["a.example"], &PKCS_ED25519, ends);
        let first = make();
        assert_eq!((first.ends, first.names.as_slice()), (ends, &["a.example".to_owned()][..]));
        let certificates = Certificates::new(vec![first.clone()]);
        assert!(!certificates.replace(vec![first.clone()]));
        assert!(certificates.replace(vec![make()]));
        assert_ne!(certificates.all()[0].chain(), first.chain());
    }
}
