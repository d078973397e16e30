//! The same through the program: exit status, `summary.json`, logs.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;
use skein_loadtest::exit::Exit;

use crate::target::{Behaviour, Fault, Login, SECRET, Target};
use crate::truth::Truth;

fn load(target: &Target, folder: &Path, more: &[&str]) -> Output {
    let at = |name: &str| folder.join(name).display().to_string();
    std::fs::write(at("ca.pem"), target.certificate()).unwrap();
    std::fs::write(at("key"), SECRET).unwrap();
    let address = target.address().to_string();
    let (ca, key, report) = (at("ca.pem"), at("key"), at("report"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_skein-load"));
    command.args(["chat", "--pairs", "4", "--rate", "400", "--for", "2s", "--warm-up", "200ms"]);
    command.args(["--settle", "0s", "--target", &address, "--server-name", "localhost"]);
    command.args(["--ca", &ca, "--token-key", &key, "--report", &report]).args(more);
    command.env_remove("SKEIN_LOG").stdin(Stdio::null()).output().unwrap()
}

fn trial(behaviour: Behaviour, more: &[&str]) -> (tempfile::TempDir, Value, Output, Truth) {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(behaviour);
    // Another process has another clock, and a machine that is late makes a run invalid: what is
    // looked at here are counts and files.
    let patient = ["--late-after", "20s", "--drop-after", "60s", "--max-thread-wait", "100%"];
    let output = load(&target, folder.path(), &[&patient, more].concat());
    let text = std::fs::read(folder.path().join("report/summary.json")).unwrap_or_default();
    let summary = serde_json::from_slice(&text).unwrap_or_default();
    (folder, summary, output, target.stop())
}

fn status(output: &Output) -> Option<Exit> {
    let found = output.status.code();
    Exit::ALL.into_iter().find(|exit| found == Some(exit.status().into()))
}

#[test]
fn what_is_lost_fails_the_run() {
    let behaviour = Behaviour { fault: Some((Fault::Lost, 101)), ..Behaviour::default() };
    let (_folder, summary, output, truth) = trial(behaviour, &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(summary["lost"], truth.faults, "{text}");
    assert_eq!(summary["sent"], truth.sends.len());
    for other in ["duplicated", "reordered", "corrupted", "false_acks"] {
        assert_eq!(summary[other], 0, "{other}");
    }
    let valid = summary["valid"] == true;
    let expected = if valid { Exit::ObjectiveMissed } else { Exit::Invalid };
    assert_eq!(status(&output), Some(expected), "{text}");
}

#[test]
fn what_reaches_a_stranger_fails_the_run() {
    let behaviour = Behaviour { fault: Some((Fault::Misdelivered, 101)), ..Default::default() };
    let (_folder, summary, output, truth) = trial(behaviour, &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(summary["misdelivered"], truth.faults, "{text}");
    let expected = if summary["valid"] == true { Exit::ObjectiveMissed } else { Exit::Invalid };
    assert_eq!(status(&output), Some(expected), "{text}");
}

/// Refusals stand in the report with their code, and a run of which too much is refused fails, asked
/// for or not.
#[test]
fn what_is_refused_fails_the_run_unless_it_may() {
    let refused = |every, more: &[&str]| {
        let behaviour = Behaviour { fault: Some((Fault::Refused, every)), ..Behaviour::default() };
        let (_folder, summary, output, truth) =
            trial(behaviour, &[&["--max-thread-cpu", "100%"], more].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(" x 300 Overloaded"), "{text}");
        let errors = summary["operations"]["send_ack"]["error_kinds"]["300 Overloaded"].as_u64();
        assert!(errors > Some(0) && errors <= Some(truth.faults), "{text}");
        let kind = summary["failures"][0]["kind"].as_str().map(ToOwned::to_owned);
        (status(&output), kind, text)
    };
    let half = ["--objective", "error_rate(send_ack)<60%"];
    let all = ["--objective", "error_rate(send_ack)<=100%"];

    let (exit, kind, text) = refused(2, &[]);
    assert_eq!(
        (exit, kind.as_deref()),
        (Some(Exit::ObjectiveMissed), Some("error_rate")),
        "{text}"
    );
    assert!(text.contains("FAILED error_rate: ") && text.contains("send_ack failed"), "{text}");
    let (exit, kind, text) = refused(2, &half);
    assert_eq!((exit, kind), (Some(Exit::Ok), None), "{text}");
    let (exit, kind, text) = refused(1, &all);
    let never = Some("never_succeeded");
    assert_eq!((exit, kind.as_deref()), (Some(Exit::ObjectiveMissed), never), "{text}");
    assert!(text.contains("send_ack never succeeded"), "{text}");
}

/// `hdrhistogram` reads the same percentiles from the log that stand in `summary.json`.
#[test]
fn logs_and_summary_say_the_same() {
    let delay = Duration::from_millis(5);
    let behaviour = Behaviour {
        delay,
        stall: Some((Duration::from_secs(1), delay * 10)),
        ..Default::default()
    };
    let (folder, summary, output, _) = trial(behaviour, &["--objective", "lost==0"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(status(&output), Some(Exit::Ok | Exit::Invalid)), "{text}");
    for name in ["connect", "login", "send_ack", "deliver"] {
        let figures = &summary["operations"][name];
        for (file, figures) in [("", figures), (".service", &figures["service"])] {
            let log = folder.path().join(format!("report/{name}{file}.hlog"));
            let log = read(&log);
            for (quantile, key) in
                [(0.5, "p50_us"), (0.99, "p99_us"), (0.999, "p999_us"), (1.0, "max_us")]
            {
                assert_eq!(figures[key], log.value_at_quantile(quantile), "{name}{file} {key}");
            }
        }
        assert_eq!(
            figures["count"],
            read(&folder.path().join(format!("report/{name}.hlog"))).len()
        );
    }
    assert!(summary["operations"]["send_ack"]["p50_us"].as_u64() >= Some(4_990), "{summary}");
}

fn read(path: &Path) -> Histogram<u64> {
    let text = std::fs::read(path).unwrap();
    let entry = IntervalLogIterator::new(&text).find_map(|entry| match entry.unwrap() {
        LogEntry::Interval(interval) => Some(interval.encoded_histogram().to_owned()),
        _ => None,
    });
    let bytes = base64::engine::general_purpose::STANDARD.decode(entry.unwrap()).unwrap();
    Deserializer::new().deserialize(&mut &bytes[..]).unwrap()
}

#[test]
fn what_cannot_run_says_so() {
    let cases = [
        (Login::Ignored, "does not answer the login"),
        (Login::Garbage, "bad_answer"),
        (Login::Closed(skein_protocol::Code::VersionUnsupported), "101 VersionUnsupported"),
    ];
    for (login, words) in cases {
        let behaviour = Behaviour { login: Some((login, 1)), ..Behaviour::default() };
        let (folder, _, output, _) = trial(behaviour, &["--answer-timeout", "500ms"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(status(&output), Some(Exit::CouldNotRun), "{text}");
        assert!(text.contains(words), "{text}");
        assert!(!folder.path().join("report").exists());
    }
}
