//! A run, from its plan to its outcome.
//!
//! ```text
//! Run::start(plan, hooks)  checks, starts the shards, logs one session in: errors come from here
//!   -> Handle              snapshot(), stop(); a thread conducts the phases meanwhile
//!   -> finish()            the outcome
//! ```

mod climb;
mod collect;
mod conduct;
mod footprint;
mod gate;
mod handle;
mod knock;
mod load;
mod search;
mod watch;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock::{self, SECOND, length};
use crate::health::Target;
use crate::operation::Failure;
use crate::outcome::{Point, Reason, ReasonKind, Step};
use crate::plan::{Cut, Plan, Work};
use crate::swarm::{Probe, Room, Swarm, SwarmError};
use conduct::Conductor;
pub use gate::{Gate, Stage};
pub use handle::Handle;
pub(crate) use handle::{Shared, lock};
use knock::Knock;

/// What can be done to a target that runs on this machine.
pub trait Supervisor: Send {
    /// Its process.
    fn pid(&self) -> Option<u32>;

    /// Kills it.
    ///
    /// # Errors
    /// It cannot be killed.
    fn kill(&mut self) -> io::Result<()>;

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// It cannot be asked.
    fn stop(&mut self) -> io::Result<()>;

    /// Starts it again where it was, and waits until it serves.
    ///
    /// # Errors
    /// It does not start.
    fn start(&mut self) -> io::Result<()>;
}

/// Says which objectives a step of a ladder breaks.
pub type Judge = Box<dyn FnMut(&Step) -> Vec<String> + Send>;

/// Hears of each second of a run when it is complete. It must not take long.
pub type Listener = Box<dyn FnMut(&Point) + Send>;

/// What a run may use beside its plan.
#[derive(Default)]
pub struct Hooks {
    /// The target, if it is ours.
    pub supervisor: Option<Box<dyn Supervisor>>,
    /// What is known of the process of a target that is not ours.
    pub target: Target,
    /// Without one the run waits for nobody.
    pub gate: Option<Gate>,
    /// Hears of each second.
    pub listener: Option<Listener>,
    /// For plans with a ladder; without it only errors break a step.
    pub judge: Option<Judge>,
}

/// Why a run could not begin. Nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan cannot be carried out.
    #[error("{0}")]
    Plan(String),
    /// The generator could not be made.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    /// Nobody answers there.
    #[error("no answer from {address}: {why}")]
    Unreachable {
        /// The first address.
        address: String,
        /// What was seen.
        why: String,
    },
    /// The target would refuse messages of this length.
    #[error(
        "fleet {fleet}: messages of {payload} bytes (`load.payload_bytes`, --payload-bytes) are \
         longer than this gateway takes: at most {most} bytes, by its `limits.max_payload_bytes` and \
         `limits.max_frame_bytes`. Take less, or raise those"
    )]
    TooLong {
        /// Of the plan.
        fleet: String,
        /// The longest of its payloads, bytes.
        payload: usize,
        /// What the target takes, bytes.
        most: usize,
    },
    /// The target refused the first login.
    #[error("the target refused the first login: {why}")]
    Refused {
        /// The code and its words.
        why: String,
    },
}

/// See the module's words.
pub struct Run;

impl Run {
    /// Checks the plan, starts the generator and logs one session in and out. Takes as long as
    /// that does, at most the plan's `answer_timeout`; then the run goes on by itself.
    ///
    /// # Errors
    /// See [`RunError`]. No load was made.
    pub fn start(plan: Plan, hooks: Hooks) -> Result<Handle, RunError> {
        check(&plan, &hooks)?;
        let plan = Arc::new(plan);
        let (swarm, reports) = Swarm::start(&plan)?;
        let room = log_one_in(&plan, &swarm)?;
        fits(&plan, room.longest_payload())?;
        let shared = Arc::new(Shared::default());
        let begin = shared.begin();
        let started_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_ms = u64::try_from(started_ms.as_millis()).unwrap_or(u64::MAX);
        let conductor =
            Conductor::new(plan, swarm, reports, hooks, shared.clone(), (begin, started_ms));
        Handle::of("conductor", shared, move || conductor.conduct())
            .map_err(|error| RunError::Plan(format!("cannot start a thread: {error}")))
    }
}

