//! Rules for values with a unit: sizes, times, counts, rates, shares.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::rule::{Input, Rule, quoted};

/// A whole number within bounds.
pub(crate) struct Whole(&'static str, RangeInclusive<u64>);

/// A whole number that help texts call `name`.
pub(crate) const fn whole(name: &'static str, low: u64, high: u64) -> Whole {
    Whole(name, RangeInclusive::new(low, high))
}

/// At least one of something.
pub(crate) const fn count(high: u64) -> Whole {
    whole("COUNT", 1, high)
}

impl Rule<u64> for Whole {
    fn read(&self, input: &Input) -> Result<u64, String> {
        let number = input.integer().ok_or("must be a whole number")?;
        match u64::try_from(number) {
            Ok(number) if self.1.contains(&number) => Ok(number),
            _ => Err(format!("must be {}", self.range())),
        }
    }
    fn print(&self, value: &u64) -> String {
        value.to_string()
    }
    fn value_name(&self) -> &'static str {
        self.0
    }
    fn range(&self) -> String {
        format!("{} to {}", self.1.start(), self.1.end())
    }
}

/// A number within bounds.
pub(crate) struct Decimal(&'static str, f64, f64);

/// A number that help texts call `name`.
pub(crate) const fn decimal(name: &'static str, low: f64, high: f64) -> Decimal {
    Decimal(name, low, high)
}

impl Rule<f64> for Decimal {
    fn read(&self, input: &Input) -> Result<f64, String> {
        let number = input.number().ok_or("must be a number")?;
        if (self.1..=self.2).contains(&number) {
            Ok(number)
        } else {
            Err(format!("must be {}", self.range()))
        }
    }
    fn print(&self, value: &f64) -> String {
        value.to_string()
    }
    fn value_name(&self) -> &'static str {
        self.0
    }
    fn range(&self) -> String {
        format!("{} to {}", self.1, self.2)
    }
}

/// A part of a whole.
pub(crate) struct Share;

/// 0 to 1, or 0% to 100%.
pub(crate) const fn share() -> Share {
    Share
}

impl Rule<f64> for Share {
    fn read(&self, input: &Input) -> Result<f64, String> {
        let percent = input.text().and_then(|text| text.trim().strip_suffix('%'));
        let share = match percent {
            Some(percent) => percent.trim().parse::<f64>().ok().map(|percent| percent / 100.0),
            None => input.number(),
        };
        share
            .filter(|share| (0.0..=1.0).contains(share))
            .ok_or_else(|| format!("must be {}", self.range()))
    }
    fn print(&self, value: &f64) -> String {
        value.to_string()
    }
    fn value_name(&self) -> &'static str {
        "SHARE"
    }
    fn range(&self) -> String {
        "a share, such as \"5%\" or 0.05".into()
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
            .and_then(|text| humantime::parse_duration(text.trim()).ok())
            .ok_or("must be a time with its unit, such as \"30s\", \"500ms\" or \"1h 30m\"")?;
        if (self.0..=self.1).contains(&time) {
            Ok(time)
        } else {
            Err(format!("must be {}", self.range()))
        }
    }
    fn print(&self, value: &Duration) -> String {
        quoted(&humantime::format_duration(*value).to_string())
    }
    fn value_name(&self) -> &'static str {
        "TIME"
    }
    fn range(&self) -> String {
        let show = humantime::format_duration;
        format!("{} to {}", show(self.0), show(self.1))
    }
}

/// Sizes from `low` to `high` bytes, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The smallest.
    pub low: u32,
    /// The largest.
    pub high: u32,
}

/// A size or a range of sizes, up to so many bytes.
pub(crate) struct Bytes(pub u32);

impl Rule<Range> for Bytes {
    fn read(&self, input: &Input) -> Result<Range, String> {
        let size = |text: &str| -> Option<u32> {
            let size = text.trim().replace('_', "").parse::<bytesize::ByteSize>().ok()?;
            u32::try_from(size.as_u64()).ok().filter(|size| (1..=self.0).contains(size))
        };
        let range = match (input.integer(), input.text()) {
            (Some(number), _) => size(&number.to_string()).map(|n| Range { low: n, high: n }),
            (None, Some(text)) => {
                let (low, high) = text.split_once("..").unwrap_or((text, text));
                size(low).zip(size(high)).map(|(low, high)| Range { low, high })
            }
            (None, None) => None,
        };
        range
            .filter(|range| range.low <= range.high)
            .ok_or_else(|| format!("must be {}", self.range()))
    }
    fn print(&self, value: &Range) -> String {
        match value.low == value.high {
            true => value.low.to_string(),
            false => quoted(&format!("{}..{}", value.low, value.high)),
        }
    }
    fn value_name(&self) -> &'static str {
        "BYTES"
    }
    fn range(&self) -> String {
        let most = bytesize::ByteSize(self.0.into()).display().iec();
        format!("a size or a range of sizes up to {most}, such as 128 or \"64..4KiB\"")
    }
}
