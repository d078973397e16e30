//! Is the generator itself the limit? Then whatever it measured is about itself, and the run is
//! invalid.
//!
//! ```text
//! once a second:  counters (/proc) -> Watch -> Health of the second's Point
//!                 target: its process, or the figures that it exposes -> the same Point
//! at the end:     rules(points, recording, bounds) -> reasons, notes
//! ```
//!
//! The rules are plain functions over what was sampled; nothing of them needs a running generator.

mod cores;
mod counters;
mod cpu;
mod rules;
mod scrape;
mod steps;
mod target;
mod watch;

pub use cores::{Place, Starved, busy_stretches, starved_stretches};
pub use rules::{Evidence, notes, reasons};
pub use scrape::{NoFigures, figures};
pub use steps::blame;
pub use target::{Scraped, Target};
pub use watch::Watch;
