//! A TLS session that goes away when it has done its work.
//!
//! rustls keeps some 3.4 KB a connection for messages that QUIC never carries after a handshake.
//! Here it is dropped: on the server as soon as the handshake is complete and the ticket is
//! written, on the client when the ticket has come. What stays is the secret for later keys, in
//! [`Chain`], and those keys are derived when first used, not in advance.

use std::{
    any::Any,
    io::Cursor,
    mem,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::BytesMut;
use quinn_proto::{
    ConnectError, ConnectionId, Side, TransportError, TransportErrorCode,
    crypto::{
        self, CryptoError, ExportKeyingMaterialError, KeyPair, Keys, UnsupportedVersion,
        rustls::QuicServerConfig,
    },
    transport_parameters::TransportParameters,
};
use ring::aead;
use rustls::{
    HandshakeKind,
    pki_types::{CertificateDer, ServerName},
    quic::{self, Connection, KeyChange, PacketKeySet, Secrets, Version},
};

use super::params::lower_connection_ids;

/// TLS alert 10, unexpected_message (RFC 8446 section 6).
const UNEXPECTED_MESSAGE: u8 = 10;
/// TLS alert 80, internal_error.
const INTERNAL_ERROR: u8 = 80;

/// One side's session, see the module's words.
struct Session {
    /// `None` once it has done its work.
    live: Option<Box<Live>>,
    /// Made together with the 1-RTT keys.
    chain: Option<Arc<Chain>>,
    /// Generations of keys given out.
    generations: u32,
    side: Side,
}

/// What is told of a handshake.
pub(crate) struct Handshake {
    pub(crate) is_resumed: bool,
}

struct Live {
    tls: Connection,
    version: Version,
    told_handshake_data: bool,
}

impl Session {
    fn new(tls: Connection, version: Version, side: Side) -> Box<Self> {
        let live = Some(Box::new(Live { tls, version, told_handshake_data: false }));
        Box::new(Self { live, chain: None, generations: 0, side })
    }
}

impl crypto::Session for Session {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        initial_keys(self.live.as_ref().map_or(Version::V1, |live| live.version), dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let live = self.live.as_ref().filter(|live| live.told_handshake_data)?;
        let kind = match &live.tls {
            Connection::Client(tls) => tls.handshake_kind(),
            Connection::Server(tls) => tls.handshake_kind(),
        };
        Some(Box::new(Handshake { is_resumed: kind == Some(HandshakeKind::Resumed) }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        let chain = self.live.as_ref()?.tls.peer_certificates()?;
        let owned: Vec<CertificateDer<'static>> =
            chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Some(Box::new(owned))
    }

    fn early_crypto(&self) -> Option<(Box<dyn crypto::HeaderKey>, Box<dyn crypto::PacketKey>)> {
        // 0-RTT is off, see `tls.rs`.
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        Some(false)
    }

    fn is_handshaking(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.tls.is_handshaking())
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        let Some(live) = &mut self.live else {
            return match self.side {
                // A second ticket, which nobody needs.
                Side::Client => Ok(false),
                Side::Server => Err(TransportError {
                    code: TransportErrorCode::crypto(UNEXPECTED_MESSAGE),
                    frame: None,
                    reason: "TLS message after the handshake".into(),
                }),
            };
        };
        live.tls.read_hs(buf).map_err(|error| {
            let alert = live.tls.alert().map_or(INTERNAL_ERROR, u8::from);
            TransportError {
                code: TransportErrorCode::crypto(alert),
                frame: None,
                reason: error.to_string(),
            }
        })?;
        if let Connection::Client(tls) = &live.tls
            && !tls.is_handshaking()
            && tls.tls13_tickets_received() > 0
        {
            self.live = None;
            return Ok(false);
        }
        let first = !live.told_handshake_data
            && (live.tls.alpn_protocol().is_some() || !live.tls.is_handshaking());
        live.told_handshake_data |= first;
        Ok(first)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Some(bytes) = self.live.as_ref().and_then(|live| live.tls.quic_transport_parameters())
        else {
            return Ok(None);
        };
        let bytes = lower_connection_ids(bytes);
        Ok(Some(TransportParameters::read(self.side, &mut Cursor::new(bytes))?))
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let live = self.live.as_mut()?;
        let before = buf.len();
        match live.tls.write_hs(buf) {
            Some(KeyChange::Handshake { keys }) => Some(boxed(keys)),
            Some(KeyChange::OneRtt { keys, next }) => {
                self.chain = Some(Arc::new(Chain::new(next)));
                Some(boxed(keys))
            }
            None => {
                let done = buf.len() == before && !live.tls.is_handshaking();
                if done && self.side.is_server() {
                    self.live = None;
                }
                None
            }
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn crypto::PacketKey>>> {
        let chain = self.chain.as_ref()?;
        let generation = self.generations;
        self.generations += 1;
        let half = |local| -> Box<dyn crypto::PacketKey> {
            Box::new(LazyKey { chain: chain.clone(), generation, local, key: OnceLock::new() })
        };
        Some(KeyPair { local: half(true), remote: half(false) })
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        let Some(tag_start) = payload.len().checked_sub(16) else { return false };
        let (body, tag) = payload.split_at(tag_start);
        let mut pseudo = Vec::with_capacity(1 + orig_dst_cid.len() + header.len() + body.len());
        pseudo.push(orig_dst_cid.len() as u8);
        pseudo.extend_from_slice(orig_dst_cid);
        pseudo.extend_from_slice(header);
        pseudo.extend_from_slice(body);
        let Ok(key) = aead::UnboundKey::new(&aead::AES_128_GCM, &RETRY_KEY) else { return false };
        let nonce = aead::Nonce::assume_unique_for_key(RETRY_NONCE);
        let mut tag = tag.to_vec();
        aead::LessSafeKey::new(key).open_in_place(nonce, aead::Aad::from(pseudo), &mut tag).is_ok()
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        let live = self.live.as_ref().ok_or(ExportKeyingMaterialError)?;
        live.tls
            .export_keying_material(output, label, Some(context))
            .map(drop)
            .map_err(|_| ExportKeyingMaterialError)
    }
}

/// RFC 9001 section 5.8.
const RETRY_KEY: [u8; 16] = [
    0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e,
];
const RETRY_NONCE: [u8; 12] =
    [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb];

/// The secrets from which each generation of 1-RTT keys follows (RFC 9001 section 6).
struct Chain(Mutex<ChainState>);

struct ChainState {
    secrets: Secrets,
    /// Generations derived so far.
    derived: u32,
    /// Halves of derived generations that were not fetched yet; two or three at the most.
    waiting: Vec<(u32, bool, Box<dyn quic::PacketKey>)>,
}

impl Chain {
    fn new(secrets: Secrets) -> Self {
        Self(Mutex::new(ChainState { secrets, derived: 0, waiting: Vec::new() }))
    }

    fn key(&self, generation: u32, local: bool) -> Box<dyn quic::PacketKey> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while state.derived <= generation {
            let PacketKeySet { local, remote } = state.secrets.next_packet_keys();
            let derived = state.derived;
            state.waiting.push((derived, true, local));
            state.waiting.push((derived, false, remote));
            state.derived += 1;
        }
        let at = state.waiting.iter().position(|half| (half.0, half.1) == (generation, local));
        // Each half belongs to one `LazyKey`, which asks once.
        at.map(|at| state.waiting.swap_remove(at).2).unwrap_or_else(|| unreachable!("asked twice"))
    }
}

/// One half of a generation.
struct LazyKey {
    chain: Arc<Chain>,
    generation: u32,
    local: bool,
    key: OnceLock<Box<dyn quic::PacketKey>>,
}

impl LazyKey {
    // quinn-proto implements its trait for the box.
    #[allow(clippy::borrowed_box)]
    fn get(&self) -> &Box<dyn quic::PacketKey> {
        self.key.get_or_init(|| self.chain.key(self.generation, self.local))
    }
}

impl crypto::PacketKey for LazyKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        crypto::PacketKey::encrypt(self.get(), packet, buf, header_len);
    }

    fn decrypt(
        &self,
        packet: u64,
        header: &[u8],
        payload: &mut BytesMut,
    ) -> Result<(), CryptoError> {
        crypto::PacketKey::decrypt(self.get(), packet, header, payload)
    }

    fn tag_len(&self) -> usize {
        crypto::PacketKey::tag_len(self.get())
    }

    fn confidentiality_limit(&self) -> u64 {
        crypto::PacketKey::confidentiality_limit(self.get())
    }

    fn integrity_limit(&self) -> u64 {
        crypto::PacketKey::integrity_limit(self.get())
    }
}

/// Starts sessions of a server.
pub(crate) struct SlimServer {
    tls: Arc<rustls::ServerConfig>,
    /// For what happens before a session: initial keys and Retry.
    stock: Arc<QuicServerConfig>,
}

impl SlimServer {
    pub(crate) fn new(tls: Arc<rustls::ServerConfig>) -> Result<Self, rustls::Error> {
        let stock = QuicServerConfig::with_initial(tls.clone(), initial_suite())
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { tls, stock: Arc::new(stock) })
    }
}

