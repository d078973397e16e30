//! A run that goes on elsewhere: keeps the agents in step, shows what they do, and adds up what they
//! found.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::gauge::Gauge;
use super::message::{Answer, Order};
use super::remote::Ready;
use super::wire::{Link, Reader, WireError, Writer};
use crate::clock::{self, Nanos, SECOND};
use crate::environment;
use crate::outcome::{Generator, Outcome, Point, Reason, ReasonKind, Snapshot, Step};
use crate::plan::Plan;
use crate::run::{Gate, Hooks, Shared, Stage, lock};
use crate::share::Share;

/// An agent says something twice a second. One that has said nothing for this long is lost.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// How often agents hear from here, whatever happens.
const BEAT: Duration = Duration::from_secs(1);

/// How often everything is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// From an order to the moment that it is about: every agent has it by then.
const AHEAD: Nanos = SECOND / 2;

/// Messages that wait between tasks here. Those of one agent wait in its connection beyond that.
const WAITING: usize = 1024;

/// What is known of an agent.
struct Agent {
    name: String,
    apart: i128,
    orders: mpsc::Sender<Order>,
    heard: Instant,
    arrived: Option<Stage>,
    snapshot: Snapshot,
    /// Its next unjudged step.
    step: Option<Step>,
    outcome: Option<Outcome>,
    lost: bool,
}

impl Agent {
    /// Takes part in what is still to come.
    fn is_on(&self) -> bool {
        !self.lost && self.outcome.is_none()
    }

    /// Waits in its connection if that is full; one that stays full is silent soon.
    fn tell(&self, order: Order) {
        let _ = self.orders.try_send(order);
    }
}

type Heard = (usize, Result<Answer, WireError>);

/// Conducts one run.
pub(super) struct Conductor {
    plan: Plan,
    hooks: Hooks,
    gate: Gate,
    shared: Arc<Shared>,
    agents: Vec<Agent>,
    heard: mpsc::Receiver<Heard>,
    /// When the ramp began, on our clock.
    begin: Option<Nanos>,
    loaded: bool,
    /// Seconds that not all agents have told.
    open: BTreeMap<u32, (usize, Point)>,
    last: Option<Point>,
    /// Of the target, seen from here.
    target: Gauge,
    told: Instant,
    stopped: bool,
}

impl Conductor {
    pub(super) fn new(
        plan: Plan,
        mut hooks: Hooks,
        ready: Vec<Ready>,
        shared: Arc<Shared>,
    ) -> Self {
        let (sender, heard) = mpsc::channel(WAITING);
        let agents = ready.into_iter().enumerate().map(|(index, ready)| {
            let Ready { name, link: Link { reader, writer }, apart } = ready;
            let (orders, mailbox) = mpsc::channel(WAITING);
            tokio::spawn(read(index, reader, sender.clone()));
            tokio::spawn(write(mailbox, writer));
            Agent {
                name,
                apart,
                orders,
                heard: Instant::now(),
                arrived: None,
                snapshot: Snapshot::default(),
                step: None,
                outcome: None,
                lost: false,
            }
        });
        let agents = agents.collect();
        let gate = hooks.gate.take().unwrap_or_else(|| {
            let open = Gate::default();
            open.open(Stage::Start, 0);
            open.open(Stage::Load, 0);
            open
        });
        Self {
            plan,
            hooks,
            gate,
            shared,
            agents,
            heard,
            begin: None,
            loaded: false,
            open: BTreeMap::new(),
            last: None,
            target: Gauge::default(),
            told: Instant::now(),
            stopped: false,
        }
    }

    pub(super) async fn conduct(mut self) -> Outcome {
        let mut look = tokio::time::interval(GLANCE);
        while self.agents.iter().any(Agent::is_on) {
            tokio::select! {
                heard = self.heard.recv() => {
                    if let Some((index, answer)) = heard {
                        self.take(index, answer);
                    }
                }
                _ = look.tick() => self.look(),
            }
        }
        self.finish()
    }

