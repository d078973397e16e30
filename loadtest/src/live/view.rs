//! A few rows at the bottom of the terminal, drawn anew several times a second. What was there
//! before stays above them. `ratatui` draws: it is what terminal programs in Rust use, and writes
//! only what has changed.

use std::collections::VecDeque;
use std::io::{self, Stderr};

use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, Row, Sparkline, Table};
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};

use super::{clock, faults, phase_name, times};
use crate::outcome::{Phase, Snapshot};

/// Rows of the view.
const HEIGHT: u16 = 18;

/// Seconds that the small graph remembers; more than a terminal is wide.
const MEMORY: usize = 400;

/// The view in the terminal.
pub(super) struct View {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    screen: Screen,
}

impl View {
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let options = TerminalOptions { viewport: Viewport::Inline(HEIGHT) };
        let terminal = Terminal::with_options(CrosstermBackend::new(io::stderr()), options)?;
        Ok(Self { terminal, screen: Screen::new(name) })
    }

    pub(super) fn draw(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.screen.remember(snapshot);
        let screen = &self.screen;
        self.terminal.draw(|frame| screen.draw(frame, snapshot)).map(drop)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // What follows is written below the view.
        let _ = self.terminal.show_cursor();
        let area = self.terminal.get_frame().area();
        let _ =
            self.terminal.backend_mut().set_cursor_position((0, area.bottom().saturating_sub(1)));
        let _ = io::Write::write_all(self.terminal.backend_mut(), b"\r\n");
    }
}

/// What is drawn, apart from where.
pub(super) struct Screen {
    name: String,
    /// Messages acknowledged, or logins, second by second.
    rates: VecDeque<u64>,
    second: Option<u32>,
}

impl Screen {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), rates: VecDeque::new(), second: None }
    }

    pub(super) fn remember(&mut self, snapshot: &Snapshot) {
        let Some(point) = &snapshot.last else { return };
        if self.second == Some(point.second) {
            return;
        }
        self.second = Some(point.second);
        let logins =
            point.operations.get(&crate::operation::Operation::Login).map_or(0, |one| one.count);
        self.rates.push_back(point.acked.max(logins));
        if self.rates.len() > MEMORY {
            self.rates.pop_front();
        }
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>, snapshot: &Snapshot) {
        let title = format!(" skein-load {} ", self.name);
        let block =
            Block::bordered().title(title).title_bottom(" Ctrl-C ends early, with a report ");
        let inner = block.inner(frame.area());
        frame.render_widget(block, frame.area());
        let [progress, head, graph, operations, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(3),
            Constraint::Length(2),
            Constraint::Min(2),
            Constraint::Length(2),
        ])
        .areas(inner);
        frame.render_widget(gauge(snapshot), progress);
        frame.render_widget(Paragraph::new(self.head(snapshot)), head);
        let width = usize::from(graph.width);
        let rates: Vec<u64> =
            self.rates.iter().skip(self.rates.len().saturating_sub(width)).copied().collect();
        frame.render_widget(
            Sparkline::default().data(&rates).style(Style::new().fg(Color::Blue)),
            graph,
        );
        frame.render_widget(table(snapshot), operations);
        frame.render_widget(Paragraph::new(foot_lines(snapshot)), foot);
    }

    fn head(&self, snapshot: &Snapshot) -> Vec<Line<'static>> {
        let sessions = &snapshot.sessions;
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let mut first = vec![
            Span::styled(format!("{}", sessions.connected), bold),
            Span::raw(format!(" of {} sessions", sessions.planned)),
        ];
        if snapshot.connecting > 0 {
            first.push(Span::raw(format!(", {} connecting", snapshot.connecting)));
        }
        if sessions.lost + sessions.failed > 0 {
            let text = format!(", {} lost, {} attempts failed", sessions.lost, sessions.failed);
            first.push(Span::styled(text, Style::new().fg(Color::Red)));
        }
        let point = snapshot.last.clone().unwrap_or_default();
        let second = vec![
            Span::styled(format!("{}", point.acked), bold),
            Span::raw(format!(
                " messages/s acknowledged, {} written, {} delivered",
                point.sent, point.delivered
            )),
        ];
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        let mut third = format!(
            "generator {:.2} cores (busiest thread {:.0}%), {}",
            point.generator_cpu,
            point.health.busiest_shard * 100.0,
            mib(point.generator_rss)
        );
        if point.health.socket_drops > 0 {
            third.push_str(&format!(", {} datagrams dropped", point.health.socket_drops));
        }
        if let (Some(cpu), Some(rss)) = (point.target_cpu, point.target_rss) {
            third.push_str(&format!("; gateway {cpu:.2} cores, {}", mib(rss)));
        }
        vec![Line::from(first), Line::from(second), Line::from(third)]
    }
}

fn gauge(snapshot: &Snapshot) -> Gauge<'static> {
    let elapsed = snapshot.elapsed;
    let (part, label) = match snapshot.remaining {
        Some(left) => (
            elapsed / (elapsed + left).max(f64::MIN_POSITIVE),
            format!("{}, {} left", clock(elapsed), clock(left)),
        ),
        None => {
            let sessions = &snapshot.sessions;
            let part = sessions.connected as f64 / sessions.planned.max(1) as f64;
            (part, clock(elapsed))
        }
    };
    let colour = match snapshot.phase {
        Phase::Measured => Color::Green,
        _ => Color::Blue,
    };
    Gauge::default()
        .ratio(part.clamp(0.0, 1.0))
        .label(format!("{}: {label}", phase_name(snapshot.phase)))
        .gauge_style(Style::new().fg(colour))
}

fn table(snapshot: &Snapshot) -> Table<'static> {
    let rows = snapshot.last.iter().flat_map(|point| &point.operations).map(|(name, figures)| {
        let [p50, p99, max] = times(figures);
        let style = match figures.errors + figures.dropped {
            0 => Style::new(),
            _ => Style::new().fg(Color::Red),
        };
        let numbers = [figures.errors, figures.late, figures.dropped].map(|n| n.to_string());
        let cells = [name.to_string(), figures.count.to_string(), p50, p99, max];
        Row::new(cells.into_iter().chain(numbers)).style(style)
    });
    let widths = [12, 10, 10, 10, 10, 8, 8, 8].map(Constraint::Length);
    let head = ["last second", "count", "p50", "p99", "max", "errors", "late", "dropped"];
    let head = Row::new(head).style(Style::new().add_modifier(Modifier::DIM));
    Table::new(rows.collect::<Vec<_>>(), widths).header(head)
}

fn foot_lines(snapshot: &Snapshot) -> Vec<Line<'static>> {
    let red = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
    let messages = match faults(snapshot) {
        Some(faults) => Line::styled(format!("messages: {faults}"), red),
        None => Line::raw(format!("messages: {} written, none wrong", snapshot.correctness.sent)),
    };
    let validity = match snapshot.reasons.last() {
        Some(reason) => Line::styled(format!("INVALID: {}", reason.detail), red),
        None => Line::raw("valid so far"),
    };
    vec![messages, validity]
}
