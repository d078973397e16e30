//! The program as it is typed: what it says and its exit status. Everything that is wrong is told
//! before any load.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use skein_loadtest::exit::Exit;
use tempfile::TempDir;

/// Any Ed25519 key.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    -----END PRIVATE KEY-----\n";

fn load(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skein-load"));
    command.args(arguments).env_remove("SKEIN_LOG").stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[track_caller]
fn assert_ends(output: &Output, exit: Exit, words: &[&str]) {
    let text = text(output);
    assert_eq!(output.status.code(), Some(i32::from(exit.status())), "{text}");
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
}

fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// The data folder of a gateway that is not there.
fn data(folder: &TempDir) -> String {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    file(folder, "dev/ca.pem", &certified.cert.pem());
    file(folder, "dev/token-key.pem", KEY);
    folder.path().display().to_string()
}

#[test]
fn every_command_explains_itself() {
    let commands = [
        "run", "hold", "chat", "group", "storm", "sync", "churn", "mixed", "ramp", "doctor",
        "compare", "merge",
    ];
    for name in commands {
        let help = load(&[name, "--help"]);
        assert_ends(&help, Exit::Ok, &["Exit status:", "Example", "skein-load"]);
    }
    assert_ends(&load(&["--help"]), Exit::Ok, &["Try it", "ramp", "doctor"]);
    assert_ends(&load(&[]), Exit::Usage, &["Usage"]);
    assert_ends(&load(&["--version"]), Exit::Ok, &["skein-load"]);
    assert_ends(&load(&["schema"]), Exit::Ok, &["gateway_bytes_per_session"]);
}

#[test]
fn what_is_typed_wrong_is_told() {
    assert_ends(&load(&["chat", "--pers", "3"]), Exit::Usage, &["--pairs"]);
    assert_ends(&load(&["chat", "--pairs", "0"]), Exit::Usage, &["--pairs: `load.pairs` = \"0\""]);
    let negative = load(&["chat", "--rate", "-5"]);
    assert_ends(&negative, Exit::Usage, &["--rate: `load.rate` = \"-5\""]);
    assert_ends(&load(&["chta"]), Exit::Usage, &["chat"]);
    let wrong = load(&["chat", "--objective", "p99(send_akc)<5ms"]);
    assert_ends(&wrong, Exit::Usage, &["--objective", "the nearest right one is `send_ack`"]);
    let wrong = load(&["hold", "--objective", "lost=0"]);
    assert_ends(&wrong, Exit::Usage, &["write it like p99(send_ack)<50ms"]);
    let wrong = load(&["storm", "--cut", "kill"]);
    assert_ends(&wrong, Exit::Usage, &["--cut", "--spawn-gateway"]);
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(
        &folder,
        "s.toml",
        "program = \"hold\"\nobjectives = [\"connected>many\"]\n[load]\nconections = 5\n",
    );
    let expected = [
        "there are 2 problems in the scenario",
        "s.toml:2: `objectives`",
        "`many` should be a number",
        "s.toml:4: unknown key `load.conections`; the nearest right one is `load.connections`",
    ];
    assert_ends(&load(&["run", &path]), Exit::Usage, &expected);
    let gone = folder.path().join("none.toml").display().to_string();
    assert_ends(&load(&["run", &gone]), Exit::Usage, &["none.toml", "cannot be read"]);
}

#[test]
fn a_printed_scenario_can_be_run() {
    let folder = tempfile::tempdir().unwrap();
    let printed = load(&["chat", "--pairs", "7", "--for", "9s", "--print"]);
    assert_ends(&printed, Exit::Ok, &["pairs = 7", "for = \"9s\""]);
    let path = file(&folder, "s.toml", &String::from_utf8(printed.stdout).unwrap());
    let again = load(&["run", &path, "--rate", "5", "--print"]);
    assert_ends(&again, Exit::Ok, &["\npairs = 7\n", "\nrate = 5\n"]);
}

#[test]
fn what_is_missing_is_told_before_anything_begins() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty").display().to_string();
    let report = folder.path().join("report");
    let shown = report.display().to_string();
    let try_with = |more: &[&str]| {
        let mut arguments = vec!["chat", "--report", &shown];
        arguments.extend(more);
        load(&arguments)
    };
    let none = try_with(&["--data", &empty]);
    assert_ends(&none, Exit::CouldNotRun, &["there is no development key", "--spawn-gateway"]);
    assert!(!report.exists(), "an empty report stays behind");
    let token = file(&folder, "tokens", "no token\n");
    let wrong = try_with(&["--tokens", &token]);
    assert_ends(&wrong, Exit::CouldNotRun, &["tokens:1: is no token"]);
    let data = data(&folder);
    let nowhere = try_with(&["--data", &data, "--target", "no.such.host.invalid:1"]);
    assert_ends(&nowhere, Exit::CouldNotRun, &["no.such.host.invalid:1 has no address"]);
    let gone = try_with(&["--spawn-gateway", "--gateway", "/no/such/skein"]);
    assert_ends(&gone, Exit::CouldNotRun, &["cannot run /no/such/skein"]);
    let other = file(&folder, "other/diary", "dear diary");
    let other = Path::new(&other).parent().unwrap().display().to_string();
    let taken = load(&["chat", "--data", &data, "--report", &other]);
    assert_ends(&taken, Exit::CouldNotRun, &["holds other files"]);
}

