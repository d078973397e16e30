//! Several reports of one run, joined into one: what generators on several machines have measured of
//! the same gateway at the same time. Counts and histograms add up, and percentiles are taken of the
//! sum; nothing is averaged.
//!
//! The seconds of each machine count from its own start. They are put in order by the machines'
//! wall clocks, so graphs may be off by as much as those are; no latency is.
//!
//! Rates add up only if they were there together, so what was measured at other times is refused. And
//! no machine knows what a session costs the gateway: while its own sessions came, those of the others
//! did too.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use crate::outcome::{Generator, Outcome, Phase, Step};
use crate::plan::{Ladder, Plan, Rise};
use crate::report::{ReportError, read_outcome};
use crate::share::Share;

/// Share of the measured time, 0 to 1, in which all must have been measured.
const LEAST_OVERLAP: f64 = 0.95;

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
    for (name, outcome) in &mut outcomes {
        stand_alone(name, outcome);
    }
    let mut rest = outcomes.into_iter();
    let Some((first, mut whole)) = rest.next() else { return Err(MergeError::TooFew) };
    for (second, mut other) in rest {
        let different = difference(&whole, &other);
        if let Some(why) = different.or_else(|| set_apart(&mut whole, &mut other)) {
            return Err(MergeError::Different { first, second, why });
        }
        let late_ms = other.started_ms - whole.started_ms;
        shift(&mut other, late_ms);
        add_plan(&mut whole.plan, &other.plan);
        whole.merge(&other)?;
    }
    Ok(whole)
}

/// Leaves out what one of several machines cannot know, and keeps what a sum does not tell.
fn stand_alone(name: &str, outcome: &mut Outcome) {
    if outcome.generators.is_empty() {
        outcome.generators = vec![Generator::of(name, outcome)];
    }
    if let Some(target) = &mut outcome.target {
        (target.bytes_per_session, target.between) = (None, None);
    }
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
    let shape = |ladder: &Ladder| {
        let rise = std::mem::discriminant(&ladder.rise);
        (rise, ladder.refine, ladder.settle, ladder.hold)
    };
    (a.ladder.as_ref().map(shape) != b.ladder.as_ref().map(shape))
        .then(|| "their loads rise in other steps".into())
}

/// Looks whether both were measured at the same time. Steps of a ramp that were not are no good steps
/// of the whole; anything else that was not says why it cannot be joined.
fn set_apart(one: &mut Outcome, other: &mut Outcome) -> Option<String> {
    let (mine, theirs) = (windows(one), windows(other));
    // A timeline of points of several seconds does not say in which of them a window begins.
    let points = one.timeline.iter().chain(&other.timeline);
    let coarse = points.map(|point| point.seconds).max().unwrap_or(1).saturating_sub(1);
    let overlap = |a: &Range<u64>, b: &Range<u64>| overlap(a, b, 1000 * u64::from(coarse));
    let together = mine.iter().zip(&theirs).take_while(|(a, b)| overlap(a, b) >= LEAST_OVERLAP);
    let together = together.count();
    // Nothing was measured, or the timeline is too coarse to tell steps from each other.
    let told = |outcome: &Outcome, windows: &[Range<u64>]| match outcome.plan.ladder {
        Some(_) => !windows.is_empty() && windows.len() == outcome.steps.len(),
        None => !windows.is_empty(),
    };
    if !told(one, &mine) || !told(other, &theirs) {
        return None;
    }
    if together == 0 {
        return Some(format!(
            "only {:.0} % of the measured time is common to both ({:.1} s between their beginnings), \
             and {:.0} % must be, because rates only add up if they were there together",
            100.0 * overlap(&mine[0], &theirs[0]),
            theirs[0].start.abs_diff(mine[0].start) as f64 / 1000.0,
            100.0 * LEAST_OVERLAP
        ));
    }
    let alone = |steps: &mut Vec<Step>| {
        for step in steps.iter_mut().skip(together) {
            step.broken.push("not all generators made this step at the same time".into());
        }
    };
    alone(&mut one.steps);
    alone(&mut other.steps);
    None
}

/// When it was measured, Unix time in milliseconds: once, or of a ramp once for each step.
fn windows(outcome: &Outcome) -> Vec<Range<u64>> {
    let at = |second: u32| outcome.started_ms + 1000 * u64::from(second);
    let stretches = outcome.timeline.chunk_by(|a, b| a.phase == b.phase);
    let measured = stretches.filter(|stretch| stretch[0].phase == Phase::Measured);
    measured
        .map(|stretch| {
            let last = &stretch[stretch.len() - 1];
            at(stretch[0].second)..at(last.second.saturating_add(last.seconds))
        })
        .collect()
}

/// Share of the longer one that both have in common, 0 to 1, if both are known but for so much.
fn overlap(one: &Range<u64>, other: &Range<u64>, but_for: u64) -> f64 {
    let length = |range: &Range<u64>| range.end.saturating_sub(range.start);
    let common = one.start.max(other.start)..one.end.min(other.end);
    let longer = length(one).max(length(other)).max(1);
    (length(&common) + but_for).min(longer) as f64 / longer as f64
}

