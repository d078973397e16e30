//! Session tickets, each session its own.
//!
//! A device that comes back resumes with the ticket of its own last connection, which spares the
//! gateway a signature and both sides a certificate. A store that sessions share would give them each
//! other's tickets, and even first connections would be resumed ones; so each session has a store with
//! room for one ticket, and a first connection finds it empty.
//!
//! As in rustls' own stores a ticket is used once: it is gone when the attempt that took it fails, and
//! the next attempt is a whole handshake.
//!
//! Store and ticket cost some 1.1 KB a session, measured as a slope over 1,000 to 4,000 sessions (a good
//! part of it is the gateway's certificate, which rustls keeps with each). A run without tickets has
//! neither.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup};
use skein_transport::ClientTls;

/// The tickets of a shard's sessions.
#[derive(Debug)]
pub(super) struct Tickets {
    config: ClientConfig,
    /// By session. A session that was never connected has no store.
    stores: Vec<Option<Arc<OwnTicket>>>,
}

impl Tickets {
    pub(super) fn new(config: ClientConfig) -> Self {
        Self { config, stores: Vec::new() }
    }

    /// The configuration for the next connection of a session.
    pub(super) fn tls_of(&mut self, session: u32) -> ClientTls {
        let at = session as usize;
        if self.stores.len() <= at {
            self.stores.resize(at + 1, None);
        }
        let store = self.stores[at].get_or_insert_default().clone();
        let mut config = self.config.clone();
        config.resumption = Resumption::store(store);
        ClientTls::new(config)
    }

    /// The session is another device from now on.
    pub(super) fn forget(&mut self, session: u32) {
        if let Some(store) = self.stores.get_mut(session as usize) {
            *store = None;
        }
    }
}

/// The last ticket of one session.
#[derive(Debug, Default)]
struct OwnTicket(Mutex<Option<Box<Tls13ClientSessionValue>>>);

impl ClientSessionStore for OwnTicket {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        // There is only one group to choose.
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(value));
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let value = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        value.map(|value| *value)
    }
}
