//! A QUIC client that breaks the rules of QUIC itself: it deceives its own library about what the
//! gateway allows, and smuggles bytes into the cryptographic stream.

use std::any::Any;
use std::sync::Arc;

use quinn::crypto::{self, KeyPair, Keys, rustls::QuicClientConfig};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};
use skein_protocol::ALPN;

use crate::scene::Scene;
use crate::support::raw::{Raw, endpoint_with, lost, tls};

/// Identifiers of transport parameters, RFC 9000 section 18.2 and RFC 9221 section 3.
const MAX_DATA: u64 = 0x04;
const MAX_STREAM_DATA: [u64; 3] = [0x05, 0x06, 0x07];
const MAX_STREAMS: [u64; 2] = [0x08, 0x09];
const MAX_DATAGRAM: u64 = 0x20;

/// What the gateway is said to allow, or what is sent although it is not.
#[derive(Clone, Copy, PartialEq)]
enum Lie {
    /// A million streams of either kind.
    Streams,
    /// A gigabyte unread.
    Windows,
    /// Datagram frames.
    Datagrams,
    /// A TLS message after the handshake.
    LateMessage,
}

struct Liar {
    honest: Arc<QuicClientConfig>,
    lie: Lie,
}

impl crypto::ClientConfig for Liar {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        let honest = self.honest.clone().start_session(version, server_name, params)?;
        Ok(Box::new(Session { honest, lie: self.lie, told: false }))
    }
}

struct Session {
    honest: Box<dyn crypto::Session>,
    lie: Lie,
    told: bool,
}

impl crypto::Session for Session {
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Some(params) = self.honest.transport_parameters()? else { return Ok(None) };
        let mut bytes = Vec::new();
        params.write(&mut bytes);
        let lies: Vec<(u64, u64)> = match self.lie {
            Lie::Streams => MAX_STREAMS.map(|id| (id, 1 << 20)).into(),
            Lie::Windows => {
                let mut all: Vec<_> = MAX_STREAM_DATA.map(|id| (id, 1 << 29)).into();
                all.push((MAX_DATA, 1 << 29));
                all
            }
            Lie::Datagrams => vec![(MAX_DATAGRAM, 1200)],
            Lie::LateMessage => Vec::new(),
        };
        let bytes = replaced(&bytes, &lies);
        Ok(Some(TransportParameters::read(Side::Client, &mut &bytes[..])?))
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let before = buf.len();
        let keys = self.honest.write_handshake(buf);
        if keys.is_none()
            && buf.len() == before
            && !self.honest.is_handshaking()
            && self.lie == Lie::LateMessage
            && !std::mem::replace(&mut self.told, true)
        {
            // KeyUpdate, which QUIC forbids (RFC 9001 section 6).
            buf.extend_from_slice(&[24, 0, 0, 1, 0]);
        }
        keys
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.honest.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.honest.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.honest.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn crypto::HeaderKey>, Box<dyn crypto::PacketKey>)> {
        self.honest.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.honest.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.honest.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.honest.read_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn crypto::PacketKey>>> {
        self.honest.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.honest.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), crypto::ExportKeyingMaterialError> {
        self.honest.export_keying_material(output, label, context)
    }
}

