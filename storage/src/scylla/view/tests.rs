//! Whatever replicas show, who looks is shown the log as it is, and serial reads are few.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use futures_util::FutureExt;
use proptest::prelude::*;
use skein_protocol::{ClientMsgId, DeviceId, UserId};

use super::*;

/// What a plain read sees of the last append.
#[derive(Debug, Clone)]
struct Shown {
    head: bool,
    /// Which of its rows.
    rows: Vec<bool>,
}

/// A log of which a majority may not have the last append.
#[derive(Debug)]
struct Torn {
    first: Seq,
    head: Seq,
    /// Numbers of the last append.
    last: u64,
    /// What one plain read after the other sees; each time another majority may answer.
    shown: Vec<Shown>,
    may_expire: bool,
    plain: AtomicUsize,
    serial: AtomicUsize,
    again: AtomicUsize,
    settled: Settled,
    missed: Mutex<Vec<RangeInclusive<Seq>>>,
}

impl Torn {
    fn new(first: Seq, head: Seq, last: u64, shown: Vec<Shown>) -> Self {
        let (plain, serial, again, settled, missed) = Default::default();
        let may_expire = first > 1;
        Self { first, head, last, shown, may_expire, plain, serial, again, settled, missed }
    }

    fn whole(first: Seq, head: Seq) -> Self {
        Self::new(first, head, 0, vec![Shown { head: true, rows: Vec::new() }])
    }

    /// Head and numbers that a read sees.
    fn sees(&self, care: Care) -> (Seq, Vec<Seq>) {
        let acknowledged = self.head - self.last;
        if care != Care::Plain {
            self.serial.fetch_add(1, SeqCst);
            return (self.head, (self.first..=self.head).collect());
        }
        let shown = &self.shown[self.plain.fetch_add(1, SeqCst) % self.shown.len()];
        let torn = (acknowledged + 1..=self.head).zip(&shown.rows);
        let torn = torn.filter(|(_, shown)| **shown).map(|(seq, _)| seq);
        let rows = (self.first..=acknowledged).chain(torn).collect();
        (if shown.head { self.head } else { acknowledged }, rows)
    }

    fn cut(rows: Vec<Seq>, range: &RangeInclusive<Seq>, asked: &Asked) -> Vec<Record> {
        let inside = rows.into_iter().filter(|seq| range.contains(seq)).map(record);
        let mut inside: Vec<Record> = inside.collect();
        if asked.direction == Direction::Backward {
            inside.reverse();
        }
        inside.truncate(asked.page.records.max(1));
        inside
    }
}

fn record(seq: Seq) -> Record {
    Record {
        seq,
        sender: UserId::parse("alice").unwrap(),
        device: DeviceId::parse("phone").unwrap(),
        client_msg_id: ClientMsgId::parse(&format!("m{seq}")).unwrap(),
        time_ms: 0,
        content_type: String::new(),
        payload: Bytes::from_static(b"x"),
    }
}

impl Sight for Torn {
    async fn at_once(&self, asked: &Asked) -> Result<Option<View>, StoreError> {
        if asked.direction == Direction::Backward || self.may_expire {
            return Ok(None);
        }
        let (head, rows) = self.sees(Care::Plain);
        let records = Self::cut(rows, &asked.range, asked);
        let view = View { extent: Extent { first: 1, head }, records };
        Ok((!view.records.is_empty()).then_some(view))
    }

    async fn extent(&self, _: ConversationId, care: Care) -> Result<Extent, StoreError> {
        let (head, rows) = self.sees(care);
        // Without a row nothing seems to be left.
        let first = rows.first().copied().unwrap_or(head + 1);
        Ok(Extent { first: if head == 0 { 1 } else { first }, head })
    }

    async fn rows(
        &self,
        asked: &Asked,
        range: RangeInclusive<Seq>,
        care: Care,
    ) -> Result<Vec<Record>, StoreError> {
        Ok(Self::cut(self.sees(care).1, &range, asked))
    }

    async fn missing(
        &self,
        _: ConversationId,
        range: RangeInclusive<Seq>,
    ) -> Result<(), StoreError> {
        self.missed.lock().unwrap().push(range);
        Err(StoreError::Damaged("test".into()))
    }

    async fn reads_again(&self) -> Result<Turn, StoreError> {
        self.again.fetch_add(1, SeqCst);
        Ok(None)
    }

    fn settled(&self, of: ConversationId) -> Option<Extent> {
        self.settled.of(of)
    }

    fn settle(&self, of: ConversationId, extent: Extent) {
        self.settled.note(of, extent);
    }
}

