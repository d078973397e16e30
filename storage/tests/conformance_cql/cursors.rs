//! Registers whose highest value wins, whatever the clocks say.

use skein_storage::{CursorPair, CursorUpdate, Cursors, Store};

use super::Own;
use super::place::{Place, SMALL, block_on, open};
use super::scene::*;

pub const TESTS: &[Own] = &[
    ("cursors::values_are_their_own_timestamps", values_are_their_own_timestamps),
    ("cursors::two_gateways_end_at_the_highest_value", two_gateways_end_at_the_highest_value),
];

fn update(who: &str, n: u64, delivered: u64, read: u64) -> CursorUpdate {
    let to = CursorPair { delivered, read };
    CursorUpdate { user: user(who), conversation: conversation(n), to }
}

/// So no clock, of gateways or of servers, decides which value stays.
fn values_are_their_own_timestamps(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let (store, c) = (open(&options).await, conversation(1));
        store.advance(vec![update("alice", 1, 9, 4)]).await.unwrap();
        fill(&store, c, 0, SMALL + 1, 1).await;
        store.close().await.unwrap();
        let (session, ks) = (place.session().await, &options.keyspace);
        let written = async |text: String| {
            let answer = session.query_unpaged(text, ()).await.unwrap().into_rows_result().unwrap();
            answer.single_row::<(i64, i64, i64, i64)>().unwrap()
        };
        let cursors = "delivered, WRITETIME(delivered), read, WRITETIME(read)";
        let row = written(format!("SELECT {cursors} FROM {ks}.cursors")).await;
        assert_eq!(row, (9, 9, 4, 4));
        let hint = "head, WRITETIME(head), head, WRITETIME(head)";
        let row = written(format!("SELECT {hint} FROM {ks}.heads")).await;
        let head = SMALL as i64 + 1;
        assert_eq!(row, (head, head, head, head));
    });
}

fn two_gateways_end_at_the_highest_value(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let stores = [open(&options).await, open(&options).await];
        for step in 1..40u64 {
            // Each has the higher value in turn, and writes both at once.
            let writes = stores.iter().zip([step * 3, step * 2 + 30]).map(|(store, value)| {
                let each = (1..=100).map(|n| update("alice", n, value, value / 2));
                store.advance(each.collect())
            });
            for written in futures_util::future::join_all(writes).await {
                written.unwrap();
            }
            let highest = (step * 3).max(step * 2 + 30);
            for n in [1, 37, 100] {
                let now = stores[0].cursors(user("alice"), conversation(n)).await.unwrap();
                assert_eq!(now, CursorPair { delivered: highest, read: highest / 2 });
            }
        }
    });
}
