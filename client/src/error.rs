//! What can go wrong, one type per operation, in the words of those who use it.

use std::net::SocketAddr;

use skein_protocol::Code;
pub use skein_protocol::client::SendError as OutgoingError;

/// Why a client could not be made. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No token was given.
    #[error("a token is needed: Builder::token or Builder::token_source")]
    NoToken,
    /// The certificate to trust is not one.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// The server's name is none.
    #[error("{0:?} is not of the form HOST:PORT")]
    Server(String),
    /// The outbox or the positions cannot be read.
    #[error("what was kept cannot be read: {0}")]
    Storage(#[source] std::io::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why there is no connection. The client tries again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name leads to no address.
    #[error("{server} cannot be found: {reason}")]
    Resolve {
        /// As it was given.
        server: String,
        /// What the system says.
        reason: String,
    },
    /// No socket could be made.
    #[error("no socket: {0}")]
    Socket(#[source] std::io::Error),
    /// Nobody answers there.
    #[error("no gateway answers at {0}")]
    NoAnswer(SocketAddr),
    /// The gateway closed with a code before it welcomed us.
    #[error("refused with code {0}: {1}")]
    Closed(u64, String),
    /// The handshake failed.
    #[error("{0}")]
    Refused(String),
    /// The source of tokens gave none.
    #[error("no token: {0}")]
    Token(String),
}

impl ConnectError {
    pub(crate) fn from_connection(error: quinn::ConnectionError) -> Self {
        match error {
            quinn::ConnectionError::ApplicationClosed(close) => {
                let reason = String::from_utf8_lossy(&close.reason).into_owned();
                ConnectError::Closed(close.error_code.into_inner(), reason)
            }
            other => ConnectError::Refused(other.to_string()),
        }
    }
}

/// Why a message was not accepted. It will not be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The name of the recipient breaks the rules.
    #[error(transparent)]
    Name(#[from] skein_protocol::ids::IdError),
    /// It breaks a limit.
    #[error(transparent)]
    Refused(#[from] OutgoingError),
    /// The outbox could not keep it.
    #[error("the outbox cannot keep the message: {0}")]
    Storage(String),
    /// The client has ended.
    #[error("the client is closed")]
    Closed,
}

/// Why a message that was accepted is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The gateway refused it for good.
    #[error("refused with code {code}: {reason}")]
    Refused {
        /// Of the table of codes.
        code: u32,
        /// In words.
        reason: String,
    },
    /// The client ended first. With a durable outbox the next one will send it again.
    #[error("the client was closed before the message was acknowledged")]
    Closed,
}

/// Why there is no history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The gateway refused.
    #[error("refused with code {code}: {reason}")]
    Refused {
        /// Of the table of codes.
        code: u32,
        /// In words.
        reason: String,
    },
    /// Too many requests wait already.
    #[error("too many requests for history wait already")]
    Busy,
    /// The client has ended.
    #[error("the client is closed")]
    Closed,
}

impl HistoryError {
    /// Its code, if the gateway gave one.
    pub fn code(&self) -> Option<Code> {
        match self {
            HistoryError::Refused { code, .. } => Code::from_number((*code).into()),
            _ => None,
        }
    }
}