/// The parameters with these in place of their namesakes.
fn replaced(mut params: &[u8], lies: &[(u64, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    while !params.is_empty() {
        let whole = params;
        let id = read_varint(&mut params);
        let len = read_varint(&mut params) as usize;
        params = &params[len..];
        if lies.iter().all(|lie| lie.0 != id) {
            out.extend_from_slice(&whole[..whole.len() - params.len()]);
        }
    }
    for &(id, value) in lies {
        let value = varint(value);
        out.extend(varint(id));
        out.push(value.len() as u8);
        out.extend(value);
    }
    out
}

/// RFC 9000 section 16.
fn read_varint(bytes: &mut &[u8]) -> u64 {
    let len = 1 << (bytes[0] >> 6);
    let value =
        bytes[1..len].iter().fold(u64::from(bytes[0] & 0x3f), |v, b| v << 8 | u64::from(*b));
    *bytes = &bytes[len..];
    value
}

/// In the shortest form, which is the only one for parameters here.
fn varint(value: u64) -> Vec<u8> {
    let len = [1usize, 2, 4].into_iter().find(|len| value < 1 << (8 * len - 2)).unwrap_or(8);
    let tagged = value | u64::from(len.trailing_zeros()) << (8 * len - 2);
    tagged.to_be_bytes()[8 - len..].to_vec()
}

fn endpoint(scene: &Scene, lie: Lie) -> quinn::Endpoint {
    let honest = QuicClientConfig::try_from(tls(&scene.gateway.data, &[ALPN])).unwrap();
    let liar = Arc::new(Liar { honest: Arc::new(honest), lie });
    endpoint_with(liar, quinn::TransportConfig::default())
}

async fn liar(scene: &Scene, lie: Lie) -> Raw {
    Raw::connect_from(endpoint(scene, lie), scene.gateway.address).await
}

/// The code of RFC 9000 section 20.1 with which the gateway closes.
fn transport_code(error: quinn::ConnectionError) -> u64 {
    match error {
        quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        other => panic!("{other}"),
    }
}

const FLOW_CONTROL_ERROR: u64 = 0x3;
const STREAM_LIMIT_ERROR: u64 = 0x4;
const PROTOCOL_VIOLATION: u64 = 0xa;
/// 0x100 + the TLS alert unexpected_message.
const UNEXPECTED_MESSAGE: u64 = 0x10a;

#[tokio::test(flavor = "multi_thread")]
async fn a_million_streams_beyond_the_limit_cost_nothing() {
    let scene = Scene::start(Default::default()).await;
    for before_login in [true, false] {
        let mut raw = liar(&scene, Lie::Streams).await;
        if !before_login {
            raw.enter(&scene.gateway.token("mallory"), "phone").await;
        }
        let mut streams = Vec::new();
        while streams.len() < 1_000_000 {
            match raw.connection.open_bi().await {
                Ok(stream) => streams.push(stream),
                Err(_) => break,
            }
        }
        if let Some((last, _)) = streams.last_mut() {
            let _ = last.write_all(b"here").await;
        }
        assert_eq!(transport_code(lost(&raw.connection).await), STREAM_LIMIT_ERROR);
    }
    scene.end(crate::scene::SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_kind_that_is_not_used_end_the_connection() {
    let scene = Scene::start(Default::default()).await;
    for logged_in in [false, true] {
        let mut raw = liar(&scene, Lie::Streams).await;
        if logged_in {
            raw.enter(&scene.gateway.token("mallory"), "phone").await;
        }
        let mut uni = raw.connection.open_uni().await.unwrap();
        let _ = uni.write_all(b"hello").await;
        assert_eq!(transport_code(lost(&raw.connection).await), STREAM_LIMIT_ERROR);
    }
    scene.end(crate::scene::SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_bytes_than_were_allowed_end_the_connection() {
    let scene = Scene::start(Default::default()).await;
    let mut crowd = Vec::new();
    for _ in 0..20 {
        // Without a login nothing is read.
        let raw = liar(&scene, Lie::Windows).await;
        let (mut send, _recv) = raw.connection.open_bi().await.unwrap();
        let _ = send.write_all(&vec![0; 8 << 20]).await;
        assert_eq!(transport_code(lost(&raw.connection).await), FLOW_CONTROL_ERROR);
        crowd.push(raw);
    }
    scene.end(crate::scene::SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_were_not_offered_end_the_connection() {
    let scene = Scene::start(Default::default()).await;
    for _ in 0..10 {
        let mut raw = liar(&scene, Lie::Datagrams).await;
        raw.enter(&scene.gateway.token("mallory"), "phone").await;
        raw.connection.send_datagram(bytes::Bytes::from_static(b"hello")).unwrap();
        assert_eq!(transport_code(lost(&raw.connection).await), PROTOCOL_VIOLATION);
    }
    scene.end(crate::scene::SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_message_after_the_handshake_ends_the_connection() {
    let scene = Scene::start(Default::default()).await;
    for _ in 0..10 {
        let endpoint = endpoint(&scene, Lie::LateMessage);
        // Found out before the client takes the handshake for complete, or behind it.
        let error = match endpoint.connect(scene.gateway.address, "localhost").unwrap().await {
            Ok(connection) => lost(&connection).await,
            Err(error) => error,
        };
        assert_eq!(transport_code(error), UNEXPECTED_MESSAGE);
    }
    scene.end(crate::scene::SMALL).await;
}
