//! Bugs that are planted into the gateways' store, each to be seen for what it causes.

use crate::act::Plan;
use crate::chat::checker::Kind;
use crate::fault::Fault;
use crate::run::Run;
use crate::scenes::{Scene, seed};
use crate::site::Site;

/// Cycles after which a planted bug must have been seen. Most are after one.
const MOST_CYCLES: usize = 12;

pub fn all() -> Vec<Scene> {
    vec![
        ("an_unconditional_write_is_caught", |site| {
            let kinds = [Kind::TwoMessages, Kind::Lost];
            is_caught(site, "unconditional-write", 2, &[Fault::Disconnect], &kinds);
        }),
        ("an_unknown_outcome_taken_for_success_is_caught", |site| {
            let kinds = [Kind::Lost, Kind::TwoMessages];
            is_caught(site, "unknown-is-success", 1, &[Fault::EveryDoubt], &kinds);
        }),
        ("an_unknown_outcome_retried_with_a_new_number_is_caught", |site| {
            let kinds = [Kind::TwoPositions];
            is_caught(site, "unknown-is-failure", 1, &[Fault::DoubtThenSilence], &kinds);
        }),
        ("a_row_of_somebody_else_taken_for_ones_own_is_caught", |site| {
            let kinds = [Kind::TwoMessages, Kind::Lost];
            is_caught(site, "no-compare", 2, &[Fault::EveryDoubt], &kinds);
        }),
        ("reads_of_a_single_replica_are_caught", |site| {
            let kinds = [Kind::Lost, Kind::Gap, Kind::TwoPositions, Kind::TwoMessages];
            is_caught(site, "plain-reads", 2, &[Fault::KillNode, Fault::PauseNode], &kinds);
        }),
    ]
}

/// Strikes until the checker reports what this bug must cause.
fn is_caught(
    site: &Site,
    bug: &'static str,
    gateways: usize,
    faults: &[Fault],
    as_one_of: &[Kind],
) {
    let plan = Plan { bug: Some(bug), ..Plan::new(seed(), gateways) };
    let mut run = Run::new(site, plan);
    for &fault in faults.iter().cycle().take(MOST_CYCLES) {
        run.cycle(fault);
        run.act.audit_all();
        if run.act.has_any(as_one_of) {
            println!("{}", run.told());
            return;
        }
    }
    panic!("not caught as {as_one_of:?}\n{}", run.told());
}
