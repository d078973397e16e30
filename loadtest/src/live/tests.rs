use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::view::Screen;
use super::*;
use crate::outcome::{Reason, ReasonKind, Sessions};
use crate::sample;

fn snapshot(at: usize) -> Snapshot {
    let outcome = sample::chat();
    let point = outcome.timeline[at].clone();
    Snapshot {
        elapsed: f64::from(point.second) + 1.0,
        remaining: (point.phase != Phase::Ramp).then(|| 36.0 - f64::from(point.second)),
        phase: point.phase,
        sessions: Sessions { planned: 2_000, connected: point.connected, ..Sessions::default() },
        connecting: point.connecting,
        correctness: outcome.correctness,
        last: Some(point),
        reasons: Vec::new(),
    }
}

fn screen(snapshot: &Snapshot) -> String {
    let mut terminal = Terminal::new(TestBackend::new(90, 18)).unwrap();
    let mut screen = Screen::new("chat");
    screen.remember(snapshot);
    terminal.draw(|frame| screen.draw(frame, snapshot)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn lines_say_what_a_reader_asks_for() {
    let mut lines = Lines::new("chat");
    let begin = Instant::now();
    let line = lines.next(&snapshot(2), begin).unwrap();
    assert_eq!(line, "chat     3 s ramp     1500 sessions (+16), login p50 1.15 ms p99 1.88 ms");
    let line = lines.next(&snapshot(27), begin).unwrap();
    assert_eq!(
        line,
        "chat    28 s measured 2000 sessions, 500/s sent, 500 acked, 500 delivered, send_ack p50 \
         65.1 ms p99 89.9 ms, 2 errors, 5 late, 2 dropped, 9 s left"
    );
}

#[test]
fn lines_become_rare_and_never_miss_a_phase_or_a_reason() {
    let mut lines = Lines::new("chat");
    let begin = Instant::now();
    let after = |seconds| begin + Duration::from_secs_f64(seconds);
    let mut now = snapshot(20);
    assert!(lines.next(&now, begin).is_some());
    assert!(lines.next(&now, after(0.9)).is_none());
    assert!(lines.next(&now, after(1.0)).is_some());
    now.elapsed = 100.0;
    assert!(lines.next(&now, after(5.0)).is_none());
    assert!(lines.next(&now, after(11.0)).is_some());
    now.phase = Phase::Drain;
    assert!(lines.next(&now, after(11.2)).is_some());
    now.reasons.push(Reason { kind: ReasonKind::GeneratorCpu, detail: "too busy".into() });
    let line = lines.next(&now, after(11.4)).unwrap();
    assert!(line.ends_with("INVALID: too busy"), "{line}");
    assert!(lines.next(&now, after(11.6)).is_none());
}

#[test]
fn the_view_shows_all_of_it() {
    let mut now = snapshot(27);
    now.sessions.lost = 3;
    let shown = screen(&now);
    for part in [
        "skein-load chat",
        "measured: 28 s, 9 s left",
        "2000 of 2000 sessions, 3 lost",
        "500 messages/s acknowledged",
        "gateway 0.55 cores",
        "send_ack",
        "65.1 ms",
        "none wrong",
        "valid so far",
        "Ctrl-C ends early",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    now.correctness.lost = 4;
    now.reasons.push(Reason { kind: ReasonKind::GeneratorCpu, detail: "too busy".into() });
    let shown = screen(&now);
    assert!(shown.contains("messages: 4 lost") && shown.contains("INVALID: too busy"), "{shown}");
}

/// Before the first second, and in a terminal that is far too small.
#[test]
fn nothing_to_show_is_shown_too() {
    assert!(screen(&Snapshot::default()).contains("ramp: 0 s"));
    let mut terminal = Terminal::new(TestBackend::new(5, 2)).unwrap();
    terminal.draw(|frame| Screen::new("chat").draw(frame, &snapshot(27))).unwrap();
}
