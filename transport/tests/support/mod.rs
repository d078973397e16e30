//! What the socket tests share: a driver that tells a test what it hears and does what the test
//! says, certificates, and a relay that stands between a client and a server.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use skein_transport::*;

pub const ALPN: &[u8] = b"test/1";
/// Long enough for a busy machine; nothing waits for it when all is well.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub enum Heard {
    Connected(ConnId),
    Bytes(ConnId, StreamId, Bytes),
    Closed(ConnId, CloseReason),
}

/// Runs on the shard.
pub type Action = Box<dyn FnOnce(&mut Io<'_>) + Send>;

pub struct Probe {
    pub echo: bool,
    pub tell: Sender<Heard>,
}

impl Driver for Probe {
    type Mail = Action;

    fn on_connected(&mut self, _: &mut Io<'_>, conn: ConnId) {
        let _ = self.tell.send(Heard::Connected(conn));
    }
    fn on_stream_opened(&mut self, _: &mut Io<'_>, _: ConnId, _: StreamId) {}
    fn on_readable(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        while let Read::Chunk(bytes) = io.read(conn, stream) {
            if self.echo {
                let _ = io.write(conn, stream, bytes.clone());
            }
            let _ = self.tell.send(Heard::Bytes(conn, stream, bytes));
        }
    }
    fn on_writable(&mut self, _: &mut Io<'_>, _: ConnId) {}
    fn on_timer(&mut self, _: &mut Io<'_>, _: ConnId) {}
    fn on_closed(&mut self, _: &mut Io<'_>, conn: ConnId, reason: CloseReason) {
        let _ = self.tell.send(Heard::Closed(conn, reason));
    }
    fn on_mail(&mut self, io: &mut Io<'_>, action: Action) {
        action(io);
    }
}

/// An engine of probes.
pub struct Party {
    pub engine: Engine<Action>,
    pub heard: Receiver<Heard>,
}

impl Party {
    pub fn start(config: EngineConfig, echo: bool) -> Self {
        let (tell, heard) = channel();
        let engine = Engine::start(config, move |_| Probe { echo, tell: tell.clone() }).unwrap();
        Self { engine, heard }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new([127, 0, 0, 1].into(), self.engine.local_addr().port())
    }

    /// Does something on a shard and brings back the answer.
    pub fn on<T: Send + 'static>(
        &self,
        shard: usize,
        action: impl FnOnce(&mut Io<'_>) -> T + Send + 'static,
    ) -> T {
        let (answer, answered) = channel();
        let mail: Action = Box::new(move |io| {
            let _ = answer.send(action(io));
        });
        assert!(self.engine.mailboxes()[shard].send(mail).is_ok());
        answered.recv_timeout(PATIENCE).unwrap()
    }

    /// Waits for the next thing that `want` turns into something.
    pub fn wait<T>(&self, mut want: impl FnMut(Heard) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let heard = self.heard.recv_timeout(left).expect("nothing heard in time");
            if let Some(found) = want(heard) {
                return found;
            }
        }
    }

    pub fn wait_connected(&self) -> ConnId {
        self.wait(|heard| match heard {
            Heard::Connected(conn) => Some(conn),
            _ => None,
        })
    }

    pub fn wait_closed(&self, of: ConnId) -> CloseReason {
        self.wait(|heard| match heard {
            Heard::Closed(conn, reason) if conn == of => Some(reason),
            _ => None,
        })
    }

    pub fn connect(&self, shard: usize, to: SocketAddr) -> ConnId {
        self.on(shard, move |io| io.connect(to, "localhost")).unwrap()
    }

    /// Sends on a stream and waits until as many bytes came back.
    pub fn ask(&self, conn: ConnId, stream: StreamId, text: &'static str) -> String {
        self.on(conn.shard(), move |io| io.write(conn, stream, Bytes::from(text))).unwrap();
        let mut got = Vec::new();
        self.wait(|heard| {
            if let Heard::Bytes(from, on, bytes) = heard
                && (from, on) == (conn, stream)
            {
                got.extend_from_slice(&bytes);
            }
            (got.len() >= text.len()).then(|| String::from_utf8(got.clone()).unwrap())
        })
    }

    pub fn total(&self) -> ShardStats {
        self.engine.stats().into_iter().fold(ShardStats::default(), |a, b| a + b)
    }
}

/// A certificate for `localhost`, and who trusts it.
pub struct Trust {
    pub cert: rustls::pki_types::CertificateDer<'static>,
    key: Vec<u8>,
}

impl Trust {
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
        Self { cert: made.cert.der().clone(), key: made.signing_key.serialize_der() }
    }

    pub fn server(&self, listen: &str, keys: &Keys) -> EngineConfig {
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(self.key.clone());
        let chain = vec![self.cert.clone()];
        let tls = ServerTls::new(chain, key.into(), &[ALPN], keys, &TlsOptions::default()).unwrap();
        EngineConfig::server(listen.parse().unwrap(), tls, keys.clone())
    }

    pub fn client(&self, alpn: &[u8]) -> EngineConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.cert.clone()).unwrap();
        let tls = ClientTls::with_roots(roots, &[alpn], &TlsOptions::default()).unwrap();
        let mut config = EngineConfig::client("127.0.0.1:0".parse().unwrap(), tls);
        config.shards = 1;
        config
    }
}

/// Stands between one client and a server, and can change the port from which the server sees the
/// client, or let nothing through.
pub struct Relay {
    pub address: SocketAddr,
    upstream: Arc<Mutex<UdpSocket>>,
    pub silent: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Relay {
    pub fn new(server: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = front.local_addr().unwrap();
        let upstream = Arc::new(Mutex::new(Self::upstream_to(server)));
        let client: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let (silent, ended): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
        front.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let forth = {
            let (front, upstream, client) =
                (front.try_clone().unwrap(), upstream.clone(), client.clone());
            let (silent, ended) = (silent.clone(), ended.clone());
            thread::spawn(move || {
                let mut buffer = [0; 65536];
                while !ended.load(Ordering::Relaxed) {
                    let Ok((length, from)) = front.recv_from(&mut buffer) else { continue };
                    *client.lock().unwrap() = Some(from);
                    if !silent.load(Ordering::Relaxed) {
                        let _ = upstream.lock().unwrap().send(&buffer[..length]);
                    }
                }
            })
        };
        let back = {
            let (upstream, silent, ended) = (upstream.clone(), silent.clone(), ended.clone());
            thread::spawn(move || {
                let mut buffer = [0; 65536];
                while !ended.load(Ordering::Relaxed) {
                    let socket = upstream.lock().unwrap().try_clone().unwrap();
                    let Ok(length) = socket.recv(&mut buffer) else { continue };
                    if let Some(to) = *client.lock().unwrap()
                        && !silent.load(Ordering::Relaxed)
                    {
                        let _ = front.send_to(&buffer[..length], to);
                    }
                }
            })
        };
        Self { address, upstream, silent, ended, threads: vec![forth, back] }
    }

    fn upstream_to(server: SocketAddr) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        socket
    }

    /// From now on the server sees another port.
    pub fn move_client(&self) {
        let mut upstream = self.upstream.lock().unwrap();
        let moved = Self::upstream_to(upstream.peer_addr().unwrap());
        *upstream = moved;
    }

    pub fn seen_as(&self) -> SocketAddr {
        self.upstream.lock().unwrap().local_addr().unwrap()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
