//! Carries out what [`AppendMachine`] asks for.
//!
//! A request that takes longer than the request timeout is dropped inside the driver, which
//! remembers that its answer may still come; how many of those come about at once is bounded by the
//! places of appends.

use std::time::Duration;

use rand::RngExt;
use scylla::statement::batch::Batch;
use skein_protocol::limits::FRAME_ENVELOPE_BYTES;
use skein_protocol::{ConversationId, Seq};
use tokio::time::Instant;

use super::append::{AppendMachine, Expect, Outcome, Reply, Request, Step};
use super::core::{Care, Core, signed, unsigned};
use super::log::Writer;
use super::places::Place;
use super::row::{self, Write};
use super::stats::add;
use super::{conditional, errors, pages, statements};
use crate::{Append, AppendError, Record, StoreError};

/// Pause before an attempt of unknown outcome is repeated: doubled each time, up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Largest append, bytes of its records. The servers take 16 MiB in one request and in one
/// change of a partition; a larger one would be tried for ever.
const MAX_APPEND_BYTES: usize = 8 << 20;

/// Longest payload of a message that this store takes, bytes: an append of this message alone.
pub const MAX_PAYLOAD_BYTES: usize = MAX_APPEND_BYTES - FRAME_ENVELOPE_BYTES;

/// Highest number that a message can have. Timestamps of registers are numbers too.
const MAX_SEQ: Seq = i64::MAX as Seq;

impl Writer for Core {
    /// A partition was opened: the head to write down as a hint.
    type Rest = Seq;

    async fn append(&self, append: Append, deadline: Instant) -> Result<Option<Seq>, AppendError> {
        if !append.is_well_formed() || bytes_of(&append.records) > MAX_APPEND_BYTES {
            let what = "the append has not the form that was agreed on";
            return Err(StoreError::Unavailable(what.into()).into());
        }
        let Some(mut place) = self.places.take(deadline).await else {
            add(&self.counters.refused_for_place, 1);
            let reason = "too many appends are under way";
            return Err(StoreError::Unavailable(reason.into()).into());
        };
        let Append { conversation, first, records } = append;
        let last = first.saturating_add(records.len() as u64 - 1);
        if first == 0 || last > MAX_SEQ {
            return Err(self.conflict(conversation).await);
        }
        let begun = Instant::now();
        let (mut machine, step) = AppendMachine::new(self.layout, first, records);
        let (outcome, opened) = self.run(conversation, &mut machine, step, &mut place).await;
        match outcome {
            Outcome::Appended => {
                self.counters.appended(machine.rows().len(), begun.elapsed());
                if opened {
                    add(&self.counters.opened_partitions, 1);
                }
                // The first partition is always looked into.
                Ok((opened && first > 1).then_some(last))
            }
            Outcome::Conflict => {
                add(&self.counters.conflicts, 1);
                tracing::debug!(%conversation, first, "an append met another head");
                Err(self.conflict(conversation).await)
            }
            Outcome::Unavailable => {
                Err(StoreError::Unavailable("no node of the cluster was reached".into()).into())
            }
        }
    }

    async fn tidy(&self, conversation: ConversationId, head: Seq) {
        self.write_hint(conversation, head).await;
    }

    fn refused(&self, appends: usize) {
        add(&self.counters.refused_for_place, appends as u64);
    }
}

