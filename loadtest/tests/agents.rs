//! One run on several generators: real processes on the loopback.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use skein_loadtest::exit::Exit;

/// A process that ends with the test.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn load(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skein-load"));
    command.args(arguments).env_remove("SKEIN_LOG").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// An agent on a free port, and where it is.
fn agent(more: &[&str]) -> (Process, String) {
    let mut command = load(&["agent", "--listen", "127.0.0.1:0"]);
    started(command.args(more).stderr(Stdio::null()))
}

fn started(command: &mut Command) -> (Process, String) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    (Process(child), line.strip_prefix("ready ").unwrap().to_owned())
}

/// The gateway's program, which tests of this package do not build.
fn skein() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let name = format!("skein{}", std::env::consts::EXE_SUFFIX);
    let program = test.parent().unwrap().parent().unwrap().join(name);
    assert!(program.exists(), "no {}: run cargo build -p skein-gateway first", program.display());
    program
}

/// A short run on agents, against a gateway of its own. What is tested is not the speed of a busy
/// machine.
fn run(scenario: &str, agents: &[&str], report: &Path, more: &[&str]) -> Command {
    let mut command = load(&[scenario, "--spawn-gateway", "--gateway"]);
    command.arg(skein()).arg("--agents").arg(agents.join(",")).arg("--report").arg(report);
    command.args(["--warm-up", "500ms", "--settle", "0s"]);
    command.args(["--late-after", "5s", "--drop-after", "30s", "--max-thread-cpu", "100%"]);
    command.args(["--max-thread-wait", "100%"]);
    command.args(more);
    for (flag, value) in [("--pairs", "9"), ("--shards", "1")] {
        if !more.contains(&flag) {
            command.args([flag, value]);
        }
    }
    command
}

fn summary(report: &Path) -> Value {
    serde_json::from_slice(&fs::read(report.join("summary.json")).unwrap()).unwrap()
}

#[track_caller]
fn assert_ends(output: &Output, exit: Exit, words: &[&str]) {
    let (out, err) = (&output.stdout, &output.stderr);
    let text = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert_eq!(output.status.code(), Some(i32::from(exit.status())), "{text}");
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn two_agents_are_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "a secret of more than 16 bytes\n").unwrap();
    let secret = secret.to_str().unwrap();
    let (_one, first) = agent(&["--secret", secret]);
    let (_other, second) = agent(&["--secret", secret]);
    let report = folder.path().join("report");
    let with = ["--rate", "60", "--for", "3s", "--agent-secret", secret];
    let done = run("chat", &[&first, &second], &report, &with).output().unwrap();
    assert_ends(&done, Exit::Ok, &["chat: 18 of 18 sessions"]);
    let found = summary(&report);
    assert_eq!(found["valid"], true, "{}", found["reasons"]);
    assert_eq!((&found["planned"], &found["connected"]), (&18.into(), &18.into()));
    assert_eq!(found["logins"], 18);
    // 60 a second for 3 s, of both together; each has done its part of it.
    let acks = found["operations"]["send_ack"]["count"].as_u64().unwrap();
    assert!((177..=183).contains(&acks), "{acks}");
    let parts = found["agents"].as_array().unwrap();
    let named: Vec<&str> = parts.iter().map(|part| part["name"].as_str().unwrap()).collect();
    assert_eq!(named, [&first, &second]);
    let connected: Vec<u64> =
        parts.iter().map(|part| part["connected"].as_u64().unwrap()).collect();
    assert_eq!(connected, [10, 8]);
    let rates = parts.iter().map(|part| part["acked_per_second"].as_f64().unwrap());
    let rate = found["rate_per_second"].as_f64().unwrap();
    assert!((rates.sum::<f64>() - rate).abs() < 0.01);
    assert!(found["gateway"]["peak_rss_bytes"].as_u64() > Some(1 << 20));
    for file in ["report.html", "goose.html", "send_ack.hlog", "outcome.json"] {
        assert!(report.join(file).exists(), "{file}");
    }

    // They serve the next one, which climbs a ladder together.
    let report = folder.path().join("ramp");
    let rungs = ["--start", "40", "--factor", "2", "--most", "90", "--least-share", "50%"];
    let with = ["--for", "2s", "--objective", "error_rate<50%", "--agent-secret", secret];
    let with = [&rungs[..], &with].concat();
    let done = run("ramp", &[&first, &second], &report, &with).output().unwrap();
    assert_ends(&done, Exit::Ok, &["the last good step: 80.0; every", "beyond --most (90)"]);
    let steps = summary(&report)["steps"].as_array().unwrap().clone();
    let loads: Vec<f64> = steps.iter().map(|step| step["load"].as_f64().unwrap()).collect();
    assert_eq!(loads.len(), 2, "{loads:?}");
    assert!((loads[0] - 40.0).abs() < 1e-6 && (loads[1] - 80.0).abs() < 1e-6, "{loads:?}");
}

