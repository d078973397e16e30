//! What is under way at once is bounded, and what is refused never happened.

use std::time::Duration;

use skein_storage::scylla::ScyllaOptions;
use skein_storage::{MessageLog, Store};

use super::Own;
use super::place::{Place, SMALL, block_on, open};
use super::scene::*;

pub const TESTS: &[Own] = &[
    ("bounds::appends_beyond_the_bound_come_again", appends_beyond_the_bound_come_again),
    ("bounds::calls_come_from_any_thread", calls_come_from_any_thread),
];

fn appends_beyond_the_bound_come_again(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let tight = ScyllaOptions { in_flight: 2, wait: Duration::ZERO, ..options };
        let store = open(&tight).await;
        let mut left: Vec<_> = (1..=100).map(conversation).collect();
        let mut refused_ever = 0;
        while !left.is_empty() {
            let group = left.iter().map(|c| append(*c, 1, 3, "alice")).collect();
            let outcomes = submit(&store, group).await;
            let (done, refused): (Vec<_>, Vec<_>) =
                left.into_iter().zip(outcomes).partition(|(_, outcome)| outcome.is_ok());
            assert!(!done.is_empty(), "nothing goes through");
            assert!(refused.iter().all(|(_, outcome)| is_unavailable(outcome)), "{refused:?}");
            for (c, _) in &refused {
                assert_eq!(extent(&store, *c).await, (1, 0), "refused and yet there");
            }
            refused_ever += refused.len() as u64;
            left = refused.into_iter().map(|(c, _)| c).collect();
        }
        let stats = store.stats();
        assert_eq!((stats.appends, stats.rows, stats.places_in_use), (100, 300, 0));
        assert_eq!(stats.refused_for_place, refused_ever);
        assert!(refused_ever > 0, "the bound was never met");
    });
}

/// Lanes have threads of their own, which are none of tokio's.
fn calls_come_from_any_thread(place: &'static Place) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(async { open(&place.with_schema(SMALL).await).await });
    let c = conversation(1);
    let reads = std::thread::scope(|scope| {
        let call = scope.spawn(|| {
            let outcomes = futures_util::future::FutureExt::boxed(submit(
                &store,
                vec![append(c, 1, 5, "alice")],
            ));
            (outcomes, store.extent(c))
        });
        call.join().unwrap()
    });
    let (outcomes, extent) = reads;
    runtime.block_on(async {
        assert_eq!(outcomes.await, [Ok(())]);
        assert!(extent.await.is_ok());
        store.close().await.unwrap();
    });
}
