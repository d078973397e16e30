//! Commands in what an operator reads are such as the program takes, and the configuration there is
//! the one that is installed.

use super::support::process::{Options, skein};
use super::{assert_none, read};

const PAGES: [&str; 4] =
    ["docs/operations.md", "docs/admin.md", "docs/scylladb.md", "docs/configuration.md"];

/// The arguments of each `skein` in a line of a shell or a span of code.
fn command(line: &str) -> Option<Vec<&str>> {
    let ends = |word: &&str| !["#", ">", "|"].contains(word);
    let words: Vec<&str> = line.split_whitespace().take_while(ends).collect();
    let program = words.iter().rposition(|word| word.rsplit('/').next() == Some("skein"))?;
    let arguments = &words[program + 1..];
    // Elsewhere it is the name of a user, a service or an image.
    let is_command = arguments.first()?.chars().all(|c| c.is_ascii_lowercase());
    is_command.then(|| arguments.to_vec())
}

/// Lines of shells that are shown, and spans of code that begin with the program.
fn commands(page: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    for (number, part) in page.split("```").enumerate() {
        if number % 2 == 1 {
            found.extend(part.lines().filter_map(|line| command(line.strip_prefix("$ ")?)));
        } else {
            let spans = part.split('`').skip(1).step_by(2);
            found.extend(spans.filter(|span| span.starts_with("skein ")).filter_map(command));
        }
    }
    found
}

/// With `--help` nothing is done, and what comes before it is read all the same.
fn problem(arguments: &[&str]) -> Option<String> {
    let words = arguments.iter().filter(|word| **word != "...");
    let words = words.map(|word| if *word == "NUMBER" { "5" } else { *word });
    let words: Vec<&str> = words.collect();
    let ran = skein(&[&words[..], &["--help"]].concat(), &Options::default());
    let said = String::from_utf8_lossy(&ran.stderr);
    (!ran.status.success()).then(|| format!("skein {}: {said}", arguments.join(" ")))
}

#[test]
fn commands_are_taken() {
    for path in PAGES {
        let page = read(path);
        // Lines of a shell that go on are one.
        let page = page.replace("\\\n", " ");
        let found = commands(&page);
        assert!(!found.is_empty(), "{path}");
        let problems: Vec<_> = found.iter().filter_map(|command| problem(command)).collect();
        assert_none(&problems);
    }
}

#[test]
fn mistakes_in_commands_are_seen() {
    let page = "`skein ctl top`, `skein`, `systemctl status skein`\n```console\n\
                $ sudo -u skein skein config check --config x   # wrong\n\
                $ journalctl --unit skein --follow\n$ docker build --tag skein .\n```\n\
                and `skein ctl topp`";
    let found = commands(page);
    let expected: [&[&str]; 3] =
        [&["ctl", "top"], &["config", "check", "--config", "x"], &["ctl", "topp"]];
    assert_eq!(found, expected);
    let wrong: Vec<bool> = found.iter().map(|command| problem(command).is_some()).collect();
    assert_eq!(wrong, [false, true, true]);
}

#[test]
fn the_configuration_that_is_shown_is_the_one_that_is_installed() {
    let page = read("docs/operations.md");
    let section = page.split("## First configuration").nth(1).unwrap();
    let shown = section.split("```toml").nth(1).unwrap().split("```").next().unwrap();
    let shown: toml::Table = toml::from_str(shown).unwrap();
    assert_eq!(shown, toml::from_str(&read("deploy/systemd/skein.toml")).unwrap());
}
