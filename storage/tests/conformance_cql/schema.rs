//! Making the schema, and looking whether it is there.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;

use skein_storage::Store;
use skein_storage::scylla::schema::{self, LATEST, SchemaError};
use skein_storage::scylla::{ConnectError, OpenError, ScyllaOptions, ScyllaStore};

use super::Own;
use super::place::{Place, SMALL, block_on, open, schema_options};
use super::scene::*;

pub const TESTS: &[Own] = &[
    ("schema::applying_again_changes_nothing", applying_again_changes_nothing),
    ("schema::several_apply_at_once", several_apply_at_once),
    ("schema::what_was_cut_off_goes_on", what_was_cut_off_goes_on),
    ("schema::what_is_missing_is_named", what_is_missing_is_named),
    ("schema::a_newer_one_is_refused", a_newer_one_is_refused),
    ("schema::a_data_centre_keeps_others_out", a_data_centre_keeps_others_out),
    ("schema::a_cluster_that_is_not_there", a_cluster_that_is_not_there),
];

async fn refusal(options: &ScyllaOptions) -> OpenError {
    match ScyllaStore::open(options.clone()).await {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

fn applying_again_changes_nothing(place: &'static Place) {
    block_on(async {
        let options = place.new_keyspace();
        let wanted = schema_options(SMALL);
        let _one_at_a_time = place.changes.lock().await;
        let mut steps = Vec::new();
        let first = schema::apply(&options, &wanted, &mut |step| steps.push(step.to_owned())).await;
        assert_eq!(first.unwrap().applied, (1..=LATEST).collect::<Vec<_>>());
        assert!(steps.len() > 5, "{steps:?}");
        let found = schema::check(&options).await.unwrap();
        assert_eq!(found.version, Some(LATEST));
        assert!(found.problem(&options).is_none());
        let made = found.made.unwrap();
        assert_eq!((made.bucket_rows, made.data_centre), (SMALL, None));

        // What was fixed when it was made stays.
        let again = schema::apply(&options, &schema_options(9), &mut |_| {}).await.unwrap();
        assert_eq!((again.applied, again.version), (vec![], LATEST));
        let made_again = schema::check(&options).await.unwrap().made.unwrap();
        assert_eq!((made_again.epoch, made_again.bucket_rows), (made.epoch, SMALL));
        assert_eq!(open(&options).await.epoch(), made.epoch);
    });
}

fn several_apply_at_once(place: &'static Place) {
    block_on(async {
        let options = place.new_keyspace();
        let _one_at_a_time = place.changes.lock().await;
        let applied = (0..3).map(|_| {
            let options = options.clone();
            tokio::spawn(async move {
                schema::apply(&options, &schema_options(SMALL), &mut |_| {}).await
            })
        });
        let applied: Vec<_> = futures_util::future::join_all(applied).await;
        let applied: Vec<_> = applied.into_iter().map(|done| done.unwrap().unwrap()).collect();
        let by_all: Vec<u32> = applied.iter().flat_map(|report| report.applied.clone()).collect();
        assert_eq!(by_all, (1..=LATEST).collect::<Vec<_>>(), "each version by one of them");
        assert!(applied.iter().all(|report| report.version == LATEST));
        let store = open(&options).await;
        fill(&store, conversation(1), 0, 3, 1).await;
    });
}

/// The program ends in the middle of any step; the next one goes on, once the lock of the first
/// one has ended by itself.
fn what_was_cut_off_goes_on(place: &'static Place) {
    block_on(async {
        let options = place.new_keyspace();
        let wanted = schema_options(SMALL);
        let _one_at_a_time = place.changes.lock().await;
        // In the keyspace, in the middle of the tables, before it is written down.
        for cut in ["making keyspace", "step 3", "writing down"] {
            let heard = AtomicUsize::new(0);
            let mut progress = |step: &str| {
                if step.contains(cut) {
                    heard.store(1, SeqCst);
                }
            };
            let mut apply = Box::pin(schema::apply(&options, &wanted, &mut progress));
            let done = std::future::poll_fn(|context| match apply.as_mut().poll(context) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if heard.load(SeqCst) == 1 => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            let done = done.await;
            assert!(done.is_none(), "{cut}: {done:?}");
            drop(apply);
            assert!(matches!(refusal(&options).await, OpenError::Missing { .. }), "{cut}");
        }
        let report = schema::apply(&options, &wanted, &mut |_| {}).await.unwrap();
        assert_eq!(report.applied, (1..=LATEST).collect::<Vec<_>>());
        let store = open(&options).await;
        fill(&store, conversation(1), 0, 3, 1).await;
    });
}

fn what_is_missing_is_named(place: &'static Place) {
    block_on(async {
        let options = place.new_keyspace();
        let missing = refusal(&options).await.to_string();
        assert!(missing.contains(&options.keyspace), "{missing}");
        assert!(missing.contains("run `skein schema apply`"), "{missing}");
        let found = schema::check(&options).await.unwrap();
        assert_eq!((found.version, found.made), (None, None));
    });
}

fn a_newer_one_is_refused(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let session = place.session().await;
        let newer = LATEST + 2;
        let text = format!(
            "INSERT INTO {}.schema_versions (version, applied_by) VALUES (?, 'a newer skein') \
             IF NOT EXISTS",
            options.keyspace
        );
        session.query_unpaged(text, (newer as i32,)).await.unwrap();
        let refused = refusal(&options).await;
        assert!(matches!(refused, OpenError::Newer { found, .. } if found == newer), "{refused}");
        assert!(refused.to_string().contains("upgrade skein"), "{refused}");
        let applied = schema::apply(&options, &schema_options(SMALL), &mut |_| {}).await;
        assert!(matches!(applied, Err(SchemaError::Newer { .. })), "{applied:?}");
    });
}

fn a_data_centre_keeps_others_out(place: &'static Place) {
    block_on(async {
        let everywhere = place.with_schema(SMALL).await;
        let at = |name: &str, options: &ScyllaOptions| ScyllaOptions {
            data_centre: Some(name.into()),
            ..options.clone()
        };
        let refused = refusal(&at("datacenter1", &everywhere)).await;
        assert!(matches!(refused, OpenError::OtherDataCentre { .. }), "{refused}");
        let refused = refusal(&at("nowhere", &everywhere)).await;
        let OpenError::Connect(ConnectError::NoSuchDataCentre { found, .. }) = refused else {
            panic!("{refused}")
        };
        assert_eq!(found, ["datacenter1"]);

        let local = at("datacenter1", &place.new_keyspace());
        let _one_at_a_time = place.changes.lock().await;
        schema::apply(&local, &schema_options(SMALL), &mut |_| {}).await.unwrap();
        let store = open(&local).await;
        let want = fill(&store, conversation(1), 0, SMALL + 9, 7).await;
        assert!(whole(&store, conversation(1)).await == want);
        let elsewhere = ScyllaOptions { data_centre: None, ..local };
        let refused = refusal(&elsewhere).await;
        assert!(matches!(refused, OpenError::OtherDataCentre { .. }), "{refused}");
    });
}

fn a_cluster_that_is_not_there(_: &'static Place) {
    block_on(async {
        // Nobody listens on a port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let options = ScyllaOptions::new(vec![free.to_string()], "skein");
        let refused = refusal(&options).await;
        assert!(matches!(refused, OpenError::Connect(ConnectError::Unreachable { .. })));
        assert!(refused.to_string().contains(&free.to_string()), "{refused}");
    });
}
