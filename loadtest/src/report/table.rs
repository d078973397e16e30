//! A summary as text, for the terminal and for logs.

use std::fmt::Write as _;

use super::summary::{Latency, Part, Summary};
use crate::objective::show_us;

/// The figures of a run for people.
pub fn table(summary: &Summary) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}: {} of {} sessions, {:.0} s measured",
        summary.scenario, summary.connected, summary.planned, summary.phases.measured
    );
    if summary.rate_per_second > 0.0 {
        let _ = writeln!(
            text,
            "{:.0} messages/s acknowledged{}, {:.0}/s delivered",
            summary.rate_per_second,
            summary.offered_per_second.map_or_else(String::new, |due| format!(" of {due:.0} due")),
            summary.delivered_per_second
        );
    }
    memory(&mut text, summary);
    operations(&mut text, summary);
    steps(&mut text, summary);
    let faults: Vec<String> =
        summary.faults().iter().map(|(name, count)| format!("{count} {name}")).collect();
    if summary.sent > 0 {
        let _ = writeln!(text, "\nmessages: {} written, {}", summary.sent, faults.join(", "));
    }
    if summary.sessions_lost + summary.sessions_failed > 0 {
        let ends: Vec<String> =
            summary.session_ends.iter().map(|(why, count)| format!("{why}: {count}")).collect();
        let _ = writeln!(
            text,
            "sessions: {} lost, {} attempts failed ({})",
            summary.sessions_lost,
            summary.sessions_failed,
            ends.join(", ")
        );
    }
    if summary.sessions_ended_as_planned + summary.handshakes_resumed > 0 {
        let _ = writeln!(
            text,
            "sessions: {} ended as planned, {} handshakes resumed with a ticket",
            summary.sessions_ended_as_planned, summary.handshakes_resumed
        );
    }
    for verdict in &summary.objectives {
        let mark = if verdict.holds { "holds " } else { "MISSED" };
        let _ = writeln!(text, "{mark} {}: {}", verdict.objective, verdict.shown);
    }
    for failure in &summary.failures {
        let _ = writeln!(text, "FAILED {}: {}", failure.kind, failure.detail);
    }
    for reason in &summary.reasons {
        let _ = writeln!(text, "INVALID {}: {}", reason.kind, reason.detail);
    }
    for note in &summary.notes {
        let _ = writeln!(text, "NOTE {}: {}", note.kind, note.detail);
    }
    let _ = writeln!(text, "\n{}", verdict(summary));
    text
}

/// The outcome in a few words.
pub(super) fn verdict(summary: &Summary) -> String {
    if summary.ended_early {
        return "ended early: the figures are of what was measured until then".into();
    }
    if !summary.valid {
        return "invalid: the figures must not be believed".into();
    }
    if summary.passed {
        return "passed".into();
    }
    let faults = summary.faults().into_iter().filter(|(_, count)| *count > 0);
    let faults = faults.map(|(name, count)| format!("{count} messages {}", name.replace('_', " ")));
    let missed = summary.objectives.iter().filter(|verdict| !verdict.holds);
    let missed = missed.map(|v| format!("{} is missed", v.objective));
    let failures = summary.failures.iter().map(|failure| failure.detail.clone());
    let all: Vec<String> = faults.chain(missed).chain(failures).collect();
    format!("failed: {}", all.join(", "))
}

fn memory(text: &mut String, summary: &Summary) {
    let sides = [
        ("gateway", summary.gateway_bytes_per_session, summary.gateway.as_ref()),
        ("generator", summary.generator_bytes_per_session, Some(&summary.generator)),
    ];
    for (side, bytes, process) in sides {
        let Some(process) = process else { continue };
        let _ = write!(text, "{side}: {:.2} cores", process.cpu_cores);
        if let Some(bytes) = bytes {
            let _ = write!(text, ", {bytes:.0} bytes a session");
        }
        let _ = writeln!(
            text,
            ", {} at most",
            bytesize::ByteSize(process.peak_rss_bytes).display().iec()
        );
    }
}

fn operations(text: &mut String, summary: &Summary) {
    let _ = writeln!(
        text,
        "\n{:<18}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>8}{:>8}{:>8}",
        "", "count", "per s", "p50", "p99", "p99.9", "max", "errors", "late", "dropped"
    );
    let time = |us: Option<u64>| us.map_or_else(|| "-".into(), |us| show_us(us as f64));
    for (operation, figures) in &summary.operations {
        if figures.count + figures.errors + figures.dropped == 0 {
            continue;
        }
        let name = match figures.part {
            Part::Measured => operation.to_string(),
            Part::Unmeasured => format!("{operation} (ramp)"),
        };
        let rate = figures.per_second.map_or_else(|| "-".into(), |rate| format!("{rate:.1}"));
        let Latency { p50_us, p99_us, p999_us, max_us, .. } = figures.response;
        let _ = writeln!(
            text,
            "{name:<18}{:>10}{rate:>10}{:>10}{:>10}{:>10}{:>10}{:>8}{:>8}{:>8}",
            figures.count,
            time(p50_us),
            time(p99_us),
            time(p999_us),
            time(max_us),
            figures.errors,
            figures.late,
            figures.dropped
        );
        if let Some(longest) = figures.held_back_longest_us {
            let (count, longest) = (figures.held_back, show_us(longest as f64));
            let _ = writeln!(text, "    {count} held back by the window, {longest} at the longest");
        }
        if figures.untimed > 0 {
            let count = figures.untimed;
            let _ =
                writeln!(text, "    {count} untimed, of sessions that read slowly or were away");
        }
        for (kind, count) in &figures.error_kinds {
            let _ = writeln!(text, "    {count} x {kind}");
        }
    }
}

fn steps(text: &mut String, summary: &Summary) {
    if summary.steps.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{:>12}{:>12}", "load", "acked/s");
    for step in &summary.steps {
        let word = if step.good { "good".into() } else { step.broken.join(", ") };
        let _ = writeln!(text, "{:>12.1}{:>12.1}  {word}", step.load, step.acked_per_second);
    }
    if let Some(knee) = &summary.knee {
        let _ = writeln!(text, "{knee}");
    }
}
