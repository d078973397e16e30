//! What a run has found: all that a report, a comparison and a verdict need, and nothing that
//! needs the run any more. `merge.rs`: the outcomes of several generators become one.

mod merge;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::operation::{Failure, Operation};
use crate::packed::Packed;
use crate::plan::Plan;
use crate::record::{OperationRecord, Recording};
use crate::share::Share;

pub(crate) use merge::{append, coarsen};

/// Version of the form of [`Outcome`]; rises when a reader of the old form would misread the new.
pub const SCHEMA: u32 = 1;

/// A finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// [`SCHEMA`] at the time of writing.
    pub schema: u32,
    /// What was to be done, without secrets.
    pub plan: Plan,
    /// Whose load this is the sum of: every machine of a run that did its share to the end, and of
    /// reports that were joined all of theirs.
    pub shares: Vec<Share>,
    /// Unix time of the start in milliseconds.
    pub started_ms: u64,
    /// Why the figures must not be believed; none: they may.
    pub reasons: Vec<Reason>,
    /// What must be known of the figures, and does not make them wrong.
    #[serde(default)]
    pub notes: Vec<Note>,
    /// It was ended before its time (Ctrl-C); the figures stand for what was measured.
    pub ended_early: bool,
    /// How long the phases were in the end, in seconds.
    pub phases: PhaseSeconds,
    /// Sessions.
    pub sessions: Sessions,
    /// What the receivers found.
    pub correctness: Correctness,
    /// What was done a second in the measured phase.
    pub throughput: Throughput,
    /// What was due in the measured phase, whenever it ended.
    pub measured: Recording,
    /// Everything before and after it: ramp, warm-up, drain.
    pub unmeasured: Recording,
    /// One for each second of the run.
    pub timeline: Vec<Point>,
    /// What happened at which time, for the reader of a graph.
    pub marks: Vec<Mark>,
    /// Memory and processor time of this program.
    pub generator: Footprint,
    /// The same of the gateway, if it runs on this machine and is known.
    pub target: Option<Footprint>,
    /// Steps of a ramp.
    pub steps: Vec<Step>,
    /// The machines that made the load, if these were several.
    #[serde(default)]
    pub generators: Vec<Generator>,
    /// Where and how it was made.
    #[serde(default)]
    pub environment: Environment,
}

/// One of several machines that made the load of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Its address; of reports that were joined, what the report was called.
    pub name: String,
    /// See [`Sessions`].
    pub connected: u64,
    /// What it did a second in the measured phase.
    pub throughput: Throughput,
    /// Memory and processor time.
    pub footprint: Footprint,
    /// Whether it found nothing against its own figures.
    pub valid: bool,
    /// The machine.
    pub environment: Environment,
}

impl Generator {
    /// What its part of the run says of it.
    pub fn of(name: &str, part: &Outcome) -> Self {
        Self {
            name: name.to_owned(),
            connected: part.sessions.connected,
            throughput: part.throughput,
            footprint: part.generator.clone(),
            valid: part.valid(),
            environment: part.environment.clone(),
        }
    }
}

/// Why a run is not valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Which rule.
    pub kind: ReasonKind,
    /// With figures, for people.
    pub detail: String,
}

/// The word of its kind, and the figures.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = serde_json::to_value(self.kind).map_err(|_| fmt::Error)?;
        write!(f, "{}: {}", kind.as_str().unwrap_or_default(), self.detail)
    }
}

/// Rules that a valid run keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonKind {
    /// Too much was begun too late, so the load was not the one that was asked for.
    LateSchedule,
    /// Some of the load was never begun.
    DroppedSchedule,
    /// A thread of the generator used nearly all of a core.
    GeneratorCpu,
    /// A thread of the generator had to wait for a core, and the target was not the reason.
    GeneratorStarved,
    /// This machine was short of memory.
    MemoryPressure,
    /// The kernel dropped datagrams for want of room in a socket's buffer here.
    SocketDrops,
    /// This machine's limit of file descriptors or ports was reached.
    Limits,
    /// A generator of the run was lost.
    AgentLost,
    /// A part of the generator failed.
    GeneratorFailed,
    /// The ramp ended without all of its sessions, so the load was not the one that was asked for.
    RampIncomplete,
}

