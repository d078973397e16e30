//! Numbers, conflicts, order, content.

use bytes::Bytes;
use skein_protocol::limits::{DEFAULT_MAX_PAYLOAD_BYTES, MAX_CONTENT_TYPE_BYTES};
use skein_protocol::{ClientMsgId, DeviceId};

use super::Factory;
use super::support::*;
use crate::{Append, AppendError, Direction, Extent, Record};

/// Nothing is in a log that was never written to.
pub async fn a_new_log_is_empty(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    assert_eq!(ok(store.extent(c).await), Extent { first: 1, head: 0 });
    for direction in [Direction::Forward, Direction::Backward] {
        assert_eq!(ok(store.read(c, 1..=u64::MAX, direction, ALL).await), []);
    }
}

/// The first message is number 1, the next append goes right behind.
pub async fn appends_count_from_one(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    assert_eq!(outcome(&store, append(c, 1, 1, "a")).await, Ok(()));
    assert_eq!(ok(store.extent(c).await), Extent { first: 1, head: 1 });
    assert_eq!(outcome(&store, append(c, 2, 3, "a")).await, Ok(()));
    assert_eq!(ok(store.extent(c).await), Extent { first: 1, head: 4 });
    let all = ok(store.read(c, 1..=4, Direction::Forward, ALL).await);
    assert_eq!(all, append(c, 1, 4, "a").records);
}

/// An append that is not for the number after the head is refused and told the head.
pub async fn another_number_is_a_conflict(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    let conflict = |head| Err(AppendError::Conflict { head });
    assert_eq!(outcome(&store, append(c, 2, 1, "a")).await, conflict(0));
    fill(&store, c, 0, 3).await;
    for first in [1, 2, 3, 5, 1000, u64::MAX - 1] {
        assert_eq!(outcome(&store, append(c, first, 1, "other")).await, conflict(3), "at {first}");
    }
    let zero = Append { conversation: c, first: 0, records: append(c, 0, 1, "a").records };
    assert_eq!(outcome(&store, zero).await, conflict(3));
    let all = ok(store.read(c, 0..=u64::MAX, Direction::Forward, ALL).await);
    assert_eq!(all, append(c, 1, 3, "filler").records, "nothing was written by the refused ones");
    fill(&store, c, 3, 1).await;
}

/// Of a refused append not even the part that would fit is written.
pub async fn an_append_is_written_whole_or_not_at_all(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    fill(&store, c, 0, 2).await;
    // 2 and 3 overlap the head, 4 and 5 would be new.
    let overlapping = append(c, 2, 4, "other");
    let conflict = Err(AppendError::Conflict { head: 2 });
    assert_eq!(outcome(&store, overlapping).await, conflict);
    assert_eq!(head(&store, c).await, 2);
    assert_eq!(outcome(&store, append(c, 3, 100, "a")).await, Ok(()));
    assert_eq!(head(&store, c).await, 102);
}

/// A group may hold good and bad appends for many logs; each is reported once under its index.
pub async fn each_append_of_a_group_has_its_own_outcome(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let (a, b) = (conversation(1), conversation(2));
    let group = vec![
        append(a, 1, 2, "x"),
        append(b, 2, 1, "x"), // conflict: b is empty
        append(a, 3, 1, "x"), // behind the first of this very group
        append(a, 3, 1, "y"), // conflict: taken by the one before
        append(b, 1, 1, "x"),
        append(a, 4, 1, "x"),
    ];
    let conflict = |head| Err(AppendError::Conflict { head });
    let want = vec![Ok(()), conflict(0), Ok(()), conflict(3), Ok(()), Ok(())];
    assert_eq!(outcomes(&store, group).await, want);
    let read = ok(store.read(a, 1..=9, Direction::Forward, ALL).await);
    assert_eq!(read, append(a, 1, 4, "x").records);
    assert_eq!(head(&store, b).await, 1);
}

/// What is submitted without waiting takes effect in that order, within and across groups.
pub async fn appends_take_effect_in_order_of_submission(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    let under_way: Vec<_> =
        (0..100).map(|n| submit(&store, vec![append(c, 2 * n + 1, 2, "a")])).collect();
    for (n, outcome) in futures_util::future::join_all(under_way).await.into_iter().enumerate() {
        assert_eq!(outcome, [Ok(())], "append {n}");
    }
    assert_eq!(head(&store, c).await, 200);
}

