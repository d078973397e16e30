//! The control connection: TLS over TCP, frames with a length, JSON in them.
//!
//! The plan that goes over it holds the key that signs users' tokens, so nobody may read along. There
//! are no certificates to hand out: an agent makes one for itself, and both sides then show that they
//! know the secret *of this connection*: a MAC over what TLS derives for both of its ends alone (RFC
//! 9266), so that nobody can stand in between. Without a secret an agent listens on the loopback only.
//!
//! `tokio-rustls` and the length-delimited codec of `tokio-util` are what everybody uses for this;
//! the MAC is a token of `jsonwebtoken`, which signs the users' tokens here anyway.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skein_transport::TlsOptions;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::message::{FORM, Greeting, MAX_GREETING, MAX_MESSAGE, Verdict};

/// Everything up to the end of the greetings takes this long at most.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Fewer bytes could be guessed from one recorded proof.
const MIN_SECRET: usize = 16;

/// Label of RFC 9266.
const BINDING: &[u8] = b"EXPORTER-Channel-Binding";

/// What both sides of a control connection know.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a file holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is too short.
    #[error("{0}: a secret has at least {MIN_SECRET} bytes")]
    Short(String),
}

impl Secret {
    /// Reads it from a file. White space around it does not belong to it.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let name = path.display().to_string();
        let bytes =
            std::fs::read(path).map_err(|source| SecretError::Io { path: name.clone(), source })?;
        let secret = bytes.trim_ascii().to_vec();
        if secret.len() < MIN_SECRET { Err(SecretError::Short(name)) } else { Ok(Self(secret)) }
    }

    fn prove(&self, proof: &Proof) -> Option<String> {
        let key = EncodingKey::from_secret(&self.0);
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), proof, &key).ok()
    }

    fn is_proved(&self, text: &str, wanted: &Proof) -> bool {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let key = DecodingKey::from_secret(&self.0);
        jsonwebtoken::decode::<Proof>(text, &key, &validation)
            .is_ok_and(|found| found.claims == *wanted)
    }
}

/// What is signed with the secret: who one is, on which connection.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Proof {
    role: Role,
    binding: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Role {
    Agent,
    Conductor,
}

/// Why there is no connection, or no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the connection was closed")]
    Closed,
    #[error("it says what is no message: {0}")]
    NoMessage(#[from] serde_json::Error),
    #[error("a message of more than {} MiB", MAX_MESSAGE >> 20)]
    TooLong,
    #[error("it does not answer")]
    Silent,
    #[error("{0}")]
    Refused(String),
}

/// Both directions of a connection whose other side is known.
pub(super) struct Link {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

pub(super) struct Reader(FramedRead<ReadHalf<TlsStream<TcpStream>>, LengthDelimitedCodec>);

pub(super) struct Writer(FramedWrite<WriteHalf<TlsStream<TcpStream>>, LengthDelimitedCodec>);

/// The other side has gone, in order or not.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

impl Reader {
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<T, WireError> {
        match self.0.next().await {
            Some(Ok(frame)) => Ok(serde_json::from_slice(&frame)?),
            Some(Err(error)) if !is_end(&error) => Err(error.into()),
            // However it ended: a process that dies does not say goodbye.
            _ => Err(WireError::Closed),
        }
    }
}

impl Writer {
    pub(super) async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), WireError> {
        let text = serde_json::to_vec(message)?;
        if text.len() > self.0.encoder().max_frame_length() {
            return Err(WireError::TooLong);
        }
        Ok(self.0.send(Bytes::from(text)).await?)
    }
}

/// The side that is called: its certificate, for as long as it runs.
#[derive(Clone)]
pub(super) struct Door {
    acceptor: TlsAcceptor,
    secret: Option<Secret>,
}