/// Something that must be known of a run's figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What it is about.
    pub kind: NoteKind,
    /// With figures, for people.
    pub detail: String,
}

/// What notes are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// Generator and target take turns on the same cores.
    SharedCores,
    /// Writers waited for answers before they wrote on.
    ClosedLoop,
}

/// Lengths of the phases, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the phases are")]
pub struct PhaseSeconds {
    pub ramp: f64,
    pub warm_up: f64,
    pub measured: f64,
    pub drain: f64,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Sessions are being made.
    #[default]
    Ramp,
    /// The load runs unmeasured.
    WarmUp,
    /// The load is measured.
    Measured,
    /// The load has ended; what is under way may arrive.
    Drain,
    /// All is over.
    Over,
}

/// Sessions, counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sessions {
    /// Of the plan.
    pub planned: u64,
    /// Logged in when the measured phase ended.
    pub connected: u64,
    /// Most at a time.
    pub peak: u64,
    /// Fewest at a time in the measured phase.
    pub lowest: u64,
    /// Logins of the whole run, those after a loss included.
    pub logins: u64,
    /// Logged-in sessions that ended although the plan did not want it, in the whole run.
    pub lost: u64,
    /// Attempts that did not lead to a session, in the whole run.
    pub failed: u64,
    /// Logged-in sessions whose end the plan wanted: silent ones that the gateway evicted, those of
    /// a storm, those that it asked to go.
    #[serde(default)]
    pub expected: u64,
    /// Handshakes that went on from the session's own ticket instead of a certificate. 0 unless the
    /// plan has tickets.
    #[serde(default)]
    pub resumed: u64,
    /// Why sessions ended or attempts failed against the plan.
    pub ends: BTreeMap<Failure, u64>,
}

/// What happened a second in the measured phase, whenever it was due. Past saturation this is what
/// the target does; the counts of the recording also hold what was still answered afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Messages written.
    pub sent: f64,
    /// Messages acknowledged.
    pub acked: f64,
    /// Deliveries.
    pub delivered: f64,
    /// Logins.
    pub logins: f64,
}

impl Throughput {
    /// Of some seconds of a timeline.
    pub fn of<'a>(points: impl Iterator<Item = &'a Point>) -> Self {
        let mut sum = Self::default();
        let mut seconds = 0.0;
        for point in points {
            seconds += f64::from(point.seconds);
            sum.sent += point.sent as f64;
            sum.acked += point.acked as f64;
            sum.delivered += point.delivered as f64;
            // A session that comes back is measured as such, and logs in as well.
            for operation in [Operation::Login, Operation::Resume] {
                sum.logins += point.operations.get(&operation).map_or(0, |one| one.count) as f64;
            }
        }
        if seconds > 0.0 { sum.times(1.0 / seconds) } else { sum }
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            acked: self.acked + other.acked,
            delivered: self.delivered + other.delivered,
            logins: self.logins + other.logins,
        }
    }

    pub(crate) fn times(&self, factor: f64) -> Self {
        Self {
            sent: self.sent * factor,
            acked: self.acked * factor,
            delivered: self.delivered * factor,
            logins: self.logins * factor,
        }
    }
}

/// What the receivers found, in the whole run: a message of the warm-up must not be lost either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correctness {
    /// Messages that were written to a session, each once however often it was repeated.
    pub sent: u64,
    /// Messages that were acknowledged.
    pub acked: u64,
    /// Deliveries of messages of this run: one for each message and receiving session.
    pub delivered: u64,
    /// Deliveries of acknowledged messages that never came, and that the log did not have when the
    /// receiver asked for them.
    pub lost: u64,
    /// Deliveries of acknowledged messages that did not come before the run ended, to receivers that
    /// could not ask, or were not answered: they may be in the log.
    #[serde(default)]
    pub unchecked: u64,
    /// Deliveries that came again to a session that had them.
    pub duplicated: u64,
    /// Deliveries that came behind a later one of the same conversation.
    pub reordered: u64,
    /// Payloads whose checksum, length or place is wrong.
    pub corrupted: u64,
    /// Acknowledgements of messages that were not under way, or with another place in the
    /// conversation than the receivers saw.
    pub false_acks: u64,
    /// Deliveries of this run's messages to sessions that they were not written to.
    #[serde(default)]
    pub misdelivered: u64,
    /// Deliveries of what this run did not write: its users have a history, or others write to them.
    /// Nothing is wrong with them.
    pub foreign: u64,
    /// Deliveries that came only because the receiver asked for them: after a login, after `Behind`,
    /// or because it saw a gap. Nothing is wrong with them.
    pub recovered: u64,
}

