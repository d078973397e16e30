//! `skein-load run FILE` and the ready scenarios: the flags of all keys, and the way from them to a
//! run.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::help_end;
use super::output::print;
use super::run::Output;
use crate::exit::{Exit, Failure};
use crate::scenario::{Key, Problems, Program, Scenario, Sources, all_keys, keys_of};

/// `skein-load run`: the program stands in the file, so every flag is there.
pub(super) fn from_file() -> Command {
    let file = Arg::new("SCENARIO")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("Scenario, TOML; `skein-load chat --print` writes one to start from");
    Command::new("run")
        .about("Run a scenario from a file")
        .arg(file)
        .args(flags(None))
        .args(common())
        .after_help(help_end(
            "Examples:\n  skein-load chat --pairs 500 --print > chat.toml\n  \
             skein-load run chat.toml --for 5m --report DIR",
        ))
        .display_order(0)
}

/// The subcommand of a ready scenario.
pub(super) fn preset(program: Program) -> Command {
    let examples: Vec<String> =
        program.examples().iter().map(|example| format!("\n  {example}")).collect();
    Command::new(program.name())
        .about(program.about())
        .args(flags(Some(program)))
        .args(common())
        .after_help(help_end(&format!("Examples:{}", examples.concat())))
        .display_order(1 + program as usize)
}

/// Runs what was asked for. Without a program a file names it.
pub(super) fn run(program: Option<Program>, matches: &ArgMatches) -> Result<Exit, Failure> {
    let scenario = read(program, matches).map_err(|problems| wrong(&problems))?;
    if matches.get_flag("print") {
        print(&scenario.print())?;
        return Ok(Exit::Ok);
    }
    let output = Output {
        plain: matches.get_flag("plain"),
        json: matches.get_flag("json"),
        overwrite: matches.get_flag("overwrite"),
    };
    super::run::run(&scenario, output)
}

fn read(program: Option<Program>, matches: &ArgMatches) -> Result<Scenario, Problems> {
    let mut sources = Sources::new();
    if let Some(program) = program {
        sources = sources.program(program);
    } else if let Some(path) = matches.get_one::<PathBuf>("SCENARIO") {
        sources = sources.file(path)?;
    }
    for key in keys(program) {
        if let Some(values) = matches.get_many::<String>(key.path) {
            let values = values.cloned().collect();
            sources = sources.flag(&format!("--{}", key.flag), key.path, values);
        }
    }
    sources.read()
}

fn wrong(problems: &Problems) -> Failure {
    let number = problems.0.len();
    let (noun, verb) = if number == 1 { ("problem", "is") } else { ("problems", "are") };
    Failure::usage(format!("there {verb} {number} {noun} in the scenario\n{problems}"))
}

fn keys(program: Option<Program>) -> Box<dyn Iterator<Item = &'static Key>> {
    match program {
        Some(program) => Box::new(keys_of(program)),
        None => Box::new(all_keys()),
    }
}

fn flags(program: Option<Program>) -> Vec<Arg> {
    let preset = program.map(Scenario::preset);
    let mut keys: Vec<_> = keys(program).collect();
    // What the user came for first; the order within a section stays.
    keys.sort_by_key(|key| HEADINGS.iter().position(|(section, _)| *section == section_of(key)));
    keys.into_iter().map(|key| flag(key, preset.as_ref())).collect()
}

/// Sections of the file, in the order of the help.
const HEADINGS: [(&str, &str); 7] = [
    ("load", "Load"),
    ("ramp", "Search for the knee"),
    ("", "Run"),
    ("target", "Gateway"),
    ("users", "Users"),
    ("phases", "Time around what is measured"),
    ("generator", "This program"),
];

/// Flags of these sections that the short help shows too.
const SHORT_HELP: [&str; 5] =
    ["target.address", "target.data", "target.spawn", "users.key", "users.tokens"];

fn section_of(key: &Key) -> &'static str {
    key.path.split_once('.').map_or("", |(section, _)| section)
}

fn flag(key: &'static Key, preset: Option<&Scenario>) -> Arg {
    let mut help = key.doc.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(preset) = preset {
        let default = (key.print)(preset);
        if !matches!(default.as_str(), "\"\"" | "[]" | "false") {
            help.push_str(&format!(" [default: {}]", default.trim_matches(['[', ']', '"'])));
        }
    } else if !key.programs.is_empty() {
        help.push_str(&format!(" (For {}.)", key.program_names()));
    }
    let arg = Arg::new(key.path)
        .long(key.flag)
        .value_name((key.value_name)())
        // Told by the key's own rule, and not taken for a flag.
        .allow_negative_numbers(true)
        .help(help)
        .hide_short_help(!is_common(key))
        .help_heading(heading(key));
    match ((key.switch)(), (key.many)()) {
        (true, _) => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("BOOL"),
        (false, true) => arg.action(ArgAction::Append),
        (false, false) => arg,
    }
}

fn heading(key: &Key) -> &'static str {
    let found = HEADINGS.iter().find(|(section, _)| *section == section_of(key));
    found.map_or("Run", |(_, heading)| heading)
}

fn is_common(key: &Key) -> bool {
    matches!(section_of(key), "load" | "ramp" | "") || SHORT_HELP.contains(&key.path)
}

fn common() -> [Arg; 4] {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .value_parser(BoolishValueParser::new())
            .help(help)
            .help_heading("Output")
    };
    [
        switch(
            "print",
            "Print the scenario as a file, with every key explained, and do not run it",
        ),
        switch("plain", "Plain lines instead of the live view, as where there is no terminal"),
        switch("overwrite", "Replace the report that the folder holds (--report)"),
        switch("json", "Print summary.json on standard output at the end, instead of a table"),
    ]
}
