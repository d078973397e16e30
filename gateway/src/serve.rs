//! `skein serve`: opens the store, starts the shards, and at the end stops them in order.
//!
//! Stop, under one deadline: tell every client to go (GOAWAY with a reconnect delay of its own)
//! and take no new ones; wait until they have gone; close the rest; let what waits for the store
//! become durable; write cursors; close the store.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use skein_protocol::server::Rules;
use skein_protocol::{ALPN, Code, wire};
use skein_storage::Store;
use skein_transport::{
    AddressValidation, Bound, Engine, EngineConfig, Keys, KeysError, Mailbox, ServerTls,
    StartError, TlsOptions,
};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::admin::{self, Admin};
use crate::auth::Verifier;
use crate::blocks::{Blocks, BlocksError};
use crate::config::{Config, StoreKind};
use crate::credentials::Credentials;
use crate::driver::Gateway;
use crate::format;
use crate::hub::{Host, Hub, HubParts, TICK, ticks};
use crate::lane::LaneConfig;
use crate::launch::{Launch, Serving};
use crate::limits::{LimitClock, Throttle};
use crate::mail::{Drain, Mail};
use crate::notify;
use crate::observe::{self, Endpoint, Flood, Tracer};
use crate::open::{self, FolderLock, OpenStoreError};
use crate::registry::Registry;
use crate::reload::{self, Reload};
use crate::settings::{SessionLimits, Settings};
use crate::tls::Certificates;

/// Threads that wait for the store's reads; an embedded store has threads of its own beside them.
const IO_THREADS: usize = 2;

/// The driver of a cluster does all its work on these threads: it gets one for each core.
fn io_threads(store: StoreKind) -> usize {
    match store {
        StoreKind::Embedded => IO_THREADS,
        StoreKind::Scylla => {
            std::thread::available_parallelism().map_or(IO_THREADS, usize::from).max(IO_THREADS)
        }
    }
}

/// How often cursors are written behind.
const CURSOR_FLUSH: Duration = Duration::from_millis(250);

/// How long cursors wait after the store has refused them.
const CURSOR_RETRY: Duration = Duration::from_secs(1);

/// Time that the store has at least to close, however short the deadline is.
const LEAST_CLOSE: Duration = Duration::from_millis(500);

/// Time that the last traces have to reach the collector, beyond the deadline.
const LAST_TRACES: Duration = Duration::from_millis(500);

/// How often the drain looks whether everybody has gone.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// Mail that may wait for one shard. At 100 bytes an item and beside the frames, which are
/// shared, this is 26 MB; a shard that is this far behind has lost a second.
const MAILBOX: usize = 262_144;

/// Conversations in memory, over all lanes: 1 - 10 KB each.
const MAX_CONVERSATIONS: usize = 131_072;

/// Conversations on their way from the store, over all lanes.
const MAX_LOADING: usize = 8_192;

/// Messages of one conversation that may wait for the store.
const MAX_WAITING: usize = 1_024;

/// Why the gateway does not serve. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    /// The keys of the transport cannot be read or made.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The data folder belongs to a newer version.
    #[error(transparent)]
    Format(#[from] format::FormatError),
    /// The list of those who are shut out cannot be read.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// The certificate cannot be used.
    #[error("the certificate cannot be used: {0}")]
    Certificate(rustls::Error),
    /// The address of the admin listener cannot be bound.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The address cannot be bound, or threads cannot be started.
    #[error(transparent)]
    Engine(#[from] StartError),
    /// The system gives no threads.
    #[error("the background threads cannot be started: {0}")]
    Runtime(#[from] std::io::Error),
    /// The stop came, and the store took too long.
    #[error(
        "stopped at drain.deadline before the store was closed; nothing that was acknowledged is \
         lost"
    )]
    Deadline,
    /// The stop came, but something could not be finished.
    #[error("stopped, but the store did not close cleanly: {0}")]
    Close(skein_storage::StoreError),
}

