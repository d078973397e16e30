use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tempfile::tempdir;

use crate::support::process::{Gateway, Options};

/// What the service manager has been told, in order; waits for something if there is nothing.
fn heard(socket: &UnixDatagram) -> Vec<String> {
    let mut all = Vec::new();
    let mut datagram = [0; 1024];
    socket.set_nonblocking(false).unwrap();
    while let Ok(length) = socket.recv(&mut datagram) {
        let text = std::str::from_utf8(&datagram[..length]).unwrap();
        all.extend(text.lines().map(str::to_owned));
        socket.set_nonblocking(true).unwrap();
    }
    all
}

#[test]
fn the_service_manager_hears_of_readiness_life_reload_and_stop() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let options = Options::default()
        .env("NOTIFY_SOCKET", path.display())
        .env("WATCHDOG_USEC", 400_000)
        .env("SKEIN_DRAIN__DEADLINE", "7s");
    let gateway = Gateway::start(&dir.path().join("data"), &options);
    let mut all = heard(&socket);
    assert_eq!(all[0], "READY=1");
    while all.iter().filter(|line| *line == "WATCHDOG=1").count() < 3 {
        all.extend(heard(&socket));
    }
    gateway.signal("HUP");
    let mut told = Vec::new();
    while !told.contains(&"READY=1".to_owned()) {
        told.extend(heard(&socket));
    }
    told.retain(|line| line != "WATCHDOG=1");
    assert_eq!((told[0].as_str(), told[2].as_str()), ("RELOADING=1", "READY=1"));
    assert!(told[1].starts_with("MONOTONIC_USEC="), "{told:?}");
    assert!(gateway.terminate().success());
    let end = heard(&socket);
    let stopping = end.iter().position(|line| line == "STOPPING=1");
    assert!(stopping.is_some(), "{end:?}");
    assert!(end.contains(&"EXTEND_TIMEOUT_USEC=12000000".to_owned()), "{end:?}");
}
