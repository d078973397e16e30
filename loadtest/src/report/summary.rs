//! `summary.json`: the figures of a run for scripts. Its schema is written by `skein-load schema`
//! and kept in `loadtest/schema/`; a field never changes its meaning, fields may be added.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::failed::failures;
use super::health::{AgentSummary, HealthSummary};
use super::knee::Knee;
use super::timeline::{Slot, Timeline};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::objective::{Objective, Verdict};
use crate::operation::Operation;
use crate::outcome::{Footprint, Outcome};
use crate::packed::NotAHistogram;
use crate::plan::Fleet;
use crate::record::{OperationRecord, Recording};
use crate::share::Share;

/// Version of the form: rises when a reader of the old form would misread the new.
pub const SCHEMA: u32 = 1;

/// The figures of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Version of this form, 1.
    pub schema: u32,
    /// Program and version that measured.
    pub program: String,
    /// Id of the run, 32 hexadecimal digits; of reports that were joined that of the first one.
    pub run: String,
    /// Whose load the figures are the sum of: one entry for a run on one machine, one for each agent
    /// that did its share to the end, and of reports that were joined all of theirs.
    pub shares: Vec<Share>,
    /// Name of the scenario.
    pub scenario: String,
    /// When the run began, RFC 3339 in UTC.
    pub started: String,
    /// Whether the figures may be believed: nothing stands in `reasons`.
    pub valid: bool,
    /// Why the figures must not be believed.
    pub reasons: Vec<Reason>,
    /// What must be known of the figures, and does not make them wrong.
    #[serde(default)]
    pub notes: Vec<Note>,
    /// Valid, whole, every objective holds, every message was treated as it must be, and nothing
    /// stands in `failures`.
    pub passed: bool,
    /// What fails the run without an objective about it. never_succeeded: an operation was tried and
    /// failed each time. error_rate: more than 1 % of an operation failed, and no objective states
    /// its `errors` or `error_rate`.
    #[serde(default)]
    pub failures: Vec<Reason>,
    /// It was ended before its time; the figures stand for what was measured.
    pub ended_early: bool,
    /// Each objective, and whether it holds.
    #[schemars(with = "Vec<VerdictSchema>")]
    pub objectives: Vec<Verdict>,
    /// What each fleet was asked to do, without its name: what `compare` finds runs alike by.
    #[serde(default)]
    pub fleets: Vec<serde_json::Value>,
    /// Sessions that were asked for.
    pub planned: u64,
    /// Sessions that were logged in when the measured phase ended.
    pub connected: u64,
    /// Most sessions at a time.
    pub peak: u64,
    /// Fewest sessions at a time in the measured phase.
    pub lowest: u64,
    /// Logins of the whole run.
    pub logins: u64,
    /// Sessions that ended although the plan did not want it, in the whole run.
    pub sessions_lost: u64,
    /// Attempts that did not lead to a session, in the whole run.
    pub sessions_failed: u64,
    /// Sessions whose end the plan wanted: silent ones that the gateway evicted, those of a storm,
    /// those that it asked to go. In the whole run.
    #[serde(default)]
    pub sessions_ended_as_planned: u64,
    /// Handshakes that went on from a session's own ticket instead of a certificate: those of
    /// sessions that came back, in a run with tickets. In the whole run.
    #[serde(default)]
    pub handshakes_resumed: u64,
    /// Why sessions ended, or attempts failed, against the plan.
    pub session_ends: BTreeMap<String, u64>,
    /// Messages written, in the whole run.
    pub sent: u64,
    /// Messages acknowledged as durable, in the whole run.
    pub acked: u64,
    /// Messages that arrived, once for each receiving session, in the whole run.
    pub delivered: u64,
    /// Arrivals of acknowledged messages that never came, and that the gateway did not have when the
    /// receiver asked for them.
    pub lost: u64,
    /// Arrivals of acknowledged messages that did not come before the run ended, at receivers that
    /// could not ask for them, or were not answered. Whether they are lost is not known, so the run
    /// does not pass.
    #[serde(default)]
    pub unchecked: u64,
    /// Arrivals at a session that had the message already.
    pub duplicated: u64,
    /// Arrivals behind a later message of the same conversation.
    pub reordered: u64,
    /// Arrivals with a wrong checksum, length or place.
    pub corrupted: u64,
    /// Acknowledgements of messages that were not under way, or that say another place in the
    /// conversation than the receivers saw.
    pub false_acks: u64,
    /// Arrivals of this run's messages at sessions that they were not written to.
    #[serde(default)]
    pub misdelivered: u64,
    /// Arrivals of what this run did not write: its users have a history, or others write to them.
    /// Nothing is wrong with them.
    pub foreign: u64,
    /// Arrivals that came only because the receiver asked for them, after a login or a gap. Nothing
    /// is wrong with them.
    pub recovered: u64,
    /// Messages acknowledged a second in the measured phase.
    pub rate_per_second: f64,
    /// Messages a second that were due in the measured phase; null where no timetable says so.
    #[serde(default)]
    pub offered_per_second: Option<f64>,
    /// Messages that arrived a second in the measured phase.
    pub delivered_per_second: f64,
    /// Logins a second in the measured phase.
    pub logins_per_second: f64,
    /// Resident memory that one more session costs the gateway, bytes: a slope between two numbers
    /// of sessions. Null if the gateway is not on this machine, without two numbers, and of reports that
    /// were joined.
    pub gateway_bytes_per_session: Option<f64>,
    /// The same of the generator.
    pub generator_bytes_per_session: Option<f64>,
    /// Memory and processor time of the gateway, if it is known.
    pub gateway: Option<Process>,
    /// Memory and processor time of the generator.
    pub generator: Process,
    /// How the generator and its machine fared in the measured phase: what says whether the run is
    /// valid.
    #[serde(default)]
    pub health: HealthSummary,
    /// The machines that made the load, if these were several.
    #[serde(default)]
    pub agents: Vec<AgentSummary>,
    /// Where and how the run was made.
    #[serde(default)]
    pub environment: Environment,
    /// Lengths of the phases, seconds.
    pub phases: PhaseLengths,
    /// Every operation by name: connect, login, send_ack, deliver, fan_out, sync, resume.
    #[schemars(with = "BTreeMap<String, OperationSummary>")]
    pub operations: BTreeMap<Operation, OperationSummary>,
    /// Steps of a ramp, in the order in which they were made.
    pub steps: Vec<StepSummary>,
    /// What a ramp says about the knee; null for other runs.
    pub knee: Option<Knee>,
    /// What happened at which time.
    pub marks: Vec<MarkSummary>,
    /// The whole run in slots of equal length.
    pub timeline: Timeline,
}

