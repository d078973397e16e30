//! The control plane: Goose runs the run.
//!
//! ```text
//! fleet   -> a Goose scenario with one user; its transactions are slices of at most 250 ms
//! first   -> lets the run on from stage to stage (Gate), and ends the attack when it is over
//! each    -> takes what its fleet has done (the seconds of the run) into Goose's metrics
//! target  -> a user of its own asks for the figures of the target's process, over HTTP, throttled
//! end     -> Goose judges its thresholds and writes goose.html and goose.json beside our report
//! ```
//!
//! The data plane never waits for Goose: the timetable is in the shards, and what Goose gets are
//! copies. Its histograms are of milliseconds and hold failures and successes alike, and a second
//! that has more operations than `desk::A_SECOND` is shown by as many of them, evenly over its
//! percentiles; so our figures stay the truth, and Goose's show the same picture to those who know
//! its reports. Only one attack can run in a process at a time: Goose's kill switch is one for all.

mod attack;
mod desk;
mod thresholds;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use goose::GooseError;
use goose::config::GooseConfiguration;

use crate::health::Scraped;
use crate::objective::Objective;
use crate::plan::Plan;
use crate::run::{Gate, Listener};
use desk::Desk;

/// Goose's own report for people.
pub const PAGE: &str = "goose.html";
/// Goose's own report for scripts.
pub const JSON: &str = "goose.json";

/// Why there is no control plane, or no report of it.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Goose does not take what it is told.
    #[error("Goose: {0}")]
    Goose(#[from] GooseError),
    /// No thread or runtime could be had, or an older report is in the way.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It broke.
    #[error("the control plane panicked")]
    Panicked,
}

/// What the control plane needs to know.
#[derive(Debug)]
pub struct Options<'a> {
    /// Folder of the report.
    pub folder: &'a Path,
    /// What is going to be done.
    pub plan: &'a Plan,
    /// What must hold: Goose's report shows those that it can express.
    pub objectives: &'a [Objective],
    /// Where the target exposes the figures of its process, and where to put them.
    pub target: Option<(MetricsUrl, Scraped)>,
}

/// `http://HOST:PORT/PATH`, in the two parts in which Goose takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsUrl {
    /// Scheme, host and port.
    base: String,
    /// The rest, from the slash on.
    path: String,
}

impl MetricsUrl {
    /// Splits an address; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: hyper::Uri = text.parse().ok()?;
        let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
        let authority = uri.authority()?;
        let path = uri.path_and_query().map_or("/metrics", |path| path.as_str());
        let path = if path == "/" { "/metrics" } else { path };
        Some(Self { base: format!("{scheme}://{authority}"), path: path.to_owned() })
    }
}

/// Goose, ready to run a run, or running it.
pub struct Control {
    desk: Arc<Desk>,
    gate: Gate,
    configuration: Option<GooseConfiguration>,
    scenarios: Vec<goose::goose::Scenario>,
    thread: Option<JoinHandle<Result<(), ControlError>>>,
}

impl Control {
    /// Makes everything ready, so that what Goose does not take is told before any load.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn new(options: Options<'_>) -> Result<Self, ControlError> {
        for file in [PAGE, JSON] {
            remove(options.folder.join(file))?;
        }
        let desk = Arc::new(Desk::new(options.plan));
        let gate = Gate::default();
        let configuration = attack::configuration(&options)?;
        let scenarios = attack::scenarios(options.plan, options.target, &desk, &gate)?;
        let configuration = Some(configuration);
        Ok(Self { desk, gate, configuration, scenarios, thread: None })
    }

    /// What the run is to wait at.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// What is to hear of the run's seconds.
    pub fn listener(&self) -> Listener {
        let desk = self.desk.clone();
        Box::new(move |point| desk.put(point))
    }

    /// Goose begins; it lets the run on as soon as that waits.
    ///
    /// # Errors
    /// No thread could be had.
    pub fn launch(&mut self) -> Result<(), ControlError> {
        let Some(configuration) = self.configuration.take() else { return Ok(()) };
        let scenarios = std::mem::take(&mut self.scenarios);
        let thread = std::thread::Builder::new().name("control".into());
        self.thread = Some(thread.spawn(move || attack::run(configuration, scenarios))?);
        Ok(())
    }

    /// Whether Goose has come to its end, which it should only after [`finish`](Self::finish).
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// The run is over: waits until Goose has written its report, about a second.
    ///
    /// # Errors
    /// Goose failed.
    pub fn finish(mut self) -> Result<(), ControlError> {
        self.desk.end();
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(ended) => ended.map_err(|_| ControlError::Panicked)?,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.desk.end();
    }
}

fn remove(path: PathBuf) -> io::Result<()> {
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