#[test]
fn a_target_that_does_not_answer_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(&folder);
    // Bound, and nobody reads it.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let report = folder.path().join("report").display().to_string();
    let output = load(&[
        "chat",
        "--data",
        &data,
        "--target",
        &address,
        "--answer-timeout",
        "2s",
        "--report",
        &report,
    ]);
    let connecting = format!("connecting to {address} (gives up after 2s)");
    assert_ends(&output, Exit::CouldNotRun, &["no answer from", &address, &connecting]);
    assert!(!Path::new(&report).exists());
    // Closed, the machine itself says so, which is not waited for to the end.
    drop(silent);
    let given = ["chat", "--data", &data, "--target", &address, "--report", &report];
    let begun = Instant::now();
    let output = load(&[&given[..], &["--answer-timeout", "10m"]].concat());
    assert_ends(&output, Exit::CouldNotRun, &[&address, "nothing listens there"]);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn the_doctor_says_what_he_finds() {
    let fit = load(&["doctor", "--connections", "1", "--json"]);
    let json: Value = serde_json::from_slice(&fit.stdout).unwrap();
    assert!(json["findings"].as_array().unwrap().len() >= 9, "{json}");
    let unfit = load(&["doctor", "--connections", "1000000000000"]);
    assert_ends(&unfit, Exit::CouldNotRun, &["BAD", "memory", "skein-load hold"]);
}

/// The gateway's program, which tests of this package do not build.
fn skein() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let name = format!("skein{}", std::env::consts::EXE_SUFFIX);
    let program = test.parent().unwrap().parent().unwrap().join(name);
    assert!(program.exists(), "no {}: run cargo build -p skein-gateway first", program.display());
    program
}

/// A short run against a gateway of its own. What is tested is not the speed of a busy machine.
fn trial(report: &Path, more: &[&str]) -> Command {
    let (skein, report) = (skein(), report.display().to_string());
    let mut arguments = vec![
        "chat",
        "--spawn-gateway",
        "--gateway",
        skein.to_str().unwrap(),
        "--pairs",
        "5",
        "--rate",
        "50",
        "--warm-up",
        "500ms",
        "--settle",
        "0s",
        "--shards",
        "1",
        "--max-thread-wait",
        "100%",
        "--report",
        &report,
    ];
    if !more.contains(&"--late-after") {
        arguments.extend(["--late-after", "5s", "--drop-after", "30s"]);
    }
    arguments.extend(more);
    command(&arguments)
}

