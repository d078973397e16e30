//! Those who take the admin listener's connections and keep them.

use std::net::SocketAddr;
use std::time::Duration;

use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::options;
use crate::support::process::Gateway;
use crate::support::raw::PATIENCE;

/// Connects from another address of this machine, with little room for what comes.
async fn connect(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// Whether it is answered.
async fn is_alive(last: u8, to: SocketAddr) -> bool {
    let mut stream = connect(last, to).await;
    let request = b"GET /livez HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    if stream.write_all(request).await.is_err() {
        return false;
    }
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("no end");
    answer.starts_with(b"HTTP/1.1 200")
}

/// They ask for much and read nothing of it.
#[tokio::test]
async fn a_crowd_that_does_not_read_keeps_nobody_else_out_and_loses_its_places() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let admin = gateway.admin.unwrap();
    let many = b"GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n".repeat(500);
    let mut crowd = Vec::new();
    for _ in 0..64 {
        let stream = connect(2, admin).await;
        // Some are closed at once.
        let _ = stream.try_write(&many);
        crowd.push(stream);
    }
    assert!(is_alive(1, admin).await, "from elsewhere");
    // Seconds later it has no place any more, although it is still there.
    let freed = async {
        while !is_alive(2, admin).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("the crowd keeps its places");
    drop(crowd);
}
