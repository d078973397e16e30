use super::*;
use crate::outcome::Outcome;
use crate::plan::{Fleet, Load, Work};
use crate::record::Recording;
use crate::sample;

fn run(outcome: &Outcome) -> Summary {
    Summary::new(outcome, &[]).unwrap()
}

/// The sample, `factor` times as slow in every operation.
fn slower(factor: f64) -> Outcome {
    let mut outcome = sample::chat();
    let mut measured = Recording::new();
    for (operation, record) in outcome.measured.iter() {
        for value in record.response.iter_recorded() {
            let us = (value.value_iterated_to() as f64 * factor) as u64;
            (0..value.count_at_value()).for_each(|_| measured.success(operation, us, us));
        }
        for (&failure, &count) in &record.errors {
            (0..count).for_each(|_| measured.failure(operation, failure));
        }
    }
    outcome.measured = measured;
    outcome
}

fn verdict(comparison: &Comparison, name: &str) -> Verdict {
    comparison.changes.iter().find(|change| change.name == name).unwrap().verdict
}

#[test]
fn a_run_is_no_worse_than_itself() {
    let run = run(&sample::chat());
    let comparison = Comparison::of_runs(&run, &run, 0.0);
    assert!(comparison.good && comparison.notes.is_empty(), "{}", comparison.text());
    assert!(comparison.changes.len() > 20);
}

#[test]
fn what_is_worse_than_allowed_is_found_and_nothing_else() {
    let before = sample::chat();
    let after = slower(1.15);
    let compare = |tolerance| Comparison::of_runs(&run(&before), &run(&after), tolerance);
    let strict = compare(0.10);
    assert!(!strict.good);
    assert_eq!(verdict(&strict, "send_ack.p50_us"), Verdict::Worse);
    assert_eq!(verdict(&strict, "send_ack.p99_us"), Verdict::Worse);
    assert_eq!(verdict(&strict, "connect.p50_us"), Verdict::Same);
    assert_eq!(verdict(&strict, "send_ack.max_us"), Verdict::Unjudged);
    let text = strict.text();
    assert!(text.lines().nth(1).unwrap().contains("WORSE (at most 10%)"), "{text}");
    assert!(compare(0.20).good, "{}", compare(0.20).text());
    let back = Comparison::of_runs(&run(&after), &run(&before), 0.10);
    assert!(back.good);
    assert_eq!(verdict(&back, "send_ack.p50_us"), Verdict::Better);
}

#[test]
fn a_percentile_of_few_values_is_shown_and_not_judged() {
    let few = |us| {
        let mut outcome = sample::empty();
        outcome.correctness.sent = 1;
        (0..500).for_each(|_| {
            outcome.measured.success(crate::operation::Operation::SendAck, us, us);
        });
        outcome
    };
    let comparison = Comparison::of_runs(&run(&few(100)), &run(&few(900)), 0.10);
    assert_eq!(verdict(&comparison, "send_ack.p50_us"), Verdict::Worse);
    assert_eq!(verdict(&comparison, "send_ack.p90_us"), Verdict::Worse);
    assert_eq!(verdict(&comparison, "send_ack.p99_us"), Verdict::Unjudged);
}

#[test]
fn a_fault_is_worse_whatever_is_allowed_and_a_missing_figure_too() {
    let good = sample::chat();
    let mut faulty = good.clone();
    faulty.correctness.duplicated = 1;
    assert!(!Comparison::of_runs(&run(&good), &run(&faulty), 10.0).good);
    // As many as before are still too many.
    assert!(!Comparison::of_runs(&run(&faulty), &run(&faulty), 10.0).good);
    let mut blind = good.clone();
    blind.target = None;
    let comparison = Comparison::of_runs(&run(&good), &run(&blind), 0.1);
    assert_eq!(verdict(&comparison, "gateway_bytes_per_session"), Verdict::Gone);
    assert!(!comparison.good);
    let comparison = Comparison::of_runs(&run(&blind), &run(&good), 0.1);
    assert_eq!(verdict(&comparison, "gateway_bytes_per_session"), Verdict::New);
    assert!(comparison.good);
}

#[test]
fn other_runs_are_noted() {
    let before = sample::chat();
    let mut after = before.clone();
    after.phases.measured += 60.0;
    let longer = Comparison::of_runs(&run(&before), &run(&after), 0.1);
    assert_eq!((longer.unlike.len(), longer.notes.len()), (0, 1), "{longer:?}");
    after.plan.scenario = "group".into();
    after.sessions.planned = 7;
    if let Some(traffic) = after.plan.fleets[0].work.traffic_mut() {
        traffic.load = Load::Outstanding(1);
    }
    let (mut before, mut after) = (run(&before), run(&after));
    // What fleets differ in has a test of its own; reports of before have none.
    (before.fleets, after.fleets) = (Vec::new(), Vec::new());
    let wanted = [
        "the scenario is chat before, group after",
        "the number of sessions is 2000 before, 7 after",
        "the offered rate is 500.0 messages/s before, none after",
    ];
    let found = Comparison::of_runs(&before, &after, 0.1);
    assert_eq!(found.unlike, wanted);
    assert!(found.text().starts_with("NOT ALIKE: the scenario"), "{}", found.text());
    let baseline = Baseline::of(&before, 0.1);
    assert_eq!(baseline.compare(&after, None).unwrap().unlike, wanted);
    let mut any = baseline;
    (any.sessions, any.offered_per_second) = (None, None);
    assert_eq!(any.compare(&after, None).unwrap().unlike, wanted[..1]);
}

