//! The shard's side of a [`Walk`].

use skein_transport::Io;

use super::Gateway;
use super::live::write_live;
use crate::observe::Sent;
use crate::session::Session;
use crate::walk::{Filter, Seen, Step, Tally, Walk, Work, part_of};

impl Gateway {
    pub(super) fn walk(&mut self, io: &mut Io<'_>, walk: Walk) {
        let Walk { from, places, which, work, answer } = walk;
        let end = from.saturating_add(places).min(self.sessions.len());
        let mut step = Step::default();
        let mut at = from;
        while at < end && !is_full(&step, &work) {
            if self.is_turn_of(at, &work) {
                self.visit(io, at, &which, &work, &mut step);
            }
            at += 1;
        }
        let is_one = which.conn.is_some();
        step.next = (at < self.sessions.len() && !is_one).then_some(at);
        // Who asked may have lost patience.
        let _ = answer.send(step);
    }

    fn is_turn_of(&self, place: usize, work: &Work) -> bool {
        match work {
            Work::SendAway { part, parts, .. } => {
                let place = place * self.hub.mailboxes().len() + self.shard;
                part_of(place, *parts) == *part
            }
            _ => true,
        }
    }

    fn visit(&mut self, io: &mut Io<'_>, at: usize, which: &Filter, work: &Work, step: &mut Step) {
        let Some(session) = self.sessions.get(at).and_then(Option::as_deref) else { return };
        if !is_meant(io, session, which) {
            return;
        }
        let conn = session.conn;
        let mut is_done = true;
        match work {
            Work::Count => {}
            Work::Look(_) => step.seen.extend(seen(io, session)),
            Work::Measure(measure) => {
                let outbox = io.outbox_bytes(conn);
                let value = io.stats(conn).map(|stats| (conn, measure.of(&stats, outbox)));
                step.measured.extend(value);
            }
            Work::Tally => step.tally.add(&tally(io, session)),
            Work::Close(close) => {
                let close = close.clone();
                self.with(io, conn, |_, _, _| Err(close));
            }
            Work::Say(frame) => self.with(io, conn, |gateway, io, session| {
                is_done = session.is_open && !gateway.is_over_push_limit(io, session, frame.len());
                if is_done {
                    gateway.figures.sent(Sent::Notice);
                    // There is room; and if not, it is only a notice.
                    let _ = write_live(io, session, frame.clone());
                }
                Ok(())
            }),
            Work::SendAway { reconnect_spread_ms, .. } => {
                self.with(io, conn, |gateway, io, session| {
                    gateway.send_away(io, session, *reconnect_spread_ms)
                })
            }
        }
        step.matched += usize::from(is_done);
    }
}

fn is_full(step: &Step, work: &Work) -> bool {
    matches!(work, Work::Look(most) if step.seen.len() >= *most)
}

fn is_meant(io: &Io<'_>, session: &Session, which: &Filter) -> bool {
    let Filter { user, device, network, conn, logged_in, idle_over, behind } = which;
    let who = session.who.as_ref();
    conn.is_none_or(|conn| conn == session.conn)
        && user.as_ref().is_none_or(|user| who.is_some_and(|who| who.user == *user))
        && device.as_ref().is_none_or(|device| who.is_some_and(|who| who.device == *device))
        && logged_in.is_none_or(|logged_in| logged_in == who.is_some())
        && idle_over.is_none_or(|least| session.rules.idle(io.now()) >= least)
        && behind.is_none_or(|behind| behind == session.behind.is_some())
        && network.is_none_or(|network| {
            io.remote_address(session.conn).is_some_and(|peer| network.contains(&peer.ip()))
        })
}

fn seen(io: &Io<'_>, session: &Session) -> Option<Seen> {
    let conn = session.conn;
    Some(Seen {
        conn,
        who: session.who.as_ref().map(|who| (who.user.clone(), who.device.clone())),
        idle: session.rules.idle(io.now()),
        stats: io.stats(conn)?,
        outbox_bytes: io.outbox_bytes(conn),
        behind: session.behind.is_some(),
        stuck: session.stuck_since.map(|since| io.now().saturating_duration_since(since)),
        bulk_streams: session.bulk.len(),
        unanswered: session.rules.unanswered(),
    })
}

fn tally(io: &Io<'_>, session: &Session) -> Tally {
    Tally {
        greeting: u64::from(session.who.is_none()),
        logged_in: u64::from(session.who.is_some()),
        behind: u64::from(session.behind.is_some()),
        stuck: u64::from(session.stuck_since.is_some()),
        bulk_streams: session.bulk.len() as u64,
        unanswered: session.rules.unanswered().into(),
        outbox_bytes: io.outbox_bytes(session.conn) as u64,
        longest_idle_ms: session.rules.idle(io.now()).as_millis() as u64,
    }
}
