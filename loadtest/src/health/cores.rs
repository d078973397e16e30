//! Did the generator have the cores that it needed? Judged over stretches of measured seconds: one in
//! most runs, a step each in a ramp. A busy second makes no percentile.

use crate::outcome::{Health, Phase, Point};
use crate::plan::Bounds;

/// Cores that programs other than the generator and a target beside it may use, before they count as
/// a reason of their own for which a thread had to wait. What a machine does by itself stays below.
const MAX_OTHERS: f64 = 0.1;

/// What is known of the target's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this machine, and its process is known.
    Here,
    /// On this machine by its address. What it uses cannot be told from what others use.
    HereUnknown,
    /// On another machine.
    Elsewhere,
}

/// A stretch in which a thread of the generator had to wait for a core for too long.
#[derive(Clone, Debug, PartialEq)]
pub struct Starved {
    /// Share of the time for which it waited.
    pub waited: f64,
    /// The target on the same cores is the reason, and nothing else is. It would have been as busy
    /// without the wait, so the figures hold; they contain the wait.
    pub is_shared: bool,
    /// With figures, for people.
    pub detail: String,
}

/// For each measured stretch in which a thread of the generator was too busy: how busy, and that in
/// words.
pub fn busy_stretches(points: &[Point], bounds: &Bounds) -> Vec<Option<(f64, String)>> {
    let judged = measured(points).map(|one| {
        let busiest = mean(one, |health| Some(health.busiest_shard)).unwrap_or_default();
        let starved = mean(one, |health| Some(health.starved_shard)).unwrap_or_default();
        (busiest > bounds.shard_cpu).then(|| {
            let waited = match starved > 0.05 {
                true => format!(" (and one waited for a core {} of the time)", percent(starved)),
                false => String::new(),
            };
            let (used, limit) = (percent(busiest), percent(bounds.shard_cpu));
            (
                busiest,
                format!(
                    "a thread of the generator used {used} of a core; {limit} is the limit{waited}"
                ),
            )
        })
    });
    judged.collect()
}

/// The same of stretches in which one had to wait for a core.
///
/// Without a core a thread neither sends what is due nor reads what has come, and the target gets the
/// blame. Where the target shares the cores and takes them itself, that is what was asked for.
pub fn starved_stretches(points: &[Point], bounds: &Bounds, target: Place) -> Vec<Option<Starved>> {
    let judged = measured(points).map(|one| {
        // The kernel counts a wait when it is over: one that began before can make it more than all.
        let waited = mean(one, |health| Some(health.starved_shard)).unwrap_or_default().min(1.0);
        let others = mean(one, |health| health.others_cpu).map(|cores| cores.max(0.0));
        (waited > bounds.shard_wait).then(|| {
            let is_shared = target == Place::Here && others.is_none_or(|used| used <= MAX_OTHERS);
            let detail = match is_shared {
                true => format!(
                    "generator and gateway share cores: a thread of the generator waited {} of the \
                     time for one, and latencies contain it",
                    percent(waited)
                ),
                false => format!(
                    "a thread of the generator waited {} of the time for a core; {} is the limit{}",
                    percent(waited),
                    percent(bounds.shard_wait),
                    blame(others, target)
                ),
            };
            Starved { waited, is_shared, detail }
        })
    });
    judged.collect()
}

/// Who had the cores.
fn blame(others: Option<f64>, target: Place) -> String {
    match (others, target) {
        (None, _) => String::new(),
        (Some(used), Place::Here) => {
            format!(" (programs other than it and the gateway used {used:.2} cores)")
        }
        (Some(used), Place::Elsewhere) => format!(" (other programs used {used:.2} cores)"),
        (Some(used), Place::HereUnknown) => format!(
            " (other programs used {used:.2} cores; how much of it is the gateway's is known only of \
             one that was started here, or is named: --target-pid)"
        ),
    }
}

/// Stretches of measured seconds, none of them empty.
fn measured(points: &[Point]) -> impl Iterator<Item = &[Point]> {
    let stretches = points.chunk_by(|a, b| a.phase == b.phase);
    stretches.filter(|one| one[0].phase == Phase::Measured)
}