impl crypto::ServerConfig for SlimServer {
    fn initial_keys(
        &self,
        version: u32,
        dst_cid: &ConnectionId,
    ) -> Result<Keys, UnsupportedVersion> {
        self.stock.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.stock.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        params: &TransportParameters,
    ) -> Box<dyn crypto::Session> {
        let version = version_of(version).unwrap_or(Version::V1);
        match quic::ServerConnection::new(self.tls.clone(), version, written(params)) {
            Ok(tls) => Session::new(Connection::Server(tls), version, Side::Server),
            // Only a configuration without TLS 1.3 or with a half-way 0-RTT gets here; `ServerTls`
            // makes neither.
            Err(error) => unreachable!("TLS configuration: {error}"),
        }
    }
}

/// Starts sessions of a client.
pub(crate) struct SlimClient {
    tls: Arc<rustls::ClientConfig>,
}

impl SlimClient {
    pub(crate) fn new(tls: Arc<rustls::ClientConfig>) -> Self {
        Self { tls }
    }
}

impl crypto::ClientConfig for SlimClient {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        let bad_name = || ConnectError::InvalidServerName(server_name.into());
        let version = version_of(version).ok_or(ConnectError::UnsupportedVersion)?;
        let name = ServerName::try_from(server_name).map_err(|_| bad_name())?.to_owned();
        let tls = quic::ClientConnection::new(self.tls.clone(), version, name, written(params))
            .map_err(|_| bad_name())?;
        Ok(Session::new(Connection::Client(tls), version, Side::Client))
    }
}

