//! The clustered store on a real server: the suite that every backend passes, on two layouts, and
//! what only this backend has.
//!
//! Needs a CQL server: `cargo xtask cql test`, or `SKEIN_CQL=HOST:PORT`. Without one every test is
//! listed as ignored.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test")]

mod bounds;
mod cursors;
#[cfg(debug_assertions)]
mod doubt;
mod edges;
mod place;
mod retention;
mod rivals;
mod scene;
mod schema;
mod secured;
mod suite;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use place::Place;

/// Tests at once. A server of one small JVM takes changes of its schema one at a time anyway.
const THREADS: usize = 2;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let server = skein_xtask::cql::for_tests("conformance_cql");
    let is_missing = server.is_none();
    let place: &'static Place = Box::leak(Box::new(Place::new(server.unwrap_or_default())));

    let mut trials = suite::trials(place);
    trials.extend(own(place));
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(is_missing)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    place.tidy();
    #[cfg(debug_assertions)]
    doubt::tidy();
    conclusion.exit_code()
}

/// A test of this backend: it gets a place to make keyspaces in, and a runtime.
type Own = (&'static str, fn(&'static Place));

fn own(place: &'static Place) -> impl Iterator<Item = Trial> {
    let all: [&[Own]; 8] = [
        schema::TESTS,
        edges::TESTS,
        retention::TESTS,
        rivals::TESTS,
        cursors::TESTS,
        bounds::TESTS,
        secured::TESTS,
        #[cfg(debug_assertions)]
        doubt::TESTS,
        // Planted bugs are in debug builds only.
        #[cfg(not(debug_assertions))]
        &[],
    ];
    all.into_iter().flatten().map(move |&(name, test)| {
        Trial::test(name, move || {
            test(place);
            Ok(())
        })
    })
}