/// A reason not to believe the figures, or for which a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// Which rule was broken, one word of a fixed list. Of those not to believe the figures: late_schedule, dropped_schedule,
    /// generator_cpu, generator_starved, memory_pressure, socket_drops, limits, agent_lost,
    /// generator_failed, ramp_incomplete.
    pub kind: String,
    /// With figures, for people.
    pub detail: String,
}

/// Something that must be known of the figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Note {
    /// What it is about, one word of a fixed list. shared_cores: generator and gateway take turns on
    /// the same cores, and the latencies contain the time for which one waited for the other.
    /// closed_loop: writers waited for answers before they wrote on (`--outstanding`).
    pub kind: String,
    /// With figures, for people.
    pub detail: String,
}

/// An objective and what became of it.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "says what a Verdict looks like")]
struct VerdictSchema {
    /// As it was written.
    objective: String,
    /// It holds.
    holds: bool,
    /// What was measured: microseconds, bytes, a share of 1, or a number. Null: not measured.
    measured: Option<f64>,
    /// The same for people.
    shown: String,
}

/// Memory and processor time of a program.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Resident bytes that one more session costs.
    pub bytes_per_session: Option<f64>,
    /// The two numbers of sessions between which that was read.
    pub between_sessions: Option<(u64, u64)>,
    /// Most resident memory, bytes.
    pub peak_rss_bytes: u64,
    /// Processor time of the measured phase, seconds.
    pub cpu_seconds: f64,
    /// The same divided by the length of the phase: cores in use.
    pub cpu_cores: f64,
}

