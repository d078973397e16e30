//! Metrics on their way to the page, over `prometheus-client`.

use std::fmt::Result;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use skein_storage::MetricsVisitor;

use super::count::Distribution;

/// Writes one metric after another. Counters are named with their `_total`.
pub(super) struct Out<'a, 'b>(pub(super) &'a mut DescriptorEncoder<'b>);

impl Out<'_, '_> {
    pub(super) fn counter<N>(&mut self, name: &str, help: &str, value: N) -> Result
    where
        ConstCounter<N>: EncodeMetric,
    {
        let metric = ConstCounter::new(value);
        metric.encode(self.0.encode_descriptor(stem(name), help, None, metric.metric_type())?)
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Into<Number>) -> Result {
        let metric = value.into().metric();
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    /// A counter for each word of a label.
    pub(super) fn counters<W: AsRef<str>, N>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (W, N)>,
    ) -> Result
    where
        ConstCounter<N>: EncodeMetric,
    {
        let kind = MetricType::Counter;
        let mut encoder = self.0.encode_descriptor(stem(name), help, None, kind)?;
        for (word, value) in values {
            let labels = [(label, word.as_ref())];
            ConstCounter::new(value).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A gauge for each word of a label.
    pub(super) fn gauges<W: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (W, u64)>,
    ) -> Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (word, value) in values {
            let labels = [(label, word.as_ref())];
            Number::from(value).metric().encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A distribution; the last bound is infinite.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        bounds: impl Iterator<Item = f64>,
        distribution: &Distribution,
    ) -> Result {
        let Distribution { counts, sum } = distribution;
        let counts = counts.iter().copied().chain(std::iter::repeat(0));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let all = buckets.iter().map(|(_, count)| count).sum();
        self.0
            .encode_descriptor(name, help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(*sum, all, &buckets, None)
    }
}

/// What the library calls the metric: it adds `_total` itself.
fn stem(name: &str) -> &str {
    name.strip_suffix("_total").unwrap_or(name)
}

/// A gauge's value.
#[derive(Clone, Copy)]
pub(super) struct Number(f64);

impl Number {
    fn metric(self) -> ConstGauge<f64> {
        ConstGauge::new(self.0)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self(value)
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        // Exact up to 2^53.
        Self(value as f64)
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Self(value as f64)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self(f64::from(u8::from(value)))
    }
}

/// Takes what a store shows.
pub(super) struct StoreMetrics<'o, 'a, 'b> {
    pub(super) out: &'o mut Out<'a, 'b>,
    pub(super) result: Result,
}

impl StoreMetrics<'_, '_, '_> {
    fn write(&mut self, write: impl FnOnce(&mut Out<'_, '_>) -> Result) {
        if self.result.is_ok() {
            self.result = write(self.out);
        }
    }
}

impl MetricsVisitor for StoreMetrics<'_, '_, '_> {
    fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.write(|out| out.counter(&format!("skein_{name}"), help, value));
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.write(|out| out.gauge(&format!("skein_{name}"), help, value));
    }

    fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        buckets: &mut dyn Iterator<Item = (f64, u64)>,
        sum: f64,
    ) {
        let (mut bounds, mut counts, mut before) = (Vec::new(), Vec::new(), 0);
        for (bound, up_to) in buckets {
            bounds.push(bound);
            // Read one after the other, while they grow: never less than nothing.
            counts.push(up_to.saturating_sub(before));
            before = up_to.max(before);
        }
        if bounds.last() != Some(&f64::INFINITY) {
            bounds.push(f64::INFINITY);
        }
        let distribution = Distribution { counts, sum };
        self.write(|out| {
            out.histogram(&format!("skein_{name}"), help, bounds.into_iter(), &distribution)
        });
    }
}
