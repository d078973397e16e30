//! `cargo xtask`: what a developer runs beside cargo's own commands.

fn main() {}
