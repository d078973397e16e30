//! The end of a session: a code, words for a person, and when to come back if that is not as the
//! code says.
//!
//! A close of QUIC has room for a code and a text. So a delay of its own stands at the end of the
//! text, for both people and clients to read: `spam (retry after 90 s)`.

use std::time::Duration;

use crate::Code;

/// The end of a session, as the application code and reason of the QUIC close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// Why.
    pub code: Code,
    /// Detail for a person; short.
    pub reason: String,
    /// When the peer may come back at the earliest; `None`: as the code says.
    pub retry_after: Option<Duration>,
}

impl Close {
    /// With the code's own words.
    pub fn new(code: Code) -> Self {
        Self::because(code, code.text())
    }

    /// With words of one's own.
    pub fn because(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), retry_after: None }
    }

    /// With a delay of its own, which is told in whole seconds.
    pub fn after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// The reason as it is told: with the delay at its end, if it has one.
    pub fn phrase(&self) -> String {
        let Some(delay) = self.retry_after else { return self.reason.clone() };
        // Rounded up: whoever comes back then is not too early.
        let seconds = delay.as_millis().div_ceil(1000);
        format!("{}{BEGIN}{seconds}{END}", self.reason)
    }
}

const BEGIN: &str = " (retry after ";
const END: &str = " s)";

/// The delay that the reason of a close tells, if it tells one.
pub fn told_delay(phrase: &str) -> Option<Duration> {
    let (_, seconds) = phrase.strip_suffix(END)?.rsplit_once(BEGIN)?;
    let is_number = seconds.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: u32 = seconds.parse().ok().filter(|_| is_number)?;
    Some(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_told_in_whole_seconds_and_read_again() {
        let close = Close::because(Code::Blocked, "spam");
        assert_eq!((&*close.phrase(), told_delay(&close.phrase())), ("spam", None));
        for (millis, phrase) in [
            (0, "spam (retry after 0 s)"),
            (1, "spam (retry after 1 s)"),
            (80_000, "spam (retry after 80 s)"),
            (80_001, "spam (retry after 81 s)"),
        ] {
            let told = close.clone().after(Duration::from_millis(millis)).phrase();
            assert_eq!(told, phrase);
            assert_eq!(told_delay(&told), Some(Duration::from_secs(millis.div_ceil(1000))));
        }
    }

    #[test]
    fn other_words_tell_no_delay() {
        for words in [
            "",
            "the gateway is full",
            "(retry after 5 s)",
            "x (retry after  s)",
            "x (retry after 5s)",
            "x (retry after +5 s)",
            "x (retry after -5 s)",
            "x (retry after 99999999999 s)",
            "x (retry after 5 s).",
        ] {
            assert_eq!(told_delay(words), None, "{words}");
        }
        // The last one counts: a person may have written the first.
        let twice = told_delay("x (retry after 5 s) (retry after 7 s)");
        assert_eq!(twice, Some(Duration::from_secs(7)));
    }
}
