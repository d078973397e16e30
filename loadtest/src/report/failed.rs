//! What fails a run although nobody stated an objective about it. A figure of what succeeded is worth
//! nothing where most of it failed.

use super::summary::Reason;
use crate::objective::Objective;
use crate::operation::Operation;
use crate::outcome::Outcome;
use crate::record::OperationRecord;

/// Share of an operation that may fail, 0 to 1, where no objective says how much.
const MAX_FAILED: f64 = 0.01;

/// An operation that never succeeded, whatever was asked for, and each that failed too often, unless an
/// objective says how often it may.
pub(super) fn failures(outcome: &Outcome, objectives: &[Objective]) -> Vec<Reason> {
    let judge = |operation| {
        let record = outcome.record_of(operation)?;
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
                    "{failed} of {ended} {operation} failed, {:.3} %; {:.0} % may where no \
                     objective says more, such as error_rate({operation})<5%",
                    100.0 * record.error_rate(),
                    100.0 * MAX_FAILED
                ),
            ),
            _ => return None,
        };
        Some(Reason { kind: kind.into(), detail: format!("{words}{}", most_often(record)) })
    };
    Operation::ALL.into_iter().filter_map(judge).collect()
}

fn most_often(record: &OperationRecord) -> String {
    let most = record.errors.iter().max_by_key(|(_, count)| **count);
    most.map_or_else(String::new, |(kind, count)| format!(" ({count} x {kind})"))
}
