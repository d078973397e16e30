//! Small runs against a real gateway: the program `skein`, in a process of its own.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use std::time::Duration;

use skein_loadtest::operation::Operation;
use skein_loadtest::outcome::Outcome;
use skein_loadtest::plan::{
    Algorithm, Arrival, Credentials, Cut, Fleet, Identity, Ladder, Load, Manners, Phases, Plan,
    Rise, Secret, Traffic, Trust, Work,
};
use skein_loadtest::record::Recording;
use skein_loadtest::run::{Hooks, Run, RunError};
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
    plan.bounds.shard_wait = 1.0;
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

#[test]
fn a_group_reaches_all_of_its_devices() {
    let work = Work::Group { groups: 3, receivers: 11, traffic: traffic(30.0) };
    let (gateway, plan) = plan(work, &[]);
    let outcome = run(gateway, plan);
    assert_good(&outcome);
    let acked = count(&outcome, Operation::SendAck);
    assert!(acked.abs_diff(60) <= 2, "30 a second for 2 seconds, not {acked}");
    assert_eq!(count(&outcome, Operation::Deliver), 11 * acked);
    assert_eq!(count(&outcome, Operation::FanOut), acked);
    assert_eq!(outcome.correctness.delivered, 11 * outcome.correctness.sent);
}

#[test]
fn a_backlog_is_synced_whole_by_each_new_device() {
    let work = Work::Sync {
        receivers: 3,
        backlog: 700,
        outstanding: 16,
        payload_bytes: 64..=64,
        login_rate: 4.0,
    };
    let (gateway, plan) = plan(work, &[]);
    let outcome = run(gateway, plan);
    assert_good(&outcome);
    let synced = count(&outcome, Operation::Sync);
    assert!((1..=9).contains(&synced), "4 a second for 2 seconds, not {synced}");
    assert_eq!(outcome.measured.get(Operation::Sync).unwrap().failed(), 0);
    let found = outcome.correctness;
    // Those of the warm-up as well.
    let synced = synced + outcome.unmeasured.get(Operation::Sync).map_or(0, |one| one.count());
    assert_eq!((found.acked, found.delivered), (3 * 700, synced * 700));
}

/// The backlog is looked for behind what the users wrote before.
#[test]
fn a_backlog_is_synced_behind_a_history() {
    let work = Work::Sync {
        receivers: 2,
        backlog: 50,
        outstanding: 4,
        payload_bytes: 64..=64,
        login_rate: 4.0,
    };
    let (gateway, plan) = plan(work, &[]);
    for _ in 0..2 {
        let outcome = Run::start(plan.clone(), Hooks::default()).unwrap().finish().unwrap();
        assert_good(&outcome);
        let syncs = |recording: &Recording| {
            recording.get(Operation::Sync).map_or((0, 0), |one| (one.count(), one.failed()))
        };
        let (measured, rest) = (syncs(&outcome.measured), syncs(&outcome.unmeasured));
        assert!(measured.0 > 0 && (measured.1, rest.1) == (0, 0), "{measured:?} {rest:?}");
        let found = outcome.correctness;
        assert_eq!((found.acked, found.delivered), (2 * 50, (measured.0 + rest.0) * 50));
    }
    drop(gateway);
}

#[test]
fn sessions_that_come_and_go_are_always_as_many() {
    let (gateway, plan) = plan(Work::Churn { sessions: 40, rate: 20.0 }, &[]);
    let outcome = run(gateway, plan);
    assert_good(&outcome);
    let logins = count(&outcome, Operation::Login);
    assert!(logins.abs_diff(40) <= 2, "20 a second for 2 seconds, not {logins}");
    let before = outcome.unmeasured.get(Operation::Login).unwrap().count();
    assert_eq!(outcome.sessions.logins, before + logins);
    assert!(outcome.sessions.lowest >= 20, "{}", outcome.sessions.lowest);
}

fn storm(cut: Cut) -> Outcome {
    storm_with(cut, true)
}

fn storm_with(cut: Cut, tickets: bool) -> Outcome {
    let work = Work::Storm {
        sessions: 50,
        cut,
        after: Duration::from_millis(500),
        return_over: Duration::from_millis(200),
    };
    let (gateway, mut plan) = plan(work, &[("drain.reconnect_delay", "500ms")]);
    let pairs = Work::Chat { pairs: 5, both_ways: true, traffic: traffic(50.0) };
    plan.fleets.push(Fleet { name: "pairs".into(), work: pairs, ..plan.fleets[0].clone() });
    plan.phases.measured = Duration::from_secs(4);
    // Until everybody is back, however long a busy machine takes to start a gateway.
    plan.phases.drain = Duration::from_secs(60);
    plan.tickets = tickets;
    run(gateway, plan)
}

