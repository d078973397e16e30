//! The cluster: partitions, conditional batches, and batches that are still on their way.
//!
//! A batch is carried out at one moment and in whole, or never; so does a serial read. That is what
//! a CQL server promises of its lightweight transactions. It does not promise when: a batch whose
//! sender has long given up waiting may be carried out later. Such batches are in
//! [`Cluster::late`].

use skein_protocol::Seq;
use skein_storage::scylla::append::{Expect, Reply, Request};
use skein_storage::scylla::layout::Layout;

/// A message's name, as its client gave it.
pub(crate) type Msg = u8;

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) msg: Msg,
    /// Which run of which gateway numbered it: what the time is in a real row.
    pub(crate) stamp: u8,
}

/// A conditional batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Batch {
    pub(crate) bucket: u64,
    pub(crate) expect: Expect,
    pub(crate) first: Seq,
    pub(crate) rows: Vec<Row>,
}

impl Batch {
    fn last(&self) -> Seq {
        self.first + self.rows.len() as Seq - 1
    }
}

/// A batch on its way of which nobody waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Late {
    /// The gateway whose append is still under way; `None` after it crashed or gave up.
    pub(crate) of: Option<usize>,
    pub(crate) batch: Batch,
}

/// What must never happen in a log, seen at the moment when it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Damage {
    /// A row was replaced by another.
    Overwritten,
    /// A head went down.
    HeadFell,
}

/// A row where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Placed {
    pub(crate) bucket: u64,
    pub(crate) seq: Seq,
    pub(crate) row: Row,
}

/// All that the servers hold, and all that is on its way to them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Cluster {
    layout: Layout,
    /// The head of each partition.
    heads: Vec<Option<Seq>>,
    /// All rows, ascending by partition and number.
    rows: Vec<Placed>,
    /// In no order: kept sorted, so that equal states are equal.
    late: Vec<Late>,
    /// The bucket and first number of a batch that one replica has and a majority does not have.
    /// Plain reads may see it or not, until a serial read or another batch has completed it.
    torn: Option<(u64, Seq)>,
    damage: Option<Damage>,
}

