//! What only the embedded store promises, and faults that only its inside can plant.

mod disk;
mod kill;
mod opening;
mod stopping;
mod support;
mod torn;
