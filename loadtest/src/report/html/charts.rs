//! Which charts a report has, and what is in them.

use hdrhistogram::Histogram;
use maud::Markup;

use super::chart::{Chart, Series, XAxis};
use super::scale::Scale;
use crate::objective::show_us;
use crate::operation::Operation;
use crate::outcome::{Outcome, Phase};
use crate::report::summary::{OperationSummary, StepSummary, Summary};
use crate::report::timeline::{Slot, SlotOperation};

/// Points of a percentile curve between a percentile and the one that half as many exceed.
const CURVE_POINTS: u32 = 8;

/// What the sessions did over time.
pub(super) fn load(summary: &Summary) -> Vec<Markup> {
    let time = Time::new(summary);
    let connections = time.chart("Sessions", show_count, Scale::Linear).with([
        ("connecting", "s1", time.line(|slot| slot.connecting as f64)),
        ("logged in", "s0", time.line(|slot| slot.connected as f64)),
    ]);
    let mut throughput = time.chart("Messages per second", show_count, Scale::Linear);
    if summary.sent > 0 {
        throughput = throughput.with([
            ("delivered", "s2", time.line(|slot| slot.delivered_per_second)),
            ("acknowledged", "s1", time.line(|slot| slot.acked_per_second)),
            ("written", "s0", time.line(|slot| slot.sent_per_second)),
        ]);
    }
    let mut work = time.chart("Other operations per second", show_count, Scale::Linear);
    let others = [
        (Operation::Connect, "s0"),
        (Operation::Login, "s1"),
        (Operation::Sync, "s2"),
        (Operation::Resume, "s3"),
    ];
    for (operation, class) in others {
        if summary.operations.get(&operation).is_some_and(|figures| figures.count > 0) {
            let seconds = f64::from(summary.timeline.slot_seconds);
            let line = time.of(operation, |slot| Some(slot.count as f64 / seconds));
            work = work.with([(operation.name(), class, line)]);
        }
    }
    [throughput, connections, work].iter().filter_map(Chart::draw).collect()
}

/// Percentiles over time, a chart an operation.
pub(super) fn latency(summary: &Summary) -> Vec<Markup> {
    let time = Time::new(summary);
    let charts = summary.operations.keys().map(|&operation| {
        let title = format!("{operation}: response time");
        time.chart(title, show_us, Scale::Log).with([
            ("p50", "p50", time.of(operation, |slot| slot.p50_us.map(as_f64))),
            ("p99", "p99", time.of(operation, |slot| slot.p99_us.map(as_f64))),
            ("p99.9", "p999", time.of(operation, |slot| slot.p999_us.map(as_f64))),
            ("max", "max", time.of(operation, |slot| slot.max_us.map(as_f64))),
        ])
    });
    charts.filter_map(|chart| chart.draw()).collect()
}

/// The whole distribution, a chart an operation.
pub(super) fn percentiles(outcome: &Outcome) -> Vec<Markup> {
    let charts = Operation::ALL.into_iter().filter_map(|operation| {
        let record = outcome.record_of(operation).filter(|one| !one.response.is_empty())?;
        let nines = (record.response.len() as f64).log10().max(1.0);
        let whole = nines.ceil() as i32;
        let label = |nines: i32| match nines {
            0 => "0%".into(),
            nines => format!("{}%", 100.0 - 100.0 / 10f64.powi(nines)),
        };
        let x = XAxis {
            low: 0.0,
            high: nines,
            ticks: (0..=whole)
                .filter(|&at| f64::from(at) <= nines)
                .map(|at| (f64::from(at), label(at)))
                .collect(),
            format: show_percentile,
        };
        let curve = |histogram: &Histogram<u64>| curve(histogram, nines);
        let series = vec![
            line("service, from its actual start", "service", curve(&record.service)),
            line("response, from its due time", "s0", curve(&record.response)),
        ];
        let title = format!("{operation}: time by percentile");
        let chart = Chart {
            title,
            note: "",
            format: show_us,
            scale: Scale::Log,
            x,
            series,
            bands: Vec::new(),
            marks: Vec::new(),
        };
        chart.draw()
    });
    charts.collect()
}

