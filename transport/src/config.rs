//! What an engine is started with: every limit with its unit and its reason.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn_proto::{IdleTimeout, TransportConfig, VarInt, congestion::NewRenoConfig};

use crate::{ClientTls, Gate, Keys, ServerTls};

/// Shards that fit into the byte of a connection id that names them.
pub const MAX_SHARDS: usize = 256;

/// How to start an [`Engine`](crate::Engine).
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Address to bind. Port 0: any free port. A fixed port that anybody else has bound already,
    /// another process of the same user included, is an error.
    pub listen: SocketAddr,
    /// Threads, 1 - 256; 0: one a processor. Always 1 for a server where the kernel cannot steer
    /// datagrams to shards (anything but Linux).
    pub shards: usize,
    /// Number of this node, carried in every connection id for load balancers that read it.
    pub node: u8,
    /// Accept connections. `None`: nobody can connect to this engine.
    pub server: Option<ServerTls>,
    /// Make connections. `None`: `Io::connect` fails.
    pub client: Option<ClientTls>,
    /// The secrets that must survive a restart.
    pub keys: Keys,
    /// What one shard may hold.
    pub limits: Limits,
    /// What one connection may do.
    pub quic: QuicConfig,
    /// When an unknown address must prove itself first.
    pub validation: AddressValidation,
    /// Who may begin a handshake, beside that. `None`: anybody.
    pub gate: Option<Arc<dyn Gate>>,
    /// Let the kernel steer datagrams to shards by connection id (Linux). `false`: shards hand
    /// them over to each other, which is slower and only there for systems that refuse the filter.
    pub kernel_steering: bool,
}

impl EngineConfig {
    /// A server on `listen` with defaults for everything else.
    pub fn server(listen: SocketAddr, tls: ServerTls, keys: Keys) -> Self {
        Self { server: Some(tls), ..Self::bare(listen, keys) }
    }

    /// A client whose sockets (one a shard) bind to `local`, port 0.
    pub fn client(local: SocketAddr, tls: ClientTls) -> Self {
        Self { client: Some(tls), ..Self::bare(local, Keys::random()) }
    }

    fn bare(listen: SocketAddr, keys: Keys) -> Self {
        Self {
            listen,
            shards: 0,
            node: 0,
            server: None,
            client: None,
            keys,
            limits: Limits::default(),
            quic: QuicConfig::default(),
            validation: AddressValidation::default(),
            gate: None,
            kernel_steering: true,
        }
    }
}

/// When a client must first prove, by a Retry round trip, that it can receive at its address
/// (RFC 9000 section 8.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressValidation {
    /// Never: one round trip less, but spoofed addresses can fill the handshake table.
    Off,
    /// Every client, always.
    Always,
    /// Only while more handshakes than this are in progress on the shard.
    UnderPressure(usize),
}

impl Default for AddressValidation {
    fn default() -> Self {
        Self::UnderPressure(256)
    }
}

/// What one shard may hold. Each limit is there because a stranger can make the thing grow.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections, with those whose end is being confirmed. More are refused. At 10 KB each a
    /// shard at the default holds 5 GB, about what one core can serve.
    pub max_connections: usize,
    /// Handshakes of others in progress. More are refused; a handshake costs some 20 KB and
    /// 0.2 ms of processor time.
    pub max_handshakes: usize,
    /// Bytes that `Io::write` accepted for one connection and QUIC did not take yet. A queued
    /// piece counts 64 bytes more than it is long, so that many small ones are bounded too.
    pub outbox_bytes: usize,
    /// Messages that wait in a mailbox. More are given back to their sender.
    pub mailbox: usize,
    /// A handshake that takes longer is given up.
    pub handshake_timeout: Duration,
    /// Least time between two stateless resets of a shard. After a restart each client needs one:
    /// 0.1 ms allows 10,000 a second. It bounds what a flood of strange datagrams makes us send.
    pub min_reset_interval: Duration,
    /// Size asked for the kernel's receive and send buffer of each socket, bytes; the kernel may
    /// give less (net.core.rmem_max).
    pub socket_buffer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 500_000,
            max_handshakes: 4096,
            outbox_bytes: 256 << 10,
            mailbox: 65_536,
            handshake_timeout: Duration::from_secs(10),
            min_reset_interval: Duration::from_micros(100),
            socket_buffer: 4 << 20,
        }
    }
}

