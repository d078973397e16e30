//! Where one partition ends and the next begins.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scylla::client::session::Session;
use skein_protocol::{ConversationId, Seq};
use skein_storage::scylla::ScyllaOptions;
use skein_storage::{AppendError, Direction, MAX_APPEND_RECORDS, MessageLog, Page, Record};

use super::Own;
use super::place::{Place, SMALL, block_on, open};
use super::scene::*;

pub const TESTS: &[Own] = &[
    ("edges::an_append_may_hang_over", an_append_may_hang_over),
    ("edges::a_log_goes_on_without_a_gap", a_log_goes_on_without_a_gap),
    ("edges::every_range_can_be_read", every_range_can_be_read),
    ("edges::only_the_next_number_is_taken", only_the_next_number_is_taken),
    ("edges::a_head_is_found_without_its_hint", a_head_is_found_without_its_hint),
    ("edges::a_hole_is_damage", a_hole_is_damage),
    ("edges::who_only_looks_reads_plainly", who_only_looks_reads_plainly),
];

/// Its rows stay together in the partition of its first number; the next append opens the next.
fn an_append_may_hang_over(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let (store, c) = (open(&options).await, conversation(1));
        let mut want = fill(&store, c, 0, SMALL - 4, SMALL).await;
        want.extend(fill(&store, c, SMALL - 4, 10, 10).await);
        assert_eq!(extent(&store, c).await, (1, SMALL + 6));
        assert_eq!(store.stats().opened_partitions, 1);
        want.extend(fill(&store, c, SMALL + 6, 1, 1).await);
        assert_eq!(extent(&store, c).await, (1, SMALL + 7));
        assert_eq!(store.stats().opened_partitions, 2);
        assert!(whole(&store, c).await == want);

        let session = place.session().await;
        assert_eq!(heads(&session, &options, c, 0..=2).await, [SMALL + 6, SMALL + 7]);
    });
}

/// One message at a time over several edges, as one-to-one traffic does.
fn a_log_goes_on_without_a_gap(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let (store, c) = (open(&options).await, conversation(1));
        let n = 3 * SMALL + 1;
        let want = fill(&store, c, 0, n, 1).await;
        assert_eq!(extent(&store, c).await, (1, n));
        assert!(whole(&store, c).await == want);
        assert_eq!(store.stats().opened_partitions, 4);
        // The first partition needs no hint. A hint is written when its append was reported:
        // closing waits for the last one.
        skein_storage::Store::close(&store).await.unwrap();
        assert!(store.stats().hints >= 3);
    });
}

/// Random appends, then every kind of range and page, against a list.
fn every_range_can_be_read(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let (store, c) = (open(&options).await, conversation(1));
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let mut want: Vec<Record> = Vec::new();
        while want.len() < 1500 {
            let most = match random.random_range(0..10) {
                // As long as they get: over many buckets at once.
                0 => MAX_APPEND_RECORDS as u64,
                1..5 => SMALL,
                _ => 5,
            };
            let n = random.random_range(1..=most);
            want.extend(fill(&store, c, want.len() as Seq, n, n).await);
            assert_eq!(extent(&store, c).await, (1, want.len() as Seq));
        }
        assert!(whole(&store, c).await == want);
        let head = want.len() as Seq;
        for _ in 0..300 {
            let from = random.random_range(0..=head + 2);
            let to = random.random_range(from..=head + 2);
            let page = match random.random_bool(0.5) {
                true => ALL,
                false => Page {
                    records: random.random_range(1..200),
                    bytes: random.random_range(1..5000),
                },
            };
            for direction in [Direction::Forward, Direction::Backward] {
                let read = store.read(c, from..=to, direction, page).await.unwrap();
                let expected = cut(&want, from, to, direction, page);
                assert!(read == expected, "seed {seed}: {from}..={to} {direction:?} {page:?}");
            }
        }
    });
}

fn cut(all: &[Record], from: Seq, to: Seq, direction: Direction, page: Page) -> Vec<Record> {
    let inside = all.iter().filter(|record| (from..=to).contains(&record.seq)).cloned();
    let mut inside: Vec<_> = inside.collect();
    if direction == Direction::Backward {
        inside.reverse();
    }
    let mut bytes = 0;
    let fits = |record: &Record| {
        let fits = bytes < page.bytes;
        bytes += record.payload.len();
        fits
    };
    inside.into_iter().take_while(fits).take(page.records).collect()
}

/// Too early, too late, in a partition that is over or in one that is not yet: all are refused
/// and told the head.
fn only_the_next_number_is_taken(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let (store, c) = (open(&options).await, conversation(1));
        let mut head = 0;
        for to in [SMALL - 1, SMALL, SMALL + 3, 2 * SMALL + 20, 3 * SMALL] {
            fill(&store, c, head, to - head, 7).await;
            head = to;
            let edges = (0..6).map(|bucket| bucket * SMALL);
            let around = edges.flat_map(|edge| [edge, edge + 1, edge + 2]);
            for first in around.chain([head - 1, head, head + 2, head + SMALL]) {
                if first == head + 1 {
                    continue;
                }
                for n in [1, 9] {
                    let refused = outcome(&store, append(c, first, n, "other")).await;
                    let conflict = Err(AppendError::Conflict { head });
                    assert_eq!(refused, conflict, "{first}, {n} records");
                }
            }
        }
        let by_others = |record: &&Record| record.sender != user("filler");
        assert_eq!(whole(&store, c).await.iter().find(by_others), None);
    });
}

