//! The program `skein` as a child process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use skein_gateway::config::Config;
use skein_gateway::dev::DevFiles;
use skein_gateway::token::{Grant, Signer};
use skein_protocol::{DeviceId, UserId};

/// A running gateway; killed when dropped. A test fails if its gateway panicked anywhere.
pub struct Gateway {
    child: Child,
    pub address: SocketAddr,
    /// The admin listener, if `SKEIN_ADMIN__LISTEN` is among the options.
    pub admin: Option<SocketAddr>,
    pub data: PathBuf,
}

/// A gateway that does not serve yet; killed when dropped.
pub struct Starting(Gateway);

impl Starting {
    pub fn spawn(data: &Path, options: &Options) -> Self {
        let child = Gateway::command(data, options).spawn().unwrap();
        let address = options.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        Self(Gateway { child, address, admin: None, data: data.into() })
    }

    /// Waits until it serves; `None` if it ended before.
    pub fn ready(mut self) -> Option<Gateway> {
        let mut lines = BufReader::new(self.0.child.stdout.take().unwrap()).lines();
        while let Some(Ok(line)) = lines.next() {
            if let Some(address) = line.strip_prefix("  admin  http://") {
                self.0.admin = Some(address.trim().parse().unwrap());
            }
            if let Some(address) = line.strip_prefix("ready ") {
                self.0.address = address.trim().parse().unwrap();
                return Some(self.0);
            }
        }
        let _ = self.0.child.wait();
        eprint!("{}", self.0.log());
        None
    }

    /// SIGKILL, wherever its start has come to.
    pub fn kill(self) {
        self.0.kill();
    }
}

/// What a test sets about a gateway.
#[derive(Default, Clone)]
pub struct Options {
    /// The address; port 0 by default.
    pub listen: Option<SocketAddr>,
    /// Environment, for instance `SKEIN_LIMITS__MAX_SESSIONS`.
    pub env: Vec<(String, String)>,
    /// Users and conversations have the rates that they have by default. Without it they have none:
    /// tests hurry.
    pub are_users_limited: bool,
}

impl Options {
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((name.into(), value.to_string()));
        self
    }
}

impl Gateway {
    /// Starts a gateway on this folder and waits until it serves.
    pub fn start(data: &Path, options: &Options) -> Self {
        Self::try_start(data, options).expect("the gateway does not start")
    }

    /// `None` if it ended before it served; its log tells why.
    pub fn try_start(data: &Path, options: &Options) -> Option<Self> {
        Starting::spawn(data, options).ready()
    }

    fn command(data: &Path, options: &Options) -> Command {
        let listen = options.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut command = program(options);
        command.args(["serve", "--data"]).arg(data).args(["--listen", &listen.to_string()]);
        std::fs::create_dir_all(data).unwrap();
        let log = std::fs::File::options().create(true).append(true).open(data.join(LOG)).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command
    }

    /// SIGKILL: nothing is written, nothing is said.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit status.
    pub fn terminate(mut self) -> std::process::ExitStatus {
        self.ask_to_stop();
        self.child.wait().unwrap()
    }

    /// SIGTERM, without waiting.
    pub fn ask_to_stop(&self) {
        self.signal("TERM");
    }

    /// Sends a signal, named without SIG.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// The exit status of one that ends by itself.
    pub fn wait(mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Everything that gateways on this folder have written to standard error.
    pub fn log(&self) -> String {
        log_of(&self.data)
    }

    /// Resident memory in bytes, where the system tells.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most that was ever resident, in bytes, where the system tells.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, field: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with(field))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    }

    pub fn token(&self, user: &str) -> String {
        self.token_with(user, Duration::from_secs(3600), SystemTime::now())
    }

    /// A token that was issued then and ends `ttl` later.
    pub fn token_with(&self, user: &str, ttl: Duration, issued: SystemTime) -> String {
        token(&self.data, user, None, ttl, issued)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if std::thread::panicking() {
            eprint!("{log}");
        } else {
            assert!(!log.contains("panicked"), "the gateway panicked:\n{log}");
        }
    }
}

/// The program with the environment of these options and none of our own.
fn program(options: &Options) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skein"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SKEIN_") {
            command.env_remove(name);
        }
    }
    command.env("SKEIN_STORE__RESERVE_BYTES", "16MiB");
    command.env("SKEIN_LOG", std::env::var("TEST_GATEWAY_LOG").unwrap_or("warn".into()));
    if !options.are_users_limited {
        for of in ["USER", "CONVERSATION"] {
            command.env(format!("SKEIN_LIMITS__MESSAGES_PER_{of}"), "off");
            command.env(format!("SKEIN_LIMITS__MESSAGE_BYTES_PER_{of}"), "off");
        }
        command.env("SKEIN_LIMITS__FRAMES_PER_USER", "off");
        command.env("SKEIN_LIMITS__SYNCS_PER_USER", "off");
    }
    for (name, value) in &options.env {
        command.env(name, value);
    }
    command
}

/// Runs the program to its end.
pub fn skein(arguments: &[&str], options: &Options) -> std::process::Output {
    program(options).args(arguments).output().unwrap()
}

/// Standard error of the gateways, in their folder.
pub const LOG: &str = "stderr.log";

fn log_of(data: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(data.join(LOG)).unwrap_or_default()).into_owned()
}

/// A token by the development key of this folder.
pub fn token(
    data: &Path,
    user: &str,
    device: Option<&str>,
    ttl: Duration,
    issued: SystemTime,
) -> String {
    let key = DevFiles::of(data).ensure_token_key().unwrap();
    let key = key.parent().unwrap().join("token-key.pem");
    let signer = Signer::from_file(&key, None).unwrap();
    let user = UserId::parse(user).unwrap();
    let device = device.map(|device| DeviceId::parse(device).unwrap());
    let audience = Config::default().auth.audience;
    let grant = Grant {
        user: &user,
        device: device.as_ref(),
        audience: &audience,
        issuer: None,
        issued,
        ttl,
    };
    signer.sign(&grant).unwrap()
}
