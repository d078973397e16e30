//! What one commit will write and what everybody will be told, worked out before it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use skein_protocol::{ConversationId, Seq, UserId};

use super::engine::{Engine, Table, Write};
use super::heads::Heads;
use super::writer::{Job, Reply};
use super::{keys, row};
use crate::{Append, AppendError, AppendSink, CursorPair, CursorUpdate, StoreError};

type Outcome = Result<(), AppendError>;

/// Gathers one round. Reads what was there before it and what the round itself has added.
pub(super) struct Round<'a> {
    engine: &'a Engine,
    cache: &'a mut Heads,
    begun: HashSet<ConversationId>,
    cursors: HashMap<Vec<u8>, CursorPair>,
    staged: Staged,
    #[cfg(test)]
    pub(super) trusting: bool,
}

/// A round that is ready to be written.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) writes: Vec<Write>,
    /// Whether something of it has to survive power loss; cursors alone have not.
    pub(super) durable: bool,
    pub(super) answers: Answers,
    /// Heads once it is written. Apart from the cache, which may forget at any time.
    pub(super) heads: HashMap<ConversationId, Seq>,
    pub(super) appends: u64,
    pub(super) rows: u64,
    pub(super) row_bytes: u64,
    pub(super) conflicts: u64,
}

/// Who is told what, in the order of their jobs.
#[derive(Default)]
pub(super) struct Answers(Vec<Answer>);

enum Answer {
    Appended(Arc<dyn AppendSink>, Vec<(usize, Outcome)>),
    Reply(Reply, Result<(), StoreError>),
}

impl<'a> Round<'a> {
    pub(super) fn new(engine: &'a Engine, cache: &'a mut Heads) -> Self {
        Self {
            engine,
            cache,
            begun: HashSet::new(),
            cursors: HashMap::new(),
            staged: Staged::default(),
            #[cfg(test)]
            trusting: false,
        }
    }

    /// Adds what a job wants written and its answer.
    pub(super) fn add(&mut self, job: Job) {
        let answer = match job {
            Job::Append { group, done } => {
                let outcomes = group.into_iter().map(|append| self.append(append)).enumerate();
                Answer::Appended(done, outcomes.collect())
            }
            Job::Begin { conversation, members, reply } => {
                Answer::Reply(reply, self.begin(conversation, &members))
            }
            Job::Advance { updates, reply } => Answer::Reply(reply, self.advance(&updates)),
            Job::Close { .. } => return,
        };
        self.staged.answers.0.push(answer);
    }

    /// The round as it is to be written.
    pub(super) fn finish(mut self) -> Staged {
        for (key, pair) in self.cursors {
            let value = row::encode_cursors(pair);
            self.staged.writes.push(Write { table: Table::Side, key, value });
        }
        self.staged
    }

    fn append(&mut self, append: Append) -> Outcome {
        let Append { conversation, first, records } = append;
        let head = self.head(conversation)?;
        let expected = head.checked_add(1) == Some(first);
        #[cfg(test)]
        let expected = expected || self.trusting;
        let last = first.checked_add(records.len() as u64).and_then(|end| end.checked_sub(1));
        let (true, Some(last)) = (expected, last) else {
            self.staged.conflicts += 1;
            return Err(AppendError::Conflict { head });
        };
        for (seq, record) in (first..=last).zip(&records) {
            let value = row::encode_message(record);
            self.staged.row_bytes += value.len() as u64;
            let key = keys::message(conversation, seq).to_vec();
            self.staged.writes.push(Write { table: Table::Log, key, value });
        }
        self.staged.heads.insert(conversation, last);
        self.staged.appends += 1;
        self.staged.rows += records.len() as u64;
        self.staged.durable = true;
        Ok(())
    }

    fn head(&mut self, conversation: ConversationId) -> Result<Seq, StoreError> {
        if let Some(&head) = self.staged.heads.get(&conversation) {
            return Ok(head);
        }
        if let Some(head) = self.cache.get(conversation) {
            return Ok(head);
        }
        let head = self.engine.head(conversation)?;
        self.cache.put(conversation, head);
        Ok(head)
    }

    fn begin(
        &mut self,
        conversation: ConversationId,
        members: &[UserId],
    ) -> Result<(), StoreError> {
        if self.begun.contains(&conversation) || self.engine.members(conversation)?.is_some() {
            return Ok(());
        }
        self.begun.insert(conversation);
        let writes = &mut self.staged.writes;
        let key = keys::members(conversation).to_vec();
        writes.push(Write { table: Table::Side, key, value: row::encode_members(members) });
        for member in members {
            let key = keys::index(member, conversation);
            writes.push(Write { table: Table::Side, key, value: bytes::Bytes::new() });
        }
        self.staged.durable = true;
        Ok(())
    }

    fn advance(&mut self, updates: &[CursorUpdate]) -> Result<(), StoreError> {
        for CursorUpdate { user, conversation, to } in updates {
            let key = keys::cursors(user, *conversation);
            let stored = match self.cursors.get(&key) {
                Some(&pair) => pair,
                None => self.engine.cursors(user, *conversation)?,
            };
            let raised = CursorPair {
                delivered: stored.delivered.max(to.delivered),
                read: stored.read.max(to.read),
            };
            if raised != stored {
                self.cursors.insert(key, raised);
            }
        }
        Ok(())
    }
}

impl Answers {
    /// Tells everybody the outcome that was worked out.
    pub(super) fn send(self) {
        for answer in self.0 {
            match answer {
                Answer::Appended(done, outcomes) => done.appended(outcomes),
                Answer::Reply(reply, result) => {
                    let _ = reply.send(result);
                }
            }
        }
    }

    /// Tells everybody `error`, whatever was worked out: all of it rested on the commit.
    pub(super) fn fail(self, error: &StoreError) {
        for answer in self.0 {
            match answer {
                Answer::Appended(done, mut outcomes) => {
                    outcomes
                        .iter_mut()
                        .for_each(|(_, outcome)| *outcome = Err(error.clone().into()));
                    done.appended(outcomes);
                }
                Answer::Reply(reply, _) => {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}
