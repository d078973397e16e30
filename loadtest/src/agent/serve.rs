//! The side that makes load: one run at a time, for whoever may ask for it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore, mpsc};
use tokio::time::Instant;

use super::message::{Answer, Order};
use super::wire::{Door, Link, Secret, WireError, Writer};
use crate::clock::{self, Nanos};
use crate::outcome::{Snapshot, Step};
use crate::plan::Plan;
use crate::run::{self, Gate, Hooks, Run, Stage};
use crate::signals::Signals;

/// Connections at a time; further ones wait in the kernel. Only one of them can have a run.
const MAX_CONNECTIONS: usize = 8;

/// How often a run is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// How often whoever conducts hears from an agent, whatever happens.
const BEAT: Duration = Duration::from_millis(500);

/// Whoever conducts says something at least once a second. After this nobody is there any more, and the
/// load ends.
const SILENCE: Duration = Duration::from_secs(10);

/// Seconds and steps that wait to be sent. A connection that cannot take them for so long is as good as
/// none.
const WAITING: usize = 1024;

/// How long a step of a ramp waits to be judged.
const JUDGEMENT: Duration = Duration::from_secs(30);

/// Why no agent can be had.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The address cannot be listened at.
    #[error("{address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Everybody could make it send load.
    #[error(
        "{0} can be reached from other machines, so a secret is needed: write at least 16 bytes into \
         a file, and give it here (--secret FILE) and to the run (--agent-secret FILE)"
    )]
    Open(SocketAddr),
    /// Something that it needs cannot be had.
    #[error("{0}")]
    Other(String),
}

/// Serves until a signal comes. `ready` hears where.
///
/// # Errors
/// See [`AgentError`].
pub fn serve(
    address: (&str, u16),
    secret: Option<Secret>,
    signals: &Signals,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), AgentError> {
    let other = |error: &dyn std::fmt::Display| AgentError::Other(error.to_string());
    let at =
        |source| AgentError::Listen { address: format!("{}:{}", address.0, address.1), source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| other(&error))?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.map_err(at)?;
        let own = listener.local_addr().map_err(at)?;
        if secret.is_none() && !own.ip().is_loopback() {
            return Err(AgentError::Open(own));
        }
        let door = Door::new(secret).map_err(|error| other(&error))?;
        tracing::info!(address = %own, "listening");
        ready(own);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let run = Arc::new(Mutex::new(()));
        let mut look = tokio::time::interval(BEAT);
        let mut visits = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                _ = look.tick() => {
                    while visits.try_join_next().is_some() {}
                    if signals.count() > 0 {
                        // Runs that go on end with the process; whoever conducts sees that.
                        return Ok(());
                    }
                }
                accepted = listener.accept() => {
                    let Ok((stream, peer)) = accepted else {
                        // Of one connection, or for want of descriptors: both pass.
                        tokio::time::sleep(BEAT).await;
                        continue;
                    };
                    let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
                    let (door, run) = (door.clone(), run.clone());
                    visits.spawn(async move {
                        if let Err(error) = visit(&door, stream, peer, run).await {
                            tracing::warn!(%peer, %error, "a control connection ended");
                        }
                        drop(place);
                    });
                }
            }
        }
    })
}

async fn visit(
    door: &Door,
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
    run: Arc<Mutex<()>>,
) -> Result<(), WireError> {
    let Link { mut reader, writer } = door.let_in(stream).await?;
    let (orders, mut heard) = mpsc::channel(WAITING);
    // Reading a frame must not be given up half-way, so it has a task of its own.
    let reading = tokio::spawn(async move {
        loop {
            let order = reader.next::<Order>().await;
            let is_last = order.is_err();
            if orders.send(order).await.is_err() || is_last {
                return;
            }
        }
    });
    let mut visit = Visit { writer, peer, run, place: None, share: None };
    let mut look = tokio::time::interval(GLANCE);
    let mut silent_since = Instant::now();
    let ended = loop {
        let done = tokio::select! {
            order = heard.recv() => {
                silent_since = Instant::now();
                match order {
                    Some(Ok(order)) => visit.obey(order).await,
                    Some(Err(error)) => Err(error),
                    None => Err(WireError::Closed),
                }
            }
            _ = look.tick() => visit.look().await,
        };
        match done {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            // With no run of it here that is how it goes.
            Err(WireError::Closed) if visit.place.is_none() => break Ok(()),
            Err(error) => break Err(error),
        }
        if silent_since.elapsed() > SILENCE {
            break Err(WireError::Silent);
        }
    };
    reading.abort();
    visit.end().await;
    ended
}

/// One control connection.
struct Visit {
    writer: Writer,
    peer: SocketAddr,
    run: Arc<Mutex<()>>,
    /// While this is there, no other run can be made.
    place: Option<Place>,
    share: Option<Share>,
}

/// The one run that can be made is this peer's.
struct Place {
    peer: SocketAddr,
    _guard: OwnedMutexGuard<()>,
}

impl Drop for Place {
    fn drop(&mut self) {
        tracing::info!(peer = %self.peer, "released");
    }
}

/// A share of a run that goes on.
struct Share {
    handle: run::Handle,
    gate: Gate,
    begin: Nanos,
    arrived: Option<Stage>,
    events: Receiver<Answer>,
    verdicts: SyncSender<Vec<String>>,
    told: Instant,
}

