//! What the summary says of the machines that made the load.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::summary::Process;
use crate::environment::Environment;
use crate::outcome::{Generator, Health, Phase, Point};

/// One of several machines that made the load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentSummary {
    /// Its address; of reports that were joined, the folder of its report.
    pub name: String,
    /// Whether it found nothing against its own figures.
    pub valid: bool,
    /// Its sessions when the measured phase ended.
    pub connected: u64,
    /// Messages acknowledged to it a second in the measured phase.
    pub acked_per_second: f64,
    /// Memory and processor time of the generator there.
    pub generator: Process,
    /// The machine.
    pub environment: Environment,
}

/// How the generator and its machine fared in the measured phase. Of several machines counts are sums
/// and the rest is that of the worst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HealthSummary {
    /// Share of a core that the generator's busiest thread used, mean of all seconds.
    pub busiest_thread: f64,
    /// Share of the time in which a thread of it could have run and had no core, mean.
    pub starved_thread: f64,
    /// Cores that programs other than the generator and a gateway beside it used, of those that the
    /// two may use, mean; null where the system does not say. A gateway of which the process is not
    /// known counts among the others.
    #[serde(default)]
    pub other_programs_cores: Option<f64>,
    /// Longest time by which its account of a second was late, seconds.
    pub standstill_seconds: f64,
    /// Datagrams that its sockets dropped for want of room.
    pub socket_drops: u64,
    /// The same of the gateway's sockets; null where its process is not known.
    pub gateway_socket_drops: Option<u64>,
    /// Datagrams that came in on the machine, for any program.
    pub machine_udp_received: u64,
    /// Datagrams that any socket of the machine dropped for want of room.
    pub machine_udp_drops: u64,
    /// Datagrams that the machine could not send for want of room.
    pub machine_udp_unsent: u64,
    /// Least memory that could be had without swapping, bytes; null where the system does not say.
    pub least_memory_available_bytes: Option<u64>,
    /// Bytes that the machine swapped.
    pub swapped_bytes: u64,
    /// Most descriptors that the generator had open.
    pub most_open_files: u64,
}

impl AgentSummary {
    pub(super) fn new(generator: &Generator, seconds: f64) -> Self {
        Self {
            name: generator.name.clone(),
            valid: generator.valid,
            connected: generator.connected,
            acked_per_second: generator.throughput.acked,
            generator: Process::new(&generator.footprint, seconds),
            environment: generator.environment.clone(),
        }
    }
}

impl HealthSummary {
    pub(super) fn new(points: &[Point]) -> Self {
        let measured = points.iter().filter(|point| point.phase == Phase::Measured);
        let measured: Vec<&Point> = measured.collect();
        let all: Vec<&Health> = measured.iter().map(|point| &point.health).collect();
        let seconds: f64 = measured.iter().map(|point| f64::from(point.seconds)).sum();
        let sum = |part: fn(&Health) -> u64| all.iter().map(|health| part(health)).sum();
        let mean = |part: fn(&Health) -> f64| {
            let parts = measured.iter().map(|one| part(&one.health) * f64::from(one.seconds));
            parts.sum::<f64>() / seconds.max(1.0)
        };
        let others = measured.iter().filter_map(|one| {
            let seconds = f64::from(one.seconds);
            Some((one.health.others_cpu? * seconds, seconds))
        });
        let others = others.reduce(|a, b| (a.0 + b.0, a.1 + b.1));
        Self {
            busiest_thread: mean(|health| health.busiest_shard),
            starved_thread: mean(|health| health.starved_shard),
            other_programs_cores: others.map(|(used, seconds)| used.max(0.0) / seconds.max(1.0)),
            standstill_seconds: all.iter().map(|health| health.behind).fold(0.0, f64::max),
            socket_drops: sum(|health| health.socket_drops),
            gateway_socket_drops: all
                .iter()
                .filter_map(|health| health.target_socket_drops)
                .reduce(|a, b| a + b),
            machine_udp_received: sum(|health| health.udp_received),
            machine_udp_drops: sum(|health| health.udp_dropped_in),
            machine_udp_unsent: sum(|health| health.udp_dropped_out),
            least_memory_available_bytes: all
                .iter()
                .filter_map(|health| health.memory_available)
                .min(),
            swapped_bytes: sum(|health| health.swapped),
            most_open_files: all.iter().map(|health| health.open_files).max().unwrap_or(0),
        }
    }
}
