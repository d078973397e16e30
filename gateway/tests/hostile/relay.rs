//! A relay between a client and the gateway that remembers or swallows datagrams.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Longest UDP payload on the loopback.
const LONGEST: usize = 65_507;

/// Forwards for as long as it lives.
pub struct Relay {
    /// What clients take for the gateway.
    pub address: SocketAddr,
    /// The socket that the gateway takes for the client.
    pub outer: Arc<UdpSocket>,
    /// Datagrams of the client, in order.
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Bytes of datagrams that the gateway sent.
    answered: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Relay {
    /// `answers`: whether what the gateway says comes back to the client.
    pub async fn start(gateway: SocketAddr, answers: bool) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, gateway, answers).await
    }

    /// The same; the gateway takes the client for one at this address.
    pub async fn start_at(ip: Ipv4Addr, gateway: SocketAddr, answers: bool) -> Self {
        let inner = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let outer = Arc::new(UdpSocket::bind((ip, 0)).await.unwrap());
        outer.connect(gateway).await.unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let client = Arc::new(Mutex::new(None));
        let there = tokio::spawn({
            let (inner, outer) = (inner.clone(), outer.clone());
            let (seen, client) = (seen.clone(), client.clone());
            async move {
                let mut buffer = vec![0; LONGEST];
                while let Ok((len, from)) = inner.recv_from(&mut buffer).await {
                    *client.lock().unwrap() = Some(from);
                    seen.lock().unwrap().push(buffer[..len].to_vec());
                    let _ = outer.send(&buffer[..len]).await;
                }
            }
        });
        let address = inner.local_addr().unwrap();
        let answered = Arc::new(AtomicUsize::new(0));
        let back = tokio::spawn({
            let (outer, answered) = (outer.clone(), answered.clone());
            async move {
                let mut buffer = vec![0; LONGEST];
                loop {
                    // Refused while the gateway is not there.
                    let Ok(len) = outer.recv(&mut buffer).await else { continue };
                    answered.fetch_add(len, Ordering::Relaxed);
                    let to = *client.lock().unwrap();
                    if let (true, Some(to)) = (answers, to) {
                        let _ = inner.send_to(&buffer[..len], to).await;
                    }
                }
            }
        });
        Self { address, outer, seen, answered, tasks: vec![there, back] }
    }

    /// Bytes that the gateway has sent so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// The client's datagrams so far.
    pub fn seen(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
