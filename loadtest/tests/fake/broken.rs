//! A target that is not one: every run ends in time and says why, before any load where that can
//! be known.

use std::time::{Duration, Instant};

use skein_loadtest::operation::{Failure, Operation};
use skein_loadtest::outcome::ReasonKind;
use skein_loadtest::plan::{Plan, Work};
use skein_loadtest::run::{Hooks, Run, RunError};
use skein_protocol::Code;

use crate::target::{Behaviour, Fault, Login, Target};
use crate::{chat, plan, whole};

/// Answers are waited for so long in these tests.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a run that must not begin says.
fn refusal(behaviour: Behaviour, change: impl FnOnce(&mut Plan)) -> RunError {
    let target = Target::start(behaviour);
    let mut plan = plan(&target, chat(2, 10.0), Duration::from_secs(1));
    plan.answer_timeout = PATIENCE;
    change(&mut plan);
    let error = Run::start(plan, Hooks::default()).map(drop).unwrap_err();
    assert!(target.stop().sends.is_empty(), "there was load: {error}");
    error
}

fn at_login(login: Login) -> Behaviour {
    Behaviour { login: Some((login, 1)), ..Behaviour::default() }
}

#[test]
fn a_first_login_that_fails_is_told_before_any_load() {
    let cases = [
        (Login::Ignored, "does not answer the login within 1s"),
        (Login::Garbage, "bad_answer"),
        (Login::Huge, "bad_answer"),
        (Login::Strange, "bad_answer"),
        (Login::Closed(Code::VersionUnsupported), "101 VersionUnsupported"),
        (Login::Closed(Code::BadToken), "110 BadToken"),
        (Login::Closed(Code::TooManySessions), "124 TooManySessions"),
        (Login::Closed(Code::Internal), "303 Internal (planted)"),
    ];
    for (login, words) in cases {
        let error = refusal(at_login(login), |_| {});
        assert!(matches!(error, RunError::Refused { .. }), "{login:?}: {error}");
        assert!(error.to_string().contains(words), "{login:?}: {error}");
    }
}

#[test]
fn what_is_no_gateway_is_told_before_any_load() {
    let other = Behaviour { alpn: b"skein/2", ..Behaviour::default() };
    let error = refusal(other, |_| {});
    assert!(error.to_string().contains("does not speak this version"), "{error}");
    let error = refusal(Behaviour::default(), |plan| plan.target.server_name = "else.where".into());
    assert!(error.to_string().contains("certificate"), "{error}");
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = refusal(Behaviour::default(), |plan| {
        plan.target.addresses = vec![nobody.local_addr().unwrap()];
    });
    assert!(error.to_string().contains("is a gateway running there"), "{error}");
}

/// Later logins that nobody answers end the ramp, not the patience of whoever waits for it.
#[test]
fn a_ramp_without_answers_ends() {
    let target =
        Target::start(Behaviour { login: Some((Login::Ignored, 3)), ..Behaviour::default() });
    let mut plan = plan(&target, chat(4, 20.0), Duration::from_secs(1));
    plan.answer_timeout = PATIENCE;
    plan.phases.ramp_limit = Duration::from_secs(3);
    plan.phases.drain = Duration::from_secs(3);
    let outcome = Run::start(plan, Hooks::default()).unwrap().finish().unwrap();
    let reasons: Vec<_> = outcome.reasons.iter().map(|reason| reason.kind).collect();
    assert!(reasons.contains(&ReasonKind::RampIncomplete), "{reasons:?}");
    let logins = whole(&outcome, Operation::Login);
    assert!(logins.errors.get(&Failure::TimedOut) >= Some(&1), "{:?}", logins.errors);
    assert_eq!(outcome.sessions.logins, target.stop().logins - 1, "but for the probe's");
}

/// Everything that is asked for is never answered: counted as such, and the run is over when it
/// shall be.
#[test]
fn a_run_without_answers_ends() {
    let silent = Behaviour { fault: Some((Fault::NotAcked, 1)), ..Behaviour::default() };
    let target = Target::start(silent);
    let mut plan = plan(&target, chat(2, 50.0), Duration::from_secs(2));
    plan.answer_timeout = PATIENCE;
    let begun = Instant::now();
    let outcome = Run::start(plan, Hooks::default()).unwrap().finish().unwrap();
    let sends = whole(&outcome, Operation::SendAck);
    assert_eq!((sends.count(), outcome.correctness.acked), (0, 0));
    assert_eq!(sends.failed(), outcome.correctness.sent);
    assert_eq!(sends.errors.keys().collect::<Vec<_>>(), [&Failure::TimedOut]);
    // Ramp, phases and all patience together, with room for a machine that is busy.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    drop(target);
}

/// A backlog that is written and never given out.
#[test]
fn a_sync_without_answers_is_a_failed_one() {
    let target = Target::start(Behaviour { reads: false, ..Behaviour::default() });
    let work = Work::Sync {
        receivers: 2,
        backlog: 20,
        outstanding: 4,
        payload_bytes: 64..=64,
        login_rate: 5.0,
    };
    let mut plan = plan(&target, work, Duration::from_secs(2));
    plan.answer_timeout = PATIENCE;
    plan.phases.drain = Duration::from_secs(2);
    let outcome = Run::start(plan, Hooks::default()).unwrap().finish().unwrap();
    let syncs = whole(&outcome, Operation::Sync);
    assert_eq!(syncs.count(), 0);
    let began = target.stop().logins - 1 - 2;
    assert!(syncs.errors.get(&Failure::TimedOut) >= Some(&began.min(2)), "{:?}", syncs.errors);
}
