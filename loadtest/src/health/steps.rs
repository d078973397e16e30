//! Steps of a ramp that were too much: for the target, or for the generator itself?

use super::cores::Starved;
use super::rules::timetable;
use crate::outcome::{Reason, ReasonKind, Step, least_bad};
use crate::plan::Plan;

/// Notes at every bad step of what the generator was short of in it. The reasons not to believe the
/// knee: what it was short of in the least of them, which bounds the search.
///
/// `busy` and `starved` are about the measured stretches of a ramp, which are its steps.
pub fn blame(
    steps: &mut [Step],
    plan: &Plan,
    busy: &[Option<(f64, String)>],
    starved: &[Option<Starved>],
) -> Vec<Reason> {
    for (at, step) in steps.iter_mut().enumerate().filter(|(_, step)| !step.is_good()) {
        let starved = starved.get(at).and_then(Option::as_ref);
        let late = timetable(&step.measured, plan);
        // A gateway that takes the cores which both were given makes the generator late as well.
        match starved.is_some_and(|starved| starved.is_shared) {
            true => step.broken.extend(late.iter().map(ToString::to_string)),
            false => step.limits = late,
        }
        if let Some(Some((_, detail))) = busy.get(at) {
            let kind = ReasonKind::GeneratorCpu;
            step.limits.push(Reason { kind, detail: detail.clone() });
        }
        if let Some(starved) = starved.filter(|starved| !starved.is_shared) {
            let kind = ReasonKind::GeneratorStarved;
            step.limits.push(Reason { kind, detail: starved.detail.clone() });
        }
        step.broken.extend(step.limits.iter().map(ToString::to_string));
    }
    let Some(least) = least_bad(steps) else { return Vec::new() };
    let reason = |limit: &Reason| Reason {
        kind: limit.kind,
        detail: format!(
            "the knee is not the gateway's: at {:.1} messages a second {}",
            least.load, limit.detail
        ),
    };
    least.limits.iter().map(reason).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Operation;
    use crate::record::Recording;
    use crate::sample;

    fn step(load: f64, broken: &[&str]) -> Step {
        let mut measured = Recording::new();
        (0..100).for_each(|_| measured.success(Operation::SendAck, 500, 400));
        let broken = broken.iter().map(|why| (*why).to_owned()).collect();
        Step { load, broken, measured, ..Step::default() }
    }

    fn kinds(reasons: &[Reason]) -> Vec<ReasonKind> {
        reasons.iter().map(|reason| reason.kind).collect()
    }

    #[test]
    fn the_least_bad_step_says_whose_the_knee_is() {
        let plan = sample::empty().plan;
        let busy = |at: usize| -> Vec<Option<(f64, String)>> {
            (0..4).map(|step| (step == at).then(|| (0.99, "it was busy".to_owned()))).collect()
        };
        let steps = [step(100.0, &[]), step(400.0, &["p99"]), step(200.0, &["p99"])];
        let mut greater = steps.clone();
        assert_eq!(blame(&mut greater, &plan, &busy(1), &[]), [], "a less one was bad as well");
        assert_eq!(kinds(&greater[1].limits), [ReasonKind::GeneratorCpu]);
        assert_eq!(greater[1].broken, ["p99", "generator_cpu: it was busy"]);
        let mut least = steps.clone();
        let found = blame(&mut least, &plan, &busy(2), &[]);
        assert_eq!(kinds(&found), [ReasonKind::GeneratorCpu]);
        assert_eq!(
            found[0].detail,
            "the knee is not the gateway's: at 200.0 messages a second it was busy"
        );
        let mut good = steps.clone();
        assert_eq!(blame(&mut good, &plan, &busy(0), &[]), [], "for the rules of a run");
        assert!(good[0].is_good());
    }

    #[test]
    fn a_step_that_was_begun_too_late_is_the_generators() {
        let plan = sample::empty().plan;
        let mut late = [step(100.0, &["p99"])];
        (0..2).for_each(|_| late[0].measured.late(Operation::SendAck));
        assert_eq!(kinds(&blame(&mut late, &plan, &[], &[])), [ReasonKind::LateSchedule]);
        let mut dropped = [step(100.0, &["p99"])];
        dropped[0].measured.dropped(Operation::SendAck, 1);
        assert_eq!(kinds(&blame(&mut dropped, &plan, &[], &[])), [ReasonKind::DroppedSchedule]);
        assert!(dropped[0].broken[1].starts_with("dropped_schedule: 1 of 101"), "{dropped:?}");
    }

    /// The gateway on the same cores takes them itself: that is what was asked for.
    #[test]
    fn shared_cores_are_no_limit_of_the_generator() {
        let plan = sample::empty().plan;
        let starved = |is_shared| {
            let starved = Starved { waited: 0.3, is_shared, detail: "it waited".into() };
            kinds(&blame(&mut [step(100.0, &["p99"])], &plan, &[], &[Some(starved)]))
        };
        assert_eq!(starved(true), []);
        assert_eq!(starved(false), [ReasonKind::GeneratorStarved]);
        let mut late = [step(100.0, &["p99"])];
        (0..2).for_each(|_| late[0].measured.late(Operation::SendAck));
        let shared = Starved { waited: 0.3, is_shared: true, detail: "it waited".into() };
        assert_eq!(blame(&mut late, &plan, &[], &[Some(shared)]), []);
        assert!(late[0].broken[1].starts_with("late_schedule"), "{late:?}");
    }
}