fn summary(report: &Path) -> Value {
    serde_json::from_slice(&fs::read(report.join("summary.json")).unwrap()).unwrap()
}

#[test]
fn one_command_makes_a_report_that_can_be_compared_and_merged() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let shown = |name: &str| path(name).display().to_string();
    let objectives = ["--objective", "lost==0", "--objective", "rate>=1"];
    let done = trial(&path("a"), &["--for", "2s"]).args(objectives).output().unwrap();
    assert_ends(&done, Exit::Ok, &["chat: 10 of 10 sessions", "holds  lost==0", "report: "]);
    let found = summary(&path("a"));
    assert_eq!((found["valid"].as_bool(), found["passed"].as_bool()), (Some(true), Some(true)));
    assert_eq!(found["connected"], 10);
    assert!(found["operations"]["send_ack"]["count"].as_u64() >= Some(50), "{found}");
    let files = ["report.html", "outcome.json", "goose.html", "goose.json", "send_ack.hlog"];
    for file in files.into_iter().chain(["deliver.service.hlog"]) {
        assert!(path("a").join(file).exists(), "{file}");
    }
    let missed = trial(&path("b"), &["--for", "1s", "--json", "--objective", "rate>=100000"]);
    let missed = { missed }.output().unwrap();
    assert_ends(&missed, Exit::ObjectiveMissed, &[]);
    let json: Value = serde_json::from_slice(&missed.stdout).unwrap();
    assert_eq!(json["objectives"][0]["holds"], false);

    let (a, same) = (shown("a"), shown("same.json"));
    let compare = |other: &str| load(&["compare", &a, other]);
    let change = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut changed = found.clone();
        change(&mut changed);
        fs::write(path(name), changed.to_string()).unwrap();
        shown(name)
    };
    change("same.json", &|_| {});
    assert_ends(&compare(&same), Exit::Ok, &["no figure is worse"]);
    let slow = change("slow.json", &|json| {
        let p50 = json["operations"]["send_ack"]["p50_us"].as_u64().unwrap();
        json["operations"]["send_ack"]["p50_us"] = (2 * p50).into();
    });
    assert_ends(&compare(&slow), Exit::Regressed, &["send_ack.p50_us", "WORSE"]);
    let faster = change("faster.json", &|json| json["offered_per_second"] = 2000.into());
    let rates = ["not alike", "the offered rate is 50.0 messages/s before, 2000.0"];
    assert_ends(&compare(&faster), Exit::Usage, &rates);
    assert_ends(&load(&["compare", &a, &faster, "--unlike"]), Exit::Ok, &["NOT ALIKE: the off"]);
    let lossy = change("lossy.json", &|json| json["lost"] = 1.into());
    assert_ends(&compare(&lossy), Exit::Regressed, &["lost"]);
    let invalid = change("invalid.json", &|json| json["valid"] = false.into());
    assert_ends(&compare(&invalid), Exit::Invalid, &["must not be compared"]);
    assert_ends(&load(&["compare", &a]), Exit::Usage, &["--baseline"]);
    let baseline = shown("baseline.toml");
    assert_ends(&load(&["compare", &a, "--write-baseline", &baseline]), Exit::Ok, &[]);
    assert_ends(&load(&["compare", &same, "--baseline", &baseline]), Exit::Ok, &[]);
    assert_ends(&load(&["compare", &slow, "--baseline", &baseline]), Exit::Regressed, &["WORSE"]);

    let whole = shown("whole");
    let twice = load(&["merge", &a, &a, "--report", &whole]);
    let words = format!("{a} and {a} both hold run {}", found["run"].as_str().unwrap());
    assert_ends(&twice, Exit::CouldNotRun, &[&words]);
    // What another machine would have found at the same time.
    let outcome = fs::read_to_string(path("a").join("outcome.json")).unwrap();
    let of_another = outcome.replace(found["run"].as_str().unwrap(), &"0".repeat(32));
    let (_, other) = (file(&folder, "other/outcome.json", &of_another), shown("other"));
    let merge = |more: &[&str]| load(&[&["merge", &a, &other, "--report", &whole], more].concat());
    assert_ends(&merge(&[]), Exit::Ok, &["20 of 20 sessions"]);
    assert_eq!(summary(&path("whole"))["connected"], 20);
    let both = summary(&path("whole"));
    assert_eq!(both["shares"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&both["offered_per_second"], &both["agents"][1]["name"]),
        (&json!(100.0), &json!(other))
    );
    assert!(found["gateway"].is_object() && both["gateway_bytes_per_session"].is_null(), "{both}");
    let taken = ["holds a report already", "--overwrite"];
    assert_ends(&merge(&[]), Exit::CouldNotRun, &taken);
    assert_ends(&merge(&["--overwrite"]), Exit::Ok, &["20 of 20 sessions"]);

    // The same for a run, before it starts anything.
    let again = trial(&path("a"), &["--for", "1s"]).output().unwrap();
    assert_ends(&again, Exit::CouldNotRun, &taken);
    assert_eq!(summary(&path("a")), found);
    let again = trial(&path("a"), &["--for", "1s", "--overwrite"]).output().unwrap();
    assert_ends(&again, Exit::Ok, &["report: "]);
    assert_ne!(summary(&path("a"))["run"], found["run"]);
}