/// A lost hint costs time, once.
fn a_head_is_found_without_its_hint(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let c = conversation(1);
        let store = open(&options).await;
        let head = 7 * SMALL;
        fill(&store, c, 0, head, SMALL / 2).await;
        skein_storage::Store::close(&store).await.unwrap();

        let store = open(&options).await;
        let steps = async || {
            let before = store.stats().walk_steps;
            assert_eq!(extent(&store, c).await, (1, head));
            store.stats().walk_steps - before
        };
        let with_hint = steps().await;
        assert!(with_hint <= 3, "{with_hint} steps with a hint");

        // A delete wins against what has the same timestamp, not against a higher hint.
        let session = place.session().await;
        let hint = 6 * SMALL + SMALL / 2;
        let text = format!(
            "DELETE FROM {}.heads USING TIMESTAMP {hint} WHERE conversation = ?",
            options.keyspace
        );
        session.query_unpaged(text, (&c.as_bytes()[..],)).await.unwrap();
        let without_hint = steps().await;
        assert!(without_hint > 7, "{without_hint} steps without a hint");
        until("the load has left a hint", || async { steps().await <= with_hint }).await;
        // And appends go on from there.
        fill(&store, c, head, 3, 1).await;
    });
}

/// What no retention can have removed.
fn a_hole_is_damage(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let (store, c) = (open(&options).await, conversation(1));
        fill(&store, c, 0, 3 * SMALL, SMALL).await;
        let session = place.session().await;
        for (hole, ranges) in [
            (10, vec![1..=20, 10..=10, 1..=10, 10..=20]),
            (SMALL + 1, vec![SMALL..=SMALL + 2, 1..=u64::MAX]),
        ] {
            delete(&session, &options, c, hole).await;
            for range in ranges {
                for direction in [Direction::Forward, Direction::Backward] {
                    let read = store.read(c, range.clone(), direction, ALL).await;
                    let is_seen = matches!(read, Err(skein_storage::StoreError::Damaged(_)));
                    let at_edge = *range.start() == hole || *range.end() == hole;
                    // A range that ends with the hole looks like one that ends there.
                    assert!(is_seen || at_edge, "{hole} in {range:?} {direction:?}: {read:?}");
                }
            }
        }
    });
}

/// Serial reads contend with appends: none is made to show what is whole, and one is made before
/// anything is shown that is not.
fn who_only_looks_reads_plainly(place: &'static Place) {
    block_on(async {
        let options = place.with_schema(SMALL).await;
        let (store, c) = (open(&options).await, conversation(1));
        let n = 2 * SMALL + 20;
        let want = fill(&store, c, 0, n, 7).await;
        let counts = || (store.stats().serial_reads, store.stats().reread);
        let before = counts();
        for direction in [Direction::Forward, Direction::Backward] {
            let pages = [ALL, Page { records: 10, bytes: usize::MAX }];
            let ranges = [0..=u64::MAX, 5..=9, SMALL - 3..=SMALL + 3, n - 2..=n, n + 1..=n + 1];
            for (range, page) in ranges.iter().flat_map(|range| pages.map(|page| (range, page))) {
                let shown = store.view(c, range.clone(), direction, page, n).await.unwrap();
                assert_eq!((shown.extent.first, shown.extent.head), (1, n));
                assert!(shown.records == cut(&want, *range.start(), *range.end(), direction, page));
            }
        }
        assert_eq!(store.look(c, n).await.unwrap().head, n);
        assert_eq!(counts(), before);
        // Who has heard of more than there is.
        assert_eq!(store.look(c, n + 1).await.unwrap().head, n);
        assert_eq!(counts().1, before.1 + 1);
        assert!(counts().0 > before.0);
        // A head whose row is not there.
        delete_from(&place.session().await, &options, c, (n - 1) / SMALL, n).await;
        let before = counts();
        for direction in [Direction::Forward, Direction::Backward] {
            let shown = store.view(c, n - 3..=u64::MAX, direction, ALL, 0).await;
            let is_seen = matches!(shown, Err(skein_storage::StoreError::Damaged(_)));
            assert!(is_seen, "{direction:?}: {shown:?}");
        }
        assert_eq!(counts().1, before.1 + 2);
        let below = store.view(c, n - 3..=n - 1, Direction::Forward, ALL, 0).await.unwrap();
        assert_eq!(seqs(&below.records), [n - 3, n - 2, n - 1]);
        assert_eq!(counts().1, before.1 + 2);
    });
}

pub async fn delete(session: &Session, options: &ScyllaOptions, c: ConversationId, seq: Seq) {
    delete_from(session, options, c, (seq - 1) / SMALL, seq).await;
}

async fn delete_from(
    session: &Session,
    options: &ScyllaOptions,
    c: ConversationId,
    bucket: u64,
    seq: Seq,
) {
    let text = format!(
        "DELETE FROM {}.messages WHERE conversation = ? AND bucket = ? AND seq = ?",
        options.keyspace
    );
    let values = (&c.as_bytes()[..], bucket as i64, seq as i64);
    session.query_unpaged(text, values).await.unwrap();
}

/// The heads of partitions, as they stand in the table.
async fn heads(
    session: &Session,
    options: &ScyllaOptions,
    c: ConversationId,
    buckets: std::ops::RangeInclusive<i64>,
) -> Vec<Seq> {
    let text = format!(
        "SELECT head FROM {}.messages WHERE conversation = ? AND bucket = ? LIMIT 1",
        options.keyspace
    );
    let mut found = Vec::new();
    for bucket in buckets {
        let values = (&c.as_bytes()[..], bucket);
        let answer = session.query_unpaged(text.as_str(), values).await.unwrap();
        let row = answer.into_rows_result().unwrap().maybe_first_row::<(Option<i64>,)>().unwrap();
        found.extend(row.and_then(|(head,)| head).map(|head| head as Seq));
    }
    found
}
