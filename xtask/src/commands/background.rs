//! `up` and `down`: a server that stays when the command is over.
//!
//! What runs is written down in `target/cql/up`: the folder in the first line, then a process id a
//! line. Ids are used again by the system, so each is checked before it is killed: the folder, which
//! no other process has, is in the command line of its JVM.

use std::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use skein_xtask::cql::{Cluster, Left, Options, VARIABLE, target};

/// A killed process is gone in less, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn up(options: Options) -> Result<ExitCode, Box<dyn Error>> {
    let file = file();
    if let Some(running) = Running::read(&file)? {
        if running.pids.iter().any(|&pid| running.is_jvm(pid)) {
            return Err("a server runs already; take it down with: cargo xtask cql down".into());
        }
        running.forget(&file)?;
    }
    let nodes = options.nodes;
    eprintln!(
        "starting {}, about half a minute",
        if nodes == 1 { "one node" } else { "three nodes" }
    );
    let began = Instant::now();
    let cluster = Cluster::start(options)?;
    let Left { pids, folder, contact_points } = cluster.leave()?;
    let mut text = format!("{}\n", folder.display());
    for pid in pids {
        text += &format!("{pid}\n");
    }
    fs::write(&file, text)?;
    let points: Vec<_> = contact_points.iter().map(ToString::to_string).collect();
    eprintln!(
        "serving after {:.0} s; logs and data are in {}",
        began.elapsed().as_secs_f32(),
        folder.display()
    );
    println!("{VARIABLE}={}", points.join(","));
    eprintln!("tests use it with this variable in their environment");
    eprintln!("take it down with: cargo xtask cql down");
    Ok(ExitCode::SUCCESS)
}

pub(super) fn down() -> Result<ExitCode, Box<dyn Error>> {
    let file = file();
    let Some(running) = Running::read(&file)? else {
        eprintln!("nothing is up");
        return Ok(ExitCode::SUCCESS);
    };
    let mut killed = 0;
    for &pid in running.pids.iter().filter(|&&pid| running.is_jvm(pid)) {
        kill_process(pid, Signal::KILL)?;
        killed += 1;
    }
    let deadline = Instant::now() + PATIENCE;
    while running.pids.iter().any(|&pid| running.is_jvm(pid)) {
        if Instant::now() > deadline {
            return Err("a node was killed and is still there".into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    running.forget(&file)?;
    eprintln!("{killed} taken down, data removed");
    Ok(ExitCode::SUCCESS)
}

/// What `up` left.
struct Running {
    folder: PathBuf,
    pids: Vec<Pid>,
}

impl Running {
    fn read(file: &Path) -> Result<Option<Self>, Box<dyn Error>> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut lines = text.lines();
        let folder = PathBuf::from(lines.next().unwrap_or_default());
        if folder.parent() != file.parent() {
            return Err(format!("{} is damaged; remove it", file.display()).into());
        }
        let pids = lines.filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect();
        Ok(Some(Self { folder, pids }))
    }

    fn is_jvm(&self, pid: Pid) -> bool {
        let pid = pid.as_raw_nonzero().to_string();
        let said = Command::new("ps")
            .args(["-ww", "-o", "args=", "-p", &pid])
            .stderr(Stdio::null())
            .output();
        let line = match fs::read(format!("/proc/{pid}/cmdline")) {
            Ok(line) => line,
            Err(_) => said.map(|said| said.stdout).unwrap_or_default(),
        };
        String::from_utf8_lossy(&line).contains(&*self.folder.to_string_lossy())
    }

    fn forget(self, file: &Path) -> Result<(), Box<dyn Error>> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        Ok(fs::remove_file(file)?)
    }
}

fn file() -> PathBuf {
    target().join("cql/up")
}
