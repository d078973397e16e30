//! What is broken, and mended again: each is one cycle.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use skein_xtask::cql::proxy::{Aim, Answer, Fault as Trick, Faults};

use crate::act::{Act, PATIENCE};
use crate::chat::checker::Kind;
use crate::site::REQUEST_TIMEOUT;

/// One fault, from its beginning to the time when all that was sent meanwhile is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// SIGKILL for one node; the others carry on; it starts again.
    KillNode,
    /// SIGKILL for two of three: writes stop and clients are told to try later; they start again.
    KillTwoNodes,
    /// SIGSTOP for one node, longer than any request waits.
    PauseNode,
    /// SIGKILL for a gateway in the middle of appends.
    KillGateway,
    /// SIGTERM for each gateway in turn, and a new one in its place: a rolling restart.
    RollGateways,
    /// SIGKILL for a gateway and a node at the same time.
    KillGatewayAndNode,
    /// Connections to nodes are cut, with whatever was on its way.
    Disconnect,
    /// Requests and answers of appends are lost, late, cut off, replaced by errors: some kinds of
    /// it, for some seconds.
    SomeDoubt,
    /// The same, until every kind has happened.
    EveryDoubt,
    /// The same for all that reads or writes rows.
    Statements,
    /// All fall silent while the outcomes of their last appends are not known.
    DoubtThenSilence,
    /// A gateway is killed, and its last appends reach the nodes after the next one has begun to
    /// serve. Then all fall silent.
    LateAfterDeath,
}

/// Whoever knows nothing of a message for this long after all have fallen silent was not told.
const SILENCE: Duration = Duration::from_secs(20);

/// How late a request or an answer is at most: long after everybody has given it up.
const LATE: Duration = Duration::from_secs(2 * REQUEST_TIMEOUT.as_secs());

impl Fault {
    /// Any of them, the quick ones more often.
    pub fn any(rng: &mut StdRng) -> Self {
        match rng.random_range(0..23) {
            0..2 => Fault::KillNode,
            2 => Fault::KillTwoNodes,
            3..6 => Fault::PauseNode,
            6..10 => Fault::KillGateway,
            10..12 => Fault::KillGatewayAndNode,
            12..14 => Fault::Disconnect,
            14..18 => Fault::SomeDoubt,
            18 => Fault::EveryDoubt,
            19 => Fault::DoubtThenSilence,
            20 => Fault::LateAfterDeath,
            21 => Fault::RollGateways,
            _ => Fault::Statements,
        }
    }

    /// Breaks it, lives with it, mends it, and waits for what was sent meanwhile.
    pub fn strike(self, act: &mut Act<'_>) {
        // In the middle of appends, at no particular place.
        let before = Duration::from_millis(act.rng.random_range(100..1500));
        act.live_for(before);
        match self {
            Fault::KillNode => kill_node(act),
            Fault::KillTwoNodes => kill_two_nodes(act),
            Fault::PauseNode => pause_node(act),
            Fault::KillGateway => kill_gateway(act),
            Fault::RollGateways => roll_gateways(act),
            Fault::KillGatewayAndNode => kill_gateway_and_node(act),
            Fault::Disconnect => disconnect(act),
            Fault::SomeDoubt => some_doubt(act),
            Fault::EveryDoubt => every_doubt(act),
            Fault::Statements => statements(act),
            Fault::DoubtThenSilence => doubt_then_silence(act),
            Fault::LateAfterDeath => late_after_death(act),
        }
        act.site.proxies().heal();
        act.recover();
        act.check_memory();
    }
}

/// With one node less, the others are a majority.
fn carries_on(act: &mut Act<'_>) {
    if !act.live_until_acked(20, PATIENCE) {
        let what = "nothing is acknowledged with one node or gateway less".to_owned();
        act.record().with(|checker| checker.report(Kind::Unsettled, what));
    }
}

fn kill_node(act: &mut Act<'_>) {
    let site = act.site;
    let at = act.rng.random_range(0..site.len());
    site.node(at).kill().unwrap();
    carries_on(act);
    act.live_while(|| site.start_nodes(&[at]));
    act.audit_all();
}

fn kill_two_nodes(act: &mut Act<'_>) {
    let site = act.site;
    let kept = act.rng.random_range(0..site.len());
    let killed: Vec<_> = (0..site.len()).filter(|&at| at != kept).collect();
    killed.iter().for_each(|&at| site.node(at).kill().unwrap());
    let refusals =
        |act: &Act<'_>| act.record().with(|checker| checker.postponed().values().sum::<u64>());
    let before = refusals(act);
    if !act.live(PATIENCE, |act| refusals(act) > before) {
        let what = "nobody is told to try later, with one node of three".to_owned();
        act.record().with(|checker| checker.report(Kind::Unsettled, what));
    }
    act.live_for(REQUEST_TIMEOUT);
    act.live_while(|| site.start_nodes(&killed));
    act.audit_all();
}