/// A run is under way, and something is done to one of its agents.
fn disturbed(report: &Path, disturb: impl FnOnce(&Process)) -> (Output, String) {
    let (_one, first) = agent(&[]);
    let (other, second) = agent(&[]);
    let with = ["--rate", "50", "--for", "5m", "--plain"];
    let mut child = run("chat", &[&first, &second], report, &with).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("measured")));
    std::thread::spawn(move || lines.for_each(drop));
    disturb(&other);
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    (child.wait_with_output().unwrap(), second)
}

#[test]
fn an_agent_that_dies_is_named_and_makes_the_run_invalid() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let (output, name) = disturbed(&report, |agent| agent.signal(Signal::KILL));
    let gone = format!("agent {name} is gone: the connection was closed, ");
    assert_ends(&output, Exit::Invalid, &["INVALID agent_lost", &gone]);
    let found = summary(&report);
    assert_eq!((&found["valid"], &found["ended_early"]), (&false.into(), &false.into()));
    assert_eq!(found["reasons"][0]["kind"], "agent_lost");
    // The other one's part is there.
    assert!(found["sent"].as_u64() > Some(0), "{found}");
    assert_eq!(found["agents"].as_array().unwrap().len(), 1);
}

#[test]
fn an_agent_that_stands_still_is_named_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let (output, name) = disturbed(&report, |agent| agent.signal(Signal::STOP));
    assert_ends(&output, Exit::Invalid, &["INVALID agent_lost", &name, "it has said nothing"]);
}

/// One agent of two is taken, or cannot do its share: the other one is free as soon as that is told,
/// and not only after a while.
#[test]
fn agents_of_a_run_that_cannot_begin_are_free_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let report = |name: &str| folder.path().join(name);
    let short = ["--rate", "50", "--for", "1s"];
    let (_good, good) = agent(&[]);
    // A thread takes several descriptors, and it has none to spare for so many.
    let mut poor = Command::new("sh");
    poor.args(["-c", "ulimit -n 24; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_skein-load")]);
    poor.args(["agent", "--listen", "127.0.0.1:0"]).stderr(Stdio::null());
    let (_poor, poor) = started(&mut poor);
    let with = [&short[..], &["--shards", "30"]].concat();
    for turn in 0..3 {
        let both = run("chat", &[&good, &poor], &report("none"), &with).output().unwrap();
        assert_ends(&both, Exit::CouldNotRun, &["agent", &poor]);
        let alone = run("chat", &[&good], &report(&format!("alone{turn}")), &short);
        assert_ends(&{ alone }.output().unwrap(), Exit::Ok, &["passed"]);
    }

    let (_busy, busy) = agent(&[]);
    let long = ["--rate", "50", "--for", "5m", "--plain"];
    let mut other = run("chat", &[&busy], &report("other"), &long);
    // What one that is killed leaves behind goes with the test.
    let mut other = other.env("TMPDIR", folder.path()).spawn().unwrap();
    let mut lines = BufReader::new(other.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("measured")));
    std::thread::spawn(move || lines.for_each(drop));
    let other = Process(other);
    let both = run("chat", &[&good, &busy], &report("none"), &short).output().unwrap();
    assert_ends(&both, Exit::CouldNotRun, &[&busy, "the load of another run"]);
    let alone = run("chat", &[&good], &report("alone"), &short).output().unwrap();
    assert_ends(&alone, Exit::Ok, &["passed"]);
    // Its conductor dies, which an agent hears of through its connection. It does not wait for what
    // is under way there.
    other.signal(Signal::KILL);
    let since = Instant::now();
    let retry = || run("chat", &[&busy], &report("again"), &short).output().unwrap();
    let again = loop {
        let again = retry();
        if again.status.success() || since.elapsed() > Duration::from_secs(30) {
            break again;
        }
    };
    assert_ends(&again, Exit::Ok, &["passed"]);
}