/// A group without appends is accepted.
pub async fn an_empty_group_is_harmless(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    drop(submit(&store, Vec::new()));
    fill(&store, conversation(1), 0, 1).await;
}

/// Every field of a message is kept, at the ends of its range too.
#[allow(clippy::expect_used)]
pub async fn records_come_back_as_they_were(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    let smallest = Record {
        seq: 1,
        sender: user("a"),
        device: DeviceId::parse("d").expect("an id"),
        client_msg_id: ClientMsgId::parse("m").expect("an id"),
        time_ms: 0,
        content_type: String::new(),
        payload: Bytes::new(),
    };
    let largest = Record {
        seq: 2,
        sender: user(&"\u{1f642}".repeat(16)),
        device: DeviceId::parse(&"Z".repeat(64)).expect("an id"),
        client_msg_id: ClientMsgId::parse(&"\u{df}".repeat(32)).expect("an id"),
        time_ms: u64::MAX,
        content_type: "t".repeat(MAX_CONTENT_TYPE_BYTES),
        payload: Bytes::from((0..=255).collect::<Vec<u8>>()),
    };
    let records = vec![smallest, largest];
    let both = Append { conversation: c, first: 1, records: records.clone() };
    assert_eq!(outcome(&store, both).await, Ok(()));
    assert_eq!(ok(store.read(c, 1..=2, Direction::Forward, ALL).await), records);
}

/// Payloads of the largest size that the wire carries.
pub async fn large_payloads_come_back(factory: &dyn Factory) {
    let mut instance = factory.create().await;
    let c = conversation(1);
    let mut large = append(c, 1, 24, "a");
    let mut noise = 1u32;
    for record in &mut large.records {
        let random = (0..DEFAULT_MAX_PAYLOAD_BYTES).map(|_| {
            // Linear congruential: nothing that compression could shrink away.
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        });
        record.payload = random.collect();
    }
    assert_eq!(outcome(&instance.store(), large.clone()).await, Ok(()));
    for how in [None, Some(super::Reopen::Killed), Some(super::Reopen::Closed)] {
        if let Some(how) = how {
            instance.reopen(how).await;
        }
        let read = ok(instance.store().read(c, 1..=24, Direction::Forward, ALL).await);
        assert!(read == large.records, "payloads differ, {how:?}");
    }
}

/// Appends and reads of one conversation leave its neighbours alone.
pub async fn logs_do_not_mix(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    // Neighbours in the order of ids, and one at the very end of it.
    let mut last = [0xff; 16];
    last[0] = 1;
    let last = skein_protocol::ConversationId::parse(&last).unwrap_or(conversation(u64::MAX));
    let ids = [conversation(1), conversation(2), conversation(3), last];
    for (n, id) in ids.into_iter().enumerate() {
        fill(&store, id, 0, n as u64 + 1).await;
    }
    for (n, id) in ids.into_iter().enumerate() {
        let want = append(id, 1, n as u64 + 1, "filler").records;
        assert_eq!(ok(store.extent(id).await), Extent { first: 1, head: n as u64 + 1 });
        for direction in [Direction::Forward, Direction::Backward] {
            let mut read = ok(store.read(id, 0..=u64::MAX, direction, ALL).await);
            read.sort_by_key(|record| record.seq);
            assert_eq!(read, want);
        }
    }
}

/// A thousand logs, written across and then each read.
pub async fn many_conversations(factory: &dyn Factory) {
    let mut instance = factory.create().await;
    let store = instance.store();
    for round in 0..3 {
        let group = (0..1000).map(|n| append(conversation(n), round + 1, 1, "a")).collect();
        assert!(outcomes(&store, group).await.iter().all(Result::is_ok), "round {round}");
    }
    drop(store);
    instance.reopen(super::Reopen::Killed).await;
    let store = instance.store();
    for n in (0..1000).step_by(7) {
        let read = ok(store.read(conversation(n), 1..=3, Direction::Forward, ALL).await);
        assert_eq!(read, append(conversation(n), 1, 3, "a").records);
    }
}
