//! The real program is killed with SIGKILL at random moments while real clients talk through it.
//!
//! What must hold whatever happens: acknowledged means durable; sequence numbers are unique and
//! without a gap; a message has one position; what a device is shown only moves forward, with
//! nothing left out or repeated; cursors only rise. And in the end everything that was accepted is
//! acknowledged, and every device has seen all of it.
//!
//! Then the same with bugs planted into the gateway, to show that each is seen.
//!
//! `SKEIN_KILLS`: how many kills (default 40), in acts of at most 20, each with a gateway that has
//! nothing yet. `SKEIN_SEED`: of the plan of the first act, one more for each further act; printed
//! with every outcome. Threads and disks keep their own time, so a seed repeats the plan and not
//! every interleaving.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../chat/mod.rs"]
mod chat;

mod checker_tests;
mod storm;

use std::time::Instant;

use chat::checker::Kind;
use storm::{Plan, Storm};

const DEFAULT_KILLS: u32 = 40;

/// Kills of one act. A long run has many acts, so that logs stay short enough for the whole of
/// them to be pulled, compared, and searched for repeats all the time.
const KILLS_OF_AN_ACT: u32 = 20;

/// Kills after which a planted bug must have been seen. Most are after one or two.
const MOST_KILLS: u32 = 60;

fn from_env<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn seed() -> u64 {
    from_env("SKEIN_SEED").unwrap_or_else(rand::random)
}

/// Says how a run went; the seed first of all.
fn tell(storm: &Storm, plan: &Plan, began: Instant) -> String {
    storm.crowd.record.with(|checker| {
        let (sent, acked, seen) = checker.figures();
        let mut text = format!(
            "SKEIN_SEED={} bug {:?}: {} kills ({} before it served), {} crashed clients, {sent} \
             messages, {acked} acknowledgements, {seen} shown, {:.1} s\n",
            plan.seed,
            plan.bug,
            storm.kills,
            storm.kills_in_start,
            storm.crowd.crashes,
            began.elapsed().as_secs_f64(),
        );
        for (kind, count) in checker.counts() {
            text += &format!("{count} x {kind:?}\n");
        }
        for violation in checker.violations() {
            text += &format!("  {:?}: {}\n", violation.kind, violation.what);
        }
        text
    })
}

#[test]
fn nothing_is_lost_repeated_or_reordered() {
    let mut left = from_env("SKEIN_KILLS").unwrap_or(DEFAULT_KILLS);
    let mut seed = seed();
    while left > 0 {
        let plan = Plan { seed, bug: None };
        left = left.saturating_sub(act(&plan, left.min(KILLS_OF_AN_ACT)));
        seed = seed.wrapping_add(1);
    }
}

/// Kills at least this often, then waits for the end of all that was begun. Returns how often it
/// killed.
fn act(plan: &Plan, kills: u32) -> u32 {
    let began = Instant::now();
    let mut storm = Storm::new(plan);
    let is_clean = |storm: &Storm| storm.crowd.record.with(|checker| checker.counts().is_empty());
    while storm.kills < kills {
        storm.strike();
        if storm.kills.is_multiple_of(3) {
            storm.audit_one();
        }
        assert!(is_clean(&storm), "{}", tell(&storm, plan, began));
    }
    storm.add_newcomers();
    storm.settle();
    let told = tell(&storm, plan, began);
    println!("{told}");
    assert!(is_clean(&storm), "{told}");
    storm.kills
}

/// Bugs are planted into debug builds only.
#[cfg(debug_assertions)]
mod planted {
    use super::*;

    /// Strikes until the checker reports what this bug must cause.
    fn is_caught(bug: &'static str, as_one_of: &[Kind]) {
        let plan = Plan { seed: seed(), bug: Some(bug) };
        let began = Instant::now();
        let mut storm = Storm::new(&plan);
        let caught = |storm: &Storm| {
            storm.crowd.record.with(|checker| as_one_of.iter().any(|&kind| checker.has(kind)))
        };
        while storm.kills < MOST_KILLS && !caught(&storm) {
            storm.strike();
            storm.audit_all();
        }
        let told = tell(&storm, &plan, began);
        println!("{told}");
        assert!(caught(&storm), "not caught as {as_one_of:?}\n{told}");
    }

    #[test]
    fn an_acknowledgement_before_the_write_is_caught() {
        is_caught("ack-before-durable", &[Kind::Lost]);
    }

    #[test]
    fn half_a_batch_is_caught() {
        is_caught("torn-batch", &[Kind::Lost]);
    }

    #[test]
    fn an_append_that_was_not_written_is_caught() {
        is_caught("lost-append", &[Kind::Lost]);
    }

    #[test]
    fn forgotten_repeats_are_caught() {
        is_caught("lost-deduplication", &[Kind::TwoPositions]);
    }

    #[test]
    fn a_cursor_past_what_was_delivered_is_caught() {
        is_caught("cursor-ahead", &[Kind::CursorAhead]);
    }

    #[test]
    fn a_hole_in_what_is_read_is_caught() {
        is_caught("hole-in-read", &[Kind::Gap]);
    }

    #[test]
    fn an_altered_text_is_caught() {
        is_caught("corrupted-read", &[Kind::Altered]);
    }

    #[test]
    fn swapped_messages_are_caught() {
        is_caught("swapped-read", &[Kind::TwoMessages]);
    }

    #[test]
    fn a_conversation_that_is_not_listed_is_caught() {
        is_caught("unlisted-conversation", &[Kind::Unlisted]);
    }
}
