//! The command line of `skein ctl`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use skein_transport::ConnId;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Where the gateway's admin listener is [default: admin.listen, or else 127.0.0.1:7844]
    #[arg(long, value_name = "ADDR:PORT", global = true)]
    pub(super) admin: Option<SocketAddr>,

    /// File with the token [default: admin.token_file, or else admin-token in the data folder]
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) token_file: Option<PathBuf>,

    /// Print JSON instead of a table
    #[arg(long, global = true)]
    pub(super) json: bool,

    /// Configuration file of the gateway
    #[arg(long, value_name = "FILE", env = "SKEIN_CONFIG", global = true)]
    pub(super) config: Option<PathBuf>,

    /// Data folder of the gateway [default: ./skein-data]
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) data: Option<String>,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// How the gateway is, in short.
    Status,
    /// Whether it can go on; status 1 and why, if only a restart helps. Needs no token.
    Alive,
    /// Whether clients should be sent to it; status 1 and why, if not. Needs no token.
    Ready,
    /// Who is connected.
    #[command(subcommand)]
    Sessions(Sessions),
    /// End sessions, now.
    ///
    /// They may come back by themselves only with --reconnect; to keep them out, `block`.
    Kick {
        #[command(flatten)]
        whom: Kicked,
        /// In words, for the person
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Tell them to come back
        #[arg(long)]
        reconnect: bool,
    },
    /// Shut a user or a network out, and end its sessions. Outlives restarts.
    Block {
        #[command(flatten)]
        whom: Whom,
        /// In words, for the person
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// For how long, such as 24h [default: until `unblock`]
        #[arg(long = "for", value_name = "TIME")]
        length: Option<String>,
    },
    /// Let a user or a network in again.
    Unblock {
        #[command(flatten)]
        whom: Whom,
    },
    /// Who is shut out.
    Blocks,
    /// Refuse logins and send all sessions away, spread over a time.
    ///
    /// The process goes on: stop it when nobody is left.
    Drain {
        /// Spread over this time, such as 60s
        #[arg(long, value_name = "TIME", default_value = "0s")]
        over: String,
        /// They come back after a random time of up to this
        #[arg(long, value_name = "TIME", default_value = "1s")]
        reconnect_delay: String,
        /// Wait until nobody is left; status 1 if somebody is after this time
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        wait: Option<Duration>,
    },
    /// Accept logins again.
    Undrain,
    /// Tell everybody who is online, or one user, a text.
    Notice {
        /// What to tell
        text: String,
        /// Only the devices of this user
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Read the configuration again, as SIGHUP does, and tell what came of it.
    ///
    /// If anything is wrong with it, nothing changes: status 1, and all that is wrong.
    Reload,
    /// Print what is logged, or log at another level until the next change or restart.
    Log {
        /// As in log.level: off, error, warn, info, debug or trace; then ",part=level"
        level: Option<String>,
    },
    /// The shards, or the state of one.
    Shards {
        /// Its number
        shard: Option<usize>,
    },
    /// Sessions that keep the gateway busiest.
    Top {
        /// By what
        #[arg(long, value_enum, default_value_t = By::BytesIn)]
        by: By,
        /// Count for this time; 0s: since each session began
        #[arg(long, value_name = "TIME", default_value = "2s")]
        over: String,
        /// How many
        #[arg(long, value_name = "NUMBER", default_value_t = 20)]
        limit: usize,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Sessions {
    /// Print them, one a line.
    List {
        #[command(flatten)]
        which: Which,
        /// Stop after so many
        #[arg(long, value_name = "NUMBER")]
        limit: Option<usize>,
    },
    /// Print how many there are.
    Count {
        #[command(flatten)]
        which: Which,
    },
    /// Print all about one.
    Show {
        /// Its id
        id: ConnId,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Of this user
    #[arg(long, value_name = "USER")]
    pub(super) user: Option<String>,
    /// Of devices of this name
    #[arg(long, value_name = "DEVICE")]
    pub(super) device: Option<String>,
    /// From this address or network
    #[arg(long, value_name = "ADDR[/LEN]")]
    pub(super) address: Option<String>,
    /// true: logged in; false: connected and not logged in
    #[arg(long, value_name = "BOOL")]
    pub(super) logged_in: Option<bool>,
    /// Silent for longer than this
    #[arg(long, value_name = "TIME")]
    pub(super) idle_over: Option<String>,
    /// Whether it reads too slowly for its pushes
    #[arg(long, value_name = "BOOL")]
    pub(super) behind: Option<bool>,
}

impl Which {
    pub(super) fn query(self) -> Vec<(&'static str, String)> {
        let all = [
            ("user", self.user),
            ("device", self.device),
            ("address", self.address),
            ("logged_in", self.logged_in.map(|flag| flag.to_string())),
            ("idle_over", self.idle_over),
            ("behind", self.behind.map(|flag| flag.to_string())),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// All that is given must be true of a session.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Kicked {
    /// One session, by its id
    #[arg(long, value_name = "ID")]
    pub(super) session: Option<ConnId>,
    /// All devices of a user
    #[arg(long, value_name = "USER")]
    pub(super) user: Option<String>,
    /// Devices of this name; mostly together with --user
    #[arg(long, value_name = "DEVICE")]
    pub(super) device: Option<String>,
    /// All from this address or network
    #[arg(long, value_name = "ADDR[/LEN]")]
    pub(super) address: Option<String>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Whom {
    /// A user, on all devices
    #[arg(long, value_name = "USER")]
    pub(super) user: Option<String>,
    /// An address or a network
    #[arg(long, value_name = "ADDR[/LEN]")]
    pub(super) address: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum By {
    /// Bytes from it
    BytesIn,
    /// Bytes to it
    BytesOut,
    /// Datagrams from it
    DatagramsIn,
    /// Datagrams to it
    DatagramsOut,
    /// Packets to it that were lost
    LostPackets,
    /// Bytes that wait until it reads
    OutboxBytes,
}

impl By {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BytesIn => "bytes_in",
            Self::BytesOut => "bytes_out",
            Self::DatagramsIn => "datagrams_in",
            Self::DatagramsOut => "datagrams_out",
            Self::LostPackets => "lost_packets",
            Self::OutboxBytes => "outbox_bytes",
        }
    }
}