/// One second of a run, or a few of a long one. Several generators' points of the same time add up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// From the start of the run: this point is about `second` to `second + seconds`.
    pub second: u32,
    /// How many seconds it is about.
    #[serde(default = "one")]
    pub seconds: u32,
    /// In which most of it lies.
    pub phase: Phase,
    /// Logged-in sessions at its end.
    pub connected: u64,
    /// Connections being made at its end.
    pub connecting: u64,
    /// Messages written, acknowledged, delivered within it.
    pub sent: u64,
    /// See `sent`.
    pub acked: u64,
    /// See `sent`.
    pub delivered: u64,
    /// Resident memory of this program at its end, bytes.
    pub generator_rss: u64,
    /// Processor time of this program within it, in cores.
    pub generator_cpu: f64,
    /// The same of the gateway, where known.
    pub target_rss: Option<u64>,
    /// See `target_rss`.
    pub target_cpu: Option<f64>,
    /// How the machines fared within it.
    #[serde(default)]
    pub health: Health,
    /// What ended within it.
    pub operations: BTreeMap<Operation, PointOperation>,
}

/// How this machine and the generator on it fared in one second. Where the system does not say, 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Share of a core that the busiest shard's thread used.
    pub busiest_shard: f64,
    /// Share of the second in which a shard's thread could have run and had no core: the worst one.
    pub starved_shard: f64,
    /// Cores that programs other than this one and a target of which the process is known used, on
    /// those cores that the two may use. Of a single second it is only about right.
    #[serde(default)]
    pub others_cpu: Option<f64>,
    /// How long after its end the shards had accounted for the second, in seconds.
    pub behind: f64,
    /// Datagrams that this program's sockets dropped for want of room.
    pub socket_drops: u64,
    /// The same of the target's sockets, where its process is known.
    pub target_socket_drops: Option<u64>,
    /// Datagrams that came in on this machine, for any program.
    pub udp_received: u64,
    /// Datagrams that any program's sockets dropped for want of room.
    pub udp_dropped_in: u64,
    /// Datagrams that any program could not send for want of room.
    pub udp_dropped_out: u64,
    /// Memory that could be had without swapping at the end, bytes.
    pub memory_available: Option<u64>,
    /// Bytes swapped in and out, by any program.
    pub swapped: u64,
    /// Descriptors of this program at the end.
    pub open_files: u64,
}

fn one() -> u32 {
    1
}

/// One operation within one second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PointOperation {
    /// Successes.
    pub count: u64,
    /// Failures.
    pub errors: u64,
    /// See [`OperationRecord`].
    pub late: u64,
    /// See [`OperationRecord`].
    pub dropped: u64,
    /// Response times.
    pub response: Packed,
    /// Service times.
    pub service: Packed,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Seconds from the start of the run.
    pub at: f64,
    /// What, in a few words.
    pub what: String,
}

/// Memory and processor time of a program.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Footprint {
    /// Resident bytes that one more session costs: a slope between two numbers of sessions, not a
    /// total divided by their number. `None` without two numbers far enough apart.
    pub bytes_per_session: Option<f64>,
    /// Between which numbers of sessions.
    pub between: Option<(u64, u64)>,
    /// Most resident memory, bytes.
    pub peak_rss: u64,
    /// Processor time of the measured phase, in seconds.
    pub cpu_seconds: f64,
}

/// One step of a ramp.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Load that was asked for: messages a second, or what the ramp raises.
    pub load: f64,
    /// What was done a second.
    pub throughput: Throughput,
    /// Which objectives broke, as text; none: the step is good.
    pub broken: Vec<String>,
    /// Of a bad step: what the generator was short of. If anything, the step says nothing of the
    /// target.
    #[serde(default)]
    pub limits: Vec<Reason>,
    /// What was counted while it was measured and answered; none of outcomes of older versions.
    #[serde(default)]
    pub counts: Option<StepCounts>,
    /// What was measured.
    pub measured: Recording,
}