/// What all of them were to do.
fn add_plan(whole: &mut Plan, other: &Plan) {
    whole.fleets.extend_from_slice(&other.fleets);
    if let (Some(mine), Some(theirs)) = (&mut whole.ladder, &other.ladder) {
        mine.first += theirs.first;
        mine.last += theirs.last;
        if let (Rise::Add(step), Rise::Add(more)) = (&mut mine.rise, theirs.rise) {
            *step += more;
        }
    }
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
    use std::time::Duration;

    use super::*;
    use crate::operation::Operation;
    use crate::outcome::Throughput;
    use crate::plan::{Arrival, Load};
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
        other.started_ms += 1_400;
        let whole = merge(named(vec![other, one.clone()])).unwrap();
        assert_eq!(whole.started_ms, one.started_ms);
        assert_eq!(whole.timeline.len(), one.timeline.len() + 1);
        assert_eq!(whole.timeline[0].connected, one.timeline[0].connected);
        let both = one.timeline[3].connected + one.timeline[2].connected;
        assert_eq!(whole.timeline[3].connected, both);
    }

    /// Of 30 measured seconds.
    #[test]
    fn rates_that_were_not_there_together_are_not_added() {
        let apart = |ms: u64| {
            let (one, mut other) = (sample::chat(), sample::chat());
            other.started_ms += ms;
            merge(named(vec![one, other])).map_err(|refused| refused.to_string())
        };
        assert!(apart(0).is_ok() && apart(1_500).is_ok());
        let refused = apart(4_000).unwrap_err();
        assert!(refused.contains("only 87 % of the measured time is common to both"), "{refused}");
        assert!(
            refused.contains("(4.0 s between their beginnings), and 95 % must be"),
            "{refused}"
        );
        // The same beginning, and an end long before the other's.
        let (one, mut other) = (sample::chat(), sample::chat());
        other.timeline.truncate(17);
        assert!(merge(named(vec![one, other])).is_err());
    }

    #[test]
    fn what_was_offered_is_the_sum() {
        let (one, mut other) = (sample::chat(), sample::chat());
        let load = |outcome: &mut Outcome, load| {
            if let Some(traffic) = outcome.plan.fleets[0].work.traffic_mut() {
                traffic.load = load;
            }
        };
        load(&mut other, Load::Rate { per_second: 250.0, arrival: Arrival::Even });
        let whole = merge(named(vec![one.clone(), other.clone()])).unwrap();
        assert_eq!(whole.plan.offered(), Some(750.0));
        assert_eq!(whole.plan.sessions(), 2 * one.plan.sessions());
        load(&mut other, Load::Outstanding(1));
        assert_eq!(merge(named(vec![one, other])).unwrap().plan.offered(), None);
    }

    /// Each of two machines saw the sessions of both, and divided by its own.
    #[test]
    fn nobody_knows_what_a_session_costs_the_gateway() {
        let whole = merge(named(vec![sample::chat(), sample::chat()])).unwrap();
        let target = whole.target.unwrap();
        assert_eq!((target.bytes_per_session, target.between), (None, None));
        assert_eq!(target.peak_rss, sample::chat().target.unwrap().peak_rss);
        assert_eq!(whole.generator.bytes_per_session, Some(10_000.0), "its own each one knows");
    }

    #[test]
    fn every_machine_is_named() {
        let names = |whole: &Outcome| -> Vec<String> {
            whole.generators.iter().map(|one| one.name.clone()).collect()
        };
        let both = merge(named(vec![sample::chat(), sample::chat()])).unwrap();
        assert_eq!(names(&both), ["run0", "run1"]);
        assert_eq!(both.generators[1].connected, sample::chat().sessions.connected);
        let third = ("third".to_owned(), sample::chat());
        let all = merge(vec![("both".into(), both), third]).unwrap();
        assert_eq!(names(&all), ["run0", "run1", "third"]);
    }

    /// A ramp of two steps of 10 s each, the second so many seconds behind the first.
    fn ramp(rest: usize) -> Outcome {
        let mut one = sample::chat();
        one.plan.ladder = Some(Ladder {
            first: 100.0,
            last: 250.0,
            rise: Rise::Add(100.0),
            refine: 0,
            settle: Duration::ZERO,
            hold: Duration::from_secs(10),
            least_share: 0.9,
        });
        one.timeline[17..17 + rest].iter_mut().for_each(|point| point.phase = Phase::WarmUp);
        one.timeline.truncate(27 + rest);
        one.steps = vec![step(100.0, 1e6), step(200.0, 1e6)];
        one
    }

    #[test]
    fn steps_that_were_not_made_together_are_not_good() {
        let whole = merge(named(vec![ramp(2), ramp(2)])).unwrap();
        let ladder = whole.plan.ladder.as_ref().unwrap();
        assert_eq!((ladder.first, ladder.last, ladder.rise), (200.0, 500.0, Rise::Add(200.0)));
        assert!(whole.steps.iter().all(Step::is_good));
        assert_eq!(whole.rate_per_second(), 400.0);
        // One rested longer between them.
        let whole = merge(named(vec![ramp(2), ramp(5)])).unwrap();
        let good: Vec<bool> = whole.steps.iter().map(Step::is_good).collect();
        assert_eq!(good, [true, false]);
        assert_eq!(whole.rate_per_second(), 200.0);
        let mut other = ramp(2);
        other.plan.ladder = None;
        assert!(merge(named(vec![ramp(2), other])).is_err());
    }

    /// A step of a ramp that is good up to here.
    fn step(load: f64, knee: f64) -> Step {
        let mut measured = Recording::new();
        (0..load as u64).for_each(|us| measured.success(Operation::SendAck, us + 1, 1));
        let broken = if load > knee { vec!["p99".to_owned()] } else { Vec::new() };
        let throughput = Throughput { acked: load, ..Throughput::default() };
        Step { load, throughput, broken, measured, ..Step::default() }
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
        assert!(refused.contains("only 0 % of the measured time"), "{refused}");
    }
}
