//! Every code of the wire: in `Error`, in `GoAway` and as QUIC application error code of a close.
//!
//! The table is append-only: a number never changes its meaning. 0 is success, 100 - 199 end the
//! connection, 200 - 299 refuse one request, 300 - 399 are the gateway's own trouble.

use std::time::Duration;

/// Whether it helps to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same would fail again; something else must change first.
    No,
    /// Try again, not sooner than this.
    After(Duration),
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $number:literal $name:ident $text:literal $retry:expr;)*) => {
        /// A numbered outcome.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $doc])* $name = $number,)*
        }

        impl Code {
            /// The whole table, in ascending order.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The code of a number; `None` for one from a newer peer.
            pub fn from_number(number: u64) -> Option<Code> {
                match number {
                    $($number => Some(Code::$name),)*
                    _ => None,
                }
            }

            /// Its name in documents and logs.
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => stringify!($name),)* }
            }

            /// What it means, in words for a person.
            pub fn text(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// Whether it helps to try again, and when at the earliest.
            pub fn retry(self) -> Retry {
                match self { $(Code::$name => $retry,)* }
            }
        }
    };
}

const fn ms(millis: u64) -> Retry {
    Retry::After(Duration::from_millis(millis))
}

codes! {
    /// Closed on purpose, nothing is wrong.
    0 Ok "closed on purpose" Retry::No;

    /// The order of frames or streams was broken.
    100 ProtocolViolation "the peer broke the rules of the protocol" Retry::No;
    /// No version in common.
    101 VersionUnsupported "no protocol version in common" Retry::No;
    /// A frame's length is over the limit.
    102 FrameTooLarge "a frame is longer than allowed" Retry::No;
    /// A frame is not protobuf, or a field in it breaks the rules of its type.
    103 MalformedFrame "a frame cannot be parsed" Retry::No;
    /// The first frame was not Hello.
    104 HelloExpected "the first frame must be Hello" Retry::No;
    /// No Hello came in time.
    105 HelloTimeout "no Hello in time" ms(1_000);
    /// The token is not valid here: signature, issuer, audience or form.
    110 BadToken "the token is not valid" Retry::No;
    /// The token's time is over; get a new one.
    111 TokenExpired "the token has expired" Retry::No;
    /// The token is not valid yet.
    112 TokenNotYetValid "the token is not valid yet" ms(5_000);
    /// The token belongs to another device, or to none and the Hello names none.
    113 DeviceMismatch "the token belongs to another device" Retry::No;
    /// The same device of the same user connected again. Do not reconnect by yourself.
    120 Replaced "this device has connected again elsewhere" Retry::No;
    /// Nothing was heard for one and a half heartbeat intervals.
    121 HeartbeatTimeout "nothing was heard for too long" ms(0);
    /// The peer did not read for too long.
    122 SlowConsumer "the peer reads too slowly" ms(1_000);
    /// The gateway stops; another or the same one will serve.
    123 GoingAway "the gateway is going away" ms(500);
    /// The gateway has as many sessions as it may hold.
    124 TooManySessions "the gateway is full" ms(5_000);
    /// The user has as many devices online as allowed.
    125 TooManyDevices "the user has too many devices online" ms(30_000);
    /// An operator ended the session. Do not reconnect by yourself.
    126 Kicked "an operator has ended the session" Retry::No;
    /// An operator has shut out this user or this address, for a time or until further notice.
    127 Blocked "the user or the address is blocked" ms(300_000);
    /// The address has as many connections as it may have.
    128 TooManyConnections "too many connections from this address" ms(10_000);
    /// Too many bytes came from the address before a login.
    129 TooManyLoginBytes "too many bytes before the login from this address" ms(5_000);
    /// Too many logins from the address have failed; no token is looked at for a while.
    130 TooManyFailedLogins "too many failed logins from this address" ms(5_000);
    /// The user says more than anybody who means well has to say.
    131 TooManyFrames "the user says too much" ms(10_000);

    /// A field of a request is outside its rules.
    200 InvalidArgument "a field of the request is not allowed" Retry::No;
    /// There is no such conversation, or the user is not in it.
    201 UnknownConversation "there is no such conversation for this user" Retry::No;
    /// A payload is over the limit.
    202 PayloadTooLarge "the payload is longer than allowed" Retry::No;
    /// More sends are under way than the session may have.
    203 TooManySends "too many sends are under way" ms(100);
    /// The request is not allowed in this state or by this user.
    204 Forbidden "not allowed" Retry::No;
    /// The user sends more messages than allowed.
    205 UserMessageRate "the user sends too many messages" ms(1_000);
    /// The user sends more bytes than allowed.
    206 UserByteRate "the user sends too many bytes" ms(1_000);
    /// The conversation gets more messages than allowed.
    207 ConversationMessageRate "the conversation gets too many messages" ms(1_000);
    /// The conversation gets more bytes than allowed.
    208 ConversationByteRate "the conversation gets too many bytes" ms(1_000);
    /// The user asks for heads and messages more often than allowed.
    209 SyncRate "the user asks too often" ms(1_000);

    /// More is waiting than the gateway may hold.
    300 Overloaded "the gateway has too much to do" ms(1_000);
    /// The store does not answer.
    301 StoreUnavailable "the store does not answer" ms(2_000);
    /// The disk is full or failed; an operator must act.
    302 StoreStopped "the store has stopped accepting writes" ms(30_000);
    /// A bug or an impossible state in the gateway.
    303 Internal "an error inside the gateway" ms(5_000);
}

impl Code {
    /// The number on the wire.
    pub fn number(self) -> u32 {
        self as u32
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.number(), self.name(), self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pins number and name of every code: a change of an existing line is a break of the wire.
    #[test]
    fn the_table_is_append_only() {
        let table: Vec<String> =
            Code::ALL.iter().map(|c| format!("{} {}", c.number(), c.name())).collect();
        let expected = [
            "0 Ok",
            "100 ProtocolViolation",
            "101 VersionUnsupported",
            "102 FrameTooLarge",
            "103 MalformedFrame",
            "104 HelloExpected",
            "105 HelloTimeout",
            "110 BadToken",
            "111 TokenExpired",
            "112 TokenNotYetValid",
            "113 DeviceMismatch",
            "120 Replaced",
            "121 HeartbeatTimeout",
            "122 SlowConsumer",
            "123 GoingAway",
            "124 TooManySessions",
            "125 TooManyDevices",
            "126 Kicked",
            "127 Blocked",
            "128 TooManyConnections",
            "129 TooManyLoginBytes",
            "130 TooManyFailedLogins",
            "131 TooManyFrames",
            "200 InvalidArgument",
            "201 UnknownConversation",
            "202 PayloadTooLarge",
            "203 TooManySends",
            "204 Forbidden",
            "205 UserMessageRate",
            "206 UserByteRate",
            "207 ConversationMessageRate",
            "208 ConversationByteRate",
            "209 SyncRate",
            "300 Overloaded",
            "301 StoreUnavailable",
            "302 StoreStopped",
            "303 Internal",
        ];
        assert_eq!(table, expected);
    }

    #[test]
    fn numbers_lead_back_to_their_codes() {
        for &code in Code::ALL {
            assert_eq!(Code::from_number(code.number().into()), Some(code));
        }
        assert_eq!(Code::from_number(999), None);
    }
}