impl Door {
    pub(super) fn new(secret: Option<Secret>) -> Result<Self, WireError> {
        let refused = |why: &dyn fmt::Display| WireError::Refused(why.to_string());
        let own = rcgen::generate_simple_self_signed(["skein-load".to_owned()])
            .map_err(|error| refused(&error))?;
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der())
            .map_err(|error| refused(&error))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| refused(&error))?
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .map_err(|error| refused(&error))?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), secret })
    }

    /// Whoever called is let in if it is of this version and knows the secret.
    pub(super) async fn let_in(&self, stream: TcpStream) -> Result<Link, WireError> {
        within(self.greet(stream)).await
    }

    async fn greet(&self, stream: TcpStream) -> Result<Link, WireError> {
        stream.set_nodelay(true)?;
        let stream = TlsStream::from(self.acceptor.accept(stream).await?);
        let binding = binding(&stream)?;
        let mut link = link(stream);
        let theirs: Greeting = link.reader.next().await?;
        let verdict = judge(&theirs, self.secret.as_ref(), &proof(Role::Conductor, &binding));
        link.writer.send::<Verdict>(&verdict).await?;
        verdict.map_err(WireError::Refused)?;
        // Only now, so that a stranger gets no proof to work on.
        link.writer.send(&greeting(self.secret.as_ref(), &proof(Role::Agent, &binding))).await?;
        link.reader.next::<Verdict>().await?.map_err(WireError::Refused)?;
        Ok(link.known())
    }
}

/// Calls an agent.
pub(super) async fn call(address: (&str, u16), secret: Option<&Secret>) -> Result<Link, WireError> {
    within(knock(address, secret)).await
}

async fn knock(address: (&str, u16), secret: Option<&Secret>) -> Result<Link, WireError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| WireError::Refused(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
        .with_no_client_auth();
    let name = ServerName::try_from("skein-load").map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let stream = TlsStream::from(stream);
    let binding = binding(&stream)?;
    let mut link = link(stream);
    link.writer.send(&greeting(secret, &proof(Role::Conductor, &binding))).await?;
    link.reader.next::<Verdict>().await?.map_err(WireError::Refused)?;
    let theirs: Greeting = link.reader.next().await?;
    let verdict = judge(&theirs, secret, &proof(Role::Agent, &binding));
    link.writer.send::<Verdict>(&verdict).await?;
    verdict.map_err(WireError::Refused)?;
    Ok(link.known())
}

async fn within<T>(act: impl Future<Output = Result<T, WireError>>) -> Result<T, WireError> {
    tokio::time::timeout(PATIENCE, act).await.unwrap_or(Err(WireError::Silent))
}

impl Link {
    /// From here on messages may be long.
    fn known(mut self) -> Self {
        self.reader.0.decoder_mut().set_max_frame_length(MAX_MESSAGE);
        self.writer.0.encoder_mut().set_max_frame_length(MAX_MESSAGE);
        self
    }
}

fn link(stream: TlsStream<TcpStream>) -> Link {
    let (read, write) = tokio::io::split(stream);
    let codec = || LengthDelimitedCodec::builder().max_frame_length(MAX_GREETING).new_codec();
    Link {
        reader: Reader(FramedRead::new(read, codec())),
        writer: Writer(FramedWrite::new(write, codec())),
    }
}

fn greeting(secret: Option<&Secret>, proof: &Proof) -> Greeting {
    Greeting {
        product: "skein-load".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        form: FORM,
        proof: secret.and_then(|secret| secret.prove(proof)),
    }
}

fn judge(theirs: &Greeting, secret: Option<&Secret>, wanted: &Proof) -> Verdict {
    let ours = env!("CARGO_PKG_VERSION");
    if theirs.product != "skein-load" || theirs.version != ours || theirs.form != FORM {
        return Err(format!(
            "{} {} (form {}) and skein-load {ours} (form {FORM}) are not of one version",
            theirs.product, theirs.version, theirs.form
        ));
    }
    match (secret, &theirs.proof) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err("one side has a secret, and the other one has none".into()),
        (Some(_), None) => Err("a secret is asked for".into()),
        (Some(secret), Some(proof)) if secret.is_proved(proof, wanted) => Ok(()),
        (Some(_), Some(_)) => Err("the secrets differ".into()),
    }
}

fn proof(role: Role, binding: &str) -> Proof {
    Proof { role, binding: binding.to_owned() }
}

