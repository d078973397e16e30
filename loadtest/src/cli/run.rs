//! A run from its scenario to its report and its exit status.
//!
//! ```text
//! folder, files, names -> gateway of our own -> plan -> Goose -> run, here or on agents
//!     -> live view -> report -> status
//! ```
//!
//! Everything that can be wrong is looked at before the load starts, what costs nothing first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

use super::output::{print, tell};
use crate::agent::{self, RemoteError, Secret};
use crate::control::{Control, ControlError, MetricsUrl, Options as ControlOptions};
use crate::doctor::{self, Level, Machine, Need};
use crate::exit::{Exit, Failure};
use crate::health::{Scraped, Target};
use crate::live::{GLANCE, Live};
use crate::metrics::Metrics;
use crate::objective::Objective;
use crate::outcome::{Outcome, Reason, ReasonKind, Step};
use crate::plan::Plan;
use crate::report::{self, PAGE, ReportError, table};
use crate::run::{Handle, Hooks, Judge, Run, RunError, Supervisor};
use crate::scenario::{Problems, Program, Resolved, Scenario};
use crate::signals::Signals;
use crate::spawn::{Gateway, Options};

/// A first login that takes longer is explained.
const WONDERS: Duration = Duration::from_millis(700);

/// The folder of a gateway that was killed can be removed as soon as the process is gone, which takes
/// milliseconds.
const FOLDER: Duration = Duration::from_secs(2);

/// What is shown meanwhile and at the end, and what may go for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    /// Lines instead of a view.
    pub(super) plain: bool,
    /// `summary.json` on standard output instead of a table.
    pub(super) json: bool,
    /// A report that the folder holds is replaced.
    pub(super) overwrite: bool,
}

/// Runs a scenario.
///
/// # Errors
/// No load was made.
pub(super) fn run(scenario: &Scenario, output: Output) -> Result<Exit, Failure> {
    let folder = scenario.run.report.clone().unwrap_or_else(|| default_folder(scenario));
    let is_new = !folder.exists();
    report::prepare(&folder, output.overwrite).map_err(unwritable)?;
    let done = run_into(&folder, scenario, output);
    if is_new && done.is_err() {
        // Only if nothing has come into it.
        let _ = std::fs::remove_dir(&folder);
    }
    done
}

fn run_into(folder: &Path, scenario: &Scenario, output: Output) -> Result<Exit, Failure> {
    let resolved = match scenario.target.spawn {
        true => None,
        false => Some(scenario.resolve().map_err(|problems| unusable(&problems))?),
    };
    let metrics = scenario.run.metrics.as_ref().map(|address| {
        Metrics::serve((address.host.as_str(), address.port))
            .map_err(|error| Failure::could_not_run(format!("--metrics {address}: {error}")))
    });
    let metrics = metrics.transpose()?;
    if scenario.generator.agents.is_empty() {
        warn_of_limits(scenario);
    }

    let (resolved, hooks, process) = match resolved {
        Some(resolved) => (resolved, Hooks::default(), None),
        None => spawn(scenario)?,
    };
    let plan = scenario.plan(&resolved).map_err(|problems| unusable(&problems))?;
    let scraped = Scraped::default();
    // Before Goose, which would take the signals for itself.
    let signals = Signals::catch()
        .map_err(|error| Failure::could_not_run(format!("cannot catch signals: {error}")))?;
    let mut control = Control::new(ControlOptions {
        folder,
        plan: &plan,
        objectives: &scenario.run.objectives,
        target: metrics_url(scenario).map(|url| (url, scraped.clone())),
    })
    .map_err(uncontrolled)?;
    let hooks = Hooks {
        target: target(scenario, scraped),
        gate: Some(control.gate()),
        listener: Some(control.listener()),
        judge: (scenario.program == Program::Ramp).then(|| judge(scenario)),
        ..hooks
    };
    let running = begin(scenario, plan, hooks)?;
    control.launch().map_err(uncontrolled)?;
    let around = Around { metrics: metrics.as_ref(), signals: &signals, process: process.as_ref() };
    let outcome = watch(running, &control, scenario, output, &around)?;
    if let Err(error) = control.finish() {
        tell(&format!("there is no report of Goose: {error}"));
    }

    let summary = report::write(&outcome, &scenario.run.objectives, folder).map_err(unwritable)?;
    match output.json {
        true => {
            let json = serde_json::to_string_pretty(&summary);
            let json = json.map_err(|error| Failure::could_not_run(error.to_string()))?;
            print(&format!("{json}\n"))?;
        }
        false => print(&format!("{}report: {}\n", table(&summary), folder.join(PAGE).display()))?,
    }
    Ok(summary.exit())
}

