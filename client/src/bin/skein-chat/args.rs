//! The command line.

use std::path::PathBuf;

use clap::Parser;
use skein_client::{DeviceId, UserId};

/// Chat over a Skein gateway.
///
/// On the machine of a gateway that was started without configuration, the name is enough: the
/// development certificate and key are found in its data folder.
#[derive(Debug, Parser)]
#[command(name = "skein-chat", version)]
pub(crate) struct Args {
    /// Who you are.
    pub(crate) user: UserId,

    /// The gateway.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7843")]
    pub(crate) server: String,

    /// Where the gateway's development certificate and key are found, and where this chat keeps
    /// messages that are not acknowledged yet.
    #[arg(long, value_name = "DIR", default_value = "./skein-data")]
    pub(crate) data: PathBuf,

    /// Name of this device. Two chats of one user need two names: the same device connecting again
    /// replaces its older connection.
    #[arg(long, value_name = "NAME", default_value = "chat")]
    pub(crate) device: DeviceId,

    /// A token for the gateway, instead of one made with the development key.
    #[arg(long, value_name = "T", env = "SKEIN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,

    /// The certificate to trust (PEM), instead of the development certificate.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// The name in the gateway's certificate, if it is not the host of --server.
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<String>,

    /// Serve a script: one JSON object a line, commands in and events out (docs/skein-chat.md).
    #[arg(long)]
    pub(crate) json: bool,
}
