//! The two servers, and the child process that one of them runs in.

use std::{
    fs, io,
    io::{BufRead, BufReader, Read as _},
    net::SocketAddr,
    process::{self, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use skein_transport::{
    CloseReason, ConnId, Driver, Engine, EngineConfig, Io, Keys, Read, ServerTls, StreamId,
};

use crate::{
    Kind,
    setup::{ALPN, SOCKET_BUFFER, certificate, local_socket, quic, tls_options},
};

/// Serves until standard input ends.
pub(crate) fn serve(kind: Kind, threads: usize, chacha: bool) -> io::Result<()> {
    match kind {
        Kind::Skein => serve_skein(threads, chacha),
        Kind::Quinn => serve_quinn(threads, chacha),
    }
}

fn announce_and_wait(address: SocketAddr) -> io::Result<()> {
    println!("{}", address.port());
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

struct Echo;

impl Driver for Echo {
    type Mail = ();

    fn on_connected(&mut self, _: &mut Io<'_>, _: ConnId) {}
    fn on_stream_opened(&mut self, _: &mut Io<'_>, _: ConnId, _: StreamId) {}
    fn on_readable(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        while let Read::Chunk(bytes) = io.read(conn, stream) {
            let _ = io.write(conn, stream, bytes);
        }
    }
    fn on_writable(&mut self, _: &mut Io<'_>, _: ConnId) {}
    fn on_timer(&mut self, _: &mut Io<'_>, _: ConnId) {}
    fn on_closed(&mut self, _: &mut Io<'_>, _: ConnId, _: CloseReason) {}
    fn on_mail(&mut self, _: &mut Io<'_>, (): ()) {}
}

fn serve_skein(threads: usize, chacha: bool) -> io::Result<()> {
    let (chain, key) = certificate()?;
    let keys = Keys::random();
    let tls = ServerTls::new(chain, key, &[ALPN], &keys, &tls_options(chacha))
        .map_err(io::Error::other)?;
    let mut config = EngineConfig::server(([127, 0, 0, 1], 0).into(), tls, keys);
    config.shards = threads;
    config.quic = quic();
    config.limits.socket_buffer = SOCKET_BUFFER;
    let engine = Engine::start(config, |_| Echo).map_err(io::Error::other)?;
    announce_and_wait(engine.local_addr())?;
    if std::env::var_os("ENGINE_STATS").is_some() {
        eprintln!("{:#?}", engine.stats());
    }
    Ok(())
}

fn serve_quinn(threads: usize, chacha: bool) -> io::Result<()> {
    let mut runtime = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.worker_threads(threads.max(1)).enable_all().build()?;
    let endpoint = {
        let _inside = runtime.enter();
        quinn_endpoint(chacha)?
    };
    let address = endpoint.local_addr()?;
    // Standard input is read beside the runtime, which then needs no thread for it.
    std::thread::spawn(move || {
        let _ = announce_and_wait(address);
        process::exit(0);
    });
    runtime.block_on(accept_all(endpoint));
    Ok(())
}

fn quinn_endpoint(chacha: bool) -> io::Result<quinn::Endpoint> {
    let (chain, key) = certificate()?;
    let mut provider = rustls::crypto::ring::default_provider();
    provider.kx_groups = vec![rustls::crypto::ring::kx_group::X25519];
    let first = match chacha {
        true => rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        false => rustls::CipherSuite::TLS13_AES_128_GCM_SHA256,
    };
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.ignore_client_order = true;
    tls.send_tls13_tickets = 1;
    tls.max_early_data_size = 0;
    let crypto =
        quinn::crypto::rustls::QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(quic().transport_config());
    config.validation_token.sent(0);
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(config), local_socket()?, runtime)
}

async fn accept_all(endpoint: quinn::Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            // One stream a connection, as the load opens it: no task beside the connection's.
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                while let Ok(Some(chunk)) = receive.read_chunk(usize::MAX, true).await {
                    if send.write_chunk(chunk.bytes).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// A running server process.
pub(crate) struct Child {
    process: process::Child,
    pub(crate) address: SocketAddr,
}

impl Child {
    pub(crate) fn start(kind: Kind, threads: usize, chacha: bool) -> io::Result<Self> {
        let kind = match kind {
            Kind::Skein => "skein",
            Kind::Quinn => "quinn",
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--serve", kind, "--threads", &threads.to_string()]);
        if chacha {
            command.arg("--chacha");
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let port = line
            .trim()
            .parse()
            .map_err(|_| io::Error::other("the server process did not start"))?;
        Ok(Self { process, address: SocketAddr::new([127, 0, 0, 1].into(), port) })
    }

    /// Resident memory of the process, bytes.
    pub(crate) fn resident(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
            .map(|kib| kib * 1024)
            .ok_or_else(|| io::Error::other("no VmRSS in /proc (Linux is needed)"))
    }

    /// Processor time that the process has used.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // utime and stime, the 14th and 15th field (proc(5)), in ticks of 1/100 s; the 2nd is a
        // name in brackets.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok());
        match (ticks(), ticks()) {
            (Some(user), Some(system)) => Ok(Duration::from_millis((user + system) * 10)),
            _ => Err(io::Error::other("/proc/PID/stat is not as expected")),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
