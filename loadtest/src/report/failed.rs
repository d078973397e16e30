//! What fails a run although nobody stated an objective about it. A figure of what succeeded is worth
//! nothing where most of it failed.

use super::summary::Reason;
use crate::objective::Objective;
use crate::operation::Operation;
use crate::outcome::{Outcome, Step};
use crate::record::OperationRecord;

/// Share of an operation that may fail, 0 to 1, where no objective says how much.
const MAX_FAILED: f64 = 0.01;

/// An operation that never succeeded, whatever was asked for, and each that failed too often, unless an
/// objective says how often it may.
pub(super) fn failures(outcome: &Outcome, objectives: &[Objective]) -> Vec<Reason> {
    let judge = |operation| failure(operation, outcome.record_of(operation)?, objectives);
    Operation::ALL.into_iter().filter_map(judge).collect()
}

/// The same of a step of a ramp, in words: a step whose figures would fail the run is not good.
pub fn failures_of_step(step: &Step, objectives: &[Objective]) -> Vec<String> {
    let records = step.measured.iter();
    let found = records.filter_map(|(operation, record)| failure(operation, record, objectives));
    found.map(|reason| format!("{}: {}", reason.kind, reason.detail)).collect()
}

fn failure(
    operation: Operation,
    record: &OperationRecord,
    objectives: &[Objective],
) -> Option<Reason> {
    let (failed, ended) = (record.failed(), record.failed() + record.count());
    let stated = objectives.iter().any(|one| one.is_about_failures_of(operation));
    let (kind, words) = match failed {
        0 => return None,
        _ if failed == ended => {
            ("never_succeeded", format!("{operation} never succeeded: {failed} failed"))
        }
        _ if !stated && record.error_rate() > MAX_FAILED => (
            "error_rate",
            format!(
                "{failed} of {ended} {operation} failed, {:.3} %; {:.0} % may where no objective \
                 says more, such as error_rate({operation})<5%",
                100.0 * record.error_rate(),
                100.0 * MAX_FAILED
            ),
        ),
        _ => return None,
    };
    Some(Reason { kind: kind.into(), detail: format!("{words}{}", most_often(record)) })
}

fn most_often(record: &OperationRecord) -> String {
    let most = record.errors.iter().max_by_key(|(_, count)| **count);
    most.map_or_else(String::new, |(kind, count)| format!(" ({count} x {kind})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Failure;
    use crate::sample;

    /// What is good as a step is good as the run whose figures are those of the step.
    #[test]
    fn a_step_is_judged_as_the_run_is() {
        let objectives = |text: &str| -> Vec<Objective> {
            text.split_whitespace().map(|one| one.parse().unwrap()).collect()
        };
        let kind = |failed: u64, stated: &str| {
            let mut outcome = sample::empty();
            (0..1000 - failed).for_each(|_| outcome.measured.success(Operation::SendAck, 500, 400));
            (0..failed)
                .for_each(|_| outcome.measured.failure(Operation::SendAck, Failure::Code(300)));
            let step = Step { measured: outcome.measured.clone(), ..Step::default() };
            let stated = objectives(stated);
            let of_run: Vec<String> = failures(&outcome, &stated)
                .iter()
                .map(|one| format!("{}: {}", one.kind, one.detail))
                .collect();
            let of_step = failures_of_step(&step, &stated);
            assert_eq!(of_step, of_run);
            of_step.first().map(|why| why.split(':').next().unwrap().to_owned())
        };
        assert_eq!(kind(10, ""), None);
        assert_eq!(kind(11, "p99(send_ack)<1s").as_deref(), Some("error_rate"));
        assert_eq!(kind(11, "error_rate(send_ack)<5%"), None);
        assert_eq!(kind(1000, "errors<2000").as_deref(), Some("never_succeeded"));
    }
}
