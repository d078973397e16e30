//! What must hold in every state.

use skein_protocol::Seq;
use stateright::Property;

use crate::cluster::{Cluster, Damage, Msg};
use crate::gateway::Memory;
use crate::model::{AppendModel, Breach, State};

pub(crate) const ACKNOWLEDGED_IS_THERE: &str = "what was acknowledged is in the log at its number";
pub(crate) const ONE_POSITION: &str = "a message has one position";
pub(crate) const CONTIGUOUS: &str = "numbers are contiguous from 1, with one row each";
pub(crate) const ROWS_STAY: &str = "a row stays what it is";
pub(crate) const HEADS_RISE: &str = "a head never falls, and is the last row's number";
pub(crate) const EVERY_WALK_ARRIVES: &str = "the head is found from wherever the search begins";
pub(crate) const FAILED_IS_NOT_THERE: &str = "nothing of a failed append is in the log";
pub(crate) const ENDED_IS_NOT_COMING: &str = "nothing of an append that has ended is on its way";
pub(crate) const MEMORY_IS_TRUE: &str = "what a gateway takes to be in the log is there";
pub(crate) const ALL_ANSWERED: &str = "in the end each message is acknowledged";

pub(crate) fn all() -> Vec<Property<AppendModel>> {
    vec![
        Property::always(ACKNOWLEDGED_IS_THERE, |_, state| acknowledged_is_there(state)),
        Property::always(ONE_POSITION, |_, state| one_position(state)),
        Property::always(CONTIGUOUS, |_, state| contiguous(state)),
        Property::always(ROWS_STAY, |_, state: &State| {
            state.cluster.damage() != Some(Damage::Overwritten)
        }),
        Property::always(HEADS_RISE, |_, state| heads_rise(state)),
        Property::always(EVERY_WALK_ARRIVES, |_, state| every_walk_arrives(state)),
        Property::always(FAILED_IS_NOT_THERE, |_, state: &State| {
            state.breach != Some(Breach::FailedButThere)
        }),
        Property::always(ENDED_IS_NOT_COMING, |_, state: &State| {
            state.breach != Some(Breach::EndedButOnItsWay)
        }),
        Property::always(MEMORY_IS_TRUE, |_, state| memory_is_true(state)),
        Property::always(ALL_ANSWERED, all_answered),
    ]
}

/// "For ever", because it is checked in each state that follows.
fn acknowledged_is_there(state: &State) -> bool {
    state.clients.iter().enumerate().all(|(msg, client)| {
        let numbers = 0..Seq::from(u16::BITS - client.acknowledged.leading_zeros());
        let mut acknowledged = numbers.filter(|seq| client.acknowledged & (1 << seq) != 0);
        acknowledged.all(|seq| has(&state.cluster, seq, msg as Msg))
    })
}

fn has(cluster: &Cluster, seq: Seq, msg: Msg) -> bool {
    cluster.row(seq, true).is_some_and(|row| row.msg == msg)
}

fn one_position(state: &State) -> bool {
    let rows = state.cluster.rows();
    rows.iter().enumerate().all(|(at, a)| rows[..at].iter().all(|b| a.row.msg != b.row.msg))
}

fn contiguous(state: &State) -> bool {
    (1..).zip(state.cluster.rows()).all(|(seq, placed)| placed.seq == seq)
}

fn heads_rise(state: &State) -> bool {
    let cluster = &state.cluster;
    let last = |bucket| cluster.rows().iter().rfind(|p| p.bucket == bucket).map(|p| p.seq);
    cluster.damage() != Some(Damage::HeadFell)
        && (0..cluster.buckets()).all(|bucket| cluster.head(bucket) == last(bucket))
}

fn every_walk_arrives(state: &State) -> bool {
    let cluster = &state.cluster;
    let head = cluster.rows().iter().map(|p| p.seq).max().unwrap_or(0);
    let heads = (0..cluster.buckets()).filter_map(|bucket| cluster.head(bucket));
    std::iter::once(0).chain(heads).all(|hint| cluster.walk(hint, true) == head)
}

fn memory_is_true(state: &State) -> bool {
    state.gateways.iter().all(|gateway| match &gateway.memory {
        Memory::Ready(lane) => lane.durable().all(|(seq, msg)| has(&state.cluster, seq, msg)),
        _ => true,
    })
}

/// Once all has arrived and nothing is under way. What a gateway refused or lost in a crash would
/// be sent again; the scene may have no more of it.
fn all_answered(model: &AppendModel, state: &State) -> bool {
    let trouble = model.scene.trouble;
    let is_troubled = state.left.unsent < trouble.unsent || state.left.crashes < trouble.crashes;
    let is_under_way = state.gateways.iter().any(|gateway| match &gateway.memory {
        Memory::Nothing => false,
        Memory::Loading(_) => true,
        Memory::Ready(lane) => !lane.is_idle(),
    });
    let mut clients = state.clients.iter().zip(&model.scene.posts);
    let has_all_arrived = clients.clone().all(|(client, posts)| client.has_sent_all(posts.len()));
    is_troubled
        || is_under_way
        || !has_all_arrived
        || clients.all(|(client, _)| client.acknowledged != 0)
}
