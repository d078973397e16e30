//! One connection: QUIC set up for a chat client, its live stream and its bulk streams.
//!
//! ```text
//! live stream  -> reader task -> live  (bounded) -> driver
//! bulk streams -> one task each -> bulk (bounded) -> driver
//! driver -> writes (bounded) -> writer task -> live stream
//! ```
//! What the driver does not take stays in the channels, then in QUIC's windows, then at the
//! gateway. All tasks belong to the link and end with it.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use skein_protocol::client::BulkId;
use skein_protocol::{ALPN, Code};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::error::ConnectError;

/// Idle timeout offered, well over one and a half heartbeat intervals.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Receive window of one stream, bytes: two frames of the default size.
const STREAM_WINDOW: u32 = 128 * 1024;

/// Receive window of the connection, bytes: the live stream and two bulk streams, with room.
const WINDOW: u32 = 512 * 1024;

/// Bytes in flight towards the gateway. Small, so that a heartbeat or a short message does not
/// stand behind many large ones.
const SEND_WINDOW: u64 = 256 * 1024;

/// Longest piece read at once, bytes.
const READ_BYTES: usize = 32 * 1024;

/// Pieces that wait for the driver, of the live stream and of all bulk streams: 256 KiB each.
const MAX_PIECES: usize = 8;

/// How long a gateway that ended the live stream may take to close the connection, with its code.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Time for one address to answer, doubled with every attempt that had none, and the longest. A
/// gateway that comes back is found sooner by a fresh attempt than by an old one's probes.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(12);

/// Priority of a bulk request below the live stream's 0.
const BULK_PRIORITY: i32 = -1;

/// Makes connections; keeps sockets and TLS sessions from one to the next.
#[derive(Debug)]
pub(crate) struct Dialer {
    server: String,
    server_name: String,
    config: quinn::ClientConfig,
    /// Attempts in a row without an answer.
    unanswered: u32,
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
}

impl Dialer {
    /// For `server` as `HOST:PORT`, whose certificate must be for `server_name` and lead to one
    /// of the roots.
    pub(crate) fn new(
        server: String,
        server_name: String,
        roots: rustls::RootCertStore,
    ) -> Result<Self, rustls::Error> {
        // Given by hand: a program with two providers in it could not choose by itself.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        // Sessions are resumed; early data is not sent in this version.
        tls.enable_early_data = false;
        let crypto = QuicClientConfig::try_from(tls)
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport()));
        Ok(Self { server, server_name, config, unanswered: 0, v4: None, v6: None })
    }

    /// Tries the addresses of the server, one after the other, and opens the live stream.
    pub(crate) async fn connect(&mut self) -> Result<Link, ConnectError> {
        let unresolved = |error: io::Error| ConnectError::Resolve {
            server: self.server.clone(),
            reason: error.to_string(),
        };
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host(&self.server).await.map_err(unresolved)?.collect();
        let mut last = ConnectError::Resolve {
            server: self.server.clone(),
            reason: "it has no address".into(),
        };
        for address in addresses {
            match self.connect_to(address).await {
                Ok(link) => {
                    self.unanswered = 0;
                    return Ok(link);
                }
                Err(error) => last = error,
            }
        }
        self.unanswered = self.unanswered.saturating_add(1);
        Err(last)
    }

    async fn connect_to(&mut self, address: SocketAddr) -> Result<Link, ConnectError> {
        let (config, name) = (self.config.clone(), self.server_name.clone());
        let patience =
            (HANDSHAKE_TIMEOUT * (1 << self.unanswered.min(2))).min(MAX_HANDSHAKE_TIMEOUT);
        let endpoint = self.endpoint(address).map_err(ConnectError::Socket)?;
        let connecting = endpoint
            .connect_with(config, address, &name)
            .map_err(|error| ConnectError::Refused(error.to_string()))?;
        let connection = match tokio::time::timeout(patience, connecting).await {
            Err(_) => return Err(ConnectError::NoAnswer(address)),
            Ok(Err(ConnectionError::TimedOut)) => return Err(ConnectError::NoAnswer(address)),
            Ok(Err(error)) => return Err(ConnectError::from_connection(error)),
            Ok(Ok(connection)) => connection,
        };
        let (send, receive) = connection.open_bi().await.map_err(ConnectError::from_connection)?;
        Ok(Link::new(connection, send, receive))
    }

    fn endpoint(&mut self, address: SocketAddr) -> io::Result<&Endpoint> {
        let (slot, local) = match address {
            SocketAddr::V4(_) => (&mut self.v4, any(Ipv4Addr::UNSPECIFIED.into())),
            SocketAddr::V6(_) => (&mut self.v6, any(Ipv6Addr::UNSPECIFIED.into())),
        };
        let endpoint = match slot.take() {
            Some(endpoint) => endpoint,
            None => Endpoint::client(local)?,
        };
        Ok(slot.insert(endpoint))
    }

    /// The endpoints, to move them to another network.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.v4.iter().chain(&self.v6).cloned().collect()
    }

    /// Gives closing packets a moment to leave.
    pub(crate) async fn shut_down(self) {
        for endpoint in self.endpoints() {
            let idle = endpoint.wait_idle();
            let _ = tokio::time::timeout(Duration::from_millis(500), idle).await;
        }
    }
}