    fn take(&mut self, index: usize, answer: Result<Answer, WireError>) {
        let agent = &mut self.agents[index];
        if !agent.is_on() {
            return;
        }
        agent.heard = Instant::now();
        match answer {
            Ok(Answer::Arrived(stage)) => agent.arrived = Some(stage),
            Ok(Answer::Second(point)) => self.second(*point),
            Ok(Answer::Now(snapshot)) => {
                agent.snapshot = *snapshot;
                self.publish();
            }
            Ok(Answer::Step(step)) => {
                agent.step = Some(*step);
                self.judge();
            }
            Ok(Answer::Over(outcome)) => agent.outcome = Some(*outcome),
            Ok(Answer::Broken(why)) | Ok(Answer::Refused(why)) => self.lose(index, &why),
            Ok(Answer::Pong(..) | Answer::Taken | Answer::Ready) => {}
            Err(error) => self.lose(index, &error.to_string()),
        }
    }

    fn look(&mut self) {
        for index in 0..self.agents.len() {
            if self.agents[index].is_on() && self.agents[index].heard.elapsed() > SILENCE {
                let why = format!("it has said nothing for {} s", SILENCE.as_secs());
                self.lose(index, &why);
            }
        }
        if self.shared.is_stopped() {
            self.stop();
        }
        if self.told.elapsed() >= BEAT {
            self.told = Instant::now();
            self.tell(|_| Order::Ping(0));
        }
        if let Some(stage) = self.all_arrived() {
            self.let_on(stage);
        }
    }

    /// The stage that all agents wait for.
    fn all_arrived(&self) -> Option<Stage> {
        let wanted = match (self.begin, self.loaded) {
            (None, _) => Stage::Start,
            (Some(_), false) => Stage::Load,
            (Some(_), true) => return None,
        };
        let mut on = self.agents.iter().filter(|agent| agent.is_on()).peekable();
        on.peek()?;
        on.all(|agent| agent.arrived == Some(wanted)).then_some(wanted)
    }

    /// All begin at the same moment, as soon as they may.
    fn let_on(&mut self, stage: Stage) {
        self.gate.arrive(stage);
        if self.gate.opened(stage).is_none() {
            return;
        }
        let at = clock::now() + AHEAD;
        match self.begin {
            None => {
                self.begin = Some(at);
                self.shared.begin_at(at);
                self.tell(|agent| {
                    let theirs = i128::from(at) + agent.apart;
                    Order::Begin(Nanos::try_from(theirs).unwrap_or_default())
                });
            }
            Some(begin) => {
                // From the common beginning, so that seconds fall together to the nanosecond.
                self.loaded = true;
                self.tell(|_| Order::Load(at - begin));
            }
        }
    }

    fn tell(&self, order: impl Fn(&Agent) -> Order) {
        self.agents.iter().filter(|agent| agent.is_on()).for_each(|agent| agent.tell(order(agent)));
    }

    fn stop(&mut self) {
        if !self.stopped {
            self.stopped = true;
            self.tell(|_| Order::Stop);
        }
    }

    /// An agent is gone: the load is not the one that was asked for any more, so the run ends.
    fn lose(&mut self, index: usize, why: &str) {
        let agent = &mut self.agents[index];
        agent.lost = true;
        let when = match self.begin {
            Some(begin) => {
                format!("{:.0} s into the run", seconds(clock::now().saturating_sub(begin)))
            }
            None => "before the run".into(),
        };
        let detail = format!("agent {} is gone: {why}, {when}", agent.name);
        lock(&self.shared.reasons).push(Reason { kind: ReasonKind::AgentLost, detail });
        self.stop();
        self.judge();
    }

    /// A second of one agent.
    fn second(&mut self, point: Point) {
        let on = self.agents.iter().filter(|agent| agent.is_on()).count();
        let second = point.second;
        let (seconds, phase) = (point.seconds, point.phase);
        let empty = || (0, Point { second, seconds, phase, ..Point::default() });
        let open = self.open.entry(second).or_insert_with(empty);
        open.0 += 1;
        // One whose histograms are none is left out of the live view; its outcome is refused.
        let _ = open.1.merge(&point);
        // What is older will not be complete any more: somebody was lost.
        while let Some(first) = self.open.first_entry()
            && (first.get().0 >= on || *first.key() + 3 < second)
        {
            let (_, mut whole) = first.remove();
            self.target.look(&self.hooks, &mut whole);
            if let Some(listener) = &mut self.hooks.listener {
                listener(&whole);
            }
            self.last = Some(whole);
        }
    }

