//! The data plane: real sessions of the real protocol, as many as memory holds.
//!
//! One thread a shard; each has its own socket, its sessions, its part of the timetable and its
//! books, and nothing of that is shared:
//!
//! ```text
//! Order -> mailbox -> shard.rs  on_tick: timetable -> traffic.rs (write)
//!                               datagrams -> receive.rs (verify, record), bulk.rs (pull, sync)
//!                               connect.rs (handshake, login), life.rs (heartbeat, loss, return),
//!                               storm.rs (all of them at once), settle.rs (what is missing at the
//!                               end is asked for)
//!                     book.rs -> Report, once a second -> run.rs
//! ```

mod book;
mod bulk;
mod connect;
mod layout;
mod life;
mod orders;
mod receive;
mod session;
mod settle;
mod shard;
mod storm;
mod tickets;
mod traffic;
mod wire;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use skein_protocol::ALPN;
use skein_transport::{ClientTls, Engine, EngineConfig, Mailbox, StartError, TlsOptions};

pub(crate) use book::{Report, Tally};

use crate::clock::Nanos;
use crate::identity::{IdentityError, Mint, Token, Users};
use crate::operation::Failure;
use crate::plan::{Plan, Trust};
use layout::{Place, Tables};
use shard::Shard;
use tickets::Tickets;

/// Connections beyond the sessions, a shard: those that end take a moment to do so.
const SPARE_CONNECTIONS: usize = 1 << 20;

/// Threads that make tokens.
const TOKEN_THREADS: usize = 2;

/// Why no load can be made.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// No certificate is trusted, or one that is named is none.
    #[error("the certificates to trust cannot be used: {0}")]
    Trust(String),
    /// Tokens cannot be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Sockets or threads could not be had.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is nowhere to send anything.
    #[error("the target has no address")]
    NoAddress,
}

/// What the shards are told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Log the first session in and out again, and say how it went.
    Probe(SyncSender<Result<Room, Probe>>),
    /// The run begins now: seconds count from here.
    Begin(Nanos),
    /// Tokens that were asked for.
    Tokens(Vec<Token>),
    /// Make this part of each fleet's sessions, 0 to 1.
    Ramp(f64),
    /// Give up on sessions of the ramp that are not there.
    EndRamp,
    /// Write the backlogs.
    Fill,
    /// The load begins.
    Load(Nanos),
    /// What is due in between is measured.
    Window(std::ops::Range<Nanos>),
    /// From then on a fleet writes so many messages a second, all shards together.
    Rate { fleet: usize, per_second: f64, from: Nanos },
    /// Nothing new.
    Quiet,
    /// A fleet's sessions are lost now.
    Cut { fleet: usize, how: CutHow },
    /// They may come back.
    Return { fleet: usize, from: Nanos },
    /// Write nothing any more, and ask for what was acknowledged and has not come.
    Settle,
    /// The end: close the books and say so.
    Finish,
}

/// What the shards do about a storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutHow {
    /// Close every session and wait to be told to return.
    Close,
    /// Sessions will end by themselves, and come back as they are told to.
    Expect,
}

/// Longest messages that the target takes, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// A payload.
    pub payload: usize,
    /// A frame without its length prefix.
    pub frame: usize,
}

impl Room {
    /// The longest payload that fits, with the longest names and ids that a message can have.
    pub(crate) fn longest_payload(self) -> usize {
        let envelope = |payload: usize| wire::SendFrame::longest(payload) - payload;
        self.payload.min(self.frame.saturating_sub(envelope(self.frame)))
    }
}

/// Why the first session was not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// The failure.
    pub failure: Failure,
    /// During the login, not the handshake.
    pub in_login: bool,
    /// In the target's own words, if it said any.
    pub words: String,
}

impl Probe {
    /// Nobody has answered.
    pub(crate) fn silent() -> Self {
        Self { failure: Failure::TimedOut, in_login: false, words: String::new() }
    }
}

/// The running shards.
pub(crate) struct Swarm {
    engine: Engine<Order>,
    mailboxes: Vec<Mailbox<Order>>,
    tables: Arc<AtomicU64>,
}

