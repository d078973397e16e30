//! The stage of every attack: a gateway on a folder of its own and two bystanders who chat.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use skein_protocol::wire::server_frame;
use skein_protocol::{ALPN, Code, ConversationId, UserId};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::process::{Gateway, Options};
use crate::support::raw::{PATIENCE, Raw, endpoint_with, tls};

/// What an attack may make the gateway's memory grow by unless it stores much: caches and buffers
/// of the store and of the allocator, several times over.
pub const SMALL: u64 = 16 << 20;

/// A gateway under attack.
pub struct Scene {
    pub gateway: Gateway,
    /// Bytes resident when the attack begins.
    before: Option<u64>,
    bystanders: Bystanders,
    /// Dropped last.
    _data: TempDir,
}

impl Scene {
    /// A gateway with these settings.
    pub async fn start(options: Options) -> Self {
        let data = tempfile::tempdir().unwrap();
        let gateway = Gateway::start(data.path(), &options);
        let bystanders = Bystanders::start(&gateway).await;
        let before = gateway.resident_bytes();
        Self { gateway, before, bystanders, _data: data }
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
        let mut transport = quinn::TransportConfig::default();
        let window = quinn::VarInt::from_u32(4096);
        transport.stream_receive_window(window).receive_window(window);
        let tls = tls(&self.gateway.data, &[ALPN]);
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let endpoint = endpoint_with(Arc::new(crypto), transport);
        Raw::connect_from(endpoint, self.gateway.address).await
    }

    /// The attack is over: the bystanders still chat, the gateway lives, its memory has never
    /// grown by more than `grown` bytes, and it did not panic.
    pub async fn end(mut self, grown: u64) {
        self.bystanders.end().await;
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
    }
}

/// Two users who write to each other in turn. Every message must be acknowledged and arrive, in
/// order and once, and nothing else may arrive.
struct Bystanders {
    leave: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    chat: JoinHandle<()>,
}

impl Bystanders {
    async fn start(gateway: &Gateway) -> Self {
        let mut pair = Vec::new();
        for name in ["anna", "ben"] {
            let token = gateway.token(name);
            pair.push(Raw::login(gateway.address, &gateway.data, &token, "phone").await);
        }
        let (leave, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let chat = tokio::spawn({
            let (leave, rounds) = (leave.clone(), rounds.clone());
            async move {
                let mut seq = 0;
                while !leave.load(Ordering::Relaxed) {
                    let [anna, ben] = &mut pair[..] else { unreachable!("two of them") };
                    say(anna, ben, "ben", seq + 1).await;
                    say(ben, anna, "anna", seq + 2).await;
                    seq += 2;
                    rounds.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
        let bystanders = Self { leave, rounds, chat };
        bystanders.chat_on().await;
        bystanders
    }

    /// Waits until two rounds have begun and ended from now.
    async fn chat_on(&self) {
        let seen = self.rounds.load(Ordering::Relaxed);
        let two = async {
            while self.rounds.load(Ordering::Relaxed) < seen + 2 && !self.chat.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(2 * PATIENCE, two).await.expect("the bystanders are stuck");
    }

    async fn end(&mut self) {
        self.chat_on().await;
        self.leave.store(true, Ordering::Relaxed);
        (&mut self.chat).await.expect("the bystanders noticed something");
    }
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
