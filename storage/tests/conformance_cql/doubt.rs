//! Appends whose outcome is not known: every kind of it, made by a proxy before the server, with
//! two gateways at the same conversations. And the same with bugs planted into the store, to show
//! that each is seen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skein_protocol::{ClientMsgId, ConversationId, Seq};
use skein_storage::scylla::{Planted, ScyllaOptions, ScyllaStore};
use skein_storage::{Append, AppendError, MessageLog, Record, StoreError};
use skein_xtask::cql::proxy::{Aim, Faults};
use skein_xtask::cql::{Cluster, Options};
use tokio::task::JoinSet;

use super::Own;
use super::place::{Place, SMALL, block_on, open};
use super::scene::*;

pub const TESTS: &[Own] = &[
    ("doubt::every_message_has_one_place", |_| every_message_has_one_place()),
    ("doubt::planted_unconditional_write", |_| is_seen(Planted::UnconditionalWrite)),
    ("doubt::planted_unknown_is_failure", |_| is_seen(Planted::UnknownIsFailure)),
    ("doubt::planted_unknown_is_success", |_| is_seen(Planted::UnknownIsSuccess)),
    ("doubt::planted_no_compare", |_| is_seen(Planted::NoCompare)),
    ("doubt::a_silent_cluster_is_asked_by_as_many_as_have_places", |_| a_silent_cluster()),
];

const GATEWAYS: usize = 2;
const CONVERSATIONS: u64 = 4;

/// Messages that each gateway sends into each conversation.
const MESSAGES: usize = 60;

/// Requests that meet a fault.
const RATE: f64 = 0.35;

/// Rounds after which a planted bug must have been seen. Most are in the first.
const MOST_ROUNDS: u64 = 8;

/// A server behind proxies, for all tests of this file; and one test at a time, because they
/// choose its faults.
struct Scene {
    place: Place,
    cluster: Cluster,
    turn: tokio::sync::Mutex<()>,
}

static SCENE: Mutex<Option<Arc<Scene>>> = Mutex::new(None);

fn scene() -> Arc<Scene> {
    let mut scene = SCENE.lock().unwrap_or_else(PoisonError::into_inner);
    let start = || {
        let options = Options { behind_proxies: true, ..Options::default() };
        let cluster = Cluster::start(options).unwrap();
        let place = Place::new(cluster.contact_points());
        Arc::new(Scene { place, cluster, turn: tokio::sync::Mutex::default() })
    };
    scene.get_or_insert_with(start).clone()
}

/// Takes the server down, if there was one.
pub fn tidy() {
    SCENE.lock().unwrap_or_else(PoisonError::into_inner).take();
}

impl Scene {
    fn set_faults(&self, faults: &Faults) {
        self.cluster.proxies().unwrap().set_faults(faults);
    }

    fn heal(&self) {
        self.cluster.proxies().unwrap().heal();
    }

    /// Requests are given up early, so that many of them are late.
    async fn options(&self) -> ScyllaOptions {
        self.heal();
        ScyllaOptions {
            request_timeout: Duration::from_millis(700),
            ..self.place.with_schema(SMALL).await
        }
    }
}

fn every_message_has_one_place() {
    block_on(async {
        let scene = scene();
        let _turn = scene.turn.lock().await;
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let (unknown, found) = round(&scene, seed, None).await.unwrap();
        assert!(unknown > 50, "only {unknown} outcomes were unknown");
        assert!(found > 0, "no append was found to have been made after all");
        let counts = scene.cluster.proxies().unwrap().counts();
        println!("{unknown} unknown outcomes, {found} found appended, {counts:?}");
    });
}

fn is_seen(bug: Planted) {
    block_on(async {
        let scene = scene();
        let _turn = scene.turn.lock().await;
        let first: u64 = rand::random();
        println!("seed {first}");
        for seed in (0..MOST_ROUNDS).map(|n| first.wrapping_add(n)) {
            if let Err(seen) = round(&scene, seed, Some(bug)).await {
                println!("seen: {seen}");
                return;
            }
        }
        panic!("{bug:?} was not seen in {MOST_ROUNDS} rounds from seed {first}");
    });
}

/// Two gateways write to the same conversations while the proxy makes every kind of fault. How
/// many outcomes were unknown, and how many appends were found made; or what must not be.
async fn round(scene: &Scene, seed: u64, bug: Option<Planted>) -> Result<(u64, u64), String> {
    let options = ScyllaOptions { planted: bug, ..scene.options().await };
    let mut stores = Vec::new();
    for _ in 0..GATEWAYS {
        stores.push(Arc::new(open(&options).await));
    }
    scene.set_faults(&Faults::every_kind(seed, RATE));
    let mut gateways = JoinSet::new();
    for (gateway, store) in stores.iter().enumerate() {
        for c in 1..=CONVERSATIONS {
            gateways.spawn(write(store.clone(), gateway, conversation(c)));
        }
    }
    let mut acknowledged: BTreeMap<ConversationId, Vec<Sent>> = BTreeMap::new();
    while let Some(done) = gateways.join_next().await {
        let (c, sent) = done.unwrap();
        acknowledged.entry(c).or_default().extend(sent);
    }
    scene.heal();
    let sum = |count: fn(&ScyllaStore) -> u64| stores.iter().map(|store| count(store)).sum();
    let unknown = sum(|store| store.stats().unknown_outcomes);
    let found = sum(|store| store.stats().found_appended);
    // What is late arrives while nobody looks, and after that nothing changes.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let reader = open(&ScyllaOptions { planted: None, ..options }).await;
    for (c, sent) in acknowledged {
        let log = reader.read(c, 0..=u64::MAX, skein_storage::Direction::Forward, ALL).await;
        check(&log.map_err(|error| error.to_string())?, &sent)?;
        let (first, head) = extent(&reader, c).await;
        if (first, head) != (1, sent.len() as Seq) {
            return Err(format!("{first} to {head}, and {} were acknowledged", sent.len()));
        }
    }
    Ok((unknown, found))
}

