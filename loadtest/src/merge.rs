//! Several reports of one run, joined into one: what generators on several machines have measured of
//! the same gateway at the same time. Counts and histograms add up, and percentiles are taken of the
//! sum; nothing is averaged.
//!
//! The seconds of each machine count from its own start. They are put in order by the machines'
//! wall clocks, so graphs may be off by as much as those are; no latency is.

use std::collections::BTreeMap;
use std::path::Path;

use crate::outcome::Outcome;
use crate::report::{ReportError, read_outcome};
use crate::share::Share;

/// Why reports cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A report cannot be read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// There is nothing to join.
    #[error("name at least two reports")]
    TooFew,
    /// They are not of one run.
    #[error("{second} is not of the same run as {first}: {why}")]
    Different {
        /// The first report.
        first: String,
        /// Another one.
        second: String,
        /// In what they differ.
        why: String,
    },
    /// The same is in two of them, and would count twice.
    #[error("{first} and {second} both hold {share}: name every report once")]
    Twice {
        /// The first report.
        first: String,
        /// Another one.
        second: String,
        /// What is in both.
        share: Share,
    },
    /// A histogram of a report is none.
    #[error("{0}")]
    Broken(#[from] crate::packed::NotAHistogram),
}

/// Reads reports, and joins them.
///
/// # Errors
/// See [`MergeError`].
pub fn read(folders: &[impl AsRef<Path>]) -> Result<Outcome, MergeError> {
    let mut outcomes = Vec::with_capacity(folders.len());
    for folder in folders {
        outcomes.push((folder.as_ref().display().to_string(), read_outcome(folder.as_ref())?));
    }
    merge(outcomes)
}

/// Joins outcomes, each with a name for messages.
///
/// # Errors
/// See [`MergeError`].
pub fn merge(mut outcomes: Vec<(String, Outcome)>) -> Result<Outcome, MergeError> {
    if outcomes.len() < 2 {
        return Err(MergeError::TooFew);
    }
    refuse_doubles(&outcomes)?;
    // The one that began first gives the time.
    outcomes.sort_by_key(|(_, outcome)| outcome.started_ms);
    let mut rest = outcomes.into_iter();
    let Some((first, mut whole)) = rest.next() else { return Err(MergeError::TooFew) };
    for (second, mut other) in rest {
        if let Some(why) = difference(&whole, &other) {
            return Err(MergeError::Different { first, second, why });
        }
        let late_ms = other.started_ms - whole.started_ms;
        shift(&mut other, late_ms);
        whole.merge(&other)?;
    }
    Ok(whole)
}

/// No machine's share of a run may be counted twice.
fn refuse_doubles(outcomes: &[(String, Outcome)]) -> Result<(), MergeError> {
    let mut seen: BTreeMap<&Share, &String> = BTreeMap::new();
    for (second, outcome) in outcomes {
        for share in &outcome.shares {
            if let Some(first) = seen.insert(share, second) {
                let (first, second, share) = (first.clone(), second.clone(), share.clone());
                return Err(MergeError::Twice { first, second, share });
            }
        }
    }
    Ok(())
}

/// In what two outcomes differ that are not of one run.
fn difference(one: &Outcome, other: &Outcome) -> Option<String> {
    let (a, b) = (&one.plan, &other.plan);
    if a.scenario != b.scenario {
        return Some(format!("scenario {} and {}", a.scenario, b.scenario));
    }
    if a.phases != b.phases {
        return Some("the phases have other lengths".into());
    }
    // A time that has passed twice would add up rates that were never there together.
    let length = |outcome: &Outcome| {
        let phases = &outcome.phases;
        phases.ramp + phases.warm_up + phases.measured + phases.drain
    };
    let apart = (other.started_ms - one.started_ms) as f64 / 1000.0;
    (apart > length(one)).then(|| {
        format!("it began {apart:.0} s later, when the first was over ({:.0} s)", length(one))
    })
}

