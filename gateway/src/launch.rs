//! What the command line hands to the gateway proper: everything read, checked and opened that
//! can be before the first socket.

use std::fmt;
use std::net::SocketAddr;

use crate::config::Config;
use crate::credentials::Credentials;
use crate::log_level::LogLevel;
use crate::reload::Source;
use crate::stop::{Hangups, Stop};

/// Everything that a gateway needs to start.
#[derive(Debug)]
pub struct Launch {
    /// What it was told; every value is inside its range.
    pub config: Config,
    /// What it proves itself with, and whom it believes.
    pub credentials: Credentials,
    /// Where it is told anew.
    pub source: Source,
    /// When it is told anew.
    pub hangups: Hangups,
    /// The level of its log.
    pub log_level: LogLevel,
    /// When it ends.
    pub stop: Stop,
    /// Told once it serves.
    pub ready: Ready,
}

/// Told once, with the addresses that are served: ports are those that the system chose where 0 was
/// asked for.
pub struct Ready(Box<dyn FnOnce(Serving) + Send>);

/// Where a gateway serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    /// Clients.
    pub clients: SocketAddr,
    /// Operators, if `admin.listen` is set.
    pub admin: Option<SocketAddr>,
}

impl Ready {
    /// For those who need not know.
    pub fn ignore() -> Self {
        (|_| {}).into()
    }

    /// The gateway serves.
    pub fn serves(self, at: Serving) {
        (self.0)(at);
    }
}

impl<F: FnOnce(Serving) + Send + 'static> From<F> for Ready {
    fn from(call: F) -> Self {
        Self(Box::new(call))
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ready")
    }
}