/// Lengths of the phases, seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PhaseLengths {
    /// Sessions are made.
    pub ramp: f64,
    /// The load runs unmeasured.
    pub warm_up: f64,
    /// The load is measured.
    pub measured: f64,
    /// What is under way may still arrive.
    pub drain: f64,
}

/// Which part of the run an operation's figures are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The measured phase.
    Measured,
    /// Everything else: connects and logins where sessions are only made before the measured phase.
    Unmeasured,
}

/// One operation. Times are response times, from the moment at which the operation was due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationSummary {
    /// Which part of the run this is about.
    pub part: Part,
    /// Successes.
    pub count: u64,
    /// Failures.
    pub errors: u64,
    /// Failures by kind.
    pub error_kinds: BTreeMap<String, u64>,
    /// Failures among all that ended, 0 to 1.
    pub error_rate: f64,
    /// Begun later after they were due than allowed.
    pub late: u64,
    /// Never begun.
    pub dropped: u64,
    /// Successes of sessions that read slowly or were away, whose times say nothing of the gateway.
    /// They are in `count`, and in no time.
    #[serde(default)]
    pub untimed: u64,
    /// Held back by the window: due while as many messages of the session were unanswered as the
    /// gateway allows. Response times contain the wait, service times do not; it is not `late`.
    #[serde(default)]
    pub held_back: u64,
    /// The longest of these waits, from when the message was due; null where there was none.
    #[serde(default)]
    pub held_back_longest_us: Option<u64>,
    /// Took longer than 60 s, and stand in the figures as 60 s.
    pub beyond: u64,
    /// Successes a second of the measured phase; null for another part.
    pub per_second: Option<f64>,
    /// From the moment at which it was due: what a user feels.
    #[serde(flatten)]
    pub response: Latency,
    /// From the moment at which it was begun: what the gateway took.
    pub service: Latency,
}

/// Times in microseconds; null where nothing was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// The shortest.
    pub min_us: Option<u64>,
    /// Mean; of no use without the percentiles.
    pub mean_us: Option<f64>,
    /// Half were no longer than this.
    pub p50_us: Option<u64>,
    /// 90 % were no longer than this.
    pub p90_us: Option<u64>,
    /// 99 % were no longer than this.
    pub p99_us: Option<u64>,
    /// 99.9 % were no longer than this.
    pub p999_us: Option<u64>,
    /// 99.99 % were no longer than this.
    pub p9999_us: Option<u64>,
    /// The longest.
    pub max_us: Option<u64>,
}

/// One step of a ramp.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepSummary {
    /// Load that was asked for.
    pub load: f64,
    /// Messages acknowledged a second.
    pub acked_per_second: f64,
    /// Every objective holds.
    pub good: bool,
    /// Objectives that broke.
    pub broken: Vec<String>,
    /// What was measured.
    #[schemars(with = "BTreeMap<String, OperationSummary>")]
    pub operations: BTreeMap<Operation, OperationSummary>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MarkSummary {
    /// Seconds from the start of the run.
    pub at: f64,
    /// What, in a few words.
    pub what: String,
}

