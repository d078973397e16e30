//! TLS for both sides: which algorithms, tickets, and what is left out on purpose.
//!
//! - The *ring* provider is named here, by hand: rustls' automatic choice panics as soon as a
//!   second provider is linked into the same program.
//! - Key exchange is X25519 alone. The post-quantum hybrid doubles the ClientHello to two
//!   datagrams and costs more time than the rest of the handshake; it is a choice for the
//!   operator, see [`TlsOptions::key_exchange`].
//! - Resumption is on, with tickets that the server does not remember ([`Tickets`]).
//!   It saves the certificate and a signature, and no shard has to know what another one issued.
//! - 0-RTT is off. Early data can be replayed, rustls takes it only with a store of sessions that
//!   are used once, and such a store would have to be shared by all gateways. Whoever turns it on
//!   owes that store first.

use std::sync::Arc;

use rustls::{
    crypto::{CryptoProvider, SupportedKxGroup, ring as ring_provider},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoServerSessionStorage, ResolvesServerCert},
};

use crate::{Keys, crypto, tickets::Tickets};

pub use rustls::crypto::ring::kx_group;

/// What may be chosen about TLS.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// Key exchange groups, best first.
    pub key_exchange: Vec<&'static dyn SupportedKxGroup>,
    /// Which cipher to take when the peer can do both.
    pub cipher: Cipher,
}

/// The cipher that is preferred. Both are always understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Cipher {
    /// AES-128-GCM: several times faster on a processor with AES instructions.
    #[default]
    Aes128Gcm,
    /// ChaCha20-Poly1305: faster where there are none.
    ChaCha20Poly1305,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self { key_exchange: vec![kx_group::X25519], cipher: Cipher::default() }
    }
}

/// A provider of the algorithms above, also for configurations made elsewhere.
pub fn provider(options: &TlsOptions) -> Arc<CryptoProvider> {
    let mut suites = crypto::suites();
    if options.cipher == Cipher::ChaCha20Poly1305 {
        suites.rotate_right(1);
    }
    Arc::new(CryptoProvider {
        kx_groups: options.key_exchange.clone(),
        cipher_suites: suites,
        ..ring_provider::default_provider()
    })
}

/// The server's side of TLS.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub(crate) config: Arc<rustls::ServerConfig>,
}

impl ServerTls {
    /// One certificate chain (end entity first) and its key; `alpn` lists what is spoken, best
    /// first, and a client that speaks none of it is refused. `keys` seals the session tickets.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        alpn: &[&[u8]],
        keys: &Keys,
        options: &TlsOptions,
    ) -> Result<Self, rustls::Error> {
        let config = Self::builder(options)?.with_single_cert(chain, key)?;
        Ok(Self::finish(config, alpn, keys))
    }

    /// Certificates that somebody else chooses, for instance to replace them while running.
    pub fn with_resolver(
        resolver: Arc<dyn ResolvesServerCert>,
        alpn: &[&[u8]],
        keys: &Keys,
        options: &TlsOptions,
    ) -> Result<Self, rustls::Error> {
        let config = Self::builder(options)?.with_cert_resolver(resolver);
        Ok(Self::finish(config, alpn, keys))
    }

    fn builder(
        options: &TlsOptions,
    ) -> Result<
        rustls::ConfigBuilder<rustls::ServerConfig, rustls::server::WantsServerCert>,
        rustls::Error,
    > {
        Ok(rustls::ServerConfig::builder_with_provider(provider(options))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth())
    }

    fn finish(mut config: rustls::ServerConfig, alpn: &[&[u8]], keys: &Keys) -> Self {
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.ignore_client_order = true;
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 1;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(Tickets::new(keys));
        // One record a flight: QUIC has its own packets.
        config.max_fragment_size = None;
        Self { config: Arc::new(config) }
    }
}

/// The client's side of TLS.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub(crate) config: Arc<rustls::ClientConfig>,
}

impl ClientTls {
    /// Any rustls configuration that knows TLS 1.3 and has its ALPN list set. One made with
    /// [`provider`] keeps less memory a connection.
    pub fn new(config: rustls::ClientConfig) -> Self {
        Self { config: Arc::new(config) }
    }

    /// Trusts servers whose certificate chain ends in one of `roots`.
    pub fn with_roots(
        roots: rustls::RootCertStore,
        alpn: &[&[u8]],
        options: &TlsOptions,
    ) -> Result<Self, rustls::Error> {
        let mut config = rustls::ClientConfig::builder_with_provider(provider(options))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Self::new(config))
    }
}
