//! A made-up outcome for tests: a chat of 30 measured seconds whose every figure is known.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::operation::{Failure, Operation};
use crate::outcome::{
    Footprint, Health, Mark, Outcome, Phase, PhaseSeconds, Point, PointOperation, Throughput,
};
use crate::plan::{
    Algorithm, Arrival, Credentials, Fleet, Identity, Load, Manners, Phases, Plan, Secret, Target,
    Traffic, Trust, Work,
};
use crate::record::Recording;

/// Seconds of the ramp, the warm-up and the measured phase.
const RAMP: u32 = 4;
const WARM_UP: u32 = 3;
const MEASURED: u32 = 30;
/// Messages a second.
const RATE: u64 = 500;

/// A chat of 1,000 pairs at 500 messages a second. Response times are 400 us and up, in one second
/// (a stall) a hundred times as much; service times are half of it.
pub(crate) fn chat() -> Outcome {
    let mut sample = Sample { outcome: empty(), seconds: Vec::new() };
    for second in 0..RAMP {
        sample.ramp(second);
    }
    for second in RAMP..RAMP + WARM_UP + MEASURED {
        let phase = if second < RAMP + WARM_UP { Phase::WarmUp } else { Phase::Measured };
        sample.load(second, phase);
    }
    sample.finish()
}

/// Nothing measured: a run that was ended in its first moment.
pub(crate) fn empty() -> Outcome {
    Outcome { started_ms: 1_795_000_000_000, ..Outcome::nothing(&plan()) }
}

fn plan() -> Plan {
    let target = Target {
        addresses: vec![([127, 0, 0, 1], 7843).into()],
        server_name: "localhost".into(),
        trust: Trust::System,
    };
    let credentials = Credentials::Signed {
        key: Secret(String::new()),
        algorithm: Algorithm::EdDsa,
        key_id: None,
        audience: "skein".into(),
        issuer: None,
        lifetime: Duration::from_secs(3600),
    };
    let identity = Identity { run: "sample".into(), first_user: 0, credentials };
    let load = Load::Rate { per_second: RATE as f64, arrival: Arrival::Even };
    let mut plan = Plan::new("chat", target, identity);
    plan.fleets.push(Fleet {
        name: "chat".into(),
        work: Work::Chat {
            pairs: 1_000,
            both_ways: false,
            traffic: Traffic { load, payload_bytes: 128..=128 },
        },
        connect_rate: 500.0,
        manners: Manners::default(),
    });
    plan.phases = Phases {
        warm_up: Duration::from_secs(WARM_UP.into()),
        measured: Duration::from_secs(MEASURED.into()),
        ..Phases::default()
    };
    plan
}

struct Sample {
    outcome: Outcome,
    seconds: Vec<Recording>,
}

impl Sample {
    fn ramp(&mut self, second: u32) {
        let mut recording = Recording::new();
        for step in 0..RATE {
            recording.success(Operation::Connect, 1_000 + 7 * step, 900 + 7 * step);
            recording.success(Operation::Login, 400 + 3 * step, 400 + 3 * step);
        }
        self.outcome.sessions.logins += RATE;
        self.outcome.sessions.connected += RATE;
        self.point(second, Phase::Ramp, recording);
    }

    fn load(&mut self, second: u32, phase: Phase) {
        let mut recording = Recording::new();
        let stall = second == RAMP + WARM_UP + 20;
        let factor = if stall { 100 } else { 1 };
        for step in 0..RATE {
            // A long tail: one in a hundred takes ten times as long.
            let tail = if step % 100 == 99 { 10 } else { 1 };
            let us = (400 + step) * tail * factor;
            recording.success(Operation::SendAck, us, us / 2);
            recording.success(Operation::Deliver, us + 100, us / 2 + 100);
        }
        if stall {
            recording.failure(Operation::SendAck, Failure::Code(300));
            recording.failure(Operation::SendAck, Failure::TimedOut);
            (0..5).for_each(|_| recording.late(Operation::SendAck));
            recording.dropped(Operation::SendAck, 2);
            self.outcome.marks.push(Mark { at: second.into(), what: "the target stalled".into() });
        }
        self.outcome.correctness.sent += RATE;
        self.outcome.correctness.acked += RATE;
        self.outcome.correctness.delivered += RATE;
        self.point(second, phase, recording);
    }

    fn point(&mut self, second: u32, phase: Phase, recording: Recording) {
        let written = if phase == Phase::Ramp { 0 } else { RATE };
        let operations: BTreeMap<Operation, PointOperation> = recording
            .iter()
            .map(|(operation, record)| (operation, PointOperation::of(record)))
            .collect();
        let whole = if phase == Phase::Measured {
            &mut self.outcome.measured
        } else {
            &mut self.outcome.unmeasured
        };
        whole.merge(&recording);
        self.seconds.push(recording);
        let connected = self.outcome.sessions.connected;
        self.outcome.timeline.push(Point {
            second,
            seconds: 1,
            phase,
            connected,
            connecting: if phase == Phase::Ramp { 16 } else { 0 },
            sent: written,
            acked: written,
            delivered: written,
            generator_rss: 30_000_000 + connected * 10_000,
            generator_cpu: 0.35,
            target_rss: Some(60_000_000 + connected * 12_000),
            target_cpu: Some(0.55),
            health: Health {
                busiest_shard: 0.2,
                starved_shard: 0.01,
                behind: 0.002,
                target_socket_drops: Some(0),
                udp_received: 4 * RATE,
                memory_available: Some(12 << 30),
                open_files: 40,
                ..Health::default()
            },
            operations,
        });
    }

    fn finish(self) -> Outcome {
        let mut outcome = self.outcome;
        outcome.phases = PhaseSeconds {
            ramp: RAMP.into(),
            warm_up: WARM_UP.into(),
            measured: MEASURED.into(),
            drain: 0.2,
        };
        let rate = RATE as f64;
        outcome.throughput = Throughput { sent: rate, acked: rate, delivered: rate, logins: 0.0 };
        outcome.sessions.peak = outcome.sessions.connected;
        outcome.sessions.lowest = outcome.sessions.connected;
        outcome.generator = Footprint {
            bytes_per_session: Some(10_000.0),
            between: Some((1_000, 2_000)),
            peak_rss: 50_000_000,
            cpu_seconds: 10.5,
        };
        outcome.target = Some(Footprint {
            bytes_per_session: Some(12_000.0),
            between: Some((1_000, 2_000)),
            peak_rss: 84_000_000,
            cpu_seconds: 16.5,
        });
        outcome
    }
}
