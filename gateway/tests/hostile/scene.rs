//! The stage of every attack: a gateway on a folder of its own, two bystanders who chat, and how
//! long each of their messages takes.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use skein_protocol::wire::server_frame;
use skein_protocol::{ALPN, Code, ConversationId, UserId};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

use crate::support::http::metric;
use crate::support::process::{Gateway, Options};
use crate::support::raw::{PATIENCE, Raw, endpoint_at, endpoint_of, tls};

/// What an attack may make the gateway's memory grow by unless it stores much: caches and buffers
/// of the store and of the allocator, several times over.
pub const SMALL: u64 = 16 << 20;

/// One attack at a time: two of them would disturb each other's bystanders.
static STAGE: Mutex<()> = Mutex::const_new(());

/// A gateway under attack, and a quiet one beside it that shows how fast the machine is meanwhile.
pub struct Scene {
    pub gateway: Gateway,
    /// Bytes resident when the attack begins.
    before: Option<u64>,
    bystanders: Bystanders,
    others: Bystanders,
    _quiet: Gateway,
    /// Dropped last.
    _data: [TempDir; 2],
    _stage: MutexGuard<'static, ()>,
}

impl Scene {
    /// A gateway with these settings.
    pub async fn start(options: Options) -> Self {
        let stage = STAGE.lock().await;
        let data = [folder(), folder()];
        let options = options.env("SKEIN_ADMIN__LISTEN", "127.0.0.1:0");
        let gateway = Gateway::start(data[0].path(), &options);
        let quiet = Gateway::start(data[1].path(), &Options::default());
        let mut bystanders = Bystanders::start(&gateway).await;
        let mut others = Bystanders::start(&quiet).await;
        bystanders.attack_begins().await;
        others.attack_begins().await;
        let before = gateway.resident_bytes();
        Self { gateway, before, bystanders, others, _quiet: quiet, _data: data, _stage: stage }
    }

    /// A gateway with this limit, kept to by everybody but the bystanders. Attackers come from
    /// [`Scene::connect_at`].
    pub async fn limited(limit: &str, value: &str) -> Self {
        Self::start(limits_for_strangers(Options::default()).env(limit, value)).await
    }

    /// Connects from another address of this machine.
    pub async fn connect_at(&self, last: u8) -> Raw {
        Raw::connect_from(self.endpoint_at(last), self.gateway.address).await
    }

    /// A sample of the gateway's metrics, named with its labels.
    pub fn metric(&self, sample: &str) -> f64 {
        metric(self.gateway.admin.unwrap(), sample)
    }

    /// A client at 127.0.0.`last`.
    pub fn endpoint_at(&self, last: u8) -> quinn::Endpoint {
        endpoint_at(Ipv4Addr::new(127, 0, 0, last), &self.gateway.data)
    }

    /// Logs in from another address of this machine.
    pub async fn login_at(&self, last: u8, user: &str, device: &str) -> Raw {
        let mut raw = self.connect_at(last).await;
        raw.enter(&self.gateway.token(user), device).await;
        raw
    }

    /// Connects and opens the live stream, without a word on it.
    pub async fn connect(&self) -> Raw {
        Raw::connect(self.gateway.address, &self.gateway.data).await
    }

    pub async fn login(&self, user: &str, device: &str) -> Raw {
        let token = self.gateway.token(user);
        Raw::login(self.gateway.address, &self.gateway.data, &token, device).await
    }

    /// Connects with so little room for what the gateway sends that it must wait at once.
    pub async fn connect_narrow(&self) -> Raw {
        self.connect_narrow_at(1).await
    }

    /// The same from another address of this machine.
    pub async fn connect_narrow_at(&self, last: u8) -> Raw {
        let mut transport = quinn::TransportConfig::default();
        let window = quinn::VarInt::from_u32(4096);
        transport.stream_receive_window(window).receive_window(window);
        let tls = tls(&self.gateway.data, &[ALPN]);
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let ip = Ipv4Addr::new(127, 0, 0, last);
        let endpoint = endpoint_of(ip, Arc::new(crypto), transport);
        Raw::connect_from(endpoint, self.gateway.address).await
    }

    /// The attack is over: the bystanders still chat, and as fast as before; the gateway lives, its
    /// memory has never grown by more than `grown` bytes, and it did not panic.
    pub async fn end(mut self, grown: u64) {
        let (chat, other) = (self.bystanders.end().await, self.others.end().await);
        assert!(self.gateway.is_running(), "the gateway ended:\n{}", self.gateway.log());
        let log = self.gateway.log();
        assert!(!log.contains("panicked"), "the gateway panicked:\n{log}");
        // Without /proc nobody tells.
        if let (Some(before), Some(peak)) = (self.before, self.gateway.peak_bytes()) {
            let mib = |bytes: u64| bytes >> 20;
            assert!(
                peak <= before + grown,
                "memory grew from {} to {} MiB, by more than {} MiB",
                mib(before),
                mib(peak),
                mib(grown)
            );
        }
        eprintln!("p99 {chat}; beside it {other}");
        // Whatever takes the processor or the disk away, the attacker and other processes of the
        // machine for instance, slows the quiet gateway as well: that is not the gateway's doing.
        let slowed = other.during.saturating_sub(other.before);
        let most = 2 * (chat.before.max(other.before).max(NOTICED) + slowed);
        assert!(chat.during <= most, "the bystanders noticed: p99 {chat}; beside it {other}");
    }
}