/// Serves until the launch's stop is requested.
///
/// # Errors
/// See [`ServeError`].
pub fn run(launch: Launch) -> Result<(), ServeError> {
    let Launch { config, credentials, source, hangups, log_level, stop, ready } = launch;
    let Credentials { certificates, verifier, tickets, admin_token, .. } = credentials;
    let _lock = FolderLock::take(&config.data)?;
    format::claim(&config.data)?;
    let admin = config.admin.listen.map(admin::Listener::bind).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(io_threads(config.store.kind))
        .thread_name("skein-io")
        .enable_all()
        .build()?;
    let opened = runtime.block_on(async {
        tokio::select! {
            opened = open::open(&config) => opened.map(Some),
            // Before anything is served there is nothing to stop.
            () = stop.requested() => Ok(None),
        }
    });
    let Some(store) = opened? else {
        runtime.shutdown_background();
        tracing::info!("stopped before the store was open");
        return Ok(());
    };
    let keys = Keys::load_or_create(config.data.join("transport.keys"))?;
    let certificates = Certificates::new(certificates);
    let throttle = Throttle::new(&config.limits, LimitClock::machine());
    let mut engine = engine_config(&config, certificates.clone(), &keys, tickets.as_ref())
        .map_err(ServeError::Certificate)?;
    engine.gate = Some(throttle.clone());
    let bound: Bound<Mail> = Engine::bind(engine)?;
    let host = Arc::new(SystemHost { handle: runtime.handle().clone() });
    let blocks = Blocks::open(&config.data)?;
    let parts = parts(&config, verifier, store.clone(), throttle, host, blocks, bound.mailboxes());
    let hub = Hub::new(parts);
    let engine = {
        let hub = hub.clone();
        bound.start(move |shard| Gateway::new(hub.clone(), shard))?
    };
    let reload = Reload::new(reload::Parts {
        source,
        config: config.clone(),
        hub: hub.clone(),
        shards: engine.control(),
        keys,
        certificates,
        admin_token,
        log_level,
    });
    runtime.spawn(reload::on_hangups(hangups, reload.clone()));
    runtime.spawn(reload::watch_certificates(reload.clone()));
    runtime.spawn(Flood::of_this_process().tell());
    let traces = start_tracing(&config, &hub, &runtime);
    runtime.spawn(flush_cursors(hub.clone()));
    runtime.spawn(tick(hub.clone()));
    let serving = Serving {
        clients: engine.local_addr(),
        admin: admin.as_ref().map(admin::Listener::address),
    };
    if let Some(listener) = admin {
        let clients = serving.clients;
        let admin = Admin::new(hub.clone(), config.clone(), reload.clone(), clients);
        listener.serve(runtime.handle(), admin);
    }
    tracing::info!(address = %serving.clients, "serving");
    ready.serves(serving);
    notify::ready();
    runtime.spawn(notify::watchdog(hub.clone()));
    let stopped = runtime.block_on(async {
        stop.requested().await;
        let config = reload.config();
        notify::stopping(config.drain.deadline);
        drain(&config, &hub, engine, &*store).await
    });
    if let Some((end, exported)) = traces {
        let _ = end.send(());
        // The last traces; a collector that does not answer must not hold the process up.
        let _ = runtime.block_on(async { tokio::time::timeout(LAST_TRACES, exported).await });
    }
    // A read that hangs must not hold the process up.
    runtime.shutdown_background();
    if stopped.is_err() {
        // Nor must a store that does: dropping it waits for its threads.
        std::mem::forget(store);
    }
    stopped
}

/// What the shards are told. `tickets` has the secret that is shared with other gateways.
///
/// # Errors
/// rustls does not take what it is given.
pub(crate) fn engine_config(
    config: &Config,
    certificates: Arc<Certificates>,
    keys: &Keys,
    tickets: Option<&Keys>,
) -> Result<EngineConfig, rustls::Error> {
    let keys = match tickets {
        Some(shared) => keys.clone().with_tickets_of(shared),
        None => keys.clone(),
    };
    let tls = ServerTls::with_resolver(certificates, &[ALPN], &keys, &TlsOptions::default())?;
    let shards = match config.shards as usize {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        shards => shards,
    };
    let mut engine = EngineConfig::server(config.listen, tls, keys);
    engine.shards = shards;
    // Connections that have not logged in yet have room beside the sessions.
    engine.limits.max_connections =
        (config.limits.max_sessions + config.limits.max_handshakes).div_ceil(shards) * 5 / 4;
    engine.limits.max_handshakes = config.limits.max_handshakes.div_ceil(shards);
    // From half of them on a client must prove its address first, so that whoever sends from
    // addresses that are not its own can fill that half alone.
    let unproven = engine.limits.max_handshakes / 2;
    engine.validation = AddressValidation::UnderPressure(unproven.min(UNPROVEN_HANDSHAKES));
    engine.limits.outbox_bytes = config.limits.outbox_bytes;
    engine.limits.mailbox = MAILBOX;
    engine.limits.handshake_timeout = config.session.hello_timeout;
    // The live stream, the bulk streams, and one that is just ending.
    engine.quic.max_bidi_streams = config.limits.max_bulk_streams + 2;
    // The heartbeat evicts first; this is for what is not a session yet.
    engine.quic.idle_timeout = Some(2 * config.session.heartbeat_interval + IDLE_SLACK);
    Ok(engine)
}

/// Handshakes in progress on a shard, about 20 KB each, from which on addresses are checked
/// although there is room for more.
const UNPROVEN_HANDSHAKES: usize = 256;

/// Added to two heartbeat intervals, so that QUIC never gives up before the heartbeat does.
const IDLE_SLACK: Duration = Duration::from_secs(10);

