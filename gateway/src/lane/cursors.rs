//! What a lane does with cursors: it raises them, writes them behind, and loses none that it has
//! taken, whatever becomes of their conversation.

use skein_protocol::{ConversationId, Seq};
use skein_storage::{CursorUpdate, Extent, StoreError};

use super::marks::{Claim, Marks};
use super::{Command, CursorKind, Effect, Lane, Origin, Slot};

impl Lane {
    /// Raises a cursor, never past the head. If it is past the head that is known here the store is
    /// asked first: another gateway may have written on.
    pub(super) fn raise(
        &mut self,
        conversation: ConversationId,
        (origin, kind, seq): (Origin, CursorKind, Seq),
        effects: &mut Vec<Effect>,
    ) {
        let Some(Slot::Ready(state)) = self.slots.get_mut(&conversation) else {
            return;
        };
        if seq > state.known() {
            if state.marks.claim(&origin, kind, seq) {
                effects.push(Effect::Look(conversation));
            }
            return;
        }
        if let Some(receipt) = state.marks.raise(conversation, &origin, kind, seq) {
            effects.push(Effect::Receipt(receipt));
            if state.marks.list() {
                self.dirty.push(conversation);
            }
        }
    }

    /// Takes the answer to [`Effect::Look`].
    pub fn handle_looked(
        &mut self,
        conversation: ConversationId,
        extent: Result<Extent, StoreError>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Slot::Ready(state)) = self.slots.get_mut(&conversation) else {
            // Loaded anew after a conflict, and the claims wait for that.
            return;
        };
        let is_news = extent.is_ok_and(|extent| state.learn(extent.head));
        let known = state.known();
        if is_news {
            effects.extend(state.tell(conversation, known));
        }
        let (claims, again) = state.marks.decide(known);
        for Claim { origin, kind, seq, .. } in claims {
            // What is still past the head is not true, or the store does not answer.
            self.raise(conversation, (origin, kind, seq.min(known)), effects);
        }
        if again {
            effects.push(Effect::Look(conversation));
        }
    }

    /// Cursors that the store does not have yet; [`Lane::handle_cursor_written`] takes the outcome.
    pub fn take_cursor_updates(&mut self) -> Vec<CursorUpdate> {
        let mut updates = std::mem::take(&mut self.orphans);
        for conversation in std::mem::take(&mut self.dirty) {
            if let Some(Slot::Ready(state)) = self.slots.get_mut(&conversation) {
                updates.append(&mut state.marks.take_updates(conversation));
            }
        }
        updates
    }

    /// Takes the outcome of writing a cursor. Until then its conversation stays in memory, so that
    /// nobody reads an older cursor from the store; if it was not written, it is written again.
    pub fn handle_cursor_written(&mut self, update: &CursorUpdate, is_written: bool) {
        match self.slots.get_mut(&update.conversation) {
            Some(Slot::Ready(state)) => {
                if is_written {
                    return state.marks.written(update);
                }
                // It may have been loaded anew since, from a store that has not heard of this.
                state.marks.adopt(update);
                if state.marks.list() {
                    self.dirty.push(update.conversation);
                }
            }
            _ if is_written => {}
            _ => self.adopt_orphans(vec![update.clone()]),
        }
    }

    /// Keeps what a conversation that is forgotten leaves behind; returns its claims, to be made
    /// again.
    pub(super) fn keep_cursors(
        &mut self,
        conversation: ConversationId,
        marks: Marks,
    ) -> Vec<Command> {
        let (unwritten, claims) = marks.into_unwritten(conversation);
        self.adopt_orphans(unwritten);
        let claims = claims.into_iter();
        claims.map(|Claim { origin, kind, seq, .. }| Command::Cursor(origin, kind, seq)).collect()
    }

    /// Over the bound they are lost until they move again or their device connects anew.
    fn adopt_orphans(&mut self, updates: Vec<CursorUpdate>) {
        let room = self.config.max_unwritten.saturating_sub(self.orphans.len());
        self.orphans.extend(updates.into_iter().take(room));
    }
}
