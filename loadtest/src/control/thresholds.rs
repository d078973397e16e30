//! Objectives in the words of Goose, as far as it has words for them. Its verdicts are for its
//! report alone; ours make the exit status.

use goose::threshold::Threshold;

use crate::objective::Objective;

/// `p99.9(send_ack)<50ms` -> `p99.9<50ms for measured send_ack`.
pub(super) fn rule(objective: &Objective) -> Option<String> {
    let text: String = objective.to_string().chars().filter(|c| !c.is_whitespace()).collect();
    // Goose knows one clock; service times are not recorded with it.
    let (statistic, rest) = text.split_once('(')?;
    let (operation, bound) = rest.split_once(')')?;
    objective.operation().filter(|known| known.name() == operation)?;
    let metric = match statistic {
        "mean" => "avg",
        "max" => "max",
        percentile if percentile.starts_with('p') => percentile,
        _ => return None,
    };
    let rule = format!("{metric}{bound} for {}", super::attack::row("measured", operation));
    // It refuses what can never hold, and knows fewer comparisons.
    rule.parse::<Threshold>().ok().map(|_| rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goose_has_words_for_is_said() {
        let rule = |text: &str| rule(&text.parse().unwrap());
        let said = rule("p99.9(send_ack) < 50ms");
        assert_eq!(said.as_deref(), Some("p99.9<50ms for measured send_ack"));
        assert_eq!(rule("mean(login)<=1s").as_deref(), Some("avg<=1s for measured login"));
        assert_eq!(rule("max(sync)<2s").as_deref(), Some("max<2s for measured sync"));
        for none in ["lost==0", "p99(send_ack, service)<1ms", "rate(deliver)>=990", "errors==0"] {
            assert_eq!(rule(none), None, "{none}");
        }
    }
}
