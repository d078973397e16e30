//! Settings of a client, and its start.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use skein_protocol::client::{Client as Rules, Config, Start};
use skein_protocol::{DeviceId, UserId};
use tokio::sync::mpsc;

use crate::Client;
use crate::driver::Driver;
use crate::error::BuildError;
use crate::event::{Consumed, Events};
use crate::keeper::Keeper;
use crate::link::Dialer;
use crate::outbox::{FileOutbox, MemoryOutbox, Outbox};
use crate::positions::{FilePositions, MemoryPositions, Positions};
use crate::reconnect::Backoff;

/// UDP port of a gateway unless it is told otherwise.
pub const DEFAULT_PORT: u16 = 7843;

/// Commands that wait for the driver; `send` waits when there are more.
const MAX_COMMANDS: usize = 64;

/// Events that wait for the application beside those that the session rules hold.
const MAX_EVENTS: usize = 64;

/// First and longest bound of the wait before a reconnect.
const RECONNECT_BASE: Duration = Duration::from_millis(500);
const RECONNECT_CAP: Duration = Duration::from_secs(30);

type TokenFuture = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// Where tokens come from.
#[derive(Clone)]
pub(crate) enum TokenSource {
    Fixed(String),
    Asked(Arc<dyn Fn() -> TokenFuture + Send + Sync>),
}

impl TokenSource {
    pub(crate) async fn get(&self) -> Result<String, String> {
        match self {
            TokenSource::Fixed(token) => Ok(token.clone()),
            TokenSource::Asked(ask) => ask().await,
        }
    }

    /// Whether asking again may give another one.
    pub(crate) fn can_renew(&self) -> bool {
        matches!(self, TokenSource::Asked(_))
    }
}

/// Settings of a [`Client`]. Only a token is required.
pub struct Builder {
    server: String,
    server_name: Option<String>,
    ca: Option<Vec<u8>>,
    tokens: Option<TokenSource>,
    outbox: Box<dyn Outbox>,
    positions: Box<dyn Positions>,
    rules: Config,
    reconnect: (Duration, Duration),
}

impl Builder {
    pub(crate) fn new() -> Self {
        let platform = format!("{} skein/{}", std::env::consts::OS, env!("CARGO_PKG_VERSION"));
        Self {
            server: format!("127.0.0.1:{DEFAULT_PORT}"),
            server_name: None,
            ca: None,
            tokens: None,
            outbox: Box::new(MemoryOutbox),
            positions: Box::new(MemoryPositions),
            rules: Config { platform, ..Config::default() },
            reconnect: (RECONNECT_BASE, RECONNECT_CAP),
        }
    }

    /// The gateway, as `HOST:PORT`. Default: 127.0.0.1:7843.
    pub fn server(mut self, server: impl Into<String>) -> Self {
        self.server = server.into();
        self
    }

