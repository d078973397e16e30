//! Bulk streams: one request each, answered page by page.

use skein_protocol::Code;
use skein_protocol::server::{Close, bulk_request};
use skein_protocol::wire;
use skein_transport::{ConnId, Io, Read, StreamId, VarInt, WriteError};

use super::Gateway;
use crate::bulk::{Job, Page, refused_page, refused_page_until};
use crate::mail::Mail;
use crate::observe::{Received, Sent};
use crate::session::{BulkState, Session};

impl Gateway {
    pub(super) fn read_bulk(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
        stream: StreamId,
    ) -> Result<(), Close> {
        let settings = self.settings.clone();
        let Some(who) = session.who.clone() else {
            // Left unread until the login; flow control bounds it.
            return Ok(());
        };
        let conn = session.conn;
        let Some(place) = session.bulk.iter().position(|bulk| bulk.stream == stream) else {
            return Ok(());
        };
        let BulkState::Asking(decoder) = &mut session.bulk[place].state else {
            // One request a stream: anything after it is not read.
            return Ok(());
        };
        let max = settings.rules.limits.max_frame_bytes as usize;
        let frame = loop {
            match io.read(conn, stream) {
                Read::Chunk(chunk) => decoder.push(chunk),
                Read::Blocked => return Ok(()),
                Read::Fin => {
                    let reason = "a bulk stream ended before its request";
                    return Err(Close::because(Code::MalformedFrame, reason));
                }
                Read::Reset(_) => {
                    session.bulk.swap_remove(place);
                    io.reset(conn, stream, VarInt::from_u32(0));
                    return Ok(());
                }
            }
            let frame = decoder.poll::<wire::ClientFrame>(max);
            match frame.map_err(|error| Close::because(error.code(), error.to_string()))? {
                Some(frame) => break frame,
                None => continue,
            }
        };
        session.rules.heard(io.now());
        self.figures.received(Received::Sync);
        match bulk_request(frame, &settings.rules)? {
            Some(request) => {
                if let Err(early) = self.hub.throttle.sync(&who.user) {
                    session.bulk[place].state = BulkState::Working;
                    let page = refused_page_until(early.code, Some(early.retry_after));
                    self.write_page(io, session, stream, page);
                    return Ok(());
                }
                self.go_on(io, session, stream, Job::new(who.user, request));
            }
            None => {
                session.bulk[place].state = BulkState::Working;
                self.write_page(io, session, stream, refused_page(Code::InvalidArgument));
            }
        }
        Ok(())
    }

    /// Has the next page of a stream read, now or when there is room for it.
    pub(super) fn go_on(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        stream: StreamId,
        job: Box<Job>,
    ) {
        let conn = session.conn;
        let is_room = io.outbox_bytes(conn) < self.settings.limits.push_bytes / 2
            && !self.is_crowded_out(io, session);
        let Some(bulk) = session.bulk.iter_mut().find(|bulk| bulk.stream == stream) else {
            return;
        };
        if is_room {
            bulk.state = BulkState::Working;
            self.spawn_page(conn, stream, job);
        } else {
            bulk.state = BulkState::Paused(job);
            self.wait_for_room(io, session);
        }
    }

    fn spawn_page(&self, conn: ConnId, stream: StreamId, job: Box<Job>) {
        let hub = self.hub.clone();
        self.hub.host.spawn(Box::pin(async move {
            let page = job.next_page(&hub).await;
            hub.post(conn, Mail::Page(conn, stream, page));
        }));
    }

    /// Writes a page if there is room for it, and goes on with the next.
    pub(super) fn write_page(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
        stream: StreamId,
        page: Page,
    ) {
        let Some(place) = session.bulk.iter().position(|bulk| bulk.stream == stream) else {
            return;
        };
        let conn = session.conn;
        match io.write(conn, stream, page.frame.clone()) {
            Ok(()) => self.figures.sent(Sent::Page),
            Err(WriteError::Full) => {
                session.bulk[place].state = BulkState::Full(page);
                self.wait_for_room(io, session);
                return;
            }
            Err(WriteError::Closed) => {
                io.stop_sending(conn, stream, VarInt::from_u32(0));
                session.bulk.swap_remove(place);
                return;
            }
        }
        let Some(rest) = page.rest else {
            // Nothing more is expected from the client either.
            io.stop_sending(conn, stream, VarInt::from_u32(0));
            // Fails only if the client has given the stream up.
            let _ = io.finish(conn, stream);
            session.bulk.swap_remove(place);
            return;
        };
        self.go_on(io, session, stream, rest);
    }
}

/// Ends the bulk streams whose next page may never come; the client asks again.
pub(super) fn give_up_pages(io: &mut Io<'_>, session: &mut Session) {
    let conn = session.conn;
    let code = VarInt::from_u32(Code::Overloaded.number());
    session.bulk.retain(|bulk| {
        let waits = matches!(bulk.state, BulkState::Working);
        if waits {
            io.stop_sending(conn, bulk.stream, code);
            io.reset(conn, bulk.stream, code);
        }
        !waits
    });
}
