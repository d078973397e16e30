//! `skein-chat`: a chat in the terminal, and with `--json` a chat for scripts.
//!
//! ```text
//! args.rs -> setup.rs (dev.rs: certificate and token of the same machine) -> skein_client
//! input.rs: lines of standard input, typed or piped
//! text.rs: for a person      json.rs: for a script (wire.rs: its commands and events)
//! ```

mod args;
mod dev;
mod input;
mod json;
mod setup;
mod text;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("skein-chat: {error}");
                return ExitCode::FAILURE;
            }
        };
    let code = runtime.block_on(async {
        if args.json { json::run(&args).await } else { text::run(&args).await }
    });
    // A thread may be waiting for a line; it is not waited for.
    runtime.shutdown_background();
    code
}

/// Resolves when the system or the person asks to stop.
async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