/// Over the seconds of which it is known.
fn mean(stretch: &[Point], part: fn(&Health) -> Option<f64>) -> Option<f64> {
    let weight = |point: &Point| f64::from(point.seconds.max(1));
    let known = stretch.iter().filter_map(|point| Some((part(&point.health)?, weight(point))));
    let (sum, seconds) =
        known.fold((0.0, 0.0), |sum, (value, weight)| (sum.0 + value * weight, sum.1 + weight));
    (seconds > 0.0).then_some(sum / seconds)
}

/// A share for people.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent < 10.0 {
        true => format!("{} %", (percent * 10.0).round() / 10.0),
        false => format!("{percent:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten measured seconds, with so much waiting and so much use by others in each.
    fn stretch(starved: f64, others: Option<f64>) -> Vec<Point> {
        let health = Health { starved_shard: starved, others_cpu: others, ..Health::default() };
        let point = |second| Point {
            second,
            seconds: 1,
            phase: Phase::Measured,
            health: health.clone(),
            ..Point::default()
        };
        (0..10).map(point).collect()
    }

    /// Nothing, or whether the target explains it.
    fn judged(points: &[Point], target: Place) -> Option<bool> {
        let found = starved_stretches(points, &Bounds::default(), target);
        assert_eq!(found.len(), 1);
        found[0].as_ref().map(|starved| starved.is_shared)
    }

    #[test]
    fn waiting_is_explained_by_a_target_on_the_same_cores_alone() {
        use Place::{Elsewhere, Here, HereUnknown};
        for place in [Here, HereUnknown, Elsewhere] {
            assert_eq!(judged(&stretch(0.09, Some(2.0)), place), None, "within the bound");
        }
        let cases = [
            // At the knee, two cores for both.
            (0.3, Some(0.04), Here, true),
            (0.3, Some(-0.05), Here, true),
            // Three busy loops beside it.
            (0.23, Some(0.85), Here, false),
            (0.11, Some(0.11), Here, false),
            (0.3, Some(0.04), Elsewhere, false),
            (0.3, Some(0.9), HereUnknown, false),
            // Where /proc/stat cannot be read.
            (0.3, None, Here, true),
            (0.3, None, HereUnknown, false),
            (0.3, None, Elsewhere, false),
        ];
        for (starved, others, place, is_shared) in cases {
            let found = judged(&stretch(starved, others), place);
            assert_eq!(found, Some(is_shared), "{starved} {others:?} {place:?}");
        }
    }

    #[test]
    fn it_is_judged_over_a_stretch_by_what_is_known() {
        let mut points = stretch(0.02, Some(0.01));
        points[3].health.starved_shard = 0.7;
        assert_eq!(judged(&points, Place::Elsewhere), None, "a second of ten");
        // A gateway that was restarted: of that second it is not known who used what.
        let mut points = stretch(0.3, Some(0.02));
        points[4].health.others_cpu = None;
        assert_eq!(judged(&points, Place::Here), Some(true));
        points[5].health.others_cpu = Some(5.0);
        assert_eq!(judged(&points, Place::Here), Some(false));
        // Coarse points weigh as much as they are long.
        let mut points = stretch(0.05, None);
        (points[0].seconds, points[0].health.starved_shard) = (91, 0.2);
        assert_eq!(judged(&points, Place::Elsewhere), Some(false));
    }

    #[test]
    fn words_name_who_had_the_cores() {
        let words = |points: &[Point], place| {
            let found = starved_stretches(points, &Bounds::default(), place);
            found[0].as_ref().unwrap().detail.clone()
        };
        let busy = stretch(0.23, Some(0.85));
        let expected = "waited 23 % of the time for a core; 10 % is the limit \
                        (programs other than it and the gateway used 0.85 cores)";
        assert!(words(&busy, Place::Here).contains(expected));
        assert!(words(&busy, Place::HereUnknown).contains("--target-pid"));
        let shared = words(&stretch(0.28, Some(0.0)), Place::Here);
        assert!(shared.contains("share cores") && shared.contains("28 %"), "{shared}");
    }
}
