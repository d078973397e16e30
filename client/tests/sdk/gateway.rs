//! A gateway of one conversation and one user, over plain quinn: enough to see what the SDK does
//! with a real connection. It can be killed, keeps its log, and refuse tokens.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Endpoint, VarInt};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use skein_client::protocol::frame::{self, Decoder};
use skein_client::protocol::wire::{self, client_frame, server_frame};
use skein_client::protocol::{ALPN, ConversationId, UserId};
use tokio::sync::{broadcast, mpsc};

/// The token that is accepted.
pub(crate) const TOKEN: &str = "good";

/// What outlives a gateway.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) ca: String,
    server: quinn::ServerConfig,
    pub(crate) log: Arc<Mutex<Vec<wire::Message>>>,
    pub(crate) delivered: Arc<Mutex<u64>>,
    /// Sends that stay without an answer, from now on.
    pub(crate) mute: Arc<Mutex<bool>>,
}

/// A running one.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    endpoint: Endpoint,
    pushes: broadcast::Sender<wire::Message>,
    world: World,
    tasks: tokio::task::AbortHandle,
}

pub(crate) fn conversation() -> ConversationId {
    ConversationId::one_to_one(&user("ann"), &user("bob"))
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        Self {
            ca: made.cert.pem(),
            server: quinn::ServerConfig::with_crypto(Arc::new(crypto)),
            log: Arc::default(),
            delivered: Arc::default(),
            mute: Arc::default(),
        }
    }

    /// Starts a gateway; on port 0 the system chooses.
    pub(crate) async fn serve(&self, port: u16) -> Gateway {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        // The one before it may still be on its way out of the port.
        let endpoint = loop {
            match Endpoint::server(self.server.clone(), address) {
                Ok(endpoint) => break endpoint,
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        let address = endpoint.local_addr().unwrap();
        let (pushes, _) = broadcast::channel(1024);
        let (world, accepting, sender) = (self.clone(), endpoint.clone(), pushes.clone());
        let tasks = tokio::spawn(async move {
            let mut sessions = tokio::task::JoinSet::new();
            while let Some(incoming) = accepting.accept().await {
                sessions.spawn(session(world.clone(), incoming, sender.subscribe()));
            }
        });
        Gateway { address, endpoint, pushes, world: self.clone(), tasks: tasks.abort_handle() }
    }

    fn append(&self, send: wire::Send) -> (u64, Option<wire::Message>) {
        let mut log = self.log.lock().unwrap();
        if let Some(at) = log.iter().position(|row| row.client_msg_id == send.client_msg_id) {
            return (at as u64 + 1, None);
        }
        let message = wire::Message {
            conversation: Bytes::copy_from_slice(conversation().as_bytes()),
            seq: log.len() as u64 + 1,
            sender: "ann".into(),
            sender_device: "phone".into(),
            client_msg_id: send.client_msg_id,
            time_ms: 1,
            content_type: send.content_type,
            payload: send.payload,
        };
        log.push(message.clone());
        (message.seq, Some(message))
    }
}

impl Gateway {
    /// Bob says something.
    pub(crate) fn bob_says(&self, text: &str) {
        let message = {
            let mut log = self.world.log.lock().unwrap();
            let message = wire::Message {
                conversation: Bytes::copy_from_slice(conversation().as_bytes()),
                seq: log.len() as u64 + 1,
                sender: "bob".into(),
                sender_device: "pc".into(),
                client_msg_id: format!("bob-{}", log.len()),
                time_ms: 1,
                content_type: String::new(),
                payload: text.to_owned().into(),
            };
            log.push(message.clone());
            message
        };
        let _ = self.pushes.send(message);
    }

    /// Ends every connection with a code and stops listening.
    pub(crate) async fn stop(self, code: u32) {
        self.endpoint.close(VarInt::from_u32(code), b"test");
        self.tasks.abort();
        let _ = tokio::time::timeout(Duration::from_secs(5), self.endpoint.wait_idle()).await;
    }
}

async fn session(
    world: World,
    incoming: quinn::Incoming,
    mut pushes: broadcast::Receiver<wire::Message>,
) -> Option<()> {
    let connection = incoming.await.ok()?;
    let (mut send, mut receive) = connection.accept_bi().await.ok()?;
    let (out, mut writes) = mpsc::channel::<server_frame::Kind>(64);
    let bulk = tokio::spawn(bulk_streams(world.clone(), connection.clone()));
    let mut decoder = Decoder::new();
    loop {
        tokio::select! {
            chunk = receive.read_chunk(65536, true) => {
                decoder.push(chunk.ok()??.bytes);
                while let Some(frame) = decoder.poll::<wire::ClientFrame>(1 << 20).ok()? {
                    live(&world, &connection, &out, frame.kind?);
                }
            }
            Some(kind) = writes.recv() => send.write_chunk(encode(kind)).await.ok()?,
            Ok(message) = pushes.recv() => {
                let push = wire::Push { messages: vec![message] };
                send.write_chunk(encode(server_frame::Kind::Push(push))).await.ok()?;
            }
            _ = connection.closed() => break,
        }
    }
    bulk.abort();
    Some(())
}

fn live(
    world: &World,
    connection: &quinn::Connection,
    out: &mpsc::Sender<server_frame::Kind>,
    kind: client_frame::Kind,
) {
    let answer = match kind {
        client_frame::Kind::Hello(hello) if hello.token != TOKEN => {
            return connection.close(VarInt::from_u32(110), b"bad token");
        }
        client_frame::Kind::Hello(_) => server_frame::Kind::Welcome(wire::Welcome {
            version: 1,
            session: 1,
            user: "ann".into(),
            device: "phone".into(),
            heartbeat_interval_ms: 25_000,
            store_epoch: 1,
            ..Default::default()
        }),
        client_frame::Kind::Send(send) => {
            let client_msg_id = send.client_msg_id.clone();
            let (seq, _) = world.append(send);
            if *world.mute.lock().unwrap() {
                return;
            }
            let conversation = Bytes::copy_from_slice(conversation().as_bytes());
            let ack = wire::SendAck {
                client_msg_id,
                conversation,
                seq,
                time_ms: 1,
                ..Default::default()
            };
            server_frame::Kind::SendAck(ack)
        }
        client_frame::Kind::Delivered(delivered) => {
            let mut stored = world.delivered.lock().unwrap();
            *stored = delivered.cursors[0].seq.max(*stored);
            return;
        }
        client_frame::Kind::Ping(ping) => {
            server_frame::Kind::Pong(wire::Pong { nonce: ping.nonce })
        }
        client_frame::Kind::Bye(_) => return connection.close(VarInt::from_u32(0), b""),
        _ => return,
    };
    let _ = out.try_send(answer);
}

async fn bulk_streams(world: World, connection: quinn::Connection) -> Option<()> {
    loop {
        let (mut send, mut receive) = connection.accept_bi().await.ok()?;
        let mut decoder = Decoder::new();
        decoder.push(receive.read_to_end(65536).await.ok()?.into());
        let frame: wire::ClientFrame = decoder.poll(1 << 20).ok()??;
        for page in pages(&world, frame.kind?) {
            send.write_chunk(encode(page)).await.ok()?;
        }
        send.finish().ok()?;
    }
}

fn pages(world: &World, request: client_frame::Kind) -> Vec<server_frame::Kind> {
    let log = world.log.lock().unwrap();
    let head = log.len() as u64;
    let id = Bytes::copy_from_slice(conversation().as_bytes());
    match request {
        client_frame::Kind::HeadsRequest(_) => {
            let delivered = *world.delivered.lock().unwrap();
            let head = wire::Head {
                conversation: id,
                seq: head,
                delivered,
                first_seq: 1,
                ..Default::default()
            };
            vec![server_frame::Kind::HeadsPage(wire::HeadsPage { heads: vec![head], is_end: true })]
        }
        client_frame::Kind::PullRequest(pull) => {
            let page = |(index, range): (usize, &wire::Range)| {
                let to = if range.to == 0 { head } else { range.to.min(head) };
                let mut messages: Vec<_> =
                    (range.from.max(1)..=to).map(|seq| log[seq as usize - 1].clone()).collect();
                if range.backward {
                    messages.reverse();
                }
                if range.limit > 0 {
                    messages.truncate(range.limit as usize);
                }
                server_frame::Kind::PullPage(wire::PullPage {
                    range: index as u32,
                    conversation: id.clone(),
                    messages,
                    is_end: true,
                    head,
                    first_seq: 1,
                    error_code: 0,
                })
            };
            pull.ranges.iter().enumerate().map(page).collect()
        }
        _ => vec![],
    }
}

fn encode(kind: server_frame::Kind) -> Bytes {
    frame::encode(&wire::ServerFrame { kind: Some(kind) })
}
