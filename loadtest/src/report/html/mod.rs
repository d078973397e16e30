//! The page for people: one file that opens anywhere, without anything from elsewhere.
//!
//! Pictures are inline SVG made here, so that the page shows all without a script; the script only
//! says what lies below the pointer. `maud` writes the markup: it checks it when this is compiled,
//! and escapes every text.

mod chart;
mod charts;
mod scale;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::charts::{show_bytes, show_count};
use super::health::HealthSummary;
use super::summary::{Latency, OperationSummary, Part, Summary};
use super::table;
use crate::environment::Environment;
use crate::objective::show_us;
use crate::operation::Operation;
use crate::outcome::Outcome;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("hover.js");

/// The whole page.
pub(super) fn page(outcome: &Outcome, summary: &Summary) -> String {
    let title = format!("{}, {}", summary.scenario, summary.started);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " - skein-load" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (head(outcome, summary))
                    (tiles(summary))
                    (judged(summary))
                    (section("Load over time", charts::load(summary)))
                    (section("Latency over time", charts::latency(summary)))
                    (section("Steps of the ramp", charts::steps(&summary.steps)))
                    (step_table(summary))
                    h2 { "Operations" }
                    (operations(summary))
                    (section("Latency by percentile", charts::percentiles(outcome)))
                    (trouble(summary))
                    (section("Health of both sides", charts::health(summary)))
                    (health(summary))
                    (environment(summary))
                    (details(outcome))
                    footer { (summary.program) ". The same figures for scripts: summary.json." }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

fn head(outcome: &Outcome, summary: &Summary) -> Markup {
    let class = match summary.passed {
        true => "verdict good",
        false => "verdict bad",
    };
    let targets: Vec<String> =
        outcome.plan.target.addresses.iter().map(ToString::to_string).collect();
    html! {
        header {
            h1 { (summary.scenario) }
            p.sub {
                (summary.started) ", against " (targets.join(", ")) ", "
                (format!("{:.0} s measured", summary.phases.measured))
                (format!(" (ramp {:.0} s, warm-up {:.0} s)", summary.phases.ramp, summary.phases.warm_up))
            }
            p class=(class) { (table::verdict(summary)) }
            @for reason in &summary.reasons {
                p.reason { strong { (reason.kind.replace('_', " ")) } ": " (reason.detail) }
            }
            @for failure in &summary.failures {
                p.reason { strong { (failure.kind.replace('_', " ")) } ": " (failure.detail) }
            }
            @for note in &summary.notes {
                p.reason { strong { (note.kind.replace('_', " ")) } ": " (note.detail) }
            }
        }
    }
}

fn tiles(summary: &Summary) -> Markup {
    let operation = |operation| summary.operations.get(&operation);
    let main = [Operation::SendAck, Operation::Sync, Operation::Resume, Operation::Login];
    let main = main.into_iter().find_map(|name| {
        operation(name).filter(|figures| figures.count > 0).map(|figures| (name, figures))
    });
    let faults: u64 = summary.faults().iter().map(|(_, count)| count).sum();
    html! {
        div.tiles {
            (tile("sessions", &show_count(summary.connected as f64),
                &format!("of {} planned, {} lost", summary.planned, summary.sessions_lost)))
            @if summary.rate_per_second > 0.0 {
                (tile("messages/s", &show_count(summary.rate_per_second),
                    &throughput(summary)))
            }
            @if let Some((name, OperationSummary { response, .. })) = main {
                (tile(&format!("{name} p50"), &show_time(response.p50_us),
                    &format!("p99 {}", show_time(response.p99_us))))
                (tile(&format!("{name} p99.9"), &show_time(response.p999_us),
                    &format!("max {}", show_time(response.max_us))))
            }
            @if let Some(bytes) = summary.gateway_bytes_per_session {
                (tile("gateway, a session", &format!("{bytes:.0} B"), "resident memory, slope"))
            }
            @if let Some(bytes) = summary.generator_bytes_per_session {
                (tile("generator, a session", &format!("{bytes:.0} B"), "resident memory, slope"))
            }
            @if summary.sent > 0 {
                (tile("wrong messages", &faults.to_string(),
                    "lost, duplicated, reordered, corrupted"))
            }
        }
    }
}

fn throughput(summary: &Summary) -> String {
    let delivered = format!("{} delivered/s", show_count(summary.delivered_per_second));
    match summary.offered_per_second {
        Some(due) => format!("acknowledged, of {} due; {delivered}", show_count(due)),
        None => format!("acknowledged; {delivered}"),
    }
}

fn tile(name: &str, value: &str, below: &str) -> Markup {
    html! { div.tile { span { (name) } strong { (value) } small { (below) } } }
}

fn judged(summary: &Summary) -> Markup {
    html! {
        @if !summary.objectives.is_empty() {
            h2 { "Objectives" }
            div.wide { table {
                thead { tr { th { "Objective" } th { "Measured" } th { "" } } }
                tbody {
                    @for verdict in &summary.objectives {
                        tr {
                            td { code { (verdict.objective) } }
                            td { (verdict.shown) }
                            @if verdict.holds { td.good { "holds" } }
                            @else { td.bad { "missed" } }
                        }
                    }
                }
            } }
        }
    }
}

fn section(title: &str, charts: Vec<Markup>) -> Markup {
    html! {
        @if !charts.is_empty() {
            h2 { (title) }
            div.charts { @for chart in charts { (chart) } }
        }
    }
}

fn step_table(summary: &Summary) -> Markup {
    html! {
        @if !summary.steps.is_empty() {
            @if let Some(knee) = &summary.knee { p { (knee.to_string()) } }
            div.wide { table {
                thead { tr { th { "Load" } th { "Acknowledged/s" } th { "" } } }
                tbody {
                    @for step in &summary.steps {
                        tr {
                            td { (format!("{:.1}", step.load)) }
                            td { (format!("{:.1}", step.acked_per_second)) }
                            @if step.good { td.good { "good" } }
                            @else { td.bad { (step.broken.join(", ")) } }
                        }
                    }
                }
            } }
        }
    }
}

fn operations(summary: &Summary) -> Markup {
    let done = || {
        summary.operations.iter().filter(|(_, figures)| {
            figures.count + figures.errors + figures.late + figures.dropped > 0
        })
    };
    html! {
        div.wide { table.figures {
            thead { tr {
                th { "" } th { "" } th { "count" } th { "per second" } th { "mean" } th { "p50" }
                th { "p90" } th { "p99" } th { "p99.9" } th { "p99.99" } th { "max" } th { "failed" }
                th { "late" } th { "dropped" } th { "held back" } th { "longest" }
            } }
            tbody {
                @for (operation, figures) in done() {
                    tr {
                        td rowspan="2" {
                            strong { (operation) }
                            @if figures.part == Part::Unmeasured { br; small { "of the ramp" } }
                        }
                        td { "response" }
                        td { (figures.count) }
                        td { (figures.per_second.map_or_else(|| "-".into(), |r| format!("{r:.1}"))) }
                        (times(&figures.response))
                        td .bad[figures.errors > 0] { (figures.errors) }
                        td { (figures.late) }
                        td { (figures.dropped) }
                        td { (figures.held_back) }
                        td { (show_time(figures.held_back_longest_us)) }
                    }
                    tr.second {
                        td { "service" } td {} td {}
                        (times(&figures.service))
                        td {} td {} td {} td {} td {}
                    }
                }
            }
        } }
        p.note {
            "Response time counts from the moment at which an operation was due, as the timetable \
             has it: it is what a user feels. Service time counts from the moment at which it was \
             begun. Where the two differ, this program was late, or messages were held back by the \
             window: as many of the session were unanswered as the gateway allows."
        }
        @for (operation, figures) in done().filter(|(_, figures)| figures.untimed > 0) {
            p.note {
                (figures.untimed) " of " (operation) " are untimed: of sessions that read slowly or \
                 were away. They count, and their times say nothing of the gateway."
            }
        }
    }
}

fn times(latency: &Latency) -> Markup {
    let mean = latency.mean_us.map_or_else(|| "-".into(), show_us);
    html! {
        td { (mean) }
        @for us in [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us,
            latency.p9999_us, latency.max_us]
        {
            td { (show_time(us)) }
        }
    }
}

fn trouble(summary: &Summary) -> Markup {
    let kinds: Vec<(String, &String, u64)> = summary
        .operations
        .iter()
        .flat_map(|(operation, figures)| {
            figures.error_kinds.iter().map(|(kind, count)| (operation.to_string(), kind, *count))
        })
        .chain(summary.session_ends.iter().map(|(kind, count)| ("session".into(), kind, *count)))
        .collect();
    let messages = [
        ("lost", summary.lost, "acknowledged, never arrived, and not there when asked for"),
        (
            "unchecked",
            summary.unchecked,
            "acknowledged, and on its way or its receiver away at the end",
        ),
        ("duplicated", summary.duplicated, "arrived again"),
        ("reordered", summary.reordered, "arrived behind a later one"),
        ("corrupted", summary.corrupted, "arrived changed"),
        ("false acknowledgements", summary.false_acks, "for what was not sent, or another place"),
        ("misdelivered", summary.misdelivered, "arrived at a session they were not written to"),
        ("foreign", summary.foreign, "arrived, and were not written by this run"),
        ("recovered", summary.recovered, "asked for after a login or a gap; nothing is wrong"),
    ];
    let harmless = ["foreign", "recovered"];
    html! {
        h2 { "What went wrong" }
        div.charts { @for chart in charts::errors(summary) { (chart) } }
        div.side {
            @if summary.sent > 0 {
                table {
                    thead { tr { th { "Messages" } th { "" } th { "" } } }
                    tbody { @for (name, count, what) in messages {
                        tr {
                            td { (name) }
                            td .bad[count > 0 && !harmless.contains(&name)] { (count) }
                            td { small { (what) } }
                        }
                    } }
                }
            }
            @if kinds.is_empty() {
                p { "No operation failed, and no session was lost." }
            } @else {
                table {
                    thead { tr { th { "Failure" } th { "of" } th { "count" } } }
                    tbody { @for (of, kind, count) in kinds {
                        tr { td { (kind) } td { (of) } td { (count) } }
                    } }
                }
            }
        }
        @if !summary.marks.is_empty() {
            div.side { table {
                thead { tr { th { "Second" } th { "What happened" } } }
                tbody { @for mark in &summary.marks {
                    tr { td { (format!("{:.1}", mark.at)) } td { (mark.what) } }
                } }
            } }
        }
    }
}

fn health(summary: &Summary) -> Markup {
    let sides = [("gateway", summary.gateway.as_ref()), ("generator", Some(&summary.generator))];
    html! {
        div.side { table {
            thead { tr {
                th { "" } th { "bytes a session" } th { "between" } th { "most memory" }
                th { "cores in use" }
            } }
            tbody { @for (side, process) in sides {
                @if let Some(process) = process {
                    tr {
                        td { (side) }
                        td { (process.bytes_per_session.map_or("-".into(), |b| format!("{b:.0}"))) }
                        td { (process.between_sessions.map_or("-".into(), |(low, high)| {
                            format!("{low} and {high} sessions")
                        })) }
                        td { (show_bytes(process.peak_rss_bytes as f64)) }
                        td { (format!("{:.2}", process.cpu_cores)) }
                    }
                }
            } }
        } }
        @if sides.iter().any(|(_, side)| side.is_some_and(|one| one.bytes_per_session.is_none())) {
            p.note {
                "Bytes a session are a slope between two numbers of sessions, at least 500 apart: \
                 --plateau 20% reads memory at a fifth of the sessions, too."
            }
        }
        div.side { table {
            thead { tr { th { "While it was measured" } th { "" } } }
            tbody { @for (name, value) in machine(&summary.health) {
                tr { td { (name) } td { (value) } }
            } }
        } }
        @if !summary.agents.is_empty() {
            div.side { table {
                thead { tr {
                    th { "Generator" } th { "" } th { "sessions" } th { "acknowledged/s" }
                    th { "bytes a session" } th { "most memory" } th { "cores in use" }
                } }
                tbody { @for agent in &summary.agents {
                    @let process = &agent.generator;
                    tr {
                        td { (agent.name) }
                        @if agent.valid { td.good { "valid" } } @else { td.bad { "invalid" } }
                        td { (agent.connected) }
                        td { (format!("{:.1}", agent.acked_per_second)) }
                        td { (process.bytes_per_session.map_or("-".into(), |b| format!("{b:.0}"))) }
                        td { (show_bytes(process.peak_rss_bytes as f64)) }
                        td { (format!("{:.2}", process.cpu_cores)) }
                    }
                } }
            } }
        }
        @if summary.gateway.is_none() {
            p.note {
                "Nothing is known of the gateway's process. On this machine: --target-pid PID; \
                 elsewhere, where it exposes them: --target-metrics URL."
            }
        }
    }
}

fn machine(health: &HealthSummary) -> Vec<(&'static str, String)> {
    let percent = |share: f64| format!("{:.0}% of a core", share * 100.0);
    let memory = health.least_memory_available_bytes;
    vec![
        ("generator: busiest thread", percent(health.busiest_thread)),
        ("generator: a thread waited for a core", percent(health.starved_thread)),
        (
            "other programs, on the same cores",
            health.other_programs_cores.map_or_else(|| "-".into(), percent),
        ),
        ("generator: longest standstill", format!("{:.1} s", health.standstill_seconds)),
        ("generator: datagrams dropped at its sockets", health.socket_drops.to_string()),
        (
            "gateway: datagrams dropped at its sockets",
            health.gateway_socket_drops.map_or_else(|| "-".into(), |drops| drops.to_string()),
        ),
        (
            "machine: datagrams dropped, of those received",
            format!("{} of {}", health.machine_udp_drops, health.machine_udp_received),
        ),
        ("machine: datagrams not sent for want of room", health.machine_udp_unsent.to_string()),
        (
            "machine: least memory available",
            memory.map_or_else(|| "-".into(), |bytes| show_bytes(bytes as f64)),
        ),
        ("machine: swapped", show_bytes(health.swapped_bytes as f64)),
        ("generator: most descriptors open", health.most_open_files.to_string()),
    ]
}

fn environment(summary: &Summary) -> Markup {
    let own = &summary.environment;
    let machines: Vec<(&str, &Environment)> = match summary.agents.is_empty() {
        true => vec![("generator", own)],
        false => {
            summary.agents.iter().map(|agent| (agent.name.as_str(), &agent.environment)).collect()
        }
    };
    html! {
        h2 { "How it was made" }
        p { code { (own.command) } }
        div.side { table {
            thead { tr {
                th { "Machine" } th { "processor" } th { "cores" } th { "memory" } th { "kernel" }
                th { "build" }
            } }
            tbody { @for (name, machine) in machines {
                tr {
                    td { (name) }
                    td { (machine.processor.as_deref().unwrap_or("-")) }
                    td { (machine.cores) }
                    td { (machine.memory_bytes.map_or("-".into(), |b| show_bytes(b as f64))) }
                    td { (machine.kernel.as_deref().unwrap_or("-")) }
                    td .bad[machine.build == "debug"] { (machine.build) }
                }
            } }
        } }
    }
}

fn details(outcome: &Outcome) -> Markup {
    let plan = serde_json::to_string_pretty(&outcome.plan.without_secrets()).unwrap_or_default();
    html! { details { summary { "The plan of this run" } pre { (plan) } } }
}

fn show_time(us: Option<u64>) -> String {
    us.map_or_else(|| "-".into(), |us| show_us(us as f64))
}