fn pause_node(act: &mut Act<'_>) {
    let site = act.site;
    let node = site.node(act.rng.random_range(0..site.len()));
    node.pause().unwrap();
    act.live_for(REQUEST_TIMEOUT + Duration::from_secs(1));
    carries_on(act);
    node.resume().unwrap();
    // It knows nothing yet of what was written meanwhile.
    act.audit_all();
}

fn kill_gateway(act: &mut Act<'_>) {
    let at = act.rng.random_range(0..act.gateways.len());
    act.gateways.kill(at);
    let down = Duration::from_millis(act.rng.random_range(0..1000));
    act.live_for(down);
    act.restart_gateway(at);
}

/// Clients are told to go; when they come back, the name leads elsewhere. Alone, it leads nowhere
/// for as long as there is none.
fn roll_gateways(act: &mut Act<'_>) {
    for at in 0..act.gateways.len() {
        let Some(leaving) = act.gateways.take(at) else { continue };
        let address = leaving.address;
        leaving.ask_to_stop();
        act.live_for(Duration::from_millis(300));
        act.lead_away(address);
        let status = act.live_while(move || leaving.wait());
        assert!(status.success(), "a stop that was asked for: {status}");
        act.restart_gateway(at);
        carries_on(act);
    }
}

fn kill_gateway_and_node(act: &mut Act<'_>) {
    let site = act.site;
    let node = act.rng.random_range(0..site.len());
    let at = act.rng.random_range(0..act.gateways.len());
    site.node(node).kill().unwrap();
    act.gateways.kill(at);
    // A gateway starts although one node is gone.
    act.restart_gateway(at);
    carries_on(act);
    act.live_while(|| site.start_nodes(&[node]));
    act.audit_all();
}

fn disconnect(act: &mut Act<'_>) {
    let site = act.site;
    for _ in 0..act.rng.random_range(1..6) {
        site.proxies().disconnect(act.rng.random_range(0..site.len()));
        let next = Duration::from_millis(act.rng.random_range(0..1000));
        act.live_for(next);
    }
}

/// These tricks at this rate together; late is up to [`LATE`].
fn tricks(act: &mut Act<'_>, aim: Aim, kinds: &[Trick], rate: f64) -> Faults {
    let each = rate / kinds.len() as f64;
    Faults {
        aim,
        seed: act.rng.random(),
        rates: kinds.iter().map(|&kind| (kind, each)).collect(),
        delay: Duration::from_millis(10)..=LATE,
    }
}

fn some_doubt(act: &mut Act<'_>) {
    let all = Trick::all();
    let kinds: Vec<_> = (0..4).map(|_| all[act.rng.random_range(0..all.len())]).collect();
    let rate = act.rng.random_range(0.1..0.7);
    let faults = tricks(act, Aim::Batches, &kinds, rate);
    act.site.proxies().set_faults(&faults);
    let time = Duration::from_millis(act.rng.random_range(2000..8000));
    act.live_for(time);
}

fn every_doubt(act: &mut Act<'_>) {
    let faults = tricks(act, Aim::Batches, &Trick::all(), 0.6);
    let before = act.site.proxies().counts();
    act.site.proxies().set_faults(&faults);
    let missing = |act: &mut Act<'_>| {
        let now = act.site.proxies().counts();
        Trick::all().into_iter().find(|&kind| now.of(kind) == before.of(kind))
    };
    let all = act.live(PATIENCE, |act| missing(act).is_none());
    assert!(all, "{:?} has not happened in {PATIENCE:?}", missing(act));
}

fn statements(act: &mut Act<'_>) {
    let faults = tricks(act, Aim::Statements, &Trick::all(), 0.3);
    act.site.proxies().set_faults(&faults);
    for _ in 0..4 {
        // Whoever comes back asks for much.
        act.crowd.crash_one();
        act.live_for(Duration::from_secs(1));
    }
}

/// Carried out, and answered with an error.
fn answers_after() -> Vec<Trick> {
    Answer::ALL.into_iter().map(Trick::AnswerAfter).collect()
}

/// Nobody has been told of the last messages when their outcome becomes known, and no later one
/// brings them along.
fn doubt_then_silence(act: &mut Act<'_>) {
    act.crowd.hush();
    act.recover();
    let faults = tricks(act, Aim::Batches, &answers_after(), 0.6);
    act.site.proxies().set_faults(&faults);
    act.crowd.unhush();
    act.live_for(Duration::from_secs(1));
    act.crowd.hush();
    act.recover();
    act.fall_silent(SILENCE);
}

fn late_after_death(act: &mut Act<'_>) {
    let faults = Faults {
        delay: Duration::from_millis(500)..=Duration::from_millis(2500),
        ..tricks(act, Aim::Batches, &[Trick::DelayRequest], 1.0)
    };
    act.site.proxies().set_faults(&faults);
    act.live_for(Duration::from_secs(1));
    let at = act.rng.random_range(0..act.gateways.len());
    act.gateways.kill(at);
    act.crowd.hush();
    act.site.proxies().heal();
    act.restart_gateway(at);
    act.recover();
    act.fall_silent(SILENCE);
}
