//! From text to an objective, with messages that say what would be right.

use super::{COMPARISONS, Clock, Objective, Quantity, Statistic, TALLIES, Unit, WHOLES};
use crate::nearest::nearest;
use crate::operation::Operation;

/// Why a text is no objective.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no objective: {why}")]
pub struct ObjectiveError {
    /// The text.
    pub text: String,
    /// What is wrong with it and what would be right.
    pub why: String,
}

pub(super) fn objective(text: &str) -> Result<Objective, ObjectiveError> {
    let error = |why| ObjectiveError { text: text.to_owned(), why };
    let (left, comparison, right) = split(text).ok_or_else(|| {
        error("write it like p99(send_ack)<50ms, with <, <=, >, >=, == or !=".into())
    })?;
    let quantity = quantity(left.trim()).map_err(error)?;
    let bound = value(right.trim(), quantity.unit()).map_err(error)?;
    Ok(Objective { text: text.trim().to_owned(), quantity, comparison, bound })
}

fn split(text: &str) -> Option<(&str, super::Comparison, &str)> {
    let at = text.find(['<', '>', '=', '!'])?;
    let (left, rest) = text.split_at(at);
    let (sign, comparison) = COMPARISONS.iter().find(|(sign, _)| rest.starts_with(sign))?;
    Some((left, *comparison, &rest[sign.len()..]))
}

fn quantity(text: &str) -> Result<Quantity, String> {
    let (name, arguments) = match text.split_once('(') {
        Some((name, rest)) => {
            let inside = rest.strip_suffix(')').ok_or("a closing bracket is missing")?;
            (name.trim(), Some(inside.trim()))
        }
        None => (text, None),
    };
    if let Some(statistic) = statistic(name)? {
        let arguments =
            arguments.ok_or_else(|| format!("say of which operation: {name}(send_ack)"))?;
        let (operation, clock) = match arguments.split_once(',') {
            None => (arguments, Clock::Response),
            Some((operation, which)) if which.trim() == "service" => (operation, Clock::Service),
            Some((operation, which)) if which.trim() == "response" => (operation, Clock::Response),
            Some((_, which)) => {
                return Err(format!("`{}` is neither response nor service", which.trim()));
            }
        };
        return Ok(Quantity::Latency(statistic, self::operation(operation)?, clock));
    }
    if let Some((_, tally)) = TALLIES.iter().find(|(known, _)| *known == name) {
        let operation = arguments.map(operation).transpose()?;
        return Ok(Quantity::Tally(*tally, operation));
    }
    let whole = WHOLES.iter().find(|(known, _)| *known == name);
    match (whole, arguments) {
        (Some((_, whole)), None) => Ok(Quantity::Whole(*whole)),
        (Some(_), Some(_)) => {
            Err(format!("`{name}` is about the whole run: leave the bracket out"))
        }
        (None, _) => Err(unknown(name)),
    }
}

fn statistic(name: &str) -> Result<Option<Statistic>, String> {
    match name {
        "max" => return Ok(Some(Statistic::Max)),
        "mean" => return Ok(Some(Statistic::Mean)),
        _ => {}
    }
    let Some(digits) =
        name.strip_prefix('p').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    else {
        return Ok(None);
    };
    // Read as a hundredth, not divided by a hundred, which would round twice.
    match format!("{digits}e-2").parse::<f64>() {
        Ok(quantile) if quantile > 0.0 && quantile <= 1.0 => {
            Ok(Some(Statistic::Quantile(quantile)))
        }
        _ => Err(format!("`{name}` is no percentile: write p50, p99, p99.9, up to p100")),
    }
}

fn operation(name: &str) -> Result<Operation, String> {
    let name = name.trim();
    name.parse().map_err(|_| {
        let names = Operation::ALL.iter().map(|operation| operation.name());
        format!(
            "unknown operation `{name}`; the nearest right one is `{}`",
            nearest(name, names).unwrap_or_default()
        )
    })
}

fn unknown(name: &str) -> String {
    let names = ["p50", "p99", "p99.9", "max", "mean"]
        .into_iter()
        .chain(TALLIES.iter().map(|(name, _)| *name))
        .chain(WHOLES.iter().map(|(name, _)| *name));
    let nearest = nearest(name, names).unwrap_or_default();
    format!("nothing called `{name}` is measured; the nearest right one is `{nearest}`")
}

fn value(text: &str, unit: Unit) -> Result<f64, String> {
    let plain = || text.replace('_', "").parse::<f64>().ok().filter(|value| value.is_finite());
    let found = match unit {
        Unit::Time => humantime::parse_duration(&text.replace("µs", "us"))
            .ok()
            .map(|time| time.as_secs_f64() * 1e6)
            .or_else(|| decimal_time(text)),
        Unit::Share => match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().ok().map(|percent| percent / 100.0),
            None => plain(),
        }
        .filter(|share| (0.0..=1.0).contains(share)),
        Unit::Bytes => text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64() as f64),
        Unit::Number => plain(),
    };
    found.ok_or_else(|| {
        let right = match unit {
            Unit::Time => "a time with its unit, such as 50ms, 1.5s or 800us",
            Unit::Share => "a share, such as 1% or 0.01",
            Unit::Bytes => "a number of bytes, such as 12288, 12KiB or 12KB",
            Unit::Number => "a number, such as 100000 or 100_000",
        };
        format!("`{text}` should be {right}")
    })
}

/// `1.5ms`: decimals are usual here, and humantime knows whole numbers only.
fn decimal_time(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')?;
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.replace('_', "").parse().ok()?;
    let us = match unit.trim() {
        "ns" => 1e-3,
        "us" | "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" | "min" => 60e6,
        _ => return None,
    };
    Some(number * us)
}