fn asked(range: RangeInclusive<Seq>, direction: Direction, records: usize) -> Asked {
    let mut id = [7; 16];
    id[0] = 1;
    let of = ConversationId::parse(&id).unwrap();
    Asked { of, range, direction, page: Page { records, bytes: usize::MAX }, known: 0 }
}

fn see(torn: &Torn, asked: &Asked) -> View {
    view(torn, asked.clone()).now_or_never().unwrap().unwrap()
}

fn seqs(view: &View) -> Vec<Seq> {
    view.records.iter().map(|record| record.seq).collect()
}

#[test]
fn what_is_whole_is_read_plainly() {
    let torn = Torn::whole(1, 40);
    for direction in [Direction::Forward, Direction::Backward] {
        for range in [0..=Seq::MAX, 1..=40, 10..=20, 40..=40, 41..=Seq::MAX, 50..=60] {
            let view = see(&torn, &asked(range.clone(), direction, 7));
            assert_eq!(view.extent, Extent { first: 1, head: 40 });
            let inside = view.extent.clip(&range);
            let mut all: Vec<Seq> = inside.collect();
            if direction == Direction::Backward {
                all.reverse();
            }
            all.truncate(7);
            assert_eq!(seqs(&view), all, "{range:?} {direction:?}");
        }
    }
    assert_eq!((torn.serial.load(SeqCst), torn.again.load(SeqCst)), (0, 0));
    // Usually one statement is all.
    let torn = Torn::whole(1, 40);
    see(&torn, &asked(38..=Seq::MAX, Direction::Forward, 100));
    assert_eq!(torn.plain.load(SeqCst), 1);
}

#[test]
fn what_has_expired_from_the_front_needs_no_serial_read_behind_it() {
    let long = Torn::whole(5, 5 + MAX_APPEND_RECORDS as u64);
    let view = see(&long, &asked(1..=8, Direction::Forward, 100));
    assert_eq!((view.extent.first, seqs(&view)), (5, vec![5, 6, 7, 8]));
    assert_eq!(see(&long, &asked(1..=4, Direction::Forward, 100)).records, []);
    assert_eq!(long.serial.load(SeqCst), 0);
    // Where little is left it might be that the rest of the last append is not shown.
    let short = Torn::whole(5, 9);
    let view = see(&short, &asked(1..=8, Direction::Forward, 100));
    assert_eq!((view.extent.first, seqs(&view)), (5, vec![5, 6, 7, 8]));
    assert_eq!(short.again.load(SeqCst), 1);
    // That is found out once for each head.
    for _ in 0..9 {
        assert_eq!(seqs(&see(&short, &asked(1..=8, Direction::Forward, 100))), [5, 6, 7, 8]);
    }
    assert_eq!(short.again.load(SeqCst), 1);
    let longer = Torn { head: 10, ..short };
    assert_eq!(seqs(&see(&longer, &asked(8..=20, Direction::Forward, 100))), [8, 9, 10]);
    assert_eq!(longer.again.load(SeqCst), 2);
    // And where nothing is left, that nothing of it is.
    let none = Torn::whole(10, 9);
    let view = see(&none, &asked(1..=Seq::MAX, Direction::Forward, 100));
    assert_eq!((view.extent, view.records.len()), (Extent { first: 10, head: 9 }, 0));
}

#[test]
fn a_head_without_its_rows_is_read_again() {
    for rows in [vec![false; 4], vec![true, false, true, true], vec![false, true, true, true]] {
        for direction in [Direction::Forward, Direction::Backward] {
            let torn = Torn::new(1, 12, 4, vec![Shown { head: true, rows: rows.clone() }]);
            let view = see(&torn, &asked(7..=Seq::MAX, direction, 100));
            let mut all: Vec<Seq> = (7..=12).collect();
            if direction == Direction::Backward {
                all.reverse();
            }
            assert_eq!((view.extent.head, seqs(&view)), (12, all), "{rows:?}");
            assert_eq!(torn.again.load(SeqCst), 1);
        }
        // Below it nothing is amiss.
        let torn = Torn::new(1, 12, 4, vec![Shown { head: true, rows }]);
        assert_eq!(seqs(&see(&torn, &asked(3..=8, Direction::Forward, 100))), [3, 4, 5, 6, 7, 8]);
        assert_eq!(torn.serial.load(SeqCst), 0);
    }
    // A first message of which only the head is shown has not expired.
    let torn = Torn::new(1, 1, 1, vec![Shown { head: true, rows: vec![false] }]);
    let mine = asked(1..=Seq::MAX, Direction::Forward, 100);
    assert_eq!(look(&torn, mine.of, 0).now_or_never().unwrap().unwrap().first, 1);
    assert_eq!(seqs(&see(&torn, &mine)), [1]);
}

