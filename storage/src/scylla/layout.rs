//! How a conversation's log is cut into partitions.

use std::ops::RangeInclusive;

use skein_protocol::Seq;

/// Sizes that decide which partition holds a row. All gateways of a keyspace use the same: they
/// are written into it when its schema is made.
///
/// A partition is a *bucket* of sequence numbers. An append goes whole into the partition of its
/// first number, because a conditional batch is atomic in one partition only; so up to
/// `max_append - 1` rows may hang over the end of their bucket, and the next partition then begins
/// behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    bucket_rows: u64,
    max_append: u64,
}

impl Layout {
    /// Buckets of `bucket_rows` numbers and appends of at most `max_append` records; each at
    /// least 1.
    pub const fn new(bucket_rows: u64, max_append: u64) -> Self {
        assert!(bucket_rows > 0 && max_append > 0, "a size of zero");
        Self { bucket_rows, max_append }
    }

    /// Numbers in a bucket.
    pub const fn bucket_rows(&self) -> u64 {
        self.bucket_rows
    }

    /// The partition that an append with this first number goes into. Numbers begin with 1.
    pub const fn bucket(&self, first: Seq) -> u64 {
        first.saturating_sub(1) / self.bucket_rows
    }

    /// The partitions of which one holds the row with this number, if any does: its append began
    /// at most `max_append - 1` numbers before it.
    pub const fn buckets_of(&self, seq: Seq) -> RangeInclusive<u64> {
        let first = seq.saturating_sub(self.max_append - 1);
        self.bucket(first)..=self.bucket(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hang_over_by_less_than_an_append() {
        let layout = Layout::new(8, 3);
        assert_eq!([1, 8, 9, 16, 17].map(|first| layout.bucket(first)), [0, 0, 1, 1, 2]);
        // 9 and 10 may belong to an append that began at 8, 11 cannot.
        assert_eq!(layout.buckets_of(8), 0..=0);
        assert_eq!(layout.buckets_of(9), 0..=1);
        assert_eq!(layout.buckets_of(10), 0..=1);
        assert_eq!(layout.buckets_of(11), 1..=1);
    }

    #[test]
    fn an_append_longer_than_a_bucket_reaches_over_several() {
        let layout = Layout::new(2, 5);
        assert_eq!(layout.buckets_of(7), 1..=3);
        assert_eq!(layout.buckets_of(1), 0..=0);
    }
}