/// A bound that every thread exceeds: what then breaks at a step may be the generator's doing.
#[test]
fn a_ramp_that_ends_at_the_generator_does_not_call_it_a_knee() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("ramp");
    let rungs = ["--start", "50", "--factor", "2", "--most", "200", "--refine", "0"];
    let with = ["--objective", "count(send_ack)<75", "--max-thread-cpu", "0.001%", "--for", "1s"];
    let done = climb(&report, &[&rungs[..], &with].concat());
    let words = ["INVALID generator_cpu", "100.0 was too much for the generator itself"];
    assert_ends(&done, Exit::Invalid, &words);
    let found = summary(&report);
    assert_eq!(found["knee"]["place"], "generator_limited", "{found}");
    let broken = found["steps"][1]["broken"].as_array().unwrap();
    assert!(broken.iter().any(|why| why.as_str().unwrap().starts_with("generator_cpu: ")));
}

/// Counters of the whole run say of each step whether it is good.
#[test]
fn a_step_is_bad_if_a_counter_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("ramp");
    let rungs = ["--start", "50", "--factor", "2", "--most", "200", "--refine", "0"];
    let with = ["--objective", "acked<75", "--objective", "connected>=10", "--for", "1s"];
    let done = climb(&report, &[&rungs[..], &with].concat());
    assert_ends(&done, Exit::Ok, &["the last good step: 50.0", "holds  acked<75"]);
    let found = summary(&report);
    assert_eq!(
        (&found["knee"]["place"], &found["knee"]["first_bad"]),
        (&json!("found"), &json!(100.0))
    );
}

/// A short ramp against a gateway of its own, on a machine that may be busy.
fn climb(report: &Path, more: &[&str]) -> Output {
    let (skein, report) = (skein(), report.display().to_string());
    let skein = skein.to_str().unwrap();
    let target = ["ramp", "--spawn-gateway", "--gateway", skein, "--report", &report];
    let patience = ["--late-after", "5s", "--drop-after", "30s", "--max-thread-wait", "100%"];
    let rest = ["--pairs", "5", "--shards", "1", "--warm-up", "500ms", "--least-share", "50%"];
    load(&[&target[..], &patience, &rest, more].concat())
}

fn wait(mut child: Child) -> Output {
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn a_signal_ends_a_run_early_and_leaves_a_whole_report() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let mut run = trial(&report, &["--for", "10m"]);
    let mut child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Lines come on standard error; the first of the measured phase is waited for.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("measured")));
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    let output = wait(child);
    assert_ends(&output, Exit::EndedEarly, &["ended early"]);
    let found = summary(&report);
    assert_eq!(
        (found["ended_early"].as_bool(), found["valid"].as_bool()),
        (Some(true), Some(true))
    );
    assert_eq!(found["lost"], 0);
}