impl Summary {
    /// Sums a run up.
    ///
    /// # Errors
    /// A histogram of an outcome that came from elsewhere is none.
    pub fn new(outcome: &Outcome, objectives: &[Objective]) -> Result<Self, NotAHistogram> {
        let failures = failures(outcome, objectives);
        let objectives: Vec<Verdict> =
            objectives.iter().map(|objective| objective.judge(outcome)).collect();
        let (sessions, found) = (&outcome.sessions, &outcome.correctness);
        let seconds = outcome.phases.measured;
        let passed = outcome.valid()
            && !outcome.ended_early
            && found.is_clean()
            && failures.is_empty()
            && objectives.iter().all(|verdict| verdict.holds);
        Ok(Self {
            schema: SCHEMA,
            program: concat!("skein-load ", env!("CARGO_PKG_VERSION")).into(),
            run: outcome.plan.id.to_string(),
            shares: outcome.shares.clone(),
            scenario: outcome.plan.scenario.clone(),
            started: rfc3339(outcome.started_ms),
            valid: outcome.valid(),
            reasons: outcome.reasons.iter().map(Reason::new).collect(),
            notes: outcome.notes.iter().map(Note::new).collect(),
            passed,
            failures,
            ended_early: outcome.ended_early,
            objectives,
            fleets: outcome.plan.fleets.iter().filter_map(asked).collect(),
            planned: sessions.planned,
            connected: sessions.connected,
            peak: sessions.peak,
            lowest: sessions.lowest,
            logins: sessions.logins,
            sessions_lost: sessions.lost,
            sessions_failed: sessions.failed,
            sessions_ended_as_planned: sessions.expected,
            handshakes_resumed: sessions.resumed,
            session_ends: named(&sessions.ends),
            sent: found.sent,
            acked: found.acked,
            delivered: found.delivered,
            lost: found.lost,
            unchecked: found.unchecked,
            duplicated: found.duplicated,
            reordered: found.reordered,
            corrupted: found.corrupted,
            false_acks: found.false_acks,
            misdelivered: found.misdelivered,
            foreign: found.foreign,
            recovered: found.recovered,
            rate_per_second: outcome.rate_per_second(),
            offered_per_second: outcome.plan.offered(),
            delivered_per_second: outcome.throughput.delivered,
            logins_per_second: outcome.throughput.logins,
            gateway_bytes_per_session: outcome.target.as_ref().and_then(|t| t.bytes_per_session),
            generator_bytes_per_session: outcome.generator.bytes_per_session,
            gateway: outcome.target.as_ref().map(|target| Process::new(target, seconds)),
            generator: Process::new(&outcome.generator, seconds),
            health: HealthSummary::new(&outcome.timeline),
            agents: outcome.generators.iter().map(|one| AgentSummary::new(one, seconds)).collect(),
            environment: outcome.environment.clone(),
            phases: PhaseLengths {
                ramp: outcome.phases.ramp,
                warm_up: outcome.phases.warm_up,
                measured: outcome.phases.measured,
                drain: outcome.phases.drain,
            },
            operations: Operation::ALL
                .into_iter()
                .map(|operation| {
                    let part = match outcome.measured.get(operation) {
                        None if outcome.record_of(operation).is_some() => Part::Unmeasured,
                        _ => Part::Measured,
                    };
                    let record = outcome.record_of(operation);
                    (operation, OperationSummary::new(part, record, seconds))
                })
                .collect(),
            steps: outcome
                .steps
                .iter()
                .map(|step| StepSummary {
                    load: step.load,
                    acked_per_second: step.throughput.acked,
                    good: step.broken.is_empty(),
                    broken: step.broken.clone(),
                    operations: all_of(&step.measured),
                })
                .collect(),
            knee: Knee::of(outcome),
            marks: outcome
                .marks
                .iter()
                .map(|mark| MarkSummary { at: mark.at, what: mark.what.clone() })
                .collect(),
            timeline: Timeline::new(&outcome.timeline)?,
        })
    }

    /// The exit status that it stands for.
    pub fn exit(&self) -> Exit {
        // What was cut short can neither meet nor miss what was asked for.
        if self.ended_early {
            Exit::EndedEarly
        } else if !self.valid {
            Exit::Invalid
        } else if !self.passed {
            Exit::ObjectiveMissed
        } else {
            Exit::Ok
        }
    }

