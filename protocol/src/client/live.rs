//! The live stream: what is written to it, and what each frame of the gateway does.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::outbox::backoff;
use super::types::{self, Event, MAX_SEQ, Message, ReceiptKind, StoreOp};
use super::{Bye, Client, Limits, MAX_FRAME_BYTES, MAX_RETRY_AFTER, State, outbox};
use crate::codes::Retry;
use crate::frame;
use crate::limits::{
    DEFAULT_HEARTBEAT_INTERVAL, DEFAULT_MAX_BULK_STREAMS, DEFAULT_MAX_ENTRIES,
    DEFAULT_MAX_FRAME_BYTES, DEFAULT_MAX_PAYLOAD_BYTES, DEFAULT_MAX_UNACKED_SENDS,
    MAX_PLATFORM_BYTES,
};
use crate::wire::{self, client_frame, server_frame};
use crate::{ClientMsgId, Code, ConversationId, DeviceId, Seq, UserId, VERSION};

/// Bytes that one `poll_live` gathers before it stops: a datagram train's worth. More would only
/// wait in the transport, where nothing urgent can get past it.
const CHUNK_BYTES: usize = 16 * 1024;

/// How long a gap may close by itself before it is pulled.
const GAP_DELAY: Duration = Duration::from_millis(100);

/// First and longest wait before a refused send is tried again, unless the gateway says more.
const REFUSED_BASE: Duration = Duration::from_millis(250);
const REFUSED_CAP: Duration = Duration::from_secs(30);

impl Client {
    /// The next bytes for the live stream. Ask again when they are written: nothing is encoded
    /// ahead of the transport.
    pub fn poll_live(&mut self, now: Instant) -> Option<Bytes> {
        if self.close.is_some() {
            return None;
        }
        let mut out = BytesMut::new();
        match self.state {
            State::Offline | State::Greeted { .. } => return None,
            State::Greeting { .. } => self.write_hello(&mut out),
            State::Live => self.write_live(&mut out, now),
        }
        if out.is_empty() {
            return None;
        }
        self.heartbeat.sent(now);
        Some(out.freeze())
    }

    fn write_hello(&mut self, out: &mut BytesMut) {
        let State::Greeting { token, since } = std::mem::replace(&mut self.state, State::Offline)
        else {
            return;
        };
        let mut platform = self.config.platform.clone();
        while platform.len() > MAX_PLATFORM_BYTES {
            platform.pop();
        }
        let have = if self.epoch == 0 || self.have_refused {
            Vec::new()
        } else {
            cursors(self.inbox.have(self.limits.entries))
        };
        let hello = wire::Hello {
            versions: vec![VERSION],
            token,
            device: self.device.as_ref().map_or_else(String::new, DeviceId::to_string),
            platform,
            store_epoch: self.epoch,
            have,
        };
        write(out, client_frame::Kind::Hello(hello));
        self.state = State::Greeted { since };
    }

    fn write_live(&mut self, out: &mut BytesMut, now: Instant) {
        if self.bye == Bye::Written {
            return;
        }
        if let Some(nonce) = self.heartbeat.take_pong() {
            write(out, client_frame::Kind::Pong(wire::Pong { nonce }));
        }
        if let Some(nonce) = self.heartbeat.take_ping() {
            write(out, client_frame::Kind::Ping(wire::Ping { nonce }));
        }
        if let Some(token) = self.token.fresh.take() {
            write(out, client_frame::Kind::RefreshToken(wire::RefreshToken { token }));
        }
        if self.bye == Bye::No && self.going.is_none() {
            self.write_sends(out, now);
        }
        self.write_cursors(out, now);
        if self.bye == Bye::Wanted && !self.inbox.has_acks() && !self.inbox.has_reads() {
            write(out, client_frame::Kind::Bye(wire::Bye {}));
            self.bye = Bye::Written;
        }
    }

    fn write_sends(&mut self, out: &mut BytesMut, now: Instant) {
        while out.len() < CHUNK_BYTES {
            let waiting = self.waits_for_answer();
            let (window, timeout) = (self.limits.unacked_sends, self.config.answer_timeout);
            let inbox = &self.inbox;
            let send = self.outbox.next_send(now, window, timeout, |id| inbox.head(id));
            let Some(send) = send else { return };
            let id = send.client_msg_id.clone();
            let payload = send.payload.len();
            let kind = client_frame::Kind::Send(send);
            let frame = wire::ClientFrame { kind: Some(kind) };
            // A frame over the limit would end the connection, and again after each reconnect.
            if payload > self.limits.payload_bytes
                || prost::Message::encoded_len(&frame) > self.limits.frame_bytes
            {
                if let Ok(id) = ClientMsgId::parse(&id) {
                    self.reject(&id, Code::PayloadTooLarge.number(), "");
                }
                continue;
            }
            if !waiting {
                self.heartbeat.expect_answer(now);
            }
            frame::encode_into(&frame, out);
        }
    }

