//! Where values come from, and the way from there into [`Config`]. Every problem is kept with its
//! place, so that all of them can be told at once.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::rule::Input;
use super::{Choice, Config, SECTIONS, check, table};

/// Variables that begin with `SKEIN_` and are no keys.
const OTHER_VARIABLES: &[&str] = &["SKEIN_CONFIG"];

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `FILE:LINE`, a variable, a flag.
    pub place: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Everything that is wrong with a configuration. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    fn one(place: impl Into<String>, message: impl Into<String>) -> Self {
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

/// What was given, weakest first: file, environment, command line.
#[derive(Debug, Default)]
pub struct Sources {
    file: Option<(String, String)>,
    environment: Vec<(String, String)>,
    flags: Vec<(String, String, String)>,
}

/// A configuration and remarks that do not keep it from being used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One line each, for the log.
    pub remarks: Vec<String>,
    /// Who set a key last.
    places: HashMap<&'static str, String>,
}

impl Loaded {
    /// Where the key got its value.
    pub fn place(&self, key: &str) -> String {
        self.places.get(key).cloned().unwrap_or_else(|| "defaults".into())
    }
}

impl Sources {
    /// Nothing given: all defaults.
    pub fn new() -> Self {
        Self::default()
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
                    "cannot be read: {error}; `skein config default` prints a file to start from"
                ),
            )),
        }
    }

    /// Takes the text of a file that messages call `name`.
    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.file = Some((name.to_owned(), text.to_owned()));
        self
    }

    /// Takes the variables whose name begins with `SKEIN_`.
    pub fn environment(mut self, variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        for (name, value) in variables {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("SKEIN_") && !OTHER_VARIABLES.contains(&name.as_str()) {
                self.environment.push((name, value.to_string_lossy().into_owned()));
            }
        }
        // `SKEIN_LOG` comes before `SKEIN_LOG__LEVEL`, so that the long name wins.
        self.environment.sort();
        self
    }

    /// Takes the value of a flag that stands for `key`.
    pub fn flag(mut self, flag: &str, key: &str, value: impl Into<String>) -> Self {
        self.flags.push((flag.to_owned(), key.to_owned(), value.into()));
        self
    }

    /// The configuration.
    ///
    /// # Errors
    /// Every problem of every source.
    pub fn read(self) -> Result<Loaded, Problems> {
        let (loaded, problems) = self.examine();
        if problems.is_empty() { Ok(loaded) } else { Err(Problems(problems)) }
    }

    /// The configuration with a default for every value that is wrong, and every problem of every
    /// source.
    pub fn examine(self) -> (Loaded, Vec<Problem>) {
        let mut reader = Reader::default();
        if let Some((name, text)) = &self.file {
            reader.read_file(name, text);
        }
        for (name, value) in &self.environment {
            reader.read_variable(name, value);
        }
        for (flag, key, value) in &self.flags {
            reader.set(flag, key, &Input::Text(value.clone()));
        }
        check::across_keys(&reader.config, |key, message| {
            // What a default in place of a wrong value does not go with is nobody's mistake.
            let wrong = |key: &&str| message.contains(&format!("`{key}`"));
            if !reader.broken && !reader.wrong.iter().any(wrong) {
                let place = reader.places.get(key).cloned().unwrap_or_else(|| "defaults".into());
                reader.problems.push(Problem { place, message });
            }
        });
        reader.remark_unused();
        reader.remark_exposed();
        let Reader { config, places, problems, remarks, .. } = reader;
        (Loaded { config, remarks, places }, problems)
    }
}

#[derive(Default)]
struct Reader {
    config: Config,
    /// Who set a key last.
    places: HashMap<&'static str, String>,
    problems: Vec<Problem>,
    remarks: Vec<String>,
    /// Keys whose value was not taken, and those that were probably meant by unknown ones.
    wrong: Vec<&'static str>,
    /// A file is not TOML: nobody knows what else it was to say.
    broken: bool,
}

impl Reader {
    fn problem(&mut self, place: &str, message: String) {
        self.problems.push(Problem { place: place.to_owned(), message });
    }

    fn set(&mut self, place: &str, path: &str, input: &Input) {
        let Some(key) = table::find(path) else {
            self.wrong.push(nearest_key(path).1);
            return self.problem(place, unknown_key(path));
        };
        match (key.set)(&mut self.config, input) {
            Ok(()) => {
                self.places.insert(key.path, place.to_owned());
            }
            Err(why) => {
                self.wrong.push(key.path);
                self.problem(place, format!("`{path}` = {}: {why}", input.shown()));
            }
        }
    }

    /// What was set, and not to its default, and has no effect.
    fn remark_unused(&mut self) {
        let defaults = Config::default();
        let unused = table::keys().filter(|key| check::is_unused(&self.config, key.path));
        for key in unused.filter(|key| (key.print)(&self.config) != (key.print)(&defaults)) {
            if let Some(place) = self.places.get(key.path) {
                let kind = self.config.store.kind.name();
                let what = format!("`{}` is not used with `store.kind` = \"{kind}\"", key.path);
                self.remarks.push(format!("{place}: {what}"));
            }
        }
    }

    /// What is right where the network keeps strangers out, and nowhere else.
    fn remark_exposed(&mut self) {
        if let Some(what) = check::exposed_admin(&self.config)
            && let Some(place) = self.places.get("admin.listen")
        {
            self.remarks.push(format!("{place}: {what}"));
        }
    }

