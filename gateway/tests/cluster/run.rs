//! A run of cycles, and what is told of it.

use std::collections::BTreeMap;
use std::time::Instant;

use skein_xtask::cql::proxy::Counts;

use crate::act::{Act, Plan};
use crate::fault::Fault;
use crate::site::Site;

/// What happened, to be added up over acts.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    pub cycles: u32,
    pub seconds: f64,
    pub sent: u64,
    pub acked: u64,
    pub shown: u64,
    /// Refusals for now.
    pub postponed: u64,
    pub crashed_clients: u32,
    pub moves: u32,
    pub gateway_kills: u32,
    pub unknown_outcomes: u64,
    pub found_appended: u64,
    pub conflicts: u64,
    pub violations: u64,
    /// Cycles by fault.
    pub faults: BTreeMap<String, u32>,
    /// What the proxies did, by kind.
    pub tricks: BTreeMap<String, u64>,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.cycles += other.cycles;
        self.seconds += other.seconds;
        self.sent += other.sent;
        self.acked += other.acked;
        self.shown += other.shown;
        self.postponed += other.postponed;
        self.crashed_clients += other.crashed_clients;
        self.moves += other.moves;
        self.gateway_kills += other.gateway_kills;
        self.unknown_outcomes += other.unknown_outcomes;
        self.found_appended += other.found_appended;
        self.conflicts += other.conflicts;
        self.violations += other.violations;
        for (fault, count) in &other.faults {
            *self.faults.entry(fault.clone()).or_default() += count;
        }
        for (trick, count) in &other.tricks {
            *self.tricks.entry(trick.clone()).or_default() += count;
        }
    }
}

/// An act that is watched: a line for each cycle, figures at the end.
pub struct Run<'a> {
    pub act: Act<'a>,
    plan: Plan,
    began: Instant,
    before: Counts,
    faults: BTreeMap<String, u32>,
    cycles: u32,
}

impl<'a> Run<'a> {
    pub fn new(site: &'a Site, plan: Plan) -> Self {
        let before = site.proxies().counts();
        println!("SKEIN_SEED={} gateways {} bug {:?}", plan.seed, plan.gateways, plan.bug);
        let began = Instant::now();
        let act = Act::new(site, &plan);
        Self { act, plan, began, before, faults: BTreeMap::new(), cycles: 0 }
    }

    /// One fault, its recovery, and a look at everything by a fresh client.
    pub fn cycle(&mut self, fault: Fault) {
        let began = Instant::now();
        let before = self.tally();
        fault.strike(&mut self.act);
        self.act.audit_one();
        self.cycles += 1;
        *self.faults.entry(format!("{fault:?}")).or_default() += 1;
        let now = self.tally();
        println!(
            "cycle {}: {fault:?}, {:.1} s, {} sent, {} acknowledged, {} postponed, {} tricks, {} \
             unknown outcomes, {} conflicts, memory {:?} MiB, violations {}",
            self.cycles,
            began.elapsed().as_secs_f64(),
            now.sent - before.sent,
            now.acked - before.acked,
            now.postponed - before.postponed,
            now.tricks.values().sum::<u64>() - before.tricks.values().sum::<u64>(),
            now.unknown_outcomes - before.unknown_outcomes,
            now.conflicts - before.conflicts,
            self.act.gateways.peaks().iter().map(|peak| peak >> 20).collect::<Vec<_>>(),
            now.violations,
        );
    }

    /// Everything must come to its end, and nothing may have been broken.
    pub fn finish(mut self) -> Tally {
        self.check();
        self.act.settle();
        self.act.audit_all();
        self.check();
        let tally = self.tally();
        println!("{}", serde_json::to_string(&tally).unwrap());
        tally
    }

    /// Fails with all that is known as soon as a promise is broken.
    pub fn check(&self) {
        assert!(self.act.is_clean(), "{}", self.told());
    }

    pub fn tally(&self) -> Tally {
        let counts = self.act.site.proxies().counts();
        let tricks = counts.faults.iter().map(|(&trick, &count)| {
            let here = count - self.before.of(trick);
            (format!("{trick:?}"), here)
        });
        let tricks = tricks.filter(|(_, count)| *count > 0).collect();
        let trouble = self.act.gateways.trouble();
        self.act.crowd.record.with(|checker| {
            let (sent, acked, shown) = checker.figures();
            Tally {
                cycles: self.cycles,
                seconds: self.began.elapsed().as_secs_f64(),
                sent: sent as u64,
                acked,
                shown,
                postponed: checker.postponed().values().sum(),
                crashed_clients: self.act.crowd.crashes,
                moves: self.act.moves,
                gateway_kills: self.act.gateways.kills,
                unknown_outcomes: trouble.unknown_outcomes,
                found_appended: trouble.found_appended,
                conflicts: trouble.conflicts,
                violations: checker.counts().values().sum(),
                faults: self.faults.clone(),
                tricks,
            }
        })
    }

    /// Says how it went; the seed first of all.
    pub fn told(&self) -> String {
        let mut text =
            format!("{:?}\n{}\n", self.plan, serde_json::to_string(&self.tally()).unwrap());
        self.act.crowd.record.with(|checker| {
            for (kind, count) in checker.counts() {
                text += &format!("{count} x {kind:?}\n");
            }
            for violation in checker.violations() {
                text += &format!("  {:?}: {}\n", violation.kind, violation.what);
            }
        });
        text
    }
}
