//! The state of the world and its steps.
//!
//! A request and its answer are one step: what others do in between is the same as what they do
//! before or after, because an answer changes the memory of one gateway only. An answer that is
//! lost leaves its request on its way, to be carried out at any later moment or never.

use std::sync::Arc;

use skein_protocol::Seq;
use skein_storage::scylla::append::{AppendMachine, Outcome, Reply, Request, Step};
use stateright::{Model, Property};

use crate::cluster::{Batch, Cluster, Late, Msg, Row};
use crate::coverage::{Coverage, Event};
use crate::gateway::{Gateway, Handled, Lane, Memory, Send};
use crate::properties;
use crate::scene::{Bug, Scene, Trouble};

/// What a client knows of its message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    /// A bit for each post that has arrived.
    sent: u8,
    /// The log's head when the first of them did: the most that the client can have known.
    known: Seq,
    /// A bit for each number with which it was acknowledged.
    pub(crate) acknowledged: u16,
}

impl Client {
    pub(crate) fn has_sent_all(&self, posts: usize) -> bool {
        self.sent.count_ones() as usize == posts
    }
}

/// A promise of the store that was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Breach {
    /// An append failed, and some of its rows are in the log.
    FailedButThere,
    /// An append has ended, and one of its batches may still be applied.
    EndedButOnItsWay,
}

/// The world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) cluster: Cluster,
    pub(crate) gateways: [Gateway; 2],
    pub(crate) clients: Vec<Client>,
    /// What may still go wrong.
    pub(crate) left: Trouble,
    pub(crate) breach: Option<Breach>,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// A message arrives: the post with this place in the scene.
    Post(Msg, usize),
    /// A gateway reads the conversation. Plain reads may not see a torn batch.
    Load { gateway: usize, head_sees_torn: bool, rows_see_torn: bool },
    /// What a gateway asks for is carried out and answered.
    Answer(usize),
    /// The answer does not come.
    Lose(usize),
    /// What a gateway asks for is known not to have left it.
    NotSent(usize),
    /// A batch that nobody waits for is carried out.
    CarryOut(usize),
    /// A gateway loses its memory.
    Crash(usize),
    /// A gateway forgets the conversation, because nothing happens there.
    Forget(usize),
    /// A partition's head goes away.
    ExpireHead(u64),
    /// Somebody who is ahead of the log appends at this number, and is answered at once.
    Stray(Seq),
}

/// A scene, explored.
#[derive(Debug, Clone)]
pub(crate) struct AppendModel {
    pub(crate) scene: Arc<Scene>,
    pub(crate) coverage: Arc<Coverage>,
}

impl AppendModel {
    pub(crate) fn new(scene: Scene) -> Self {
        Self { scene: Arc::new(scene), coverage: Arc::default() }
    }

    fn post(&self, state: &mut State, msg: Msg, place: usize) {
        let client = &mut state.clients[msg as usize];
        let posts = &self.scene.posts[msg as usize];
        if client.sent == 0 {
            client.known = state.cluster.walk(0, true);
        }
        client.sent |= 1 << place;
        let is_silent = self.scene.has(Bug::SilentFirstAttempt) && !posts[place].is_repetition;
        let after = (!is_silent).then_some(client.known);
        if client.has_sent_all(posts.len()) {
            // Not needed any more: states that differ in it alone are one.
            client.known = 0;
        }
        let send = Send { msg, after, is_believed_new: false };
        self.handle_send(state, posts[place].to, send);
    }

    fn handle_send(&self, state: &mut State, gateway: usize, send: Send) {
        let Gateway { stamp, memory } = &mut state.gateways[gateway];
        match memory {
            Memory::Nothing => *memory = Memory::Loading(vec![send]),
            Memory::Loading(queue) => queue.push(send),
            Memory::Ready(lane) => {
                match lane.handle_send(send, *stamp, &state.cluster, self.scene.rules) {
                    Handled::Waits => {}
                    Handled::Known { seq, by_scan } => {
                        if by_scan {
                            self.coverage.saw(Event::FoundByScan);
                        }
                        self.acknowledge(state, gateway, send.msg, seq);
                    }
                }
            }
        }
    }

    fn acknowledge(&self, state: &mut State, gateway: usize, msg: Msg, seq: Seq) {
        let acknowledged = &mut state.clients[msg as usize].acknowledged;
        let stamp = state.cluster.row(seq, true).map(|row| row.stamp);
        if *acknowledged != 0 && stamp != Some(state.gateways[gateway].stamp) {
            self.coverage.saw(Event::AcknowledgedByBoth);
        }
        *acknowledged |= 1 << seq;
    }

