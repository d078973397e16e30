//! Several gateways at the same conversations.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skein_protocol::Seq;
use skein_storage::scylla::ScyllaStore;
use skein_storage::{AppendError, ConversationIndex, Record};
use tokio::task::JoinSet;

use super::Own;
use super::place::{AS_DELIVERED, Place, SMALL, block_on, open};
use super::scene::*;

pub const TESTS: &[Own] = &[
    ("rivals::one_wins_each_number_in_small_buckets", |place| one_wins_each_number(place, SMALL)),
    ("rivals::one_wins_each_number_as_delivered", |place| {
        one_wins_each_number(place, AS_DELIVERED);
    }),
    ("rivals::a_conversation_begins_once", a_conversation_begins_once),
];

const RIVALS: usize = 3;
const CONVERSATIONS: u64 = 4;
const MESSAGES: u64 = 400;

fn one_wins_each_number(place: &'static Place, bucket_rows: u64) {
    block_on(async {
        let options = place.with_schema(bucket_rows).await;
        let seed: u64 = rand::random();
        let mut rivals = JoinSet::new();
        for rival in 0..RIVALS {
            let store = Arc::new(open(&options).await);
            for c in 1..=CONVERSATIONS {
                let random = StdRng::seed_from_u64(seed.wrapping_add(c * 100 + rival as u64));
                rivals.spawn(compete(store.clone(), c, format!("rival-{rival}"), random));
            }
        }
        let mut winners: BTreeMap<u64, BTreeMap<Seq, Record>> = BTreeMap::new();
        for (c, won) in rivals.join_all().await {
            let winners = winners.entry(c).or_default();
            for record in won {
                let seq = record.seq;
                assert_eq!(winners.insert(seq, record), None, "{seq} was won twice, seed {seed}");
            }
        }
        let store = open(&options).await;
        for (c, winners) in winners {
            let all: Vec<_> = winners.into_values().collect();
            assert!(whole(&store, conversation(c)).await == all, "seed {seed}");
            assert_eq!(extent(&store, conversation(c)).await, (1, all.len() as Seq));
        }
    });
}

/// Appends of random lengths until the log is long enough; what was acknowledged.
async fn compete(
    store: Arc<ScyllaStore>,
    c: u64,
    name: String,
    mut random: StdRng,
) -> (u64, Vec<Record>) {
    let (mut won, mut next) = (Vec::new(), 1);
    while next <= MESSAGES {
        let n = if random.random_bool(0.2) { random.random_range(1..80) } else { 1 };
        let append = append(conversation(c), next, n, &name);
        let records = append.records.clone();
        match outcome(&*store, append).await {
            Ok(()) => {
                won.extend(records);
                next += n;
            }
            Err(AppendError::Conflict { head }) => {
                assert!(head >= next, "{next} was free, the head is {head}");
                next = head + 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    (c, won)
}

/// Whoever begins it, with whatever members: one list stands, and the indexes agree with it.
fn a_conversation_begins_once(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let stores = [open(&options).await, open(&options).await];
        let name = |n: u64, rival: usize| user(&format!("by-{n}-{rival}"));
        for n in 0..20 {
            let begun = stores.iter().enumerate().map(|(rival, store)| {
                store.begin(conversation(n), vec![user("alice"), name(n, rival)])
            });
            for begun in futures_util::future::join_all(begun).await {
                begun.unwrap();
            }
            let members = stores[0].members(conversation(n)).await.unwrap().unwrap();
            assert_eq!(stores[1].members(conversation(n)).await.unwrap().unwrap(), members);
            for rival in 0..stores.len() {
                let name = name(n, rival);
                let listed = stores[0].conversations(name.clone(), None, 10).await.unwrap();
                assert_eq!(!listed.is_empty(), members.contains(&name), "{n}: {members:?}");
            }
        }
    });
}