/// What one step of a ramp counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepCounts {
    /// `connected` is at its end; losses and failures are those of the step.
    pub sessions: Sessions,
    /// Of the step, as far as it was known by its end.
    pub correctness: Correctness,
}

/// A running run, for a live view and for metrics.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Seconds since the start.
    pub elapsed: f64,
    /// Seconds to the end of the plan; `None` while the ramp lasts.
    pub remaining: Option<f64>,
    /// Where it is.
    pub phase: Phase,
    /// So far.
    pub sessions: Sessions,
    /// Connections being made.
    pub connecting: u64,
    /// So far.
    pub correctness: Correctness,
    /// The last whole second.
    pub last: Option<Point>,
    /// Reasons for which the run is not valid, as far as they are known.
    pub reasons: Vec<Reason>,
}

impl Outcome {
    /// A run of which nothing is known.
    pub fn nothing(plan: &Plan) -> Self {
        Self {
            schema: SCHEMA,
            plan: plan.without_secrets(),
            shares: vec![Share::whole(plan.id)],
            started_ms: 0,
            reasons: Vec::new(),
            notes: Vec::new(),
            ended_early: false,
            phases: PhaseSeconds::default(),
            sessions: Sessions { planned: plan.sessions(), ..Sessions::default() },
            correctness: Correctness::default(),
            throughput: Throughput::default(),
            measured: Recording::new(),
            unmeasured: Recording::new(),
            timeline: Vec::new(),
            marks: Vec::new(),
            generator: Footprint::default(),
            target: None,
            steps: Vec::new(),
            generators: Vec::new(),
            environment: Environment::default(),
        }
    }

    /// Whether the figures may be believed.
    pub fn valid(&self) -> bool {
        self.reasons.is_empty()
    }

    /// What a report says about an operation. Where sessions are only made before the measured
    /// phase, connects and logins are those of the ramp.
    pub fn record_of(&self, operation: Operation) -> Option<&OperationRecord> {
        let measured = self.measured.get(operation);
        match operation {
            Operation::Connect | Operation::Login => {
                measured.or_else(|| self.unmeasured.get(operation))
            }
            _ => measured,
        }
    }

    /// Messages acknowledged a second in the measured phase.
    pub fn rate_per_second(&self) -> f64 {
        self.throughput.acked
    }
}

/// The bad step of the least load, above which a search does not go.
pub fn least_bad(steps: &[Step]) -> Option<&Step> {
    let bad = steps.iter().filter(|step| !step.is_good());
    bad.min_by(|a, b| a.load.total_cmp(&b.load))
}

impl Step {
    /// Whether nothing breaks it.
    pub fn is_good(&self) -> bool {
        self.broken.is_empty()
    }
}

impl Correctness {
    /// What has been found since an earlier account. What is taken back, such as a loss that was none,
    /// counts as nothing.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            acked: self.acked.saturating_sub(before.acked),
            delivered: self.delivered.saturating_sub(before.delivered),
            lost: self.lost.saturating_sub(before.lost),
            unchecked: self.unchecked.saturating_sub(before.unchecked),
            duplicated: self.duplicated.saturating_sub(before.duplicated),
            reordered: self.reordered.saturating_sub(before.reordered),
            corrupted: self.corrupted.saturating_sub(before.corrupted),
            false_acks: self.false_acks.saturating_sub(before.false_acks),
            misdelivered: self.misdelivered.saturating_sub(before.misdelivered),
            foreign: self.foreign.saturating_sub(before.foreign),
            recovered: self.recovered.saturating_sub(before.recovered),
        }
    }

    /// Whether every message is known to have been treated as it must be.
    pub fn is_clean(&self) -> bool {
        self.lost
            + self.unchecked
            + self.duplicated
            + self.reordered
            + self.corrupted
            + self.false_acks
            + self.misdelivered
            == 0
    }
}

impl PointOperation {
    /// What one second's recording says of an operation.
    pub fn of(record: &OperationRecord) -> Self {
        Self {
            count: record.count(),
            errors: record.failed(),
            late: record.late,
            dropped: record.dropped,
            response: Packed::pack(&record.response),
            service: Packed::pack(&record.service),
        }
    }
}
