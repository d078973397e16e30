//! A plan, cut into shares that together are the whole.
//!
//! Units (a session, a pair, a group, a user with a backlog) are dealt out, so that everybody in a
//! conversation is on one machine; rates go with them. Each agent has users of its own: the first of
//! one is behind the last of the one before.

use crate::plan::{Credentials, Fleet, Ladder, Load, Plan, Rise, Work};

/// One of so many shares.
#[derive(Clone, Copy, Debug)]
struct Part {
    index: u64,
    of: u64,
}

impl Part {
    /// Of so many units; the first ones get what does not divide evenly.
    fn units(self, all: u64) -> u64 {
        all / self.of + u64::from(self.index < all % self.of)
    }
}

/// The shares, in the order of the agents.
///
/// # Errors
/// There is nothing to do for one of them.
pub(super) fn shares(plan: &Plan, agents: usize) -> Result<Vec<Plan>, String> {
    let of = agents.max(1) as u64;
    let mut first_user = plan.identity.first_user;
    let mut shares = Vec::with_capacity(agents);
    for index in 0..of {
        let share = share(plan, Part { index, of }, first_user);
        if share.fleets.is_empty() {
            return Err(format!(
                "there are {agents} agents, and not enough to do for all of them: {} would make no \
                 session",
                of - index
            ));
        }
        first_user += share.users();
        shares.push(share);
    }
    Ok(shares)
}

fn share(plan: &Plan, part: Part, first_user: u64) -> Plan {
    let fleets: Vec<Fleet> = plan.fleets.iter().filter_map(|one| fleet(one, part)).collect();
    let mut share = Plan {
        ladder: plan.ladder.as_ref().map(|ladder| rungs(ladder, rate(&fleets), rate(&plan.fleets))),
        fleets,
        max_connecting: (part.units(plan.max_connecting as u64).max(1)) as usize,
        ..plan.clone()
    };
    share.identity.first_user = first_user;
    if let Credentials::Listed(tokens) = &mut share.identity.credentials {
        let skipped = (first_user - plan.identity.first_user) as usize;
        let users = share.fleets.iter().map(|fleet| fleet.work.users()).sum::<u64>() as usize;
        let end = (skipped + users).min(tokens.len());
        *tokens = tokens.get(skipped..end).unwrap_or_default().to_vec();
    }
    share
}

/// None: there is nothing of it for this one.
fn fleet(fleet: &Fleet, part: Part) -> Option<Fleet> {
    let all = fleet.work.units();
    let own = part.units(all);
    if own == 0 {
        return None;
    }
    let ratio = own as f64 / all as f64;
    let mut share = fleet.clone();
    share.connect_rate *= ratio;
    match &mut share.work {
        Work::Hold { sessions } | Work::Storm { sessions, .. } => *sessions = own,
        Work::Chat { pairs, .. } => *pairs = own,
        Work::Group { groups, .. } => *groups = own,
        Work::Sync { receivers, login_rate, .. } => {
            *receivers = own;
            *login_rate *= ratio;
        }
        Work::Churn { sessions, rate } => {
            *sessions = own;
            *rate *= ratio;
        }
    }
    if let Some(traffic) = share.work.traffic_mut()
        && let Load::Rate { per_second, .. } = &mut traffic.load
    {
        *per_second *= ratio;
    }
    Some(share)
}

/// Messages a second of the fleets that write at a rate.
fn rate(fleets: &[Fleet]) -> f64 {
    let rates = fleets.iter().filter_map(|fleet| match fleet.work.traffic()?.load {
        Load::Rate { per_second, .. } => Some(per_second),
        _ => None,
    });
    rates.sum()
}

