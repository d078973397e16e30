//! The members of one conversation and how far each has come.

use std::sync::Arc;

use skein_protocol::{ConversationId, Seq, UserId};
use skein_storage::{CursorPair, CursorUpdate};

use super::{CursorKind, Origin, Receipt};

/// Says that a member has come further than the log is known to reach: another gateway has written
/// on, or it is not true.
pub(super) struct Claim {
    pub(super) origin: Origin,
    pub(super) kind: CursorKind,
    pub(super) seq: Seq,
    /// The store was asked after this claim was made.
    asked: bool,
}

pub(super) struct Marks {
    members: Arc<[UserId]>,
    cursors: Vec<CursorPair>,
    /// Cursors that the store is known to have.
    stored: Vec<CursorPair>,
    /// In the lane's list of cursors to be written.
    listed: bool,
    /// At most one for each register. Not empty: the store is being asked.
    claims: Vec<Claim>,
}

impl Marks {
    /// As the store has them.
    pub(super) fn new(members: Vec<UserId>, cursors: Vec<CursorPair>) -> Self {
        let (listed, claims) = (false, Vec::new());
        Self { members: members.into(), stored: cursors.clone(), cursors, listed, claims }
    }

    pub(super) fn members(&self) -> &Arc<[UserId]> {
        &self.members
    }

    pub(super) fn cursors(&self) -> &[CursorPair] {
        &self.cursors
    }

    /// Whether no claim waits for the store's answer.
    pub(super) fn is_settled(&self) -> bool {
        self.claims.is_empty()
    }

    /// Whether the store has them all.
    pub(super) fn is_written(&self) -> bool {
        self.cursors == self.stored
    }

    /// Raises a cursor; the receipt if it rose. `seq` is not past the head.
    pub(super) fn raise(
        &mut self,
        conversation: ConversationId,
        origin: &Origin,
        kind: CursorKind,
        seq: Seq,
    ) -> Option<Receipt> {
        let member = self.members.iter().position(|user| *user == origin.user)?;
        let cursors = &mut self.cursors[member];
        let cursor = match kind {
            CursorKind::Delivered => &mut cursors.delivered,
            CursorKind::Read => &mut cursors.read,
        };
        if seq <= *cursor {
            return None;
        }
        *cursor = seq;
        // What was read has been delivered.
        cursors.delivered = cursors.delivered.max(cursors.read);
        Some(Receipt {
            conversation,
            kind,
            user: origin.user.clone(),
            seq,
            members: self.members.clone(),
            origin: origin.conn,
        })
    }

    /// Remembers a claim; whether the store has to be asked now.
    pub(super) fn claim(&mut self, origin: &Origin, kind: CursorKind, seq: Seq) -> bool {
        let asking = !self.claims.is_empty();
        let same = |c: &&mut Claim| c.kind == kind && c.origin.user == origin.user;
        let claim = Claim { origin: origin.clone(), kind, seq, asked: !asking };
        match self.claims.iter_mut().find(same) {
            Some(known) if known.seq >= seq => {}
            Some(known) => *known = claim,
            None => self.claims.push(claim),
        }
        !asking
    }

    /// The store was asked, and the log reaches to `head`. Returns the claims that can be decided
    /// now, and whether the store has to be asked again for those that came meanwhile.
    pub(super) fn decide(&mut self, head: Seq) -> (Vec<Claim>, bool) {
        let claims = std::mem::take(&mut self.claims).into_iter();
        let (decided, mut left): (Vec<_>, Vec<_>) =
            claims.partition(|claim| claim.asked || claim.seq <= head);
        left.iter_mut().for_each(|claim| claim.asked = true);
        self.claims = left;
        (decided, !self.claims.is_empty())
    }

    /// Says that they are to be written; `false` if that was said before.
    pub(super) fn list(&mut self) -> bool {
        !std::mem::replace(&mut self.listed, true)
    }

    /// Those that the store does not have yet; it is told to write them now.
    pub(super) fn take_updates(&mut self, conversation: ConversationId) -> Vec<CursorUpdate> {
        self.listed = false;
        let all = self.members.iter().zip(&self.cursors).zip(&self.stored);
        all.filter(|((_, to), stored)| to != stored)
            .map(|((user, to), _)| CursorUpdate { user: user.clone(), conversation, to: *to })
            .collect()
    }

    /// The store has these.
    pub(super) fn written(&mut self, update: &CursorUpdate) {
        if let Some(member) = self.members.iter().position(|user| *user == update.user) {
            // It may have been read from the store just before: then what is known here is older.
            raise(&mut self.stored[member], update.to);
            raise(&mut self.cursors[member], update.to);
        }
    }

    /// The store did not take this one, which may stem from an earlier life of the conversation.
    pub(super) fn adopt(&mut self, update: &CursorUpdate) {
        if let Some(member) = self.members.iter().position(|user| *user == update.user) {
            raise(&mut self.cursors[member], update.to);
        }
    }

    /// What would be lost with them: updates that the store does not have, and claims.
    pub(super) fn into_unwritten(
        mut self,
        conversation: ConversationId,
    ) -> (Vec<CursorUpdate>, Vec<Claim>) {
        (self.take_updates(conversation), self.claims)
    }
}

fn raise(cursors: &mut CursorPair, to: CursorPair) {
    cursors.delivered = cursors.delivered.max(to.delivered);
    cursors.read = cursors.read.max(to.read);
}