    /// The name that the gateway's certificate must carry. Default: the host of the server.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The certificate to trust, in PEM. Default: those that the system trusts.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// A token that does not change. When it expires the client stops.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.tokens = Some(TokenSource::Fixed(token.into()));
        self
    }

    /// Asks for a token before each connection, and before the running one's token expires.
    pub fn token_source<F, Fut, E>(mut self, source: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, E>> + Send + 'static,
        E: std::fmt::Display,
    {
        self.tokens = Some(TokenSource::Asked(Arc::new(move || {
            let asked = source();
            Box::pin(async move { asked.await.map_err(|error| error.to_string()) })
        })));
        self
    }

    /// Who the token is for. A gateway that says otherwise is left.
    pub fn user(mut self, user: UserId) -> Self {
        self.rules.user = Some(user);
        self
    }

    /// The name of this device, the same after every restart and another on every installation.
    /// Default: the one in the token.
    pub fn device(mut self, device: DeviceId) -> Self {
        self.rules.device = Some(device);
        self
    }

    /// Where messages wait until they are acknowledged. Default: in memory.
    pub fn outbox(mut self, outbox: impl Outbox) -> Self {
        self.outbox = Box::new(outbox);
        self
    }

    /// Where positions are remembered. Default: in memory.
    pub fn positions(mut self, positions: impl Positions) -> Self {
        self.positions = Box::new(positions);
        self
    }

    /// Keeps outbox and positions in files of this folder. It belongs to one user's device and to
    /// one process at a time.
    ///
    /// # Errors
    /// The folder cannot be used, or another process uses it.
    pub fn data_dir(self, dir: &Path) -> Result<Self, BuildError> {
        let outbox = FileOutbox::open(dir).map_err(BuildError::Storage)?;
        let positions = FilePositions::open(dir).map_err(BuildError::Storage)?;
        Ok(self.outbox(outbox).positions(positions))
    }

    /// Where a conversation begins that has no position. Default: after what the gateway knows to
    /// be delivered.
    pub fn start(mut self, start: Start) -> Self {
        self.rules.start = start;
        self
    }

    /// Bounds of the random wait before a reconnect: the first, and the longest. Default: 0.5 s
    /// and 30 s.
    pub fn reconnect(mut self, base: Duration, cap: Duration) -> Self {
        self.reconnect = (base, cap);
        self
    }

    /// The finer settings of the session rules.
    pub fn rules(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.rules);
        self
    }

    /// Starts the client and returns at once; [`Event::Connected`] tells when the gateway has
    /// welcomed it. Messages may be sent before.
    ///
    /// [`Event::Connected`]: crate::Event::Connected
    ///
    /// # Errors
    /// [`BuildError`]; nothing was started.
    pub async fn connect(self) -> Result<(Client, Events), BuildError> {
        let tokens = self.tokens.ok_or(BuildError::NoToken)?;
        let host = host_of(&self.server).ok_or_else(|| BuildError::Server(self.server.clone()))?;
        let name = self.server_name.unwrap_or_else(|| host.to_owned());
        let dialer = Dialer::new(self.server, name, roots(self.ca.as_deref())?)?;
        let (outbox, positions) = (self.outbox, self.positions);
        let started = tokio::task::spawn_blocking(move || Keeper::start(outbox, positions)).await;
        let (keeper, waiting, restored) = started
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(BuildError::Storage)?;

        let mut config = self.rules;
        config.seed = rand::random();
        let bounds = (config.max_outbox_entries, config.max_outbox_bytes);
        // What is on its way through the outbox is counted by the driver; and what waited before
        // is always taken.
        config.max_outbox_bytes = usize::MAX;
        config.max_outbox_entries = usize::MAX;
        let mut rules = Rules::new(config, restored, Instant::now());
        for message in waiting {
            if let Err(error) = rules.send(message.into_outgoing()) {
                return Err(BuildError::Storage(std::io::Error::other(error)));
            }
        }
        let (command_sender, commands) = mpsc::channel(MAX_COMMANDS);
        let (event_sender, queue) = mpsc::channel(MAX_EVENTS);
        let consumed = Arc::new(Consumed::default());
        let backoff = Backoff::new(self.reconnect.0, self.reconnect.1);
        let driver = Driver::new(
            rules,
            keeper,
            commands,
            event_sender,
            consumed.clone(),
            tokens,
            bounds,
            dialer,
            backoff,
        );
        let task = tokio::spawn(driver.run());
        let client =
            Client { commands: command_sender, task: Arc::new(std::sync::Mutex::new(Some(task))) };
        Ok((client, Events { queue, consumed, last: None }))
    }
}

fn host_of(server: &str) -> Option<&str> {
    let (host, port) = server.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some(host)
}

fn roots(ca: Option<&[u8]>) -> Result<rustls::RootCertStore, BuildError> {
    let mut roots = rustls::RootCertStore::empty();
    let Some(pem) = ca else {
        let (added, _) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            return Err(BuildError::Certificate("this system trusts none; name one".into()));
        }
        return Ok(roots);
    };
    let unusable = |error: &dyn std::fmt::Display| BuildError::Certificate(error.to_string());
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() {
        return Err(BuildError::Certificate("there is none in the PEM text".into()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        assert_eq!(host_of("localhost:7843"), Some("localhost"));
        assert_eq!(host_of("[::1]:7843"), Some("::1"));
        for wrong in ["localhost", ":7843", "a:b", "a:99999", ""] {
            assert_eq!(host_of(wrong), None, "{wrong}");
        }
    }
}
