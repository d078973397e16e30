//! The tester is tested: runs against a target whose every fault is planted and written down.
//!
//! ```text
//! target.rs     a QUIC server that speaks the protocol from memory and misbehaves as it is told
//! truth.rs      what it did and when, by the same clock as the tester's
//! latency.rs    what the tester says of times, against when they were
//! faults.rs     each kind of wrong is counted as often as it was done
//! broken.rs     a target that does not even answer: every run ends, and says why
//! program.rs    some of it through the program, from its exit status to its files
//! ```
//!
//! No test expects the machine to be fast. A delay is compared with the delay that there was: the
//! target notes when it let go of an answer, and by a ping behind each answer when the tester had
//! seen it, so the tester's figure has a floor and a ceiling however long anything took.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test")]

mod broken;
mod faults;
mod latency;
mod program;
mod target;
mod truth;

use std::time::Duration;

use skein_loadtest::operation::Operation;
use skein_loadtest::outcome::{Outcome, ReasonKind};
use skein_loadtest::plan::{Arrival, Fleet, Identity, Load, Manners, Phases, Plan, Traffic, Work};
use skein_loadtest::record::OperationRecord;
use skein_loadtest::run::{Hooks, Run};

use target::{Behaviour, Target};
use truth::Truth;

/// `pairs` users write to as many others, `rate` messages a second together.
fn chat(pairs: u64, rate: f64) -> Work {
    let load = Load::Rate { per_second: rate, arrival: Arrival::Even };
    Work::Chat { pairs, both_ways: false, traffic: Traffic { load, payload_bytes: 64..=256 } }
}

fn plan(target: &Target, work: Work, measured: Duration) -> Plan {
    let identity =
        Identity { run: "fake".into(), first_user: 0, credentials: target.credentials() };
    let mut plan = Plan::new(work.name(), target.reachable_at(), identity);
    plan.phases = Phases {
        ramp_limit: Duration::from_secs(60),
        settle: Duration::ZERO,
        warm_up: Duration::from_millis(200),
        measured,
        drain: Duration::from_secs(20),
        plateau: 0.0,
    };
    plan.shards = 2;
    let fleet =
        Fleet { name: "all".into(), work, connect_rate: 100.0, manners: Manners::default() };
    plan.fleets.push(fleet);
    plan
}

/// Runs to the end; what the tester says, and what was.
fn run(behaviour: Behaviour, work: Work, measured: Duration) -> (Outcome, Truth) {
    let target = Target::start(behaviour);
    let plan = plan(&target, work, measured);
    let outcome = Run::start(plan, Hooks::default()).unwrap().finish().unwrap();
    (outcome, target.stop())
}

/// The whole run, measured or not: the truth knows nothing of phases.
fn whole(outcome: &Outcome, operation: Operation) -> OperationRecord {
    let mut whole = outcome.measured.get(operation).cloned().unwrap_or_default();
    if let Some(rest) = outcome.unmeasured.get(operation) {
        whole.merge(rest);
    }
    whole
}

/// The tester does not hide it when it was late itself: what it counts as late is at most what
/// reached the target late, and whether it calls the run invalid follows from its own counts.
fn assert_says_when_it_is_late(outcome: &Outcome, truth: &Truth) {
    let sends = whole(outcome, Operation::SendAck);
    let limit = outcome.plan.late_after.as_nanos() as u64;
    let reached_late =
        truth.sends.iter().filter(|one| one.received > one.stamp.intended + limit).count() as u64;
    assert!(
        sends.late <= reached_late + sends.failed(),
        "{} late, of which {reached_late} were seen",
        sends.late
    );
    let measured = outcome.measured.get(Operation::SendAck).unwrap();
    let begun = measured.count() + measured.failed();
    let has = |kind| outcome.reasons.iter().any(|reason| reason.kind == kind);
    if measured.late * 100 > begun {
        assert!(has(ReasonKind::LateSchedule), "{:?}", outcome.reasons);
    }
    assert_eq!(has(ReasonKind::DroppedSchedule), measured.dropped > 0, "{:?}", outcome.reasons);
}
