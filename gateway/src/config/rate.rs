//! What values about rates, and about whom they are for, may be.

use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;
use skein_protocol::UserId;

use super::quantity::show_bytes;
use super::rule::{Input, Rule, quoted};
use crate::limits::{Rate, canonical};

/// Networks or users that are worth naming in a configuration.
const MAX_ENTRIES: usize = 4096;

/// Periods by name.
const PERIODS: [(&str, u64); 3] = [("s", 1), ("min", 60), ("h", 3600)];

/// Most that a bucket of bytes may get in a second: it is filled a nanosecond at a time.
const MAX_BYTES_A_SECOND: u32 = 64 << 20;

/// A rate, or none.
pub(crate) struct OptionalRate {
    unit: &'static str,
    is_bytes: bool,
}

/// How often something may happen: "50/s burst 500".
pub(crate) const fn rate(unit: &'static str) -> OptionalRate {
    OptionalRate { unit, is_bytes: false }
}

/// How many bytes may come: "2MiB/s burst 16MiB".
pub(crate) const fn byte_rate() -> OptionalRate {
    OptionalRate { unit: "bytes in time", is_bytes: true }
}

impl OptionalRate {
    fn number(&self, text: &str) -> Option<NonZeroU32> {
        let number: u64 = match self.is_bytes {
            true => text.parse::<bytesize::ByteSize>().ok()?.0,
            false => text.parse().ok()?,
        };
        NonZeroU32::new(u32::try_from(number).ok().filter(|number| *number <= 1 << 30)?)
    }

    fn show(&self, number: NonZeroU32) -> String {
        if self.is_bytes { show_bytes(number.get().into()) } else { number.to_string() }
    }

    fn parse(&self, text: &str) -> Option<Rate> {
        let (rate, burst) = text.split_once("burst")?;
        let (amount, period) = rate.trim().split_once('/')?;
        let (_, seconds) = PERIODS.iter().find(|(name, _)| *name == period.trim())?;
        let (amount, burst) = (self.number(amount.trim())?, self.number(burst.trim())?);
        let is_too_fast = u64::from(amount.get()) > seconds * u64::from(MAX_BYTES_A_SECOND);
        (!is_too_fast).then_some(Rate { amount, per: Duration::from_secs(*seconds), burst })
    }

    fn example(&self) -> &'static str {
        if self.is_bytes { "2MiB/s burst 16MiB" } else { "50/s burst 500" }
    }
}

impl Rule<Option<Rate>> for OptionalRate {
    fn read(&self, input: &Input) -> Result<Option<Rate>, String> {
        let text = input.text().unwrap_or_default();
        if text == "off" {
            return Ok(None);
        }
        self.parse(text).map(Some).ok_or_else(|| {
            let most =
                if self.is_bytes { "at most 64MiB/s burst 1GiB" } else { "at most 67108864/s" };
            let example = self.example();
            format!("must be a rate such as \"{example}\", {most}, or \"off\"; /s, /min or /h")
        })
    }
    fn print(&self, value: &Option<Rate>) -> String {
        let Some(rate) = value else { return quoted("off") };
        let seconds = rate.per.as_secs();
        let period =
            PERIODS.iter().find(|period| period.1 == seconds).map_or("s", |(name, _)| name);
        quoted(&format!("{}/{period} burst {}", self.show(rate.amount), self.show(rate.burst)))
    }
    fn unit(&self) -> &'static str {
        self.unit
    }
    fn range(&self) -> String {
        "RATE/s (or /min, /h) and what may come at once after a rest, or \"off\"".into()
    }
}

/// A number of something, or none at 0.
pub(crate) struct OptionalCount(pub(crate) &'static str, pub(crate) u32);

impl Rule<Option<u32>> for OptionalCount {
    fn read(&self, input: &Input) -> Result<Option<u32>, String> {
        let number = input.integer().ok_or("must be a whole number")?;
        match u32::try_from(number) {
            Ok(number) if number <= self.1 => Ok((number > 0).then_some(number)),
            _ => Err(format!("must be {}", self.range())),
        }
    }
    fn print(&self, value: &Option<u32>) -> String {
        value.unwrap_or(0).to_string()
    }
    fn unit(&self) -> &'static str {
        self.0
    }
    fn range(&self) -> String {
        format!("1 to {}, or 0 for any number", self.1)
    }
}

/// A list of networks; in the environment with commas between them.
pub(crate) struct NetworkList;

impl Rule<Vec<IpNet>> for NetworkList {
    fn read(&self, input: &Input) -> Result<Vec<IpNet>, String> {
        let help = |what: &str| {
            format!(
                "must be a list such as [\"10.0.0.0/8\", \"192.0.2.7\", \"2001:db8::/32\"], at most \
                 {MAX_ENTRIES} long{what}"
            )
        };
        let texts = texts(input).ok_or_else(|| help(""))?;
        texts.iter().map(|text| network(text).ok_or_else(|| help(&format!(": {text:?}")))).collect()
    }
    fn print(&self, value: &Vec<IpNet>) -> String {
        print_list(value)
    }
    fn unit(&self) -> &'static str {
        "list of networks, ADDRESS/PREFIX or ADDRESS"
    }
    fn range(&self) -> String {
        format!("at most {MAX_ENTRIES}")
    }
}

/// A list of users; in the environment with commas between them, or as in TOML.
pub(crate) struct UserList;

