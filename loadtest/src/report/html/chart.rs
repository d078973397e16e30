//! A line chart as inline SVG. Colours are classes, so that one picture serves light and dark.

use maud::{Markup, PreEscaped, html};
use serde::Serialize;

use super::scale::{Scale, Span};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;

/// A chart.
pub(super) struct Chart {
    /// What it shows, a few words.
    pub title: String,
    /// A sentence on how to read it; may be empty.
    pub note: &'static str,
    /// How a value is written.
    pub format: fn(f64) -> String,
    /// How values are placed.
    pub scale: Scale,
    /// The x axis: from, to, and what to write where.
    pub x: XAxis,
    /// Lines, back to front.
    pub series: Vec<Series>,
    /// Stretches of x that are shaded, with a word.
    pub bands: Vec<(f64, f64, &'static str)>,
    /// Places of x with a word.
    pub marks: Vec<(f64, String)>,
}

/// What stands along the bottom.
pub(super) struct XAxis {
    /// The left end.
    pub low: f64,
    /// The right end.
    pub high: f64,
    /// Places with their labels.
    pub ticks: Vec<(f64, String)>,
    /// How any place is written.
    pub format: fn(f64) -> String,
}

/// A line.
pub(super) struct Series {
    /// For the legend.
    pub name: String,
    /// CSS class that gives its colour.
    pub class: &'static str,
    /// In order of x; where there is no value the line has a gap.
    pub points: Vec<(f64, Option<f64>)>,
}

/// What the pointer needs to say what lies below it.
#[derive(Serialize)]
struct Hover<'a> {
    left: f64,
    right: f64,
    series: Vec<HoverSeries<'a>>,
}

#[derive(Serialize)]
struct HoverSeries<'a> {
    name: &'a str,
    class: &'a str,
    x: Vec<f64>,
    at: Vec<String>,
    value: Vec<String>,
}

impl Chart {
    /// The chart with its legend; nothing if it has no value at all.
    pub(super) fn draw(&self) -> Option<Markup> {
        let values = self.series.iter().flat_map(|series| &series.points);
        let y = Span::around(values.filter_map(|(_, value)| *value), self.scale)?;
        let place_x = |x: f64| {
            let whole = (self.x.high - self.x.low).max(f64::MIN_POSITIVE);
            round(LEFT + (x - self.x.low) / whole * (WIDTH - LEFT - RIGHT))
        };
        let place_y = |value: f64| round(HEIGHT - BOTTOM - y.part(value) * (HEIGHT - TOP - BOTTOM));
        let hover = serde_json::to_string(&self.hover(&place_x)).unwrap_or_default();
        Some(html! {
            figure.chart data-hover=(hover) {
                figcaption {
                    strong { (self.title) }
                    @if self.series.len() > 1 {
                        span.legend {
                            @for series in self.series.iter().rev() {
                                span { i class=(series.class) {} (series.name) }
                            }
                        }
                    }
                }
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(self.title) {
                    @for (from, to, word) in &self.bands {
                        @let (from, to) = (place_x(*from), place_x(*to));
                        rect.band x=(from) y=(TOP) width=(round(to - from))
                            height=(HEIGHT - TOP - BOTTOM) {}
                        @if to - from > 6.0 * word.len() as f64 {
                            text.word x=(from + 4.0) y=(TOP + 11.0) { (word) }
                        }
                    }
                    @for tick in y.ticks() {
                        @let at = place_y(tick);
                        line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(at) y2=(at) {}
                        text.tick x=(LEFT - 6.0) y=(at + 3.5) text-anchor="end" {
                            (short((self.format)(tick)))
                        }
                    }
                    @for (x, label) in &self.x.ticks {
                        line.stub x1=(place_x(*x)) x2=(place_x(*x))
                            y1=(HEIGHT - BOTTOM) y2=(HEIGHT - BOTTOM + 4.0) {}
                        text.tick x=(place_x(*x)) y=(HEIGHT - 6.0) text-anchor="middle" { (label) }
                    }
                    line.axis x1=(LEFT) x2=(WIDTH - RIGHT)
                        y1=(HEIGHT - BOTTOM) y2=(HEIGHT - BOTTOM) {}
                    @for (x, what) in &self.marks {
                        line.mark x1=(place_x(*x)) x2=(place_x(*x)) y1=(TOP) y2=(HEIGHT - BOTTOM) {
                            title { (what) }
                        }
                    }
                    @for series in &self.series {
                        path class={ "line " (series.class) }
                            d=(PreEscaped(path(&series.points, place_x, place_y))) {}
                    }
                    line.cursor y1=(TOP) y2=(HEIGHT - BOTTOM) x1="-9" x2="-9" {}
                }
                @if !self.note.is_empty() { p.note { (self.note) } }
            }
        })
    }

    fn hover(&self, place: &impl Fn(f64) -> f64) -> Hover<'_> {
        let series = self.series.iter().rev().map(|series| {
            let known = || series.points.iter().filter_map(|(x, value)| Some((*x, (*value)?)));
            HoverSeries {
                name: &series.name,
                class: series.class,
                x: known().map(|(x, _)| place(x)).collect(),
                at: known().map(|(x, _)| (self.x.format)(x)).collect(),
                value: known().map(|(_, value)| (self.format)(value)).collect(),
            }
        });
        Hover { left: LEFT / WIDTH, right: (WIDTH - RIGHT) / WIDTH, series: series.collect() }
    }
}

fn path(
    points: &[(f64, Option<f64>)],
    place_x: impl Fn(f64) -> f64,
    place_y: impl Fn(f64) -> f64,
) -> String {
    let mut path = String::new();
    let mut pen_down = false;
    for (at, (x, value)) in points.iter().enumerate() {
        let Some(value) = value else {
            pen_down = false;
            continue;
        };
        let (x, y) = (place_x(*x), place_y(*value));
        path.push_str(&format!("{}{x} {y}", if pen_down { 'L' } else { 'M' }));
        // A lone point has no length: a dot instead.
        let alone = !pen_down && points.get(at + 1).is_none_or(|(_, next)| next.is_none());
        if alone {
            path.push_str("m-2.5 0a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0 -5 0");
        }
        pen_down = true;
    }
    path
}

/// Lines stand at round numbers: what is behind their point says nothing.
fn short(label: String) -> String {
    let Some((number, unit)) = label.split_once(' ') else { return label };
    match number.contains('.') {
        true => format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.')),
        false => label,
    }
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
