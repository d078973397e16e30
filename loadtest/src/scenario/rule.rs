//! What a value may be: each rule reads a value from a file or from text, keeps it inside its
//! range, prints it back as TOML, and describes itself for help texts and messages. Rules for
//! sizes, times and counts are in [`super::quantity`].

use std::path::PathBuf;

use super::value::{Choice, HostPort, Weights};
use crate::control::MetricsUrl;
use crate::nearest::nearest;
use crate::objective::Objective;

/// A value as it was given, before its rule has seen it.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// From the command line: text without a type, once for each time the flag was given.
    Text(Vec<String>),
    /// From a file: TOML has told numbers from strings.
    Toml(toml::Value),
}

impl Input {
    /// As a person would write it, shortened to stay on a line.
    pub(crate) fn shown(&self) -> String {
        let full = match self {
            Self::Text(texts) => format!("{:?}", texts.join(", ")),
            Self::Toml(value) => value.to_string(),
        };
        match full.char_indices().nth(80) {
            Some((cut, _)) => format!("{}...", &full[..cut]),
            None => full,
        }
    }

    /// The text, if this is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(texts) => texts.last().map(String::as_str),
            Self::Toml(toml::Value::String(text)) => Some(text),
            Self::Toml(_) => None,
        }
    }

    /// The number, if this is one; digits of text may be grouped with `_` as in TOML.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Text(texts) => texts.last()?.trim().replace('_', "").parse().ok(),
            Self::Toml(toml::Value::Integer(number)) => Some(*number as f64),
            Self::Toml(toml::Value::Float(number)) => Some(*number),
            Self::Toml(_) => None,
        }
        .filter(|number: &f64| number.is_finite())
    }

    /// The whole number, if this is one.
    pub(crate) fn integer(&self) -> Option<i64> {
        match self {
            Self::Text(texts) => texts.last()?.trim().replace('_', "").parse().ok(),
            Self::Toml(toml::Value::Integer(number)) => Some(*number),
            Self::Toml(_) => None,
        }
    }

    /// All texts: of a list, of several flags, or of one text with commas.
    fn list(&self, commas: bool) -> Option<Vec<String>> {
        let split = |text: &str| -> Vec<String> {
            let parts = text.split(',').map(|part| part.trim().to_owned());
            if commas { parts.filter(|part| !part.is_empty()).collect() } else { vec![text.into()] }
        };
        match self {
            Self::Text(texts) => Some(texts.iter().flat_map(|text| split(text)).collect()),
            Self::Toml(toml::Value::String(text)) => Some(split(text)),
            Self::Toml(toml::Value::Array(values)) => {
                values.iter().map(|value| value.as_str().map(ToOwned::to_owned)).collect()
            }
            Self::Toml(_) => None,
        }
    }
}

/// How values of one key are read, checked, printed and described.
pub(crate) trait Rule<T> {
    /// The value, or what would be right instead.
    ///
    /// # Errors
    /// The end of a sentence that begins with the key and the value given.
    fn read(&self, input: &Input) -> Result<T, String>;
    /// As a TOML value.
    fn print(&self, value: &T) -> String;
    /// What help texts call the value.
    fn value_name(&self) -> &'static str;
    /// What is allowed.
    fn range(&self) -> String;
    /// Takes several values.
    fn many(&self) -> bool {
        false
    }
    /// Is true or false.
    fn switch(&self) -> bool {
        false
    }
}

/// The text as a TOML string.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_list(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.map(|text| quoted(&text)).collect();
    format!("[{}]", texts.join(", "))
}

/// `true` or `false`.
pub(crate) struct Flag;

impl Rule<bool> for Flag {
    fn read(&self, input: &Input) -> Result<bool, String> {
        match (input, input.text()) {
            (Input::Toml(toml::Value::Boolean(flag)), _) => Ok(*flag),
            (Input::Text(_), Some("true")) => Ok(true),
            (Input::Text(_), Some("false")) => Ok(false),
            _ => Err("must be true or false".into()),
        }
    }
    fn print(&self, value: &bool) -> String {
        value.to_string()
    }
    fn value_name(&self) -> &'static str {
        "BOOL"
    }
    fn range(&self) -> String {
        "true or false".into()
    }
    fn switch(&self) -> bool {
        true
    }
}

/// One of a few words.
pub(crate) struct OneOf;

impl<T: Choice> Rule<T> for OneOf {
    fn read(&self, input: &Input) -> Result<T, String> {
        let text = input.text().map(str::trim);
        let found = T::ALL.iter().find(|(word, _)| Some(*word) == text);
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| format!("must be one of {}", Rule::<T>::range(self)))
    }
    fn print(&self, value: &T) -> String {
        quoted(value.word())
    }
    fn value_name(&self) -> &'static str {
        "WORD"
    }
    fn range(&self) -> String {
        let words: Vec<String> = T::ALL.iter().map(|(word, _)| quoted(word)).collect();
        words.join(", ")
    }
}

/// A text of 1 to so many bytes.
pub(crate) struct Text(pub usize);

