//! What is wrong is counted as often as it was done, and as what it is.

use std::time::Duration;

use skein_loadtest::operation::{Failure, Operation};
use skein_loadtest::outcome::{Correctness, Outcome};
use skein_loadtest::plan::{Cut, Work};
use skein_loadtest::run::{Hooks, Run};

use crate::target::{Behaviour, Fault, Target};
use crate::truth::Truth;
use crate::{assert_says_when_it_is_late, chat, plan, run, whole};

/// One message of so many is treated wrongly: 1 %, and in turn those of each pair.
const EVERY: u64 = 101;

/// Exact: no error is allowed in a count.
fn with(fault: Fault, every: u64) -> (Outcome, Truth) {
    let behaviour = Behaviour { fault: Some((fault, every)), ..Behaviour::default() };
    let (outcome, truth) = run(behaviour, chat(4, 600.0), Duration::from_secs(2));
    assert!(truth.faults >= 5, "only {} faults were made", truth.faults);
    // What was written when its session ended may never have left.
    let ended = whole(&outcome, Operation::SendAck).errors.get(&Failure::SessionEnded).copied();
    let (sent, came) = (outcome.correctness.sent, truth.sends.len() as u64);
    assert!((came..=came + ended.unwrap_or(0)).contains(&sent), "{sent}, of which {came} came");
    assert_eq!(outcome.correctness.foreign, 0);
    assert_says_when_it_is_late(&outcome, &truth);
    (outcome, truth)
}

/// Nothing is wrong but this.
fn only(found: &Correctness, wrong: Correctness) {
    let Correctness { sent, acked, delivered, recovered, .. } = *found;
    assert_eq!(*found, Correctness { sent, acked, delivered, recovered, ..wrong });
}

#[test]
fn an_honest_target_is_not_accused() {
    let (outcome, truth) = run(Behaviour::default(), chat(4, 600.0), Duration::from_secs(1));
    only(&outcome.correctness, Correctness::default());
    let all = truth.sends.len() as u64;
    let found = outcome.correctness;
    assert_eq!((found.sent, found.acked, found.delivered, found.recovered), (all, all, all, 0));
}

#[test]
fn lost_ones() {
    let (outcome, truth) = with(Fault::Lost, EVERY);
    only(&outcome.correctness, Correctness { lost: truth.faults, ..Default::default() });
    let all = truth.sends.len() as u64;
    let found = outcome.correctness;
    assert_eq!((found.acked, found.delivered), (all, all - truth.faults));
}

/// More gaps in one conversation than a receiver keeps apart.
#[test]
fn very_many_lost_ones() {
    let behaviour = Behaviour { fault: Some((Fault::Lost, 3)), ..Behaviour::default() };
    let (outcome, truth) = run(behaviour, chat(1, 300.0), Duration::from_secs(2));
    assert!(truth.faults > 150, "{}", truth.faults);
    only(&outcome.correctness, Correctness { lost: truth.faults, ..Default::default() });
}

/// All that was acknowledged is still on its way when the drain is over.
fn nothing_is_pushed(behaviour: Behaviour) -> (Outcome, Truth) {
    let target = Target::start(Behaviour { pushes: false, ..behaviour });
    let mut plan = plan(&target, chat(4, 600.0), Duration::from_secs(1));
    plan.phases.drain = Duration::from_secs(1);
    plan.answer_timeout = Duration::from_secs(4);
    let outcome = Run::start(plan, Hooks::default()).unwrap().finish().unwrap();
    let found = outcome.correctness;
    assert!(found.acked > 0);
    (outcome, target.stop())
}

/// A receiver that was told of nothing asks before anybody is accused.
#[test]
fn what_is_on_its_way_at_the_end_is_asked_for() {
    let (outcome, truth) = nothing_is_pushed(Behaviour::default());
    let found = outcome.correctness;
    only(&found, Correctness::default());
    let all = truth.sends.len() as u64;
    assert_eq!((found.acked, found.delivered, found.recovered), (all, all, all));
}

/// What is asked for and is not in the log is lost, also where the log ends before it.
#[test]
fn what_is_not_there_at_the_end_is_lost() {
    for fault in [Fault::Lost, Fault::Invented] {
        let behaviour = Behaviour { fault: Some((fault, 1)), ..Behaviour::default() };
        let (outcome, truth) = nothing_is_pushed(behaviour);
        let found = outcome.correctness;
        only(&found, Correctness { lost: truth.faults, ..Default::default() });
        assert_eq!((found.acked, found.lost), (truth.faults, found.acked));
    }
}