impl Core {
    /// Runs the machine to its end; also whether the append opened its partition. The place is
    /// left during pauses.
    async fn run(
        &self,
        conversation: ConversationId,
        machine: &mut AppendMachine<Record>,
        mut step: Step,
        place: &mut Place<'_>,
    ) -> (Outcome, bool) {
        let (mut pauses, mut opens) = (0, false);
        loop {
            let request = match step {
                Step::Send(request) => request,
                Step::SendLater(request) => {
                    place.leave_for(pause(pauses)).await;
                    pauses += 1;
                    if matches!(request, Request::Commit { .. }) {
                        add(&self.counters.repeats, 1);
                    }
                    request
                }
                Step::Done(outcome) => return (outcome, opens),
            };
            if let Request::Commit { expect, .. } = request {
                opens = expect == Expect::Empty;
            }
            let reply = match request {
                Request::Commit { bucket, expect } => {
                    let records = machine.rows();
                    self.commit(conversation, bucket, expect, records).await
                }
                Request::Heads { buckets } => self.heads(conversation, buckets).await,
                Request::Rows { bucket } => self.own_rows(conversation, bucket, machine).await,
            };
            #[cfg(debug_assertions)]
            if let Some(planted) = self.planted_end(conversation, &reply, machine).await {
                step = planted;
                continue;
            }
            let compared = matches!(reply, Reply::Rows(_));
            step = machine.handle_reply(reply);
            if compared && step == Step::Done(Outcome::Appended) {
                add(&self.counters.found_appended, 1);
                tracing::debug!(%conversation, "an append of once unknown outcome was made");
            }
        }
    }

    /// The conditional batch.
    async fn commit(
        &self,
        conversation: ConversationId,
        bucket: u64,
        expect: Expect,
        records: &[Record],
    ) -> Reply<Record> {
        let (batch, is_conditional) = self.batch(expect, records.len());
        let last = records.last().map_or(0, |record| record.seq);
        let before = match expect {
            Expect::Head(before) if is_conditional => Some(signed(before)),
            _ => None,
        };
        let (head, bucket) = (signed(last), signed(bucket));
        let ttl = self.ttl();
        let mut writes = Vec::with_capacity(1 + records.len());
        writes.push(Write::Head { head, conversation, bucket, before });
        let messages = records.iter();
        writes.extend(messages.map(|record| Write::Message { conversation, bucket, record, ttl }));
        let answer = match self.session.batch(&batch, writes).await {
            Ok(answer) => {
                self.writing.succeeded();
                answer
            }
            Err(error) => {
                self.writing.failed(&error.to_string());
                return if errors::was_never_sent(&error) {
                    add(&self.counters.not_sent, 1);
                    Reply::NotSent
                } else {
                    self.unknown()
                };
            }
        };
        if !is_conditional {
            return Reply::Applied;
        }
        match conditional::applied_or(answer, "head") {
            Ok((true, _)) => Reply::Applied,
            Ok((false, head)) => match head.map(unsigned).transpose() {
                Ok(head) => Reply::NotApplied { head },
                Err(_) => self.unknown(),
            },
            Err(_) => self.unknown(),
        }
    }

    fn unknown(&self) -> Reply<Record> {
        add(&self.counters.unknown_outcomes, 1);
        tracing::debug!("an attempt to append has no known outcome");
        Reply::Unknown
    }

    fn batch(&self, expect: Expect, rows: usize) -> (Batch, bool) {
        let head = match expect {
            Expect::Empty => &self.statements.open_partition,
            Expect::Head(_) => &self.statements.raise_head,
        };
        #[cfg(debug_assertions)]
        let head = match self.options.planted {
            Some(super::Planted::UnconditionalWrite) => &self.statements.overwrite_head,
            _ => head,
        };
        let is_conditional = head.get_statement().contains(" IF ");
        let mut batch = statements::batch(self.quorum, is_conditional);
        batch.statements.reserve_exact(1 + rows);
        batch.append_statement(head.clone());
        for _ in 0..rows {
            batch.append_statement(self.statements.insert_message.clone());
        }
        (batch, is_conditional)
    }

    /// Seconds for which rows written now are kept; 0 is for ever.
    fn ttl(&self) -> i32 {
        let seconds = self.options.retention.map_or(0, |time| time.as_secs());
        i32::try_from(seconds).unwrap_or(i32::MAX)
    }

