//! What a lane does with sends: deduplicate, number, append, answer.

use skein_protocol::server::Send;
use skein_protocol::{Code, ConversationId};
use skein_storage::{AppendError, StoreError};

use super::window::Key;
use super::{
    Ack, Effect, Found, Lane, Origin, Scan, Slot, code_of, refusal_of, refuse, refuse_send,
    size_of_send,
};

impl Lane {
    /// Takes the answer to [`Effect::Scan`].
    pub fn handle_scanned(
        &mut self,
        scan: &Scan,
        found: Result<Found, StoreError>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Slot::Ready(state)) = self.slots.get_mut(&scan.conversation) else {
            // Forgotten after a failed append; those who waited were refused then.
            return;
        };
        let Some(deferred) = state.end_scan(&scan.sender, &mut self.deadlines) else {
            return;
        };
        // Counted again by whatever it waits for next.
        self.bytes -= deferred.iter().map(|(_, send)| size_of_send(send)).sum::<usize>();
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let code = code_of(&error);
                deferred.iter().for_each(|(o, s)| refuse_send(o.conn, s, code, effects));
                return;
            }
        };
        let before = effects.len();
        for (origin, mut send) in deferred {
            let key = Key::new(&origin.user, &origin.device, &send.client_msg_id);
            let hit = found.iter().find(|(at, ..)| *at == key);
            if let Some(&(_, seq, time_ms)) = hit {
                effects.push(Effect::Ack(Ack {
                    conn: origin.conn,
                    client_msg_id: send.client_msg_id,
                    conversation: scan.conversation,
                    seq,
                    time_ms,
                    asked: origin.at,
                }));
                if let Some(Slot::Ready(state)) = self.slots.get_mut(&scan.conversation) {
                    effects.extend(state.tell(scan.conversation, seq));
                }
                continue;
            }
            // What was looked for is known not to be there, so what is there is not read again
            // even if others have written on meanwhile. The rest is looked for in turn.
            if scan.keys.contains(&key) {
                send.after_seq = send.after_seq.max(Some(scan.to));
            }
            self.send(scan.conversation, origin, send, now_ms, effects);
        }
        // All that waits behind the next scan of this device is looked for in the same pass.
        if let Some(Slot::Ready(state)) = self.slots.get(&scan.conversation) {
            for effect in &mut effects[before..] {
                if let Effect::Scan(next) = effect {
                    state.widen_scan(next);
                }
            }
        }
    }

    /// Takes the outcome of [`Effect::Append`].
    pub fn handle_appended(
        &mut self,
        conversation: ConversationId,
        outcome: Result<(), AppendError>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Slot::Ready(state)) = self.slots.get_mut(&conversation) else {
            return;
        };
        state.decided(&mut self.deadlines);
        match outcome {
            Ok(()) => {
                let freed = state.appended(conversation, effects);
                self.bytes -= freed;
                if let Some(append) = state.next_append(conversation, &mut self.deadlines) {
                    effects.push(Effect::Append(append));
                }
            }
            Err(AppendError::Conflict { .. }) => {
                // Somebody else wrote: read again and number again whatever is not in the log.
                let queue = self.forget(conversation);
                self.start_loading(conversation, None, queue, true, effects);
            }
            Err(AppendError::Store(error)) => {
                let code = code_of(&error);
                self.forget(conversation).iter().for_each(|c| refuse(c, code, effects));
            }
        }
    }

    pub(super) fn send(
        &mut self,
        conversation: ConversationId,
        origin: Origin,
        send: Send,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Slot::Ready(state)) = self.slots.get_mut(&conversation) else {
            return;
        };
        let size = size_of_send(&send);
        let full = self.bytes + size > self.config.max_bytes;
        if let Some(deferred) = state.deferred(&origin) {
            if full || deferred.len() >= self.config.max_waiting {
                refuse_send(origin.conn, &send, Code::Overloaded, effects);
            } else {
                self.bytes += size;
                deferred.push((origin, send));
            }
            return;
        }
        let key = Key::new(&origin.user, &origin.device, &send.client_msg_id);
        if state.answer_known(conversation, key, &origin, &send, effects) {
            return;
        }
        let from = send.after_seq.map(|seq| seq.saturating_add(1));
        if let Some(from) = from
            && from < state.window_first()
        {
            if full {
                refuse_send(origin.conn, &send, Code::Overloaded, effects);
                return;
            }
            self.bytes += size;
            let (waiting, deadlines) = ((origin, send), &mut self.deadlines);
            let scan = state.begin_scan(conversation, from, key, waiting, deadlines);
            effects.push(Effect::Scan(scan));
            return;
        }
        if state.is_overdue() {
            refuse_send(origin.conn, &send, Code::StoreUnavailable, effects);
            return;
        }
        if full || state.waiting_len() >= self.config.max_waiting {
            refuse_send(origin.conn, &send, Code::Overloaded, effects);
            return;
        }
        // Only here: who is no member cannot empty the bucket, and a repetition costs nothing.
        let bytes = send.payload.len();
        if let Err(early) = self.throttle.conversation_message(&origin.user, conversation, bytes) {
            let refusal = refusal_of(&send, early.code, Some(early.retry_after));
            effects.push(Effect::Refuse(origin.conn, refusal));
            return;
        }
        self.bytes += size;
        state.enqueue(key, origin, send, size, now_ms);
        if let Some(append) = state.next_append(conversation, &mut self.deadlines) {
            effects.push(Effect::Append(append));
        }
    }
}
