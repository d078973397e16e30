//! A gateway is drained, stopped and started again, over and over, while real clients talk through
//! it: `skein ctl drain`, SIGTERM, and another version of the program on the same data and port.
//!
//! What must hold is what holds under SIGKILL, and the same checker says so.
//!
//! `SKEIN_RESTARTS`: how many (default 6). `SKEIN_SEED`: of the plan.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::chat::audit;
use crate::chat::checker::Checker;
use crate::chat::crowd::{Crowd, Habits};
use crate::chat::device::Habit;
use crate::support::process::{Gateway, Options, skein};

const HABITS: Habits = Habits {
    fast: Habit { pause: Duration::from_millis(60), burst: 8 },
    slow: Habit { pause: Duration::from_millis(800), burst: 2 },
    answer_timeout: Duration::from_secs(10),
    most_waiting: 200,
};

/// Longest time for everything to be acknowledged, shown and marked at the end.
const PATIENCE: Duration = Duration::from_secs(60);

fn from_env<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn options(round: u32) -> Options {
    let options = Options::default()
        .env("SKEIN_ADMIN__LISTEN", "127.0.0.1:0")
        .env("SKEIN_SESSION__HEARTBEAT_INTERVAL", "1s")
        .env("SKEIN_STORE__JOURNAL_BYTES", "64MiB");
    // Each is a newer version of the program than the one before it.
    match cfg!(debug_assertions) && round > 0 {
        true => options.env("SKEIN_PLANTED_VERSION", format!("1 0.1.{round}")),
        false => options,
    }
}

/// The port stays, so it is outside those that the system hands out.
fn first_start(data: &Path, rng: &mut StdRng) -> (Gateway, SocketAddr) {
    for _ in 0..20 {
        let port = rng.random_range(10_000..30_000) ^ (std::process::id() as u16 & 0xff);
        let listen = SocketAddr::from(([127, 0, 0, 1], port));
        let options = Options { listen: Some(listen), ..options(0) };
        if let Some(gateway) = Gateway::try_start(data, &options) {
            return (gateway, listen);
        }
    }
    panic!("no port is free");
}

/// Sends everybody away over this time, and waits until they have gone.
fn drain(gateway: &Gateway, over: &str) {
    let admin = gateway.admin.unwrap().to_string();
    let data = gateway.data.to_str().unwrap();
    let args = ["ctl", "--admin", &admin, "--data", data, "drain", "--over", over, "--wait", "20s"];
    let ran = skein(&args, &Options::default());
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn restarts_under_load_lose_and_repeat_nothing() {
    let restarts: u32 = from_env("SKEIN_RESTARTS").unwrap_or(6);
    let seed: u64 = from_env("SKEIN_SEED").unwrap_or_else(rand::random);
    println!("SKEIN_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("gateway");
    let (mut gateway, listen) = first_start(&data, &mut rng);
    let mut crowd = Crowd::new(&data, folder.path(), HABITS, rng.random());
    crowd.come(|_| listen);
    let began = Instant::now();
    for round in 1..=restarts {
        std::thread::sleep(Duration::from_millis(rng.random_range(500..2000)));
        // Every other one is drained first; SIGTERM alone must do as well.
        if round % 2 == 1 {
            drain(&gateway, "1s");
        }
        let options = Options { listen: Some(listen), ..options(round) };
        assert!(gateway.terminate().success(), "SKEIN_SEED={seed}: stop number {round}");
        gateway = Gateway::start(&data, &options);
        if rng.random_ratio(1, 3) {
            crowd.crash_one();
        }
        let user = crowd.any_user();
        let known = crowd.record.with(|checker| checker.known());
        let found = audit::read_all(&gateway, &data, &user).unwrap();
        crowd.record.with(|checker| checker.audit(&user, &known, &found));
    }
    crowd.add_newcomers(|_| listen);
    let (users, record) = (crowd.users().to_vec(), crowd.record.clone());
    crowd.settle(PATIENCE, || {
        users.iter().find_map(|user| {
            let known = record.with(|checker| checker.known());
            let found = audit::read_all(&gateway, &data, user).unwrap();
            record.with(|checker| checker.audit(user, &known, &found));
            Checker::unmarked(&found)
        })
    });
    crowd.record.with(|checker| {
        let (sent, acked, seen) = checker.figures();
        let told = format!(
            "SKEIN_SEED={seed}: {restarts} restarts, {sent} messages, {acked} acknowledgements, \
             {seen} shown, {:.1} s",
            began.elapsed().as_secs_f64()
        );
        println!("{told}");
        let violations: Vec<_> =
            checker.violations().iter().map(|v| format!("{:?}: {}", v.kind, v.what)).collect();
        assert!(checker.counts().is_empty(), "{told}\n{}", violations.join("\n"));
        assert!(acked > 0, "{told}");
    });
}
