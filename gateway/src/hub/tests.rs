use super::*;
use crate::limits::Throttle;

mod cursors;
mod sync;

use std::time::Duration;

use skein_protocol::server::{BulkRequest, Rules};
use skein_protocol::{Code, wire};
use skein_storage::Record;
use skein_storage::memory::MemoryStore;
use skein_transport::sim::Seat;

use crate::auth::Verifier;
use crate::bulk::{Job, READING, WAITING_PAGES, refused_page};
use crate::config::AuthConfig;
use crate::hooked::{Hooked, Hooks};
use crate::lane::Key;
use crate::mail::Drain;
use crate::settings::SessionLimits;

/// Reads last until they are let go.
struct Slow {
    /// Closed: reads go on.
    gate: Semaphore,
    reading: AtomicUsize,
    most: AtomicUsize,
}

impl Slow {
    fn store() -> Arc<Hooked<Slow>> {
        let (reading, most) = Default::default();
        let hooks = Slow { gate: Semaphore::new(0), reading, most };
        Arc::new(Hooked { hooks, store: Arc::new(MemoryStore::new()) })
    }

    fn reading(&self) -> usize {
        self.reading.load(Ordering::Relaxed)
    }
}

impl Hooks for Slow {
    fn around<'a, T: Send + 'a>(
        &'a self,
        request: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        Box::pin(async move {
            let now = self.reading.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(now, Ordering::Relaxed);
            let _ = self.gate.acquire().await;
            // Others have a chance to be too many.
            tokio::task::yield_now().await;
            self.reading.fetch_sub(1, Ordering::Relaxed);
            request.await
        })
    }
}

struct TokioHost;

impl Host for TokioHost {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        tokio::spawn(work);
    }
}

/// As little of everything as there can be.
fn lane() -> LaneConfig {
    LaneConfig {
        dedup_window: 1,
        max_bytes: 1,
        max_waiting: 1,
        max_conversations: 1,
        max_unwritten: 1,
        max_loading: 1,
        patience: 1000,
    }
}

fn hub(store: Arc<dyn Store>, mailboxes: Vec<Mailbox<Mail>>) -> Arc<Hub> {
    hub_with(store, mailboxes, lane())
}

fn hub_with(store: Arc<dyn Store>, mailboxes: Vec<Mailbox<Mail>>, lane: LaneConfig) -> Arc<Hub> {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, [7; 32]).unwrap();
    let auth = AuthConfig { key_file: Some(secret), ..AuthConfig::default() };
    Hub::new(HubParts {
        settings: Settings {
            rules: Rules {
                limits: wire::Limits { max_frame_bytes: 65_536, ..Default::default() },
                heartbeat_interval: Duration::from_secs(30),
                hello_timeout: Duration::from_secs(10),
            },
            limits: SessionLimits {
                max_sessions: 1,
                push_bytes: 1 << 16,
                shard_outbox_bytes: 1 << 20,
                slow_consumer_timeout: Duration::from_secs(30),
            },
            verifier: Arc::new(Verifier::from_config(&auth).unwrap()),
        },
        store,
        blocks: crate::blocks::Blocks::none(),
        registry: Registry::new(1),
        lanes: 1,
        lane,
        host: Arc::new(TokioHost),
        throttle: Throttle::off(),
        mailboxes,
    })
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