/// Two runs want the same two agents at the same moment, again and again: one of them gets both.
#[test]
fn of_two_runs_at_the_same_moment_one_gets_all_agents() {
    let folder = tempfile::tempdir().unwrap();
    let (_one, first) = agent(&[]);
    let (_other, second) = agent(&[]);
    for turn in 0..3 {
        let short = ["--rate", "50", "--for", "1s"];
        // Named in another order, as two people would.
        let runs = [[&first, &second], [&second, &first]].map(|agents| {
            let report = folder.path().join(format!("{turn}{}", agents[0].replace(':', "-")));
            let agents = agents.map(String::as_str);
            run("chat", &agents, &report, &short).spawn().unwrap()
        });
        let done = runs.map(|run| run.wait_with_output().unwrap());
        let good = done.iter().filter(|one| one.status.success()).count();
        let told: Vec<_> = done.iter().map(|one| String::from_utf8_lossy(&one.stderr)).collect();
        assert!(good >= 1, "{told:?}");
        let refused = done.iter().filter(|one| !one.status.success());
        refused.for_each(|one| assert_ends(one, Exit::CouldNotRun, &["another run"]));
    }
}

#[test]
fn an_agent_says_what_becomes_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = load(&["agent", "--listen", "127.0.0.1:0"]);
    let (_agent, name) = started(command.stderr(fs::File::create(&log).unwrap()));
    let report = folder.path().join("report");
    let done = run("chat", &[&name], &report, &["--rate", "50", "--for", "1s"]).output().unwrap();
    assert_ends(&done, Exit::Ok, &["passed"]);
    let log = fs::read_to_string(&log).unwrap();
    let mut lines = log.lines();
    for words in
        ["listening", "taken peer=127.0.0.1:", "run is ready", "run begun", "run ended", "released"]
    {
        assert!(lines.any(|line| line.contains(words)), "{words}: {log}");
    }
    assert!(log.contains("connected=18 acked_per_second=5"), "{log}");
}

#[test]
fn what_is_wrong_with_agents_is_told_before_any_load() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let secret = folder.path().join("secret");
    fs::write(&secret, "a secret of more than 16 bytes\n").unwrap();
    let (_agent, name) = agent(&["--secret", secret.to_str().unwrap()]);
    let refused = run("chat", &[&name], &report, &[]).output().unwrap();
    assert_ends(&refused, Exit::CouldNotRun, &[&name, "a secret is asked for"]);
    // Nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = run("chat", &[&free.to_string()], &report, &[]).output().unwrap();
    assert_ends(&gone, Exit::CouldNotRun, &["agent", "refused"]);
    assert!(!report.exists());
    let (_agent, name) = agent(&[]);
    let many = ["--pairs", "1"];
    let (_second, second) = agent(&[]);
    let idle = run("chat", &[&name, &second], &report, &many).output().unwrap();
    assert_ends(&idle, Exit::Usage, &["2 agents", "not enough to do"]);
    let twice = run("chat", &[&name, &name], &report, &[]).output().unwrap();
    assert_ends(&twice, Exit::Usage, &["named twice"]);
    let open = load(&["agent", "--listen", "0.0.0.0:0"]).output().unwrap();
    assert_ends(&open, Exit::Usage, &["a secret is needed"]);
    let help = load(&["agent", "--help"]).output().unwrap();
    assert_ends(&help, Exit::Ok, &["Exit status:", "Example"]);
}