    /// Counters of messages that were not treated as they must be, with their names.
    pub fn faults(&self) -> [(&'static str, u64); 7] {
        [
            ("lost", self.lost),
            ("unchecked", self.unchecked),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("corrupted", self.corrupted),
            ("false_acks", self.false_acks),
            ("misdelivered", self.misdelivered),
        ]
    }

    /// The slots of the timeline.
    pub fn slots(&self) -> &[Slot] {
        &self.timeline.slots
    }
}

/// A fleet without its name.
fn asked(fleet: &Fleet) -> Option<serde_json::Value> {
    let mut fleet = serde_json::to_value(fleet).ok()?;
    fleet.as_object_mut()?.remove("name");
    Some(fleet)
}

impl Reason {
    fn new(reason: &crate::outcome::Reason) -> Self {
        Self { kind: word(reason.kind), detail: reason.detail.clone() }
    }
}

impl Note {
    fn new(note: &crate::outcome::Note) -> Self {
        Self { kind: word(note.kind), detail: note.detail.clone() }
    }
}

/// The word that serde has for a kind.
fn word(kind: impl Serialize) -> String {
    let kind = serde_json::to_value(kind).ok();
    kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or_default().to_owned()
}

impl Process {
    pub(super) fn new(footprint: &Footprint, seconds: f64) -> Self {
        Self {
            bytes_per_session: footprint.bytes_per_session,
            between_sessions: footprint.between,
            peak_rss_bytes: footprint.peak_rss,
            cpu_seconds: footprint.cpu_seconds,
            cpu_cores: if seconds > 0.0 { footprint.cpu_seconds / seconds } else { 0.0 },
        }
    }
}

impl OperationSummary {
    fn new(part: Part, record: Option<&OperationRecord>, seconds: f64) -> Self {
        let per_second = |count: u64| (seconds > 0.0).then(|| count as f64 / seconds);
        let Some(record) = record else {
            return Self {
                part,
                count: 0,
                errors: 0,
                error_kinds: BTreeMap::new(),
                error_rate: 0.0,
                late: 0,
                dropped: 0,
                untimed: 0,
                held_back: 0,
                held_back_longest_us: None,
                beyond: 0,
                per_second: per_second(0),
                response: Latency::default(),
                service: Latency::default(),
            };
        };
        Self {
            part,
            count: record.count(),
            errors: record.failed(),
            error_kinds: named(&record.errors),
            error_rate: record.error_rate(),
            late: record.late,
            dropped: record.dropped,
            untimed: record.untimed,
            held_back: record.held_back,
            held_back_longest_us: (record.held_back > 0).then_some(record.held_back_longest_us),
            beyond: record.beyond,
            per_second: per_second(record.count()).filter(|_| part == Part::Measured),
            response: Latency::of(&record.response),
            service: Latency::of(&record.service),
        }
    }
}

impl Latency {
    /// The figures of a histogram of microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| Some(histogram.value_at_quantile(quantile));
        Self {
            min_us: Some(histogram.min()),
            mean_us: Some((histogram.mean() * 10.0).round() / 10.0),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: Some(histogram.max()),
        }
    }
}

fn all_of(recording: &Recording) -> BTreeMap<Operation, OperationSummary> {
    // How long a step was measured is not told, so neither is a rate of each operation.
    let summary = |record| OperationSummary::new(Part::Measured, Some(record), 0.0);
    recording.iter().map(|(operation, record)| (operation, summary(record))).collect()
}

fn named<K: ToString>(counts: &BTreeMap<K, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(kind, count)| (kind.to_string(), *count)).collect()
}

fn rfc3339(unix_ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(unix_ms);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// The schema as JSON Schema (2020-12).
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Summary).to_value()
}