fn written(params: &TransportParameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    params.write(&mut bytes);
    lower_connection_ids(&bytes)
}

/// The only version spoken; drafts ended in 2021.
pub(crate) const VERSION: u32 = 1;

fn version_of(version: u32) -> Option<Version> {
    (version == VERSION).then_some(Version::V1)
}

/// Initial packets use AES-128-GCM whatever comes later (RFC 9001 section 5.2), and their keys live
/// for a handshake: no reason to store them cold.
fn initial_suite() -> quic::Suite {
    rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .and_then(|suite| suite.quic_suite())
        .unwrap_or_else(|| unreachable!("ring has AES-128-GCM for QUIC"))
}

fn initial_keys(version: Version, dst_cid: &ConnectionId, side: Side) -> Keys {
    boxed(initial_suite().keys(dst_cid, rustls_side(side), version))
}

fn rustls_side(side: Side) -> rustls::Side {
    match side {
        Side::Client => rustls::Side::Client,
        Side::Server => rustls::Side::Server,
    }
}

fn boxed(keys: quic::Keys) -> Keys {
    let quic::Keys { local, remote } = keys;
    Keys {
        header: KeyPair { local: Box::new(local.header), remote: Box::new(remote.header) },
        packet: KeyPair { local: Box::new(local.packet), remote: Box::new(remote.packet) },
    }
}

const _: () = assert!(mem::size_of::<Session>() <= 24, "kept for each idle connection");