    fn publish(&self) {
        let on = || self.agents.iter().filter(|agent| agent.is_on()).map(|agent| &agent.snapshot);
        let mut whole = Snapshot {
            elapsed: self.begin.map_or(0.0, |at| seconds(clock::now().saturating_sub(at))),
            phase: on().map(|one| one.phase).min().unwrap_or_default(),
            remaining: on().filter_map(|one| one.remaining).reduce(f64::max),
            last: self.last.clone(),
            ..Snapshot::default()
        };
        for one in on() {
            whole.sessions.merge(&one.sessions);
            whole.correctness.merge(&one.correctness);
            whole.connecting += one.connecting;
        }
        for agent in self.agents.iter().filter(|agent| agent.is_on()) {
            whole.reasons.extend(named(&agent.name, &agent.snapshot.reasons));
        }
        *lock(&self.shared.snapshot) = whole;
    }

    /// A step of a ramp is judged when everybody's is there: what breaks it for one breaks it for all.
    fn judge(&mut self) {
        let on = || self.agents.iter().filter(|agent| agent.is_on());
        if on().count() == 0 || on().any(|agent| agent.step.is_none()) {
            return;
        }
        let steps = self.agents.iter_mut().filter(|agent| agent.is_on());
        let steps: Vec<Step> = steps.filter_map(|agent| agent.step.take()).collect();
        let Some(whole) = steps.into_iter().reduce(|mut whole, step| {
            whole.merge(&step);
            whole
        }) else {
            return;
        };
        let mut broken = whole.broken.clone();
        if let Some(judge) = &mut self.hooks.judge {
            broken.extend(judge(&whole));
        }
        self.tell(|_| Order::Judged(broken.clone()));
    }

    fn finish(mut self) -> Outcome {
        let ended_early = self.shared.is_stopped();
        let mut outcomes: Vec<(String, Outcome)> = Vec::new();
        for agent in &mut self.agents {
            if let Some(mut outcome) = agent.outcome.take() {
                outcome.shares = vec![Share { run: self.plan.id, agent: Some(agent.name.clone()) }];
                outcome.reasons = named(&agent.name, &outcome.reasons).collect();
                outcomes.push((agent.name.clone(), outcome));
            }
        }
        let mut generators = Vec::new();
        let mut whole: Option<Outcome> = None;
        for (name, outcome) in outcomes {
            generators.push(Generator::of(&name, &outcome));
            whole = Some(match whole {
                None => outcome,
                Some(mut sum) => {
                    if let Err(error) = sum.merge(&outcome) {
                        let detail = format!("agent {name}: {error}");
                        let kind = ReasonKind::GeneratorFailed;
                        sum.reasons.push(Reason { kind, detail });
                    }
                    sum
                }
            });
        }
        let mut whole = whole.unwrap_or_else(|| Outcome::nothing(&self.plan));
        whole.plan = self.plan.without_secrets();
        whole.sessions.planned = self.plan.sessions();
        whole.generators = generators;
        whole.environment.command = environment::command();
        // One that was ended because an agent was lost is invalid, not ended by somebody.
        whole.ended_early = ended_early;
        self.target.put_into(&mut whole);
        whole
    }
}

fn named<'a>(name: &'a str, reasons: &'a [Reason]) -> impl Iterator<Item = Reason> + 'a {
    reasons.iter().map(move |reason| Reason {
        kind: reason.kind,
        detail: format!("agent {name}: {}", reason.detail),
    })
}

fn seconds(of: Nanos) -> f64 {
    of as f64 / SECOND as f64
}

async fn read(index: usize, mut reader: Reader, to: mpsc::Sender<Heard>) {
    loop {
        let answer = reader.next::<Answer>().await;
        let is_last = answer.is_err();
        if to.send((index, answer)).await.is_err() || is_last {
            return;
        }
    }
}

/// Ends with the connection, whose end the reader sees as well.
async fn write(mut orders: mpsc::Receiver<Order>, mut writer: Writer) {
    while let Some(order) = orders.recv().await {
        if writer.send(&order).await.is_err() {
            return;
        }
    }
}