    /// Cursors go with whatever else goes, or alone once they have waited long enough.
    fn write_cursors(&mut self, out: &mut BytesMut, now: Instant) {
        while self.inbox.has_reads() && out.len() < CHUNK_BYTES {
            let cursors = cursors(self.inbox.take_reads(self.limits.entries));
            if !cursors.is_empty() {
                write(out, client_frame::Kind::Read(wire::Read { cursors }));
            }
        }
        let due = self.ack_at.is_some_and(|at| at <= now);
        if out.is_empty() && !due && self.bye == Bye::No {
            return;
        }
        while self.inbox.has_acks() && out.len() < CHUNK_BYTES {
            let cursors = cursors(self.inbox.take_acks(self.limits.entries));
            if !cursors.is_empty() {
                write(out, client_frame::Kind::Delivered(wire::Delivered { cursors }));
            }
        }
        if !self.inbox.has_acks() {
            self.ack_at = None;
        }
    }

    /// Bytes of the live stream, as they come.
    pub fn handle_live(&mut self, bytes: Bytes, now: Instant) {
        if self.close.is_some() || self.state == State::Offline {
            return;
        }
        self.heartbeat.heard(now);
        self.decoder.push(bytes);
        let max = self.limits.frame_bytes.max(DEFAULT_MAX_FRAME_BYTES);
        while self.close.is_none() {
            match self.decoder.poll::<wire::ServerFrame>(max) {
                Ok(None) => return,
                // A kind that a newer gateway knows.
                Ok(Some(wire::ServerFrame { kind: None })) => {}
                Ok(Some(wire::ServerFrame { kind: Some(kind) })) => self.handle_frame(kind, now),
                Err(error) => return self.leave_for(&error),
            }
        }
    }

    fn handle_frame(&mut self, kind: server_frame::Kind, now: Instant) {
        if self.state != State::Live {
            return match kind {
                server_frame::Kind::Welcome(welcome) => self.handle_welcome(welcome, now),
                server_frame::Kind::GoAway(go_away) => self.handle_go_away(&go_away),
                // The close that follows carries the code.
                server_frame::Kind::Error(error) => self.handle_error(error, now),
                _ => self.leave(Code::ProtocolViolation),
            };
        }
        match kind {
            server_frame::Kind::Ping(ping) => self.heartbeat.handle_ping(ping.nonce),
            server_frame::Kind::Pong(pong) => self.heartbeat.handle_pong(pong.nonce, now),
            server_frame::Kind::SendAck(ack) => {
                self.handle_send_ack(ack);
                self.expect_gaps_to_close(now);
            }
            server_frame::Kind::Push(push) => {
                for message in push.messages {
                    self.handle_message(message);
                }
                self.expect_gaps_to_close(now);
            }
            server_frame::Kind::Receipt(receipt) => self.handle_receipt(receipt),
            server_frame::Kind::Behind(behind) => self.handle_behind(behind),
            server_frame::Kind::TokenRefreshed(refreshed) => {
                self.token.fresh = None;
                self.set_token_expiry(refreshed.token_expires_ms, now);
            }
            server_frame::Kind::GoAway(go_away) => self.handle_go_away(&go_away),
            server_frame::Kind::Error(error) => self.handle_error(error, now),
            server_frame::Kind::SystemNotice(notice) => {
                self.events.push(Event::Notice { text: notice.text });
            }
            server_frame::Kind::Welcome(_)
            | server_frame::Kind::HeadsPage(_)
            | server_frame::Kind::PullPage(_) => self.leave(Code::ProtocolViolation),
        }
    }

