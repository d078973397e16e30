//! From a scenario to the plan that is carried out.

use super::program::Program;
use super::value::{ArrivalKind, CutKind, Weights};
use super::{Resolved, Scenario};
use crate::plan::{
    Arrival, Bounds, Credentials, Cut, Fleet, Ladder, Load, Manners, Phases, Plan, Rise, Traffic,
    Work,
};
use crate::scenario::source::Problems;

impl Scenario {
    /// What reports call the run.
    pub fn name(&self) -> &str {
        self.run.name.as_deref().unwrap_or(self.program.name())
    }

    /// Sessions that the run makes, before anything is looked up.
    pub fn sessions(&self) -> u64 {
        self.fleets().iter().map(|fleet| fleet.work.sessions()).sum()
    }

    /// The plan.
    ///
    /// # Errors
    /// There are fewer tokens than users.
    pub fn plan(&self, resolved: &Resolved) -> Result<Plan, Problems> {
        let Resolved { target, identity } = resolved.clone();
        let generator = &self.generator;
        let plan = Plan {
            fleets: self.fleets(),
            phases: Phases {
                ramp_limit: self.phases.ramp_limit,
                settle: self.phases.settle,
                warm_up: self.run.warm_up,
                measured: self.run.measured,
                drain: self.phases.drain,
                plateau: self.phases.plateau,
            },
            ladder: (self.program == Program::Ramp).then(|| self.ladder()),
            shards: generator.shards as usize,
            late_after: generator.late_after,
            drop_after: generator.drop_after,
            answer_timeout: generator.answer_timeout,
            max_connecting: generator.max_connecting as usize,
            tickets: self.program == Program::Storm && self.load.tickets,
            seed: generator.seed,
            bounds: Bounds {
                late: generator.max_late,
                shard_cpu: generator.max_thread_cpu,
                shard_wait: generator.max_thread_wait,
            },
            ..Plan::new(self.name(), target, identity)
        };
        match &plan.identity.credentials {
            Credentials::Listed(tokens) if (tokens.len() as u64) < plan.users() => {
                Err(Problems::one(
                    "users.tokens",
                    format!(
                        "{} users are needed, and there are {} tokens",
                        plan.users(),
                        tokens.len()
                    ),
                ))
            }
            _ => Ok(plan),
        }
    }

    fn ladder(&self) -> Ladder {
        let ramp = &self.ramp;
        Ladder {
            first: ramp.start,
            last: ramp.most,
            rise: match ramp.step > 0.0 {
                true => Rise::Add(ramp.step),
                false => Rise::Multiply(ramp.factor),
            },
            // Within the rule of the key.
            refine: u32::try_from(ramp.refine).unwrap_or(0),
            settle: self.run.warm_up,
            hold: self.run.measured,
            least_share: ramp.least_share,
        }
    }

    fn fleets(&self) -> Vec<Fleet> {
        let keys = &self.load;
        let rate = if self.program == Program::Ramp { self.ramp.start } else { keys.rate };
        let work = match self.works_as() {
            Program::Hold => Work::Hold { sessions: keys.connections },
            Program::Chat => Work::Chat {
                pairs: keys.pairs,
                both_ways: keys.both_ways,
                traffic: self.traffic(rate),
            },
            Program::Group => Work::Group {
                groups: keys.groups,
                receivers: keys.receivers,
                traffic: self.traffic(rate),
            },
            Program::Storm => Work::Storm {
                sessions: keys.connections,
                cut: match keys.cut {
                    CutKind::Close => Cut::Close,
                    CutKind::Kill => Cut::Kill,
                    CutKind::Stop => Cut::Stop,
                    CutKind::Await => Cut::Await,
                },
                after: keys.cut_after,
                return_over: keys.return_over,
            },
            Program::Sync => Work::Sync {
                receivers: keys.users,
                backlog: keys.backlog,
                outstanding: match keys.outstanding {
                    0 => DEFAULT_OUTSTANDING,
                    // Within the rule of the key.
                    some => u32::try_from(some).unwrap_or(u32::MAX),
                },
                payload_bytes: keys.payload_bytes.low..=keys.payload_bytes.high,
                login_rate: keys.login_rate,
            },
            Program::Churn => Work::Churn { sessions: keys.connections, rate: keys.churn_rate },
            Program::Mixed | Program::Ramp => return self.mixed(),
        };
        let manners = Manners { slow: keys.slow, silent: keys.silent };
        let name = self.works_as().name().to_owned();
        vec![Fleet { name, work, connect_rate: keys.connect_rate, manners }]
    }

    /// Sessions are shared out by weight; a session of a pair or a group counts as one.
    fn mixed(&self) -> Vec<Fleet> {
        let keys = &self.load;
        let Weights { hold, chat, group, churn } = keys.weights;
        let all = keys.connections as f64;
        let part = |weight: f64| all * weight / keys.weights.sum();
        let traffic = || self.traffic(0.0);
        let pairs = (part(chat) / 2.0).round() as u64;
        let groups = (part(group) / (1.0 + keys.receivers as f64)).round() as u64;
        let churning = part(churn).round() as u64;
        let rest = 2 * pairs + groups * (1 + keys.receivers) + churning;
        let idle = if hold > 0.0 { keys.connections.saturating_sub(rest) } else { 0 };
        let (both_ways, receivers) = (keys.both_ways, keys.receivers);
        let works = [
            (idle, Work::Hold { sessions: idle }),
            (pairs, Work::Chat { pairs, both_ways, traffic: traffic() }),
            (groups, Work::Group { groups, receivers, traffic: traffic() }),
            (churning, Work::Churn { sessions: churning, rate: keys.churn_rate }),
        ];
        let works = works.into_iter().filter(|(count, _)| *count > 0);
        works
            .map(|(_, work)| Fleet {
                name: work.name().to_owned(),
                connect_rate: keys.connect_rate * work.sessions() as f64 / all,
                manners: Manners {
                    // Slow and silent are shares of all sessions. A silent writer would be none.
                    slow: if work.traffic().is_some() { keys.slow } else { 0.0 },
                    silent: match work {
                        Work::Hold { sessions } => (keys.silent * all / sessions as f64).min(1.0),
                        _ => 0.0,
                    },
                },
                work,
            })
            .collect()
    }

    fn traffic(&self, rate: f64) -> Traffic {
        let keys = &self.load;
        let arrival = match keys.arrival {
            ArrivalKind::Even => Arrival::Even,
            ArrivalKind::Poisson => Arrival::Poisson,
        };
        let load = if keys.outstanding > 0 {
            Load::Outstanding(u32::try_from(keys.outstanding).unwrap_or(u32::MAX))
        } else if !keys.think_time.is_zero() {
            Load::Think { mean: keys.think_time }
        } else {
            Load::Rate { per_second: rate, arrival }
        };
        Traffic { load, payload_bytes: keys.payload_bytes.low..=keys.payload_bytes.high }
    }
}

/// Messages under way at a time for each writer of a backlog: enough to fill the store's batches.
const DEFAULT_OUTSTANDING: u32 = 16;
