//! The gateway as a process: shards, hub and background work, all gone when it is killed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use skein_gateway::auth::Verifier;
use skein_gateway::config::AuthConfig;
use skein_gateway::driver::Gateway;
use skein_gateway::hub::{Host, Hub, HubParts, TICK, ticks};
use skein_gateway::lane::LaneConfig;
use skein_gateway::limits::Throttle;
use skein_gateway::registry::Registry;
use skein_gateway::settings::{SessionLimits, Settings};
use skein_gateway::token::{Grant, Signer};
use skein_protocol::server::Rules;
use skein_protocol::{ALPN, UserId, wire};
use skein_storage::Store;
use skein_transport::sim::{Seat, SimShard};
use skein_transport::{ClientTls, EngineConfig, Keys, ServerTls, TlsOptions};

use crate::random::Random;

pub(crate) const SHARDS: usize = 2;
pub(crate) const MAX_PAYLOAD: usize = 3000;
/// Sends of one session without an answer.
const MAX_UNACKED: u32 = 4;

const LANES: usize = 2;
const LANE_BYTES: usize = 8000;

/// Bytes that may wait for the store in one gateway.
pub(crate) const MAX_WAITING_BYTES: usize = LANES * LANE_BYTES;

/// Where a gateway serves.
pub(crate) fn address(gateway: usize) -> SocketAddr {
    ([10, 0, 0, gateway as u8], 7843).into()
}

/// What outlives every process of a test: keys and certificates.
pub(crate) struct Setup {
    keys: Keys,
    server_tls: ServerTls,
    pub(crate) client_tls: ClientTls,
    signer: Signer,
    auth: AuthConfig,
    _dir: tempfile::TempDir,
}

pub(crate) fn setup() -> &'static Setup {
    static SETUP: OnceLock<Setup> = OnceLock::new();
    SETUP.get_or_init(|| {
        let keys = Keys::random();
        // Its signatures have one length, so that a seed always makes the same datagrams.
        let certificate_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let names = ["localhost".to_owned()];
        let made =
            rcgen::CertificateParams::new(names).unwrap().self_signed(&certificate_key).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.der().clone()).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certificate_key.serialize_der());
        let options = TlsOptions::default();
        let chain = vec![made.der().clone()];
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, [7; 32]).unwrap();
        Setup {
            server_tls: ServerTls::new(chain, key.into(), &[ALPN], &keys, &options).unwrap(),
            client_tls: ClientTls::with_roots(roots, &[ALPN], &options).unwrap(),
            keys,
            signer: Signer::from_file(&secret, None).unwrap(),
            auth: AuthConfig { key_file: Some(secret), ..AuthConfig::default() },
            _dir: dir,
        }
    })
}

/// Wall-clock time of the world.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn set(&self, since_start: Duration) {
        self.0.store(since_start.as_micros() as u64, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> SystemTime {
        let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        start + Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    /// A token that is good from now on, for so long.
    pub(crate) fn token(&self, user: &UserId, ttl: Duration) -> String {
        let grant =
            Grant { user, device: None, audience: "skein", issuer: None, issued: self.now(), ttl };
        setup().signer.sign(&grant).unwrap()
    }
}

/// Collects background work for [`Process::work`].
struct SimHost {
    clock: Arc<Clock>,
    spawned: Mutex<Vec<BoxFuture<'static, ()>>>,
}

impl Host for SimHost {
    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.spawned.lock().unwrap().push(work);
    }
}

pub(crate) struct Process {
    pub(crate) hub: Arc<Hub>,
    pub(crate) shards: Vec<Turned>,
    host: Arc<SimHost>,
    /// Background work, with the time at which it goes on.
    tasks: Vec<(Instant, BoxFuture<'static, ()>)>,
    random: Random,
    flush_at: Instant,
    tick_at: Instant,
}

/// A shard with what waits for it.
pub(crate) struct Turned {
    pub(crate) shard: SimShard<Gateway>,
    pub(crate) received: Vec<(SocketAddr, Vec<u8>)>,
    /// The operating system does not run its thread before this.
    pub(crate) stalled_until: Instant,
}

impl Turned {
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let due = if self.received.is_empty() { self.shard.next_deadline() } else { Some(now) };
        due.map(|at| at.max(self.stalled_until))
    }
}

/// How long a send waits for the store.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often cursors are written behind.
const FLUSH: Duration = Duration::from_millis(200);

