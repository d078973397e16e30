//! The program `skein` as its user meets it: what it prints, where, and its exit status.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod cluster;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use skein_gateway::auth::Verifier;
use skein_gateway::config::{AuthConfig, TokenKey, default_file};
use skein_gateway::dev::DevFiles;
use tempfile::TempDir;

/// A folder to stand in, and the program with no variables of ours around it.
struct Shell {
    dir: TempDir,
}

impl Shell {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skein"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SKEIN_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.path()).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }
}

struct Ran {
    status: i32,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[test]
fn every_command_explains_itself() {
    let shell = Shell::new();
    let commands: &[&[&str]] = &[
        &[],
        &["serve"],
        &["config"],
        &["config", "check"],
        &["config", "default"],
        &["doctor"],
        &["schema"],
        &["schema", "print"],
        &["schema", "apply"],
        &["schema", "check"],
        &["schema", "renew-epoch"],
        &["token"],
        &["version"],
        &["ctl"],
        &["ctl", "sessions", "list"],
        &["ctl", "kick"],
        &["ctl", "block"],
        &["ctl", "drain"],
        &["ctl", "notice"],
        &["ctl", "top"],
    ];
    for command in commands {
        let ran = shell.run(&[command, &["--help"][..]].concat());
        assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{command:?}");
        assert!(ran.out.contains("Usage: skein"), "{command:?}: {}", ran.out);
        // A flag without a word of help is one that somebody forgot.
        let lines: Vec<&str> = ran.out.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            if line.trim_start().starts_with("--") && !line.trim().contains("  ") {
                let next = lines.get(index + 1).unwrap_or(&"");
                assert!(!next.trim().is_empty(), "{command:?}: no help for {line}");
            }
        }
    }
    assert!(shell.run(&["--help"]).out.contains("Exit status"));
}

#[test]
fn the_version_is_told_in_both_ways() {
    let shell = Shell::new();
    let version = format!("skein {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(shell.run(&["version"]).out, version);
    assert_eq!(shell.run(&["--version"]).out, version);
}

#[test]
fn a_wrong_command_line_is_status_2() {
    let shell = Shell::new();
    let wrong: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["serv"], "serve"),
        (&["serve", "--lisen", "127.0.0.1:1"], "--listen"),
        (&["serve", "--set", "shards"], "KEY=VALUE"),
        (&["schema", "print", "--for", "mysql"], "scylla, cassandra"),
        (&["schema", "apply", "--bucket-rows", "many"], "--bucket-rows"),
        (&["token"], "--user"),
        (&["token", "--user", ""], "empty"),
        (&["token", "--user", "a", "--ttl", "1"], "with its unit"),
        (&["token", "--user", "a", "--ttl", "0s"], "at least 1s"),
        (&["token", "--user", "a", "--device", "my phone"], "device id"),
        (&["token", "--user", "a", "--alg", "EdDSA"], "--key"),
        (&["token", "--user", "a", "--key", "k", "--alg", "none"], "choose EdDSA"),
    ];
    for (args, expected) in wrong {
        let ran = shell.run(args);
        assert_eq!((ran.status, ran.out.as_str()), (2, ""), "{args:?}");
        assert!(ran.err.contains(expected), "{args:?}: {}", ran.err);
    }
}

#[test]
fn the_printed_defaults_pass_the_check() {
    let shell = Shell::new();
    let printed = shell.run(&["config", "default"]);
    assert_eq!((printed.status, printed.err.as_str()), (0, ""));
    assert_eq!(printed.out, default_file());
    shell.write("skein.toml", &printed.out);
    let checked = shell.run(&["config", "check", "skein.toml"]);
    assert_eq!((checked.status, checked.out.as_str()), (0, "skein.toml: good\n"));
}

#[test]
fn the_check_tells_all_problems_at_once() {
    let shell = Shell::new();
    shell.write("bad.toml", "listn = \"x\"\n[limits]\nmax_entries = 0\n[log]\nlevel = \"loud\"\n");
    let ran = shell.run(&["config", "check", "bad.toml"]);
    assert_eq!((ran.status, ran.out.as_str()), (3, ""));
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 4, "{}", ran.err);
    assert_eq!(lines[0], "skein: there are 3 problems in the configuration");
    assert_eq!(lines[1], "bad.toml:1: unknown key `listn`; the nearest right one is `listen`");
    assert_eq!(lines[2], "bad.toml:3: `limits.max_entries` = 0: must be 1 to 4096");
    assert!(lines[3].starts_with("bad.toml:5: `log.level` = \"loud\": must be"));

    let ran = shell.run(&["config", "check", "nowhere.toml"]);
    assert_eq!(ran.status, 3);
    assert!(ran.err.contains("nowhere.toml: cannot be read"), "{}", ran.err);
}