impl Cluster {
    /// A log that appends of these sizes have made. The messages are called 100, 101, ...
    pub(crate) fn with_log(layout: Layout, appends: &[usize]) -> Self {
        let (heads, rows, late) = (Vec::new(), Vec::new(), Vec::new());
        let mut cluster = Self { layout, heads, rows, late, torn: None, damage: None };
        let mut first = 1;
        for &size in appends {
            let rows = (first..).take(size).map(|seq| Row { msg: 99 + seq as Msg, stamp: 99 });
            let rows: Vec<Row> = rows.collect();
            let bucket = layout.bucket(first);
            let expect = cluster.head(bucket).map_or(Expect::Empty, Expect::Head);
            let next = first + rows.len() as Seq;
            cluster.commit(&Batch { bucket, expect, first, rows }, true);
            first = next;
        }
        cluster
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn damage(&self) -> Option<Damage> {
        self.damage
    }

    /// Carries out what a machine asks for. `is_conditional` is what a batch has to be.
    pub(crate) fn answer(
        &mut self,
        request: &Request,
        first: Seq,
        rows: &[Row],
        is_conditional: bool,
    ) -> Reply<Row> {
        match request {
            Request::Commit { bucket, expect } => {
                let (bucket, expect, rows) = (*bucket, *expect, rows.to_vec());
                self.commit(&Batch { bucket, expect, first, rows }, is_conditional)
            }
            Request::Heads { buckets } => {
                buckets.clone().for_each(|bucket| self.complete(bucket));
                Reply::Heads(buckets.clone().filter_map(|bucket| self.head(bucket)).collect())
            }
            Request::Rows { bucket } => {
                self.complete(*bucket);
                let numbers = first..first + rows.len() as Seq;
                let is_asked_for = |p: &&Placed| p.bucket == *bucket && numbers.contains(&p.seq);
                Reply::Rows(self.rows.iter().filter(is_asked_for).map(|p| p.row).collect())
            }
        }
    }

    fn commit(&mut self, batch: &Batch, is_conditional: bool) -> Reply<Row> {
        self.complete(batch.bucket);
        let head = self.head(batch.bucket);
        let is_met = match batch.expect {
            Expect::Empty => head.is_none(),
            Expect::Head(expected) => head == Some(expected),
        };
        if is_conditional && !is_met {
            return Reply::NotApplied { head };
        }
        if head > Some(batch.last()) {
            self.damage = Some(Damage::HeadFell);
        }
        let place = batch.bucket as usize;
        self.heads.resize(self.heads.len().max(place + 1), None);
        self.heads[place] = Some(batch.last());
        for (seq, &row) in (batch.first..).zip(&batch.rows) {
            let placed = Placed { bucket: batch.bucket, seq, row };
            match self.rows.binary_search_by_key(&(placed.bucket, seq), |p| (p.bucket, p.seq)) {
                Ok(at) if self.rows[at] == placed => {}
                Ok(at) => {
                    self.rows[at] = placed;
                    self.damage = Some(Damage::Overwritten);
                }
                Err(at) => self.rows.insert(at, placed),
            }
        }
        Reply::Applied
    }

    /// Nobody waits for this batch any more, but it may still be carried out.
    pub(crate) fn add_late(&mut self, late: Late) {
        let order = |late: &Late| {
            let Late { of, batch } = late;
            let Batch { bucket, expect, first, rows } = batch;
            let expect = match expect {
                Expect::Empty => 0,
                Expect::Head(head) => *head,
            };
            let rows: Vec<_> = rows.iter().map(|row| (row.msg, row.stamp)).collect();
            (*of, *bucket, expect, *first, rows)
        };
        self.late.push(late);
        self.late.sort_by_key(order);
    }

    pub(crate) fn late(&self) -> &[Late] {
        &self.late
    }

    /// Carries out a late batch. It reaches one replica only before its coordinator dies, if
    /// `tears`.
    pub(crate) fn carry_out_late(
        &mut self,
        place: usize,
        is_conditional: bool,
        tears: bool,
    ) -> bool {
        let Late { batch, .. } = self.late.remove(place);
        let is_applied = self.commit(&batch, is_conditional) == Reply::Applied;
        if is_applied && tears {
            self.torn = Some((batch.bucket, batch.first));
        }
        is_applied
    }

    /// Takes the late batches of a gateway from it, to which its append has ended.
    pub(crate) fn disown_late(&mut self, gateway: usize) {
        let (own, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.late).into_iter().partition(|late| late.of == Some(gateway));
        self.late = others;
        own.into_iter().for_each(|late| self.add_late(Late { of: None, ..late }));
    }

    /// Drops late batches that would be refused now and, because heads only rise, whenever they
    /// are carried out. Returns how many.
    pub(crate) fn drop_refused(&mut self) -> usize {
        let before = self.late.len();
        let late = std::mem::take(&mut self.late);
        self.late = late.into_iter().filter(|late| self.may_apply(&late.batch)).collect();
        before - self.late.len()
    }

    /// Whether the batch can be applied, now or after more was appended.
    pub(crate) fn may_apply(&self, batch: &Batch) -> bool {
        match (self.head(batch.bucket), batch.expect) {
            (None, _) => true,
            (Some(_), Expect::Empty) => false,
            (Some(head), Expect::Head(expected)) => head <= expected,
        }
    }

    /// A partition's head goes away and its rows stay.
    pub(crate) fn expire_head(&mut self, bucket: u64) {
        if let Some(head) = self.heads.get_mut(bucket as usize) {
            *head = None;
        }
    }

    /// Whatever works on a partition with serial consistency completes its last batch first.
    fn complete(&mut self, bucket: u64) {
        self.torn = self.torn.filter(|(torn, _)| *torn != bucket);
    }

    pub(crate) fn complete_all(&mut self) {
        self.torn = None;
    }

    pub(crate) fn is_torn(&self) -> bool {
        self.torn.is_some()
    }

    pub(crate) fn head(&self, bucket: u64) -> Option<Seq> {
        *self.heads.get(bucket as usize)?
    }

    pub(crate) fn buckets(&self) -> u64 {
        self.heads.len() as u64
    }

    /// The log's head, found as a gateway finds it: from a number that was a head once, on to the
    /// partition that holds the number after it. `sees_torn`: a batch that a majority does not have
    /// is seen.
    pub(crate) fn walk(&self, hint: Seq, sees_torn: bool) -> Seq {
        let mut head = hint;
        loop {
            let bucket = self.layout.bucket(head + 1);
            let is_hidden = !sees_torn && self.torn.is_some_and(|(torn, _)| torn == bucket);
            let next = self.head(bucket).filter(|_| !is_hidden).or_else(|| {
                // What the rows say is what the head was.
                let is_seen =
                    |p: &&Placed| p.bucket == bucket && !(is_hidden && self.is_torn_row(p));
                self.rows.iter().rfind(is_seen).map(|p| p.seq)
            });
            match next {
                Some(next) if next > head => head = next,
                _ => return head,
            }
        }
    }

    /// All rows, ascending by partition and number.
    pub(crate) fn rows(&self) -> &[Placed] {
        &self.rows
    }

    /// The row with this number, looked for where a reader looks for it. `sees_torn`: a batch that
    /// a majority does not have is seen.
    pub(crate) fn row(&self, seq: Seq, sees_torn: bool) -> Option<Row> {
        let buckets = self.layout.buckets_of(seq);
        let is_it = |p: &&Placed| {
            p.seq == seq && buckets.contains(&p.bucket) && (sees_torn || !self.is_torn_row(p))
        };
        self.rows.iter().find(is_it).map(|p| p.row)
    }

    fn is_torn_row(&self, placed: &Placed) -> bool {
        self.torn.is_some_and(|(bucket, from)| placed.bucket == bucket && placed.seq >= from)
    }
}
