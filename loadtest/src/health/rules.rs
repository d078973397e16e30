//! What makes a run invalid. Each rule is about the generator, never about the target: a slow target
//! is a finding, a slow generator is none.

use super::cores::{Starved, percent};
use crate::outcome::{Health, Note, NoteKind, Phase, Point, Reason, ReasonKind};
use crate::plan::{Load, Plan};
use crate::record::Recording;

/// Datagrams that this program's sockets may drop, among those that came in on this machine. Each one
/// is sent again after a probe timeout, and then stands in the figures as if the target had been slow;
/// one in ten thousand does not reach the 99.9th percentile.
const MAX_DROPS: f64 = 0.0001;

/// The machine must have so much memory to spare at all times. With less the kernel takes back
/// pages of programs, and both sides wait for the disk.
const LEAST_MEMORY: u64 = 256 << 20;

/// Bytes that may be swapped in the measured phase.
const MAX_SWAPPED: u64 = 16 << 20;

/// Share of the descriptors that this program may have open.
const MAX_FILES: f64 = 0.95;

/// A standstill of the generator is never shorter than this, seconds: the account of a second is late
/// for many small reasons.
const STANDSTILL: f64 = 1.0;

/// All that the rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// What was to be done, and the bounds.
    pub plan: &'a Plan,
    /// Of the measured phase.
    pub measured: &'a Recording,
    /// The whole run.
    pub points: &'a [Point],
    /// What [`busy_stretches`](super::busy_stretches) finds in them.
    pub busy: &'a [Option<(f64, String)>],
    /// What [`starved_stretches`](super::starved_stretches) finds in them.
    pub starved: &'a [Option<Starved>],
    /// Of a ramp: which of its measured stretches were good, in their order. Figures come from those
    /// alone.
    pub good: &'a [bool],
    /// Sessions that could not even be begun.
    pub not_begun: u64,
    /// Descriptors that this program may have.
    pub max_files: Option<u64>,
}

/// Every reason not to believe the figures.
pub fn reasons(evidence: &Evidence<'_>) -> Vec<Reason> {
    let measured: Vec<&Health> = evidence
        .points
        .iter()
        .filter(|point| point.phase == Phase::Measured)
        .map(|point| &point.health)
        .collect();
    let found = [
        standstill(&measured, evidence.plan),
        processor(evidence),
        starved(evidence),
        sockets(&measured),
        memory(evidence.points),
        swapping(&measured),
        files(evidence),
        ports(evidence.not_begun),
    ];
    let timetable = timetable(evidence.measured, evidence.plan);
    timetable.into_iter().chain(found.into_iter().flatten()).collect()
}

/// Whether what was due was begun, and begun in time.
pub(super) fn timetable(measured: &Recording, plan: &Plan) -> Vec<Reason> {
    [dropped(measured), late(measured, plan)].into_iter().flatten().collect()
}

/// What a reader of the figures must know, and what does not make them wrong.
pub fn notes(evidence: &Evidence<'_>) -> Vec<Note> {
    let shared = evidence.counted(evidence.starved).filter(|one| one.is_shared);
    let worst = shared.max_by(|a, b| a.waited.total_cmp(&b.waited));
    let shared =
        worst.map(|worst| Note { kind: NoteKind::SharedCores, detail: worst.detail.clone() });
    shared.into_iter().chain(closed_loop(evidence.plan)).collect()
}

fn closed_loop(plan: &Plan) -> Option<Note> {
    let mut loads = plan.fleets.iter().filter_map(|fleet| fleet.work.traffic());
    let closed = loads.any(|traffic| matches!(traffic.load, Load::Outstanding(_)));
    closed.then(|| Note {
        kind: NoteKind::ClosedLoop,
        detail: "writers waited for answers before they wrote on: a gateway that is slow is asked \
                 for less, and latencies are not what users feel"
            .into(),
    })
}

impl Evidence<'_> {
    /// What was found in stretches whose figures count: all of them in most runs, the good steps of
    /// a ramp.
    fn counted<'a, T>(&self, stretches: &'a [Option<T>]) -> impl Iterator<Item = &'a T> {
        let good = self.good;
        let counts = move |at: usize| !good.contains(&true) || good.get(at) == Some(&true);
        let counted = stretches.iter().enumerate().filter(move |(at, _)| counts(*at));
        counted.filter_map(|(_, found)| found.as_ref())
    }
}

