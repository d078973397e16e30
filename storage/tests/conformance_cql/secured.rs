//! A cluster that wants a password, an encrypted connection, and a certificate of its clients.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use skein_storage::scylla::{
    ClientCertificate, ConnectError, Credentials, OpenError, ScyllaOptions, ScyllaStore,
    TlsOptions, schema,
};
use skein_xtask::cql::{Cluster, Options, Tls, USER};

use super::Own;
use super::place::{Place, SMALL, block_on, open, schema_options};
use super::scene::*;

pub const TESTS: &[Own] = &[("secured::only_who_may_comes_in", |_| only_who_may_comes_in())];

/// Somebody who signs certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for this name, and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

async fn refusal(options: ScyllaOptions) -> ConnectError {
    match ScyllaStore::open(options).await {
        Err(OpenError::Connect(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opened"),
    }
}

fn only_who_may_comes_in() {
    let (ours, others) = (Authority::new(), Authority::new());
    // Drivers know nodes by their addresses.
    let (certificate, key) = ours.sign("127.0.0.1");
    let tls = Tls { key, chain: certificate + &ours.pem, clients: Some(ours.pem.clone()) };
    let cluster =
        Cluster::start(Options { password: true, tls: Some(tls), ..Options::default() }).unwrap();
    let place = Place::new(cluster.contact_points());
    let (chain, key) = ours.sign("gateway");
    let client = ClientCertificate { chain: chain.into_bytes(), key: key.into_bytes() };
    let encrypted = |ca: &Authority, client: Option<&ClientCertificate>| {
        Some(TlsOptions { ca: ca.pem.clone().into_bytes(), client: client.cloned() })
    };
    let known = |password: &str| Some(Credentials { user: USER.into(), password: password.into() });
    block_on(async {
        let options = ScyllaOptions {
            credentials: known(USER),
            tls: encrypted(&ours, Some(&client)),
            ..place.new_keyspace()
        };
        schema::apply(&options, &schema_options(SMALL), &mut |_| {}).await.unwrap();
        let store = open(&options).await;
        let want = fill(&store, conversation(1), 0, 5, 2).await;
        assert!(whole(&store, conversation(1)).await == want);

        for credentials in [known("wrong"), None] {
            let refused = refusal(ScyllaOptions { credentials, ..options.clone() }).await;
            assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
            assert!(refused.to_string().contains("check the user and the password"), "{refused}");
        }
        // A node that nobody we trust has signed, and a client that the node does not trust.
        let (chain, key) = others.sign("gateway");
        let stranger = ClientCertificate { chain: chain.into_bytes(), key: key.into_bytes() };
        for tls in [
            encrypted(&others, Some(&client)),
            encrypted(&ours, Some(&stranger)),
            encrypted(&ours, None),
        ] {
            let refused = refusal(ScyllaOptions { tls, ..options.clone() }).await;
            assert!(matches!(refused, ConnectError::Unreachable { .. }), "{refused}");
            println!("{refused}");
        }
    });
}