/// One session in and out: whether the target is there and lets the plan's users in, and what it takes.
fn log_one_in(plan: &Plan, swarm: &Swarm) -> Result<Room, RunError> {
    let done = swarm.probe();
    let knock = plan.target.addresses.first().copied().and_then(Knock::at);
    let deadline = clock::now() + length(plan.answer_timeout) + 2 * SECOND;
    loop {
        match done.recv_timeout(conduct::GLANCE) {
            Ok(done) => return done.map_err(|probe| refusal(plan, &probe)),
            Err(RecvTimeoutError::Timeout) if clock::now() < deadline => {
                if knock.as_ref().is_some_and(Knock::is_refused) {
                    let why = "nothing listens there; is a gateway running, and is this its port?";
                    return Err(RunError::Unreachable { address: address(plan), why: why.into() });
                }
            }
            Err(_) => return Err(refusal(plan, &Probe::silent())),
        }
    }
}

fn address(plan: &Plan) -> String {
    plan.target.addresses.first().map_or_else(String::new, ToString::to_string)
}

/// Fleets of one plan: a shard looks at each of them in each of its turns.
const MAX_FLEETS: usize = 1000;

/// What the types allow and makes no sense.
fn check(plan: &Plan, hooks: &Hooks) -> Result<(), RunError> {
    let wrong = |why: String| Err(RunError::Plan(why));
    if plan.fleets.is_empty() || plan.sessions() == 0 {
        return wrong("the plan has no sessions".into());
    }
    if plan.users() > u64::from(u32::MAX / 2) || plan.all_sessions() > u64::from(u32::MAX / 2) {
        return wrong("one generator makes at most 2 billion sessions".into());
    }
    if plan.fleets.len() > MAX_FLEETS {
        return wrong(format!("a plan has at most {MAX_FLEETS} fleets"));
    }
    for fleet in &plan.fleets {
        let name = &fleet.name;
        if !fleet.connect_rate.is_finite() || fleet.connect_rate <= 0.0 {
            return wrong(format!("fleet {name}: the connect rate must be above 0"));
        }
        let (slow, silent) = (fleet.manners.slow, fleet.manners.silent);
        if !(0.0..=1.0).contains(&slow) || !(0.0..=1.0).contains(&silent) || slow + silent > 1.0 {
            return wrong(format!("fleet {name}: shares of sessions are 0 to 1 together"));
        }
        if silent > 0.0 && fleet.work.traffic().is_some() {
            return wrong(format!(
                "fleet {name}: silent sessions are closed by the gateway, so they cannot be \
                 receivers whose messages are checked; give them a fleet that holds"
            ));
        }
        if let Work::Storm { cut: Cut::Kill | Cut::Stop, .. } = fleet.work
            && hooks.supervisor.is_none()
        {
            return wrong(format!(
                "fleet {name}: the gateway is to be restarted, and it is not ours; let this \
                 program start it (--spawn-gateway), or restart it yourself (cut = \"await\")"
            ));
        }
    }
    Ok(())
}

/// Whether the target takes what the plan writes.
fn fits(plan: &Plan, most: usize) -> Result<(), RunError> {
    for fleet in &plan.fleets {
        let payload = fleet.work.longest_payload();
        if payload > most {
            return Err(RunError::TooLong { fleet: fleet.name.clone(), payload, most });
        }
    }
    Ok(())
}

fn refusal(plan: &Plan, probe: &Probe) -> RunError {
    let words = if probe.words.is_empty() { String::new() } else { format!(" ({})", probe.words) };
    let why = match probe.failure {
        Failure::TimedOut if probe.in_login => {
            format!("it does not answer the login within {:?}", plan.answer_timeout)
        }
        Failure::TimedOut => "it does not answer; is a gateway running there?".to_owned(),
        // RFC 9001 section 4.8: 0x100 and the TLS alert; 120 is no_application_protocol.
        Failure::Transport(0x178) => format!(
            "it does not speak this version of the protocol (ALPN {}){words}",
            String::from_utf8_lossy(skein_protocol::ALPN)
        ),
        Failure::Transport(code) if (0x100..0x200).contains(&code) => {
            format!("its certificate, or ours of it, is not accepted{words}")
        }
        failure => format!("{failure}{words}"),
    };
    if probe.in_login {
        RunError::Refused { why }
    } else {
        RunError::Unreachable { address: address(plan), why }
    }
}

/// A reason with its words.
fn reason(kind: ReasonKind, detail: String) -> Reason {
    Reason { kind, detail }
}
