//! The program `skein`; everything is in the library.

fn main() -> std::process::ExitCode {
    skein_gateway::cli::run()
}