/// What did not go well over time.
pub(super) fn errors(summary: &Summary) -> Vec<Markup> {
    let time = Time::new(summary);
    let sum = |count: fn(&SlotOperation) -> u64| {
        time.line(|slot| slot.operations.values().map(count).sum::<u64>() as f64)
    };
    let total = |count: fn(&OperationSummary) -> u64| -> u64 {
        summary.operations.values().map(count).sum()
    };
    let mut chart = time.chart("Failed, late and dropped operations", show_count, Scale::Linear);
    if total(|figures| figures.errors + figures.late + figures.dropped) > 0 {
        chart = chart.with([
            ("dropped", "s1", sum(|slot| slot.dropped)),
            ("late", "s4", sum(|slot| slot.late)),
            ("failed", "bad", sum(|slot| slot.errors)),
        ]);
    }
    chart.draw().into_iter().collect()
}

/// Processor time and memory of both sides.
pub(super) fn health(summary: &Summary) -> Vec<Markup> {
    let time = Time::new(summary);
    let both = |gateway: Line, generator: Line| {
        [("gateway", "s0", gateway), ("generator", "s1", generator)]
    };
    let cpu = time.chart("Processor cores in use", show_decimal, Scale::Linear).with(both(
        time.known(|slot| slot.gateway_cpu_cores),
        time.line(|slot| slot.generator_cpu_cores),
    ));
    let memory = time.chart("Resident memory", show_bytes, Scale::Linear).with(both(
        time.known(|slot| slot.gateway_rss_bytes.map(as_f64)),
        time.line(|slot| slot.generator_rss_bytes as f64),
    ));
    let mut threads = time.chart("Generator's threads", show_share, Scale::Linear);
    threads.note = "Of the time of one core. A thread that is busy all the time makes every figure \
                    one of the generator.";
    let threads = threads.with([
        ("waits for a core", "s4", time.line(|slot| slot.starved_thread)),
        ("busiest", "s1", time.line(|slot| slot.busiest_thread)),
    ]);
    let seconds = f64::from(summary.timeline.slot_seconds);
    let drops = time.chart("UDP datagrams dropped per second", show_count, Scale::Linear).with([
        ("whole machine", "s2", time.line(|slot| slot.machine_udp_drops as f64 / seconds)),
        (
            "gateway's sockets",
            "s0",
            time.known(|slot| slot.gateway_socket_drops.map(|drops| drops as f64 / seconds)),
        ),
        (
            "generator's sockets",
            "s1",
            time.line(|slot| slot.generator_socket_drops as f64 / seconds),
        ),
    ]);
    let free = time.chart("Memory that can be had", show_bytes, Scale::Linear).with([(
        "available",
        "s0",
        time.known(|slot| slot.memory_available_bytes.map(as_f64)),
    )]);
    [cpu, memory, threads, drops, free].iter().filter_map(Chart::draw).collect()
}

/// Latency by load, of a ramp.
pub(super) fn steps(steps: &[StepSummary]) -> Vec<Markup> {
    let mut steps: Vec<&StepSummary> = steps.iter().collect();
    steps.sort_by(|a, b| a.load.total_cmp(&b.load));
    let Some((first, last)) = steps.first().zip(steps.last()) else { return Vec::new() };
    let x = || XAxis {
        low: first.load.min(last.load * 0.9),
        high: last.load,
        ticks: steps.iter().map(|step| (step.load, show_count(step.load))).collect(),
        format: show_count,
    };
    let chart = |title: &str, format, scale, series| Chart {
        title: title.into(),
        note: "",
        format,
        scale,
        x: x(),
        series,
        bands: Vec::new(),
        marks: Vec::new(),
    };
    let acked = steps.iter().map(|step| (step.load, Some(step.acked_per_second))).collect();
    let mut charts = vec![chart(
        "Acknowledged per second, by load",
        show_count,
        Scale::Linear,
        vec![line("acknowledged", "s0", acked)],
    )];
    for operation in Operation::ALL {
        let of = |value: fn(&OperationSummary) -> Option<u64>| -> Line {
            let point = |step: &&StepSummary| {
                (step.load, step.operations.get(&operation).and_then(value).map(as_f64))
            };
            steps.iter().map(point).collect()
        };
        charts.push(chart(
            &format!("{operation}: response time by load"),
            show_us,
            Scale::Log,
            vec![
                line("p50", "p50", of(|figures| figures.response.p50_us)),
                line("p99", "p99", of(|figures| figures.response.p99_us)),
                line("p99.9", "p999", of(|figures| figures.response.p999_us)),
            ],
        ));
    }
    charts.iter().filter_map(Chart::draw).collect()
}

type Line = Vec<(f64, Option<f64>)>;

