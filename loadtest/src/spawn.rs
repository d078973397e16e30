//! A gateway of our own, for a trial with one command: the program `skein` in a process of its own,
//! on a folder of its own, with its development certificate and key.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::plan::{Algorithm, Credentials, Secret, Target, Trust};
use crate::run::Supervisor;

/// A start takes this long at most: a journal of the largest usual size is read in it.
const START: Duration = Duration::from_secs(60);

/// A gateway that was asked to stop ends within its own deadline, 10 s, or is killed.
const STOP: Duration = Duration::from_secs(20);

/// Tokens of trials outlive every trial.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Lines of the gateway's log that an error quotes.
const QUOTED: usize = 10;

/// Rates of users and conversations that a gateway of our own does not have: a few writers are to
/// say as much as many people. Addresses need no such thing, the loopback is exempt.
const WITHOUT_RATES: [&str; 6] = [
    "limits.frames_per_user",
    "limits.messages_per_user",
    "limits.message_bytes_per_user",
    "limits.syncs_per_user",
    "limits.messages_per_conversation",
    "limits.message_bytes_per_conversation",
];

/// How to start it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The program; none: `skein` in the folder of this program.
    pub program: Option<PathBuf>,
    /// Where it keeps its data and its log; none: a folder that goes with it.
    pub data: Option<PathBuf>,
    /// Configuration: keys and values of docs/configuration.md. Unless it sets them, users and
    /// conversations have no rates.
    pub set: Vec<(String, String)>,
}

/// Why there is no gateway.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program is not where it is looked for, or cannot be run.
    #[error("cannot run {}: {source}; build it with: cargo build --release --bin skein", program.display())]
    Program {
        /// Where it was looked for.
        program: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It ended, or did not get ready in time.
    #[error("the gateway {what}; it said:\n{log}")]
    NotReady {
        /// What it did.
        what: String,
        /// The last lines of its log.
        log: String,
    },
    /// A file of it cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A running gateway; it ends with this value.
#[derive(Debug)]
pub struct Gateway {
    program: PathBuf,
    set: Vec<(String, String)>,
    data: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
    /// Removed when this is dropped.
    own_folder: Option<tempfile::TempDir>,
}

impl Gateway {
    /// Starts one on a free port of the loopback and waits until it serves.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn start(options: Options) -> Result<Self, SpawnError> {
        let program = options
            .program
            .map_or_else(beside, Ok)
            .map_err(|source| SpawnError::Program { program: "skein".into(), source })?;
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| SpawnError::Io { path, source }
        };
        let (data, own_folder) = match options.data {
            Some(data) => (data, None),
            None => {
                let temporary = std::env::temp_dir();
                let folder = tempfile::Builder::new().prefix("skein-load-").tempdir();
                let folder = folder.map_err(at(&temporary))?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        std::fs::create_dir_all(&data).map_err(at(&data))?;
        let mut gateway = Self {
            program,
            set: options.set,
            data,
            address: ([127, 0, 0, 1], 0).into(),
            child: None,
            own_folder,
        };
        gateway.launch()?;
        Ok(gateway)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder that goes with it, if it has one.
    pub fn own_folder(&self) -> Option<&Path> {
        self.own_folder.as_ref().map(tempfile::TempDir::path)
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.data.join("gateway.log")
    }

    /// How to reach it.
    ///
    /// # Errors
    /// Its certificate cannot be read.
    pub fn target(&self) -> Result<Target, SpawnError> {
        let pem = self.read("dev/ca.pem")?;
        Ok(Target {
            addresses: vec![self.address],
            server_name: "localhost".into(),
            trust: Trust::Pem(pem),
        })
    }

    /// Its development key.
    ///
    /// # Errors
    /// The key cannot be read.
    pub fn credentials(&self) -> Result<Credentials, SpawnError> {
        Ok(Credentials::Signed {
            key: Secret(self.read("dev/token-key.pem")?),
            algorithm: Algorithm::EdDsa,
            key_id: None,
            audience: "skein".into(),
            issuer: None,
            lifetime: TOKEN_LIFE,
        })
    }

    fn read(&self, name: &str) -> Result<String, SpawnError> {
        let path = self.data.join(name);
        std::fs::read_to_string(&path).map_err(|source| SpawnError::Io { path, source })
    }

    fn launch(&mut self) -> Result<(), SpawnError> {
        let path = self.log();
        let log = File::options().create(true).append(true).open(&path);
        let log = log.map_err(|source| SpawnError::Io { path, source })?;
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--listen").arg(self.address.to_string());
        // However this program ends, its gateway ends with it: the pipe that nothing is written to.
        command.arg("--until-stdin-ends").arg("--data").arg(&self.data);
        for key in WITHOUT_RATES {
            command.arg("--set").arg(format!("{key}=off"));
        }
        // Of two values for a key the last one counts.
        for (key, value) in &self.set {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        // Ctrl-C in the terminal is for this program, which then ends the gateway in its turn.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut child = spawned
            .map_err(|source| SpawnError::Program { program: self.program.clone(), source })?;
        let Some(out) = child.stdout.take() else { unreachable!("it was asked for") };
        self.child = Some(child);
        let (sender, ready) = channel();
        // Lives as long as the gateway writes; what it says later is nothing that we need.
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("ready ") {
                    let _ = sender.send(address.trim().parse::<SocketAddr>());
                }
            }
        });
        match ready.recv_timeout(START) {
            Ok(Ok(address)) => {
                self.address = address;
                Ok(())
            }
            Ok(Err(_)) => Err(self.not_ready("named an address that is none")),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                Err(self.not_ready("ended at once"))
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                Err(self.not_ready("was not ready in time"))
            }
        }
    }

    fn not_ready(&mut self, what: &str) -> SpawnError {
        self.end();
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.len().saturating_sub(QUOTED);
        SpawnError::NotReady { what: what.into(), log: lines[last..].join("\n") }
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Supervisor for Gateway {
    fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn kill(&mut self) -> io::Result<()> {
        self.end();
        Ok(())
    }

    fn stop(&mut self) -> io::Result<()> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        let deadline = Instant::now() + STOP;
        while child.try_wait()?.is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.end();
        Ok(())
    }

    fn start(&mut self) -> io::Result<()> {
        self.end();
        self.launch().map_err(io::Error::other)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end();
    }
}

/// The gateway's program next to this one.
fn beside() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(format!("skein{}", std::env::consts::EXE_SUFFIX)))
}
