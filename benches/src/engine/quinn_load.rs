//! The other generator: plain quinn on one thread of tokio, so that quinn is also measured at both
//! ends, as an application that takes it would have it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::crypto::rustls::QuicClientConfig;
use tokio::{runtime::Runtime, task::JoinSet};

use crate::setup::{DIALING, MESSAGE, client_rustls, local_socket, quic};

pub(crate) struct QuinnLoad {
    runtime: Runtime,
    endpoint: quinn::Endpoint,
    server: SocketAddr,
    connections: Vec<quinn::Connection>,
}

impl QuinnLoad {
    pub(crate) fn start(server: SocketAddr, chacha: bool) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let crypto =
            QuicClientConfig::try_from(client_rustls(chacha)?).map_err(io::Error::other)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(quic().transport_config());
        let mut endpoint = {
            let _inside = runtime.enter();
            let tokio = Arc::new(quinn::TokioRuntime);
            quinn::Endpoint::new(quinn::EndpointConfig::default(), None, local_socket()?, tokio)?
        };
        endpoint.set_default_client_config(config);
        Ok(Self { runtime, endpoint, server, connections: Vec::new() })
    }

    /// Makes `count` more connections and says how long it took.
    pub(crate) fn connect(&mut self, count: usize) -> io::Result<Duration> {
        let begun = Instant::now();
        let (endpoint, server) = (&self.endpoint, self.server);
        let dial = |dialing: &mut JoinSet<_>| -> io::Result<()> {
            let connecting = endpoint.connect(server, "localhost").map_err(io::Error::other)?;
            dialing.spawn(connecting);
            Ok(())
        };
        let connections = &mut self.connections;
        self.runtime.block_on(async {
            let mut dialing = JoinSet::new();
            for _ in 0..count.min(DIALING) {
                dial(&mut dialing)?;
            }
            let mut begun = count.min(DIALING);
            while let Some(connected) = dialing.join_next().await {
                connections.push(connected.map_err(io::Error::other)??);
                if begun < count {
                    begun += 1;
                    dial(&mut dialing)?;
                }
            }
            Ok::<_, io::Error>(())
        })?;
        Ok(begun.elapsed())
    }

    /// Echoes a second over all connections, one message in flight each.
    pub(crate) fn echo(&self, warm_up: Duration, measured: Duration) -> io::Result<f64> {
        let echoes = Arc::new(AtomicU64::new(0));
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for connection in &self.connections {
                tasks.spawn(echo(connection.clone(), echoes.clone()));
            }
            tokio::time::sleep(warm_up).await;
            let (begun, before) = (Instant::now(), echoes.load(Ordering::Relaxed));
            tokio::time::sleep(measured).await;
            let counted = echoes.load(Ordering::Relaxed) - before;
            Ok(counted as f64 / begun.elapsed().as_secs_f64())
        })
    }
}

async fn echo(connection: quinn::Connection, echoes: Arc<AtomicU64>) -> io::Result<()> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let message = vec![b'e'; MESSAGE];
    loop {
        send.write_all(&message).await?;
        let mut awaited = MESSAGE;
        while awaited > 0 {
            let chunk = receive.read_chunk(awaited, true).await?;
            awaited -= chunk.map_or(awaited, |chunk| chunk.bytes.len());
        }
        echoes.fetch_add(1, Ordering::Relaxed);
    }
}
