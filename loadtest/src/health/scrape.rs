//! What a gateway elsewhere says of its own process, as Prometheus text: the names that every
//! Prometheus client library gives to them.

use crate::process::Usage;

/// Resident memory, bytes.
const MEMORY: &str = "process_resident_memory_bytes";
/// Processor time since the start, seconds.
const CPU: &str = "process_cpu_seconds_total";

/// The text does not say what a process uses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no `{0}` among the figures")]
pub struct NoFigures(&'static str);

/// Reads them. A prefix before the names (`skein_process_...`) does not matter; of several samples
/// of one name, as of several processes, the sum counts.
///
/// # Errors
/// One of them is missing.
pub fn figures(text: &str) -> Result<Usage, NoFigures> {
    let rss = sum(text, MEMORY)?;
    let cpu_seconds = sum(text, CPU)?;
    // Both are finite and not below 0.
    Ok(Usage { rss: rss as u64, cpu_seconds })
}

fn sum(text: &str, name: &'static str) -> Result<f64, NoFigures> {
    let samples = text.lines().filter_map(|line| sample(line, name));
    samples.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value)).ok_or(NoFigures(name))
}

/// `name{labels} value [timestamp]`
fn sample(line: &str, wanted: &str) -> Option<f64> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(end);
    let is_it = name == wanted || name.strip_suffix(wanted)?.ends_with('_');
    let rest = match rest.strip_prefix('{') {
        // A label's value may hold a brace: the last one ends the labels.
        Some(labels) => labels.rsplit_once('}')?.1,
        None => rest,
    };
    let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
    (is_it && value.is_finite() && value >= 0.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_figures_are_found() {
        let text = "# HELP process_cpu_seconds_total Total time\n\
            # TYPE process_cpu_seconds_total counter\n\
            process_cpu_seconds_total 12.75\n\
            process_resident_memory_bytes 8.3886080e+07 1700000000000\n\
            process_virtual_memory_bytes 1\nskein_sessions 4\n";
        assert_eq!(figures(text), Ok(Usage { rss: 80 << 20, cpu_seconds: 12.75 }));
    }

    #[test]
    fn prefixes_and_labels_do_not_matter_and_several_add_up() {
        let text = "skein_process_cpu_seconds_total{a=\"x}y\"} 1.5\n\
            skein_process_cpu_seconds_total{a=\"z\"} 2\n\
            skein_process_resident_memory_bytes{pid=\"1\"} 100\n";
        assert_eq!(figures(text), Ok(Usage { rss: 100, cpu_seconds: 3.5 }));
    }

    #[test]
    fn what_is_missing_or_odd_is_told() {
        assert_eq!(figures(""), Err(NoFigures(MEMORY)));
        let none = "process_resident_memory_bytes NaN\nprocess_cpu_seconds_total 1\n";
        assert_eq!(figures(none), Err(NoFigures(MEMORY)));
        let other = "myprocess_resident_memory_bytes 5\nprocess_resident_memory_bytes 6\n";
        assert_eq!(figures(other), Err(NoFigures(CPU)));
        for odd in ["process_resident_memory_bytes", "{} 5", "a{b 5", "\u{e4}{} 1"] {
            assert!(figures(odd).is_err(), "{odd}");
        }
    }
}