impl Rule<String> for Text {
    fn read(&self, input: &Input) -> Result<String, String> {
        let text = input.text().filter(|text| (1..=self.0).contains(&text.len()));
        text.map(ToOwned::to_owned).ok_or_else(|| format!("must be {}", self.range()))
    }
    fn print(&self, value: &String) -> String {
        quoted(value)
    }
    fn value_name(&self) -> &'static str {
        "TEXT"
    }
    fn range(&self) -> String {
        format!("a text of 1 to {} bytes", self.0)
    }
}

/// A text of up to so many bytes; an empty one is none.
pub(crate) struct OptionalText(pub usize);

impl Rule<Option<String>> for OptionalText {
    fn read(&self, input: &Input) -> Result<Option<String>, String> {
        match input.text() {
            Some("") => Ok(None),
            Some(text) if text.len() <= self.0 => Ok(Some(text.to_owned())),
            _ => Err(format!("must be {}", self.range())),
        }
    }
    fn print(&self, value: &Option<String>) -> String {
        quoted(value.as_deref().unwrap_or_default())
    }
    fn value_name(&self) -> &'static str {
        "TEXT"
    }
    fn range(&self) -> String {
        format!("a text of at most {} bytes, \"\" for none", self.0)
    }
}

/// What may begin a user's name.
pub(crate) struct RunId;

impl Rule<Option<String>> for RunId {
    fn read(&self, input: &Input) -> Result<Option<String>, String> {
        let fits = |text: &str| {
            text.len() <= 16 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        match input.text() {
            Some("") => Ok(None),
            Some(text) if fits(text) => Ok(Some(text.to_owned())),
            _ => Err(format!("must be {}", self.range())),
        }
    }
    fn print(&self, value: &Option<String>) -> String {
        quoted(value.as_deref().unwrap_or_default())
    }
    fn value_name(&self) -> &'static str {
        "TEXT"
    }
    fn range(&self) -> String {
        "1 to 16 of a-z 0-9, \"\" for none".into()
    }
}

/// The path of a folder.
pub(crate) struct Folder;

impl Rule<PathBuf> for Folder {
    fn read(&self, input: &Input) -> Result<PathBuf, String> {
        let path = input.text().filter(|text| !text.is_empty());
        path.map(PathBuf::from).ok_or_else(|| "must be the path of a folder".into())
    }
    fn print(&self, value: &PathBuf) -> String {
        quoted(&value.to_string_lossy())
    }
    fn value_name(&self) -> &'static str {
        "DIR"
    }
    fn range(&self) -> String {
        "path of a folder".into()
    }
}

/// The path of a file; an empty one is none.
pub(crate) struct OptionalFile;

impl Rule<Option<PathBuf>> for OptionalFile {
    fn read(&self, input: &Input) -> Result<Option<PathBuf>, String> {
        let text = input.text().ok_or("must be the path of a file, \"\" for none")?;
        Ok((!text.is_empty()).then(|| text.into()))
    }
    fn print(&self, value: &Option<PathBuf>) -> String {
        quoted(&value.as_deref().unwrap_or("".as_ref()).to_string_lossy())
    }
    fn value_name(&self) -> &'static str {
        "FILE"
    }
    fn range(&self) -> String {
        "path of a file, \"\" for none".into()
    }
}

/// The path of a folder; an empty one is none.
pub(crate) struct OptionalFolder;

impl Rule<Option<PathBuf>> for OptionalFolder {
    fn read(&self, input: &Input) -> Result<Option<PathBuf>, String> {
        let text = input.text().ok_or("must be the path of a folder, \"\" for none")?;
        Ok((!text.is_empty()).then(|| text.into()))
    }
    fn print(&self, value: &Option<PathBuf>) -> String {
        OptionalFile.print(value)
    }
    fn value_name(&self) -> &'static str {
        "DIR"
    }
    fn range(&self) -> String {
        "path of a folder, \"\" for none".into()
    }
}

/// One or more of `HOST:PORT`, and of what.
pub(crate) struct Hosts(pub &'static str);

impl Rule<Vec<HostPort>> for Hosts {
    fn read(&self, input: &Input) -> Result<Vec<HostPort>, String> {
        let texts = input.list(true).ok_or_else(|| format!("must be {}", self.range()))?;
        let hosts = texts.iter().map(|text| {
            text.parse().map_err(|()| match texts.len() {
                1 => format!("must be {}", self.range()),
                _ => format!("{text:?} is no address: each must be {}", self.range()),
            })
        });
        hosts.collect()
    }
    fn print(&self, value: &Vec<HostPort>) -> String {
        quoted_list(value.iter().map(ToString::to_string))
    }
    fn value_name(&self) -> &'static str {
        "HOST:PORT"
    }
    fn range(&self) -> String {
        format!("host and port of {}, such as \"10.0.0.5:7843\" or \"[::1]:7843\"", self.0)
    }
    fn many(&self) -> bool {
        true
    }
}

/// `HOST:PORT`; an empty one is none.
pub(crate) struct OptionalHost;

