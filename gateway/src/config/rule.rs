//! What a value may be: each rule reads a value from a file or from text, keeps it inside its
//! range, prints it back as TOML, and describes itself for documents and messages. Rules for
//! sizes, times and counts are in [`super::quantity`].

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::value::{CertificateFiles, Choice, TokenKey, inline};
use crate::observe::Endpoint;

/// A value as it was given, before its rule has seen it.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// From the environment or the command line: text without a type.
    Text(String),
    /// From a file: TOML has told numbers from strings.
    Toml(toml::Value),
}

impl Input {
    /// As a person would write it, shortened to stay on a line.
    pub(crate) fn shown(&self) -> String {
        let full = match self {
            Input::Text(text) => format!("{text:?}"),
            Input::Toml(value) => value.to_string(),
        };
        match full.char_indices().nth(80) {
            Some((cut, _)) => format!("{}...", &full[..cut]),
            None => full,
        }
    }

    /// The text, if this is text.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Input::Text(text) => Some(text),
            Input::Toml(toml::Value::String(text)) => Some(text),
            Input::Toml(_) => None,
        }
    }

    /// The integer, if this is one; digits of text may be grouped with `_` as in TOML.
    pub(crate) fn integer(&self) -> Option<i64> {
        match self {
            Input::Text(text) => text.trim().replace('_', "").parse().ok(),
            Input::Toml(toml::Value::Integer(number)) => Some(*number),
            Input::Toml(_) => None,
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
    /// Unit or kind of the value.
    fn unit(&self) -> &'static str;
    /// What is allowed; empty when the unit says it all.
    fn range(&self) -> String {
        String::new()
    }
}

/// The text as a TOML string.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// `true` or `false`.
pub(crate) struct Flag;

impl Rule<bool> for Flag {
    fn read(&self, input: &Input) -> Result<bool, String> {
        match input {
            Input::Toml(toml::Value::Boolean(flag)) => Ok(*flag),
            Input::Text(text) if text == "true" => Ok(true),
            Input::Text(text) if text == "false" => Ok(false),
            _ => Err("must be true or false".into()),
        }
    }
    fn print(&self, value: &bool) -> String {
        value.to_string()
    }
    fn unit(&self) -> &'static str {
        "true or false"
    }
}

/// An IP address and a port.
pub(crate) struct Address;

impl Rule<SocketAddr> for Address {
    fn read(&self, input: &Input) -> Result<SocketAddr, String> {
        input.text().and_then(|text| text.parse().ok()).ok_or_else(|| {
            "must be an IP address and a port, such as \"127.0.0.1:7843\" or \"[::]:7843\"".into()
        })
    }
    fn print(&self, value: &SocketAddr) -> String {
        quoted(&value.to_string())
    }
    fn unit(&self) -> &'static str {
        "IP address and UDP port"
    }
}

/// An IP address and a port, or none if the text is empty.
pub(crate) struct OptionalAddress;

impl Rule<Option<SocketAddr>> for OptionalAddress {
    fn read(&self, input: &Input) -> Result<Option<SocketAddr>, String> {
        match input.text() {
            Some("") => Ok(None),
            Some(text) if let Ok(address) = text.parse() => Ok(Some(address)),
            _ => Err("must be an IP address and a port, such as \"127.0.0.1:7844\", or \"\" for \
                      none"
                .into()),
        }
    }
    fn print(&self, value: &Option<SocketAddr>) -> String {
        quoted(&value.map_or_else(String::new, |address| address.to_string()))
    }
    fn unit(&self) -> &'static str {
        "IP address and TCP port, \"\" for none"
    }
}

/// Where traces go, or nowhere if the text is empty.
pub(crate) struct Collector;

impl Rule<Option<String>> for Collector {
    fn read(&self, input: &Input) -> Result<Option<String>, String> {
        match input.text() {
            Some("") => Ok(None),
            Some(text) if Endpoint::parse(text).is_some() => Ok(Some(text.to_owned())),
            _ => Err(
                "must be the address of a collector, such as \"http://127.0.0.1:4318\", or \"\" \
                      for none"
                    .into(),
            ),
        }
    }
    fn print(&self, value: &Option<String>) -> String {
        quoted(value.as_deref().unwrap_or(""))
    }
    fn unit(&self) -> &'static str {
        "http://HOST:PORT, \"\" for none"
    }
}

/// A folder; never empty.
pub(crate) struct Folder;

impl Rule<PathBuf> for Folder {
    fn read(&self, input: &Input) -> Result<PathBuf, String> {
        match input.text() {
            Some(text) if !text.is_empty() => Ok(text.into()),
            _ => Err("must be the path of a folder".into()),
        }
    }
    fn print(&self, value: &PathBuf) -> String {
        quoted(&value.to_string_lossy())
    }
    fn unit(&self) -> &'static str {
        "folder"
    }
}

/// A file, or none if the text is empty.
pub(crate) struct OptionalFile;

impl Rule<Option<PathBuf>> for OptionalFile {
    fn read(&self, input: &Input) -> Result<Option<PathBuf>, String> {
        let text = input.text().ok_or("must be the path of a file, or \"\" for none")?;
        Ok((!text.is_empty()).then(|| text.into()))
    }
    fn print(&self, value: &Option<PathBuf>) -> String {
        quoted(&value.as_deref().unwrap_or("".as_ref()).to_string_lossy())
    }
    fn unit(&self) -> &'static str {
        "file, \"\" for none"
    }
}

