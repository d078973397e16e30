//! Real gateways on a real cluster of three nodes, while nodes, gateways and the network between
//! them break.
//!
//! What must hold whatever happens is what holds for the embedded store, and the same checker
//! says so: nothing acknowledged is missing, numbers are unique and without a gap, one position a
//! message, the same order for every reader, cursors only rise; and in the end everything that was
//! accepted is acknowledged and seen by all devices. Then the same with bugs planted into the
//! gateway, to show that each is seen.
//!
//! `cargo xtask cql test` runs it; without a server nothing of it runs, and a line says so.
//!
//! `SKEIN_CLUSTER_CYCLES`: cycles of faults at random (a cycle is one fault and the recovery from
//! it), default 6, in acts of at most 10 with nothing in the store yet. `SKEIN_SEED`: of the plan
//! of the first act, one more for each further act. Real processes keep their own time, so a seed
//! repeats the plan and not every interleaving. `SKEIN_CLUSTER_LEDGER`: a file to which every act
//! adds a line; acts that it has already are not played again, so a long run can be interrupted.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../chat/mod.rs"]
mod chat;

mod act;
mod fault;
mod gateways;
mod ledger;
#[cfg(debug_assertions)]
mod planted;
mod run;
mod scenes;
mod site;
mod switch;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};

use site::Site;

/// One cluster for all scenes, started by the first one.
type Shared = Arc<Mutex<Option<Site>>>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // All of them use one cluster and all of the machine.
    arguments.test_threads = Some(1);
    let may_run = skein_xtask::cql::may_start("cluster");
    let site = Shared::default();
    let mut trials = Vec::new();
    for (name, scene) in scenes::all() {
        let site = site.clone();
        let trial = Trial::test(name, move || play(&site, scene));
        trials.push(trial.with_ignored_flag(!may_run));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Statics are not dropped, and neither is what `exit` leaves behind: the nodes end here.
    drop(site.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}

/// A scene that panics has failed, and says why; the cluster is there for the next one.
fn play(site: &Shared, scene: fn(&Site)) -> Result<(), Failed> {
    let mut site = site.lock().unwrap_or_else(PoisonError::into_inner);
    let site = site.get_or_insert_with(Site::start);
    site.make_whole();
    scene(site);
    Ok(())
}