/// What a running run touches.
struct Around<'a> {
    metrics: Option<&'a Metrics>,
    signals: &'a Signals,
    process: Option<&'a Process>,
}

/// Everything is ready: here, or on all agents.
fn begin(scenario: &Scenario, plan: Plan, hooks: Hooks) -> Result<Handle, Failure> {
    let _waiting = say_if_it_takes_long(&plan);
    let agents = &scenario.generator.agents;
    if agents.is_empty() {
        return Run::start(plan, hooks).map_err(not_begun);
    }
    let secret = scenario.generator.agent_secret.as_deref().map(Secret::read).transpose();
    let secret = secret.map_err(|error| Failure::could_not_run(error.to_string()))?;
    agent::start(agents, secret.as_ref(), plan, hooks).map_err(|error| match error {
        RemoteError::Plan(why) => Failure::usage(why),
        error => Failure::could_not_run(error.to_string()),
    })
}

/// Says what is waited for, unless the result is dropped before the user wonders.
fn say_if_it_takes_long(plan: &Plan) -> mpsc::Sender<()> {
    let address = plan.target.addresses.first().map_or_else(String::new, ToString::to_string);
    let patience = humantime::format_duration(plan.answer_timeout);
    let words = format!("connecting to {address} (gives up after {patience})");
    let (ended, waiting) = mpsc::channel();
    std::thread::spawn(move || {
        if waiting.recv_timeout(WONDERS) == Err(mpsc::RecvTimeoutError::Timeout) {
            tell(&words);
        }
    });
    ended
}

/// Where to learn what the gateway uses, if it is not ours.
fn target(scenario: &Scenario, scraped: Scraped) -> Target {
    match u32::try_from(scenario.target.pid) {
        Ok(process) if process > 0 => Target::Process(process),
        _ if metrics_url(scenario).is_some() => Target::Scraped(scraped),
        _ => Target::Unknown,
    }
}

fn metrics_url(scenario: &Scenario) -> Option<MetricsUrl> {
    scenario.target.metrics_url.as_deref().and_then(MetricsUrl::parse)
}

fn uncontrolled(error: ControlError) -> Failure {
    Failure::could_not_run(error.to_string())
}

/// Shows the run until it is over. A first signal ends it early, a second one at once.
fn watch(
    running: Handle,
    control: &Control,
    scenario: &Scenario,
    output: Output,
    around: &Around<'_>,
) -> Result<Outcome, Failure> {
    let mut live = Live::new(scenario.name(), output.plain);
    let mut is_ending = false;
    let mut is_controlled = true;
    while !running.is_finished() {
        let snapshot = running.snapshot();
        live.show(&snapshot);
        if let Some(metrics) = around.metrics {
            metrics.set(&snapshot);
        }
        if is_controlled && control.has_ended() {
            is_controlled = false;
            let detail = "the control plane ended before the run".to_owned();
            running.invalidate(Reason { kind: ReasonKind::GeneratorFailed, detail });
            running.stop();
        }
        match around.signals.count() {
            0 => {}
            1 if is_ending => {}
            1 => {
                is_ending = true;
                running.stop();
            }
            _ => {
                drop(live);
                // The conductor has it, and is not waited for.
                if let Some(process) = around.process {
                    process.kill();
                }
                return Err(Failure {
                    exit: Exit::EndedEarly,
                    message: "ended at once; there is no report".into(),
                });
            }
        }
        std::thread::sleep(GLANCE);
    }
    live.show(&running.snapshot());
    drop(live);
    running
        .finish()
        .map_err(|error| Failure::could_not_run(format!("the generator broke: {error}")))
}

/// Says what is broken at a step of a ramp: whatever would fail a run with its figures.
fn judge(scenario: &Scenario) -> Judge {
    let objectives: Vec<Objective> = scenario.run.objectives.clone();
    let seconds = scenario.run.measured.as_secs_f64();
    Box::new(move |step: &Step| {
        let verdicts = objectives.iter().filter_map(|one| one.judge_step(step, seconds));
        let missed = verdicts.filter(|verdict| !verdict.holds);
        let missed = missed.map(|verdict| format!("{}: {}", verdict.objective, verdict.shown));
        missed.chain(report::failures_of_step(step, &objectives)).collect()
    })
}