    fn load(&self, state: &mut State, gateway: usize, head_sees: bool, rows_see: bool) {
        if !self.scene.has(Bug::PlainLoad) {
            state.cluster.complete_all();
        }
        let head = state.cluster.walk(0, head_sees);
        let from = (head + 1).saturating_sub(self.scene.rules.window as Seq).max(1);
        let tail = (from..=head).filter_map(|seq| state.cluster.row(seq, rows_see));
        let lane = Lane::new(head, tail.map(|row| row.msg).collect());
        let before = std::mem::replace(&mut state.gateways[gateway].memory, Memory::Ready(lane));
        if let Memory::Loading(queue) = before {
            queue.into_iter().for_each(|send| self.handle_send(state, gateway, send));
        }
    }

    fn answer(&self, state: &mut State, gateway: usize) {
        let Some(append) = state.gateways[gateway].in_flight() else { return };
        let (request, first) = (append.request.clone(), *append.machine.numbers().start());
        let rows = append.machine.rows().to_vec();
        let is_in_doubt = append.machine.is_in_doubt();
        let is_conditional = !self.scene.has(Bug::Unconditional);
        let reply = match &request {
            Request::Heads { .. } if self.scene.has(Bug::NoEvidence) => {
                Reply::Heads(vec![first - 1])
            }
            request => state.cluster.answer(request, first, &rows, is_conditional),
        };
        if reply == Reply::Applied {
            self.note_applied(state, first, rows.len());
            if is_in_doubt {
                self.coverage.saw(Event::DoubtWasRepeated);
            }
        }
        let asked_for_rows = matches!(request, Request::Rows { .. });
        let outcome = self.reply(state, gateway, reply);
        match outcome {
            Some(Outcome::Appended) if asked_for_rows => self.coverage.saw(Event::DoubtWasOurs),
            Some(Outcome::Conflict) if asked_for_rows => self.coverage.saw(Event::DoubtWasTheirs),
            Some(Outcome::Conflict) => self.coverage.saw(Event::Conflict),
            _ => {}
        }
        self.end(state, gateway, outcome);
    }

    /// Hands a reply to the machine.
    fn reply(&self, state: &mut State, gateway: usize, reply: Reply<Row>) -> Option<Outcome> {
        let Memory::Ready(lane) = &mut state.gateways[gateway].memory else { return None };
        let mut step = lane.in_flight.as_mut()?.machine.handle_reply(reply);
        if matches!(step, Step::Send(Request::Rows { .. })) {
            match self.scene.bug {
                Some(Bug::DoubtIsSuccess) => step = Step::Done(Outcome::Appended),
                Some(Bug::DoubtIsConflict) => step = Step::Done(Outcome::Conflict),
                _ => {}
            }
        }
        state.gateways[gateway].follow(step)
    }

    fn note_applied(&self, state: &State, first: Seq, count: usize) {
        let layout = state.cluster.layout();
        let bucket = layout.bucket(first);
        if layout.bucket(first + count as Seq - 1) != bucket {
            self.coverage.saw(Event::Overhang);
        }
        let is_first_here =
            !state.cluster.rows().iter().any(|p| p.bucket == bucket && p.seq < first);
        if first > 1 && is_first_here {
            let is_behind_overhang = layout.bucket(first - 1) == bucket;
            self.coverage.saw(Event::Opened);
            if is_behind_overhang {
                self.coverage.saw(Event::OpenedBehindOverhang);
            }
        }
    }

    /// The answer of a batch is lost; it stays on its way.
    fn lose(&self, state: &mut State, gateway: usize) {
        if !self.leave_on_its_way(state, gateway, Some(gateway)) {
            return;
        }
        state.left.lost -= 1;
        let outcome = match self.scene.bug {
            Some(Bug::UnknownIsSuccess) => Some(Outcome::Appended),
            Some(Bug::UnknownIsRefusal) => Some(Outcome::Unavailable),
            Some(Bug::UnknownIsFailure) => {
                let memory = &mut state.gateways[gateway].memory;
                if let Memory::Ready(lane) = memory {
                    let sends = lane.unacknowledged().into_iter();
                    let sends = sends.map(|send| Send { is_believed_new: true, ..send });
                    *memory = Memory::Loading(sends.collect());
                }
                state.cluster.disown_late(gateway);
                None
            }
            _ => self.reply(state, gateway, Reply::Unknown),
        };
        self.end(state, gateway, outcome);
    }