#[test]
fn who_knows_of_more_is_told_of_it() {
    let hidden = || Torn::new(1, 12, 4, vec![Shown { head: false, rows: vec![false; 4] }]);
    let mine = asked(7..=Seq::MAX, Direction::Forward, 100);
    // It was acknowledged to nobody.
    let torn = hidden();
    assert_eq!(see(&torn, &mine).extent.head, 8);
    assert_eq!(look(&torn, mine.of, 8).now_or_never().unwrap().unwrap().head, 8);
    assert_eq!(torn.serial.load(SeqCst), 0);
    let torn = hidden();
    assert_eq!(see(&torn, &Asked { known: 12, ..mine.clone() }).extent.head, 12);
    assert_eq!(look(&torn, mine.of, 9).now_or_never().unwrap().unwrap().head, 12);
    // Whoever claims too much is told what there is.
    assert_eq!(look(&torn, mine.of, 99).now_or_never().unwrap().unwrap().head, 12);
    assert_eq!(torn.again.load(SeqCst), 3);
}

#[test]
fn a_hole_that_a_serial_read_finds_is_one() {
    struct Hole(Torn);
    impl Sight for Hole {
        async fn at_once(&self, asked: &Asked) -> Result<Option<View>, StoreError> {
            self.0.at_once(asked).await
        }
        async fn extent(&self, of: ConversationId, care: Care) -> Result<Extent, StoreError> {
            self.0.extent(of, care).await
        }
        async fn rows(
            &self,
            asked: &Asked,
            range: RangeInclusive<Seq>,
            care: Care,
        ) -> Result<Vec<Record>, StoreError> {
            let mut rows = self.0.rows(asked, range, care).await?;
            rows.retain(|row| row.seq != 12);
            Ok(rows)
        }
        async fn missing(
            &self,
            of: ConversationId,
            range: RangeInclusive<Seq>,
        ) -> Result<(), StoreError> {
            self.0.missing(of, range).await
        }
        async fn reads_again(&self) -> Result<Turn, StoreError> {
            self.0.reads_again().await
        }
        fn settled(&self, of: ConversationId) -> Option<Extent> {
            self.0.settled(of)
        }
        fn settle(&self, of: ConversationId, extent: Extent) {
            self.0.settle(of, extent);
        }
    }
    let hole = Hole(Torn::new(1, 12, 4, vec![Shown { head: true, rows: vec![false; 4] }]));
    let mine = asked(7..=Seq::MAX, Direction::Forward, 100);
    let seen = view(&hole, mine).now_or_never().unwrap();
    assert!(matches!(seen, Err(StoreError::Damaged(_))), "{seen:?}");
    assert_eq!(*hole.0.missed.lock().unwrap(), [7..=12]);
}

#[test]
fn what_is_remembered_is_bounded() {
    let settled = Settled::default();
    for n in 0..3 * Settled::MOST as u64 {
        let mut id = [1; 16];
        id[8..].copy_from_slice(&n.to_be_bytes());
        let of = ConversationId::parse(&id).unwrap();
        settled.note(of, Extent { first: 2, head: n });
        assert_eq!(settled.of(of).map(|it| it.head), Some(n));
        assert!(settled.all().len() <= Settled::MOST);
    }
}

fn shown() -> impl Strategy<Value = Shown> {
    (any::<bool>(), prop::collection::vec(any::<bool>(), 6))
        .prop_map(|(head, rows)| Shown { head, rows })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    /// Nothing that was acknowledged is left out, nothing is shown behind a hole, and nothing is
    /// taken for expired that has not.
    #[test]
    fn whatever_majorities_show(
        first in 1u64..6,
        more in 0u64..12,
        last in 0u64..6,
        shown in prop::collection::vec(shown(), 1..4),
        from in 0u64..16,
        to in prop_oneof![0u64..20, Just(Seq::MAX)],
        is_backward in any::<bool>(),
        records in 1usize..12,
    ) {
        let head = first - 1 + more;
        let last = last.min(more);
        let torn = Torn::new(first, head, last, shown);
        let direction = if is_backward { Direction::Backward } else { Direction::Forward };
        let asked = asked(from..=to, direction, records);
        let view = see(&torn, &asked);
        let Extent { first: said, head: told } = view.extent;
        prop_assert_eq!(said, first);
        prop_assert!((head - last..=head).contains(&told));
        let mut all: Vec<Seq> = view.extent.clip(&asked.range).collect();
        if is_backward {
            all.reverse();
        }
        all.truncate(records);
        prop_assert_eq!(seqs(&view), all);
        let looked = look(&torn, asked.of, told).now_or_never().unwrap().unwrap();
        prop_assert!(looked.first == first && (told..=head).contains(&looked.head));
    }
}
