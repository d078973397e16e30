use std::collections::BTreeSet;
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::*;
use crate::exit::Exit;
use crate::operation::Failure;
use crate::outcome::{Note, NoteKind, Reason as OutcomeReason, ReasonKind, Step};
use crate::plan::{Ladder, Rise};
use crate::record;
use crate::sample;

fn objectives(texts: &[&str]) -> Vec<Objective> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn summary(outcome: &Outcome, texts: &[&str]) -> Summary {
    Summary::new(outcome, &objectives(texts)).unwrap()
}

/// What is kept in the repository; `SKEIN_UPDATE=1` writes it anew.
fn assert_kept(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("SKEIN_UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{name} is not what is written now; SKEIN_UPDATE=1 writes it");
}

/// Every log line of a file, joined as the HdrHistogram tools do.
fn read_hlog(path: &Path) -> (usize, Histogram<u64>) {
    use base64::Engine as _;
    let text = fs::read(path).unwrap();
    let mut all = record::histogram();
    let mut intervals = 0;
    for entry in IntervalLogIterator::new(&text) {
        let LogEntry::Interval(interval) = entry.unwrap() else { continue };
        let bytes = base64::engine::general_purpose::STANDARD;
        let bytes = bytes.decode(interval.encoded_histogram()).unwrap();
        let one: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
        all.add(one).unwrap();
        intervals += 1;
    }
    (intervals, all)
}

#[test]
fn percentiles_of_the_logs_are_those_of_the_json() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = sample::chat();
    let summary = write(&outcome, &[], folder.path()).unwrap();
    let mut files = 0;
    for (operation, figures) in &summary.operations {
        for (log, latency) in
            [(hlog::Log::Response, figures.response), (hlog::Log::Service, figures.service)]
        {
            let path = folder.path().join(log.file_name(*operation));
            assert_eq!(path.exists(), figures.count > 0, "{path:?}");
            if figures.count > 0 {
                let (intervals, all) = read_hlog(&path);
                assert_eq!((intervals, all.len()), (1, figures.count), "{path:?}");
                assert_eq!(Latency::of(&all), latency, "{path:?}");
                files += 1;
            }
        }
    }
    assert_eq!(files, 8);
    let (intervals, all) = read_hlog(&folder.path().join("send_ack.seconds.hlog"));
    assert_eq!((intervals, all.len()), (33, 16_500), "warm-up and measured phase");
}

/// Figures that follow from how the sample is made.
#[test]
fn the_figures_are_those_of_the_sample() {
    let found = summary(&sample::chat(), &["p50(send_ack)<1ms", "lost==0"]);
    assert!(found.valid && found.passed && found.exit() == Exit::Ok);
    assert_eq!((found.planned, found.connected, found.logins), (2_000, 2_000, 2_000));
    assert_eq!((found.rate_per_second, found.delivered_per_second), (500.0, 500.0));
    assert_eq!(found.gateway_bytes_per_session, Some(12_000.0));
    let ack = &found.operations[&Operation::SendAck];
    assert_eq!((ack.part, ack.count, ack.errors), (Part::Measured, 15_000, 2));
    assert_eq!((ack.late, ack.dropped), (5, 2));
    assert_eq!(ack.error_kinds.values().sum::<u64>(), 2);
    assert_eq!(ack.error_kinds["timed_out"], 1);
    // 400 to 899 us, but for a second of stall and one in a hundred; 3 digits.
    let near =
        |us: Option<u64>, wanted: u64| us.is_some_and(|us| us.abs_diff(wanted) <= wanted / 200 + 1);
    assert!(near(ack.response.p50_us, 660), "{:?}", ack.response);
    assert!(near(ack.response.max_us, 899_000), "{:?}", ack.response);
    assert!(near(ack.service.max_us, 449_500), "{:?}", ack.service);
    assert_eq!(found.operations[&Operation::Connect].part, Part::Unmeasured);
    assert_eq!(found.operations[&Operation::Connect].per_second, None);
    assert_eq!(found.operations.len(), Operation::ALL.len(), "all of them, measured or not");
    assert_eq!(found.operations[&Operation::Sync].response, Latency::default());
}

