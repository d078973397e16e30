//! Whose load an outcome is about: which run, and which machine of it. Tells `merge` that it is given the
//! same thing twice.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names a run among all others: 128 random bits, 32 hexadecimal digits in text. Whoever conducts the run
/// draws it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(u128);

impl RunId {
    /// One that nobody has had.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for RunId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits.then(|| u128::from_str_radix(&text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| format!("`{text}` is no run id: 32 hexadecimal digits"))
    }
}

/// What one machine did in one run.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Share {
    /// The run, 32 hexadecimal digits.
    #[schemars(with = "String")]
    pub run: RunId,
    /// The agent that made this part of its load; null: all of it was made where it was conducted.
    pub agent: Option<String>,
}

impl Share {
    /// A run on one machine.
    pub fn whole(run: RunId) -> Self {
        Self { run, agent: None }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.agent {
            Some(agent) => write!(f, "agent {agent} of run {}", self.run),
            None => write!(f, "run {}", self.run),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_itself_again_as_text_and_nothing_else_is_one() {
        let id = RunId::random();
        assert_ne!(id, RunId::random());
        assert_eq!(RunId::try_from(id.to_string()), Ok(id));
        assert_eq!(RunId(1).to_string(), "00000000000000000000000000000001");
        for wrong in ["", "1", "+0000000000000000000000000000001", &"g".repeat(32)] {
            assert!(RunId::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