/// First connections are whole ones, whatever comes later; and returns are measured apart.
fn assert_resumed(outcome: &Outcome, resumed: u64) {
    assert_eq!(outcome.sessions.resumed, resumed, "{:?}", outcome.sessions);
    for first in [Operation::Connect, Operation::Login] {
        assert_eq!(outcome.unmeasured.get(first).unwrap().count(), 60);
        assert_eq!(count(outcome, first), 0, "{first}");
    }
}

#[test]
fn sessions_that_are_closed_come_back() {
    let outcome = storm(Cut::Close);
    assert_good(&outcome);
    assert_eq!(count(&outcome, Operation::Resume), 50);
    assert_resumed(&outcome, 50);
    assert_eq!(outcome.sessions.expected, 0, "this side closed them");
    assert_eq!(outcome.measured.get(Operation::SendAck).unwrap().failed(), 0);
    assert_eq!(outcome.sessions.connected, 60);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_gateway_is_killed() {
    let outcome = storm(Cut::Kill);
    assert_good(&outcome);
    assert_eq!(count(&outcome, Operation::Resume), 60, "the pairs come back as well");
    assert_resumed(&outcome, 60);
    let sends = outcome.measured.get(Operation::SendAck).unwrap();
    assert!(sends.count() > 0 && sends.failed() > 0, "{:?}", sends.errors);
    assert_eq!(outcome.sessions.connected, 60);
}

#[test]
fn nothing_is_lost_when_the_gateway_is_stopped() {
    let outcome = storm(Cut::Stop);
    assert_good(&outcome);
    let resumed = count(&outcome, Operation::Resume);
    assert_eq!(resumed, 60, "{:?}", outcome.sessions);
    // Whoever comes too early has used its ticket up when the gateway is there.
    assert!(outcome.sessions.resumed > 0, "{:?}", outcome.sessions);
    assert_eq!(outcome.sessions.expected, 60);
}

#[test]
fn without_tickets_every_return_is_a_whole_handshake() {
    let outcome = storm_with(Cut::Close, false);
    assert_good(&outcome);
    assert_eq!(count(&outcome, Operation::Resume), 50);
    assert_resumed(&outcome, 0);
}

/// Silent ones are evicted by the gateway, again and again: that is what it should do, and no error.
/// Slow ones read once a second and miss nothing.
#[test]
fn bad_manners_are_part_of_the_plan() {
    // A session that is not heard within 6 s is closed; honest ones speak after 3.6 s.
    let set = [("session.heartbeat_interval", "4s")];
    let (gateway, mut plan) = plan(Work::Hold { sessions: 40 }, &set);
    plan.fleets[0].manners.silent = 0.5;
    let work = Work::Chat { pairs: 20, both_ways: true, traffic: traffic(100.0) };
    let manners = Manners { slow: 0.5, silent: 0.0 };
    plan.fleets.push(Fleet { name: "pairs".into(), work, manners, ..plan.fleets[0].clone() });
    plan.phases.measured = Duration::from_secs(9);
    let outcome = run(gateway, plan);
    assert_good(&outcome);
    // The seed makes about 20 of them silent, and each is evicted once or twice.
    let evicted = outcome.sessions.expected;
    assert!(evicted >= 10, "{:?}", outcome.sessions);
    assert!(outcome.sessions.ends.is_empty(), "{:?}", outcome.sessions.ends);
    assert_eq!(count(&outcome, Operation::Resume), 0, "others come in their place");
    let before = outcome.unmeasured.get(Operation::Login).unwrap().count();
    assert_eq!(outcome.sessions.logins, before + count(&outcome, Operation::Login));
    // All that was written has come, in order, to slow ones as well.
    let found = outcome.correctness;
    assert_eq!((found.acked, found.delivered), (found.sent, found.sent));
    // Their times say nothing of the gateway: each is one of a pair's messages, as writer or as
    // receiver, and is counted without its time.
    let sends = outcome.measured.get(Operation::SendAck).unwrap();
    let arrivals = outcome.measured.get(Operation::Deliver).unwrap();
    assert_eq!(sends.count(), arrivals.count());
    for record in [sends, arrivals] {
        let timed = record.response.len();
        assert!(timed > 0 && record.untimed > 0, "{timed} and {}", record.untimed);
        assert_eq!((record.service.len(), record.count()), (timed, timed + record.untimed));
    }
    assert!(outcome.sessions.lowest >= 40, "{}", outcome.sessions.lowest);
}

/// The last of a group's receivers, and a slow one: what it takes is its own doing.
#[test]
fn a_group_of_slow_sessions_has_no_times() {
    let work = Work::Group { groups: 2, receivers: 5, traffic: traffic(20.0) };
    let (gateway, mut plan) = plan(work, &[]);
    plan.fleets[0].manners.slow = 1.0;
    let outcome = run(gateway, plan);
    assert_good(&outcome);
    let found = outcome.correctness;
    assert_eq!((found.acked, found.delivered), (found.sent, 5 * found.sent));
    for operation in [Operation::SendAck, Operation::Deliver, Operation::FanOut] {
        let record = outcome.measured.get(operation).unwrap();
        assert!(record.untimed > 0 && record.response.is_empty(), "{operation}");
    }
}

#[test]
fn a_closed_loop_keeps_as_much_under_way_as_it_shall() {
    let closed = Traffic { load: Load::Outstanding(4), payload_bytes: 64..=64 };
    let (gateway, plan) = plan(Work::Chat { pairs: 4, both_ways: false, traffic: closed }, &[]);
    let outcome = run(gateway, plan);
    assert_good(&outcome);
    assert!(outcome.throughput.acked > 0.0);
    let found = outcome.correctness;
    assert_eq!((found.acked, found.delivered), (found.sent, found.sent));
}

#[test]
fn a_ladder_ends_with_the_last_good_step() {
    let (gateway, mut plan) =
        plan(Work::Chat { pairs: 4, both_ways: false, traffic: traffic(1.0) }, &[]);
    plan.ladder = Some(Ladder {
        first: 20.0,
        last: 1000.0,
        rise: Rise::Multiply(2.0),
        refine: 2,
        settle: Duration::from_millis(100),
        hold: Duration::from_secs(1),
        // How fast a busy machine answers is not what is tested.
        least_share: 0.0,
    });
    let judge = |step: &skein_loadtest::outcome::Step| {
        if step.load > 50.0 { vec!["too much".to_owned()] } else { Vec::new() }
    };
    let hooks = Hooks {
        supervisor: Some(Box::new(gateway)),
        judge: Some(Box::new(judge)),
        ..Hooks::default()
    };
    let outcome = Run::start(plan, hooks).unwrap().finish().unwrap();
    assert_good(&outcome);
    let loads: Vec<f64> = outcome.steps.iter().map(|step| step.load).collect();
    assert_eq!(loads, [20.0, 40.0, 80.0, 60.0, 50.0]);
    assert_eq!(outcome.steps[2].broken, ["too much"]);
    // The figures are those of the step with 50, for a second.
    assert_eq!(outcome.rate_per_second(), outcome.steps[4].throughput.acked);
    let sends = outcome.measured.get(Operation::SendAck).unwrap();
    let due = sends.count() + sends.failed() + sends.dropped;
    assert!(due.abs_diff(50) <= 2, "{due}");
}

#[test]
fn an_early_end_is_an_end_in_order() {
    let work = Work::Chat { pairs: 5, both_ways: true, traffic: traffic(50.0) };
    let (gateway, mut plan) = plan(work, &[]);
    plan.phases.measured = Duration::from_secs(3600);
    let hooks = Hooks { supervisor: Some(Box::new(gateway)), ..Hooks::default() };
    let handle = Run::start(plan, hooks).unwrap();
    while handle.snapshot().correctness.acked < 50 {
        std::thread::sleep(Duration::from_millis(50));
    }
    handle.stop();
    let outcome = handle.finish().unwrap();
    assert_good(&outcome);
    assert!(outcome.ended_early && outcome.phases.measured < 3600.0);
}

#[test]
fn what_cannot_work_is_said_before_any_load() {
    let (gateway, plan) = plan(Work::Hold { sessions: 5 }, &[]);
    let start = |plan: Plan| Run::start(plan, Hooks::default()).map(drop);
    start(plan.clone()).unwrap();

    let mut wrong = plan.clone();
    wrong.identity.credentials = Credentials::Signed {
        key: Secret("another secret, of more than 32 bytes".into()),
        algorithm: Algorithm::Hs256,
        key_id: None,
        audience: "skein".into(),
        issuer: None,
        lifetime: Duration::from_secs(60),
    };
    let error = start(wrong).unwrap_err();
    assert!(matches!(error, RunError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("110 BadToken"), "{error}");

    let mut wrong = plan.clone();
    wrong.target.trust = Trust::Pem("no certificate".into());
    assert!(start(wrong).unwrap_err().to_string().contains("certificates"));

    let mut wrong = plan.clone();
    wrong.target.server_name = "somewhere.else".into();
    let error = start(wrong).unwrap_err();
    assert!(matches!(error, RunError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");

    for (length, fits) in [(64_512, true), (64_513, false), (16 << 20, false)] {
        let mut long = plan.clone();
        let load = Load::Outstanding(1);
        let traffic = Traffic { load, payload_bytes: 64..=length };
        long.fleets[0].work = Work::Chat { pairs: 1, both_ways: false, traffic };
        match start(long) {
            Ok(()) => assert!(fits, "{length}"),
            Err(error) => {
                assert!(!fits && matches!(error, RunError::TooLong { .. }), "{length}: {error}");
                assert!(error.to_string().contains("at most 64512 bytes"), "{error}");
            }
        }
    }

    let mut wrong = plan.clone();
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    wrong.target.addresses = vec![nobody.local_addr().unwrap()];
    wrong.answer_timeout = Duration::from_secs(1);
    let error = start(wrong).unwrap_err();
    assert!(matches!(error, RunError::Unreachable { .. }), "{error}");
    drop(gateway);
}