#[test]
fn a_shard_has_the_new_settings_when_it_looks_again() {
    let hub = hub_with(Arc::new(MemoryStore::new()), Vec::new(), lane());
    let first = hub.settings();
    let mut known = first.clone();
    hub.renew_settings(&mut known);
    assert!(Arc::ptr_eq(&known, &first));
    let mut changed = Settings::clone(&first);
    changed.limits.max_sessions = 0;
    assert!(hub.admit().is_some());
    hub.change_settings(changed);
    assert_eq!(known.limits.max_sessions, 1);
    hub.renew_settings(&mut known);
    assert_eq!(known.limits.max_sessions, 0);
    hub.dismiss();
    assert!(hub.admit().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_stands_still_or_is_overwhelmed_keeps_no_operator_waiting() {
    use crate::walk::{Filter, Unanswered, Work};
    let seat: Seat<Mail> = Seat::new(1);
    let hub = hub(Arc::new(MemoryStore::new()), vec![seat.mailbox()]);
    let everybody = Arc::new(Filter::default());
    // The first question waits in the mailbox for ever, the second finds no room in it.
    for _ in 0..2 {
        let walked = hub.walk(&everybody, &Work::Count, drop).await;
        assert_eq!(walked, Err(Unanswered(0)));
        assert_eq!(seat.mailbox().len(), 1);
    }
    let shard = hub.step(7, 0, &everybody, &Work::Count).await;
    assert_eq!(shard.err(), Some(Unanswered(7)));
}

/// Lets others run until this holds.
async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it never holds");
}

#[tokio::test]
async fn few_steps_of_scans_are_with_the_store_at_a_time() {
    let store = Slow::store();
    let hub = hub(store.clone(), Vec::new());
    let device = skein_protocol::DeviceId::parse("phone").unwrap();
    for n in 0..50 {
        hub.spawn_scan(Scan {
            conversation: ConversationId::one_to_one(&user("ann"), &user(&format!("ben{n}"))),
            from: 1,
            to: 1_000_000,
            sender: (user("ann"), device.clone()),
            keys: vec![Key::of(&Record {
                seq: 1,
                sender: user("ann"),
                device: device.clone(),
                client_msg_id: skein_protocol::ClientMsgId::parse("m").unwrap(),
                time_ms: 0,
                content_type: String::new(),
                payload: Bytes::new(),
            })],
        });
    }
    until(|| store.hooks.reading() == SCAN_STEPS).await;
    store.hooks.gate.close();
    // All 50 tasks, and this one, hold the hub; in the end only this one does.
    until(|| Arc::strong_count(&hub) == 1).await;
    assert_eq!(store.hooks.most.load(Ordering::Relaxed), SCAN_STEPS);
}

#[tokio::test]
async fn pages_wait_for_each_other_and_too_many_are_refused() {
    const TOO_MANY: usize = 5;
    let store = Slow::store();
    let hub = hub(store.clone(), Vec::new());
    let answered = Arc::new(AtomicUsize::new(0));
    let mut pages = Vec::new();
    for _ in 0..WAITING_PAGES + TOO_MANY {
        let (hub, answered) = (hub.clone(), answered.clone());
        pages.push(tokio::spawn(async move {
            let page = Job::new(user("ann"), BulkRequest::Heads(Vec::new())).next_page(&hub).await;
            answered.fetch_add(1, Ordering::Relaxed);
            page
        }));
    }
    until(|| store.hooks.reading() == READING).await;
    until(|| answered.load(Ordering::Relaxed) == TOO_MANY).await;
    store.hooks.gate.close();
    let refused = refused_page(Code::Overloaded).frame;
    let mut refusals = 0;
    for page in pages {
        refusals += usize::from(page.await.unwrap().frame == refused);
    }
    assert_eq!(refusals, TOO_MANY);
    assert_eq!(store.hooks.most.load(Ordering::Relaxed), READING);
    // The places are free again.
    let page = Job::new(user("ann"), BulkRequest::Heads(Vec::new())).next_page(&hub).await;
    assert_ne!(page.frame, refused);
}

#[tokio::test]
async fn a_drain_holds_also_where_the_mail_is_lost() {
    let seat = Seat::new(1);
    let hub = hub(Slow::store(), vec![seat.mailbox()]);
    let drain = Drain { reconnect_spread_ms: 1 };
    assert!(seat.mailbox().send(Mail::Drain(drain)).is_ok());
    assert!(!hub.is_draining());
    hub.drain(drain);
    assert!(seat.mailbox().send(Mail::Drain(drain)).is_err(), "the mailbox was full all the time");
    assert!(hub.is_draining());
}
