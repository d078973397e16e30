//! One node of a cluster.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::process::Signal;

use super::folder::LOG;
use super::jvm::Jvm;
use super::{CqlError, Java, probe};

/// Between two looks at a node that starts.
const LOOK: Duration = Duration::from_millis(200);

/// So many lines of the log are in an error.
const TAIL: usize = 40;

/// One node. All that is done to it may come from any thread.
#[derive(Debug)]
pub struct Node {
    pub(crate) number: usize,
    pub(crate) address: SocketAddr,
    pub(crate) folder: PathBuf,
    /// Where its log will be when the cluster's folder is gone.
    pub(crate) kept: PathBuf,
    /// Set when it did not do what it should: the logs stay.
    pub(crate) failed: Arc<AtomicBool>,
    pub(crate) java: Java,
    pub(crate) arguments: Vec<String>,
    pub(crate) patience: Duration,
    /// It cannot be started a second time.
    pub(crate) throwaway: bool,
    pub(crate) jvm: Mutex<Option<Jvm>>,
}

impl Node {
    /// Where it serves clients itself, not through a proxy.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it with SIGKILL and waits until it is gone. One that is not running stays so.
    ///
    /// # Errors
    /// When the system cannot tell that it is gone.
    pub fn kill(&self) -> Result<(), CqlError> {
        self.jvm().take().map_or(Ok(()), Jvm::kill)
    }

    /// Starts it with the data it had, and returns when it takes clients. It may not have seen its
    /// peers by then: see [`Cluster::wait`](super::Cluster::wait).
    ///
    /// # Errors
    /// When it runs already, ends, or does not serve in time, and with
    /// [`Options::throwaway`](super::Options::throwaway).
    pub fn start(&self) -> Result<(), CqlError> {
        if self.throwaway {
            let what = "cannot start again: the options say that it is thrown away";
            return Err(CqlError::State { node: self.number, what });
        }
        self.launch()?;
        self.wait(Instant::now() + self.patience, probe::serves)
    }

    /// Stops it where it is, with SIGSTOP: it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<(), CqlError> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<(), CqlError> {
        self.signal(Signal::CONT)
    }

    /// The process id of its JVM, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.jvm().as_mut().and_then(|jvm| jvm.runs().then(|| jvm.pid()))
    }

    pub(crate) fn launch(&self) -> Result<(), CqlError> {
        let mut jvm = self.jvm();
        if jvm.as_mut().is_some_and(Jvm::runs) {
            return Err(CqlError::State { node: self.number, what: "runs already" });
        }
        let path = self.folder.join("console.log");
        let console = File::options().create(true).append(true).open(&path);
        let console = console.map_err(CqlError::at(&path))?;
        *jvm = Some(Jvm::start(self.java.program(), &self.arguments, &self.folder, console)?);
        Ok(())
    }

    /// Asks until the answer is yes.
    pub(crate) fn wait(
        &self,
        deadline: Instant,
        ready: impl Fn(SocketAddr) -> io::Result<bool>,
    ) -> Result<(), CqlError> {
        loop {
            if self.pid().is_none() {
                return Err(self.failure("ended".into()));
            }
            let answer = ready(self.address);
            if matches!(answer, Ok(true)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let last = match answer {
                    Ok(_) => "it has not seen all others".into(),
                    Err(error) => error.to_string(),
                };
                return Err(self.failure(format!("does not serve in time ({last})")));
            }
            thread::sleep(LOOK);
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), CqlError> {
        match &mut *self.jvm() {
            Some(jvm) => jvm.signal(signal),
            None => Err(CqlError::State { node: self.number, what: "does not run" }),
        }
    }

    /// The end of the log; what the JVM itself printed when there is no log yet.
    fn failure(&self, what: String) -> CqlError {
        self.failed.store(true, Ordering::Release);
        let read = |name| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let text = read(LOG) + &read("console.log");
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        CqlError::Node { node: self.number, what, log: self.kept.clone(), tail }
    }

    fn jvm(&self) -> MutexGuard<'_, Option<Jvm>> {
        self.jvm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn release(&self) -> Result<Option<u32>, CqlError> {
        self.jvm().take().map(Jvm::release).transpose()
    }
}
