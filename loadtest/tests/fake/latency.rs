//! Times: what the tester reports lies between what the target let go and what it saw read.

use std::time::Duration;

use hdrhistogram::Histogram;
use skein_loadtest::operation::Operation;

use crate::target::Behaviour;
use crate::truth::Bounds;
use crate::{assert_says_when_it_is_late, chat, run, whole};

const QUANTILES: [f64; 8] = [0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0];

/// The error that is allowed: the histograms' three digits (0.1 %), and a microsecond for rounding.
/// Nothing for the machine: floor and ceiling are times of this very run.
#[track_caller]
fn assert_within(what: &str, found: &Histogram<u64>, bounds: &Bounds) {
    assert_eq!(found.len(), bounds.len(), "{what}: every operation is recorded once");
    for quantile in QUANTILES {
        let (least, most) = bounds.at(quantile);
        let value = found.value_at_quantile(quantile);
        let floor = least - least / 1000;
        let ceiling = most.saturating_add(most / 1000 + 1);
        assert!(
            (floor.saturating_sub(1)..=ceiling).contains(&value),
            "{what}: {quantile} is {value} us, and was {least} to {most} us"
        );
    }
}

#[test]
fn a_fixed_delay_is_what_is_reported() {
    let delay = Duration::from_millis(25);
    let behaviour = Behaviour { delay, ..Behaviour::default() };
    let (outcome, truth) = run(behaviour, chat(4, 200.0), Duration::from_secs(2));
    let (sends, pushes) =
        (whole(&outcome, Operation::SendAck), whole(&outcome, Operation::Deliver));
    assert_within("send_ack", &sends.response, &truth.response());
    assert_within("deliver", &pushes.response, &truth.delivery());
    // The timer of the target does not fire early; 0.1 % are the histogram's.
    for histogram in [&sends.response, &sends.service, &pushes.response, &pushes.service] {
        assert!(histogram.min() >= 24_970, "{} us", histogram.min());
    }
    let measured = outcome.measured.get(Operation::SendAck).unwrap();
    let due = measured.count() + measured.failed() + measured.dropped;
    assert!(due.abs_diff(400) <= 2, "200 a second for 2 seconds, not {due}");
    assert_says_when_it_is_late(&outcome, &truth);
}

/// A writer with one message under way to a target that takes 100 ms for each, and a message due every
/// 50 ms: every one but the first is held back, for longer and longer.
#[test]
fn what_the_window_holds_back_is_counted_with_its_wait() {
    let behaviour =
        Behaviour { delay: Duration::from_millis(100), max_unacked: 1, ..Behaviour::default() };
    let (outcome, _) = run(behaviour, chat(1, 20.0), Duration::from_secs(2));
    let sends = whole(&outcome, Operation::SendAck);
    assert!(sends.count() >= 40 && sends.failed() == 0, "{:?}", sends.errors);
    assert_eq!(sends.held_back, sends.count() - 1);
    let least = (sends.count() - 1) * 50_000 - 1_000;
    assert!(sends.held_back_longest_us >= least, "{} us", sends.held_back_longest_us);
    assert!(sends.response.max() >= least + 99_000, "what was due contains the wait");
    assert!(sends.service.min() >= 99_000 && sends.service.min() < sends.response.max() / 2);
}

/// A target that stands still a tenth of the time. Each writer may have one message under way, so
/// the messages that fall due meanwhile wait, as they do in a tester with a closed loop. What such a
/// tester shows is the service time, and it is in the same run as ours.
fn stalls(every: Duration, lasts: Duration, measured: Duration) {
    let behaviour =
        Behaviour { stall: Some((every, lasts)), max_unacked: 1, ..Behaviour::default() };
    let writers = 4;
    let (outcome, truth) = run(behaviour, chat(writers, 400.0), measured);
    let sends = whole(&outcome, Operation::SendAck);
    let (ours, closed) = (truth.response(), truth.service_of_one_at_a_time());
    assert_within("response", &sends.response, &ours);
    assert_within("service", &sends.service, &closed);
    assert_says_when_it_is_late(&outcome, &truth);

    // Whoever was due in the first half of a stall waited for the second half at the least.
    let half = truth.stalls.iter().map(|(from, to)| (to - from) / 2000).min().unwrap();
    let waited = sends.response.count_between(half, u64::MAX);
    let due = truth.due_in_stalls(0.5);
    assert!(due > 0 && waited >= due, "{waited} of {due} that were due waited {half} us");
    // Of the closed loop's times only one a writer and stall tells of it, and what this machine did
    // of itself to the target: so many of them can have been longer.
    let long = sends.service.count_between(half, u64::MAX);
    assert!(long <= closed.longer_than(half), "{long} services of more than {half} us");
    assert!(closed.at(0.95).1 < ours.at(0.95).0, "{:?} {:?}", closed.at(0.95), ours.at(0.95));

    println!(
        "{} stalls of {lasts:?}, {} messages, {due} due in their first halves",
        truth.stalls.len(),
        sends.count()
    );
    println!("{:>10} {:>12} {:>12}", "", "open loop", "closed loop");
    for quantile in QUANTILES {
        let of = |histogram: &Histogram<u64>| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        println!(
            "{:>9}% {:>9.2} ms {:>9.2} ms",
            quantile * 100.0,
            of(&sends.response),
            of(&sends.service)
        );
    }
}

#[test]
fn a_stall_is_seen_by_all_who_wanted_something() {
    stalls(Duration::from_secs(2), Duration::from_millis(200), Duration::from_secs(5));
}

/// With the figures that textbooks use.
#[test]
#[ignore = "takes half a minute; the one above has the same proportions"]
fn a_second_of_stall_in_ten() {
    stalls(Duration::from_secs(10), Duration::from_secs(1), Duration::from_secs(30));
}
