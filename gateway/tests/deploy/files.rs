//! Configurations, variables and command lines in `deploy/` are such as the program takes.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use skein_gateway::config::{Sources, default_file};

use super::support::process::{Options, skein};
use super::{assert_none, repository};

/// Variables that are no keys.
const OTHERS: [&str; 1] = ["SKEIN_CONFIG"];

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn configurations_pass_the_check() {
    let folder = repository().join("deploy");
    let configurations = files(&folder).into_iter().filter(|path| path.ends_with("skein.toml"));
    let mut checked = 0;
    for file in configurations {
        let ran =
            skein(&["config", "check", "--no-files", file.to_str().unwrap()], &Options::default());
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "{}: {said}", file.display());
        checked += 1;
    }
    assert!(checked >= 4, "{checked}");
}

#[test]
fn variables_are_keys() {
    let defaults: toml::Table = toml::from_str(&default_file()).unwrap();
    let mut keys: BTreeSet<String> = OTHERS.map(String::from).into();
    for (name, value) in &defaults {
        let name = name.to_uppercase();
        match value.as_table() {
            Some(section) => keys
                .extend(section.keys().map(|key| format!("SKEIN_{name}__{}", key.to_uppercase()))),
            None => drop(keys.insert(format!("SKEIN_{name}"))),
        }
    }
    let (mut found, mut problems) = (0, Vec::new());
    for file in files(&repository().join("deploy")) {
        // Pictures and the like are not read.
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            for rest in line.split("SKEIN_").skip(1) {
                let part = |c: char| c.is_ascii_uppercase() || c == '_';
                let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
                let name = format!("SKEIN_{}", &rest[..end]);
                found += 1;
                if !keys.contains(&name) {
                    problems.push(format!("{}: {name} is no key", file.display()));
                }
            }
        }
    }
    assert_none(&problems);
    assert!(found >= 1, "{found}");
}

/// Status 2 is a wrong command line. Nothing that they are meant for is here, so they may fail.
#[test]
fn command_lines_are_taken() {
    let here = tempfile::tempdir().unwrap();
    let data = here.path().to_str().unwrap();
    let drain = ["ctl", "drain", "--over", "60s", "--wait", "75s"];
    let lines: [(&str, &str, &[&str]); 6] = [
        ("kubernetes/scylla/gateway.yaml", "[schema, apply]", &["schema", "apply"]),
        ("compose/compose.yaml", "[schema, apply]", &["schema", "apply"]),
        ("systemd/skein.service", "skein serve --config", &["serve", "--config", "nowhere.toml"]),
        ("docker/Dockerfile", r#""ctl", "alive""#, &["ctl", "alive"]),
        ("compose/compose.yaml", "skein, ctl, ready]", &["ctl", "ready"]),
        ("kubernetes/base/gateway.yaml", "ctl, drain, --over, 60s, --wait, 75s", &drain),
    ];
    for (file, text, arguments) in lines {
        let said = std::fs::read_to_string(repository().join("deploy").join(file)).unwrap();
        assert!(said.contains(text), "{file} has no {text}");
        let ran = skein(&[arguments, &["--data", data]].concat(), &Options::default());
        assert!([Some(1), Some(3)].contains(&ran.status.code()), "{file}: {ran:?}");
    }
}

#[test]
fn a_renewed_pair_arrives_where_the_configuration_looks() {
    let deploy = repository().join("deploy");
    let service = Sources::new().file(&deploy.join("systemd/skein.toml")).unwrap();
    let tls = service.read().unwrap().config.tls;
    let (lineage, installed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (cert, key) = (tls.cert.unwrap(), tls.key.unwrap());
    let mut names = [cert.file_name().unwrap(), key.file_name().unwrap()];
    for name in names {
        std::fs::write(lineage.path().join(name), name.as_encoded_bytes()).unwrap();
        std::fs::write(installed.path().join(name), "old").unwrap();
    }
    let hook = Command::new(deploy.join("certbot/skein-renewed"))
        .arg(installed.path())
        .env("RENEWED_LINEAGE", lineage.path())
        .output()
        .unwrap();
    assert!(hook.status.success(), "{hook:?}");

    let mut there = files(installed.path());
    there.sort();
    names.sort();
    assert_eq!(there, names.map(|name| installed.path().join(name)));
    for file in there {
        assert_eq!(std::fs::read(&file).unwrap(), file.file_name().unwrap().as_encoded_bytes());
        // Its group reads the key, and nobody else.
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    }
}
