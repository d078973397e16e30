//! What a device takes for its gateway: a relay that leads to one gateway now and to another
//! later, as a name does that is resolved anew.

use std::net::SocketAddr;

use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest UDP payload on the loopback.
const LONGEST: usize = 65_507;

/// Forwards for as long as it lives.
pub struct Switch {
    /// Where the device connects.
    pub address: SocketAddr,
    to: watch::Sender<SocketAddr>,
    task: JoinHandle<()>,
}

impl Switch {
    pub fn start(runtime: &Handle, gateway: SocketAddr) -> Self {
        let inner = runtime.block_on(UdpSocket::bind("127.0.0.1:0")).unwrap();
        let address = inner.local_addr().unwrap();
        let (to, gateways) = watch::channel(gateway);
        let task = runtime.spawn(relay(inner, gateways));
        Self { address, to, task }
    }

    /// From now on it leads there. The connection that stood does not move: the other gateway
    /// resets it.
    pub fn lead_to(&self, gateway: SocketAddr) {
        self.to.send_replace(gateway);
    }

    pub fn leads_to(&self) -> SocketAddr {
        *self.to.borrow()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(inner: UdpSocket, mut gateways: watch::Receiver<SocketAddr>) {
    let mut outer = connected(&mut gateways).await;
    let mut client = None;
    let (mut there, mut back) = (vec![0; LONGEST], vec![0; LONGEST]);
    loop {
        tokio::select! {
            changed = gateways.changed() => match changed {
                Ok(()) => outer = connected(&mut gateways).await,
                Err(_) => return,
            },
            received = inner.recv_from(&mut there) => {
                if let Ok((len, from)) = received {
                    client = Some(from);
                    let _ = outer.send(&there[..len]).await;
                }
            }
            // Refused while no gateway is there.
            received = outer.recv(&mut back) => {
                if let (Ok(len), Some(client)) = (received, client) {
                    let _ = inner.send_to(&back[..len], client).await;
                }
            }
        }
    }
}

async fn connected(gateways: &mut watch::Receiver<SocketAddr>) -> UdpSocket {
    let gateway = *gateways.borrow_and_update();
    let outer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    outer.connect(gateway).await.unwrap();
    outer
}