/// A folder in memory where there is one with room: what is measured is what an attack does to the
/// gateway, not what else the disk of this machine is busy with.
fn folder() -> TempDir {
    const ROOM: u64 = 2 << 30;
    let memory = std::path::Path::new("/dev/shm");
    let has_room = rustix::fs::statvfs(memory).is_ok_and(|it| it.f_bavail * it.f_frsize > ROOM);
    let made = if has_room { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap()
}

/// Options with which nobody is exempt but this test's own connections from 127.0.0.1, and the
/// bystanders, who chat faster than people do.
pub fn limits_for_strangers(options: Options) -> Options {
    let options = Options { are_users_limited: true, ..options };
    options
        .env("SKEIN_LIMITS__EXEMPT", "127.0.0.1")
        .env("SKEIN_LIMITS__EXEMPT_USERS", BYSTANDERS.join(","))
}

const BYSTANDERS: [&str; 2] = ["anna", "ben"];

/// A delay that nobody notices, whatever it was before: a turn of the scheduler or two.
const NOTICED: Duration = Duration::from_millis(10);

/// Messages that a p99 is taken of, at least.
const SAMPLES: usize = 300;

/// p99 of the time from a message to its acknowledgement and its arrival.
struct Pace {
    before: Duration,
    during: Duration,
    samples: usize,
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { before, during, samples } = self;
        write!(f, "{before:.1?} before, {during:.1?} in the attack ({samples} messages)")
    }
}

/// Two users who write to each other in turn. Every message must be acknowledged and arrive, in
/// order and once, and nothing else may arrive.
struct Bystanders {
    leave: Arc<AtomicBool>,
    /// How long each message took.
    taken: Arc<std::sync::Mutex<Vec<Duration>>>,
    /// Messages before the attack.
    calm: usize,
    chat: JoinHandle<()>,
}

impl Bystanders {
    async fn start(gateway: &Gateway) -> Self {
        let mut pair = Vec::new();
        for name in BYSTANDERS {
            let token = gateway.token(name);
            pair.push(Raw::login(gateway.address, &gateway.data, &token, "phone").await);
        }
        let leave = Arc::new(AtomicBool::new(false));
        let taken: Arc<std::sync::Mutex<Vec<Duration>>> = Arc::default();
        let chat = tokio::spawn({
            let (leave, taken) = (leave.clone(), taken.clone());
            async move {
                let mut seq = 0;
                while !leave.load(Ordering::Relaxed) {
                    let [anna, ben] = &mut pair[..] else { unreachable!("two of them") };
                    let (from, to, name) =
                        if seq % 2 == 0 { (anna, ben, "ben") } else { (ben, anna, "anna") };
                    seq += 1;
                    let begun = Instant::now();
                    say(from, to, name, seq).await;
                    taken.lock().unwrap().push(begun.elapsed());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
        Self { leave, taken, calm: 0, chat }
    }

    async fn attack_begins(&mut self) {
        self.chat_on(SAMPLES).await;
        self.calm = self.taken.lock().unwrap().len();
    }

    /// Waits until there are so many messages in all.
    async fn chat_on(&self, count: usize) {
        let enough = async {
            while self.taken.lock().unwrap().len() < count && !self.chat.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(2 * PATIENCE, enough).await.expect("the bystanders are stuck");
    }

    async fn end(&mut self) -> Pace {
        // Two more have begun and ended from now on; of a short attack what follows counts too.
        let now = self.taken.lock().unwrap().len();
        self.chat_on((self.calm + SAMPLES).max(now + 3)).await;
        self.leave.store(true, Ordering::Relaxed);
        (&mut self.chat).await.expect("the bystanders noticed something");
        let taken = self.taken.lock().unwrap();
        let (before, during) = taken.split_at(self.calm);
        Pace { before: p99(before), during: p99(during), samples: during.len() }
    }
}

fn p99(taken: &[Duration]) -> Duration {
    let mut taken = taken.to_vec();
    taken.sort_unstable();
    let place = (taken.len() * 99).div_ceil(100).max(1) - 1;
    taken.get(place).copied().unwrap_or_default()
}

async fn say(from: &mut Raw, to: &mut Raw, name: &str, seq: u64) {
    let text = format!("text {seq}");
    from.message(name, &format!("m{seq}"), &text).await;
    match from.next().await {
        Ok(server_frame::Kind::SendAck(ack)) => {
            assert_eq!((ack.seq, ack.client_msg_id), (seq, format!("m{seq}")));
        }
        other => panic!("instead of an acknowledgement: {other:?}"),
    }
    match to.next().await {
        Ok(server_frame::Kind::Push(push)) => {
            let [message] = &push.messages[..] else { panic!("{push:?}") };
            assert_eq!((message.seq, &message.payload[..]), (seq, text.as_bytes()));
        }
        other => panic!("instead of a push: {other:?}"),
    }
}

/// The number of a code, as a close shows it.
pub fn number(code: Code) -> u64 {
    code.number().into()
}

/// The conversation of two users.
pub fn conversation(a: &str, b: &str) -> bytes::Bytes {
    let id = ConversationId::one_to_one(&UserId::parse(a).unwrap(), &UserId::parse(b).unwrap());
    bytes::Bytes::copy_from_slice(id.as_bytes())
}

/// Some conversation that does not exist.
pub fn strange_conversation() -> bytes::Bytes {
    let mut id: [u8; 16] = rand::random();
    id[0] = 1;
    bytes::Bytes::copy_from_slice(&id)
}