#[test]
fn the_check_looks_at_the_environment_when_it_is_asked_to() {
    let shell = Shell::new();
    shell.write("good.toml", "lanes = 3\n");
    let check = |args: &[&str]| -> Ran {
        let args = [&["config", "check"], args].concat();
        shell.command(&args).env("SKEIN_LANES", "0").output().unwrap().into()
    };
    assert_eq!(check(&["good.toml"]).status, 0);
    for args in [&["good.toml", "--environment"][..], &["--environment"]] {
        let ran = check(args);
        assert_eq!(ran.status, 3);
        let said = "environment SKEIN_LANES: `lanes` = \"0\": must be 1 to 1024";
        assert!(ran.err.contains(said), "{}", ran.err);
    }
    assert_eq!(shell.run(&["config", "check", "--environment"]).out, "environment: good\n");
    assert_eq!(shell.run(&["config", "check"]).status, 2);
}

#[test]
fn the_check_reads_the_files_that_are_named() {
    let shell = Shell::new();
    shell.write(
        "skein.toml",
        "[tls]\ncert = \"no.pem\"\nkey = \"no.key\"\n[auth]\nkey_file = \"no.pub\"\n",
    );
    let ran = shell.run(&["config", "check", "skein.toml"]);
    assert_eq!(ran.status, 3);
    assert!(ran.err.contains("skein.toml:2: `tls.cert`: no.pem"), "{}", ran.err);
    assert!(ran.err.contains("skein.toml:5: `auth.key_file`: no.pub"), "{}", ran.err);
    // Beside problems of other kinds, and each of several.
    shell.write(
        "all.toml",
        "lanes = 0\n[tls]\ncertificates = [{ cert = \"a.pem\", key = \"a\" }, { cert = \"b.pem\", \
         key = \"b\" }]\nsecret_file = \"s\"\n[auth]\nkeys = [{ file = \"c\" }, { file = \"d\" }]\n\
         jwks_file = \"e\"\n",
    );
    let ran = shell.run(&["config", "check", "all.toml"]);
    assert!(ran.err.contains("there are 7 problems"), "{}", ran.err);
    for (place, file) in [
        ("all.toml:1: `lanes`", "= 0"),
        ("all.toml:3: `tls.certificates`", "a.pem"),
        ("all.toml:3: `tls.certificates`", "b.pem"),
        ("all.toml:4: `tls.secret_file`", "file s"),
        ("all.toml:6: `auth.keys`", "c:"),
        ("all.toml:6: `auth.keys`", "d:"),
        ("all.toml:7: `auth.jwks_file`", "e:"),
    ] {
        let told = |line: &str| line.starts_with(place) && line.contains(file);
        assert!(ran.err.lines().any(told), "{place} {file}: {}", ran.err);
    }
    assert_eq!(shell.run(&["config", "check", "--no-files", "skein.toml"]).status, 0);

    let dev = DevFiles::of(shell.path());
    dev.certificate(std::time::SystemTime::now()).unwrap();
    dev.ensure_token_key().unwrap();
    shell.write(
        "skein.toml",
        "[tls]\ncert = \"dev/cert.pem\"\nkey = \"dev/key.pem\"\n\
         [auth]\nkey_file = \"dev/token-key.pub.pem\"\n",
    );
    assert_eq!(shell.run(&["config", "check", "skein.toml"]).status, 0);
    shell.write(
        "skein.toml",
        "[tls]\ncert = \"dev/ca.pem\"\nkey = \"dev/key.pem\"\n\
         [auth]\nkey_file = \"dev/token-key.pem\"\n",
    );
    let ran = shell.run(&["config", "check", "skein.toml"]);
    assert_eq!(ran.status, 3);
    assert!(ran.err.contains("dev/key.pem: does not go with dev/ca.pem"), "{}", ran.err);
    assert!(ran.err.contains("dev/token-key.pem: holds a private key"), "{}", ran.err);
}

