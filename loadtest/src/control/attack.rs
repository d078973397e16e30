//! The attack as Goose knows it: its configuration, its scenarios, and what their users do.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use goose::GooseError;
use goose::client::GooseClientBuilder;
use goose::config::GooseConfiguration;
use goose::goose::{GooseUser, Scenario, Transaction, TransactionFunction, TransactionResult};
use goose::{GooseAttack, trigger_killswitch};
use tokio::time::Instant;

use super::desk::{Batch, Desk};
use super::{ControlError, JSON, MetricsUrl, Options, PAGE, thresholds};
use crate::clock;
use crate::health::{self, Scraped};
use crate::plan::Plan;
use crate::run::Gate;

/// Length of a transaction. Goose looks between transactions whether it is to end, so this is also
/// how long that takes.
const SLICE: Duration = Duration::from_millis(200);

/// How often the run is looked at within a slice: so long may it wait to be let on.
const GLANCE: Duration = Duration::from_millis(20);

/// Requests a second that the control plane may make over HTTP, in all.
const THROTTLE: &str = "4";

/// How often the target is asked for its figures.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

/// The target's answer takes this long at most, seconds.
const SCRAPE_TIMEOUT: &str = "1";

/// Figures of a process among all that a gateway may expose.
const MAX_ANSWER: usize = 4 << 20;

/// Goose's name for an operation of a phase.
pub(super) fn row(phase: &str, operation: &str) -> String {
    format!("{phase} {operation}")
}

/// What Goose is told on its command line.
pub(super) fn configuration(options: &Options<'_>) -> Result<GooseConfiguration, GooseError> {
    let users = options.plan.fleets.len().max(1) + usize::from(options.target.is_some());
    let users = users.to_string();
    let host = match &options.target {
        Some((url, _)) => url.base.clone(),
        // Only shown: nothing is asked of it over HTTP.
        None => match options.plan.target.addresses.first() {
            Some(address) => format!("quic://{address}"),
            None => "quic://localhost".into(),
        },
    };
    let [page, json] = [PAGE, JSON].map(|file| options.folder.join(file).display().to_string());
    let notes = format!(
        "skein-load {}: a row for each operation and phase; in seconds with more than {} of one \
         kind as many of them stand for all, evenly over the percentiles. The exact figures are in \
         report.html and summary.json beside this file.",
        options.plan.scenario,
        super::desk::A_SECOND
    );
    let rules: Vec<String> = options.objectives.iter().filter_map(thresholds::rule).collect();
    let mut words = vec!["--host", &host, "--users", &users];
    // All users at once. Goose throws away what it has when they are there, which is nothing yet; if it
    // were told to keep it, it would say so on standard output, where our figures may be.
    words.extend(["--increase-rate", "10000"]);
    // No door of its own, and nothing on standard output.
    words.extend(["--no-telnet", "--quiet", "--no-print-metrics"]);
    words.extend(["--no-status-codes", "--no-gzip", "--timeout", SCRAPE_TIMEOUT]);
    words.extend(["--throttle-requests", THROTTLE, "--report-file", &page, "--report-file", &json]);
    words.extend(["--notes", &notes]);
    for rule in &rules {
        words.extend(["--threshold", rule]);
    }
    if !rules.is_empty() {
        words.push("--no-threshold-abort");
    }
    GooseConfiguration::parse_args_default(&words)
}