/// Nobody answers what is asked at the end: whether anything is lost is not known.
#[test]
fn what_cannot_be_asked_for_at_the_end_is_unchecked() {
    let (outcome, _) = nothing_is_pushed(Behaviour { reads: false, ..Behaviour::default() });
    let found = outcome.correctness;
    only(&found, Correctness { unchecked: found.acked, ..Default::default() });
}

/// The next message of the writer gets the same place.
#[test]
fn acknowledged_and_never_kept() {
    let (outcome, truth) = with(Fault::Invented, EVERY);
    only(&outcome.correctness, Correctness { lost: truth.faults, ..Default::default() });
}

#[test]
fn duplicated_ones() {
    let (outcome, truth) = with(Fault::Duplicated, EVERY);
    only(&outcome.correctness, Correctness { duplicated: truth.faults, ..Default::default() });
    assert_eq!(outcome.correctness.delivered, truth.sends.len() as u64);
}

#[test]
fn reordered_ones() {
    let (outcome, truth) = with(Fault::Reordered, EVERY);
    only(&outcome.correctness, Correctness { reordered: truth.faults, ..Default::default() });
    assert_eq!(outcome.correctness.delivered, truth.sends.len() as u64);
}

#[test]
fn corrupted_ones() {
    let (outcome, truth) = with(Fault::Corrupted, EVERY);
    only(&outcome.correctness, Correctness { corrupted: truth.faults, ..Default::default() });
}

/// Those who are meant get them all the same; the others' place in the log is not touched.
#[test]
fn misdelivered_ones() {
    let (outcome, truth) = with(Fault::Misdelivered, EVERY);
    only(&outcome.correctness, Correctness { misdelivered: truth.faults, ..Default::default() });
    assert_eq!(outcome.correctness.delivered, truth.sends.len() as u64);
    assert!(!outcome.correctness.is_clean());
}

#[test]
fn acknowledged_at_another_place() {
    let (outcome, truth) = with(Fault::Misplaced, EVERY);
    only(&outcome.correctness, Correctness { false_acks: truth.faults, ..Default::default() });
}

#[test]
fn acknowledged_twice() {
    let (outcome, truth) = with(Fault::AckedTwice, EVERY);
    only(&outcome.correctness, Correctness { false_acks: truth.faults, ..Default::default() });
}

#[test]
fn refused_and_kept() {
    let (outcome, truth) = with(Fault::RefusedAndKept, EVERY);
    only(&outcome.correctness, Correctness { false_acks: truth.faults, ..Default::default() });
    assert_eq!(refused(&outcome), truth.faults);
}

#[test]
fn refused_until_later() {
    let (outcome, truth) = with(Fault::Refused, EVERY);
    only(&outcome.correctness, Correctness::default());
    assert_eq!(refused(&outcome), truth.faults);
    let all = truth.sends.len() as u64;
    assert_eq!(outcome.correctness.acked, all - truth.faults);
}

fn refused(outcome: &Outcome) -> u64 {
    let sends = whole(outcome, Operation::SendAck);
    assert_eq!(sends.errors.keys().collect::<Vec<_>>(), [&Failure::Code(300)]);
    sends.failed()
}

#[test]
fn never_answered() {
    let target =
        Target::start(Behaviour { fault: Some((Fault::NotAcked, EVERY)), ..Behaviour::default() });
    let mut plan = plan(&target, chat(4, 600.0), Duration::from_secs(2));
    // A machine that is held up for so long would make more of them.
    plan.answer_timeout = Duration::from_secs(4);
    let outcome = Run::start(plan, Hooks::default()).unwrap().finish().unwrap();
    let truth = target.stop();
    only(&outcome.correctness, Correctness::default());
    let sends = whole(&outcome, Operation::SendAck);
    assert_eq!(sends.errors.get(&Failure::TimedOut), Some(&truth.faults), "{:?}", sends.errors);
    let all = truth.sends.len() as u64;
    assert_eq!((sends.count(), outcome.correctness.delivered), (all - truth.faults, all));
}