#[test]
fn the_doctor_looks_and_changes_nothing() {
    let shell = Shell::new();
    let args = ["doctor", "--data", "not/yet", "--sessions", "10"];
    let ran = shell.run(&[&args[..], &["--json"]].concat());
    let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    // What it finds is up to the machine that the test runs on.
    assert_eq!(said["fit"].as_bool().unwrap(), ran.status == 0, "{}", ran.err);
    assert!([0, 4].contains(&ran.status), "{}", ran.err);
    let checks: Vec<_> = said["findings"].as_array().unwrap().iter().collect();
    let names: Vec<_> = checks.iter().map(|found| found["check"].as_str().unwrap()).collect();
    for name in ["memory", "open_files", "udp_receive_buffer", "data_folder", "disk_sync"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let text = shell.run(&args);
    assert_eq!(text.status, ran.status);
    assert!(text.out.contains("disk_room"), "{}", text.out);
    assert_eq!(std::fs::read_dir(shell.path()).unwrap().count(), 0);

    // No machine is fit for as many.
    let ran = shell.run(&["doctor", "--sessions", "1000000000000"]);
    assert_eq!(ran.status, 4);
    assert!(ran.out.contains("BAD     memory"), "{}", ran.out);
    assert!(ran.err.contains("not fit: memory"), "{}", ran.err);

    let ran = shell.run(&["doctor", "--set", "lanes=0"]);
    assert_eq!(ran.status, 3);
}

#[test]
fn a_new_epoch_is_for_a_store_that_is_there() {
    let shell = Shell::new();
    let ran = shell.run(&["schema", "renew-epoch", "--data", "nowhere"]);
    assert_eq!((ran.status, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("cannot find a store in nowhere/store"), "{}", ran.err);
    assert_eq!(std::fs::read_dir(shell.path()).unwrap().count(), 0);
}

#[test]
fn serve_refuses_a_wrong_configuration_before_it_does_anything() {
    let shell = Shell::new();
    shell.write("skein.toml", "lanes = 0\n");
    let ran: Ran = shell
        .command(&["serve", "--config", "skein.toml", "--listen", "here", "--set", "shard=1"])
        .env("SKEIN_LIMITS__MAX_SESSION", "1")
        .output()
        .unwrap()
        .into();
    assert_eq!((ran.status, ran.out.as_str()), (3, ""));
    for expected in [
        "there are 4 problems",
        "skein.toml:1: `lanes` = 0: must be 1 to 1024",
        "environment SKEIN_LIMITS__MAX_SESSION: unknown variable; the nearest right one is \
         SKEIN_LIMITS__MAX_SESSIONS",
        "--set: unknown key `shard`; the nearest right one is `shards`",
        "--listen: `listen` = \"here\": must be an IP address and a port",
    ] {
        assert!(ran.err.contains(expected), "{expected} is not in {}", ran.err);
    }
    assert!(!shell.path().join("skein-data").exists());
}

/// A gateway in this shell; killed when dropped.
struct Serving {
    child: Child,
    said: Vec<String>,
}

impl Serving {
    fn start(shell: &Shell, args: &[&str]) -> Self {
        let args = [&["serve", "--set", "store.reserve_bytes=16MiB"], args].concat();
        let mut command = shell.command(&args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut serving = Self { child, said: Vec::new() };
        for line in BufReader::new(serving.child.stdout.take().unwrap()).lines() {
            serving.said.push(line.unwrap());
            if serving.said.last().is_some_and(|line| line.starts_with("ready ")) {
                return serving;
            }
        }
        panic!("it never said ready: {}", serving.log());
    }

    /// What it logs until it ends.
    fn log(&mut self) -> String {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }

    fn address(&self) -> &str {
        self.said.last().unwrap().strip_prefix("ready ").unwrap()
    }

    /// Asks it to stop; its status and its log.
    #[cfg(unix)]
    fn stop(mut self, signal: &str) -> (i32, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let log = self.log();
        (self.child.wait().unwrap().code().unwrap(), log)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serve_says_where_it_serves_and_what_to_type_next() {
    let shell = Shell::new();
    let serving = Serving::start(&shell, &["--listen", "127.0.0.1:0"]);
    let said = serving.said.join("\n");
    assert!(!serving.address().ends_with(":0"), "{said}");
    for user in ["alice", "bob"] {
        let line = format!("skein-chat -- {user} --server {}", serving.address());
        assert!(said.contains(&line), "{said}");
    }
    // Its development key is where `skein token` looks for it.
    assert_eq!(shell.run(&["token", "--user", "alice"]).status, 0);

    let ran = shell.run(&["serve", "--data", "other", "--listen", serving.address()]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("--listen"), "{}", ran.err);
    let ran = shell.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("in use by another process"), "{}", ran.err);
}

#[cfg(unix)]
#[test]
fn serve_stops_when_it_is_asked_to_and_logs_as_it_was_told() {
    let shell = Shell::new();
    for signal in ["INT", "TERM"] {
        let args = ["--listen", "127.0.0.1:0", "--log-format", "json", "--log-level", "info"];
        let (status, log) = Serving::start(&shell, &args).stop(signal);
        assert_eq!(status, 0, "SIG{signal}: {log}");
        let messages: Vec<String> = log
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|line| line["message"].as_str().unwrap().to_owned())
            .collect();
        assert!(messages.iter().any(|message| message == "stopped"), "{log}");
    }
}

/// The terminal is closed, the process that took the log has died: no reason to stop serving.
#[cfg(unix)]
#[test]
fn a_gateway_whose_log_nobody_reads_serves_and_stops_all_the_same() {
    let shell = Shell::new();
    let mut serving = Serving::start(&shell, &["--listen", "127.0.0.1:0", "--log-level", "info"]);
    drop(serving.child.stderr.take());
    let pid = serving.child.id().to_string();
    for signal in ["HUP", "HUP", "TERM"] {
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

/// Payload of a token as the gateway that made the key in `data` reads it.
fn identity(data: &Path, auth: AuthConfig, token: &str) -> skein_gateway::auth::Identity {
    let dev = DevFiles::of(data);
    let keys = vec![TokenKey::of(dev.token_public_key())];
    let verifier = Verifier::from_config(&AuthConfig { keys, ..auth }).unwrap();
    verifier.verify(token.trim_end(), std::time::SystemTime::now()).unwrap()
}

#[test]
fn a_token_is_printed_that_the_gateway_believes() {
    let shell = Shell::new();
    let data = shell.path().join("skein-data");
    let ran = shell.run(&["token", "--user", "alice"]);
    assert_eq!((ran.status, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("start `skein serve`"), "{}", ran.err);

    DevFiles::of(&data).ensure_token_key().unwrap();
    let ran = shell.run(&["token", "--user", "alice", "--device", "phone", "--ttl", "1h"]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    assert_eq!(ran.out.lines().count(), 1);
    let who = identity(&data, AuthConfig::default(), &ran.out);
    assert_eq!(who.user.as_str(), "alice");
    assert_eq!(who.device.unwrap().as_str(), "phone");

    // Where the data is and what a token must say follow file < environment < flag.
    shell.write("skein.toml", "data = \"a\"\n[auth]\naudience = \"chat\"\nissuer = \"me\"\n");
    for place in ["a", "b", "c"] {
        DevFiles::of(&shell.path().join(place)).ensure_token_key().unwrap();
    }
    let auth =
        || AuthConfig { audience: "chat".into(), issuer: Some("me".into()), ..Default::default() };
    let args = ["token", "--user", "bob"];
    let in_file: Ran =
        shell.command(&args).env("SKEIN_CONFIG", "skein.toml").output().unwrap().into();
    identity(&shell.path().join("a"), auth(), &in_file.out);
    let mut command = shell.command(&args);
    command.env("SKEIN_CONFIG", "skein.toml").env("SKEIN_DATA", "b");
    let in_environment: Ran = command.output().unwrap().into();
    identity(&shell.path().join("b"), auth(), &in_environment.out);
    let by_flag: Ran = command.args(["--data", "c"]).output().unwrap().into();
    identity(&shell.path().join("c"), auth(), &by_flag.out);
}

#[test]
fn a_token_is_signed_with_the_key_that_is_given() {
    let shell = Shell::new();
    shell.write("secret", &"s".repeat(32));
    let ran = shell.run(&["token", "--user", "zoë", "--key", "secret", "--alg", "HS256"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let config =
        AuthConfig { key_file: Some(shell.path().join("secret")), ..AuthConfig::default() };
    let verifier = Verifier::from_config(&config).unwrap();
    let who = verifier.verify(ran.out.trim_end(), std::time::SystemTime::now()).unwrap();
    assert_eq!(who.user.as_str(), "zoë");

    let ran = shell.run(&["token", "--user", "a", "--key", "secret", "--alg", "ES256"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("holds a key for HS256, not for ES256"), "{}", ran.err);
    let ran = shell.run(&["token", "--user", "a", "--set", "auth.key_file=secret"]);
    assert_eq!(ran.status, 3);
    assert!(ran.err.contains("--key FILE"), "{}", ran.err);
}
