//! `cargo xtask`: what a developer runs beside cargo's own commands.

#[cfg(unix)]
mod commands;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    commands::run()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("cargo xtask starts servers, for which it needs Unix");
    std::process::exit(2);
}
