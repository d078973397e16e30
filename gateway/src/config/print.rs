//! The list of keys as a file to start from and as a page to read.

use std::fmt::Write;

use super::live::is_live;
use super::table::{Key, Section};
use super::{Config, SECTIONS};

/// A configuration file with every key at its default, explained.
pub fn default_file() -> String {
    let config = Config::default();
    let mut out = String::from(
        "# Configuration of a Skein gateway: every key with its default.\n\
         # Keep the lines that you change. A variable of the environment is stronger than this\n\
         # file, a flag of the command line is stronger than both. Relative paths start at the\n\
         # folder in which the gateway is started.\n",
    );
    for section in SECTIONS {
        if !section.name.is_empty() {
            out.push('\n');
            push_comment(&mut out, section.doc);
            let _ = writeln!(out, "[{}]", section.name);
        }
        for key in section.keys {
            out.push('\n');
            push_comment(&mut out, key.doc);
            let _ = writeln!(out, "# Value: {}", allowed(key));
            let _ = writeln!(
                out,
                "# Default: {}   Environment: {}",
                (key.print)(&config),
                key.variable()
            );
            let _ = writeln!(out, "{} = {}", key.name, (key.print)(&config));
        }
    }
    out
}

/// `docs/configuration.md`.
pub fn reference_page() -> String {
    let config = Config::default();
    let mut out = String::from(INTRODUCTION);
    for section in SECTIONS {
        let title = if section.name.is_empty() {
            "Top of the file".to_owned()
        } else {
            format!("`[{}]`", section.name)
        };
        let _ = write!(out, "\n## {title}\n\n");
        if !section.name.is_empty() {
            let _ = write!(out, "{}\n\n", one_line(section.doc));
        }
        push_table(&mut out, section, &config);
    }
    out
}

const INTRODUCTION: &str = "\
# Configuration of the gateway

<!-- Written by `SKEIN_UPDATE=1 cargo test -p skein-gateway --test reference` from the list of keys in
gateway/src/config/keys.rs. Change it there. -->

`skein serve` works without any configuration. What it is told comes from three places, the later
one stronger:

1. a TOML file: `skein serve --config FILE`, or `SKEIN_CONFIG=FILE`;
2. the environment: `SKEIN_` and the key in capitals, sections divided by two underscores:
   `SKEIN_LIMITS__MAX_SESSIONS=5000`;
3. the command line: a flag (`--listen`, `--data`, ...), or `--set limits.max_sessions=5000` for any key.

Sizes are written `\"64KiB\"` or as a number of bytes, times with their unit: `\"25s\"`, `\"1h 30m\"`.
Relative paths start at the folder in which the gateway is started. An unknown key or a value out
of range stops the gateway before it does anything.

- `skein config default > skein.toml` writes a file with every key, explained.
- `skein config check skein.toml` tells everything that is wrong with a file at once.

## Changes while the gateway runs

On SIGHUP (`systemctl reload`, `kill -HUP`) the gateway reads all three places again, and the files of
keys and certificates that they name. A new value of a key whose column *Change* says *live* is used
at once; for the others the log says that a restart is needed, and the old value stays. If anything is
wrong, nothing is changed: the log says all that is wrong, and the gateway goes on as before.

- Limits hold at once, also for sessions that are there. One that holds more than is allowed now keeps
  it and gets no more: lowering `limits.max_sessions` closes nobody.
- A session keeps the heartbeat that it was told when it logged in.
- A token is looked at when it is shown: sessions that logged in with a key that is gone now stay until
  their token ends.
- Certificates are also looked at without a signal, see `tls.watch`. A connection keeps the one that it
  began with.
";

fn push_table(out: &mut String, section: &Section, config: &Config) {
    out.push_str(
        "| Key | Default | Unit, allowed values | Change | Meaning |\n|---|---|---|---|---|\n",
    );
    for key in section.keys {
        let _ = writeln!(
            out,
            "| `{}` | `{}` | {} | {} | {} |",
            key.path,
            (key.print)(config),
            allowed(key).replace('|', "\\|"),
            if is_live(key.path) { "live" } else { "restart" },
            one_line(key.doc).replace('|', "\\|"),
        );
    }
}

fn allowed(key: &Key) -> String {
    let (unit, range) = ((key.unit)(), (key.range)());
    if range.is_empty() { unit.to_owned() } else { format!("{unit}: {range}") }
}

fn push_comment(out: &mut String, doc: &str) {
    for line in doc.lines() {
        let _ = writeln!(out, "#{}", line.trim_end());
    }
}

fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}