/// Text of at most this many bytes.
pub(crate) struct Text(pub(crate) usize);

impl Rule<String> for Text {
    fn read(&self, input: &Input) -> Result<String, String> {
        match input.text() {
            Some(text) if (1..=self.0).contains(&text.len()) => Ok(text.to_owned()),
            _ => Err(format!("must be text of {}", self.range())),
        }
    }
    fn print(&self, value: &String) -> String {
        quoted(value)
    }
    fn unit(&self) -> &'static str {
        "text"
    }
    fn range(&self) -> String {
        format!("1 to {} bytes", self.0)
    }
}

/// Text of at most this many bytes, or none if it is empty.
pub(crate) struct OptionalText(pub(crate) usize);

impl Rule<Option<String>> for OptionalText {
    fn read(&self, input: &Input) -> Result<Option<String>, String> {
        match input.text() {
            Some("") => Ok(None),
            Some(text) if text.len() <= self.0 => Ok(Some(text.to_owned())),
            _ => Err(format!("must be text of at most {} bytes, or \"\" for none", self.0)),
        }
    }
    fn print(&self, value: &Option<String>) -> String {
        quoted(value.as_deref().unwrap_or(""))
    }
    fn unit(&self) -> &'static str {
        "text, \"\" for none"
    }
    fn range(&self) -> String {
        format!("at most {} bytes", self.0)
    }
}

/// What is logged: a level, and levels for parts after commas.
pub(crate) struct LogFilter;

impl Rule<String> for LogFilter {
    fn read(&self, input: &Input) -> Result<String, String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let help = "must be off, error, warn, info, debug or trace, and may go on with \
                    levels of parts: \"info,skein_transport=debug\"";
        let text = input.text().ok_or(help)?;
        // A bare word that is no level would be taken for the name of a part and log all of it, and
        // a part without its level would be logged at "error".
        let is_level = |text: &str| LEVELS.contains(&text.trim());
        let is_whole = |part: &str| match part.trim().ends_with('=') {
            true => false,
            false => part.contains(['=', '[']) || is_level(part),
        };
        // Without a level for the rest, naming a part would silence it.
        let is_begun = text.split(',').any(is_level);
        let is_right = is_begun && text.split(',').all(is_whole);
        if !is_right || tracing_subscriber::EnvFilter::try_new(text).is_err() {
            return Err(help.into());
        }
        Ok(text.to_owned())
    }
    fn print(&self, value: &String) -> String {
        quoted(value)
    }
    fn unit(&self) -> &'static str {
        "log level"
    }
    fn range(&self) -> String {
        "off, error, warn, info, debug, trace; then \",part=level\" as often as wished".into()
    }
}

/// One of a few words.
pub(crate) struct OneOf;

impl<T: Choice> Rule<T> for OneOf {
    fn read(&self, input: &Input) -> Result<T, String> {
        let found = input.text().and_then(|text| T::ALL.iter().find(|(name, _)| *name == text));
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| format!("must be one of {}", Rule::<T>::range(self)))
    }
    fn print(&self, value: &T) -> String {
        quoted(value.name())
    }
    fn unit(&self) -> &'static str {
        "word"
    }
    fn range(&self) -> String {
        T::ALL.iter().map(|(name, _)| quoted(name)).collect::<Vec<_>>().join(", ")
    }
}

/// A list of tables, such as `example`; in the environment written as in TOML.
fn list<T: DeserializeOwned>(input: &Input, example: &str) -> Result<Vec<T>, String> {
    let parsed = match input {
        Input::Toml(value) => value.clone().try_into(),
        Input::Text(text) => {
            toml::de::ValueDeserializer::parse(text).and_then(Deserialize::deserialize)
        }
    };
    parsed.map_err(|error| {
        format!("must be a list such as {example}: {}", error.message().replace('\n', ", "))
    })
}

fn print_list<T: Serialize>(entries: &[T]) -> String {
    format!("[{}]", entries.iter().map(inline).collect::<Vec<_>>().join(", "))
}

/// Most certificates beside the first: they are all read when one changes.
const MAX_CERTIFICATES: usize = 256;

/// A list of certificates.
pub(crate) struct Certificates;

impl Rule<Vec<CertificateFiles>> for Certificates {
    fn read(&self, input: &Input) -> Result<Vec<CertificateFiles>, String> {
        let found = list(input, "[{ cert = \"chat.pem\", key = \"chat.key\" }]")?;
        if found.len() > MAX_CERTIFICATES {
            return Err(format!("must have at most {MAX_CERTIFICATES} entries"));
        }
        Ok(found)
    }
    fn print(&self, value: &Vec<CertificateFiles>) -> String {
        print_list(value)
    }
    fn unit(&self) -> &'static str {
        "list of { cert, key }"
    }
    fn range(&self) -> String {
        format!("at most {MAX_CERTIFICATES}")
    }
}

/// A list of token keys; in the environment written as in TOML.
pub(crate) struct TokenKeys;

impl Rule<Vec<TokenKey>> for TokenKeys {
    fn read(&self, input: &Input) -> Result<Vec<TokenKey>, String> {
        list(input, "[{ file = \"issuer.pem\", alg = \"EdDSA\" }]")
    }
    fn print(&self, value: &Vec<TokenKey>) -> String {
        print_list(value)
    }
    fn unit(&self) -> &'static str {
        "list of { file, alg, kid }"
    }
    fn range(&self) -> String {
        "alg \"EdDSA\", \"ES256\" or \"HS256\"".into()
    }
}
