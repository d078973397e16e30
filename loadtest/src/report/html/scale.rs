//! Where values are placed between bottom and top, and where lines help the eye.

/// How values are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By their logarithm. Values of 0 and less lie at the bottom.
    Log,
}

/// The values that a chart has room for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    scale: Scale,
    low: f64,
    high: f64,
}

/// Room above the greatest value.
const HEADROOM: f64 = 1.04;

impl Span {
    /// Room for all values, ending at round numbers. None without a value.
    pub(super) fn around(values: impl Iterator<Item = f64>, scale: Scale) -> Option<Self> {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            high = high.max(value);
            if scale == Scale::Linear || value > 0.0 {
                low = low.min(value);
            }
        }
        if high == f64::NEG_INFINITY {
            return None;
        }
        Some(match scale {
            Scale::Linear => {
                // A line along the upper edge would look cut off.
                // Nothing but zeros lies along the bottom.
                let room = if high > 0.0 { high * HEADROOM } else { 1.0 };
                let step = step(room);
                Self { scale, low: 0.0, high: step * (room / step).ceil().max(1.0) }
            }
            Scale::Log => {
                let low = if low.is_finite() { low } else { 1.0 };
                let low = round_down(low);
                Self { scale, low, high: round_up(high.max(low) * HEADROOM).max(low * 10.0) }
            }
        })
    }

    /// Place of a value: 0 at the bottom, 1 at the top.
    pub(super) fn part(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
        };
        part.clamp(0.0, 1.0)
    }

    /// Values worth a line.
    pub(super) fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step(self.high);
                let count = (self.high / step).round() as usize;
                (0..=count).map(|number| number as f64 * step).collect()
            }
            Scale::Log => {
                let decades = (self.high / self.low).log10();
                let all = std::iter::successors(Some(self.low), |tick| Some(next(*tick)));
                let all = all.take_while(|tick| *tick <= self.high * 1.000_001);
                // Too many lines hide what they are for.
                let only_tens = decades > 2.5;
                all.filter(|tick| !only_tens || digit(*tick) == 1).collect()
            }
        }
    }
}

/// Distance of lines of which 3 to 6 reach up to `high`.
fn step(high: f64) -> f64 {
    let power = 10f64.powf((high / 5.0).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    steps.into_iter().map(|s| s * power).find(|s| high / s <= 5.0).unwrap_or(10.0 * power)
}

/// Leading digit.
fn digit(value: f64) -> u32 {
    (value / 10f64.powf((value.log10() + 1e-9).floor())).round() as u32
}

/// The next of 1, 2, 5, 10, 20, ...
fn next(value: f64) -> f64 {
    value * if digit(value) == 2 { 2.5 } else { 2.0 }
}

fn round_down(value: f64) -> f64 {
    let power = 10f64.powf((value.log10() + 1e-9).floor());
    let fits = [5.0, 2.0].into_iter().find(|digit| digit * power <= value * 1.000_001);
    fits.unwrap_or(1.0) * power
}

fn round_up(value: f64) -> f64 {
    let down = round_down(value);
    if down >= value * 0.999_999 { down } else { next(down) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_end_at_round_numbers() {
        let linear = Span::around([3.0, 47.0].into_iter(), Scale::Linear).unwrap();
        assert_eq!((linear.low, linear.high), (0.0, 50.0));
        assert_eq!(linear.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        let log = Span::around([430.0, 8_100.0].into_iter(), Scale::Log).unwrap();
        assert_eq!(log.ticks(), [200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0]);
        let wide = Span::around([150.0, 900_000.0].into_iter(), Scale::Log).unwrap();
        assert_eq!(wide.ticks(), [100.0, 1e3, 1e4, 1e5, 1e6]);
        assert_eq!(Span::around([].into_iter(), Scale::Log), None);
    }

    proptest! {
        #[test]
        fn every_value_has_its_place(
            values in proptest::collection::vec(0.0f64..1e12, 1..20),
            log in any::<bool>(),
        ) {
            let scale = if log { Scale::Log } else { Scale::Linear };
            let span = Span::around(values.iter().copied(), scale).unwrap();
            let greatest = values.iter().copied().fold(0.0, f64::max);
            prop_assert!(span.high >= greatest * 0.999_99);
            prop_assert!((1..=12).contains(&span.ticks().len()), "{:?}", span.ticks());
            for value in values {
                prop_assert!((0.0..=1.0).contains(&span.part(value)));
            }
        }
    }
}