impl Rule<Vec<UserId>> for UserList {
    fn read(&self, input: &Input) -> Result<Vec<UserId>, String> {
        let help = |what: &str| {
            format!(
                "must be a list such as [\"news\", \"alarms\"], at most {MAX_ENTRIES} long{what}"
            )
        };
        let texts = texts(input).ok_or_else(|| help(""))?;
        let user = |text: &String| {
            UserId::parse(text).map_err(|error| help(&format!(": {text:?}: {error}")))
        };
        texts.iter().map(user).collect()
    }
    fn print(&self, value: &Vec<UserId>) -> String {
        print_list(value)
    }
    fn unit(&self) -> &'static str {
        "list of users"
    }
    fn range(&self) -> String {
        format!("at most {MAX_ENTRIES}")
    }
}

/// The entries of a list that is not too long.
fn texts(input: &Input) -> Option<Vec<String>> {
    let texts: Vec<String> = match input {
        Input::Toml(value) => value.clone().try_into().ok()?,
        Input::Text(text) if text.trim_start().starts_with('[') => {
            let list = toml::de::ValueDeserializer::parse(text);
            list.and_then(serde::Deserialize::deserialize).ok()?
        }
        Input::Text(text) if text.trim().is_empty() => Vec::new(),
        Input::Text(text) => text.split(',').map(|entry| entry.trim().to_owned()).collect(),
    };
    (texts.len() <= MAX_ENTRIES).then_some(texts)
}

fn print_list<T: ToString>(entries: &[T]) -> String {
    let entries: Vec<String> = entries.iter().map(|entry| quoted(&entry.to_string())).collect();
    format!("[{}]", entries.join(", "))
}

/// A network, or an address by itself.
fn network(text: &str) -> Option<IpNet> {
    let network: IpNet = match text.parse() {
        Ok(network) => network,
        Err(_) => text.parse::<std::net::IpAddr>().ok()?.into(),
    };
    Some(canonical(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(rule: impl Rule<T>, text: &str) -> Result<T, String> {
        rule.read(&Input::Text(text.into()))
    }

    #[test]
    fn rates_are_read_and_printed() {
        for text in ["50/s burst 500", "1/h burst 1", "30/min burst 60", "off"] {
            let read = read(rate("messages"), text).unwrap();
            assert_eq!(rate("messages").print(&read), quoted(text));
        }
        for text in ["2MiB/s burst 16MiB", "1KiB/min burst 1KiB", "off"] {
            let read = read(byte_rate(), text).unwrap();
            assert_eq!(byte_rate().print(&read), quoted(text));
        }
        assert_eq!(read(rate("x"), " 5 / s  burst  7 "), Ok(Some(Rate::per_second(5, 7))));
        let bad = [
            "",
            "5",
            "5/s",
            "0/s burst 1",
            "1/s burst 0",
            "5/d burst 1",
            "-1/s burst 1",
            "5/s burst",
            "99999999999/s burst 1",
            "1/s burst 99999999999",
            "none",
        ];
        for text in bad {
            let problem = read(rate("x"), text).unwrap_err();
            assert!(problem.contains("50/s burst 500"), "{text}: {problem}");
        }
        assert!(read(byte_rate(), "65MiB/s burst 1GiB").is_err());
    }

    #[test]
    fn networks_are_read_and_printed() {
        let nets = read(NetworkList, "10.1.2.3/8, 192.0.2.7,::1, 2001:db8::/32").unwrap();
        let printed = r#"["10.0.0.0/8", "192.0.2.7/32", "::1/128", "2001:db8::/32"]"#;
        assert_eq!(NetworkList.print(&nets), printed);
        assert_eq!(read(NetworkList, printed), Ok(nets));
        assert_eq!(read(NetworkList, ""), Ok(Vec::new()));
        let embedded = read(NetworkList, "::ffff:10.0.0.0/104,::ffff:192.0.2.7").unwrap();
        assert_eq!(NetworkList.print(&embedded), r#"["10.0.0.0/8", "192.0.2.7/32"]"#);
        for text in ["10.0.0.0/33", "example.net", "10.0.0/8", "10.0.0.1,", "[1]"] {
            assert!(read(NetworkList, text).is_err(), "{text}");
        }
        let many = vec!["::1"; MAX_ENTRIES + 1].join(",");
        assert!(read(NetworkList, &many).is_err());
    }

    #[test]
    fn users_are_read_and_printed() {
        let users = read(UserList, "news, alarms").unwrap();
        assert_eq!(UserList.print(&users), r#"["news", "alarms"]"#);
        let odd = r#"["a, b", "it's"]"#;
        assert_eq!(UserList.print(&read(UserList, odd).unwrap()), odd);
        assert_eq!(read(UserList, ""), Ok(Vec::new()));
        for text in ["news,", "a\tb", "[1]", &"x".repeat(65)] {
            let problem = read(UserList, text).unwrap_err();
            assert!(problem.contains("[\"news\", \"alarms\"]"), "{text}: {problem}");
        }
        assert!(read(UserList, &vec!["a"; MAX_ENTRIES + 1].join(",")).is_err());
    }

    #[test]
    fn a_count_of_zero_is_none() {
        let rule = || OptionalCount("connections", 100);
        assert_eq!((read(rule(), "0"), read(rule(), "100")), (Ok(None), Ok(Some(100))));
        assert!(read(rule(), "101").is_err() && read(rule(), "many").is_err());
        assert_eq!(rule().print(&None), "0");
    }
}
