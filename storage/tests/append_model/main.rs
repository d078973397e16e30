//! The append protocol of the clustered store, explored state by state.
//!
//! The protocol is the real [`AppendMachine`]; around it stand a cluster, two gateways with the
//! rules of their lanes in small, and clients. Everything that the order of events leaves open is
//! tried: which request is carried out when, which answer is lost, whether the batch behind a lost
//! answer is carried out at once, much later or never, when a gateway reads the log, when it
//! crashes.
//!
//! - `cluster.rs`: partitions, conditional batches, batches that are late.
//! - `gateway.rs`: load, deduplicate, number, one append at a time.
//! - `model.rs`: state and steps. `scene.rs`: what is explored, and the planted bugs.
//! - `properties.rs`: what must hold. `coverage.rs`: what must have happened.
//! - `planted.rs`: each bug is found, by the property that it breaks.
//!
//! # Bounds
//!
//! Two gateways and one conversation. Buckets of two numbers and appends of at most two or three
//! rows, so that an edge, an overhang and the opening of partitions are never far. Three messages,
//! each sent once or twice; the sendings arrive in any order. At most one or two answers are lost,
//! one request does not leave its gateway, one gateway crashes, one forgets an idle conversation.
//! Logs begin empty, or with one or three rows. Inside these bounds nothing is left out.
//!
//! Left to others: retention (rows do not go away), more than one conversation (appends of
//! different ones share nothing), what a server does inside a conditional batch.
//!
//! An ordinary run explores 1.5 million states, trouble by trouble. `SKEIN_MODEL=large` lets all
//! trouble happen at once as well: minutes instead of seconds.
//!
//! [`AppendMachine`]: skein_storage::scylla::append::AppendMachine

mod cluster;
mod coverage;
mod gateway;
mod model;
mod planted;
mod properties;
mod scene;

use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Instant;

use coverage::{Coverage, EVENTS};
use gateway::Rules;
use model::AppendModel;
use scene::{Scene, Trouble, again, first};
use skein_storage::scylla::layout::Layout;
use stateright::{Checker, Model};

const NONE: Trouble = Trouble { lost: 0, unsent: 0, crashes: 0, forgotten: 0 };

/// Trouble by trouble.
fn scenes() -> Vec<(&'static str, Scene)> {
    let default = Scene::new;
    let all_logs = || vec![vec![], vec![1], vec![1, 2]];
    let rules = default().rules;
    let rivals = || vec![vec![first(0), again(1)], vec![first(1)]];
    let a_lost_answer_and_a_crash =
        Scene { trouble: Trouble { lost: 1, crashes: 1, ..NONE }, ..default() };
    let two_lost_answers_at_each_edge = Scene {
        logs: all_logs(),
        posts: vec![vec![first(0), again(1)], vec![first(0)], vec![first(1), again(0)]],
        trouble: Trouble { lost: 2, ..NONE },
        ..default()
    };
    let refusals_and_repetitions_to_the_same_gateway = Scene {
        logs: vec![vec![], vec![1]],
        posts: vec![vec![first(0), again(0)], vec![first(0), again(1)], vec![first(1)]],
        trouble: Trouble { lost: 1, unsent: 1, crashes: 1, ..NONE },
        ..default()
    };
    let appends_longer_than_a_bucket = Scene {
        layout: Layout::new(2, 3),
        rules: Rules { max_append: 3, ..rules },
        logs: vec![vec![], vec![1, 3]],
        trouble: Trouble { lost: 1, ..NONE },
        ..default()
    };
    let no_memory_of_what_is_durable = Scene {
        rules: Rules { window: 0, ..rules },
        trouble: Trouble { lost: 1, forgotten: 1, ..NONE },
        ..default()
    };
    let rows_that_are_equal_by_chance =
        Scene { trouble: Trouble { lost: 2, ..NONE }, clocks_agree: true, ..default() };
    let a_caller_ahead_of_the_log = Scene {
        logs: all_logs(),
        posts: rivals(),
        trouble: Trouble { lost: 1, ..NONE },
        has_stray: true,
        ..default()
    };
    let late_batches_to_the_end = Scene {
        logs: all_logs(),
        posts: rivals(),
        trouble: Trouble { lost: 3, crashes: 1, ..NONE },
        keeps_refused: true,
        ..default()
    };
    vec![
        ("a lost answer and a crash", a_lost_answer_and_a_crash),
        ("two lost answers at each edge", two_lost_answers_at_each_edge),
        ("repetitions to the same gateway", refusals_and_repetitions_to_the_same_gateway),
        ("appends longer than a bucket", appends_longer_than_a_bucket),
        ("no memory of what is durable", no_memory_of_what_is_durable),
        ("rows that are equal by chance", rows_that_are_equal_by_chance),
        ("a caller ahead of the log", a_caller_ahead_of_the_log),
        ("late batches to the end", late_batches_to_the_end),
    ]
}

/// All trouble at once.
fn large_scenes() -> Vec<(&'static str, Scene)> {
    let trouble = Trouble { lost: 2, unsent: 1, crashes: 1, forgotten: 1 };
    let logs = vec![vec![], vec![1], vec![1, 2]];
    let all_at_once = Scene { logs, trouble, ..Scene::new() };
    let rules = Rules { max_append: 3, window: 1, ..Scene::new().rules };
    let with_long_appends_and_short_memory =
        Scene { layout: Layout::new(2, 3), rules, trouble, ..Scene::new() };
    vec![
        ("all at once", all_at_once),
        ("all at once, long appends, short memory", with_long_appends_and_short_memory),
    ]
}

#[test]
fn the_protocol_holds() {
    let is_large = std::env::var_os("SKEIN_MODEL").is_some_and(|value| value == "large");
    let coverage = Coverage::default();
    let large = if is_large { large_scenes() } else { Vec::new() };
    for (name, scene) in scenes().into_iter().chain(large) {
        explore(name, scene, &coverage);
    }
    for event in EVENTS {
        println!("{:>12} {event:?}", coverage.count(event));
    }
    for event in EVENTS {
        assert!(coverage.count(event) > 0, "{event:?} never happened");
    }
}

fn explore(name: &str, scene: Scene, coverage: &Coverage) {
    let started = Instant::now();
    let model = AppendModel::new(scene);
    let threads = available_parallelism().map_or(1, NonZero::get);
    let checker = model.clone().checker().threads(threads).spawn_dfs().join();
    let (unique, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{unique:>12} states, {depth} deep, {:.1?}: {name}", started.elapsed());
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        let state = format!("{:#?}", path.last_state());
        panic!("{name}: not always: {property}\n{:#?}\n{state}", path.into_actions());
    }
    coverage.add(&model.coverage);
}