impl Rule<Option<HostPort>> for OptionalHost {
    fn read(&self, input: &Input) -> Result<Option<HostPort>, String> {
        let found = match input.text() {
            Some("") => return Ok(None),
            // A port must be said here: the gateways' is not one to serve metrics on.
            Some(text) if !text.ends_with(']') && text.contains(':') => text.parse().ok(),
            _ => None,
        };
        found.map(Some).ok_or_else(|| format!("must be {}", self.range()))
    }
    fn print(&self, value: &Option<HostPort>) -> String {
        quoted(&value.as_ref().map(ToString::to_string).unwrap_or_default())
    }
    fn value_name(&self) -> &'static str {
        "HOST:PORT"
    }
    fn range(&self) -> String {
        "host and port, such as \"127.0.0.1:9464\", \"\" for none".into()
    }
}

/// Address of a page; an empty one is none.
pub(crate) struct OptionalUrl;

impl Rule<Option<String>> for OptionalUrl {
    fn read(&self, input: &Input) -> Result<Option<String>, String> {
        match input.text() {
            Some("") => Ok(None),
            Some(text) if MetricsUrl::parse(text).is_some() => Ok(Some(text.to_owned())),
            _ => Err(format!("must be {}", self.range())),
        }
    }
    fn print(&self, value: &Option<String>) -> String {
        quoted(value.as_deref().unwrap_or_default())
    }
    fn value_name(&self) -> &'static str {
        "URL"
    }
    fn range(&self) -> String {
        "an address such as \"http://10.0.0.5:9464/metrics\", \"\" for none".into()
    }
}

/// A list of `key=value`.
pub(crate) struct Settings;

impl Rule<Vec<String>> for Settings {
    fn read(&self, input: &Input) -> Result<Vec<String>, String> {
        let wrong = || format!("must be {}", self.range());
        let texts = input.list(false).ok_or_else(wrong)?;
        let fits = |text: &String| text.split_once('=').is_some_and(|(key, _)| !key.is_empty());
        if texts.iter().all(fits) { Ok(texts) } else { Err(wrong()) }
    }
    fn print(&self, value: &Vec<String>) -> String {
        quoted_list(value.iter().cloned())
    }
    fn value_name(&self) -> &'static str {
        "KEY=VALUE"
    }
    fn range(&self) -> String {
        "texts such as \"limits.max_sessions=500000\"".into()
    }
    fn many(&self) -> bool {
        true
    }
}

/// A list of objectives.
pub(crate) struct Objectives;

impl Rule<Vec<Objective>> for Objectives {
    fn read(&self, input: &Input) -> Result<Vec<Objective>, String> {
        let texts = input.list(false).ok_or_else(|| format!("must be {}", self.range()))?;
        texts.iter().map(|text| text.parse().map_err(|error| format!("{error}"))).collect()
    }
    fn print(&self, value: &Vec<Objective>) -> String {
        quoted_list(value.iter().map(ToString::to_string))
    }
    fn value_name(&self) -> &'static str {
        "OBJECTIVE"
    }
    fn range(&self) -> String {
        "texts such as \"p99(send_ack)<50ms\"".into()
    }
    fn many(&self) -> bool {
        true
    }
}

/// `hold=60,chat=40`, or a TOML table of the same.
pub(crate) struct WeightsRule;

impl Rule<Weights> for WeightsRule {
    fn read(&self, input: &Input) -> Result<Weights, String> {
        let wrong = || format!("must be {}", self.range());
        let pairs: Vec<(String, Option<f64>)> = match input {
            Input::Toml(toml::Value::Table(table)) => table
                .iter()
                .map(|(name, value)| (name.clone(), Input::Toml(value.clone()).number()))
                .collect(),
            _ => input
                .list(true)
                .ok_or_else(wrong)?
                .iter()
                .map(|text| {
                    let (name, weight) = text.split_once('=').unwrap_or((text, ""));
                    (name.trim().to_owned(), weight.trim().parse().ok())
                })
                .collect(),
        };
        let mut weights = Weights::default();
        for (name, weight) in pairs {
            let names = Weights::default().named().map(|(name, _)| name);
            let place = weights.named_mut(&name).ok_or_else(|| {
                let nearest = nearest(&name, names.into_iter()).unwrap_or_default();
                format!(
                    "nothing called {name:?} can be mixed; the nearest right one is {nearest:?}"
                )
            })?;
            *place = weight.filter(|w| (0.0..=1e9).contains(w)).ok_or_else(wrong)?;
        }
        if weights.sum() > 0.0 { Ok(weights) } else { Err(wrong()) }
    }
    fn print(&self, value: &Weights) -> String {
        let parts: Vec<String> =
            value.named().iter().map(|(name, weight)| format!("{name} = {weight:?}")).collect();
        format!("{{ {} }}", parts.join(", "))
    }
    fn value_name(&self) -> &'static str {
        "WEIGHTS"
    }
    fn range(&self) -> String {
        "weights, not all 0, such as \"hold=60,chat=40\"".into()
    }
}