fn binding(stream: &TlsStream<TcpStream>) -> Result<String, WireError> {
    let exported = match stream {
        TlsStream::Client(one) => {
            one.get_ref().1.export_keying_material([0; 32], BINDING, Some(b""))
        }
        TlsStream::Server(one) => {
            one.get_ref().1.export_keying_material([0; 32], BINDING, Some(b""))
        }
    };
    let exported: [u8; 32] = exported.map_err(io::Error::other)?;
    Ok(STANDARD.encode(exported))
}

fn provider() -> Arc<CryptoProvider> {
    skein_transport::provider(&TlsOptions::default())
}

/// Any certificate will do: who is there is told by the proof, which is bound to the connection.
/// That the other side holds the certificate's key is checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        Err(rustls::Error::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn secret(text: &str) -> Option<Secret> {
        Some(Secret(text.into()))
    }

    /// Both ends of a connection between sides with these secrets.
    async fn meet(
        agent: Option<Secret>,
        conductor: Option<Secret>,
    ) -> (Result<Link, WireError>, Result<Link, WireError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let door = Door::new(agent).unwrap();
        let open = async { door.let_in(listener.accept().await.unwrap().0).await };
        tokio::join!(open, call(("127.0.0.1", port), conductor.as_ref()))
    }

    #[tokio::test]
    async fn those_who_share_a_secret_meet() {
        for both in [None, secret("sixteen bytes or more")] {
            let (agent, conductor) = meet(both.clone(), both).await;
            let (mut agent, mut conductor) = (agent.unwrap(), conductor.unwrap());
            let long = "x".repeat(10 * MAX_GREETING);
            let (sent, heard) =
                tokio::join!(agent.writer.send(&long), conductor.reader.next::<String>());
            sent.unwrap();
            assert_eq!(long, heard.unwrap());
            drop(agent);
            assert!(conductor.reader.next::<String>().await.is_err());
        }
    }

    #[tokio::test]
    async fn others_do_not_and_are_told_why() {
        let (a, b) = (secret("sixteen bytes or more"), secret("sixteen other bytes!"));
        let cases = [
            (a.clone(), b, "the secrets differ"),
            (a.clone(), None, "a secret is asked for"),
            (None, a, "one side has a secret"),
        ];
        for (agent, conductor, words) in cases {
            let (agent, conductor) = meet(agent, conductor).await;
            assert!(agent.is_err());
            let why = conductor.err().unwrap().to_string();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn another_version_another_connection_and_another_role_are_refused() {
        let secret = Secret(b"sixteen bytes or more".to_vec());
        let wanted = proof(Role::Agent, "this connection");
        let judged = |change: &dyn Fn(&mut Greeting), of: &Proof| {
            let mut theirs = greeting(Some(&secret), of);
            change(&mut theirs);
            judge(&theirs, Some(&secret), &wanted)
        };
        assert_eq!(judged(&|_| {}, &wanted), Ok(()));
        let older = judged(&|one| one.version = "0.0.1".into(), &wanted).unwrap_err();
        assert!(older.contains("skein-load 0.0.1 (form 1)"), "{older}");
        assert!(judged(&|one| one.form = 2, &wanted).is_err());
        assert!(judged(&|_| {}, &proof(Role::Agent, "another one")).is_err());
        assert!(judged(&|_| {}, &proof(Role::Conductor, "this connection")).is_err());
    }

    #[tokio::test]
    async fn a_stranger_is_cut_off_at_its_first_long_word() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door::new(None).unwrap();
        let stranger = async {
            use tokio::io::AsyncWriteExt as _;
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(&[0xff; 100_000]).await;
            stream
        };
        let open = async { door.let_in(listener.accept().await.unwrap().0).await };
        let (opened, _stream) = tokio::join!(open, stranger);
        assert!(opened.is_err());
    }

    #[test]
    fn a_short_secret_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert!(Secret::read(&path).is_err());
        std::fs::write(&path, "short\n").unwrap();
        assert!(matches!(Secret::read(&path), Err(SecretError::Short(_))));
        std::fs::write(&path, "sixteen bytes or more\n").unwrap();
        let read = Secret::read(&path).unwrap();
        assert_eq!((read.0.len(), format!("{read:?}").as_str()), (21, "Secret(..)"));
    }
}
