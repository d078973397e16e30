//! What both servers and the generator agree on.

use std::{io, net::UdpSocket, sync::Arc, time::Duration};

use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
};
use skein_transport::{Cipher, ClientTls, QuicConfig, TlsOptions, provider};

pub(crate) const ALPN: &[u8] = b"bench/1";

/// Bytes of an echoed message.
pub(crate) const MESSAGE: usize = 64;

/// The limits of both.
pub(crate) fn quic() -> QuicConfig {
    QuicConfig { idle_timeout: Some(Duration::from_secs(900)), ..QuicConfig::default() }
}

/// Handshakes, or first messages, that a generator has in flight.
pub(crate) const DIALING: usize = 64;

/// Socket buffer asked for on every side, bytes.
pub(crate) const SOCKET_BUFFER: usize = 4 << 20;

/// A socket for quinn, which is given one.
pub(crate) fn local_socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let buffers = socket2::SockRef::from(&socket);
    let _ = buffers.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = buffers.set_send_buffer_size(SOCKET_BUFFER);
    Ok(socket)
}

pub(crate) fn tls_options(chacha: bool) -> TlsOptions {
    let cipher = if chacha { Cipher::ChaCha20Poly1305 } else { Cipher::Aes128Gcm };
    TlsOptions { cipher, ..TlsOptions::default() }
}

/// A P-256 certificate made for this run.
pub(crate) fn certificate() -> io::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_string()])
        .map_err(io::Error::other)?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((vec![made.cert.der().clone()], key.into()))
}

pub(crate) fn client_tls(chacha: bool) -> io::Result<ClientTls> {
    client_rustls(chacha).map(ClientTls::new)
}

/// The generators' side: full handshakes, and no time spent on checking a certificate, since the
/// server is what is measured.
pub(crate) fn client_rustls(chacha: bool) -> io::Result<rustls::ClientConfig> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider(&tls_options(chacha)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[derive(Debug)]
struct Unchecked;

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