/// Counts an outcome's time from a start so much earlier.
fn shift(outcome: &mut Outcome, by_ms: u64) {
    let seconds = by_ms as f64 / 1000.0;
    let whole = u32::try_from((by_ms + 500) / 1000).unwrap_or(u32::MAX);
    for point in &mut outcome.timeline {
        point.second = point.second.saturating_add(whole);
    }
    for mark in &mut outcome.marks {
        mark.at += seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Operation;
    use crate::outcome::{Step, Throughput};
    use crate::record::Recording;
    use crate::report::{Latency, write};
    use crate::sample;

    fn named(outcomes: Vec<Outcome>) -> Vec<(String, Outcome)> {
        outcomes.into_iter().enumerate().map(|(at, one)| (format!("run{at}"), one)).collect()
    }

    /// Percentiles of the sum, where a mean of percentiles would be far off.
    #[test]
    fn histograms_are_added() {
        let (mut one, mut other) = (sample::empty(), sample::empty());
        (0..900).for_each(|_| one.measured.success(Operation::Sync, 1_000, 1_000));
        (0..100).for_each(|_| other.measured.success(Operation::Sync, 1_000_000, 1_000_000));
        let whole = merge(named(vec![one, other])).unwrap();
        let record = whole.measured.get(Operation::Sync).unwrap();
        let latency = Latency::of(&record.response);
        assert_eq!(record.count(), 1_000);
        assert_eq!(latency.p50_us, Some(1_000));
        assert!(latency.p99_us > Some(999_000), "{latency:?}");
    }

    #[test]
    fn reports_of_folders_are_joined() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "c"].map(|name| folder.path().join(name));
        for path in &paths {
            write(&sample::chat(), &[], path).unwrap();
        }
        let whole = read(&paths).unwrap();
        assert_eq!(whole.sessions.connected, 6_000);
        assert_eq!(whole.correctness.sent, 3 * sample::chat().correctness.sent);
        assert_eq!(whole.timeline.len(), sample::chat().timeline.len());
        assert!(read(&paths[..1]).is_err());
        assert!(read(&[&paths[0], &folder.path().join("none")]).is_err());
    }

    #[test]
    fn seconds_are_put_where_they_were() {
        let (one, mut other) = (sample::chat(), sample::chat());
        other.started_ms += 2_400;
        let whole = merge(named(vec![other, one.clone()])).unwrap();
        assert_eq!(whole.started_ms, one.started_ms);
        assert_eq!(whole.timeline.len(), one.timeline.len() + 2);
        assert_eq!(whole.timeline[1].connected, one.timeline[1].connected);
        let both = one.timeline[3].connected + one.timeline[1].connected;
        assert_eq!(whole.timeline[3].connected, both);
    }

    /// A step of a ramp that is good up to here.
    fn step(load: f64, knee: f64) -> Step {
        let mut measured = Recording::new();
        (0..load as u64).for_each(|us| measured.success(Operation::SendAck, us + 1, 1));
        let broken = if load > knee { vec!["p99".to_owned()] } else { Vec::new() };
        let throughput = Throughput { acked: load, ..Throughput::default() };
        Step { load, throughput, broken, measured }
    }

    #[test]
    fn steps_of_a_ramp_are_joined_as_far_as_all_made_them() {
        let ramp = |loads: &[f64], knee: f64| {
            let steps = loads.iter().map(|load| step(*load, knee)).collect();
            Outcome { steps, ..sample::empty() }
        };
        let figures = |whole: &Outcome| -> Vec<(f64, bool)> {
            whole.steps.iter().map(|step| (step.load, step.broken.is_empty())).collect()
        };
        // The second is half as large a machine.
        let all = [ramp(&[100.0, 200.0, 400.0, 300.0], 350.0), ramp(&[50.0, 100.0, 200.0], 150.0)];
        let whole = merge(named(all.to_vec())).unwrap();
        let expected = [(150.0, true), (300.0, true), (600.0, false), (300.0, false)];
        assert_eq!(figures(&whole), expected, "what only one of them did is kept, and not good");
        assert_eq!(whole.rate_per_second(), 300.0);
        assert_eq!(whole.measured.get(Operation::SendAck).unwrap().count(), 300);
        // Where one broke and the other did not, their ways part.
        let all = [ramp(&[100.0, 200.0, 150.0], 160.0), ramp(&[100.0, 200.0, 400.0], 300.0)];
        let whole = merge(named(all.to_vec())).unwrap();
        let expected = [(200.0, true), (400.0, false), (150.0, false), (400.0, false)];
        assert_eq!(figures(&whole), expected);
        assert_eq!(whole.rate_per_second(), 200.0);
    }

    #[test]
    fn timelines_are_as_coarse_as_the_coarsest() {
        let (one, mut other) = (sample::chat(), sample::chat());
        crate::outcome::coarsen(&mut other.timeline, 4);
        let whole = merge(named(vec![one.clone(), other])).unwrap();
        assert_eq!(whole.timeline.len(), one.timeline.len().div_ceil(4));
        let sum = |outcome: &Outcome| outcome.timeline.iter().map(|p| p.acked).sum::<u64>();
        assert_eq!(sum(&whole), 2 * sum(&one));
        let seconds: u32 = whole.timeline.iter().map(|point| point.seconds).sum();
        assert_eq!(seconds as usize, one.timeline.len());
        assert_eq!(whole.timeline[1].connected, 2 * one.timeline[7].connected);
    }

    /// Whatever way it got into both: named twice, copied, or joined with others before.
    #[test]
    fn nothing_is_counted_twice() {
        let (one, other) = (sample::chat(), sample::chat());
        let refused = merge(named(vec![one.clone(), other.clone(), one.clone()])).unwrap_err();
        let run = one.plan.id;
        assert_eq!(
            refused.to_string(),
            format!("run0 and run2 both hold run {run}: name every report once")
        );
        let both = merge(named(vec![one.clone(), other.clone()])).unwrap();
        assert_eq!(both.shares, [Share::whole(run), Share::whole(other.plan.id)]);
        assert!(matches!(merge(named(vec![both, other])), Err(MergeError::Twice { .. })));
        // Agents of one run are parts of it.
        let part = |agent: &str| {
            let share = Share { run, agent: Some(agent.into()) };
            Outcome { shares: vec![share], ..one.clone() }
        };
        let whole = merge(named(vec![part("a"), part("b")])).unwrap();
        assert_eq!(whole.correctness.sent, 2 * one.correctness.sent);
        let refused = merge(named(vec![whole, part("b")])).unwrap_err().to_string();
        assert!(refused.contains(&format!("agent b of run {run}")), "{refused}");
    }

    #[test]
    fn what_is_not_of_one_run_is_refused() {
        let (one, mut another) = (sample::chat(), sample::chat());
        another.plan.scenario = "group".into();
        let refused = merge(named(vec![one.clone(), another])).unwrap_err().to_string();
        assert!(refused.contains("scenario chat and group"), "{refused}");
        let mut later = sample::chat();
        later.started_ms += 3_600_000;
        let refused = merge(named(vec![later, one])).unwrap_err().to_string();
        assert!(refused.contains("when the first was over"), "{refused}");
    }
}
