//! Types of values that are more than a number or a text.

use std::fmt;
use std::str::FromStr;

use super::keys::DEFAULT_PORT;
use super::program::Program;

/// A value that is one of a few words.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// Every word with its value, in the order of the documents.
    const ALL: &'static [(&'static str, Self)];

    /// The word of this value.
    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

/// How messages are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrivalKind {
    /// At equal distances.
    Even,
    /// As independent users would.
    Poisson,
}

impl Choice for ArrivalKind {
    const ALL: &'static [(&'static str, Self)] =
        &[("even", Self::Even), ("poisson", Self::Poisson)];
}

/// How the sessions of a storm are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutKind {
    /// This side closes them.
    Close,
    /// The gateway is killed and started again.
    Kill,
    /// The gateway is stopped in order and started again.
    Stop,
    /// Somebody else restarts it.
    Await,
}

impl Choice for CutKind {
    const ALL: &'static [(&'static str, Self)] = &[
        ("close", Self::Close),
        ("kill", Self::Kill),
        ("stop", Self::Stop),
        ("await", Self::Await),
    ];
}

impl Choice for Program {
    /// Those whose load a ramp can raise.
    const ALL: &'static [(&'static str, Self)] = &[("chat", Self::Chat), ("group", Self::Group)];
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, an IPv6 address without its brackets.
    pub host: String,
    /// UDP port of a gateway, TCP port of anything else.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim();
        if let Ok(address) = text.parse::<std::net::SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
            return Ok(Self { host: address.to_string(), port: DEFAULT_PORT });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, port.parse().map_err(drop)?),
            None => (text, DEFAULT_PORT),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || host.len() > 253 || !host.chars().all(fits) || port == 0 {
            return Err(());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// How many of the sessions of a mix do what; only their ratios count.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Weights {
    /// Idle ones.
    pub hold: f64,
    /// Pairs that write to each other.
    pub chat: f64,
    /// Writers with their receivers.
    pub group: f64,
    /// Those that come and go.
    pub churn: f64,
}

impl Weights {
    /// Every weight with its name.
    pub fn named(&self) -> [(&'static str, f64); 4] {
        [("hold", self.hold), ("chat", self.chat), ("group", self.group), ("churn", self.churn)]
    }

    /// The weight of that name, to be set.
    pub(super) fn named_mut(&mut self, name: &str) -> Option<&mut f64> {
        match name {
            "hold" => Some(&mut self.hold),
            "chat" => Some(&mut self.chat),
            "group" => Some(&mut self.group),
            "churn" => Some(&mut self.churn),
            _ => None,
        }
    }

    /// Of all.
    pub fn sum(&self) -> f64 {
        self.named().iter().map(|(_, weight)| weight).sum()
    }
}
