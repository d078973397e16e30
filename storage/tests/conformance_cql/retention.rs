//! Messages that expire, and numbers that do not.

use std::time::Duration;

use skein_storage::scylla::ScyllaOptions;
use skein_storage::{AppendError, Direction, MessageLog};

use super::Own;
use super::edges::delete;
use super::place::{Place, SMALL, block_on, open};
use super::scene::*;

pub const TESTS: &[Own] = &[
    ("retention::numbers_never_come_back", numbers_never_come_back),
    ("retention::what_is_left_begins_where_the_extent_says", what_is_left_begins_where_it_says),
    ("retention::a_new_retention_leaves_no_hole", a_new_retention_leaves_no_hole),
    ("retention::a_hole_is_the_end_of_what_is_left", a_hole_is_the_end_of_what_is_left),
];

const SHORT: Duration = Duration::from_secs(6);

fn short(options: &ScyllaOptions) -> ScyllaOptions {
    ScyllaOptions { retention: Some(SHORT), allow_short_retention: true, ..options.clone() }
}

/// An empty log past its retention goes on behind its last number.
fn numbers_never_come_back(place: &'static Place) {
    block_on(async {
        let options = short(&place.with_schema(SMALL).await);
        let store = open(&options).await;
        // One that is small, and one whose partitions are all over.
        for (c, n) in [(conversation(1), 10), (conversation(2), 3 * SMALL)] {
            fill(&store, c, 0, n, SMALL).await;
            until("all has expired", || async { extent(&store, c).await == (n + 1, n) }).await;
            let looked = store.look(c, 0).await.unwrap();
            assert_eq!((looked.first, looked.head), (n + 1, n));
            let shown = store.view(c, 1..=u64::MAX, Direction::Forward, ALL, 0).await.unwrap();
            assert_eq!((shown.extent, shown.records.len()), (looked, 0));
            assert_eq!(whole(&store, c).await, []);
            assert_eq!(store.read(c, 1..=n, Direction::Backward, ALL).await, Ok(vec![]));
            for first in [1, n, n + 2] {
                let refused = outcome(&store, append(c, first, 1, "late")).await;
                assert_eq!(refused, Err(AppendError::Conflict { head: n }), "{first}");
            }
            let want = fill(&store, c, n, 2, 2).await;
            assert_eq!(extent(&store, c).await, (n + 1, n + 2));
            assert!(whole(&store, c).await == want);
            let shown = store.view(c, 1..=u64::MAX, Direction::Forward, ALL, 0).await.unwrap();
            assert_eq!((shown.extent.first, shown.extent.head), (n + 1, n + 2));
            assert!(shown.records == want);
        }
    });
}

/// Older messages go, newer ones stay, wherever partitions end.
fn what_is_left_begins_where_it_says(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let (expiring, lasting) = (open(&short(&options)).await, open(&options).await);
        // The last number that expires: inside a bucket, at its edges, and far from the head.
        let cases = [1, SMALL / 2, SMALL - 1, SMALL, SMALL + 1, 5 * SMALL + 3];
        let mut kept = Vec::new();
        for (c, gone) in (1..).map(conversation).zip(cases) {
            fill(&expiring, c, 0, gone, SMALL / 2).await;
            kept.push((c, gone, fill(&lasting, c, gone, 3 * SMALL, SMALL / 2).await));
        }
        // The last one written is the last to go.
        let (c, gone, _) = kept[kept.len() - 1];
        until("the older half has expired", || async { extent(&lasting, c).await.0 == gone + 1 })
            .await;
        for (c, gone, kept) in kept {
            assert_eq!(extent(&lasting, c).await, (gone + 1, gone + 3 * SMALL), "{gone} gone");
            assert!(whole(&lasting, c).await == kept, "{gone} gone");
            for direction in [Direction::Forward, Direction::Backward] {
                let shown = lasting.view(c, 1..=u64::MAX, direction, ALL, 0).await.unwrap();
                let (first, head) = (gone + 1, gone + 3 * SMALL);
                assert_eq!((shown.extent.first, shown.extent.head), (first, head), "{gone} gone");
                assert_eq!(shown.records.len(), kept.len(), "{gone} gone, {direction:?}");
            }
            for to in [1, gone, gone + 1, gone + 2] {
                for direction in [Direction::Forward, Direction::Backward] {
                    let read = lasting.read(c, 1..=to, direction, ALL).await.unwrap();
                    let want = to.saturating_sub(gone) as usize;
                    assert_eq!(read.len(), want, "{gone} gone, 1..={to} {direction:?}");
                }
            }
        }
    });
}

/// Messages that were written before there was a retention never expire by themselves. They count
/// as expired, or they would stand before a hole one day.
fn a_new_retention_leaves_no_hole(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let hour = Some(Duration::from_secs(3600));
        let before = open(&options).await;
        let after = open(&ScyllaOptions { retention: hour, ..options.clone() }).await;
        let long_ago = now_ms() - 2 * 3600 * 1000;
        for (c, old) in (1..).map(conversation).zip([1, 20, SMALL, 4 * SMALL + 9]) {
            for first in (1..=old).step_by(5) {
                let n = (old - first + 1).min(5);
                let append = append_at(c, first, n, "long-ago", long_ago);
                assert_eq!(outcome(&before, append).await, Ok(()));
            }
            assert_eq!(extent(&after, c).await, (old + 1, old));
            assert_eq!(whole(&after, c).await, []);
            let want = fill(&after, c, old, 2 * SMALL, 9).await;
            assert_eq!(extent(&after, c).await, (old + 1, old + 2 * SMALL));
            assert!(whole(&after, c).await == want, "{old} old ones");
            let inside = after.read(c, old..=old + 3, Direction::Forward, ALL).await.unwrap();
            assert_eq!(seqs(&inside), [old + 1, old + 2, old + 3]);
            // A gateway that has none yet still shows all of them.
            assert_eq!(extent(&before, c).await, (1, old + 2 * SMALL));
        }
    });
}

/// Once messages expire, nobody can tell a hole from what time has taken: what lies before it is
/// no part of the log.
fn a_hole_is_the_end_of_what_is_left(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let (before, c) = (open(&options).await, conversation(1));
        fill(&before, c, 0, 2 * SMALL, 16).await;
        let hour = Some(Duration::from_secs(3600));
        let after = open(&ScyllaOptions { retention: hour, ..options.clone() }).await;
        let session = place.session().await;
        delete(&session, &options, c, 30).await;
        let all: Vec<_> = (31..=2 * SMALL).collect();
        // The one that was open before learns of it when it meets the hole.
        for store in [&after, &before] {
            assert_eq!(seqs(&whole(store, c).await), all);
        }
    });
}