fn line(name: &str, class: &'static str, points: Line) -> Series {
    Series { name: name.into(), class, points }
}

impl Chart {
    fn with<const N: usize>(mut self, lines: [(&str, &'static str, Line); N]) -> Self {
        self.series.extend(lines.map(|(name, class, points)| line(name, class, points)));
        self
    }
}

/// Charts over the time of a run.
struct Time<'a> {
    summary: &'a Summary,
    end: f64,
}

impl<'a> Time<'a> {
    fn new(summary: &'a Summary) -> Self {
        let last = summary.slots().last().map_or(1, |slot| slot.second);
        Self { summary, end: f64::from(last + summary.timeline.slot_seconds) }
    }

    fn chart(&self, title: impl Into<String>, format: fn(f64) -> String, scale: Scale) -> Chart {
        Chart {
            title: title.into(),
            note: "",
            format,
            scale,
            x: XAxis { low: 0.0, high: self.end, ticks: self.ticks(), format: show_seconds },
            series: Vec::new(),
            bands: self.bands(),
            marks: self.summary.marks.iter().map(|m| (m.at, m.what.clone())).collect(),
        }
    }

    fn line(&self, value: impl Fn(&Slot) -> f64) -> Line {
        self.known(|slot| Some(value(slot)))
    }

    fn known(&self, value: impl Fn(&Slot) -> Option<f64>) -> Line {
        let middle = f64::from(self.summary.timeline.slot_seconds) / 2.0;
        let slots = self.summary.slots().iter();
        slots.map(|slot| (f64::from(slot.second) + middle, value(slot))).collect()
    }

    fn of(&self, operation: Operation, value: impl Fn(&SlotOperation) -> Option<f64>) -> Line {
        self.known(|slot| slot.operations.get(&operation).and_then(&value))
    }

    /// What is not measured is shaded.
    fn bands(&self) -> Vec<(f64, f64, &'static str)> {
        let length = self.summary.timeline.slot_seconds;
        let word = |slot: &Slot| match slot.phase {
            Phase::Ramp => Some("ramp"),
            Phase::WarmUp => Some("warm-up"),
            Phase::Measured => None,
            Phase::Drain | Phase::Over => Some("drain"),
        };
        let runs = self.summary.slots().chunk_by(|a, b| word(a) == word(b));
        let bands = runs.filter_map(|run| {
            let (first, last) = run.first().zip(run.last())?;
            Some((f64::from(first.second), f64::from(last.second + length), word(first)?))
        });
        bands.collect()
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        const STEPS: [f64; 14] = [
            1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21_600.0,
            86_400.0,
        ];
        let step = STEPS.into_iter().find(|step| self.end / step <= 10.0).unwrap_or(604_800.0);
        let count = (self.end / step).floor() as u32;
        (0..=count)
            .map(|number| f64::from(number) * step)
            .map(|at| (at, show_seconds(at)))
            .collect()
    }
}

/// Value by `log10(1 / (1 - quantile))`, up to the last value.
fn curve(histogram: &Histogram<u64>, nines: f64) -> Line {
    let at = |quantile: f64| match quantile < 1.0 {
        true => (-(1.0 - quantile).log10()).min(nines),
        false => nines,
    };
    let points = histogram.iter_quantiles(CURVE_POINTS);
    let mut points: Line = points
        .map(|point| (at(point.quantile_iterated_to()), Some(point.value_iterated_to() as f64)))
        .collect();
    points.dedup_by_key(|(x, _)| *x);
    points
}

fn as_f64(value: u64) -> f64 {
    value as f64
}

/// A count in the usual steps of a thousand.
pub(super) fn show_count(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e4 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let decimals = usize::from(value.fract().abs() > 0.049 && value < 100.0);
    format!("{value:.decimals$}{unit}")
}

fn show_decimal(value: f64) -> String {
    format!("{value:.2}")
}

/// A size in binary units.
pub(super) fn show_bytes(value: f64) -> String {
    bytesize::ByteSize(value as u64).display().iec().to_string()
}

fn show_share(value: f64) -> String {
    format!("{:.0}%", value * 100.0)
}

fn show_seconds(at: f64) -> String {
    let whole = at as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{} s", (at * 10.0).round() / 10.0),
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

fn show_percentile(nines: f64) -> String {
    let percent = 100.0 - 100.0 / 10f64.powf(nines);
    let decimals = (nines.floor() as usize).clamp(1, 6);
    format!("{percent:.decimals$}%")
}
