//! Reading: ranges, directions, pages.

use skein_protocol::Seq;

use super::Factory;
use super::support::*;
use crate::{Direction, Extent, Page, View};

/// Walking forward in pages meets every record once, in ascending order.
pub async fn pages_forward(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    fill(&store, c, 0, 25).await;
    let page = Page { records: 10, bytes: usize::MAX };
    let (mut met, mut next) = (Vec::new(), 1);
    loop {
        let read = seqs(&ok(store.read(c, next..=u64::MAX, Direction::Forward, page).await));
        let Some(&last) = read.last() else { break };
        assert_eq!(read.len(), if last == 25 { 5 } else { 10 });
        met.extend(read);
        next = last + 1;
    }
    assert_eq!(met, (1..=25).collect::<Vec<Seq>>());
}

/// Walking backward meets every record once, in descending order.
pub async fn pages_backward(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    fill(&store, c, 0, 25).await;
    let page = Page { records: 10, bytes: usize::MAX };
    let (mut met, mut to) = (Vec::new(), u64::MAX);
    loop {
        let read = seqs(&ok(store.read(c, 0..=to, Direction::Backward, page).await));
        let Some(&last) = read.last() else { break };
        met.extend(read);
        to = last - 1;
    }
    assert_eq!(met, (1..=25).rev().collect::<Vec<Seq>>());
}

/// A page ends with the record that fills its bytes.
pub async fn pages_stop_at_bytes(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    let mut ten = append(c, 1, 10, "a");
    for record in &mut ten.records {
        record.payload = vec![7; 100].into();
    }
    assert_eq!(outcome(&store, ten).await, Ok(()));
    for (bytes, want) in [(1, 1), (100, 1), (101, 2), (250, 3), (300, 3), (5000, 10)] {
        let page = Page { records: usize::MAX, bytes };
        let up = ok(store.read(c, 1..=10, Direction::Forward, page).await);
        assert_eq!(seqs(&up), (1..=want).collect::<Vec<Seq>>(), "{bytes} bytes");
        let down = ok(store.read(c, 1..=10, Direction::Backward, page).await);
        assert_eq!(down.len() as u64, want, "{bytes} bytes backward");
        assert_eq!(down[0].seq, 10);
    }
}

/// However small the page, a read makes progress.
pub async fn a_page_holds_at_least_one_record(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    fill(&store, c, 0, 3).await;
    for page in [Page { records: 0, bytes: 0 }, Page { records: 5, bytes: 0 }] {
        let read = ok(store.read(c, 2..=3, Direction::Forward, page).await);
        assert_eq!(seqs(&read), [2]);
    }
}

/// A range may reach beyond the log on both sides, lie outside, or be empty.
pub async fn numbers_outside_are_passed_over(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    fill(&store, c, 0, 5).await;
    #[allow(clippy::reversed_empty_ranges)]
    let cases = [
        (0..=0, vec![]),
        (0..=2, vec![1, 2]),
        (4..=9, vec![4, 5]),
        (6..=9, vec![]),
        (3..=3, vec![3]),
        (4..=2, vec![]),
        (0..=u64::MAX, vec![1, 2, 3, 4, 5]),
        (u64::MAX..=u64::MAX, vec![]),
    ];
    for (range, want) in cases {
        let up = ok(store.read(c, range.clone(), Direction::Forward, ALL).await);
        assert_eq!(seqs(&up), want, "{range:?}");
        let down = ok(store.read(c, range.clone(), Direction::Backward, ALL).await);
        let reversed: Vec<Seq> = want.into_iter().rev().collect();
        assert_eq!(seqs(&down), reversed, "{range:?} backward");
    }
}

/// Who only looks is shown what is there, with the head and in one go.
pub async fn what_is_shown_is_what_is_there(factory: &dyn Factory) {
    let instance = factory.create().await;
    let store = instance.store();
    let c = conversation(1);
    let nothing = Extent { first: 1, head: 0 };
    for known in [0, 1, u64::MAX] {
        assert_eq!(ok(store.look(c, known).await), nothing);
        let shown = ok(store.view(c, 0..=u64::MAX, Direction::Forward, ALL, known).await);
        assert_eq!(shown, View { extent: nothing, records: Vec::new() });
    }
    fill(&store, c, 0, 130).await;
    let extent = Extent { first: 1, head: 130 };
    #[allow(clippy::reversed_empty_ranges)]
    let ranges =
        [0..=u64::MAX, 1..=130, 60..=70, 128..=200, 131..=131, 140..=u64::MAX, 9..=3, 0..=0];
    let pages = [ALL, Page { records: 3, bytes: usize::MAX }, Page { records: 9, bytes: 1 }];
    for known in [0, 129, 130, 131, u64::MAX] {
        assert_eq!(ok(store.look(c, known).await), extent);
        for (range, page) in ranges.iter().flat_map(|range| pages.map(|page| (range, page))) {
            for direction in [Direction::Forward, Direction::Backward] {
                let shown = ok(store.view(c, range.clone(), direction, page, known).await);
                let read = ok(store.read(c, range.clone(), direction, page).await);
                assert_eq!(shown, View { extent, records: read }, "{range:?} {direction:?}");
            }
        }
    }
}
