//! Where values come from, and the way from there into [`Scenario`]. Every problem is kept with its
//! place, so that all of them can be told at once.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::keys::SECTIONS;
use super::program::Program;
use super::rule::Input;
use super::{Scenario, check, table};
use crate::nearest::nearest;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `FILE:LINE` or a flag; the name of a key where nothing was given.
    pub place: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Everything that is wrong with a scenario. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub(super) fn one(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self(vec![Problem { place: place.into(), message: message.into() }])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// What was given: a program or a file that names one, and flags, which are stronger.
#[derive(Debug, Default)]
pub struct Sources {
    program: Option<Program>,
    file: Option<(String, String)>,
    flags: Vec<(String, String, Vec<String>)>,
}

impl Sources {
    /// Nothing given yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins with a ready scenario.
    pub fn program(mut self, program: Program) -> Self {
        self.program = Some(program);
        self
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When the file cannot be read as text.
    pub fn file(self, path: &Path) -> Result<Self, Problems> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(self.text(&name, &text)),
            Err(error) => Err(Problems::one(
                name,
                format!(
                    "cannot be read: {error}; `skein-load chat --print` writes a file to start from"
                ),
            )),
        }
    }

    /// Takes the text of a file that messages call `name`.
    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.file = Some((name.to_owned(), text.to_owned()));
        self
    }

    /// Takes the values of a flag that stands for `key`.
    pub fn flag(mut self, flag: &str, key: &str, values: Vec<String>) -> Self {
        self.flags.push((flag.to_owned(), key.to_owned(), values));
        self
    }

    /// The scenario.
    ///
    /// # Errors
    /// Every problem of every source.
    pub fn read(self) -> Result<Scenario, Problems> {
        let parsed = self.file.as_ref().map(|(name, text)| Parsed::new(name, text));
        let named = parsed.as_ref().and_then(Parsed::program);
        let program = match (self.program, named) {
            (Some(program), _) | (None, Some(Ok(program))) => program,
            (None, Some(Err(problem))) => return Err(Problems(vec![problem])),
            (None, None) => {
                let mut problems = parsed.map(|parsed| parsed.broken).unwrap_or_default();
                let place = self.file.map_or_else(|| "program".into(), |(name, _)| name);
                let message = format!("say which program: program = \"chat\", or {}", others());
                problems.push(Problem { place, message });
                return Err(Problems(problems));
            }
        };
        let mut reader = Reader::new(program);
        if let Some(parsed) = parsed {
            reader.take_file(parsed);
        }
        for (flag, key, values) in self.flags {
            reader.set(&flag, &key, &Input::Text(values));
        }
        reader.finish()
    }
}

fn others() -> String {
    let names = Program::ALL.into_iter().filter(|program| *program != Program::Chat);
    names.map(|program| format!("{:?}", program.name())).collect::<Vec<_>>().join(", ")
}

struct Reader {
    scenario: Scenario,
    /// Who set a key last.
    places: HashMap<&'static str, String>,
    problems: Vec<Problem>,
}

impl Reader {
    fn new(program: Program) -> Self {
        Self { scenario: Scenario::preset(program), places: HashMap::new(), problems: Vec::new() }
    }

    fn problem(&mut self, place: &str, message: String) {
        self.problems.push(Problem { place: place.to_owned(), message });
    }

    fn set(&mut self, place: &str, path: &str, input: &Input) {
        let program = self.scenario.program;
        let Some(key) = table::find(path) else {
            return self.problem(place, unknown_key(path, program));
        };
        if !key.is_for(program) {
            let message = format!(
                "`{path}` means nothing to {}; it is for {}",
                program.name(),
                key.program_names()
            );
            return self.problem(place, message);
        }
        match (key.set)(&mut self.scenario, input) {
            Ok(()) => {
                self.places.insert(key.path, place.to_owned());
            }
            Err(why) => self.problem(place, format!("`{path}` = {}: {why}", input.shown())),
        }
    }

    fn take_file(&mut self, parsed: Parsed) {
        let broken: Vec<String> = parsed.broken.iter().map(|p| p.place.clone()).collect();
        let begun = self.problems.len();
        for entry in parsed.entries {
            match entry.what {
                What::Key(path, _) if path == "program" => {}
                What::Key(path, value) => self.set(&entry.place, &path, &Input::Toml(value)),
                What::Wrong(message) => self.problem(&entry.place, message),
            }
        }
        // What the parser made up to go on after an error is not the writer's.
        let mut own = self.problems.split_off(begun);
        own.retain(|problem| !broken.contains(&problem.place));
        own.extend(parsed.broken);
        // By line: the parser hands out tables sorted by name.
        own.sort_by_key(|p| p.place.rsplit(':').next().and_then(|n| n.parse::<usize>().ok()));
        own.dedup();
        self.problems.extend(own);
    }

