//! From the plan to one shard's part of it: which sessions, who writes to whom, at which times.
//!
//! Everyone in a conversation is on the same shard, so what one end wrote and the other saw meet
//! without a lock. A fleet's units (a session, a pair, a group) are dealt to the shards in turns.

use std::ops::Range;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::session::{Channel, Flags, Line, NONE, Session};
use crate::clock::{Nanos, length};
use crate::plan::{Arrival, Fleet, Load, Plan, Traffic, Work};
use crate::schedule::{Lateness, Schedule};
use crate::verify::{Receiver, Stream};

/// All that a shard has of the plan.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) sessions: Vec<Session>,
    pub(super) lines: Vec<Line>,
    pub(super) channels: Vec<Channel>,
    pub(super) shares: Vec<Share>,
}

/// A shard's share of a fleet.
#[derive(Debug)]
pub(super) struct Share {
    /// Index of the fleet in the plan.
    pub(super) fleet: usize,
    /// How much of the fleet it is, 0 to 1: what is due of a rate.
    pub(super) part: f64,
    /// Sessions that the ramp makes.
    pub(super) sessions: Range<u32>,
    /// Sessions that come later: receivers of a backlog.
    pub(super) receivers: Range<u32>,
    /// Lines that write.
    pub(super) writers: Vec<u32>,
    /// Whose turn it is to write, to leave, to log in.
    pub(super) turn: usize,
    /// When sessions are made: in the ramp; for churn and sync afterwards.
    pub(super) connects: Schedule,
    /// The next session of the ramp, and where it pauses.
    pub(super) dial: Range<u32>,
    /// When messages are due.
    pub(super) sends: Schedule,
    /// Writers are drawn, not taken in turns.
    pub(super) draws: bool,
    /// Closed loop: messages that each writer has under way; 0: open loop.
    pub(super) outstanding: u32,
    /// The load is on.
    pub(super) writes: bool,
    /// Its sessions are being cut off on purpose: that they end is no loss.
    pub(super) cut: bool,
    /// While cut: they come back only when told.
    pub(super) held: bool,
}

/// A shard among all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) shard: usize,
    pub(super) shards: usize,
}

impl Place {
    /// Units of a fleet that are this shard's.
    fn share_of(self, units: u64) -> std::iter::StepBy<Range<u64>> {
        (self.shard as u64..units).step_by(self.shards.max(1))
    }
}

impl Tables {
    /// The part of `place`. `new_users`: no conversation is older than the run.
    pub(super) fn lay_out(plan: &Plan, place: Place, new_users: bool) -> Self {
        let mut tables = Self::default();
        let mut first_user = 0;
        for (index, fleet) in plan.fleets.iter().enumerate() {
            let mut layout = Layout { tables: &mut tables, fleet, index, new_users };
            let (sessions, receivers, writers) = layout.units(first_user, place);
            first_user += fleet.work.users() as u32;
            let manners = (fleet.manners.slow, fleet.manners.silent);
            tables.mark(sessions.clone(), manners, seed(plan, place, index, 0));
            tables.shares.push(share(plan, index, place, (sessions, receivers, writers)));
        }
        tables.sessions.shrink_to_fit();
        tables.lines.shrink_to_fit();
        tables.channels.shrink_to_fit();
        tables
    }

    /// Bytes of it.
    pub(super) fn bytes(&self) -> u64 {
        let sizes = [
            size_of_val(&self.sessions[..]),
            size_of_val(&self.lines[..]),
            size_of_val(&self.channels[..]),
        ];
        sizes.into_iter().sum::<usize>() as u64
    }

    /// Marks shares of the sessions as slow and as silent.
    fn mark(&mut self, sessions: Range<u32>, (slow, silent): (f64, f64), seed: u64) {
        if slow + silent <= 0.0 {
            return;
        }
        let mut random = SmallRng::seed_from_u64(seed);
        for session in &mut self.sessions[sessions.start as usize..sessions.end as usize] {
            let drawn: f64 = random.random();
            if drawn < slow {
                session.flags.set(Flags::SLOW);
            } else if drawn < slow + silent {
                session.flags.set(Flags::SILENT);
            }
        }
    }
}

/// The same plan draws the same on every machine.
fn seed(plan: &Plan, place: Place, fleet: usize, purpose: u64) -> u64 {
    let parts = [plan.seed, plan.identity.first_user, place.shard as u64, fleet as u64, purpose];
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |seed: u64, part| {
        (seed ^ part).wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(23)
    })
}

type Parts = (Range<u32>, Range<u32>, Vec<u32>);

