//! Real servers, a real driver: what tests of the store rely on.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use libtest_mimic::{Arguments, Failed, Trial};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore};
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use skein_xtask::cql::proxy::{Fault, Faults};
use skein_xtask::cql::{Cluster, Options, Tls, USER, may_start};
use tokio::runtime::Runtime;

fn main() {
    let mut arguments = Arguments::from_args();
    // One cluster at a time: three nodes take more than 2 GB.
    arguments.test_threads = Some(1);
    let ignored = !may_start("servers");
    let trial = |name: &str, run: fn()| {
        let runner = move || -> Result<(), Failed> {
            run();
            Ok(())
        };
        Trial::test(name, runner).with_ignored_flag(ignored)
    };
    let trials = vec![
        trial("one_node_keeps_its_data_and_can_be_paused", one_node),
        trial("clients_log_in_and_encrypt", guarded),
        trial("three_nodes_behind_proxies", three_nodes),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// Patience of the driver: longer than a node takes on a busy machine, except where a test says
/// that there will be no answer.
const CALM: Duration = Duration::from_secs(60);

async fn connect(points: &[SocketAddr]) -> Session {
    let profile = ExecutionProfile::builder().request_timeout(Some(CALM)).build();
    SessionBuilder::new()
        .known_nodes_addr(points)
        .default_execution_profile_handle(profile.into_handle())
        .build()
        .await
        .unwrap()
}

async fn run(session: &Session, statement: &str) {
    session.query_unpaged(statement, ()).await.unwrap();
}

async fn create(session: &Session, replicas: usize) {
    let keyspace = format!(
        "CREATE KEYSPACE test WITH replication = \
         {{'class': 'NetworkTopologyStrategy', 'replication_factor': {replicas}}}"
    );
    run(session, &keyspace).await;
    run(session, "CREATE TABLE test.rows (part int, row int, PRIMARY KEY (part, row))").await;
}

/// A conditional batch, like an append.
async fn append(session: &Session) -> Batch {
    let insert = "INSERT INTO test.rows (part, row) VALUES (?, ?) IF NOT EXISTS";
    let insert: PreparedStatement = session.prepare(insert).await.unwrap();
    let mut batch = Batch::new(BatchType::Unlogged);
    batch.append_statement(insert);
    batch
}

async fn rows(session: &Session) -> i64 {
    let answer = session.query_unpaged("SELECT COUNT(*) FROM test.rows", ()).await.unwrap();
    answer.into_rows_result().unwrap().single_row::<(i64,)>().unwrap().0
}

fn one_node() {
    let cluster = Cluster::start(Options { durable: true, ..Options::default() }).unwrap();
    let node = cluster.node(0);
    let pid = node.pid().unwrap();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let session = connect(&cluster.contact_points()).await;
        create(&session, 1).await;
        let batch = append(&session).await;
        session.batch(&batch, ((1, 1),)).await.unwrap();
        node.kill().unwrap();
        assert_eq!(node.pid(), None);
        node.start().unwrap();
        assert_ne!(node.pid(), Some(pid));

        let session = connect(&cluster.contact_points()).await;
        assert_eq!(rows(&session).await, 1, "the answer came after the disk");
        node.pause().unwrap();
        let short = Duration::from_millis(500);
        assert!(tokio::time::timeout(short, rows(&session)).await.is_err(), "it is paused");
        node.resume().unwrap();
        assert_eq!(rows(&session).await, 1);
    });
    assert!(node.start().is_err(), "it runs already");
    let folder = std::fs::read_dir(skein_xtask::cql::target().join("cql")).unwrap();
    let before: BTreeSet<_> = folder.flatten().map(|entry| entry.path()).collect();
    drop(cluster);
    let left = before.iter().filter(|path| !path.exists()).count();
    assert_eq!(left, 1, "its folder is gone, and no other");
}

fn guarded() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".into()]).unwrap();
    let tls = Tls { key: signing_key.serialize_pem(), chain: cert.pem(), clients: None };
    let options = Options { password: true, tls: Some(tls), ..Options::default() };
    let cluster = Cluster::start(options).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let trusting = client_config(roots);
    let strange = client_config(RootCertStore::empty());
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let builder = || SessionBuilder::new().known_nodes_addr(cluster.contact_points());
        let session =
            builder().user(USER, USER).tls_context(Some(trusting.clone())).build().await.unwrap();
        create(&session, 1).await;
        assert!(builder().tls_context(Some(trusting)).build().await.is_err(), "not logged in");
        assert!(builder().user(USER, "guess").build().await.is_err(), "wrong password");
        let strange = builder().user(USER, USER).tls_context(Some(strange));
        assert!(strange.build().await.is_err(), "the certificate is not trusted");
    });
}

fn client_config(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

fn three_nodes() {
    let options = Options { nodes: 3, behind_proxies: true, ..Options::default() };
    let cluster = Cluster::start(options).unwrap();
    let proxies = cluster.proxies().unwrap();
    let points = cluster.contact_points();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        // Given one of them the driver finds the others, and knows none but through its proxy.
        let session = connect(&points[..1]).await;
        let known = session.get_cluster_state();
        let known = known.get_nodes_info().iter();
        let known: BTreeSet<_> =
            known.map(|node| (node.address.ip(), node.address.port())).collect();
        let expected: BTreeSet<_> = points.iter().map(|point| (point.ip(), point.port())).collect();
        assert_eq!(known, expected);

        create(&session, 3).await;
        every_fault(&session, &cluster).await;
        proxies.heal();
        proxies.disconnect(1);

        // Two of three are down, then all; each comes back, whichever is first.
        cluster.node(0).kill().unwrap();
        cluster.node(2).kill().unwrap();
        cluster.node(2).start().unwrap();
        cluster.node(1).kill().unwrap();
        cluster.node(2).kill().unwrap();
        for node in [2, 1, 0] {
            cluster.node(node).start().unwrap();
        }
        cluster.wait().unwrap();
        let session = connect(&points).await;
        let batch = append(&session).await;
        let before = rows(&session).await;
        session.batch(&batch, ((-1, 1),)).await.unwrap();
        assert_eq!(rows(&session).await, before + 1);
    });
}

/// Appends until every kind of fault has occurred.
async fn every_fault(session: &Session, cluster: &Cluster) {
    let proxies = cluster.proxies().unwrap();
    let batch = append(session).await;
    proxies.set_faults(&Faults { seed: 1, ..Faults::every_kind(1, 0.5) });
    let short = Duration::from_secs(2);
    let mut row = 0;
    let missing = || {
        let counts = proxies.counts();
        Fault::all().into_iter().filter(|fault| counts.of(*fault) == 0).collect::<Vec<_>>()
    };
    while !missing().is_empty() {
        assert!(row < 1_000, "these do not occur: {:?}", missing());
        let appends = (0..50).map(|part| {
            let (batch, values) = (batch.clone(), ((part, row),));
            // What becomes of each does not matter here.
            async move {
                let _ = tokio::time::timeout(short, session.batch(&batch, values)).await;
            }
        });
        join_all(appends).await;
        row += 1;
    }
    assert!(proxies.counts().passed > 0);
    println!("{row} rounds of 50: {:?}", proxies.counts());
}