    /// Puts what a gateway asks for among the late batches; `false` if it asks for no batch.
    fn leave_on_its_way(&self, state: &mut State, gateway: usize, of: Option<usize>) -> bool {
        let Some(append) = state.gateways[gateway].in_flight() else { return false };
        let Request::Commit { bucket, expect } = append.request else { return false };
        let (first, rows) = (*append.machine.numbers().start(), append.machine.rows().to_vec());
        state.cluster.add_late(Late { of, batch: Batch { bucket, expect, first, rows } });
        true
    }

    fn not_sent(&self, state: &mut State, gateway: usize) {
        state.left.unsent -= 1;
        let outcome = self.reply(state, gateway, Reply::NotSent);
        self.end(state, gateway, outcome);
    }

    fn end(&self, state: &mut State, gateway: usize, outcome: Option<Outcome>) {
        self.drop_refused(state);
        let Some(outcome) = outcome else { return };
        let (layout, rules) = (state.cluster.layout(), self.scene.rules);
        let Gateway { stamp, memory } = &mut state.gateways[gateway];
        let Memory::Ready(lane) = memory else { return };
        if outcome == Outcome::Appended && lane.start_rest(layout) {
            return;
        }
        if outcome != Outcome::Appended && !self.scene.clocks_agree {
            let rows = state.cluster.rows();
            let is_there = |(seq, row)| rows.iter().any(|p| (p.seq, p.row) == (seq, row));
            if lane.in_flight.iter().flat_map(|append| append.numbered()).any(is_there) {
                state.breach = Some(Breach::FailedButThere);
            }
        }
        let is_coming =
            |late: &Late| late.of == Some(gateway) && state.cluster.may_apply(&late.batch);
        if state.cluster.late().iter().any(is_coming) {
            state.breach = Some(Breach::EndedButOnItsWay);
        }
        state.cluster.disown_late(gateway);
        match outcome {
            Outcome::Appended => {
                let durable = lane.appended(rules.window);
                lane.start_append(*stamp, layout, rules);
                for (msg, seq) in durable {
                    self.acknowledge(state, gateway, msg, seq);
                }
            }
            Outcome::Conflict if self.scene.has(Bug::NoReload) => {
                let sends = lane.unacknowledged();
                *lane = Lane::new(state.cluster.walk(0, true), Vec::new());
                for send in sends {
                    let send = Send { is_believed_new: true, ..send };
                    lane.handle_send(send, *stamp, &state.cluster, rules);
                }
            }
            Outcome::Conflict => *memory = Memory::Loading(lane.unacknowledged()),
            Outcome::Unavailable => {
                self.coverage.saw(Event::Refused);
                *memory = Memory::Nothing;
            }
        }
    }

    /// Late batches that no server will apply any more, because heads only rise, need not be
    /// explored.
    fn drop_refused(&self, state: &mut State) {
        if !self.scene.keeps_refused {
            (0..state.cluster.drop_refused()).for_each(|_| self.coverage.saw(Event::LateRefused));
        }
    }

    fn carry_out(&self, state: &mut State, place: usize) {
        let Late { batch, .. } = &state.cluster.late()[place];
        let (first, count) = (batch.first, batch.rows.len());
        let is_conditional = !self.scene.has(Bug::Unconditional);
        let tears = self.scene.has(Bug::PlainLoad);
        if state.cluster.carry_out_late(place, is_conditional, tears) {
            self.coverage.saw(Event::LateApplied);
            self.note_applied(state, first, count);
        } else {
            self.coverage.saw(Event::LateRefused);
        }
        self.drop_refused(state);
    }

    fn crash(&self, state: &mut State, gateway: usize) {
        state.left.crashes -= 1;
        let append = state.gateways[gateway].in_flight();
        if append.is_some_and(|append| append.machine.is_in_doubt()) {
            self.coverage.saw(Event::CrashInDoubt);
        }
        self.leave_on_its_way(state, gateway, None);
        state.cluster.disown_late(gateway);
        let Gateway { stamp, memory } = &mut state.gateways[gateway];
        *memory = Memory::Nothing;
        if !self.scene.clocks_agree {
            *stamp += 2;
        }
        self.drop_refused(state);
    }

