//! Each planted bug is found, by the property that it breaks.

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use crate::gateway::Rules;
use crate::model::{Action, AppendModel};
use crate::properties::{
    ACKNOWLEDGED_IS_THERE, CONTIGUOUS, ENDED_IS_NOT_COMING, FAILED_IS_NOT_THERE, MEMORY_IS_TRUE,
    ONE_POSITION, ROWS_STAY,
};
use crate::scene::{Bug, Scene, Trouble, again, first};

/// A way to a state in which the property does not hold.
fn find(scene: Scene, property: &'static str) -> Vec<Action> {
    let started = Instant::now();
    let bug = scene.bug;
    let found = HasDiscoveries::AllOf(BTreeSet::from([property]));
    // One thread, so that every run finds the same.
    let checker = AppendModel::new(scene).checker().finish_when(found).spawn_bfs().join();
    let states = checker.unique_state_count();
    let path = checker.discovery(property);
    let actions = path.map(|path| path.into_actions()).unwrap_or_default();
    println!("{states:>12} states, {:.1?}: {bug:?} breaks: {property}", started.elapsed());
    actions.iter().for_each(|action| println!("{:>16}{action:?}", ""));
    actions
}

#[track_caller]
fn assert_found(scene: Scene, property: &'static str) {
    assert!(!find(scene, property).is_empty(), "not found");
}

/// One message, sent once: nothing but the protocol can go wrong.
fn alone() -> Scene {
    let trouble = Trouble { lost: 1, ..Trouble::default() };
    Scene { posts: vec![vec![first(0)]], trouble, ..Scene::new() }
}

/// A message of each gateway.
fn rivals() -> Scene {
    Scene { posts: vec![vec![first(0)], vec![first(1)]], ..alone() }
}

#[test]
fn a_write_without_a_condition() {
    assert_found(rivals().with(Bug::Unconditional), ROWS_STAY);
    assert_found(rivals().with(Bug::Unconditional), ACKNOWLEDGED_IS_THERE);
}

#[test]
fn an_unknown_outcome_taken_for_failure() {
    assert_found(alone().with(Bug::UnknownIsFailure), ONE_POSITION);
    assert_found(alone().with(Bug::UnknownIsRefusal), ENDED_IS_NOT_COMING);
}

#[test]
fn an_unknown_outcome_taken_for_success() {
    assert_found(alone().with(Bug::UnknownIsSuccess), ACKNOWLEDGED_IS_THERE);
}

#[test]
fn doubt_that_is_not_looked_into() {
    assert_found(rivals().with(Bug::DoubtIsSuccess), ACKNOWLEDGED_IS_THERE);
    assert_found(alone().with(Bug::DoubtIsConflict), FAILED_IS_NOT_THERE);
}

#[test]
fn a_partition_opened_without_evidence() {
    let scene = Scene { has_stray: true, ..alone() };
    assert_found(scene.with(Bug::NoEvidence), CONTIGUOUS);
}

#[test]
fn a_head_that_expires() {
    // A batch that expects none is applied when there was one long ago.
    assert_found(rivals().with(Bug::HeadExpires), ROWS_STAY);
}

#[test]
fn an_append_cut_at_the_edge_of_a_bucket() {
    let posts = vec![vec![first(0)], vec![first(0)], vec![first(0)], vec![first(1)]];
    assert_found(Scene { posts, ..alone() }.with(Bug::SplitAtEdge), FAILED_IS_NOT_THERE);
}

#[test]
fn a_conflict_that_numbers_again_without_reading() {
    let posts = vec![vec![first(0), again(1)]];
    assert_found(Scene { posts, ..alone() }.with(Bug::NoReload), ONE_POSITION);
}

#[test]
fn a_head_whose_rows_a_majority_does_not_have() {
    let posts = vec![vec![first(0), again(1)]];
    let scene = Scene { logs: vec![vec![1]], posts, ..alone() };
    assert_found(scene.clone().with(Bug::PlainLoad), MEMORY_IS_TRUE);
    assert_found(scene.with(Bug::PlainLoad), ONE_POSITION);
}

/// Overtaken by its own repetition, and by more messages than a gateway remembers, it is stored
/// twice.
#[test]
fn a_first_attempt_that_names_no_head() {
    let scene = Scene {
        rules: Rules { window: 1, ..Scene::new().rules },
        posts: vec![vec![first(0), again(1)], vec![first(1)]],
        ..Scene::new()
    };
    assert_found(scene.with(Bug::SilentFirstAttempt), ONE_POSITION);
}