fn parts(
    config: &Config,
    verifier: Arc<Verifier>,
    store: Arc<dyn Store>,
    throttle: Arc<Throttle>,
    host: Arc<dyn Host>,
    blocks: Arc<Blocks>,
    mailboxes: Vec<Mailbox<Mail>>,
) -> HubParts {
    let lanes = config.lanes as usize;
    HubParts {
        settings: settings(config, verifier, mailboxes.len()),
        store,
        blocks,
        registry: Registry::new(config.limits.max_devices_per_user),
        lanes,
        lane: LaneConfig {
            dedup_window: config.dedup_window as usize,
            max_bytes: config.limits.lane_bytes.div_ceil(lanes),
            max_waiting: MAX_WAITING,
            max_conversations: MAX_CONVERSATIONS.div_ceil(lanes),
            max_unwritten: MAX_CONVERSATIONS.div_ceil(lanes),
            max_loading: MAX_LOADING.div_ceil(lanes),
            patience: ticks(config.store.patience),
        },
        throttle,
        host,
        mailboxes,
    }
}

/// What sessions are held to.
pub(crate) fn settings(config: &Config, verifier: Arc<Verifier>, shards: usize) -> Settings {
    let limits = SessionLimits {
        max_sessions: config.limits.max_sessions,
        push_bytes: config.limits.outbox_bytes / 4 * 3,
        shard_outbox_bytes: config.limits.outbox_total_bytes / shards.max(1),
        slow_consumer_timeout: config.session.slow_consumer_timeout,
    };
    Settings { rules: rules(config), limits, verifier }
}

fn rules(config: &Config) -> Rules {
    Rules {
        limits: wire::Limits {
            max_frame_bytes: config.limits.max_frame_bytes as u32,
            max_payload_bytes: config.limits.max_payload_bytes as u32,
            max_unacked_sends: config.limits.max_unacked_sends,
            max_bulk_streams: config.limits.max_bulk_streams,
            max_entries: config.limits.max_entries,
        },
        heartbeat_interval: config.session.heartbeat_interval,
        hello_timeout: config.session.hello_timeout,
    }
}

/// Follows messages, if the configuration says where traces go. Returns what ends it, and what then
/// resolves when the last of them are sent.
fn start_tracing(
    config: &Config,
    hub: &Hub,
    runtime: &tokio::runtime::Runtime,
) -> Option<(oneshot::Sender<()>, tokio::task::JoinHandle<()>)> {
    let endpoint = Endpoint::parse(config.trace.endpoint.as_deref()?)?;
    let tracer = Tracer::new(config.trace.one_in);
    hub.trace_with(tracer.clone());
    let (end, ended) = oneshot::channel();
    let exported = runtime.spawn(observe::export(tracer, endpoint, async {
        let _ = ended.await;
    }));
    Some((end, exported))
}

async fn tick(hub: Arc<Hub>) {
    let mut tick = tokio::time::interval(TICK);
    // A machine that was asleep is not the store's delay.
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        hub.tick();
    }
}

async fn flush_cursors(hub: Arc<Hub>) {
    let mut tick = tokio::time::interval(CURSOR_FLUSH);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = hub.flush_cursors().await {
            // They stay in memory and are tried again; the store says why it failed.
            tracing::debug!(%error, "cursors were not written");
            tokio::time::sleep(CURSOR_RETRY).await;
        }
    }
}

async fn drain(
    config: &Config,
    hub: &Hub,
    engine: Engine<Mail>,
    store: &dyn Store,
) -> Result<(), ServeError> {
    let deadline = Instant::now() + config.drain.deadline;
    let left = || deadline.saturating_duration_since(Instant::now());
    let spread = config.drain.reconnect_delay.as_millis();
    let reconnect_spread_ms = spread.try_into().unwrap_or(u32::MAX);
    tracing::info!(sessions = hub.sessions(), "draining");
    hub.drain(Drain { reconnect_spread_ms });
    // A share of what is left for each step, so that the store always has time to close.
    wait_until(|| hub.sessions() == 0, left() / 2).await;
    wait_until(|| hub.waiting_bytes() == 0, left() / 2).await;
    let code = Code::GoingAway;
    if let Err(error) = engine.stop(code.number().into(), code.text().as_bytes(), left() / 2) {
        tracing::warn!(%error, "the shards did not stop in time");
    }
    let closing = async {
        if let Err(error) = hub.flush_cursors().await {
            tracing::debug!(%error, "the last cursors were not written");
        }
        store.close().await.map_err(ServeError::Close)
    };
    let closed = tokio::time::timeout(left().max(LEAST_CLOSE), closing).await;
    closed.map_err(|_| ServeError::Deadline)??;
    tracing::info!("stopped");
    Ok(())
}

async fn wait_until(done: impl Fn() -> bool, at_most: Duration) {
    let until = Instant::now() + at_most;
    while !done() && Instant::now() < until {
        tokio::time::sleep(DRAIN_STEP).await;
    }
}

/// The machine's clock and tokio.
struct SystemHost {
    handle: Handle,
}

impl Host for SystemHost {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.handle.spawn(work);
    }
}
