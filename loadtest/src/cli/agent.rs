//! `skein-load agent`: this machine makes load for a run that is conducted elsewhere.

use std::path::PathBuf;

use super::output::print;
use crate::agent::{self, AgentError, Secret};
use crate::exit::{Exit, Failure};
use crate::scenario::HostPort;
use crate::signals::Signals;

const EXAMPLES: &str = "\
Example, on each of two machines that make load:
  skein-load agent --listen 0.0.0.0:7844 --secret load.secret
and on a third one:
  skein-load chat --agents 10.0.0.5:7844,10.0.0.6:7844 --agent-secret load.secret \\
      --target chat.example.com:7843 --token-key signing-key.pem --pairs 100000 --rate 20000";

#[derive(Debug, clap::Args)]
#[command(after_help = super::help_end(EXAMPLES))]
pub(super) struct Args {
    /// Where to listen, TCP. On an address that other machines reach, a secret is needed.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7844", value_parser = host)]
    listen: HostPort,

    /// A file with at least 16 bytes that the run must know too (--agent-secret).
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
}

fn host(text: &str) -> Result<HostPort, String> {
    // Port 0 takes a free one.
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Ok(HostPort { host: address.ip().to_string(), port: address.port() });
    }
    text.parse().map_err(|()| "not a host and a port, such as 0.0.0.0:7844".to_owned())
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let secret = args.secret.as_deref().map(Secret::read).transpose();
    let secret = secret.map_err(|error| Failure::could_not_run(error.to_string()))?;
    let signals = Signals::catch()
        .map_err(|error| Failure::could_not_run(format!("cannot catch signals: {error}")))?;
    if secret.is_none() {
        super::output::tell("no secret: whoever may log in to this machine can make it send load");
    }
    let address = (args.listen.host.as_str(), args.listen.port);
    let served = agent::serve(address, secret, &signals, |address| {
        // Nobody may be reading.
        let _ = print(&format!("ready {address}\n"));
    });
    match served {
        Ok(()) => Ok(Exit::Ok),
        Err(error @ AgentError::Open(_)) => Err(Failure::usage(error.to_string())),
        Err(error) => Err(Failure::could_not_run(error.to_string())),
    }
}