#[test]
fn an_outcome_that_failed_says_so() {
    let good = sample::chat();
    let exit = |outcome: &Outcome, texts: &[&str]| summary(outcome, texts).exit();
    assert_eq!(exit(&good, &["p50(send_ack)<1us"]), Exit::ObjectiveMissed);
    let mut faulty = good.clone();
    faulty.correctness.lost = 1;
    assert_eq!(exit(&faulty, &[]), Exit::ObjectiveMissed);
    let mut invalid = faulty.clone();
    invalid.reasons.push(OutcomeReason {
        kind: ReasonKind::GeneratorCpu,
        detail: "shard 0 used 99 % of a core".into(),
    });
    let found = summary(&invalid, &[]);
    assert_eq!((found.valid, found.passed, found.exit()), (false, false, Exit::Invalid));
    assert_eq!(found.reasons[0].kind, "generator_cpu");
    let mut short = good;
    short.ended_early = true;
    assert_eq!(exit(&short, &[]), Exit::EndedEarly);
    for outcome in [&faulty, &invalid, &short] {
        let found = summary(outcome, &["connected>=9999"]);
        assert!(!table(&found).contains("\npassed"), "{}", table(&found));
    }
}

#[test]
fn what_never_succeeds_or_fails_too_often_fails_the_run() {
    let found = |failed: u64, count: u64, texts: &[&str]| {
        let mut outcome = sample::chat();
        outcome.measured = record::Recording::new();
        (0..count).for_each(|_| outcome.measured.success(Operation::SendAck, 500, 400));
        for _ in 0..failed {
            outcome.measured.failure(Operation::SendAck, Failure::TimedOut);
        }
        let found = summary(&outcome, texts);
        let kinds: Vec<_> = found.failures.iter().map(|one| one.kind.clone()).collect();
        assert_eq!(found.exit() == Exit::Ok, found.passed);
        for failure in &found.failures {
            assert!(!found.passed && failure.detail.contains("x timed_out"), "{}", failure.detail);
            assert!(table(&found).contains(&failure.detail));
            assert!(html::page(&outcome, &found).contains("timed_out"));
        }
        kinds
    };
    assert!(found(10, 990, &[]).is_empty(), "1 %");
    assert_eq!(found(11, 990, &[]), ["error_rate"]);
    for stated in ["error_rate(send_ack)<50%", "errors(send_ack)<=11", "error_rate<50%"] {
        assert!(found(11, 990, &[stated]).is_empty(), "{stated}");
    }
    for other in ["errors(login)==0", "p99(send_ack)<1s", "rate>=1"] {
        assert_eq!(found(11, 990, &[other]), ["error_rate"], "{other}");
    }
    assert_eq!(found(5, 0, &["error_rate(send_ack)<=100%"]), ["never_succeeded"]);
    // Slow sessions succeed without a time.
    let mut outcome = sample::chat();
    outcome.measured = record::Recording::new();
    (0..1000).for_each(|_| outcome.measured.untimed(Operation::SendAck));
    outcome.measured.failure(Operation::SendAck, Failure::TimedOut);
    let slow = summary(&outcome, &[]);
    assert_eq!((slow.operations[&Operation::SendAck].count, slow.failures.len()), (1000, 0));
}