impl Process {
    pub(crate) fn start(
        gateway: usize,
        store: Arc<dyn Store>,
        clock: Arc<Clock>,
        now: Instant,
        mut random: Random,
    ) -> Self {
        let config = engine_config(gateway, &mut random);
        let seats: Vec<_> = (0..SHARDS).map(|_| Seat::new(config.limits.mailbox)).collect();
        let host = Arc::new(SimHost { clock, spawned: Mutex::default() });
        // Sessions that wait for the shard's share send what they have in bursts.
        let shard_outbox_bytes = [1 << 20, 3 << 10][random.index(2)];
        let hub = Hub::new(HubParts {
            settings: Settings {
                rules: rules(),
                limits: SessionLimits {
                    max_sessions: 100,
                    push_bytes: config.limits.outbox_bytes / 4 * 3,
                    shard_outbox_bytes,
                    slow_consumer_timeout: Duration::from_secs(8),
                },
                verifier: Arc::new(Verifier::from_config(&setup().auth).unwrap()),
            },
            store,
            blocks: skein_gateway::blocks::Blocks::none(),
            registry: Registry::new(3),
            lanes: LANES,
            lane: LaneConfig {
                dedup_window: random.below(4) as usize,
                max_bytes: LANE_BYTES,
                max_waiting: 6,
                max_conversations: 2,
                max_unwritten: 100,
                max_loading: 4,
                patience: ticks(PATIENCE),
            },
            host: host.clone(),
            throttle: Throttle::off(),
            mailboxes: seats.iter().map(Seat::mailbox).collect(),
        });
        let mut seat_shard = |(index, seat)| {
            let driver = Gateway::new(hub.clone(), index);
            let shard = SimShard::new(&config, index, seat, driver, now, random.seed()).unwrap();
            Turned { shard, received: Vec::new(), stalled_until: now }
        };
        let shards = seats.into_iter().enumerate().map(&mut seat_shard).collect();
        let (flush_at, tick_at) = (now + FLUSH, now + TICK);
        Self { hub, shards, host, tasks: Vec::new(), random, flush_at, tick_at }
    }

    /// Other settings and bounds, any of which the gateway might have been started with.
    pub(crate) fn reload(&mut self) {
        let random = &mut self.random;
        let mut settings = Settings::clone(&self.hub.settings());
        settings.rules.limits.max_unacked_sends = 1 + random.below(MAX_UNACKED.into()) as u32;
        settings.rules.heartbeat_interval = Duration::from_secs(2 + random.below(8));
        settings.rules.hello_timeout = Duration::from_secs(3 + random.below(4));
        settings.limits.push_bytes = [4 << 10, 7 << 10][random.index(2)];
        settings.limits.shard_outbox_bytes = [1 << 20, 3 << 10][random.index(2)];
        settings.limits.slow_consumer_timeout = Duration::from_secs(4 + random.below(8));
        self.hub.change_settings(settings);
        self.hub.change_lanes(LANE_BYTES / (1 + random.index(2)), ticks(PATIENCE));
    }

    /// Background work that is due.
    pub(crate) fn work(&mut self, now: Instant) {
        if self.tick_at <= now {
            self.tick_at = now + TICK;
            self.hub.tick();
        }
        if self.flush_at <= now {
            self.flush_at = now + FLUSH;
            let hub = self.hub.clone();
            self.host.spawn(Box::pin(async move {
                // A store that fails is met again by the next one.
                let _ = hub.flush_cursors().await;
            }));
        }
        let mut at = 0;
        while at < self.tasks.len() {
            if self.tasks[at].0 > now {
                at += 1;
                continue;
            }
            let (_, mut task) = self.tasks.swap_remove(at);
            if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                self.schedule(now, task);
            }
        }
        let spawned = std::mem::take(&mut *self.host.spawned.lock().unwrap());
        for task in spawned {
            self.schedule(now, task);
        }
    }

    fn schedule(&mut self, now: Instant, task: BoxFuture<'static, ()>) {
        let most = if self.random.chance(5) { 400 } else { 6 };
        let at = now + Duration::from_micros(1) + self.random.millis(most);
        self.tasks.push((at, task));
    }

    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        if !self.host.spawned.lock().unwrap().is_empty() {
            return Some(now);
        }
        let tasks = self.tasks.iter().map(|&(at, _)| at);
        tasks
            .chain(self.shards.iter().filter_map(|shard| shard.due(now)))
            .chain([self.flush_at, self.tick_at])
            .min()
    }
}

fn rules() -> Rules {
    Rules {
        limits: wire::Limits {
            max_frame_bytes: 4096,
            max_payload_bytes: MAX_PAYLOAD as u32,
            max_unacked_sends: MAX_UNACKED,
            max_bulk_streams: 2,
            max_entries: 3,
        },
        heartbeat_interval: Duration::from_secs(8),
        hello_timeout: Duration::from_secs(6),
    }
}

fn engine_config(gateway: usize, random: &mut Random) -> EngineConfig {
    let setup = setup();
    let address = address(gateway);
    let mut config = EngineConfig::server(address, setup.server_tls.clone(), setup.keys.clone());
    config.shards = SHARDS;
    config.limits.max_connections = 200;
    config.limits.outbox_bytes = 10 << 10;
    config.limits.mailbox = [3, 8, 1000][random.index(3)];
    config.limits.handshake_timeout = Duration::from_secs(6);
    config.quic.max_bidi_streams = 4;
    config.quic.idle_timeout = Some(Duration::from_secs(26));
    config
}