    async fn heads(
        &self,
        conversation: ConversationId,
        buckets: std::ops::RangeInclusive<u64>,
    ) -> Reply<Record> {
        let asked = buckets.map(|bucket| self.begin_of(conversation, bucket, Care::Serial));
        match futures_util::future::try_join_all(asked).await {
            Ok(ends) => Reply::Heads(ends.into_iter().filter_map(|end| end.head).collect()),
            Err(_) => Reply::Unknown,
        }
    }

    async fn own_rows(
        &self,
        conversation: ConversationId,
        bucket: u64,
        machine: &AppendMachine<Record>,
    ) -> Reply<Record> {
        #[cfg(debug_assertions)]
        if self.options.planted == Some(super::Planted::NoCompare) {
            return Reply::Rows(machine.rows().to_vec());
        }
        let (first, last) = machine.numbers().into_inner();
        let values = (&conversation.as_bytes()[..], signed(bucket), signed(first), signed(last));
        let rows = self.serial_rows(&self.statements.rows_serial, values).await;
        match rows.and_then(|rows| pages::records(&rows)) {
            Ok(rows) => Reply::Rows(rows),
            // Somebody else's row that cannot be read is not ours.
            Err(StoreError::Damaged(_)) => Reply::Rows(Vec::new()),
            Err(_) => Reply::Unknown,
        }
    }

    /// Nothing was written; the caller is told where the log ends.
    async fn conflict(&self, conversation: ConversationId) -> AppendError {
        match self.extent(conversation, Care::Settled).await {
            Ok(extent) => AppendError::Conflict { head: extent.head },
            Err(error) => error.into(),
        }
    }

    #[cfg(debug_assertions)]
    async fn planted_end(
        &self,
        conversation: ConversationId,
        reply: &Reply<Record>,
        machine: &mut AppendMachine<Record>,
    ) -> Option<Step> {
        if !matches!(reply, Reply::Unknown) {
            return None;
        }
        match self.options.planted {
            Some(super::Planted::UnknownIsFailure) => {
                let head = loop {
                    match self.extent(conversation, Care::Settled).await {
                        Ok(extent) => break extent.head,
                        Err(_) => tokio::time::sleep(LONGEST_PAUSE).await,
                    }
                };
                let again = machine.rows().iter().cloned().zip(head + 1..);
                let again = again.map(|(record, seq)| Record { seq, ..record }).collect();
                let (renumbered, step) = AppendMachine::new(self.layout, head + 1, again);
                *machine = renumbered;
                Some(step)
            }
            Some(super::Planted::UnknownIsSuccess) => Some(Step::Done(Outcome::Appended)),
            _ => None,
        }
    }
}

fn bytes_of(records: &[Record]) -> usize {
    records.iter().map(row::size).sum()
}

/// Between half of it and all of it, so that those who failed together do not come back together.
fn pause(before: u32) -> Duration {
    let longest = SHORTEST_PAUSE.saturating_mul(1 << before.min(16)).min(LONGEST_PAUSE);
    longest.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use skein_protocol::limits::MAX_CONTENT_TYPE_BYTES;
    use skein_protocol::{ClientMsgId, DeviceId, UserId};

    use super::*;

    #[test]
    fn the_largest_message_is_an_append() {
        let name = "n".repeat(64);
        let record = Record {
            seq: 1,
            sender: UserId::parse(&name).unwrap(),
            device: DeviceId::parse(&name).unwrap(),
            client_msg_id: ClientMsgId::parse(&name).unwrap(),
            time_ms: u64::MAX,
            content_type: "t".repeat(MAX_CONTENT_TYPE_BYTES),
            payload: vec![0; MAX_PAYLOAD_BYTES].into(),
        };
        assert!(bytes_of(&[record]) <= MAX_APPEND_BYTES);
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        for (before, longest) in [(0, 50), (1, 100), (5, 1600), (6, 2000), (u32::MAX, 2000)] {
            let longest = Duration::from_millis(longest);
            for _ in 0..100 {
                let pause = pause(before);
                assert!((longest / 2..=longest).contains(&pause), "{before}: {pause:?}");
            }
        }
    }
}