fn reason(kind: ReasonKind, detail: String) -> Option<Reason> {
    Some(Reason { kind, detail })
}

/// Sum of a count over the operations that have a timetable.
fn begun(measured: &Recording) -> (u64, u64, u64) {
    let timed = measured.iter().filter(|(_, record)| record.late + record.dropped > 0);
    timed.fold((0, 0, 0), |(late, dropped, begun), (_, record)| {
        let ended = record.count() + record.failed();
        (late + record.late, dropped + record.dropped, begun + ended)
    })
}

fn dropped(measured: &Recording) -> Option<Reason> {
    let (_, dropped, begun) = begun(measured);
    if dropped == 0 {
        return None;
    }
    let detail = format!("{dropped} of {} were never begun", begun + dropped);
    reason(ReasonKind::DroppedSchedule, detail)
}

fn late(measured: &Recording, plan: &Plan) -> Option<Reason> {
    let (late, _, begun) = begun(measured);
    if late as f64 <= plan.bounds.late * begun as f64 {
        return None;
    }
    let limit = plan.late_after;
    let detail = format!(
        "{late} of {begun} were begun more than {limit:?} too late; {} may be",
        percent(plan.bounds.late)
    );
    reason(ReasonKind::LateSchedule, detail)
}

/// A generator that stands still as a whole is late with nothing when it has no timetable.
fn standstill(measured: &[&Health], plan: &Plan) -> Option<Reason> {
    let longest = measured.iter().map(|health| health.behind).fold(0.0, f64::max);
    let limit = plan.drop_after.as_secs_f64().max(STANDSTILL);
    if longest <= limit {
        return None;
    }
    let detail = format!("the generator stood still for {longest:.1} s");
    reason(ReasonKind::LateSchedule, detail)
}

fn processor(evidence: &Evidence<'_>) -> Option<Reason> {
    let busy = evidence.counted(evidence.busy);
    let worst = busy.max_by(|a, b| a.0.total_cmp(&b.0))?;
    reason(ReasonKind::GeneratorCpu, worst.1.clone())
}

fn starved(evidence: &Evidence<'_>) -> Option<Reason> {
    let starved = evidence.counted(evidence.starved).filter(|one| !one.is_shared);
    let worst = starved.max_by(|a, b| a.waited.total_cmp(&b.waited))?;
    reason(ReasonKind::GeneratorStarved, worst.detail.clone())
}

fn sockets(measured: &[&Health]) -> Option<Reason> {
    let sum = |part: fn(&Health) -> u64| measured.iter().map(|health| part(health)).sum::<u64>();
    let dropped = sum(|health| health.socket_drops);
    let received = sum(|health| health.udp_received);
    if dropped as f64 > MAX_DROPS * (received + dropped) as f64 {
        let detail = format!(
            "the kernel dropped {dropped} datagrams for want of room in this program's sockets \
             ({received} came in on this machine)"
        );
        return reason(ReasonKind::SocketDrops, detail);
    }
    let unsent = sum(|health| health.udp_dropped_out);
    if unsent as f64 > MAX_DROPS * (received + unsent) as f64 {
        let detail =
            format!("{unsent} datagrams of this machine could not be sent for want of room");
        return reason(ReasonKind::SocketDrops, detail);
    }
    None
}

fn memory(points: &[Point]) -> Option<Reason> {
    let least = points.iter().filter_map(|point| point.health.memory_available).min()?;
    if least >= LEAST_MEMORY {
        return None;
    }
    let (least, limit) = (least >> 20, LEAST_MEMORY >> 20);
    let detail = format!("only {least} MiB of memory were left; {limit} MiB are needed");
    reason(ReasonKind::MemoryPressure, detail)
}

fn swapping(measured: &[&Health]) -> Option<Reason> {
    let swapped: u64 = measured.iter().map(|health| health.swapped).sum();
    if swapped <= MAX_SWAPPED {
        return None;
    }
    let detail = format!("{} MiB were swapped while it was measured", swapped >> 20);
    reason(ReasonKind::MemoryPressure, detail)
}

