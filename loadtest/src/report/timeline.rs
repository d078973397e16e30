//! The seconds of a run in as few slots as a graph can show. Slots are joined by adding counts and
//! histograms, never by averaging percentiles.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::operation::Operation;
use crate::outcome::{Phase, Point, PointOperation};
use crate::packed::NotAHistogram;
use crate::record;

/// Most slots: about one for each pixel of a graph, and a bound on the size of a report of a run
/// that lasts for days.
const MAX_SLOTS: usize = 600;

/// The whole run in slots of equal length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timeline {
    /// Length of a slot, seconds.
    pub slot_seconds: u32,
    /// In order of time. A second in which nothing was recorded has none.
    pub slots: Vec<Slot>,
}

/// What happened in one slot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Slot {
    /// Its beginning, seconds from the start of the run.
    pub second: u32,
    /// Phase in which it ends: ramp, warm_up, measured, drain, over.
    #[schemars(with = "String")]
    pub phase: Phase,
    /// Sessions at its end.
    pub connected: u64,
    /// Connections being made at its end.
    pub connecting: u64,
    /// Messages written a second.
    pub sent_per_second: f64,
    /// Messages acknowledged a second.
    pub acked_per_second: f64,
    /// Messages that arrived a second.
    pub delivered_per_second: f64,
    /// Resident memory of the generator at its end, bytes.
    pub generator_rss_bytes: u64,
    /// Cores that the generator used.
    pub generator_cpu_cores: f64,
    /// Resident memory of the gateway at its end, bytes; null where it is not known.
    pub gateway_rss_bytes: Option<u64>,
    /// Cores that the gateway used.
    pub gateway_cpu_cores: Option<f64>,
    /// Share of a core that the busiest thread of the generator used.
    #[serde(default)]
    pub busiest_thread: f64,
    /// Share of the time in which a thread of the generator could have run and had no core.
    #[serde(default)]
    pub starved_thread: f64,
    /// Datagrams that the generator's sockets dropped for want of room, in the whole slot.
    #[serde(default)]
    pub generator_socket_drops: u64,
    /// The same of the gateway's; null where its process is not known.
    #[serde(default)]
    pub gateway_socket_drops: Option<u64>,
    /// Datagrams that any socket of the generator's machine dropped, in the whole slot.
    #[serde(default)]
    pub machine_udp_drops: u64,
    /// Memory that the generator's machine could give at its end, bytes; null where it does not say.
    #[serde(default)]
    pub memory_available_bytes: Option<u64>,
    /// What ended in it. Times are response times.
    #[schemars(with = "BTreeMap<String, SlotOperation>")]
    pub operations: BTreeMap<Operation, SlotOperation>,
}

/// One operation in one slot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SlotOperation {
    /// Successes.
    pub count: u64,
    /// Failures.
    pub errors: u64,
    /// Begun too late.
    pub late: u64,
    /// Never begun.
    pub dropped: u64,
    /// Half were no longer than this.
    pub p50_us: Option<u64>,
    /// 99 % were no longer than this.
    pub p99_us: Option<u64>,
    /// 99.9 % were no longer than this.
    pub p999_us: Option<u64>,
    /// The longest.
    pub max_us: Option<u64>,
}

impl Timeline {
    /// Joins the seconds of a run.
    pub(super) fn new(points: &[Point]) -> Result<Self, NotAHistogram> {
        let seconds = points.last().map_or(0, |point| (point.second + point.seconds) as usize);
        let slot_seconds = seconds.div_ceil(MAX_SLOTS).max(1);
        let same = |a: &Point, b: &Point| {
            a.second as usize / slot_seconds == b.second as usize / slot_seconds
        };
        let slots = points.chunk_by(same).map(|points| Slot::new(points, slot_seconds));
        Ok(Self { slot_seconds: slot_seconds as u32, slots: slots.collect::<Result<_, _>>()? })
    }
}

impl Slot {
    /// `points` are of one slot, at least one.
    fn new(points: &[Point], slot_seconds: usize) -> Result<Self, NotAHistogram> {
        let Some((first, last)) = points.first().zip(points.last()) else {
            return Ok(Self::default());
        };
        let seconds: u32 = points.iter().map(|point| point.seconds).sum();
        let mean = |sum: f64| sum / f64::from(seconds.max(1));
        let count = |part: fn(&Point) -> u64| mean(points.iter().map(part).sum::<u64>() as f64);
        let mut operations = BTreeMap::new();
        for operation in Operation::ALL {
            let parts: Vec<_> =
                points.iter().filter_map(|point| point.operations.get(&operation)).collect();
            if !parts.is_empty() {
                operations.insert(operation, SlotOperation::new(&parts)?);
            }
        }
        let known = points.iter().filter_map(|point| point.target_cpu).collect::<Vec<_>>();
        Ok(Self {
            second: first.second - first.second % slot_seconds as u32,
            phase: last.phase,
            connected: last.connected,
            connecting: last.connecting,
            sent_per_second: count(|point| point.sent),
            acked_per_second: count(|point| point.acked),
            delivered_per_second: count(|point| point.delivered),
            generator_rss_bytes: last.generator_rss,
            generator_cpu_cores: mean(
                points.iter().map(|one| one.generator_cpu * f64::from(one.seconds)).sum(),
            ),
            gateway_rss_bytes: last.target_rss,
            gateway_cpu_cores: (!known.is_empty())
                .then(|| known.iter().sum::<f64>() / known.len() as f64),
            busiest_thread: mean(
                points.iter().map(|one| one.health.busiest_shard * f64::from(one.seconds)).sum(),
            ),
            starved_thread: mean(
                points.iter().map(|one| one.health.starved_shard * f64::from(one.seconds)).sum(),
            ),
            generator_socket_drops: points.iter().map(|point| point.health.socket_drops).sum(),
            gateway_socket_drops: points
                .iter()
                .filter_map(|point| point.health.target_socket_drops)
                .reduce(|a, b| a + b),
            machine_udp_drops: points.iter().map(|point| point.health.udp_dropped_in).sum(),
            memory_available_bytes: last.health.memory_available,
            operations,
        })
    }
}

impl SlotOperation {
    fn new(parts: &[&PointOperation]) -> Result<Self, NotAHistogram> {
        let mut response: Histogram<u64> = record::histogram();
        for part in parts {
            // Both have our bounds: `unpack` sees to it.
            let _ = response.add(part.response.unpack()?);
        }
        let sum = |count: fn(&PointOperation) -> u64| parts.iter().map(|part| count(part)).sum();
        let at = |quantile| (!response.is_empty()).then(|| response.value_at_quantile(quantile));
        Ok(Self {
            count: sum(|part| part.count),
            errors: sum(|part| part.errors),
            late: sum(|part| part.late),
            dropped: sum(|part| part.dropped),
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: at(1.0),
        })
    }
}