fn share(plan: &Plan, index: usize, place: Place, (sessions, receivers, writers): Parts) -> Share {
    let fleet = &plan.fleets[index];
    let shares = (place.shard, place.shards);
    // Every session must be made in the end, so none is dropped; each login later on may be.
    let drop_after = match fleet.work {
        Work::Sync { .. } | Work::Churn { .. } => length(plan.drop_after),
        _ => Nanos::MAX,
    };
    let late_after = length(plan.late_after);
    let connects = Schedule::new(
        Lateness { late_after, drop_after },
        Arrival::Even,
        shares,
        seed(plan, place, index, 1),
    );
    let load = fleet.work.traffic().map(|traffic| traffic.load);
    let (arrival, draws, outstanding) = match (load, &fleet.work) {
        (Some(Load::Rate { arrival, .. }), _) => (arrival, arrival == Arrival::Poisson, 0),
        // Many writers that think for exponential times are together one Poisson process, each of
        // whose events belongs to any of them alike.
        (Some(Load::Think { .. }), _) => (Arrival::Poisson, true, 0),
        (Some(Load::Outstanding(count)), _) => (Arrival::Even, false, count.max(1)),
        (None, Work::Sync { outstanding, .. }) => (Arrival::Even, false, (*outstanding).max(1)),
        (None, _) => (Arrival::Even, false, 0),
    };
    let sends = Schedule::new(
        Lateness { late_after, drop_after: length(plan.drop_after) },
        arrival,
        shares,
        seed(plan, place, index, 2),
    );
    let units = fleet.work.units();
    Share {
        fleet: index,
        part: place.share_of(units).count() as f64 / units.max(1) as f64,
        dial: sessions.start..sessions.start,
        sessions,
        receivers,
        writers,
        turn: 0,
        connects,
        sends,
        draws,
        outstanding,
        writes: false,
        cut: false,
        held: false,
    }
}

impl Share {
    /// Messages a second of this share; 0 for a closed loop.
    pub(super) fn send_rate(&self, traffic: Option<&Traffic>) -> f64 {
        match traffic.map(|traffic| traffic.load) {
            Some(Load::Rate { per_second, .. }) => per_second * self.part,
            Some(Load::Think { mean }) if !mean.is_zero() => {
                self.writers.len() as f64 / mean.as_secs_f64()
            }
            _ => 0.0,
        }
    }
}

struct Layout<'a> {
    tables: &'a mut Tables,
    fleet: &'a Fleet,
    index: usize,
    new_users: bool,
}