/// Sessions that are closed are counted, come back, and nothing that was acknowledged is lost.
#[test]
fn disconnected_ones() {
    let (outcome, truth) = with(Fault::Disconnected, 211);
    only(&outcome.correctness, Correctness::default());
    assert_eq!(outcome.sessions.lost, truth.faults);
    assert_eq!(outcome.sessions.ends.get(&Failure::Code(121)), Some(&truth.faults));
    // An answer that was written just before the close may not have left.
    let (written, seen) = truth.answers();
    let sends = whole(&outcome, Operation::SendAck);
    assert!((seen..=written).contains(&sends.count()), "{seen} <= {} <= {written}", sends.count());
    assert_eq!(sends.errors.keys().collect::<Vec<_>>(), [&Failure::SessionEnded]);

    let back: Vec<_> = truth.cut.iter().filter_map(|cut| Some((cut.at, cut.back?))).collect();
    let resumed = whole(&outcome, Operation::Resume);
    assert_eq!(resumed.count(), back.len() as u64, "each return is a resume");
    assert_eq!(resumed.count() + resumed.failed(), truth.faults, "and each loss asks for one");
    // A return takes at most from the cut to when the welcome was read, 0.1 % for the histogram.
    let most = back.iter().map(|(at, (_, seen))| (seen - at).div_ceil(1000)).max().unwrap();
    assert!(resumed.response.max() <= most + most / 1000 + 1);
}

/// Garbage ends a session, not the run.
#[test]
fn garbled_answers() {
    let (outcome, truth) = with(Fault::Garbled, 211);
    only(&outcome.correctness, Correctness::default());
    assert_eq!(outcome.sessions.lost, truth.faults);
    assert_eq!(outcome.sessions.ends.get(&Failure::BadAnswer), Some(&truth.faults));
}

/// Of a backlog of 40 messages every fifth is not there when it is read.
#[test]
fn lost_ones_of_a_backlog() {
    let target = Target::start(Behaviour { fault: Some((Fault::Lost, 5)), ..Behaviour::default() });
    let work = Work::Sync {
        receivers: 2,
        backlog: 40,
        outstanding: 1,
        payload_bytes: 64..=64,
        login_rate: 4.0,
    };
    let plan = plan(&target, work, Duration::from_secs(2));
    let outcome = Run::start(plan, Hooks::default()).unwrap().finish().unwrap();
    let truth = target.stop();
    assert_eq!((truth.sends.len(), truth.faults), (80, 16));
    let syncs = whole(&outcome, Operation::Sync);
    // Each pass finds what is missing, and none is a good one.
    let passes = syncs.failed();
    assert!(passes >= 2 && syncs.count() == 0, "{:?}", syncs.errors);
    let found = outcome.correctness;
    assert_eq!(found.lost + found.delivered, 40 * passes);
    // How often each of the two came is not known; what each missed every time is.
    let of_first = |at: &usize| truth.sends[*at].stamp.stream == truth.sends[0].stamp.stream;
    let first = (4..80).step_by(5).filter(of_first).count() as u64;
    let may_be = |one: u64| one * first + (passes - one) * (16 - first) == found.lost;
    assert!((0..=passes).any(may_be), "{} in {passes} passes, {first} of 16", found.lost);
}

/// The end waits for whoever is still to return.
#[test]
fn a_storm_ends_when_all_have_returned() {
    let target = Target::start(Behaviour::default());
    let work = Work::Storm {
        sessions: 20,
        cut: Cut::Close,
        after: Duration::from_millis(500),
        return_over: Duration::from_secs(4),
    };
    let plan = plan(&target, work, Duration::from_secs(1));
    let outcome = Run::start(plan, Hooks::default()).unwrap().finish().unwrap();
    assert_eq!(whole(&outcome, Operation::Resume).count(), 20);
    assert_eq!(whole(&outcome, Operation::Resume).failed(), 0);
}

/// Sessions that are closed at once come back, each with its own ticket.
#[test]
fn a_storm_is_resumed_with_tickets_of_ones_own() {
    let target = Target::start(Behaviour::default());
    let work = Work::Storm {
        sessions: 30,
        cut: Cut::Close,
        after: Duration::from_millis(500),
        return_over: Duration::from_millis(100),
    };
    let mut plan = plan(&target, work, Duration::from_secs(3));
    plan.tickets = true;
    let outcome = Run::start(plan, Hooks::default()).unwrap().finish().unwrap();
    assert_eq!(target.stop().logins, 1 + 60, "the probe as well");
    assert_eq!(outcome.sessions.resumed, 30);
    assert_eq!(whole(&outcome, Operation::Resume).count(), 30);
    assert_eq!(whole(&outcome, Operation::Connect).count(), 30, "first ones alone");
}
