//! Starting and stopping the shards.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use mio::{Poll, Waker};
use quinn_proto::{EndpointConfig, ServerConfig, TransportConfig};

use crate::{
    Driver, EngineConfig, Mailbox, ShardStats,
    config::MAX_SHARDS,
    core::{Change, Core, CoreConfig, Dialing},
    crypto::{SlimServer, VERSION},
    mailbox::{Inbox, Stop},
    shard::{Shard, WAKER},
    stats::Counters,
    steer::{CidGenerator, bind_group, bind_one},
    udp::Socket,
};

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be bound; `AddrInUse` means that another process has the port.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS configuration does not do for QUIC.
    #[error("TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
    /// More than 256 shards.
    #[error("{0} shards are more than 256")]
    Shards(usize),
    /// A thread or a poll could not be made.
    #[error("cannot start a shard: {0}")]
    System(#[from] io::Error),
}

/// Why a stop was not clean.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// A shard did not end in time; its thread is left behind.
    #[error("shard {0} did not stop before the deadline")]
    Deadline(usize),
    /// A shard's driver panicked, or its socket failed.
    #[error("shard {0} failed: {1}")]
    Failed(usize, String),
}

/// A bound port whose shards do not run yet: drivers can be given the mailboxes of all shards.
pub struct Bound<M> {
    config: EngineConfig,
    local: SocketAddr,
    seats: Vec<Seat<M>>,
    kernel_steering: bool,
}

struct Seat<M> {
    socket: Socket,
    poll: Poll,
    inbox: Arc<Inbox<M>>,
    endpoint: Arc<EndpointConfig>,
}

/// The running shards.
pub struct Engine<M> {
    local: SocketAddr,
    inboxes: Vec<Arc<Inbox<M>>>,
    threads: Vec<thread::JoinHandle<io::Result<()>>>,
    kernel_steering: bool,
}

impl<M: Send + 'static> Engine<M> {
    /// Binds the port and starts the shards. `make` is called once on each shard's thread, with
    /// the shard's index; one at a time.
    pub fn start<D: Driver<Mail = M>>(
        config: EngineConfig,
        make: impl FnMut(usize) -> D + Send + 'static,
    ) -> Result<Self, StartError> {
        Self::bind(config)?.start(make)
    }

    /// Only binds; see [`Bound`].
    pub fn bind(config: EngineConfig) -> Result<Bound<M>, StartError> {
        Bound::new(config)
    }

    /// The address bound, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// One for each shard, by index.
    pub fn mailboxes(&self) -> Vec<Mailbox<M>> {
        self.inboxes.iter().cloned().map(Mailbox::new).collect()
    }

    /// The way to change limits and TLS while the shards run.
    pub fn control(&self) -> Control<M> {
        Control { inboxes: self.inboxes.clone() }
    }

    /// Counters, one set for each shard.
    pub fn stats(&self) -> Vec<ShardStats> {
        self.inboxes.iter().map(|inbox| inbox.counters.read()).collect()
    }

    /// Whether the kernel steers datagrams to shards; otherwise they hand them over.
    pub fn kernel_steering(&self) -> bool {
        self.kernel_steering
    }

    /// Whether every shard still runs.
    pub fn is_running(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Asks all shards to close their connections with this code and these words, and ends their
    /// threads. Returns when they have ended, or at the deadline.
    pub fn stop(mut self, code: u64, reason: &[u8], deadline: Duration) -> Result<(), StopError> {
        let deadline = Instant::now() + deadline;
        self.ask_to_stop(code, reason, deadline);
        let mut result = Ok(());
        for (index, thread) in std::mem::take(&mut self.threads).into_iter().enumerate() {
            // A grace for the last turn: a shard keeps the same deadline itself.
            let last = deadline + Duration::from_millis(500);
            while !thread.is_finished() && Instant::now() < last {
                thread::sleep(Duration::from_millis(1));
            }
            if !thread.is_finished() {
                result = Err(StopError::Deadline(index));
                continue;
            }
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => result = Err(StopError::Failed(index, error.to_string())),
                Err(_) => result = Err(StopError::Failed(index, "its thread panicked".into())),
            }
        }
        result
    }

    fn ask_to_stop(&self, code: u64, reason: &[u8], deadline: Instant) {
        for inbox in &self.inboxes {
            inbox.ask_to_stop(Stop { code, reason: reason.to_vec(), deadline });
        }
    }
}

/// Changes shards while they run. Outlives its engine, and then does nothing.
pub struct Control<M> {
    inboxes: Vec<Arc<Inbox<M>>>,
}

impl<M> Control<M> {
    /// Has every shard go by this configuration from its next turn on: TLS with its tickets, the
    /// secret of Retry tokens, `quic`, `limits` and `validation`. What was negotiated with
    /// connections that are there stays. Not changed are the address, the number of shards, the
    /// secrets of resets and connection ids, `limits.mailbox` and `limits.socket_buffer`.
    ///
    /// # Errors
    /// [`StartError::Tls`]; then nothing is changed.
    pub fn change(&self, config: &EngineConfig) -> Result<(), StartError> {
        let change = Change {
            server: server_config(config, &config.quic.transport_config())?,
            limits: config.limits.clone(),
            validation: config.validation,
            send_window: config.quic.send_window,
        };
        for inbox in &self.inboxes {
            inbox.ask_to_change(change.clone());
        }
        Ok(())
    }
}

/// An engine that is dropped stops, without waiting.
impl<M> Drop for Engine<M> {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        for inbox in &self.inboxes {
            inbox.ask_to_stop(Stop { code: 0, reason: Vec::new(), deadline });
        }
    }
}

