//! Where is the knee? Which load to try next, without any load being made.

use crate::plan::Ladder;

/// Loads nearer to each other than this share are one: a step does not tell them apart.
const CLOSE: f64 = 0.02;

/// A search that rises until a load is bad, and then halves the distance.
#[derive(Debug)]
pub(super) struct Search {
    rises: std::vec::IntoIter<f64>,
    good: Option<f64>,
    bad: Option<f64>,
    /// Steps that may still be made between the two.
    left: u32,
}

impl Search {
    pub(super) fn new(ladder: &Ladder) -> Self {
        Self { rises: ladder.loads().into_iter(), good: None, bad: None, left: ladder.refine }
    }

    /// The load of the next step.
    pub(super) fn next(&mut self) -> Option<f64> {
        let Some(bad) = self.bad else { return self.rises.next() };
        if !self.goes_on() {
            return None;
        }
        self.left -= 1;
        Some((self.good.unwrap_or(0.0) + bad) / 2.0)
    }

    /// What came of a step.
    pub(super) fn judge(&mut self, load: f64, is_good: bool) {
        *if is_good { &mut self.good } else { &mut self.bad } = Some(load);
    }

    /// Whether another step follows.
    pub(super) fn goes_on(&self) -> bool {
        match self.bad {
            None => self.rises.len() > 0,
            Some(bad) => {
                let good = self.good.unwrap_or(0.0);
                // Nothing absolute: machines that share a load make the same steps.
                self.left > 0 && bad - good > bad * CLOSE
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::plan::Rise;

    fn ladder(first: f64, rise: Rise, refine: u32) -> Ladder {
        let (settle, hold) = (Duration::ZERO, Duration::from_secs(1));
        Ladder { first, last: 1e6, rise, refine, settle, hold, least_share: 0.9 }
    }

    fn steps(ladder: &Ladder, knee: f64) -> Vec<f64> {
        let mut search = Search::new(ladder);
        let mut steps = Vec::new();
        while let Some(load) = search.next() {
            search.judge(load, load <= knee);
            steps.push(load);
        }
        steps
    }

    proptest! {
        /// Wherever the knee is, it lies between the best good and the least bad load, which are
        /// as near as the steps allow, and there are no more steps than that.
        #[test]
        fn the_knee_is_enclosed(
            first in 1.0f64..5000.0, factor in 1.05f64..4.0, knee in 1.0f64..1e6, refine in 0u32..12,
        ) {
            let ladder = ladder(first, Rise::Multiply(factor), refine);
            let steps = steps(&ladder, knee);
            prop_assert!(steps.len() <= ladder.loads().len() + refine as usize);
            let good = steps.iter().copied().filter(|load| *load <= knee).fold(0.0, f64::max);
            let bad = steps.iter().copied().filter(|load| *load > knee).fold(f64::MAX, f64::min);
            if bad < f64::MAX {
                let at = steps.iter().position(|load| *load > knee).unwrap();
                let below = at.checked_sub(1).map_or(0.0, |at| steps[at]);
                let halved = (steps[at] - below) / 2f64.powi(refine as i32);
                let near = bad * CLOSE;
                prop_assert!(bad - good <= halved.max(near) + 1e-6, "{good} {bad} {steps:?}");
            } else {
                prop_assert_eq!(steps.len(), ladder.loads().len());
            }
            // The last good step is the best: what a report takes its figures from.
            let last = steps.iter().copied().rev().find(|load| *load <= knee);
            prop_assert_eq!(last.unwrap_or(0.0), good);
        }
    }

    #[test]
    fn the_steps_are_those_that_one_would_make_by_hand() {
        let up = ladder(100.0, Rise::Multiply(2.0), 3);
        assert_eq!(steps(&up, 550.0), [100.0, 200.0, 400.0, 800.0, 600.0, 500.0, 550.0]);
        assert_eq!(steps(&up, 30.0), [100.0, 50.0, 25.0, 37.5]);
        let by_adding = ladder(100.0, Rise::Add(100.0), 0);
        assert_eq!(steps(&by_adding, 250.0), [100.0, 200.0, 300.0]);
    }
}
