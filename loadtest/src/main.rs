//! `skein-load`: how many users does a gateway hold, at which latency, and why not more? Everything
//! is in the library.

fn main() -> std::process::ExitCode {
    skein_loadtest::cli::run()
}