/// A gateway for this run alone.
fn spawn(scenario: &Scenario) -> Result<(Resolved, Hooks, Option<Process>), Failure> {
    let options =
        Options { program: scenario.target.program.clone(), data: None, set: settings(scenario) };
    let failed = |error: crate::spawn::SpawnError| Failure::could_not_run(error.to_string());
    let gateway = Gateway::start(options).map_err(failed)?;
    let (target, credentials) =
        (gateway.target().map_err(failed)?, gateway.credentials().map_err(failed)?);
    let resolved = scenario.with_gateway(target, credentials);
    let process = Process {
        number: Arc::new(AtomicU32::new(gateway.pid().unwrap_or(0))),
        folder: gateway.own_folder().map(Path::to_owned),
    };
    let watched = Watched { gateway, process: process.clone() };
    let hooks = Hooks { supervisor: Some(Box::new(watched)), ..Hooks::default() };
    Ok((resolved, hooks, Some(process)))
}

/// Limits of a gateway that would stand in the way of the scenario, and then what was asked for.
fn settings(scenario: &Scenario) -> Vec<(String, String)> {
    /// What a gateway takes without being told.
    const SESSIONS: u64 = 100_000;
    const DEVICES: u64 = 16;
    let mut all = Vec::new();
    let sessions = scenario.sessions();
    if sessions > SESSIONS / 2 {
        // Sessions that come back are there twice until the old ones are given up.
        all.push(("limits.max_sessions".to_owned(), (2 * sessions).to_string()));
    }
    // The receivers of a group are the devices of two users.
    let devices = scenario.load.receivers / 2 + 2;
    if scenario.works_as() != Program::Chat && devices > DEVICES {
        all.push(("limits.max_devices_per_user".to_owned(), devices.to_string()));
    }
    // The last one counts.
    all.extend(scenario.target.settings.iter().filter_map(|text| {
        text.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
    }));
    all
}

/// A gateway's process, for whoever ends this program at once.
#[derive(Debug, Clone)]
struct Process {
    /// 0 for none.
    number: Arc<AtomicU32>,
    /// The folder that goes with it.
    folder: Option<PathBuf>,
}

impl Process {
    /// Kills it, and takes away what it has left behind.
    fn kill(&self) {
        let pid = i32::try_from(self.number.load(Ordering::Relaxed)).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        let Some(folder) = &self.folder else { return };
        // A process that is being killed may still write a file.
        let deadline = Instant::now() + FOLDER;
        while std::fs::remove_dir_all(folder).is_err() && folder.exists() {
            if Instant::now() > deadline {
                return tell(&format!("{} stays behind", folder.display()));
            }
            std::thread::sleep(GLANCE);
        }
    }
}

/// A gateway whose process is known to others, whatever the run does with it.
struct Watched {
    gateway: Gateway,
    process: Process,
}

impl Watched {
    fn told<T>(&mut self, act: impl FnOnce(&mut Gateway) -> T) -> T {
        let done = act(&mut self.gateway);
        self.process.number.store(self.gateway.pid().unwrap_or(0), Ordering::Relaxed);
        done
    }
}

impl Supervisor for Watched {
    fn pid(&self) -> Option<u32> {
        self.gateway.pid()
    }

    fn kill(&mut self) -> io::Result<()> {
        self.told(Supervisor::kill)
    }

    fn stop(&mut self) -> io::Result<()> {
        self.told(Supervisor::stop)
    }

    fn start(&mut self) -> io::Result<()> {
        self.told(Supervisor::start)
    }
}

/// Says what this machine is short of. The run itself finds out whether it matters.
fn warn_of_limits(scenario: &Scenario) {
    let machine = Machine::look();
    let local = |host: &str| {
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    let need = Need {
        connections: scenario.sessions(),
        shards: match scenario.generator.shards {
            0 => machine.cores as u64,
            some => some,
        },
        local_gateway: scenario.target.spawn
            || scenario.target.pid > 0
            || scenario.target.address.iter().any(|address| local(&address.host)),
    };
    let findings = doctor::examine(&machine, &need);
    let bad = findings.iter().filter(|finding| finding.level == Level::Bad);
    for finding in bad {
        tell(&format!(
            "{}: {}; needed: {} (skein-load doctor says more)",
            finding.check, finding.found, finding.needed
        ));
    }
}

fn default_folder(scenario: &Scenario) -> PathBuf {
    let name: String = scenario
        .name()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' })
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
    let time = humantime::format_rfc3339_seconds(now).to_string().replace(['-', ':', 'Z'], "");
    format!("skein-load-{name}-{}", time.replace('T', "-")).into()
}

fn unwritable(error: ReportError) -> Failure {
    Failure::could_not_run(format!("--report: {error}"))
}

/// What a scenario names is not there, or is something else.
fn unusable(problems: &Problems) -> Failure {
    Failure::could_not_run(format!("the run cannot begin\n{problems}"))
}

fn not_begun(error: RunError) -> Failure {
    match error {
        RunError::Plan(why) => Failure::usage(why),
        error => Failure::could_not_run(error.to_string()),
    }
}
