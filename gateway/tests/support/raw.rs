//! A client on plain quinn that sends what it is told, right or wrong.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use skein_protocol::frame::{Decoder, encode};
use skein_protocol::wire::{self, client_frame, server_frame};
use skein_protocol::{ALPN, limits};

/// Longest wait for anything that must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A client endpoint that trusts the development certificate of `data`.
pub fn endpoint(data: &Path, alpn: &[u8]) -> quinn::Endpoint {
    let crypto = QuicClientConfig::try_from(tls(data, &[alpn])).unwrap();
    endpoint_with(Arc::new(crypto), quinn::TransportConfig::default())
}

/// The same at another address of this machine.
pub fn endpoint_at(ip: Ipv4Addr, data: &Path) -> quinn::Endpoint {
    let crypto = QuicClientConfig::try_from(tls(data, &[ALPN])).unwrap();
    endpoint_of(ip, Arc::new(crypto), quinn::TransportConfig::default())
}

/// A client endpoint with ways of its own.
pub fn endpoint_with(
    crypto: Arc<dyn quinn::crypto::ClientConfig>,
    transport: quinn::TransportConfig,
) -> quinn::Endpoint {
    endpoint_of(Ipv4Addr::LOCALHOST, crypto, transport)
}

/// The same at another address of this machine.
pub fn endpoint_of(
    ip: Ipv4Addr,
    crypto: Arc<dyn quinn::crypto::ClientConfig>,
    transport: quinn::TransportConfig,
) -> quinn::Endpoint {
    let mut config = quinn::ClientConfig::new(crypto);
    config.transport_config(Arc::new(transport));
    let mut endpoint = quinn::Endpoint::client((ip, 0).into()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

/// TLS that trusts the development certificate of `data` and offers these protocols.
pub fn tls(data: &Path, alpn: &[&[u8]]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(data.join("dev/ca.pem")).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    tls
}

/// One connection with its live stream.
pub struct Raw {
    pub endpoint: quinn::Endpoint,
    pub connection: quinn::Connection,
    pub send: quinn::SendStream,
    pub reader: Reader,
}

/// The receiving half of the live stream.
pub struct Reader {
    connection: quinn::Connection,
    recv: quinn::RecvStream,
    decoder: Decoder,
}

impl Raw {
    /// Connects and opens the live stream, without a word on it.
    pub async fn connect(address: SocketAddr, data: &Path) -> Self {
        Self::connect_from(endpoint(data, ALPN), address).await
    }

    /// The same, from an endpoint of the test's own making.
    pub async fn connect_from(endpoint: quinn::Endpoint, address: SocketAddr) -> Self {
        let connection = endpoint.connect(address, "localhost").unwrap().await.unwrap();
        Self::over(endpoint, connection).await
    }

    /// The same over a connection that is there.
    pub async fn over(endpoint: quinn::Endpoint, connection: quinn::Connection) -> Self {
        let (send, recv) = connection.open_bi().await.unwrap();
        let decoder = Decoder::new();
        let reader = Reader { connection: connection.clone(), recv, decoder };
        Self { endpoint, connection, send, reader }
    }

    /// Connects and logs in.
    pub async fn login(address: SocketAddr, data: &Path, token: &str, device: &str) -> Self {
        let mut raw = Self::connect(address, data).await;
        raw.enter(token, device).await;
        raw
    }

    /// Says Hello and is welcomed.
    pub async fn enter(&mut self, token: &str, device: &str) -> wire::Welcome {
        self.hello(token, device).await;
        match self.next().await.unwrap() {
            server_frame::Kind::Welcome(welcome) => welcome,
            other => panic!("{other:?}"),
        }
    }

    pub async fn hello(&mut self, token: &str, device: &str) {
        self.say(client_frame::Kind::Hello(wire::Hello {
            versions: vec![skein_protocol::VERSION],
            token: token.into(),
            device: device.into(),
            platform: "test".into(),
            ..Default::default()
        }))
        .await;
    }

    pub async fn say(&mut self, kind: client_frame::Kind) {
        self.say_bytes(&encode(&wire::ClientFrame { kind: Some(kind) })).await;
    }

    /// Bytes on the live stream; whether the gateway still wants them is not asked.
    pub async fn say_bytes(&mut self, bytes: &[u8]) {
        let _ = self.send.write_all(bytes).await;
    }

    pub async fn message(&mut self, to: &str, id: &str, text: &str) {
        self.message_again(to, id, text, None).await;
    }

    pub async fn message_again(&mut self, to: &str, id: &str, text: &str, after: Option<u64>) {
        self.say(client_frame::Kind::Send(wire::Send {
            target: Some(wire::send::Target::ToUser(to.into())),
            client_msg_id: id.into(),
            content_type: String::new(),
            payload: Bytes::copy_from_slice(text.as_bytes()),
            retry_after_seq: after,
            known_seq: None,
        }))
        .await;
    }

    /// The next frame; the code of the close if the gateway closes.
    pub async fn next(&mut self) -> Result<server_frame::Kind, u64> {
        self.reader.next().await
    }

    /// The gateway need not send anything more on the live stream.
    pub fn stop_reading(&mut self) {
        self.reader.recv.stop(0u32.into()).unwrap();
    }

    /// The next frame that `pick` takes; others are passed over.
    pub async fn wait_for<T>(
        &mut self,
        mut pick: impl FnMut(server_frame::Kind) -> Option<T>,
    ) -> Result<T, u64> {
        loop {
            if let Some(picked) = pick(self.next().await?) {
                return Ok(picked);
            }
        }
    }

    pub async fn ack(&mut self) -> wire::SendAck {
        self.wait_for(|kind| match kind {
            server_frame::Kind::SendAck(ack) => Some(ack),
            _ => None,
        })
        .await
        .unwrap()
    }

    pub async fn error(&mut self) -> wire::Error {
        self.wait_for(|kind| match kind {
            server_frame::Kind::Error(error) => Some(error),
            _ => None,
        })
        .await
        .unwrap()
    }

    pub async fn push(&mut self) -> wire::Message {
        self.wait_for(|kind| match kind {
            server_frame::Kind::Push(push) => push.messages.into_iter().next(),
            _ => None,
        })
        .await
        .unwrap()
    }

    /// The code with which the gateway closes.
    pub async fn closed(&mut self) -> u64 {
        close_code(&lost(&self.connection).await)
    }

    /// Asks on a bulk stream and reads the whole answer.
    pub async fn ask(&self, kind: client_frame::Kind) -> Vec<server_frame::Kind> {
        self.try_ask(kind).await.unwrap()
    }

    /// The same; an error if there is no answer, or none in time.
    pub async fn try_ask(
        &self,
        kind: client_frame::Kind,
    ) -> Result<Vec<server_frame::Kind>, String> {
        let asking = async {
            let (mut send, mut recv) =
                self.connection.open_bi().await.map_err(|error| error.to_string())?;
            let frame = encode(&wire::ClientFrame { kind: Some(kind) });
            send.write_all(&frame).await.map_err(|error| error.to_string())?;
            let _ = send.finish();
            let answer = recv.read_to_end(64 << 20).await.map_err(|error| error.to_string())?;
            Ok(frames(answer.into()))
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap_or(Err("no answer".into()))
    }

    /// All messages of the conversation with `user` in this range.
    pub async fn pull(&self, user: &str, from: u64, to: u64, backward: bool) -> Vec<wire::Message> {
        let range = wire::Range {
            target: Some(wire::range::Target::WithUser(user.into())),
            from,
            to,
            backward,
            limit: 0,
        };
        let request = wire::PullRequest { ranges: vec![range] };
        let mut messages = Vec::new();
        for page in self.ask(client_frame::Kind::PullRequest(request)).await {
            let server_frame::Kind::PullPage(page) = page else { panic!("{page:?}") };
            messages.extend(page.messages);
        }
        messages
    }
}

impl Reader {
    /// The next frame; the code of the close if the gateway closes.
    pub async fn next(&mut self) -> Result<server_frame::Kind, u64> {
        tokio::time::timeout(PATIENCE, self.next_frame()).await.expect("nothing comes")
    }

    async fn next_frame(&mut self) -> Result<server_frame::Kind, u64> {
        loop {
            let frame: Option<wire::ServerFrame> =
                self.decoder.poll(limits::DEFAULT_MAX_FRAME_BYTES).unwrap();
            if let Some(kind) = frame.and_then(|frame| frame.kind) {
                return Ok(kind);
            }
            match self.recv.read_chunk(usize::MAX, true).await {
                Ok(Some(chunk)) => self.decoder.push(chunk.bytes),
                Ok(None) => return Err(close_code(&self.connection.closed().await)),
                Err(quinn::ReadError::ConnectionLost(error)) => return Err(close_code(&error)),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Why the connection is lost, once it is.
pub async fn lost(connection: &quinn::Connection) -> quinn::ConnectionError {
    tokio::time::timeout(PATIENCE, connection.closed()).await.expect("it is not closed")
}

/// The application's code of a close.
pub fn close_code(error: &quinn::ConnectionError) -> u64 {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("closed without a code: {other}"),
    }
}

/// When to come back, if the close tells it by itself.
pub fn close_delay(error: &quinn::ConnectionError) -> Option<Duration> {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            skein_protocol::close::told_delay(std::str::from_utf8(&close.reason).unwrap())
        }
        other => panic!("closed without a code: {other}"),
    }
}

/// The frames of a whole stream.
pub fn frames(bytes: Bytes) -> Vec<server_frame::Kind> {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let frame = wire::ServerFrame::decode_length_delimited(&mut rest).unwrap();
        frames.extend(frame.kind);
    }
    frames
}