impl Swarm {
    /// Starts shards with everything laid out and nothing begun. Their reports come through the
    /// receiver, one a second each.
    pub(crate) fn start(plan: &Arc<Plan>) -> Result<(Self, Receiver<Report>), SwarmError> {
        if plan.target.addresses.is_empty() {
            return Err(SwarmError::NoAddress);
        }
        let tls = client_tls(roots(&plan.target.trust)?)
            .map_err(|error| SwarmError::Trust(error.to_string()))?;
        let own_tickets = plan.tickets.then(|| tls.clone());
        let tls = ClientTls::new(tls);
        let any: std::net::SocketAddr = match plan.target.addresses[0] {
            std::net::SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            std::net::SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let mut config = EngineConfig::client(any, tls);
        config.shards = match plan.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            shards => shards,
        };
        let shards = config.shards;
        config.limits.max_connections = plan.all_sessions() as usize + SPARE_CONNECTIONS;
        config.limits.handshake_timeout = plan.answer_timeout;
        // The gateway offers what it wants; a client of its own would only add a second rule.
        config.quic.idle_timeout = None;
        config.quic.max_bidi_streams = 0;

        let bound = Engine::bind(config)?;
        let mailboxes = bound.mailboxes();
        let to: Arc<OnceLock<Vec<Mailbox<Order>>>> = Arc::new(OnceLock::from(mailboxes.clone()));
        let deliver = move |shard: usize, tokens: Vec<Token>| {
            let Some(mailbox) = to.get().and_then(|all| all.get(shard)) else { return };
            send(mailbox, Order::Tokens(tokens));
        };
        let (mint, users) = Mint::start(&plan.identity, plan.users(), TOKEN_THREADS, deliver)?;
        let (reports, receiver) = channel();
        let mark: u64 = rand::random();
        let laid_out = Arc::new(AtomicU64::new(0));
        let make = {
            let plan = plan.clone();
            let laid_out = laid_out.clone();
            move |shard| {
                let place = Place { shard, shards };
                let tables = Tables::lay_out(&plan, place, users.are_new());
                laid_out.fetch_add(tables.bytes(), Ordering::Relaxed);
                let context = Context {
                    plan: plan.clone(),
                    users: users.clone(),
                    mint: mint.clone(),
                    reports: reports.clone(),
                    mark,
                    place,
                };
                let tickets = own_tickets.clone().map(Tickets::new);
                Shard::new(context, tables, tickets)
            }
        };
        let engine = bound.start(make)?;
        Ok((Self { engine, mailboxes, tables: laid_out }, receiver))
    }

    /// Number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.mailboxes.len()
    }

    /// Bytes of the tables that are there from the beginning, for all sessions of the plan.
    pub(crate) fn table_bytes(&self) -> u64 {
        self.tables.load(Ordering::Relaxed)
    }

    /// Tells all shards.
    pub(crate) fn tell(&self, order: impl Fn() -> Order) {
        self.mailboxes.iter().for_each(|mailbox| send(mailbox, order()));
    }

    /// Logs one session in and out. The receiver hears what a message may be, as the target says.
    pub(crate) fn probe(&self) -> Receiver<Result<Room, Probe>> {
        let (sender, answer) = sync_channel(1);
        send(&self.mailboxes[0], Order::Probe(sender));
        answer
    }

    /// Whether all shards run.
    pub(crate) fn is_running(&self) -> bool {
        self.engine.is_running()
    }

    /// Ends all connections.
    pub(crate) fn stop(self) -> Result<(), skein_transport::StopError> {
        self.engine.stop(0, b"", Duration::from_secs(5))
    }
}

/// What every part of a shard needs to know.
struct Context {
    plan: Arc<Plan>,
    users: Arc<Users>,
    mint: Mint,
    reports: std::sync::mpsc::Sender<Report>,
    /// In every message and id of this run and process.
    mark: u64,
    place: Place,
}

/// A mailbox of 65,536 is only full for a moment, when as many tokens are on their way.
fn send(mailbox: &Mailbox<Order>, order: Order) {
    let mut order = order;
    while let Err(skein_transport::MailboxFull(back)) = mailbox.send(order) {
        order = back;
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Without resumption: sessions would take each other's tickets, which real devices cannot, and a
/// connection would cost the target half of what a newcomer's does. See [`tickets`].
fn client_tls(roots: RootCertStore) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = skein_transport::provider(&TlsOptions::default());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn roots(trust: &Trust) -> Result<RootCertStore, SwarmError> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::System => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Trust::Pem(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let added = certificate
                    .map_err(|error| error.to_string())
                    .and_then(|one| roots.add(one).map_err(|error| error.to_string()));
                added.map_err(SwarmError::Trust)?;
            }
        }
    }
    if roots.is_empty() {
        return Err(SwarmError::Trust("there is none".into()));
    }
    Ok(roots)
}