#[test]
fn what_the_reader_must_know_is_shown_everywhere() {
    let mut outcome = sample::chat();
    outcome.measured.held_back(Operation::SendAck, 52_000);
    outcome.measured.held_back(Operation::SendAck, 7_000);
    outcome.measured.untimed(Operation::Deliver);
    let detail = "a thread waited 28 % of the time".to_owned();
    outcome.notes.push(Note { kind: NoteKind::SharedCores, detail });
    let found = summary(&outcome, &[]);
    assert!(found.valid && found.passed);
    let sends = &found.operations[&Operation::SendAck];
    assert_eq!((sends.held_back, sends.held_back_longest_us), (2, Some(52_000)));
    assert_eq!(found.operations[&Operation::Deliver].untimed, 1);
    assert_eq!(found.operations[&Operation::Deliver].held_back_longest_us, None);
    assert_eq!(found.notes[0].kind, "shared_cores");
    let (text, page) = (table(&found), html::page(&outcome, &found));
    assert!(text.contains("2 held back by the window, 52.0 ms at the longest"), "{text}");
    assert!(text.contains("1 untimed") && text.contains("NOTE shared_cores: a thread"), "{text}");
    for shown in ["held back", "52.0 ms", "shared cores", "are untimed"] {
        assert!(page.contains(shown), "{shown}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = sample::chat();
    let written = write(&outcome, &objectives(&["lost==0"]), folder.path()).unwrap();
    assert_eq!(read_summary(folder.path()).unwrap(), written);
    assert_eq!(read_summary(&folder.path().join(SUMMARY)).unwrap(), written);
    assert_eq!(read_outcome(folder.path()).unwrap(), outcome);
    // An older report is replaced, and nothing of it stays.
    let log = folder.path().join("send_ack.hlog");
    assert!(log.exists());
    write(&sample::empty(), &[], folder.path()).unwrap();
    assert!(!log.exists());
    assert_eq!(read_summary(folder.path()).unwrap().sent, 0);
}

#[test]
fn a_folder_of_somebody_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let prepare = |path: &Path| super::prepare(path, true);
    prepare(&folder.path().join("a/b")).unwrap();
    fs::write(folder.path().join("diary"), "dear diary").unwrap();
    assert!(prepare(folder.path()).unwrap_err().to_string().contains("holds other files"));
    assert!(prepare(&folder.path().join("diary/x")).is_err());
    fs::write(folder.path().join(SUMMARY), "{}").unwrap();
    prepare(folder.path()).unwrap();
    let kept = super::prepare(folder.path(), false).unwrap_err().to_string();
    assert!(kept.contains("holds a report already: give another folder, or --overwrite"), "{kept}");
    let strange = read_summary(folder.path()).unwrap_err().to_string();
    assert!(strange.contains("there is no `schema` in it"), "{strange}");
    fs::write(folder.path().join(SUMMARY), "{\"schema\":99}").unwrap();
    let newer = read_summary(folder.path()).unwrap_err().to_string();
    assert!(newer.contains("version 99, and this program reads 1"), "{newer}");
}

#[test]
fn the_schema_is_the_one_that_is_kept() {
    let text = format!("{:#}\n", schema());
    assert_kept("schema/summary.schema.json", &text);
}

/// Every field of a summary stands in the schema, so that none is undocumented.
#[test]
fn every_field_is_described() {
    let schema = schema();
    let value = serde_json::to_value(summary(&sample::chat(), &[])).unwrap();
    let described = schema["properties"].as_object().unwrap();
    for (field, _) in value.as_object().unwrap() {
        let about = &described[field]["description"];
        assert!(about.as_str().is_some_and(|text| !text.is_empty()), "{field}");
    }
}

#[test]
fn summaries_keep_the_names_that_scripts_use() {
    let value = serde_json::to_value(summary(&sample::chat(), &[])).unwrap();
    for name in [
        "valid",
        "reasons",
        "connected",
        "lost",
        "duplicated",
        "reordered",
        "corrupted",
        "rate_per_second",
        "gateway_bytes_per_session",
        "generator_bytes_per_session",
    ] {
        assert!(value.get(name).is_some(), "{name}");
    }
    for operation in ["connect", "login", "send_ack", "deliver", "sync", "resume"] {
        for name in ["count", "errors", "p50_us", "p99_us", "p999_us", "max_us"] {
            assert!(value["operations"][operation].get(name).is_some(), "{operation}.{name}");
        }
    }
}

/// A page opens without a network, and no text can break out of its place.
#[test]
fn the_page_stands_alone() {
    let mut outcome = sample::chat();
    outcome.plan.scenario = "<script>alert(1)</script>".into();
    let page = html::page(&outcome, &summary(&outcome, &["lost==0"]));
    assert!(!page.contains("<script>alert"));
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    // Balanced, as far as figures and pictures go.
    for tag in ["figure", "svg", "table", "main"] {
        let (open, close) = (format!("<{tag}"), format!("</{tag}>"));
        assert_eq!(page.matches(&open).count(), page.matches(&close).count(), "{tag}");
    }
    assert!(page.matches("<svg").count() >= 10, "{}", page.matches("<svg").count());
    assert!(page.contains("the target stalled"));
}

#[test]
fn a_run_without_anything_has_a_page_too() {
    let outcome = sample::empty();
    let found = summary(&outcome, &["p99(send_ack)<1ms"]);
    assert!(html::page(&outcome, &found).contains("not measured"));
    assert!(table(&found).contains("MISSED p99(send_ack)<1ms: not measured"));
}

#[test]
fn a_ramp_shows_its_steps() {
    let mut outcome = sample::chat();
    for (load, broken) in [(1000.0, None), (1500.0, None), (2250.0, Some("p99(send_ack)<5ms"))] {
        let mut step: Step = serde_json::from_value(serde_json::json!({
            "load": load, "acked_per_second": load, "broken": [], "measured": {},
            "throughput": { "sent": load, "acked": load, "delivered": load, "logins": 0.0 },
        }))
        .unwrap();
        step.measured = outcome.measured.clone();
        step.broken = broken.map(ToOwned::to_owned).into_iter().collect();
        outcome.steps.push(step);
    }
    outcome.plan.ladder = Some(Ladder {
        first: 1000.0,
        last: 3000.0,
        rise: Rise::Multiply(1.5),
        refine: 0,
        settle: Duration::ZERO,
        hold: Duration::from_secs(1),
        least_share: 0.95,
    });
    let found = summary(&outcome, &[]);
    assert_eq!(found.steps.len(), 3);
    assert!(table(&found).contains("the last good step: 1500.0\n"), "{}", table(&found));
    assert!(html::page(&outcome, &found).contains("Acknowledged per second, by load"));
    // What is said about the knee, in the terminal and on the page.
    let mut says = |change: &dyn Fn(&mut Outcome), place: Place, words: &str| {
        change(&mut outcome);
        let found = summary(&outcome, &[]);
        assert_eq!(found.knee.unwrap().place, place);
        for text in [table(&found), html::page(&outcome, &found)] {
            assert!(text.contains(words), "{words}: {text}");
        }
    };
    says(&|_| {}, Place::Found, "the last good step: 1500.0");
    let limit = |one: &mut Outcome| {
        let (kind, detail) = (ReasonKind::GeneratorCpu, "it was busy".to_owned());
        one.steps[2].limits = vec![OutcomeReason { kind, detail }];
    };
    let generators = "1500.0; 2250.0 was too much for the generator itself, so the knee is not the";
    says(&limit, Place::GeneratorLimited, generators);
    let beyond =
        "the last good step: 1500.0; every step was good, so the knee lies beyond --most (3000)";
    says(&|one| drop(one.steps.pop()), Place::BeyondMost, beyond);
    let ended = "1500.0; the search ended before a step was bad";
    says(&|one| one.ended_early = true, Place::NotReached, ended);
    let bad = |step: &mut Step| step.broken.push("rate".into());
    says(&|one| one.steps.iter_mut().for_each(bad), Place::BelowFirst, "no step was good");
}

/// A run of a day has no more slots than a graph has room for, and none of its counts is lost.
#[test]
fn a_long_run_has_a_short_timeline() {
    let mut outcome = sample::chat();
    let points: Vec<_> = outcome.timeline.clone();
    let length = points.len() as u32;
    outcome.timeline = (0..100)
        .flat_map(|round| {
            points.iter().cloned().map(move |mut point| {
                point.second += round * length;
                point
            })
        })
        .collect();
    let found = summary(&outcome, &[]).timeline;
    assert!(found.slots.len() <= 600, "{}", found.slots.len());
    assert_eq!(found.slot_seconds, (100 * length).div_ceil(600));
    let acks = |slots: &[Slot]| -> u64 {
        slots.iter().filter_map(|s| s.operations.get(&Operation::SendAck)).map(|o| o.count).sum()
    };
    let once = acks(&summary(&sample::chat(), &[]).timeline.slots);
    assert_eq!(acks(&found.slots), 100 * once);
    let seconds: BTreeSet<u32> = found.slots.iter().map(|slot| slot.second).collect();
    assert!(seconds.iter().all(|second| second % found.slot_seconds == 0));
}

/// Writes the sample's report where `SKEIN_SAMPLE_REPORT` says, to be looked at.
#[test]
fn a_sample_to_look_at() {
    if let Some(folder) = std::env::var_os("SKEIN_SAMPLE_REPORT") {
        let texts = ["p99.9(send_ack)<50ms", "lost==0", "connected>=100000"];
        write(&sample::chat(), &objectives(&texts), Path::new(&folder)).unwrap();
    }
}
