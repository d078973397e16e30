//! Logging in: from the first frame to Welcome, and new tokens later.

use skein_protocol::cursor::Mark;
use skein_protocol::server::{Admission, Close, Hello};
use skein_protocol::{Code, DeviceId, UserId};
use skein_transport::{Io, StreamId};

use super::{Gateway, origin};
use crate::lane::{Command, CursorKind};
use crate::limits::Limit;
use crate::mail::Mail;
use crate::observe::{Sent, Stamp};
use crate::registry::Entered;
use crate::session::{Session, Who};

impl Gateway {
    pub(super) fn login(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
        hello: Hello,
    ) -> Result<(), Close> {
        if self.hub.is_draining() {
            return Err(Close::new(Code::GoingAway));
        }
        let hub = self.hub.clone();
        let now = hub.host.now();
        if let Some(address) = session.address {
            hub.throttle.may_log_in(address)?;
        }
        let identity = self.settings.verifier.verify(&hello.token, now);
        let known = identity.map_err(Close::new).and_then(|identity| {
            let device = device_of(hello.device, identity.device.clone())?;
            Ok((identity, device))
        });
        let (identity, device) = self.noting_failure(session, known)?;
        let number = self.enter(session, &identity.user, &device)?;
        tracing::debug!(
            conn = %session.conn, session = number, user = %identity.user, device = %device,
            platform = ?hello.platform, "logged in"
        );
        let admission = Admission {
            session: number,
            user: &identity.user,
            device: &device,
            server_time_ms: hub.host.now_ms(),
            store_epoch: hub.store.epoch(),
            token_expires_ms: identity.expires_ms,
        };
        let welcome = session.rules.accept(&self.settings.rules, &admission, io.now());
        self.answers.extend_from_slice(&welcome);
        self.figures.logins.add(1);
        self.figures.sent(Sent::Welcome);
        session.who = Some(Who { user: identity.user, device });
        self.arm(io, session);
        if hello.store_epoch == hub.store.epoch() {
            self.take_what_it_has(session, &hello.have);
        }
        // Requests that came with the Hello, in the same flight.
        let streams: Vec<StreamId> = session.bulk.iter().map(|bulk| bulk.stream).collect();
        streams.into_iter().try_for_each(|stream| self.read_bulk(io, session, stream))
    }

    /// Has failures of an address counted.
    fn noting_failure<T>(&self, session: &Session, login: Result<T, Close>) -> Result<T, Close> {
        if let (Err(close), Some(address)) = (&login, session.address) {
            self.hub.throttle.login_failed(address, close.code);
        }
        login
    }

    /// Lists the session as online; returns its number.
    fn enter(&self, session: &Session, user: &UserId, device: &DeviceId) -> Result<u64, Close> {
        let hub = &self.hub;
        let number = match hub.registry.enter(user, device, session.conn) {
            Entered::New => hub.admit().ok_or_else(|| {
                tracing::warn!(sessions = hub.sessions(), "full: a session is refused");
                hub.registry.leave(user, session.conn);
                hub.throttle.hit(Limit::Sessions);
                Close::new(Code::TooManySessions)
            }),
            // It takes the place of a session that leaves, so a full gateway takes it too.
            Entered::Replaced(older) => {
                hub.post(older, Mail::Close(older, Close::new(Code::Replaced)));
                Ok(hub.admit_replacement())
            }
            Entered::TooMany => {
                hub.throttle.hit(Limit::Devices);
                Err(Close::new(Code::TooManyDevices))
            }
        }?;
        // Now that it is listed: whoever shuts a user out goes by the list after that.
        if let Some(close) = hub.blocks.user(user, || hub.host.now()) {
            hub.registry.leave(user, session.conn);
            hub.dismiss();
            hub.throttle.hit(Limit::Blocked);
            return Err(close);
        }
        Ok(number)
    }

    fn take_what_it_has(&mut self, session: &Session, have: &[Mark]) {
        self.raise(session, CursorKind::Delivered, have);
        for mark in have {
            if let Some(origin) = origin(session, Stamp::default()) {
                self.commands.push((mark.conversation, Command::TellIfPast(origin, mark.seq)));
            }
        }
    }

    pub(super) fn refresh(
        &mut self,
        io: &mut Io<'_>,
        session: &mut Session,
        token: &str,
    ) -> Result<(), Close> {
        let (now, now_ms) = (self.hub.host.now(), self.hub.host.now_ms());
        let identity = self.settings.verifier.verify(token, now).map_err(Close::new);
        let identity = self.noting_failure(session, identity)?;
        let Some(who) = &session.who else {
            return Err(Close::new(Code::ProtocolViolation));
        };
        if identity.user != who.user {
            return Err(Close::because(Code::BadToken, "the token belongs to another user"));
        }
        if identity.device.is_some_and(|device| device != who.device) {
            return Err(Close::new(Code::DeviceMismatch));
        }
        let frame = session.rules.refresh(identity.expires_ms, now_ms, io.now());
        self.figures.sent(Sent::TokenRefreshed);
        self.answers.extend_from_slice(&frame);
        self.arm(io, session);
        Ok(())
    }
}

/// The device that the client names, unless the token proves another.
fn device_of(named: Option<DeviceId>, proven: Option<DeviceId>) -> Result<DeviceId, Close> {
    match (named, proven) {
        (Some(named), Some(proven)) if named != proven => Err(Close::new(Code::DeviceMismatch)),
        (named, proven) => named.or(proven).ok_or_else(|| Close::new(Code::DeviceMismatch)),
    }
}