fn files(evidence: &Evidence<'_>) -> Option<Reason> {
    let most = evidence.points.iter().map(|point| point.health.open_files).max()?;
    let limit = evidence.max_files?;
    if most as f64 <= MAX_FILES * limit as f64 {
        return None;
    }
    let detail = format!("{most} of {limit} file descriptors were in use");
    reason(ReasonKind::Limits, detail)
}

fn ports(not_begun: u64) -> Option<Reason> {
    if not_begun == 0 {
        return None;
    }
    let detail = format!(
        "{not_begun} connections could not be begun: this machine has no more descriptors, ports \
         or places"
    );
    reason(ReasonKind::Limits, detail)
}

#[cfg(test)]
mod tests {
    use super::super::cores::{Place, busy_stretches, starved_stretches};
    use super::*;
    use crate::operation::Operation;
    use crate::sample;

    /// Reasons of a good run of 10 measured seconds that something was done to.
    fn with(change: impl FnOnce(&mut Case)) -> Vec<ReasonKind> {
        found(change).0
    }

    /// The same, and notes.
    fn found(change: impl FnOnce(&mut Case)) -> (Vec<ReasonKind>, Vec<NoteKind>) {
        let health = Health {
            busiest_shard: 0.4,
            udp_received: 10_000,
            memory_available: Some(8 << 30),
            open_files: 30,
            ..Health::default()
        };
        let point = |second| Point {
            second,
            phase: if second < 2 { Phase::WarmUp } else { Phase::Measured },
            health: health.clone(),
            ..Point::default()
        };
        let mut measured = Recording::new();
        (0..1000).for_each(|_| measured.success(Operation::SendAck, 500, 400));
        let mut case = Case {
            plan: sample::empty().plan,
            measured,
            points: (0..12).map(point).collect(),
            good: Vec::new(),
            target: Place::Elsewhere,
            not_begun: 0,
        };
        change(&mut case);
        let evidence = Evidence {
            plan: &case.plan,
            measured: &case.measured,
            points: &case.points,
            busy: &busy_stretches(&case.points, &case.plan.bounds),
            starved: &starved_stretches(&case.points, &case.plan.bounds, case.target),
            good: &case.good,
            not_begun: case.not_begun,
            max_files: Some(1024),
        };
        let found = reasons(&evidence);
        assert!(found.iter().all(|reason| !reason.detail.is_empty()));
        let notes = notes(&evidence);
        assert!(notes.iter().all(|note| !note.detail.is_empty()));
        (
            found.into_iter().map(|reason| reason.kind).collect(),
            notes.into_iter().map(|note| note.kind).collect(),
        )
    }

    struct Case {
        plan: Plan,
        measured: Recording,
        points: Vec<Point>,
        good: Vec<bool>,
        target: Place,
        not_begun: u64,
    }

    #[test]
    fn a_good_run_has_none() {
        assert_eq!(with(|_| {}), []);
        assert_eq!(with(|case| case.points.clear()), []);
    }

    #[test]
    fn a_late_timetable_is_seen_from_its_share_on() {
        let late = |count| {
            move |case: &mut Case| {
                (0..count).for_each(|_| case.measured.late(Operation::SendAck));
            }
        };
        assert_eq!(with(late(10)), []);
        assert_eq!(with(late(11)), [ReasonKind::LateSchedule]);
        let allowed = with(|case| {
            late(11)(case);
            case.plan.bounds.late = 0.02;
        });
        assert_eq!(allowed, []);
        let dropped = with(|case| case.measured.dropped(Operation::SendAck, 1));
        assert_eq!(dropped, [ReasonKind::DroppedSchedule]);
    }

    #[test]
    fn a_standstill_is_seen_where_nothing_was_due() {
        assert_eq!(with(|case| case.points[5].health.behind = 0.9), []);
        assert_eq!(with(|case| case.points[5].health.behind = 3.0), [ReasonKind::LateSchedule]);
        assert_eq!(with(|case| case.points[0].health.behind = 3.0), [], "not measured");
    }

