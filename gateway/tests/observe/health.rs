use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::http::get;
use crate::support::process::{Gateway, Options, skein};
use crate::support::raw::Raw;

fn options() -> Options {
    Options::default().env("SKEIN_ADMIN__LISTEN", "127.0.0.1:0")
}

#[test]
fn a_gateway_that_serves_is_alive_and_ready() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let admin = gateway.admin.unwrap();
    let live = get(admin, "/livez");
    assert_eq!((live.status, live.body.as_str()), (200, "ok\n"));
    let ready = get(admin, "/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (200, r#"{"ready":true,"reasons":[]}"#));
    let version = get(admin, "/version");
    assert_eq!(version.status, 200);
    for part in [env!("CARGO_PKG_VERSION"), r#""store":"embedded""#, r#""protocol":"skein/"#] {
        assert!(version.body.contains(part), "{}", version.body);
    }
    assert_eq!(get(admin, "/nothing").status, 404);
}

#[test]
fn nothing_listens_unless_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &Options::default());
    assert_eq!(gateway.admin, None);
}

#[test]
fn a_volume_that_is_nearly_full_is_not_ready_and_is_alive() {
    let dir = tempfile::tempdir().unwrap();
    let options = options().env("SKEIN_STORE__RESERVE_BYTES", "1000GiB");
    let gateway = Gateway::start(dir.path(), &options);
    let admin = gateway.admin.unwrap();
    let ready = get(admin, "/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("nearly full"), "{}", ready.body);
    assert_eq!(get(admin, "/livez").status, 200);
}

/// A session that does not leave keeps the drain waiting; meanwhile the probe says why.
#[test]
fn a_gateway_that_drains_is_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options().env("SKEIN_DRAIN__DEADLINE", "20s"));
    let admin = gateway.admin.unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let token = gateway.token("alice");
    let login = Raw::login(gateway.address, dir.path(), &token, "phone");
    let session = runtime.block_on(login);
    gateway.ask_to_stop();
    let until = Instant::now() + Duration::from_secs(10);
    let ready = loop {
        let ready = get(admin, "/readyz");
        if ready.status == 503 || Instant::now() > until {
            break ready;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("draining"), "{}", ready.body);
    assert_eq!(get(admin, "/livez").status, 200);
    drop(session);
}

#[test]
fn a_port_that_is_taken_is_told_before_the_store_is_opened() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let ran = skein(
        &[
            "serve",
            "--data",
            data.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
            "--admin",
            &address,
        ],
        &Options::default(),
    );
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(1), "{told}");
    assert!(told.contains("`admin.listen`") && told.contains("--admin ADDR:PORT"), "{told}");
    assert!(!data.join("store").exists());
}

/// Connections that say nothing keep others of their address out for a moment only: they are
/// dropped, although they are still held here.
#[test]
fn silent_connections_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let admin = gateway.admin.unwrap();
    let silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(admin).unwrap()).collect();
    let begun = Instant::now();
    while !is_answered(admin) {
        assert!(begun.elapsed() < Duration::from_secs(60), "they keep their places");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(silent);
}

/// Whether there is a place for one more, and an answer.
fn is_answered(admin: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = b"GET /livez HTTP/1.1\r\nhost: skein\r\nconnection: close\r\n\r\n";
    let mut answer = Vec::new();
    // One that is closed at once is reset, on either side of this.
    let asked = stream.write_all(request).and_then(|()| stream.read_to_end(&mut answer));
    asked.is_ok() && answer.starts_with(b"HTTP/1.1 200")
}