    fn handle_welcome(&mut self, welcome: wire::Welcome, now: Instant) {
        let State::Greeted { since } = self.state else {
            return self.leave(Code::ProtocolViolation);
        };
        if welcome.version != VERSION {
            return self.leave(Code::VersionUnsupported);
        }
        let (Ok(user), Ok(device)) =
            (UserId::parse(&welcome.user), DeviceId::parse(&welcome.device))
        else {
            return self.leave(Code::MalformedFrame);
        };
        // A token of somebody else, or of another device: not what this data belongs to.
        if self.user.as_ref().is_some_and(|known| *known != user) {
            return self.leave(Code::BadToken);
        }
        if self.device.as_ref().is_some_and(|known| *known != device) {
            return self.leave(Code::DeviceMismatch);
        }
        self.state = State::Live;
        let interval = Duration::from_millis(welcome.heartbeat_interval_ms.into());
        let interval = if interval.is_zero() { DEFAULT_HEARTBEAT_INTERVAL } else { interval };
        let interval = self.config.max_heartbeat.map_or(interval, |most| interval.min(most));
        self.heartbeat.advise(interval, now.saturating_duration_since(since));
        self.limits = limits(welcome.limits.unwrap_or_default());
        self.token.clock = Some((welcome.server_time_ms, now));
        self.set_token_expiry(welcome.token_expires_ms, now);
        self.user = Some(user.clone());
        self.device = Some(device.clone());
        self.outbox.identify(&user);
        let again = std::mem::replace(&mut self.was_connected, true);
        self.events.push(Event::Connected { user, device, session: welcome.session, again });
        self.adopt_epoch(welcome.store_epoch);
        self.inbox.begin_session();
        self.sync.begin_session();
        self.heartbeat.expect_answer(now);
    }

    fn adopt_epoch(&mut self, epoch: u64) {
        if epoch == self.epoch {
            return;
        }
        let replaced = self.epoch != 0;
        self.epoch = epoch;
        self.inbox.clear();
        self.outbox.forget_heads();
        self.store.push_back(StoreOp::Reset { epoch });
        if replaced {
            self.events.push(Event::StoreReset { epoch });
        }
    }

    fn handle_send_ack(&mut self, ack: wire::SendAck) {
        let (Ok(id), Ok(conversation)) =
            (ClientMsgId::parse(&ack.client_msg_id), ConversationId::parse(&ack.conversation))
        else {
            return self.leave(Code::MalformedFrame);
        };
        if ack.seq == 0 || ack.seq > MAX_SEQ {
            return self.leave(Code::MalformedFrame);
        }
        // Unknown: the answer to a repeat, after the first answer.
        let Some(entry) = self.settle(&id) else { return };
        let trace = ack.trace_id.as_ref().try_into().ok();
        self.acked(entry, conversation, ack.seq, ack.time_ms, trace);
    }

    /// Reports the position of an own message, and puts it there: the gateway does not push it
    /// back to us.
    fn acked(
        &mut self,
        entry: outbox::Entry,
        conversation: ConversationId,
        seq: Seq,
        time_ms: u64,
        trace: Option<[u8; 16]>,
    ) {
        let id = entry.id;
        self.events.push(Event::Acked { id: id.clone(), conversation, seq, time_ms, trace });
        let (Some(sender), Some(device)) = (self.user.clone(), self.device.clone()) else {
            return;
        };
        let (content_type, payload) = (entry.content_type, entry.payload);
        let message =
            Message { conversation, seq, sender, device, id, time_ms, content_type, payload };
        self.inbox.accept(message, true, &self.config, &mut self.events);
    }

    /// One message that was pushed or pulled.
    pub(super) fn handle_message(&mut self, message: wire::Message) {
        // A kind of conversation that a newer gateway knows.
        let Ok(conversation) = ConversationId::parse(&message.conversation) else { return };
        let seq = message.seq;
        if seq == 0 || seq > MAX_SEQ {
            return self.leave(Code::MalformedFrame);
        }
        let Ok(message) = Message::parse(message) else {
            let (config, events) = (&self.config, &mut self.events);
            return self.inbox.accept_unreadable(conversation, seq, config, events);
        };
        // Our own, seen in the log before its acknowledgement came: that is one.
        let ours = Some(&message.sender) == self.user.as_ref()
            && Some(&message.device) == self.device.as_ref();
        if ours && let Some(entry) = self.settle(&message.id) {
            return self.acked(entry, conversation, seq, message.time_ms, None);
        }
        self.inbox.accept(message, false, &self.config, &mut self.events);
    }

    fn handle_receipt(&mut self, receipt: wire::Receipt) {
        let kind = match receipt.kind() {
            wire::ReceiptKind::Delivered => ReceiptKind::Delivered,
            wire::ReceiptKind::Read => ReceiptKind::Read,
            wire::ReceiptKind::Unspecified => return,
        };
        let (Ok(conversation), Ok(user)) =
            (ConversationId::parse(&receipt.conversation), UserId::parse(&receipt.user))
        else {
            return;
        };
        self.handle_member(conversation, kind, user, receipt.seq);
    }

