//! Small runs against a real gateway: the program `skein`, in a process of its own.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use std::time::Duration;

use skein_loadtest::operation::Operation;
use skein_loadtest::outcome::Outcome;
use skein_loadtest::plan::{Arrival, Fleet, Identity, Load, Manners, Phases, Plan, Traffic, Work};
use skein_loadtest::run::{Hooks, Run};
use skein_loadtest::spawn::{Gateway, Options};

/// A gateway, and a plan for it that has one fleet.
fn plan(work: Work, set: &[(&str, &str)]) -> (Gateway, Plan) {
    let test = std::env::current_exe().unwrap();
    let name = format!("skein{}", std::env::consts::EXE_SUFFIX);
    let program = test.parent().unwrap().parent().unwrap().join(name);
    assert!(program.exists(), "no {}: run cargo build -p skein-gateway first", program.display());
    let set = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let gateway = Gateway::start(Options { program: Some(program), data: None, set }).unwrap();
    let identity =
        Identity { run: "test".into(), first_user: 0, credentials: gateway.credentials().unwrap() };
    let mut plan = Plan::new(work.name(), gateway.target().unwrap(), identity);
    plan.phases = Phases {
        ramp_limit: Duration::from_secs(60),
        settle: Duration::ZERO,
        warm_up: Duration::from_millis(500),
        measured: Duration::from_secs(2),
        drain: Duration::from_secs(10),
        plateau: 0.0,
    };
    // A busy machine may hold this program up; what is tested is not its speed.
    plan.late_after = Duration::from_secs(5);
    plan.drop_after = Duration::from_secs(30);
    plan.shards = 2;
    let fleet =
        Fleet { name: "all".into(), work, connect_rate: 200.0, manners: Manners::default() };
    plan.fleets.push(fleet);
    (gateway, plan)
}

fn run(gateway: Gateway, plan: Plan) -> Outcome {
    let hooks = Hooks { supervisor: Some(Box::new(gateway)), ..Hooks::default() };
    Run::start(plan, hooks).unwrap().finish().unwrap()
}

fn traffic(per_second: f64) -> Traffic {
    let load = Load::Rate { per_second, arrival: Arrival::Even };
    Traffic { load, payload_bytes: 100..=200 }
}

fn count(outcome: &Outcome, operation: Operation) -> u64 {
    outcome.measured.get(operation).map_or(0, |record| record.count())
}

fn assert_good(outcome: &Outcome) {
    assert!(outcome.valid(), "{:?}", outcome.reasons);
    assert!(outcome.correctness.is_clean(), "{:?}", outcome.correctness);
    assert_eq!(outcome.correctness.foreign, 0, "{:?}", outcome.correctness);
    assert_eq!(outcome.sessions.lost, 0, "{:?}", outcome.sessions);
}

#[test]
fn idle_sessions_are_held_and_heard() {
    // A session that is not heard within 4.5 s is closed.
    let set = [("session.heartbeat_interval", "3s")];
    let (gateway, mut plan) = plan(Work::Hold { sessions: 60 }, &set);
    plan.phases.measured = Duration::from_secs(8);
    let outcome = run(gateway, plan);
    assert_good(&outcome);
    assert_eq!((outcome.sessions.connected, outcome.sessions.lowest), (60, 60));
    assert_eq!(outcome.sessions.logins, 60);
    let connects = outcome.unmeasured.get(Operation::Connect).unwrap();
    assert_eq!((connects.count(), connects.failed()), (60, 0));
    assert!(outcome.target.unwrap().peak_rss > 0);
}

#[test]
fn everything_that_pairs_write_arrives_once_and_in_order() {
    let work = Work::Chat { pairs: 20, both_ways: true, traffic: traffic(200.0) };
    let (gateway, plan) = plan(work, &[]);
    let outcome = run(gateway, plan);
    assert_good(&outcome);
    let acked = count(&outcome, Operation::SendAck);
    assert!(acked.abs_diff(400) <= 2, "200 a second for 2 seconds, not {acked}");
    assert_eq!(count(&outcome, Operation::Deliver), acked);
    let found = outcome.correctness;
    assert_eq!((found.sent, found.acked, found.delivered), (found.sent, found.sent, found.sent));
    assert!(found.sent >= 400);
}