/// Whatever the load is made of, and by a baseline that went through its file too.
#[test]
fn runs_of_other_loads_are_not_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("baseline.toml");
    let unlike = |change: &dyn Fn(&mut Fleet)| {
        let (before, mut after) = (sample::chat(), sample::chat());
        change(&mut after.plan.fleets[0]);
        let (before, after) = (run(&before), run(&after));
        let found = Comparison::of_runs(&before, &after, 0.1).unlike;
        Baseline::of(&before, 0.1).write(&path).unwrap();
        assert_eq!(Baseline::read(&path).unwrap().compare(&after, None).unwrap().unlike, found);
        found
    };
    assert_eq!(unlike(&|_| {}), [""; 0]);
    assert_eq!(unlike(&|fleet| fleet.name = "another".into()), [""; 0]);
    let longer = unlike(&|fleet| {
        if let Some(traffic) = fleet.work.traffic_mut() {
            traffic.payload_bytes = 128..=32_768;
        }
    });
    let words = "payload_bytes.end of fleet 1 is 128 before, 32768 after";
    assert!(longer.len() == 1 && longer[0].ends_with(words), "{longer:?}");
    let churn = |rate| move |fleet: &mut Fleet| fleet.work = Work::Churn { sessions: 2_000, rate };
    let (mut before, mut after) = (sample::chat(), sample::chat());
    churn(10.0)(&mut before.plan.fleets[0]);
    churn(100.0)(&mut after.plan.fleets[0]);
    let found = Comparison::of_runs(&run(&before), &run(&after), 0.1).unlike;
    assert_eq!(found, ["the work.rate of fleet 1 is 10 before, 100 after"]);
}

#[test]
fn a_first_failure_is_within_the_tolerance_of_what_may_fail() {
    let failing = |failed| {
        let mut outcome = sample::chat();
        let of = crate::operation::Operation::Deliver;
        let why = crate::operation::Failure::TimedOut;
        (0..failed).for_each(|_| outcome.measured.failure(of, why));
        run(&outcome)
    };
    let compare = |failed| Comparison::of_runs(&failing(0), &failing(failed), 0.1);
    // Of 15,000: 10 % of 1 % are 15.
    assert_eq!(verdict(&compare(15), "deliver.error_rate"), Verdict::Same);
    assert_eq!(verdict(&compare(16), "deliver.error_rate"), Verdict::Worse);
}

#[test]
fn a_baseline_holds_what_it_was_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("baseline.toml");
    let before = run(&sample::chat());
    Baseline::of(&before, 0.1).write(&path).unwrap();
    let baseline = Baseline::read(&path).unwrap();
    assert_eq!(baseline, Baseline::of(&before, 0.1));
    assert!(baseline.compare(&before, None).unwrap().good);
    let after = run(&slower(1.15));
    assert!(!baseline.compare(&after, None).unwrap().good);
    assert!(baseline.compare(&after, Some(0.3)).unwrap().good);

    let own = |text: &str| {
        std::fs::write(&path, format!("scenario = \"chat\"\ntolerance = 0.1\n[figures]\n{text}\n"))
            .unwrap();
        Baseline::read(&path)
    };
    let p50 = before.operations[&crate::operation::Operation::SendAck].response.p50_us.unwrap();
    let loose = format!("\"send_ack.p50_us\" = {{ value = {p50}, tolerance = \"20%\" }}");
    let loose = own(&loose).unwrap().compare(&after, Some(0.0)).unwrap();
    assert!(loose.good && loose.changes.len() == 1, "{}", loose.text());
    let tight = own(&format!("\"send_ack.p50_us\" = {p50}")).unwrap();
    assert!(!tight.compare(&after, None).unwrap().good);
    // What is asked for and not measured is missing, not forgiven.
    assert!(!own("\"sync.p50_us\" = 5").unwrap().compare(&after, None).unwrap().good);
}

#[test]
fn a_wrong_baseline_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("baseline.toml");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Baseline::read(&path)
    };
    assert!(Baseline::read(&folder.path().join("none")).is_err());
    let begin = "scenario = \"chat\"\ntolerance = \"10%\"\n";
    for (text, expected) in [
        ("tolerance = \"10%\"\n[figures]\n".to_owned(), "missing field `scenario`"),
        (format!("{begin}figurs = 1\n"), "unknown field `figurs`"),
        ("scenario = \"chat\"\ntolerance = \"ten\"\n[figures]\n".into(), "such as \"10%\""),
        (format!("{begin}[figures]\nrate_per_second = \"x\"\n"), "line 4"),
    ] {
        let found = read(&text).unwrap_err().to_string();
        assert!(found.contains(expected), "{text}: {found}");
    }
    let unknown = read(&format!("{begin}[figures]\n\"send_ack.p99\" = 1\n")).unwrap();
    let found = unknown.compare(&run(&sample::chat()), None).unwrap_err();
    assert!(found.contains("`send_ack.p99_us`"), "{found}");
}