    pub(super) fn handle_member(
        &mut self,
        conversation: ConversationId,
        kind: ReceiptKind,
        user: UserId,
        seq: Seq,
    ) {
        if kind == ReceiptKind::Read && Some(&user) == self.user.as_ref() {
            self.inbox.handle_own_read(conversation, seq);
        }
        self.inbox.handle_member(conversation, kind, user, seq, &self.config, &mut self.events);
    }

    /// What is missing now is usually on its way: a push of another sender, an answer to a send
    /// of ours. Pull only if it does not come soon.
    fn expect_gaps_to_close(&mut self, now: Instant) {
        if self.inbox.is_wanting() && self.pull_at.is_none() {
            self.pull_at = Some(now + GAP_DELAY);
        }
    }

    fn handle_behind(&mut self, behind: wire::Behind) {
        if behind.heads.is_empty() {
            self.sync.want_heads();
        }
        for head in behind.heads {
            if let Ok(id) = ConversationId::parse(&head.conversation) {
                self.inbox.handle_seen_head(id, head.seq.min(MAX_SEQ), &self.config);
            }
        }
        self.pull_now();
    }

    fn handle_go_away(&mut self, go_away: &wire::GoAway) {
        let delay = Duration::from_millis(go_away.reconnect_delay_ms.into()).min(MAX_RETRY_AFTER);
        self.reconnect_delay = Some(delay);
        self.going = Some(match Code::from_number(go_away.code.into()) {
            Some(Code::Ok) | None => Code::GoingAway,
            Some(code) => code,
        });
    }

    fn handle_error(&mut self, error: wire::Error, now: Instant) {
        if error.client_msg_id.is_empty() {
            let token = matches!(
                Code::from_number(error.code.into()),
                Some(Code::BadToken | Code::TokenExpired | Code::DeviceMismatch)
            );
            if token && self.state == State::Live {
                self.token.refresh_at = self.next_token_try(now);
            }
            let reason = types::describe(error.code.into(), &error.message);
            self.events.push(Event::Error { code: error.code, reason, retry: error.retry });
            return;
        }
        let Ok(id) = ClientMsgId::parse(&error.client_msg_id) else { return };
        let Some(tries) = self.outbox.tries(&id) else { return };
        if !error.retry {
            return self.reject(&id, error.code, &error.message);
        }
        let asked = Duration::from_millis(error.retry_after_ms.into()).min(MAX_RETRY_AFTER);
        let table = match Code::from_number(error.code.into()).map(Code::retry) {
            Some(Retry::After(delay)) if asked.is_zero() => delay,
            _ => asked,
        };
        let wait = table.max(backoff(REFUSED_BASE, tries, REFUSED_CAP));
        let retry_in = self.spread(wait);
        self.outbox.postpone(&id, now + retry_in);
        let reason = types::describe(error.code.into(), &error.message);
        self.events.push(Event::Postponed { id, code: error.code, reason, retry_in });
    }

    fn reject(&mut self, id: &ClientMsgId, code: u32, text: &str) {
        if self.settle(id).is_some() {
            let reason = types::describe(code.into(), text);
            self.events.push(Event::Rejected { id: id.clone(), code, reason });
        }
    }
}

fn write(out: &mut BytesMut, kind: client_frame::Kind) {
    frame::encode_into(&wire::ClientFrame { kind: Some(kind) }, out);
}

fn cursors(taken: Vec<(ConversationId, Seq)>) -> Vec<wire::Cursor> {
    let cursor = |(id, seq): (ConversationId, Seq)| wire::Cursor {
        conversation: Bytes::copy_from_slice(id.as_bytes()),
        seq,
    };
    taken.into_iter().map(cursor).collect()
}

/// What the gateway said, where it said something.
fn limits(told: wire::Limits) -> Limits {
    let or = |told: u32, default: usize| if told == 0 { default } else { told as usize };
    let frame_bytes = or(told.max_frame_bytes, DEFAULT_MAX_FRAME_BYTES).min(MAX_FRAME_BYTES);
    Limits {
        frame_bytes,
        payload_bytes: or(told.max_payload_bytes, DEFAULT_MAX_PAYLOAD_BYTES).min(frame_bytes),
        unacked_sends: or(told.max_unacked_sends, DEFAULT_MAX_UNACKED_SENDS as usize),
        bulk_streams: or(told.max_bulk_streams, DEFAULT_MAX_BULK_STREAMS as usize),
        entries: or(told.max_entries, DEFAULT_MAX_ENTRIES as usize),
    }
}
