//! The scenes, one after the other on the same cluster.

use crate::act::Plan;
use crate::fault::Fault;
use crate::ledger::Ledger;
use crate::run::{Run, Tally};
use crate::site::Site;

const DEFAULT_CYCLES: u32 = 6;

/// Cycles of an act at random. A long run has many acts, so that logs stay short enough for the
/// whole of them to be pulled and compared all the time.
const CYCLES_OF_AN_ACT: u32 = 10;

pub type Scene = (&'static str, fn(&Site));

pub fn all() -> Vec<Scene> {
    let mut all: Vec<Scene> = vec![
        ("a_node_is_killed_and_the_others_carry_on", |site| {
            play(site, Plan::new(seed(), 1), &[Fault::KillNode]);
        }),
        ("without_a_majority_clients_wait_and_service_returns_by_itself", |site| {
            // Few places for appends, so that they run out.
            let mut plan = Plan::new(seed(), 1);
            plan.settings.push(("SKEIN_SCYLLA__IN_FLIGHT", "2".into()));
            play(site, plan, &[Fault::KillTwoNodes]);
        }),
        ("every_kind_of_unknown_outcome", |site| {
            let told = play(site, Plan::new(seed(), 1), &[Fault::EveryDoubt, Fault::Statements]);
            assert!(told.unknown_outcomes > 0 && told.found_appended > 0, "{told:?}");
        }),
        ("all_are_told_what_was_written_in_doubt", |site| {
            let faults = [Fault::DoubtThenSilence, Fault::LateAfterDeath, Fault::LateAfterDeath];
            play(site, Plan::new(seed(), 1), &faults);
        }),
        ("two_gateways_write_to_the_same_conversations", |site| {
            let faults = [Fault::Disconnect, Fault::SomeDoubt, Fault::EveryDoubt];
            let told = play(site, Plan::new(seed(), 2), &faults);
            assert!(told.conflicts > 0 && told.found_appended > 0, "{told:?}");
        }),
        ("a_node_sleeps_for_longer_than_anybody_waits", |site| {
            play(site, Plan::new(seed(), 2), &[Fault::PauseNode]);
        }),
        ("gateways_are_killed_in_the_middle_of_appends", |site| {
            let faults = [Fault::KillGateway, Fault::KillGateway, Fault::KillGatewayAndNode];
            play(site, Plan::new(seed(), 2), &faults);
        }),
        ("gateways_are_restarted_one_after_the_other", |site| {
            play(site, Plan::new(seed(), 2), &[Fault::RollGateways, Fault::RollGateways]);
        }),
        ("all_of_it_at_random", at_random),
    ];
    // Bugs are planted into debug builds only.
    #[cfg(debug_assertions)]
    all.extend(crate::planted::all());
    all
}

pub fn from_env<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

pub fn seed() -> u64 {
    from_env("SKEIN_SEED").unwrap_or_else(rand::random)
}

fn play(site: &Site, plan: Plan, faults: &[Fault]) -> Tally {
    let mut run = Run::new(site, plan);
    for &fault in faults {
        run.cycle(fault);
        run.check();
    }
    run.finish()
}

fn at_random(site: &Site) {
    let cycles: u32 = from_env("SKEIN_CLUSTER_CYCLES").unwrap_or(DEFAULT_CYCLES);
    let mut ledger = Ledger::open(seed());
    while ledger.total().cycles < cycles {
        let seed = ledger.next_seed();
        // Ownership that is deliberately wrong in most acts.
        let gateways = if seed.is_multiple_of(4) { 1 } else { 2 };
        let mut run = Run::new(site, Plan::new(seed, gateways));
        for _ in 0..CYCLES_OF_AN_ACT.min(cycles - ledger.total().cycles) {
            let fault = Fault::any(&mut run.act.rng);
            run.cycle(fault);
            run.check();
        }
        ledger.enter(seed, run.finish());
    }
    println!("all of it: {}", ledger.told());
}