    fn read_variable(&mut self, name: &str, value: &str) {
        let place = format!("environment {name}");
        let path = match name {
            "SKEIN_LOG" => "log.level".to_owned(),
            _ => name["SKEIN_".len()..].to_lowercase().replace("__", "."),
        };
        if table::find(&path).is_some() {
            return self.set(&place, &path, &Input::Text(value.to_owned()));
        }
        let (distance, nearest) = nearest_key(&path);
        // Others set such variables too: Kubernetes gives every pod `SKEIN_SERVICE_HOST` and the
        // like when a service is called skein. Only what was surely meant for us is an error.
        if path.contains('.') || distance <= 2 {
            let right = table::find(nearest).map(table::Key::variable).unwrap_or_default();
            self.problem(&place, format!("unknown variable; the nearest right one is {right}"));
        } else {
            self.remarks.push(format!("{place}: not a variable of skein, passed over"));
        }
    }

    fn read_file(&mut self, name: &str, text: &str) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let line_of = |at: usize| {
            1 + text.as_bytes()[..at.min(text.len())].iter().filter(|&&b| b == b'\n').count()
        };
        let mut found: Vec<(usize, String)> = Vec::new();
        let mut broken = Vec::new();
        for error in errors {
            let line = error.span().map_or(1, |span| line_of(span.start));
            broken.push(line);
            self.broken = true;
            found.push((line, format!("not valid TOML: {}", error.message().replace('\n', ", "))));
        }

        let before = self.problems.len();
        let mut lines = Vec::new();
        for entry in entries(root.get_ref()) {
            let line = line_of(entry.at);
            let place = format!("{name}:{line}");
            match entry.what {
                What::Key(path, value) => self.set(&place, &path, &Input::Toml(value)),
                What::Wrong(message) => self.problem(&place, message),
            }
            lines.resize(self.problems.len() - before, line);
        }
        // What the parser made up to go on after an error is not the writer's.
        let semantic = self.problems.drain(before..).zip(lines);
        found.extend(semantic.filter_map(|(problem, line)| {
            (!broken.contains(&line)).then_some((line, problem.message))
        }));
        found.sort();
        found.dedup();
        let placed = found
            .into_iter()
            .map(|(line, message)| Problem { place: format!("{name}:{line}"), message });
        self.problems.extend(placed);
    }
}

/// Something that a file says.
struct Entry {
    at: usize,
    what: What,
}

enum What {
    Key(String, toml::Value),
    Wrong(String),
}

/// Takes the file's tables apart into keys with full names.
fn entries(root: &DeTable<'_>) -> Vec<Entry> {
    let mut found = Vec::new();
    for (name, value) in root {
        let section = SECTIONS.iter().find(|s| !s.name.is_empty() && s.name == name.get_ref());
        let at = name.span().start;
        match (section, value.get_ref()) {
            (Some(section), DeValue::Table(inner)) => {
                for (key, value) in inner {
                    let path = format!("{}.{}", section.name, key.get_ref());
                    found.push(leaf(path, key.span().start, value));
                }
            }
            (Some(_), _) => {
                let message =
                    format!("`{name}` is a section: write [{name}]", name = name.get_ref());
                found.push(Entry { at, what: What::Wrong(message) });
            }
            (None, DeValue::Table(_)) if table::find(name.get_ref()).is_none() => {
                found.push(Entry { at, what: What::Wrong(unknown_section(name.get_ref())) });
            }
            (None, _) => found.push(leaf(name.get_ref().to_string(), at, value)),
        }
    }
    found
}

fn leaf(path: String, at: usize, value: &Spanned<DeValue<'_>>) -> Entry {
    let what = match toml::Value::deserialize(ValueDeserializer::from(value.clone())) {
        Ok(value) => What::Key(path, value),
        Err(error) => What::Wrong(format!("`{path}`: {}", error.message())),
    };
    Entry { at, what }
}

fn unknown_key(path: &str) -> String {
    format!("unknown key `{path}`; the nearest right one is `{}`", nearest_key(path).1)
}

fn unknown_section(name: &str) -> String {
    let sections = SECTIONS.iter().map(|section| section.name).filter(|name| !name.is_empty());
    let nearest = sections.min_by_key(|known| strsim::damerau_levenshtein(name, known));
    format!("unknown section [{name}]; the nearest right one is [{}]", nearest.unwrap_or_default())
}

/// Edits up to which a name is taken for a misspelt one.
const MOST_TYPOS: usize = 3;

/// The key that is spelt most like `path`, wherever it stands, and how many edits are between.
fn nearest_key(path: &str) -> (usize, &'static str) {
    let last = path.rsplit('.').next().unwrap_or(path);
    let distance = |key: &table::Key| {
        let whole = strsim::damerau_levenshtein(path, key.path);
        // The right key in the wrong section is one edit further than the right place.
        whole.min(strsim::damerau_levenshtein(last, key.name) + 1)
    };
    let (edits, nearest) = table::keys()
        .map(|key| (distance(key), key.path))
        .min_by_key(|(distance, _)| *distance)
        .unwrap_or((usize::MAX, ""));
    if edits <= MOST_TYPOS {
        return (edits, nearest);
    }
    // Not a slip of the finger: perhaps the beginning of the right name, which this measure favours.
    let alike = |key: &table::Key| strsim::jaro_winkler(last, key.name);
    let nearest = table::keys().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    (edits, nearest.map_or("", |key| key.path))
}
