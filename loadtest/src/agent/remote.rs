//! The side that conducts, up to the moment at which every agent is ready.

use std::sync::Arc;
use std::time::Duration;

use super::message::{Answer, Order};
use super::share::shares;
use super::together::Conductor;
use super::wire::{self, Link, Secret, WireError};
use crate::clock::{self, Nanos};
use crate::plan::Plan;
use crate::run::{Handle, Hooks, Shared};
use crate::scenario::HostPort;

/// Round trips that tell how far apart two clocks are. The shortest counts.
const PINGS: u64 = 9;

/// It answers something that was not asked.
const DISORDER: &str = "it does not keep to the order of messages";

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
/// See [`RemoteError`]. No load was made, and every agent that had been taken is free again.
pub fn start(
    agents: &[HostPort],
    secret: Option<&Secret>,
    plan: Plan,
    hooks: Hooks,
) -> Result<Handle, RemoteError> {
    let parts = shares(&plan, agents.len()).map_err(RemoteError::Plan)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let patience = plan.answer_timeout + wire::PATIENCE;
    let ready = runtime.block_on(async {
        let mut called = call(agents, secret).await?;
        match prepare(&mut called, parts, patience).await {
            Ok(()) => Ok(called),
            Err(error) => {
                release(called).await;
                Err(error)
            }
        }
    })?;
    let shared = Arc::new(Shared::default());
    let watched = shared.clone();
    let conduct = move || {
        runtime.block_on(async { Conductor::new(plan, hooks, ready, watched).conduct().await })
    };
    Ok(Handle::of("agents", shared, conduct)?)
}

/// An agent that answers; all of them are ready when the run begins.
pub(super) struct Ready {
    pub(super) name: String,
    pub(super) link: Link,
    /// Its clock less ours, nanoseconds.
    pub(super) apart: i128,
}

impl Ready {
    /// Says one thing and waits for the answer to it.
    async fn ask(&mut self, order: Order, patience: Duration) -> Result<Answer, RemoteError> {
        let asked = async {
            self.link.writer.send(&order).await?;
            self.link.reader.next::<Answer>().await
        };
        let answer = tokio::time::timeout(patience, asked).await;
        match answer.unwrap_or(Err(WireError::Silent)) {
            Ok(Answer::Refused(why)) => Err(self.failed(&why)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, why: &dyn std::fmt::Display) -> RemoteError {
        RemoteError::Agent { agent: self.name.clone(), why: why.to_string() }
    }
}

/// Calls all agents at once. None of them is taken by that.
async fn call(agents: &[HostPort], secret: Option<&Secret>) -> Result<Vec<Ready>, RemoteError> {
    let calls = agents.iter().map(async |agent| {
        let called = async {
            let mut link = wire::call((agent.host.as_str(), agent.port), secret).await?;
            let apart = tokio::time::timeout(wire::PATIENCE, clocks(&mut link)).await;
            Ok((link, apart.unwrap_or(Err(WireError::Silent))?))
        };
        let name = agent.to_string();
        match called.await {
            Ok((link, apart)) => Ok(Ready { name, link, apart }),
            Err::<_, WireError>(error) => {
                Err(RemoteError::Agent { agent: name, why: error.to_string() })
            }
        }
    });
    futures_util::future::join_all(calls).await.into_iter().collect()
}

/// Every agent is ours and has its share ready.
async fn prepare(
    agents: &mut [Ready],
    parts: Vec<Plan>,
    patience: Duration,
) -> Result<(), RemoteError> {
    // One after the other, and everybody in the same order: of two runs that want the same agents at the
    // same moment one gets them all, instead of each some.
    let mut in_order: Vec<&mut Ready> = agents.iter_mut().collect();
    in_order.sort_by(|one, other| one.name.cmp(&other.name));
    for agent in in_order {
        match agent.ask(Order::Take, wire::PATIENCE).await? {
            Answer::Taken => {}
            _ => return Err(agent.failed(&DISORDER)),
        }
    }
    let ready = agents.iter_mut().zip(parts).map(async |(agent, part)| {
        match agent.ask(Order::Prepare(Box::new(part)), patience).await? {
            Answer::Ready => Ok(()),
            _ => Err(agent.failed(&DISORDER)),
        }
    });
    futures_util::future::join_all(ready).await.into_iter().collect()
}

/// Waits until every agent is free again, so that the next run finds it so.
async fn release(agents: Vec<Ready>) {
    let released = agents.into_iter().map(async |mut agent| {
        if agent.link.writer.send(&Order::Release).await.is_ok() {
            // It closes the connection when it is free.
            while agent.link.reader.next::<Answer>().await.is_ok() {}
        }
    });
    // One that does not answer cannot be helped from here.
    let _ = tokio::time::timeout(wire::PATIENCE, futures_util::future::join_all(released)).await;
}

/// How far its clock is from ours: what it said in the shortest round trip, which it said about half-way.
async fn clocks(link: &mut Link) -> Result<i128, WireError> {
    let mut best: Option<(Nanos, i128)> = None;
    for number in 0..PINGS {
        let sent = clock::now();
        link.writer.send(&Order::Ping(number)).await?;
        let Answer::Pong(same, theirs) = link.reader.next::<Answer>().await? else {
            return Err(WireError::Refused(DISORDER.into()));
        };
        let trip = clock::now() - sent;
        let apart = i128::from(theirs) - i128::from(sent + trip / 2);
        if same == number && best.is_none_or(|(shortest, _)| trip < shortest) {
            best = Some((trip, apart));
        }
    }
    best.map(|(_, apart)| apart).ok_or(WireError::Silent)
}