    fn stray(&self, state: &mut State, first: Seq) {
        let rows = vec![Row { msg: 200, stamp: 200 }];
        let (mut machine, mut step) = AppendMachine::new(state.cluster.layout(), first, rows);
        while let Step::Send(request) | Step::SendLater(request) = step {
            let reply = match &request {
                Request::Heads { .. } if self.scene.has(Bug::NoEvidence) => {
                    Reply::Heads(vec![first - 1])
                }
                request => state.cluster.answer(request, first, machine.rows(), true),
            };
            step = machine.handle_reply(reply);
        }
    }
}

impl Model for AppendModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let gateways = [0, 1].map(|stamp| {
            let stamp = if self.scene.clocks_agree { 0 } else { stamp };
            Gateway { stamp, memory: Memory::Nothing }
        });
        let clients = vec![Client::default(); self.scene.posts.len()];
        let logs = self.scene.logs.iter();
        logs.map(|appends| State {
            cluster: Cluster::with_log(self.scene.layout, appends),
            gateways: gateways.clone(),
            clients: clients.clone(),
            left: self.scene.trouble,
            breach: None,
        })
        .collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (msg, (client, posts)) in state.clients.iter().zip(&self.scene.posts).enumerate() {
            let before = self.scene.may_come_before(msg as Msg);
            if before.is_some_and(|before| state.clients[before as usize].sent == 0) {
                continue;
            }
            let open = (0..posts.len()).filter(|place| client.sent & (1 << place) == 0);
            actions.extend(open.map(|place| Action::Post(msg as Msg, place)));
        }
        for (gateway, Gateway { memory, .. }) in state.gateways.iter().enumerate() {
            match memory {
                Memory::Nothing => {}
                Memory::Loading(_) => {
                    let sights: &[bool] =
                        if state.cluster.is_torn() { &[true, false] } else { &[true] };
                    for &head_sees_torn in sights {
                        for &rows_see_torn in sights {
                            let load = Action::Load { gateway, head_sees_torn, rows_see_torn };
                            actions.push(load);
                        }
                    }
                }
                Memory::Ready(Lane { in_flight: Some(append), .. }) => {
                    actions.push(Action::Answer(gateway));
                    let is_batch = matches!(append.request, Request::Commit { .. });
                    if is_batch && state.left.lost > 0 {
                        actions.push(Action::Lose(gateway));
                    }
                    // In doubt it only means to ask again.
                    if !append.machine.is_in_doubt() && state.left.unsent > 0 {
                        actions.push(Action::NotSent(gateway));
                    }
                }
                Memory::Ready(lane) => {
                    if lane.is_idle() && state.left.forgotten > 0 {
                        actions.push(Action::Forget(gateway));
                    }
                }
            }
            if state.left.crashes > 0 && *memory != Memory::Nothing {
                actions.push(Action::Crash(gateway));
            }
        }
        actions.extend((0..state.cluster.late().len()).map(Action::CarryOut));
        if self.scene.has(Bug::HeadExpires) {
            let buckets = 0..state.cluster.buckets();
            let with_head = buckets.filter(|bucket| state.cluster.head(*bucket).is_some());
            actions.extend(with_head.map(Action::ExpireHead));
        }
        if self.scene.has_stray {
            let head = state.cluster.walk(0, true);
            actions.extend([2, 3].map(|ahead| Action::Stray(head + ahead)));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        let state = &mut next;
        match action {
            Action::Post(msg, place) => self.post(state, msg, place),
            Action::Load { gateway, head_sees_torn, rows_see_torn } => {
                self.load(state, gateway, head_sees_torn, rows_see_torn);
            }
            Action::Answer(gateway) => self.answer(state, gateway),
            Action::Lose(gateway) => self.lose(state, gateway),
            Action::NotSent(gateway) => self.not_sent(state, gateway),
            Action::CarryOut(place) => self.carry_out(state, place),
            Action::Crash(gateway) => self.crash(state, gateway),
            Action::Forget(gateway) => {
                state.left.forgotten -= 1;
                state.gateways[gateway].memory = Memory::Nothing;
            }
            Action::ExpireHead(bucket) => state.cluster.expire_head(bucket),
            Action::Stray(first) => {
                self.stray(state, first);
                // As it should be; the checker need not look at it again.
                if next == *last {
                    return None;
                }
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