    fn finish(mut self) -> Result<Scenario, Problems> {
        if self.problems.is_empty() {
            let places = &self.places;
            let mut problems = Vec::new();
            check::between_keys(&mut self.scenario, places, |key, message| {
                let place = places.get(key).cloned().unwrap_or_else(|| key.to_owned());
                problems.push(Problem { place, message });
            });
            self.problems = problems;
        }
        if self.problems.is_empty() { Ok(self.scenario) } else { Err(Problems(self.problems)) }
    }
}

/// A file, taken apart.
struct Parsed {
    entries: Vec<Entry>,
    /// Where it is no TOML.
    broken: Vec<Problem>,
}

/// Something that a file says.
struct Entry {
    place: String,
    what: What,
}

enum What {
    Key(String, toml::Value),
    Wrong(String),
}

impl Parsed {
    fn new(name: &str, text: &str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let place_of = |at: usize| {
            let before = &text.as_bytes()[..at.min(text.len())];
            format!("{name}:{}", 1 + before.iter().filter(|&&b| b == b'\n').count())
        };
        let broken = errors.iter().map(|error| Problem {
            place: place_of(error.span().map_or(0, |span| span.start)),
            message: format!("not valid TOML: {}", error.message().replace('\n', ", ")),
        });
        let broken = broken.collect();
        let mut entries = Vec::new();
        for (name, value) in root.get_ref() {
            let place = place_of(name.span().start);
            let section = SECTIONS.iter().find(|s| !s.name.is_empty() && s.name == name.get_ref());
            match (section, value.get_ref()) {
                (Some(section), DeValue::Table(inner)) => {
                    entries.extend(inner.iter().map(|(key, value)| {
                        let path = format!("{}.{}", section.name, key.get_ref());
                        Entry { place: place_of(key.span().start), what: leaf(path, value) }
                    }));
                }
                (Some(_), _) => {
                    let what =
                        format!("`{name}` is a section: write [{name}]", name = name.get_ref());
                    entries.push(Entry { place, what: What::Wrong(what) });
                }
                (None, DeValue::Table(_)) => {
                    let what = What::Wrong(unknown_section(name.get_ref()));
                    entries.push(Entry { place, what });
                }
                (None, _) => {
                    entries.push(Entry { place, what: leaf(name.get_ref().to_string(), value) });
                }
            }
        }
        Self { entries, broken }
    }

    /// The program that the file names, if it names one.
    fn program(&self) -> Option<Result<Program, Problem>> {
        self.entries.iter().find_map(|entry| match &entry.what {
            What::Key(path, value) if path == "program" => {
                let word = value.as_str().unwrap_or_default();
                let names = Program::ALL.iter().map(|program| program.name());
                Some(Program::find(word).ok_or_else(|| Problem {
                    place: entry.place.clone(),
                    message: format!(
                        "unknown program {value}; the nearest right one is {:?}",
                        nearest(word, names).unwrap_or_default()
                    ),
                }))
            }
            _ => None,
        })
    }
}

fn leaf(path: String, value: &Spanned<DeValue<'_>>) -> What {
    match toml::Value::deserialize(ValueDeserializer::from(value.clone())) {
        Ok(value) => What::Key(path, value),
        Err(error) => What::Wrong(format!("`{path}`: {}", error.message())),
    }
}

/// The right key may stand in another section, or be spelt a little otherwise; one that the program
/// has no use for is no help.
fn unknown_key(path: &str, program: Program) -> String {
    let last = table::last_of(path);
    let moved = table::keys_of(program).find(|key| key.name == last);
    let found = moved.map(|key| key.path).or_else(|| {
        let names = table::keys_of(program).map(|key| key.name);
        let by_name =
            nearest(last, names).filter(|name| strsim::damerau_levenshtein(last, name) <= 2);
        let by_name = by_name.and_then(|n| table::keys_of(program).find(|key| key.name == n));
        by_name
            .map(|key| key.path)
            .or_else(|| nearest(path, table::keys_of(program).map(|key| key.path)))
    });
    format!("unknown key `{path}`; the nearest right one is `{}`", found.unwrap_or_default())
}

fn unknown_section(name: &str) -> String {
    let names = SECTIONS.iter().map(|section| section.name).filter(|name| !name.is_empty());
    let nearest = nearest(name, names).unwrap_or_default();
    format!("unknown section [{name}]; the nearest right one is [{nearest}]")
}
