//! Rules for values with a unit: sizes, times, counts.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::rule::{Input, Rule, quoted};

/// A size in bytes.
pub(crate) struct Bytes(RangeInclusive<u64>);

/// A size within the bounds, both in bytes.
pub(crate) const fn bytes(low: u64, high: u64) -> Bytes {
    Bytes(RangeInclusive::new(low, high))
}

/// The size in the largest unit that divides it.
pub(crate) fn show_bytes(size: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| size > 0 && size.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", size / unit),
        None => format!("{size}B"),
    }
}

impl Bytes {
    fn get(&self, input: &Input) -> Result<u64, String> {
        let size = match (input.integer(), input.text()) {
            (Some(number), _) => u64::try_from(number).ok(),
            (None, Some(text)) => text.parse::<bytesize::ByteSize>().ok().map(|size| size.0),
            (None, None) => None,
        };
        let size = size.ok_or("must be a size such as \"64KiB\" or a number of bytes")?;
        if self.0.contains(&size) { Ok(size) } else { Err(format!("must be {}", self.text())) }
    }

    fn text(&self) -> String {
        format!("{} to {}", show_bytes(*self.0.start()), show_bytes(*self.0.end()))
    }
}

impl Rule<usize> for Bytes {
    fn read(&self, input: &Input) -> Result<usize, String> {
        usize::try_from(self.get(input)?).map_err(|_| "does not fit this machine".into())
    }
    fn print(&self, value: &usize) -> String {
        quoted(&show_bytes(*value as u64))
    }
    fn unit(&self) -> &'static str {
        "bytes"
    }
    fn range(&self) -> String {
        self.text()
    }
}

impl Rule<u64> for Bytes {
    fn read(&self, input: &Input) -> Result<u64, String> {
        self.get(input)
    }
    fn print(&self, value: &u64) -> String {
        quoted(&show_bytes(*value))
    }
    fn unit(&self) -> &'static str {
        "bytes"
    }
    fn range(&self) -> String {
        self.text()
    }
}

/// A length of time.
pub(crate) struct Span(Duration, Duration);

/// A length of time within the bounds.
pub(crate) const fn span(low: Duration, high: Duration) -> Span {
    Span(low, high)
}

impl Rule<Duration> for Span {
    fn read(&self, input: &Input) -> Result<Duration, String> {
        let time = input
            .text()
            .and_then(|text| humantime::parse_duration(text).ok())
            .ok_or("must be a time with its unit, such as \"25s\", \"500ms\" or \"1h 30m\"")?;
        if (self.0..=self.1).contains(&time) {
            Ok(time)
        } else {
            Err(format!("must be {}", self.range()))
        }
    }
    fn print(&self, value: &Duration) -> String {
        quoted(&humantime::format_duration(*value).to_string())
    }
    fn unit(&self) -> &'static str {
        "time"
    }
    fn range(&self) -> String {
        let show = humantime::format_duration;
        format!("{} to {}", show(self.0), show(self.1))
    }
}

/// A length of time within the bounds, or none if it is zero.
pub(crate) struct OptionalSpan(pub(crate) Duration, pub(crate) Duration);

impl Rule<Option<Duration>> for OptionalSpan {
    fn read(&self, input: &Input) -> Result<Option<Duration>, String> {
        let time = Span(Duration::ZERO, self.1).read(input)?;
        if time.is_zero() {
            return Ok(None);
        }
        Span(self.0, self.1).read(input).map(Some).map_err(|why| format!("{why}, or 0s for none"))
    }
    fn print(&self, value: &Option<Duration>) -> String {
        Span(self.0, self.1).print(&value.unwrap_or_default())
    }
    fn unit(&self) -> &'static str {
        "time, 0s for none"
    }
    fn range(&self) -> String {
        Span(self.0, self.1).range()
    }
}

/// A whole number of something.
pub(crate) struct Count {
    bounds: RangeInclusive<u32>,
    unit: &'static str,
}

/// A number of `unit` within the bounds.
pub(crate) const fn count(unit: &'static str, low: u32, high: u32) -> Count {
    Count { bounds: RangeInclusive::new(low, high), unit }
}

impl Rule<u32> for Count {
    fn read(&self, input: &Input) -> Result<u32, String> {
        let number = input.integer().ok_or("must be a whole number")?;
        match u32::try_from(number) {
            Ok(number) if self.bounds.contains(&number) => Ok(number),
            _ => Err(format!("must be {}", Rule::<u32>::range(self))),
        }
    }
    fn print(&self, value: &u32) -> String {
        value.to_string()
    }
    fn unit(&self) -> &'static str {
        self.unit
    }
    fn range(&self) -> String {
        format!("{} to {}", self.bounds.start(), self.bounds.end())
    }
}

impl Rule<usize> for Count {
    fn read(&self, input: &Input) -> Result<usize, String> {
        Rule::<u32>::read(self, input).map(|number| number as usize)
    }
    fn print(&self, value: &usize) -> String {
        value.to_string()
    }
    fn unit(&self) -> &'static str {
        self.unit
    }
    fn range(&self) -> String {
        Rule::<u32>::range(self)
    }
}