impl<M: Send + 'static> Bound<M> {
    fn new(config: EngineConfig) -> Result<Self, StartError> {
        let shards = shard_count(&config)?;
        let buffer = config.limits.socket_buffer;
        let failed = |source| StartError::Bind { address: config.listen, source };
        let (sockets, kernel_steering) = match config.server {
            Some(_) => bind_group(config.listen, shards, config.kernel_steering, buffer),
            // Clients need no common port: each shard's socket gets its own answers.
            None => (0..shards)
                .map(|_| bind_one(config.listen, false, buffer))
                .collect::<io::Result<_>>()
                .map(|sockets| (sockets, false)),
        }
        .map_err(failed)?;
        let local = sockets[0].local_addr().map_err(failed)?;
        let mut seats = Vec::new();
        for (shard, socket) in sockets.into_iter().enumerate() {
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKER)?;
            seats.push(Seat {
                socket: Socket::new(socket)?,
                poll,
                inbox: Inbox::new(config.limits.mailbox, Some(waker), Arc::default()),
                endpoint: endpoint_config(&config, shard),
            });
        }
        Ok(Self { config, local, seats, kernel_steering })
    }

    /// The address bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// One for each shard, by index. What is sent before the start waits.
    pub fn mailboxes(&self) -> Vec<Mailbox<M>> {
        self.seats.iter().map(|seat| Mailbox::new(seat.inbox.clone())).collect()
    }

    /// Starts the threads, see [`Engine::start`].
    pub fn start<D: Driver<Mail = M>>(
        self,
        make: impl FnMut(usize) -> D + Send + 'static,
    ) -> Result<Engine<M>, StartError> {
        let transport = self.config.quic.transport_config();
        let server = server_config(&self.config, &transport)?;
        let client = client_config(&self.config, &transport);
        let inboxes: Vec<_> = self.seats.iter().map(|seat| seat.inbox.clone()).collect();
        let group: Arc<[_]> = match self.config.server {
            Some(_) => inboxes.clone().into(),
            None => Arc::new([]),
        };
        let make = Arc::new(Mutex::new(make));
        let mut threads = Vec::new();
        for (shard, seat) in self.seats.into_iter().enumerate() {
            let counters: Arc<Counters> = seat.inbox.counters.clone();
            let core = CoreConfig {
                shard,
                endpoint: seat.endpoint,
                server: server.clone(),
                client: client.clone(),
                limits: self.config.limits.clone(),
                validation: self.config.validation,
                gate: self.config.gate.clone(),
                send_window: self.config.quic.send_window,
                allow_mtud: !seat.socket.may_fragment(),
                map_v4: self.local.is_ipv6(),
                counters,
                seed: None,
            };
            let (make, group) = (make.clone(), group.clone());
            let (socket, poll, inbox) = (seat.socket, seat.poll, seat.inbox);
            let thread = thread::Builder::new().name(format!("shard-{shard}")).spawn(move || {
                let _seat = Leaving(inbox.clone());
                let driver = (make.lock().unwrap_or_else(PoisonError::into_inner))(shard);
                drop(make);
                let core = Core::new(core, Instant::now());
                Shard { core, driver, socket, poll, inbox, group }.run()
            });
            threads.push(thread?);
        }
        let kernel_steering = self.kernel_steering;
        Ok(Engine { local: self.local, inboxes, threads, kernel_steering })
    }
}

/// Says that a shard has ended, also when it panicked.
struct Leaving<M>(Arc<Inbox<M>>);

impl<M> Drop for Leaving<M> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn shard_count(config: &EngineConfig) -> Result<usize, StartError> {
    let processors = || thread::available_parallelism().map_or(1, usize::from);
    let shards = if config.shards == 0 { processors().min(MAX_SHARDS) } else { config.shards };
    if shards > MAX_SHARDS {
        return Err(StartError::Shards(shards));
    }
    // Elsewhere SO_REUSEPORT does not spread datagrams, or not by connection.
    Ok(if config.server.is_some() && !cfg!(target_os = "linux") { 1 } else { shards })
}

pub(crate) fn endpoint_config(config: &EngineConfig, shard: usize) -> Arc<EndpointConfig> {
    let mut endpoint = EndpointConfig::new(config.keys.reset_key());
    let (node, key) = (config.node, config.keys.cid_key());
    endpoint
        .supported_versions(vec![VERSION])
        .min_reset_interval(config.limits.min_reset_interval)
        .cid_generator(move || Box::new(CidGenerator::new(shard, node, key.clone())));
    Arc::new(endpoint)
}

pub(crate) fn server_config(
    config: &EngineConfig,
    transport: &Arc<TransportConfig>,
) -> Result<Option<Arc<ServerConfig>>, StartError> {
    let Some(tls) = &config.server else { return Ok(None) };
    let crypto = Arc::new(SlimServer::new(tls.config.clone())?);
    let mut server = ServerConfig::new(crypto, config.keys.token_key());
    // An attempt is judged as soon as it is there; none waits, so nothing is kept for them.
    server
        .transport_config(transport.clone())
        .max_incoming(64)
        .incoming_buffer_size(4 << 10)
        .incoming_buffer_size_total(64 << 10);
    // No tokens for later connections: a session ticket saves more, and needs no log of its uses.
    server.validation_token.sent(0).log(Arc::new(quinn_proto::NoneTokenLog));
    Ok(Some(Arc::new(server)))
}

pub(crate) fn client_config(
    config: &EngineConfig,
    transport: &Arc<TransportConfig>,
) -> Option<Dialing> {
    config.client.as_ref().map(|tls| Dialing::new(tls, transport.clone()))
}
