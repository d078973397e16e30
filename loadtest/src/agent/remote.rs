//! The side that conducts, up to the moment at which every agent is ready, and what others see of it
//! from then on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::message::{Answer, Order};
use super::share::shares;
use super::together::Conductor;
use super::wire::{self, Link, Secret, WireError};
use crate::clock::{self, Nanos};
use crate::outcome::{Outcome, Reason, Snapshot};
use crate::plan::Plan;
use crate::run::Hooks;
use crate::scenario::HostPort;

/// Round trips that tell how far apart two clocks are. The shortest counts.
const PINGS: u64 = 9;

/// Why a run on several machines could not begin. Nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The plan cannot be cut, or has a hook that works on one machine only.
    #[error("{0}")]
    Plan(String),
    /// An agent is not there, or not one of ours, or cannot carry out its share.
    #[error("agent {agent}: {why}")]
    Agent {
        /// Which.
        agent: String,
        /// Why.
        why: String,
    },
    /// No thread or runtime could be had.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Hands out the shares of a plan. Takes as long as the agents need to log one session in each; then the
/// run goes on by itself, as a run on this machine does.
///
/// # Errors
/// See [`RemoteError`]. No load was made.
pub fn start(
    agents: &[HostPort],
    secret: Option<&Secret>,
    plan: Plan,
    hooks: Hooks,
) -> Result<Handle, RemoteError> {
    let parts = shares(&plan, agents.len()).map_err(RemoteError::Plan)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let names: Vec<String> = agents.iter().map(ToString::to_string).collect();
    let links = runtime.block_on(async {
        let calls = agents.iter().zip(parts).map(|(agent, part)| prepare(agent, secret, part));
        futures_util::future::join_all(calls).await
    });
    let mut ready = Vec::with_capacity(links.len());
    for (name, link) in names.iter().zip(links) {
        let agent = name.clone();
        ready.push(link.map_err(|error| RemoteError::Agent { agent, why: error.to_string() })?);
    }
    let shared = Arc::new(Shared::default());
    let watched = shared.clone();
    let thread = std::thread::Builder::new().name("agents".into()).spawn(move || {
        runtime.block_on(async {
            let conductor = Conductor::new(plan, hooks, names, ready, watched);
            conductor.conduct().await
        })
    })?;
    Ok(Handle { shared, thread })
}

/// A run that goes on elsewhere.
pub struct Handle {
    shared: Arc<Shared>,
    thread: JoinHandle<Outcome>,
}

/// What the conductor and everybody else see.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) stop: AtomicBool,
    pub(super) snapshot: Mutex<Snapshot>,
    pub(super) reasons: Mutex<Vec<Reason>>,
}

impl Handle {
    /// How it goes, of all agents together.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = lock(&self.shared.snapshot).clone();
        snapshot.reasons.extend(lock(&self.shared.reasons).iter().cloned());
        snapshot
    }

    /// Ends it early, in order.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Somebody beside the run saw that its figures must not be believed.
    pub fn invalidate(&self, reason: Reason) {
        lock(&self.shared.reasons).push(reason);
    }

    /// Whether [`finish`](Self::finish) would return at once.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// What conducts broke.
    pub fn finish(self) -> Result<Outcome, String> {
        let mut outcome = self.thread.join().map_err(|_| "the conductor panicked".to_owned())?;
        outcome.reasons.append(&mut lock(&self.shared.reasons));
        Ok(outcome)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain data, whole between any two steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An agent that is ready to begin.
pub(super) struct Ready {
    pub(super) link: Link,
    /// Its clock less ours, nanoseconds.
    pub(super) apart: i128,
}

async fn prepare(
    agent: &HostPort,
    secret: Option<&Secret>,
    part: Plan,
) -> Result<Ready, WireError> {
    let patience = part.answer_timeout + wire::PATIENCE;
    let mut link = wire::call((agent.host.as_str(), agent.port), secret).await?;
    let apart = tokio::time::timeout(wire::PATIENCE, clocks(&mut link)).await;
    let apart = apart.unwrap_or(Err(WireError::Silent))?;
    link.writer.send(&Order::Prepare(Box::new(part))).await?;
    let answer = tokio::time::timeout(patience, link.reader.next::<Answer>()).await;
    match answer.unwrap_or(Err(WireError::Silent))? {
        Answer::Ready => Ok(Ready { link, apart }),
        Answer::Refused(why) => Err(WireError::Refused(why)),
        _ => Err(WireError::Refused("it does not keep to the order of messages".into())),
    }
}

/// How far its clock is from ours: what it said in the shortest round trip, which it said about half-way.
async fn clocks(link: &mut Link) -> Result<i128, WireError> {
    let mut best: Option<(Nanos, i128)> = None;
    for number in 0..PINGS {
        let sent = clock::now();
        link.writer.send(&Order::Ping(number)).await?;
        let Answer::Pong(same, theirs) = link.reader.next::<Answer>().await? else {
            return Err(WireError::Refused("it does not keep to the order of messages".into()));
        };
        let trip = clock::now() - sent;
        let apart = i128::from(theirs) - i128::from(sent + trip / 2);
        if same == number && best.is_none_or(|(shortest, _)| trip < shortest) {
            best = Some((trip, apart));
        }
    }
    best.map(|(_, apart)| apart).ok_or(WireError::Silent)
}