/// A scenario for each fleet, and one for the target's figures.
pub(super) fn scenarios(
    plan: &Plan,
    target: Option<(MetricsUrl, Scraped)>,
    desk: &Arc<Desk>,
    gate: &Gate,
) -> Result<Vec<Scenario>, GooseError> {
    let mut scenarios = Vec::new();
    for (fleet, known) in plan.fleets.iter().enumerate() {
        let name = format!("{} {}", known.work.name(), known.name);
        let desk = desk.clone();
        // The first fleet's user also conducts.
        let gate = (fleet == 0).then(|| gate.clone());
        let function: TransactionFunction = Arc::new(move |user| {
            let (desk, gate) = (desk.clone(), gate.clone());
            Box::pin(async move { slice(user, fleet, &desk, gate.as_ref()).await })
        });
        scenarios.push(scenario(&name, "slice", function)?);
    }
    if let Some((url, scraped)) = target {
        let function: TransactionFunction = Arc::new(move |user| -> Boxed<'_> {
            let (url, scraped) = (url.clone(), scraped.clone());
            Box::pin(async move { scrape(user, &url, &scraped).await })
        });
        let pause = SCRAPE_EVERY;
        let scenario = scenario("target", "figures", function)?.set_wait_time(pause, pause)?;
        scenarios.push(scenario);
    }
    Ok(scenarios)
}

type Boxed<'a> = Pin<Box<dyn Future<Output = TransactionResult> + Send + 'a>>;

fn scenario(
    name: &str,
    transaction: &str,
    function: TransactionFunction,
) -> Result<Scenario, GooseError> {
    let transaction = Transaction::new(function).set_name(transaction);
    Scenario::new(name).register_transaction(transaction).set_weight(1)
}

/// Runs it, to its report.
pub(super) fn run(
    configuration: GooseConfiguration,
    scenarios: Vec<Scenario>,
) -> Result<(), ControlError> {
    // With two providers linked in, what does not name one must find one. A second one is refused.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // One client for all users: they ask for one thing.
    let client = GooseClientBuilder::new().without_cookies();
    let attack = GooseAttack::initialize_with_config(configuration)?
        .set_client_builder_without_cookies(client)?;
    let attack = scenarios.into_iter().fold(attack, GooseAttack::register_scenario);
    match runtime.block_on(attack.execute()) {
        // What it says of its own figures; ours make the exit status.
        Ok(_) | Err(GooseError::ThresholdsFailed { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// One transaction of a fleet's user.
async fn slice(
    user: &mut GooseUser,
    fleet: usize,
    desk: &Desk,
    gate: Option<&Gate>,
) -> TransactionResult {
    let end = Instant::now() + SLICE;
    loop {
        if let Some(gate) = gate {
            conduct(desk, gate);
        }
        while let Some(batch) = desk.take(fleet) {
            record(user, &batch).await?;
        }
        let now = Instant::now();
        if now >= end {
            return Ok(());
        }
        tokio::time::sleep((end - now).min(GLANCE)).await;
    }
}

/// Lets the run on where it waits, and ends the attack when the run is over and everything is told.
fn conduct(desk: &Desk, gate: &Gate) {
    if let Some(stage) = gate.waiting() {
        gate.open(stage, clock::now());
    }
    if desk.is_over() && desk.is_empty() {
        trigger_killswitch("the run is over");
    }
}

async fn record(user: &mut GooseUser, batch: &Batch) -> TransactionResult {
    let name = batch.operation.name();
    for time in &batch.times {
        user.record_custom_request_duration(batch.phase, name, *time, true, None, None).await?;
    }
    // In a row of their own: Goose has failures among its response times.
    let failed = format!("{name} failed");
    for _ in 0..batch.failures {
        let none = Duration::ZERO;
        user.record_custom_request_duration(batch.phase, &failed, none, false, None, None).await?;
    }
    Ok(())
}

/// One transaction of the target's user. A target that does not answer is a failed request in Goose's
/// report, and a gap in ours.
async fn scrape(user: &mut GooseUser, url: &MetricsUrl, scraped: &Scraped) -> TransactionResult {
    let answer = user.get_named(&url.path, "figures of the target").await?;
    let Ok(mut response) = answer.response else { return Ok(()) };
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if text.len() + chunk.len() > MAX_ANSWER {
            return Ok(());
        }
        text.extend_from_slice(&chunk);
    }
    if let Ok(usage) = health::figures(&String::from_utf8_lossy(&text)) {
        scraped.set(usage);
    }
    Ok(())
}
