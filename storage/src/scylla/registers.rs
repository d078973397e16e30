//! Cursors: each column is written with its own value as its timestamp, so the highest value wins
//! whatever order writes come in and whatever the clocks say. Never deleted.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use skein_protocol::{ConversationId, Seq, UserId};

use super::core::{Core, signed, unsigned};
use super::stats::add;
use super::{errors, statements};
use crate::{CursorPair, CursorUpdate, StoreError};

/// Registers of one user that are written at once. They are in one partition.
const BATCH: usize = 64;

/// One register: its conversation, whether it is `read`, and the value.
type Register = (ConversationId, bool, Seq);

impl Core {
    /// See [`Cursors::advance`](crate::Cursors::advance).
    pub(super) async fn advance(&self, updates: Vec<CursorUpdate>) -> Result<(), StoreError> {
        let by_user = coalesce(updates);
        let batches = by_user.iter().flat_map(|(user, registers)| {
            registers.chunks(BATCH).map(move |registers| (user, registers))
        });
        let mut writes: FuturesUnordered<_> =
            batches.map(|(user, registers)| self.raise(user, registers)).collect();
        let mut outcome = Ok(());
        while let Some(written) = writes.next().await {
            outcome = outcome.and(written);
        }
        outcome
    }

    async fn raise(&self, user: &UserId, registers: &[Register]) -> Result<(), StoreError> {
        let _place = self.place(&self.registers, "writes").await?;
        let mut batch = statements::batch(self.quorum, false);
        let mut values = Vec::with_capacity(registers.len());
        for (conversation, is_read, to) in registers {
            let statement =
                if *is_read { &self.statements.set_read } else { &self.statements.set_delivered };
            batch.append_statement(statement.clone());
            let to = signed(*to);
            values.push((to, to, user.as_str(), &conversation.as_bytes()[..]));
        }
        let written = self.session.batch(&batch, values).await;
        self.register_written(written.map(drop))
    }

    /// Counts a write that is no append.
    pub(super) fn register_written<T>(
        &self,
        written: Result<T, scylla::errors::ExecutionError>,
    ) -> Result<T, StoreError> {
        add(&self.counters.register_writes, 1);
        let written = written.map_err(|error| {
            add(&self.counters.register_errors, 1);
            errors::unavailable(&error)
        });
        self.writing.saw(&written);
        written
    }

    /// See [`Cursors::cursors`](crate::Cursors::cursors).
    pub(super) async fn cursors(
        &self,
        user: UserId,
        conversation: ConversationId,
    ) -> Result<CursorPair, StoreError> {
        let values = (user.as_str(), &conversation.as_bytes()[..]);
        let answer = self.rows(&self.statements.cursors, values).await?;
        let row: Option<(Option<i64>, Option<i64>)> =
            answer.maybe_first_row().map_err(errors::unexpected)?;
        let (delivered, read) = row.unwrap_or_default();
        let value = |column: Option<i64>| column.map_or(Ok(0), unsigned);
        Ok(CursorPair { delivered: value(delivered)?, read: value(read)? })
    }
}

/// The highest value of each register that is to be raised, by user.
fn coalesce(updates: Vec<CursorUpdate>) -> BTreeMap<UserId, Vec<Register>> {
    let mut highest: BTreeMap<(UserId, ConversationId, bool), Seq> = BTreeMap::new();
    for CursorUpdate { user, conversation, to } in updates {
        for (is_read, value) in [(false, to.delivered), (true, to.read)] {
            if value > 0 {
                let register = highest.entry((user.clone(), conversation, is_read)).or_default();
                *register = value.max(*register);
            }
        }
    }
    let mut by_user: BTreeMap<UserId, Vec<Register>> = BTreeMap::new();
    for ((user, conversation, is_read), value) in highest {
        by_user.entry(user).or_default().push((conversation, is_read, value));
    }
    by_user
}