impl Visit {
    /// `false`: nothing more is to come.
    async fn obey(&mut self, order: Order) -> Result<bool, WireError> {
        match order {
            Order::Ping(number) => {
                let now = clock::now();
                self.writer.send(&Answer::Pong(number, now)).await?;
            }
            Order::Take => {
                let answer = self.take().map_or_else(Answer::Refused, |()| Answer::Taken);
                self.writer.send(&answer).await?;
            }
            Order::Prepare(plan) => {
                let prepared = self.prepare(*plan).await;
                if let Err(why) = &prepared {
                    tracing::warn!(peer = %self.peer, why, "run cannot be made");
                }
                let answer = prepared.map_or_else(Answer::Refused, |()| Answer::Ready);
                self.writer.send(&answer).await?;
            }
            Order::Begin(at) => {
                if let Some(share) = &mut self.share {
                    tracing::info!(peer = %self.peer, "run begun");
                    share.begin = at;
                    share.gate.open(Stage::Start, at);
                }
            }
            Order::Load(after) => {
                if let Some(share) = &self.share {
                    share.gate.open(Stage::Load, share.begin.saturating_add(after));
                }
            }
            Order::Judged(broken) => {
                if let Some(share) = &self.share {
                    // Nobody waits for it any more if the run was stopped.
                    let _ = share.verdicts.try_send(broken);
                }
            }
            Order::Stop => {
                if let Some(share) = &self.share {
                    share.handle.stop();
                }
            }
            Order::Release => return Ok(false),
        }
        Ok(true)
    }

    fn take(&mut self) -> Result<(), String> {
        let guard = self.run.clone().try_lock_owned();
        let guard = guard.map_err(|_| {
            tracing::info!(peer = %self.peer, "refused, because it is taken");
            "it makes the load of another run".to_owned()
        })?;
        tracing::info!(peer = %self.peer, "taken");
        self.place = Some(Place { peer: self.peer, _guard: guard });
        Ok(())
    }

    async fn prepare(&mut self, plan: Plan) -> Result<(), String> {
        if self.place.is_none() || self.share.is_some() {
            return Err("a run is prepared once, by whoever has taken the agent".into());
        }
        let (scenario, sessions) = (plan.scenario.clone(), plan.sessions());
        let gate = Gate::default();
        let (sender, events) = sync_channel(WAITING);
        let (verdicts, verdict) = sync_channel(1);
        let seconds = sender.clone();
        let hooks = Hooks {
            gate: Some(gate.clone()),
            // One that cannot be sent is missing in the live view; the outcome has it.
            listener: Some(Box::new(move |point| {
                let _ = seconds.try_send(Answer::Second(Box::new(point.clone())));
            })),
            judge: plan.ladder.is_some().then(|| {
                let ask = move |step: &Step| ask(step, &sender, &verdict);
                Box::new(ask) as run::Judge
            }),
            ..Hooks::default()
        };
        let started = tokio::task::spawn_blocking(move || Run::start(plan, hooks)).await;
        let handle = started
            .map_err(|error| format!("it broke: {error}"))?
            .map_err(|error| error.to_string())?;
        tracing::info!(peer = %self.peer, scenario, sessions, "run is ready");
        self.share = Some(Share {
            handle,
            gate,
            begin: 0,
            arrived: None,
            events,
            verdicts,
            told: Instant::now(),
        });
        Ok(())
    }

    /// Says what has happened since. `false`: the run is over, and that was said too.
    async fn look(&mut self) -> Result<bool, WireError> {
        let Some(share) = &mut self.share else { return Ok(true) };
        let is_over = share.handle.is_finished();
        while let Ok(event) = share.events.try_recv() {
            self.writer.send(&event).await?;
        }
        let waiting = share.gate.waiting();
        if waiting != share.arrived
            && let Some(stage) = waiting
        {
            share.arrived = waiting;
            self.writer.send(&Answer::Arrived(stage)).await?;
        }
        if share.told.elapsed() >= BEAT {
            share.told = Instant::now();
            // The seconds go by themselves.
            let now = Snapshot { last: None, ..share.handle.snapshot() };
            self.writer.send(&Answer::Now(Box::new(now))).await?;
        }
        if !is_over {
            return Ok(true);
        }
        let Some(share) = self.share.take() else { return Ok(true) };
        let last = match share.handle.finish() {
            Ok(outcome) => {
                let connected = outcome.sessions.connected;
                let acked_per_second = outcome.rate_per_second().round();
                let valid = outcome.valid();
                tracing::info!(peer = %self.peer, connected, acked_per_second, valid, "run ended");
                Answer::Over(Box::new(outcome))
            }
            Err(why) => {
                tracing::error!(peer = %self.peer, why, "run broke");
                Answer::Broken(why)
            }
        };
        // Before that is said: whoever hears it finds the agent free.
        self.place = None;
        self.writer.send(&last).await?;
        Ok(true)
    }

    /// Whoever conducts is gone, or gives the run up: what still runs ends at once. Only then is the
    /// agent free, and only then is the connection closed.
    async fn end(mut self) {
        let Some(share) = self.share.take() else { return };
        tracing::info!(peer = %self.peer, "run is given up");
        share.handle.abandon();
        // Its judge waits for nobody.
        drop(share.verdicts);
        while !share.handle.is_finished() {
            // Room for what it says, though nobody hears it.
            while share.events.try_recv().is_ok() {}
            tokio::time::sleep(GLANCE).await;
        }
    }
}

/// Sends a step to be judged together with those of the other agents.
fn ask(step: &Step, to: &SyncSender<Answer>, verdict: &Receiver<Vec<String>>) -> Vec<String> {
    let nobody = || vec!["nobody judged it".to_owned()];
    // One that came too late for the step before is not for this one.
    while verdict.try_recv().is_ok() {}
    if to.try_send(Answer::Step(Box::new(step.clone()))).is_err() {
        return nobody();
    }
    verdict.recv_timeout(JUDGEMENT).unwrap_or_else(|_| nobody())
}