fn rungs(ladder: &Ladder, own: f64, all: f64) -> Ladder {
    let ratio = if all > 0.0 { own / all } else { 0.0 };
    Ladder {
        first: ladder.first * ratio,
        last: ladder.last * ratio,
        rise: match ladder.rise {
            Rise::Add(step) => Rise::Add(step * ratio),
            Rise::Multiply(factor) => Rise::Multiply(factor),
        },
        ..ladder.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::plan::{Arrival, Manners, Secret, Traffic};
    use crate::sample;

    fn work() -> impl Strategy<Value = Work> {
        let traffic = |per_second| Traffic {
            load: Load::Rate { per_second, arrival: Arrival::Even },
            payload_bytes: 64..=64,
        };
        prop_oneof![
            (5u64..500).prop_map(|sessions| Work::Hold { sessions }),
            (5u64..500, 1.0..1e5f64).prop_map(move |(pairs, rate)| Work::Chat {
                pairs,
                both_ways: true,
                traffic: traffic(rate)
            }),
            (1u64..20, 1u64..9, 1.0..1e3f64).prop_map(move |(groups, receivers, rate)| {
                Work::Group { groups, receivers, traffic: traffic(rate) }
            }),
            (1u64..50, 1.0..100f64).prop_map(|(sessions, rate)| Work::Churn { sessions, rate }),
        ]
    }

    fn plan(works: Vec<Work>) -> Plan {
        let mut plan = sample::empty().plan;
        let fleet = |work: Work| Fleet {
            name: "f".into(),
            work,
            connect_rate: 100.0,
            manners: Manners::default(),
        };
        plan.fleets = works.into_iter().map(fleet).collect();
        plan
    }

    proptest! {
        /// Whatever is cut, the shares add up to it, and no two have a user in common.
        #[test]
        fn the_shares_are_the_whole(
            works in proptest::collection::vec(work(), 1..4),
            agents in 1usize..6,
        ) {
            let plan = plan(works);
            let Ok(shares) = shares(&plan, agents) else {
                // Only if somebody would have nothing to do.
                let most = plan.fleets.iter().map(|fleet| fleet.work.units()).max().unwrap();
                prop_assert!(most < agents as u64);
                return Ok(());
            };
            prop_assert_eq!(shares.len(), agents);
            let sum = |of: fn(&Plan) -> u64| shares.iter().map(of).sum::<u64>();
            prop_assert_eq!(sum(Plan::sessions), plan.sessions());
            prop_assert_eq!(sum(Plan::users), plan.users());
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs();
            let rates: f64 = shares.iter().map(|share| rate(&share.fleets)).sum();
            prop_assert!(near(rates, rate(&plan.fleets)));
            let connects: f64 =
                shares.iter().flat_map(|one| &one.fleets).map(|fleet| fleet.connect_rate).sum();
            prop_assert!(near(connects, 100.0 * plan.fleets.len() as f64));
            let mut users = BTreeSet::new();
            for share in &shares {
                let first = share.identity.first_user;
                for user in first..first + share.users() {
                    prop_assert!(users.insert(user));
                }
            }
        }
    }

    #[test]
    fn everybody_gets_tokens_of_their_own() {
        let mut plan = plan(vec![Work::Hold { sessions: 5 }]);
        let tokens = (0..5).map(|number| Secret(number.to_string())).collect();
        plan.identity.credentials = Credentials::Listed(tokens);
        let shares = shares(&plan, 2).unwrap();
        let listed = |share: &Plan| match &share.identity.credentials {
            Credentials::Listed(tokens) => tokens.iter().map(|one| one.0.clone()).collect(),
            Credentials::Signed { .. } => Vec::new(),
        };
        assert_eq!(
            shares.iter().map(listed).collect::<Vec<_>>(),
            [vec!["0", "1", "2"], vec!["3", "4"]]
        );
    }

    #[test]
    fn a_ladder_has_as_many_rungs_for_everybody() {
        let mut plan = plan(Vec::new());
        plan.fleets = sample::empty().plan.fleets;
        let ladder = Ladder {
            first: 1000.0,
            last: 9000.0,
            rise: Rise::Multiply(1.25),
            refine: 4,
            settle: Duration::ZERO,
            hold: Duration::from_secs(1),
            least_share: 0.95,
        };
        let rungs = ladder.loads();
        plan.ladder = Some(ladder);
        let shares: Vec<Vec<f64>> = shares(&plan, 3)
            .unwrap()
            .iter()
            .map(|share| share.ladder.as_ref().unwrap().loads())
            .collect();
        for (at, load) in rungs.iter().enumerate() {
            let sum: f64 = shares.iter().map(|loads| loads[at]).sum();
            assert!((sum - load).abs() < 1e-6 * load);
        }
    }

    #[test]
    fn an_agent_without_work_is_told_before_the_run() {
        let why = shares(&plan(vec![Work::Hold { sessions: 2 }]), 3).unwrap_err();
        assert!(why.contains("3 agents"), "{why}");
    }
}