/// A run in its measured phase, with temporary files in a folder of its own, and its gateway.
fn under_way(folder: &TempDir) -> (Child, u32) {
    let mut run = trial(&folder.path().join("report"), &["--for", "10m"]);
    run.env("TMPDIR", temporary(folder)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = run.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("measured")));
    std::thread::spawn(move || lines.for_each(drop));
    let gateway = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    (child, gateway.trim().parse().unwrap())
}

fn temporary(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("tmp");
    fs::create_dir_all(&path).unwrap();
    path
}

/// Not there, or only its exit status is left.
fn is_gone(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim().is_empty() || rest.starts_with(" Z"))
}

#[track_caller]
fn assert_soon(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_gateway_of_its_own_ends_with_a_generator_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, gateway) = under_way(&folder);
    assert!(!is_gone(gateway));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_soon("the gateway stays behind", || is_gone(gateway));
}

#[test]
fn a_second_signal_ends_everything_at_once_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, gateway) = under_way(&folder);
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    assert_eq!(fs::read_dir(temporary(&folder)).unwrap().count(), 1);
    // Again and again, since two that come together are one to a process. An end in order takes longer.
    while child.try_wait().unwrap().is_none() {
        kill_process(pid, Signal::INT).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = wait(child);
    assert_eq!(output.status.code(), Some(i32::from(Exit::EndedEarly.status())));
    assert_soon("the gateway stays behind", || is_gone(gateway));
    let left: Vec<_> = fs::read_dir(temporary(&folder)).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!folder.path().join("report/summary.json").exists());
}

#[test]
fn messages_that_the_gateway_would_refuse_are_told_before_any_load() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let long = trial(&report, &["--payload-bytes", "64..100KiB"]).output().unwrap();
    let words = ["messages of 102400 bytes", "--payload-bytes", "at most 64512 bytes"];
    assert_ends(&long, Exit::CouldNotRun, &words);
    assert!(!report.join("summary.json").exists());
    let set = ["--gateway-set", "limits.max_payload_bytes=1KiB", "--payload-bytes", "1025"];
    let long = trial(&report, &set).output().unwrap();
    assert_ends(&long, Exit::CouldNotRun, &["messages of 1025 bytes", "at most 1024 bytes"]);
}

#[test]
fn a_gateway_that_refuses_the_tokens_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let mut gateway = Command::new(skein())
        .args(["serve", "--listen", "127.0.0.1:0", "--data", &data])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = std::io::BufReader::new(gateway.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(out).map_while(Result::ok);
    let address = lines.find_map(|line| line.strip_prefix("ready ").map(|at| at.trim().to_owned()));
    let (key, address) = (file(&folder, "key.pem", KEY), address.unwrap());
    let report = folder.path().join("report").display().to_string();
    let output = load(&[
        "chat",
        "--data",
        &data,
        "--target",
        &address,
        "--token-key",
        &key,
        "--report",
        &report,
    ]);
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    assert_ends(&output, Exit::CouldNotRun, &["the target refused the first login"]);
}

/// Nothing is due later than what is allowed for; then the program itself stands still.
#[test]
fn a_generator_that_stood_still_says_that_its_run_is_invalid() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let mut run = trial(&report, &["--for", "6s", "--late-after", "1s", "--drop-after", "1500ms"]);
    let mut child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("measured")));
    std::thread::spawn(move || lines.for_each(drop));
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    kill_process(pid, Signal::CONT).unwrap();
    let output = wait(child);
    assert_ends(&output, Exit::Invalid, &["INVALID dropped_schedule", "INVALID late_schedule"]);
    let found = summary(&report);
    assert!(found["health"]["standstill_seconds"].as_f64() > Some(1.5), "{}", found["health"]);
}