/// What one connection may do. Sized for chat: small messages, many idle connections, mobile
/// links, where a large window turns one lost packet into seconds of waiting.
#[derive(Clone, Debug)]
pub struct QuicConfig {
    /// A connection from which nothing arrives for so long is dropped. The smaller of both sides'
    /// counts. `None`: never (the application must then have an own heartbeat).
    pub idle_timeout: Option<Duration>,
    /// Send a PING when nothing was sent or received for so long. Off: applications have
    /// heartbeats of their own.
    pub keep_alive: Option<Duration>,
    /// Unread bytes a peer may send on one stream.
    pub stream_window: u32,
    /// Unread bytes a peer may send on all streams of a connection: the most that a peer whose
    /// bytes are never read can make this side keep.
    pub connection_window: u32,
    /// Bytes QUIC takes for sending before they are acknowledged. Streams of priority 0 and above
    /// may go 32 KB beyond, so that bulk of a lower priority never stands in front of them.
    pub send_window: u32,
    /// Bidirectional streams the peer may have open. Each permitted one costs a table entry at
    /// once, so this is small; 3 fit into the smallest table, a fourth costs 170 bytes.
    pub max_bidi_streams: u32,
    /// Unidirectional streams the peer may have open; chat has no use for them.
    pub max_uni_streams: u32,
    /// Datagram size to begin with, bytes, 1200 or more.
    pub initial_mtu: u16,
    /// Look for a larger datagram size with probes. Off: chat fits into 1,200 bytes, and each
    /// connection would send several full-size probes as soon as it is established.
    pub mtu_discovery: bool,
    /// Round-trip time assumed before one is measured (RFC 9002 section 6.2.2 says 333 ms).
    pub initial_rtt: Duration,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(75)),
            keep_alive: None,
            stream_window: 64 << 10,
            connection_window: 128 << 10,
            send_window: 64 << 10,
            max_bidi_streams: 3,
            max_uni_streams: 0,
            initial_mtu: 1200,
            mtu_discovery: false,
            initial_rtt: Duration::from_millis(333),
        }
    }
}

impl QuicConfig {
    /// The same, as QUIC wants it.
    pub fn transport_config(&self) -> Arc<TransportConfig> {
        let mut config = TransportConfig::default();
        config
            .max_idle_timeout(self.idle_timeout.map(|timeout| {
                // Longer than a QUIC integer of milliseconds can say is as good as the maximum.
                IdleTimeout::try_from(timeout).unwrap_or(IdleTimeout::from(VarInt::MAX))
            }))
            .keep_alive_interval(self.keep_alive)
            .stream_receive_window(self.stream_window.into())
            .receive_window(self.connection_window.into())
            .send_window(self.send_window.into())
            .max_concurrent_bidi_streams(self.max_bidi_streams.into())
            .max_concurrent_uni_streams(self.max_uni_streams.into())
            .initial_mtu(self.initial_mtu.max(1200))
            .initial_rtt(self.initial_rtt)
            .datagram_receive_buffer_size(None)
            .datagram_send_buffer_size(0)
            // A ClientHello is far below; the rest of the default 16 KB is only room for abuse.
            .crypto_buffer_size(8 << 10)
            .allow_spin(false)
            .congestion_controller_factory(Arc::new(NewRenoConfig::default()));
        if !self.mtu_discovery {
            config.mtu_discovery_config(None);
        }
        Arc::new(config)
    }
}
