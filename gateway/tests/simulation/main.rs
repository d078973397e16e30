//! Clients, network, gateway and store in one thread under a virtual clock, with everything that
//! can go wrong drawn from a seed.
//!
//! The pieces are the real ones: the client's session rules, shards of the transport with their
//! QUIC, the gateway's driver, lanes and registry. Only sockets, threads, clocks and the disk are
//! replaced. `oracle.rs` says what must hold:
//!
//! - what is acknowledged is durable, and stays at its number;
//! - numbers are contiguous from 1, and each message has one;
//! - the messages of one installation to one conversation keep their order;
//! - each device is shown a strictly rising sequence without duplicates, and in the end all of it;
//! - cursors rise, never pass the head, and never say more than what was shown or read;
//! - nobody is listed as online who is not connected.
//!
//! The same world also runs with two gateways that share a store and know nothing of each other:
//! clients move between them, and each holds in memory what the other has changed meanwhile.
//!
//! A failure names its seed. `SKEIN_SIM_SEED=7` runs one seed, `SKEIN_SIM_SEEDS=5000` that many.
//! The randomness inside QUIC and TLS is not drawn from the seed; what hangs on it, such as the
//! length of a signature, seldom matters.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod device;
mod net;
mod oracle;
mod phone;
mod process;
mod random;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use oracle::Tally;
use store::Bug;
use world::{Life, World, Wrong};

/// An ordinary life.
const TROUBLED: Life = Life::Troubled { steps: 250 };

/// Seeds of the ordinary run.
const SEEDS: u64 = 30;

/// Seeds within which a planted bug must show.
const SEEDS_FOR_A_BUG: u64 = 20;

/// What each ordinary run meets many times; a proof without it would be none. Numbers are codes of
/// the protocol: overload, a store that does not answer, one that has stopped, silence, GOAWAY.
const TROUBLE: [&str; 8] = [
    "skipped",
    "gateways",
    "mail lost",
    "postponed 300",
    "postponed 301",
    "postponed 302",
    "disconnected 121",
    "disconnected 123",
];

/// The same where two gateways share a store.
const TROUBLE_OF_TWO: [&str; 4] = ["gateways", "conflicts", "postponed 301", "held"];

/// Whether rare things must have happened in so many lives.
fn are_many(seeds: std::ops::Range<u64>) -> bool {
    seeds.end - seeds.start >= SEEDS
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// One life; what was wrong in it, if anything.
fn live(seed: u64, bug: Option<Bug>, gateways: usize, life: Life) -> Result<Tally, Wrong> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, bug, gateways);
        world.live(life).map(|()| world.oracle.tally)
    }));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Wrong::Panic(text.unwrap_or_default()))
    })
}

/// What a planted bug shows within a few seeds. Only what was seen counts: a world that does not
/// come to rest, or a panic, may have other reasons.
fn sighting(bug: Bug, gateways: usize) -> Option<String> {
    (0..SEEDS_FOR_A_BUG).find_map(|seed| match live(seed, Some(bug), gateways, TROUBLED) {
        Err(Wrong::Seen(what)) => Some(format!("seed {seed}: {what}")),
        _ => None,
    })
}

/// Many lives without a bug. Each kind of trouble must have been met.
fn prove(gateways: usize, life: Life, troubles: &[&str]) {
    let seeds = match variable("SKEIN_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("SKEIN_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut tally = Tally::new();
    for seed in seeds.clone() {
        match live(seed, None, gateways, life) {
            Ok(more) => more.into_iter().for_each(|(what, n)| *tally.entry(what).or_default() += n),
            Err(Wrong::Seen(what) | Wrong::NoRest(what) | Wrong::Panic(what)) => {
                panic!("SKEIN_SIM_SEED={seed}, {gateways} gateways: {what}");
            }
        }
    }
    println!("{seeds:?}: {tally:#?}");
    let count = |what: &str| tally.get(what).copied().unwrap_or(0);
    assert!(count("acked") > 0 && count("shown") > count("acked"), "nothing happened");
    if are_many(seeds) {
        for trouble in troubles {
            assert!(count(trouble) > 0, "{trouble}: never, so nothing is known about it");
        }
    }
}

fn show(bugs: &[Bug], gateways: usize) {
    for &bug in bugs {
        match sighting(bug, gateways) {
            Some(what) => println!("{bug:?}: {}", what.lines().next().unwrap_or_default()),
            None => panic!("{bug:?} was not seen in {SEEDS_FOR_A_BUG} seeds"),
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_everybody_converges() {
    prove(1, TROUBLED, &TROUBLE);
}

#[test]
fn planted_bugs_are_seen() {
    show(&Bug::ALL, 1);
}

/// Nobody has told the gateways which conversations are whose, so both serve all of them.
#[test]
fn two_gateways_may_share_a_store() {
    prove(2, TROUBLED, &TROUBLE_OF_TWO);
}

#[test]
fn planted_bugs_are_seen_with_two_gateways() {
    show(&Bug::OF_TWO, 2);
}

#[test]
fn a_store_that_hangs_makes_everybody_try_later() {
    prove(1, Life::StoreHangs, &["postponed 301", "held"]);
    prove(2, Life::StoreHangs, &["postponed 301", "held"]);
}
