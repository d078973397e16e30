//! The figures, for people and for programs.

use serde_json::{Value, json};

use crate::Figures;

#[derive(Default)]
pub(crate) struct Report {
    pub(crate) skein: Option<Figures>,
    pub(crate) quinn: Option<Figures>,
}

impl Report {
    pub(crate) fn print_json(&self) {
        let pair = |of: fn(&Figures) -> f64| -> Value {
            let round = |figures: &Option<Figures>| figures.as_ref().map(|f| of(f).round());
            json!({ "skein": round(&self.skein), "quinn": round(&self.quinn) })
        };
        println!(
            "{}",
            json!({
                "idle_bytes_per_connection": pair(|f| f.idle_bytes),
                "connects_per_second": pair(|f| f.both_ends.connects),
                "echoes_per_second": pair(|f| f.both_ends.echoes),
                "same_generator": {
                    "connects_per_second": pair(|f| f.rates.connects),
                    "echoes_per_second": pair(|f| f.rates.echoes),
                },
            })
        );
    }

    pub(crate) fn print_table(&self) {
        println!("{:<30} {:>12} {:>12} {:>9}", "", "skein", "quinn", "ratio");
        self.row("bytes per idle connection", |f| f.idle_bytes);
        self.row("both ends: connections/s", |f| f.both_ends.connects);
        self.row("both ends: echoes/s", |f| f.both_ends.echoes);
        self.row("same generator: connections/s", |f| f.rates.connects);
        self.row("same generator: echoes/s", |f| f.rates.echoes);
        self.row("server CPU us per connection", |f| f.cpu_per_connect * 1e6);
        self.row("server CPU ns per echo", |f| f.cpu_per_echo * 1e9);
    }

    fn row(&self, name: &str, of: fn(&Figures) -> f64) {
        let text = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.0}"));
        let (skein, quinn) = (self.skein.as_ref().map(of), self.quinn.as_ref().map(of));
        let ratio = match (skein, quinn) {
            (Some(skein), Some(quinn)) if quinn > 0.0 => format!("{:.2}x", skein / quinn),
            _ => "-".into(),
        };
        println!("{name:<30} {:>12} {:>12} {ratio:>9}", text(skein), text(quinn));
    }
}