    #[test]
    fn a_busy_thread_is_seen_over_a_stretch_and_not_in_a_second() {
        assert_eq!(with(|case| case.points[5].health.busiest_shard = 1.0), []);
        let all = |share: f64| {
            move |case: &mut Case| {
                case.points.iter_mut().for_each(|point| point.health.busiest_shard = share);
            }
        };
        assert_eq!(with(all(0.94)), []);
        assert_eq!(with(all(0.99)), [ReasonKind::GeneratorCpu]);
        // A ramp: the second of two steps.
        let step = with(|case| {
            case.points[6].phase = Phase::WarmUp;
            case.points[7..].iter_mut().for_each(|point| point.health.busiest_shard = 0.99);
        });
        assert_eq!(step, [ReasonKind::GeneratorCpu]);
        let second = |good: [bool; 2]| {
            with(|case| {
                case.points[6].phase = Phase::WarmUp;
                case.points[7..].iter_mut().for_each(|point| point.health.busiest_shard = 0.99);
                case.good = good.to_vec();
            })
        };
        assert_eq!(second([true, true]), [ReasonKind::GeneratorCpu]);
        assert_eq!(second([true, false]), [], "its figures are not used");
        assert_eq!(second([false, false]), [ReasonKind::GeneratorCpu], "no figures are good");
        let allowed = with(|case| {
            all(0.97)(case);
            case.plan.bounds.shard_cpu = 0.98;
        });
        assert_eq!(allowed, []);
    }

    #[test]
    fn a_starved_thread_is_a_reason_or_a_note() {
        let starved = |target, others, good: &'static [bool]| {
            found(move |case| {
                // A ramp of two steps, the second one starved.
                case.points[6].phase = Phase::WarmUp;
                for point in &mut case.points[7..] {
                    (point.health.starved_shard, point.health.others_cpu) = (0.23, Some(others));
                }
                (case.target, case.good) = (target, good.to_vec());
            })
        };
        let invalid = (vec![ReasonKind::GeneratorStarved], vec![]);
        let noted = (vec![], vec![NoteKind::SharedCores]);
        assert_eq!(starved(Place::Here, 0.85, &[]), invalid);
        assert_eq!(starved(Place::Here, 0.02, &[]), noted);
        assert_eq!(starved(Place::Elsewhere, 0.02, &[]), invalid);
        assert_eq!(starved(Place::Here, 0.85, &[true, true]), invalid);
        assert_eq!(starved(Place::Here, 0.02, &[true, true]), noted);
        for others in [0.02, 0.85] {
            assert_eq!(starved(Place::Here, others, &[true, false]), (vec![], vec![]));
        }
        assert_eq!(starved(Place::Here, 0.85, &[false, false]), invalid, "no figures are good");
        let allowed = found(|case| {
            case.points.iter_mut().for_each(|point| point.health.starved_shard = 0.23);
            case.plan.bounds.shard_wait = 0.3;
        });
        assert_eq!(allowed, (vec![], vec![]));
    }

    #[test]
    fn drops_are_seen_by_their_share() {
        // Of 100,000.
        assert_eq!(with(|case| case.points[4].health.socket_drops = 10), []);
        let dropped = with(|case| case.points[4].health.socket_drops = 11);
        assert_eq!(dropped, [ReasonKind::SocketDrops]);
        let unsent = with(|case| case.points[4].health.udp_dropped_out = 50);
        assert_eq!(unsent, [ReasonKind::SocketDrops]);
        // Those of others are theirs.
        assert_eq!(with(|case| case.points[4].health.udp_dropped_in = 500), []);
    }

    #[test]
    fn a_machine_without_room_is_seen() {
        let memory = with(|case| case.points[0].health.memory_available = Some(100 << 20));
        assert_eq!(memory, [ReasonKind::MemoryPressure]);
        let swapped = with(|case| case.points[9].health.swapped = 64 << 20);
        assert_eq!(swapped, [ReasonKind::MemoryPressure]);
        assert_eq!(with(|case| case.points[3].health.open_files = 1000), [ReasonKind::Limits]);
        assert_eq!(with(|case| case.not_begun = 1), [ReasonKind::Limits]);
    }
}