impl Layout<'_> {
    /// Ramp sessions, later sessions, writing lines.
    fn units(&mut self, first_user: u32, place: Place) -> Parts {
        let mine = |units: u64| place.share_of(units);
        let begin = self.end();
        let mut writers = Vec::new();
        match self.fleet.work {
            Work::Hold { sessions }
            | Work::Storm { sessions, .. }
            | Work::Churn { sessions, .. } => {
                mine(sessions).for_each(|unit| {
                    self.session(first_user + unit as u32, 0, NONE);
                });
            }
            Work::Chat { pairs, both_ways, .. } => {
                for unit in mine(pairs) {
                    let user = first_user + 2 * unit as u32;
                    let first = self.conversation(&[(user, 0), (user + 1, 0)], [user, user + 1]);
                    writers.push(self.writes(first, 1));
                    if both_ways {
                        writers.push(self.writes(first + 1, 1));
                    }
                }
            }
            Work::Group { groups, receivers, .. } => {
                for unit in mine(groups) {
                    let user = first_user + 2 * unit as u32;
                    // The writer, its other devices, and as many or one more of the other user.
                    let own = receivers as u32 / 2;
                    let devices: Vec<(u32, u32)> = (0..=own)
                        .map(|device| (user, device))
                        .chain((0..receivers as u32 - own).map(|device| (user + 1, device)))
                        .collect();
                    let first = self.conversation(&devices, [user, user + 1]);
                    writers.push(self.writes(first, receivers as u32));
                }
            }
            Work::Sync { receivers, .. } => {
                for unit in mine(receivers) {
                    let user = first_user + 2 * unit as u32;
                    let first = self.conversation(&[(user, 0)], [user, user + 1]);
                    // Nobody is there to get them.
                    writers.push(self.writes(first, 0));
                }
                let writing = begin..self.end();
                for unit in mine(receivers) {
                    let user = first_user + 2 * unit as u32;
                    self.conversation(&[(user + 1, 0)], [user, user + 1]);
                }
                return (writing.clone(), writing.end..self.end(), writers);
            }
        }
        (begin..self.end(), self.end()..self.end(), writers)
    }

    fn end(&self) -> u32 {
        self.tables.sessions.len() as u32
    }

    fn session(&mut self, user: u32, device: u32, line: u32) -> u32 {
        self.tables.sessions.push(Session::new(self.index as u16, user, device, line));
        self.end() - 1
    }

    /// Sessions of these users and devices, in one conversation of the two users.
    fn conversation(&mut self, members: &[(u32, u32)], users: [u32; 2]) -> u32 {
        let first = self.tables.lines.len() as u32;
        for (place, &(user, device)) in members.iter().enumerate() {
            let line = first + place as u32;
            let session = self.session(user, device, line);
            let peer = if user == users[0] { users[1] } else { users[0] };
            let receiver = if self.new_users { Receiver::new() } else { Receiver::joining() };
            self.tables.lines.push(Line {
                session,
                peer,
                channel: NONE,
                first,
                count: members.len() as u32,
                receiver,
                backlog: Default::default(),
                left: 0,
                mending: false,
                conversation: [0; 16],
            });
        }
        first
    }

    /// The line writes to so many others.
    fn writes(&mut self, line: u32, receivers: u32) -> u32 {
        self.tables.lines[line as usize].channel = self.tables.channels.len() as u32;
        self.tables.channels.push(Channel { stream: Stream::new(receivers), first: 0, line });
        line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{Manners, Traffic};
    use crate::sample;

    fn works() -> impl Strategy<Value = Work> {
        let traffic = Traffic {
            load: Load::Rate { per_second: 10.0, arrival: Arrival::Even },
            payload_bytes: 128..=128,
        };
        prop_oneof![
            (1u64..50).prop_map(|sessions| Work::Hold { sessions }),
            (1u64..20, any::<bool>()).prop_map({
                let traffic = traffic.clone();
                move |(pairs, both_ways)| Work::Chat { pairs, both_ways, traffic: traffic.clone() }
            }),
            (1u64..5, 1u64..12).prop_map(move |(groups, receivers)| {
                Work::Group { groups, receivers, traffic: traffic.clone() }
            }),
            (1u64..20).prop_map(|receivers| Work::Sync {
                receivers,
                backlog: 10,
                outstanding: 4,
                payload_bytes: 64..=64,
                login_rate: 1.0,
            }),
        ]
    }

    proptest! {
        /// However many shards there are, all of them together are the plan: each user and device
        /// once, each conversation whole on one shard.
        #[test]
        fn shards_share_the_plan_out(
            works in proptest::collection::vec(works(), 1..4),
            shards in 1usize..5,
        ) {
            let mut plan = sample::empty().plan;
            plan.fleets = works
                .into_iter()
                .map(|work| Fleet {
                    name: "f".into(),
                    work,
                    connect_rate: 1.0,
                    manners: Manners::default(),
                })
                .collect();
            let mut parts = vec![0.0; plan.fleets.len()];
            let mut seen = std::collections::BTreeSet::new();
            let (mut ramp, mut users) = (0, std::collections::BTreeSet::new());
            for shard in 0..shards {
                let tables = Tables::lay_out(&plan, Place { shard, shards }, true);
                for (share, part) in tables.shares.iter().zip(&mut parts) {
                    ramp += share.sessions.len() as u64;
                    *part += share.part;
                    // Nobody is asked to write who has no writer.
                    prop_assert!(share.part == 0.0 || !share.sessions.is_empty());
                    for &line in &share.writers {
                        let line = &tables.lines[line as usize];
                        prop_assert!(line.channel != NONE);
                        let session = &tables.sessions[line.session as usize];
                        prop_assert!(session.user != line.peer);
                    }
                }
                for (index, session) in tables.sessions.iter().enumerate() {
                    prop_assert!(seen.insert((session.user, session.device)));
                    users.insert(session.user);
                    if session.line != NONE {
                        let line = &tables.lines[session.line as usize];
                        prop_assert_eq!(line.session as usize, index);
                        prop_assert!((line.first..line.first + line.count).contains(&session.line));
                    }
                }
                for channel in &tables.channels {
                    let line = &tables.lines[channel.line as usize];
                    prop_assert_eq!(tables.channels[line.channel as usize].line, channel.line);
                }
            }
            prop_assert!(parts.iter().all(|part: &f64| (part - 1.0).abs() < 1e-9), "{parts:?}");
            prop_assert_eq!(ramp, plan.sessions());
            prop_assert_eq!(users.len() as u64, plan.users());
        }
    }
}
