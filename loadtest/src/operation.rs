//! What is measured, and what can go wrong with it: the names that every report uses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Something a client does and waits for. Each has its own histograms and its own errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The QUIC handshake. Intended start: when the timetable says that the connection is due. A
    /// session that comes back is measured as [`Resume`](Self::Resume) alone.
    Connect,
    /// From `Hello` to `Welcome`. Intended start: when the handshake was complete, so waiting for
    /// a token to be signed counts. As with [`Connect`](Self::Connect), without those that come back.
    Login,
    /// From a message that is due to its `SendAck`: it is durable.
    SendAck,
    /// From a message that is due to its arrival at one receiving session.
    Deliver,
    /// From a message that is due to its arrival at the last of its receivers.
    FanOut,
    /// From the moment at which a login is due to the last message of the backlog; the service time
    /// counts from `Welcome`.
    Sync,
    /// From the end of a session that was to go on, plus the wait it was told to keep, to the
    /// `Welcome` of the session that replaces it, over however many attempts. One that is not back
    /// at the end of the run has failed.
    Resume,
}

impl Operation {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::Login,
        Self::SendAck,
        Self::Deliver,
        Self::FanOut,
        Self::Sync,
        Self::Resume,
    ];

    /// Its name in scenarios, objectives, reports and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Login => "login",
            Self::SendAck => "send_ack",
            Self::Deliver => "deliver",
            Self::FanOut => "fan_out",
            Self::Sync => "sync",
            Self::Resume => "resume",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No operation has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no operation; there are: connect, login, send_ack, deliver, fan_out, sync, resume"
)]
pub struct UnknownOperation(pub String);

impl FromStr for Operation {
    type Err = UnknownOperation;

    fn from_str(name: &str) -> Result<Self, UnknownOperation> {
        let found = Self::ALL.into_iter().find(|operation| operation.name() == name);
        found.ok_or_else(|| UnknownOperation(name.to_owned()))
    }
}

/// Why an operation failed, or a session ended. As text: `300 Overloaded`, `timed_out`,
/// `transport 0x178`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// A code of the protocol (docs/protocol.md section 11), from an `Error`, a `GoAway` or a close.
    Code(u32),
    /// QUIC or TLS gave up: the code of RFC 9000 section 20.1, 0x100 + alert for TLS.
    Transport(u64),
    /// No answer within the time that the plan allows, or the connection's idle timeout.
    TimedOut,
    /// The peer no longer knew the connection (a stateless reset): it has restarted.
    Reset,
    /// The session ended while the operation was under way.
    SessionEnded,
    /// This side had no room to write: its outbox was full.
    OutboxFull,
    /// The session had as many messages under way, and as many waiting behind them, as it may.
    WindowFull,
    /// The answer broke the rules of the protocol.
    BadAnswer,
    /// No token could be had for the session.
    NoToken,
    /// The connection could not even be begun (limits of this machine).
    CannotDial,
    /// Any other kind, once too many kinds are counted already.
    Other,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(number) => {
                let known = skein_protocol::Code::from_number(u64::from(*number));
                write!(f, "{number} {}", known.map_or("unknown", |code| code.name()))
            }
            Self::Transport(code) => write!(f, "transport {code:#x}"),
            Self::TimedOut => f.write_str("timed_out"),
            Self::Reset => f.write_str("reset"),
            Self::SessionEnded => f.write_str("session_ended"),
            Self::OutboxFull => f.write_str("outbox_full"),
            Self::WindowFull => f.write_str("window_full"),
            Self::BadAnswer => f.write_str("bad_answer"),
            Self::NoToken => f.write_str("no_token"),
            Self::CannotDial => f.write_str("cannot_dial"),
            Self::Other => f.write_str("other"),
        }
    }
}

impl FromStr for Failure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no kind of failure");
        if let Some(code) = text.strip_prefix("transport 0x") {
            return u64::from_str_radix(code, 16).map(Self::Transport).map_err(|_| wrong());
        }
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let number = text.split(' ').next().and_then(|number| number.parse().ok());
            return number.map(Self::Code).ok_or_else(wrong);
        }
        [
            Self::TimedOut,
            Self::Reset,
            Self::SessionEnded,
            Self::OutboxFull,
            Self::WindowFull,
            Self::BadAnswer,
            Self::NoToken,
            Self::CannotDial,
            Self::Other,
        ]
        .into_iter()
        .find(|failure| failure.to_string() == text)
        .ok_or_else(wrong)
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Failure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_operations() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation.index(), index);
            assert_eq!(operation.name().parse(), Ok(operation));
            let json = serde_json::to_string(&operation).unwrap();
            assert_eq!(json, format!("\"{}\"", operation.name()));
        }
        assert_eq!("ack".parse::<Operation>(), Err(UnknownOperation("ack".into())));
    }

    #[test]
    fn failures_survive_their_text() {
        let all = [
            Failure::Code(300),
            Failure::Code(4711),
            Failure::Transport(0x178),
            Failure::TimedOut,
            Failure::Reset,
            Failure::SessionEnded,
            Failure::OutboxFull,
            Failure::WindowFull,
            Failure::BadAnswer,
            Failure::NoToken,
            Failure::CannotDial,
            Failure::Other,
        ];
        for failure in all {
            assert_eq!(failure.to_string().parse(), Ok(failure));
        }
        assert_eq!(Failure::Code(300).to_string(), "300 Overloaded");
        assert!("nonsense".parse::<Failure>().is_err());
    }
}