/// Moves an endpoint to a fresh socket: the connection's packets leave through whatever network
/// is there now, and a ping goes out at once.
pub(crate) fn rebind(endpoint: &Endpoint) -> io::Result<()> {
    let local = match endpoint.local_addr()? {
        SocketAddr::V4(_) => any(Ipv4Addr::UNSPECIFIED.into()),
        SocketAddr::V6(_) => any(Ipv6Addr::UNSPECIFIED.into()),
    };
    endpoint.rebind(UdpSocket::bind(local)?)
}

fn any(ip: std::net::IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 0)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32).into()))
        // The application's heartbeats do it, and the gateway counts only those.
        .keep_alive_interval(None)
        // The gateway opens no streams.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None);
    transport
}

/// Something came in on a bulk stream.
#[derive(Debug)]
pub(crate) enum BulkInput {
    Bytes(BulkId, Bytes),
    End(BulkId),
}

/// One connection with its tasks.
#[derive(Debug)]
pub(crate) struct Link {
    connection: quinn::Connection,
    /// Pieces of the live stream; closed when the gateway ended it.
    pub(crate) live: mpsc::Receiver<Bytes>,
    pub(crate) bulk: mpsc::Receiver<BulkInput>,
    /// Room for one piece beside the one that is being written.
    pub(crate) writes: mpsc::Sender<Bytes>,
    bulk_input: mpsc::Sender<BulkInput>,
    requests: HashMap<BulkId, AbortHandle>,
    tasks: JoinSet<()>,
}

impl Link {
    fn new(connection: quinn::Connection, send: SendStream, receive: RecvStream) -> Self {
        let mut tasks = JoinSet::new();
        let (live_input, live) = mpsc::channel(MAX_PIECES);
        let (bulk_input, bulk) = mpsc::channel(MAX_PIECES);
        let (writes, write_queue) = mpsc::channel(1);
        tasks.spawn(read_live(receive, live_input, connection.clone()));
        tasks.spawn(write_live(send, write_queue));
        let requests = HashMap::new();
        Self { connection, live, bulk, writes, bulk_input, requests, tasks }
    }

    /// Opens a stream for one request; its answer comes through `bulk`.
    pub(crate) fn open_bulk(&mut self, id: BulkId, request: Bytes) {
        while self.tasks.try_join_next().is_some() {}
        self.requests.retain(|_, task| !task.is_finished());
        let task = run_bulk(self.connection.clone(), id, request, self.bulk_input.clone());
        self.requests.insert(id, self.tasks.spawn(task));
    }

    /// Gives up on an answer. Dropping the stream tells the gateway to stop.
    pub(crate) fn stop_bulk(&mut self, id: BulkId) {
        if let Some(task) = self.requests.remove(&id) {
            task.abort();
        }
    }

    /// Resolves when the connection is gone.
    pub(crate) fn closed(&self) -> impl Future<Output = ConnectionError> + use<> {
        let connection = self.connection.clone();
        async move { connection.closed().await }
    }

    /// Closes the connection; its tasks end.
    pub(crate) fn close(self, code: Code) {
        self.connection.close(VarInt::from_u32(code.number()), code.text().as_bytes());
    }
}

/// The gateway's code, if it closed the connection with one, and what happened in words.
pub(crate) fn explain(error: &ConnectionError) -> (Option<u64>, String) {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            (Some(close.error_code.into_inner()), reason)
        }
        ConnectionError::TimedOut => (None, "the gateway does not answer any more".into()),
        ConnectionError::Reset => (None, "the gateway was restarted".into()),
        other => (None, other.to_string()),
    }
}

async fn read_live(
    mut stream: RecvStream,
    input: mpsc::Sender<Bytes>,
    connection: quinn::Connection,
) {
    while let Ok(Some(chunk)) = stream.read_chunk(READ_BYTES, true).await {
        if input.send(chunk.bytes).await.is_err() {
            return;
        }
    }
    // The close that follows says why; only if none comes the end of the stream is the news.
    let _ = tokio::time::timeout(CLOSE_PATIENCE, connection.closed()).await;
}

async fn write_live(mut stream: SendStream, mut writes: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = writes.recv().await {
        if stream.write_chunk(bytes).await.is_err() {
            return;
        }
    }
}

async fn run_bulk(
    connection: quinn::Connection,
    id: BulkId,
    request: Bytes,
    input: mpsc::Sender<BulkInput>,
) {
    // However it ends, the rules are told; they see what is missing.
    let _ = exchange(&connection, id, request, &input).await;
    let _ = input.send(BulkInput::End(id)).await;
}

/// `None`: the stream broke, or nobody listens.
async fn exchange(
    connection: &quinn::Connection,
    id: BulkId,
    request: Bytes,
    input: &mpsc::Sender<BulkInput>,
) -> Option<()> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    send.set_priority(BULK_PRIORITY).ok()?;
    send.write_chunk(request).await.ok()?;
    send.finish().ok()?;
    while let Some(chunk) = receive.read_chunk(READ_BYTES, true).await.ok()? {
        input.send(BulkInput::Bytes(id, chunk.bytes)).await.ok()?;
    }
    Some(())
}
