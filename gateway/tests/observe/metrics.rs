use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use skein_gateway::observe::reference_page;

use crate::lint::{Metric, lint, parse};
use crate::support::http::get;
use crate::support::process::{Gateway, Options};
use crate::support::raw::Raw;

/// More series than that from one gateway with few shards would be a label that grows.
const MAX_SERIES: usize = 1500;

/// What a page says.
struct Page(BTreeMap<String, Metric>);

impl Page {
    fn of(admin: SocketAddr) -> Self {
        let answer = get(admin, "/metrics");
        assert_eq!(answer.status, 200);
        Self(parse(&answer.body).unwrap())
    }

    /// The value of a sample with this name and these labels.
    fn value(&self, sample: &str) -> f64 {
        let all = self.0.values().flat_map(|metric| &metric.samples);
        let found = all.filter(|(name, _)| name == sample).map(|(_, value)| *value).next();
        found.unwrap_or_else(|| panic!("no {sample}"))
    }

    /// The sum over all labels.
    fn sum(&self, name: &str) -> f64 {
        self.0[name].samples.iter().map(|(_, value)| value).sum()
    }
}

fn options() -> Options {
    Options::default().env("SKEIN_ADMIN__LISTEN", "127.0.0.1:0").env("SKEIN_SHARDS", 2)
}

/// Counters are read while the gateway works: until they are there.
fn eventually(admin: SocketAddr, holds: impl Fn(&Page) -> bool) -> Page {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let page = Page::of(admin);
        if holds(&page) || Instant::now() > until {
            return page;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = reference_page();
    if std::env::var_os("SKEIN_UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert!(
        there == page,
        "docs/metrics.md is not current: SKEIN_UPDATE=1 cargo test -p skein-gateway --test observe"
    );
}

#[test]
fn the_page_keeps_the_rules_and_is_described() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let page = Page::of(gateway.admin.unwrap());
    assert_eq!(lint(&page.0), Vec::<String>::new());
    let described = reference_page();
    for (name, metric) in &page.0 {
        let end = if metric.kind == "counter" { "_total" } else { "" };
        assert!(described.contains(&format!("| `{name}{end}` |")), "{name}");
    }
    let series: usize = page.0.values().map(|metric| metric.samples.len()).sum();
    assert!(series < MAX_SERIES, "{series}");
    assert_eq!(page.value("skein_ready"), 1.0);
    assert_eq!(page.value("skein_store_up"), 1.0);
}

#[tokio::test]
async fn what_happens_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let admin = gateway.admin.unwrap();
    let login = |user: &'static str| {
        let (address, data, token) = (gateway.address, dir.path(), gateway.token(user));
        async move { Raw::login(address, data, &token, "phone").await }
    };
    let (mut alice, mut bob) = (login("alice").await, login("bob").await);
    for n in 0..10 {
        alice.message("bob", &format!("m{n}"), "hello").await;
        alice.ack().await;
        bob.push().await;
    }
    // A message that breaks a rule, and a stranger.
    alice.message("bob", "", "no name").await;
    alice.error().await;
    let mut stranger = Raw::connect(gateway.address, dir.path()).await;
    stranger.hello("no token", "phone").await;
    stranger.closed().await;
    // A device that comes again.
    let again = login("bob").await;
    bob.closed().await;

    let page = tokio::task::spawn_blocking(move || {
        eventually(admin, |page| {
            page.sum("skein_sessions_evicted") >= 1.0 && page.value("skein_sessions") == 2.0
        })
    });
    let page = page.await.unwrap();
    assert_eq!(lint(&page.0), Vec::<String>::new());
    for (sample, value) in [
        ("skein_logins_total", 3.0),
        ("skein_users_online", 2.0),
        ("skein_login_failures_total{code=\"bad_token\"}", 1.0),
        ("skein_sessions_evicted_total{code=\"replaced\"}", 1.0),
        ("skein_handshakes_completed_total", 4.0),
        ("skein_frames_received_total{kind=\"hello\"}", 4.0),
        ("skein_frames_received_total{kind=\"send\"}", 10.0),
        ("skein_frames_sent_total{kind=\"send_ack\"}", 10.0),
        ("skein_frames_sent_total{kind=\"push\"}", 10.0),
        ("skein_frames_sent_total{kind=\"error\"}", 1.0),
        ("skein_requests_refused_total{code=\"invalid_argument\"}", 1.0),
        ("skein_send_ack_seconds_count", 10.0),
        ("skein_send_push_seconds_count", 10.0),
        ("skein_append_messages_sum", 10.0),
        ("skein_append_seconds_count", 10.0),
        ("skein_store_rows_total", 10.0),
        ("skein_conversations_in_memory", 1.0),
        ("skein_store_errors_total{kind=\"unavailable\"}", 0.0),
    ] {
        assert_eq!(page.value(sample), value, "{sample}");
    }
    // Each message went to the disk between its arrival and its acknowledgement.
    let (ack, append) =
        (page.value("skein_send_ack_seconds_sum"), page.value("skein_append_seconds_sum"));
    assert!(ack > append && append > 0.0, "{ack} {append}");
    assert!(page.value("skein_store_commit_seconds_count") > 0.0);
    assert!(page.sum("skein_shard_busy_seconds") > 0.0);
    if cfg!(target_os = "linux") {
        assert!(page.value("process_resident_memory_bytes") > 1e6);
        assert!(page.value("skein_disk_free_bytes") > 0.0);
    }
    drop(again);
}
