//! Rules between keys; what concerns one key alone stands with the key.

use std::collections::HashMap;

use super::Scenario;
use super::program::Program;
use super::table;
use super::value::CutKind;
use crate::operation::Operation;

/// Calls `problem` with the key to change and a message, for each rule that is broken. Fills in
/// what depends on other keys. `places` has the keys that were given.
pub(super) fn between_keys(
    scenario: &mut Scenario,
    places: &HashMap<&'static str, String>,
    mut problem: impl FnMut(&'static str, String),
) {
    let given = |key: &str| places.contains_key(key);
    only_for_the_ramped(scenario, places, &mut problem);

    let program = scenario.works_as();
    if scenario.program == Program::Ramp && scenario.run.objectives.is_empty() {
        scenario.run.objectives =
            Program::RAMP_OBJECTIVES.iter().filter_map(|text| text.parse().ok()).collect();
    }
    for objective in &scenario.run.objectives {
        if let Some(operation) = objective.operation()
            && !measures(program, operation)
        {
            problem(
                "objectives",
                format!("`{objective}`: {} never does `{operation}`", program.name()),
            );
        }
    }

    let load = &scenario.load;
    let one_of = [
        ("load.outstanding", load.outstanding > 0 && program != Program::Sync),
        ("load.think_time", !load.think_time.is_zero() && program != Program::Mixed),
        ("load.rate", given("load.rate")),
    ];
    let mut paced = one_of.iter().filter(|(_, set)| *set).map(|(key, _)| *key);
    if let (Some(first), Some(second)) = (paced.next(), paced.next()) {
        problem(first, format!("`{first}` and `{second}` are two ways to pace writers: give one"));
    }
    if program == Program::Mixed && load.think_time.is_zero() {
        let writes = load.weights.chat > 0.0 || load.weights.group > 0.0;
        if writes {
            problem("load.think_time", "`load.think_time` must be more than 0s for writers".into());
        }
    }
    if load.slow + load.silent > 1.0 {
        problem("load.slow", "`load.slow` and `load.silent` are more than all together".into());
    }

    if scenario.sessions() == 0 {
        problem("load.weights", "with these weights nobody does anything".into());
    }
    storm(scenario, &mut problem);
    agents(scenario, &mut problem);
    if given("ramp.step") && given("ramp.factor") && scenario.ramp.step > 0.0 {
        let message = "`ramp.step` and `ramp.factor` are two ways to rise: give one";
        problem("ramp.step", message.into());
    }
    if scenario.program == Program::Ramp && scenario.ramp.most < scenario.ramp.start {
        let message = format!(
            "`ramp.most` = {} is less than `ramp.start` = {}",
            scenario.ramp.most, scenario.ramp.start
        );
        problem("ramp.most", message);
    }
    target(scenario, places, &mut problem);
    if scenario.generator.drop_after < scenario.generator.late_after {
        problem(
            "generator.drop_after",
            "`generator.drop_after` is less than `generator.late_after`: what is dropped was late \
             before"
                .into(),
        );
    }
}

impl Scenario {
    /// What it does to the gateway: the program that a ramp raises, or the program itself.
    pub fn works_as(&self) -> Program {
        match self.program {
            Program::Ramp => self.ramp.of,
            program => program,
        }
    }
}

/// A ramp takes the keys of what it raises, and what it raises is not given as well.
fn only_for_the_ramped(
    scenario: &Scenario,
    places: &HashMap<&'static str, String>,
    problem: &mut impl FnMut(&'static str, String),
) {
    if scenario.program != Program::Ramp {
        return;
    }
    let of = scenario.ramp.of;
    let mut keys: Vec<_> = places.keys().filter_map(|path| table::find(path)).collect();
    keys.sort_by_key(|key| key.path);
    for key in keys {
        if key.path == "load.rate" {
            let message = "a ramp raises `load.rate`: give `ramp.start` instead".into();
            problem(key.path, message);
        } else if !key.is_for(of) && !key.path.starts_with("ramp.") {
            problem(key.path, format!("`{}` means nothing to a ramp of {}", key.path, of.name()));
        }
    }
}

fn storm(scenario: &Scenario, problem: &mut impl FnMut(&'static str, String)) {
    if scenario.program != Program::Storm {
        return;
    }
    let load = &scenario.load;
    if matches!(load.cut, CutKind::Kill | CutKind::Stop) && !scenario.target.spawn {
        problem(
            "load.cut",
            "only a gateway that was started here can be killed or stopped: add `target.spawn` = \
             true (--spawn-gateway), or take \"close\" or \"await\""
                .into(),
        );
    }
    if load.cut_after >= scenario.run.measured {
        problem(
            "load.cut_after",
            format!(
                "`load.cut_after` = {} is not within the measured time, `for` = {}",
                humantime::format_duration(load.cut_after),
                humantime::format_duration(scenario.run.measured)
            ),
        );
    }
    let left = (scenario.run.measured + scenario.phases.drain).saturating_sub(load.cut_after);
    if load.return_over >= left {
        problem(
            "load.return_over",
            format!(
                "`load.return_over` = {}: the run ends before all have returned; give it a longer \
                 `for` or `drain`",
                humantime::format_duration(load.return_over)
            ),
        );
    }
}

fn agents(scenario: &Scenario, problem: &mut impl FnMut(&'static str, String)) {
    let agents = &scenario.generator.agents;
    if agents.is_empty() {
        if scenario.generator.agent_secret.is_some() {
            let message = "`generator.agent_secret` is for agents, and there are none".into();
            problem("generator.agent_secret", message);
        }
        return;
    }
    if agents.iter().enumerate().any(|(at, agent)| agents[..at].contains(agent)) {
        problem("generator.agents", "an agent is named twice".into());
    }
    let local = |host: &str| {
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    if scenario.target.spawn && agents.iter().any(|agent| !local(&agent.host)) {
        problem(
            "target.spawn",
            "a gateway that is started here listens on the loopback, where agents on other machines \
             do not reach it: start one yourself and name it (--target)"
                .into(),
        );
    }
    if matches!(scenario.load.cut, CutKind::Kill | CutKind::Stop) {
        let message = "agents cannot kill or stop a gateway: take \"close\" or \"await\"".into();
        problem("load.cut", message);
    }
}

fn target(
    scenario: &Scenario,
    places: &HashMap<&'static str, String>,
    problem: &mut impl FnMut(&'static str, String),
) {
    let target = &scenario.target;
    let given = |key: &str| places.contains_key(key);
    if target.address.is_empty() {
        problem("target.address", "`target.address` names no gateway".into());
    }
    if target.spawn {
        let other = [
            "target.address",
            "target.ca",
            "target.data",
            "target.server_name",
            "target.pid",
            "target.metrics_url",
            "users.key",
            "users.tokens",
        ];
        for key in other.into_iter().filter(|key| given(key)) {
            problem(
                key,
                format!(
                    "`{key}` is not needed with `target.spawn`: the started gateway has its own"
                ),
            );
        }
    } else {
        for key in ["target.program", "target.settings"].into_iter().filter(|key| given(key)) {
            problem(key, format!("`{key}` is only for a gateway that is started: `target.spawn`"));
        }
    }
    if scenario.users.key.is_some() && scenario.users.tokens.is_some() {
        problem(
            "users.tokens",
            "`users.key` and `users.tokens` both say where tokens come from: give one".into(),
        );
    }
}

/// Whether a program ever does it.
fn measures(program: Program, operation: Operation) -> bool {
    use Program::{Chat, Group, Mixed, Sync};
    match operation {
        // Sessions that are lost come back, whatever they were for.
        Operation::Connect | Operation::Login | Operation::Resume => true,
        Operation::SendAck | Operation::Deliver => matches!(program, Chat | Group | Mixed),
        Operation::FanOut => matches!(program, Group | Mixed),
        Operation::Sync => program == Sync,
    }
}
