//! How a store shows what it counts, whoever exports it.

/// Receives metrics: what an exporter implements. Names are of the form that Prometheus asks for,
/// without a prefix.
pub trait MetricsVisitor {
    /// A value that only grows.
    fn counter(&mut self, name: &'static str, help: &'static str, value: u64);

    /// A value at this moment.
    fn gauge(&mut self, name: &'static str, help: &'static str, value: u64);

    /// A distribution: how many values were at most as large as each bound (each number includes
    /// the ones before it; the last bound is infinite), and the sum of all values.
    fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        buckets: &mut dyn Iterator<Item = (f64, u64)>,
        sum: f64,
    );
}