/// A message and where it is said to be.
#[derive(Debug)]
struct Sent {
    id: ClientMsgId,
    seq: Seq,
}

/// Sends messages as a lane does: numbers what waits, and numbers it again when it is refused.
async fn write(
    store: Arc<ScyllaStore>,
    gateway: usize,
    c: ConversationId,
) -> (ConversationId, Vec<Sent>) {
    let by = format!("gateway-{gateway}");
    let mut waiting: VecDeque<ClientMsgId> =
        (0..MESSAGES).map(|n| ClientMsgId::parse(&format!("{by}-message-{n}")).unwrap()).collect();
    let (mut acknowledged, mut head) = (Vec::new(), 0);
    while !waiting.is_empty() {
        let batch = waiting.iter().take(1 + acknowledged.len() % 4).cloned();
        let records: Vec<Record> = (head + 1..)
            .zip(batch)
            .map(|(seq, id)| Record { client_msg_id: id, ..message(seq, &by, now_ms()) })
            .collect();
        let sent = records.iter().map(|it| Sent { id: it.client_msg_id.clone(), seq: it.seq });
        let sent: Vec<_> = sent.collect();
        let append = Append { conversation: c, first: head + 1, records };
        match outcome(&*store, append).await {
            Ok(()) => {
                head += sent.len() as Seq;
                waiting.drain(..sent.len());
                acknowledged.extend(sent);
            }
            Err(AppendError::Conflict { head: other }) => head = other,
            Err(AppendError::Store(StoreError::Unavailable(_))) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                if let Ok(extent) = store.extent(c).await {
                    head = extent.head;
                }
            }
            Err(other) => panic!("{other}"),
        }
    }
    (c, acknowledged)
}

/// Numbers without a gap, each message once, and each where it was acknowledged.
fn check(log: &[Record], acknowledged: &[Sent]) -> Result<(), String> {
    for (seq, record) in (1..).zip(log) {
        if record.seq != seq {
            return Err(format!("{} stands where {seq} should", record.seq));
        }
    }
    let mut places: BTreeMap<&ClientMsgId, Seq> = BTreeMap::new();
    for record in log {
        if let Some(first) = places.insert(&record.client_msg_id, record.seq) {
            return Err(format!("{} is at {first} and {}", record.client_msg_id, record.seq));
        }
    }
    for Sent { id, seq } in acknowledged {
        match places.get(id) {
            Some(place) if place == seq => {}
            place => return Err(format!("{id} was acknowledged at {seq} and is at {place:?}")),
        }
    }
    Ok(())
}

/// Appends without an answer go on, and leave places to others; those that find none are told to
/// come again, in time; and when the cluster answers again everything goes on by itself.
fn a_silent_cluster() {
    block_on(async {
        let scene = scene();
        let _turn = scene.turn.lock().await;
        let wait = Duration::from_millis(300);
        let options = ScyllaOptions { in_flight: 8, wait, ..scene.options().await };
        let store = Arc::new(open(&options).await);
        let silence = skein_xtask::cql::proxy::Fault::DropResponse;
        scene.set_faults(&Faults { aim: Aim::Batches, ..Faults::one(silence, 1.0) });

        let group = (1..=30).map(|c| append(conversation(c), 1, 2, "alice")).collect();
        let all = submit(&*store, group);
        // Behind one that has no known outcome nothing goes on in its conversation.
        let behind =
            submit(&*store, (1..=30).map(|c| append(conversation(c), 3, 1, "bob")).collect());
        let behind = behind.await;
        assert!(behind.iter().all(|it| is_unavailable(it) || conflicts(it)), "{behind:?}");
        assert!(behind.iter().filter(|it| is_unavailable(it)).count() >= 8);
        assert!(store.stats().places_in_use <= 8);
        assert!(store.stats().refused_for_place > 0);
        until("half of the places are left", || async { store.stats().places_in_use <= 4 }).await;
        until("they ask again", || async { store.stats().repeats >= 16 }).await;

        scene.heal();
        let outcomes = all.await;
        let made: Vec<_> = (1..).zip(&outcomes).filter(|(_, it)| it.is_ok()).collect();
        assert!(made.len() >= 8, "{outcomes:?}");
        for (c, outcome) in (1..).zip(&outcomes) {
            let want = if outcome.is_ok() { (1, 2) } else { (1, 0) };
            assert_eq!(extent(&*store, conversation(c)).await, want, "{outcome:?}");
            assert!(outcome.is_ok() || is_unavailable(outcome), "{outcome:?}");
        }
        assert_eq!(store.stats().places_in_use, 0);
        for (c, outcome) in (1..).zip(outcomes) {
            if outcome.is_err() {
                fill(&*store, conversation(c), 0, 2, 2).await;
            }
        }
    });
}

fn conflicts(outcome: &Outcome) -> bool {
    matches!(outcome, Err(AppendError::Conflict { .. }))
}
