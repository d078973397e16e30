//! Identifiers. Each is parsed once, where bytes come in, and cannot be wrong afterwards.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::limits::{MAX_CLIENT_MSG_ID_BYTES, MAX_DEVICE_ID_BYTES, MAX_USER_ID_BYTES};

/// Position of a message in its conversation: contiguous from 1. 0 means "before the first".
pub type Seq = u64;

/// Why a text or a byte string is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing given.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// Longer than its limit.
    #[error("{kind} has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Which identifier.
        kind: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A character outside the allowed set.
    #[error("{kind} may not contain {found:?}")]
    BadChar {
        /// Which identifier.
        kind: &'static str,
        /// The first character that is not allowed.
        found: char,
    },
    /// A conversation id that is not 16 bytes of a known kind.
    #[error("a conversation id is 16 bytes that begin with a known kind")]
    BadConversation,
}

fn check(
    kind: &'static str,
    text: &str,
    max: usize,
    allowed: impl Fn(char) -> bool,
) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty(kind));
    }
    if text.len() > max {
        let len = text.len();
        return Err(IdError::TooLong { kind, len, max });
    }
    match text.chars().find(|&c| !allowed(c)) {
        Some(found) => Err(IdError::BadChar { kind, found }),
        None => Ok(()),
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:expr, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text if it is within the rules of this identifier.
            ///
            /// # Errors
            /// [`IdError`] names the rule that is broken.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check($kind, text, $max, $allowed)?;
                Ok(Self(text.into()))
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }
    };
}

text_id!(
    /// Who: the `sub` of the token. 1 - 64 bytes, anything but control characters.
    UserId, "user id", MAX_USER_ID_BYTES, |c| !c.is_control()
);
text_id!(
    /// Which device of a user. 1 - 64 of `[A-Za-z0-9._-]`, stable across restarts of the app.
    DeviceId, "device id", MAX_DEVICE_ID_BYTES,
    |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
);
text_id!(
    /// Chosen by the client for each message, unique for its (user, device) for ever; the key of
    /// deduplication. 1 - 64 bytes, anything but control characters.
    ClientMsgId, "client_msg_id", MAX_CLIENT_MSG_ID_BYTES, |c| !c.is_control()
);

/// A conversation: one kind byte and 15 bytes that are unique within the kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationId([u8; 16]);

/// First byte of a one-to-one conversation's id.
const KIND_ONE_TO_ONE: u8 = 1;

impl ConversationId {
    /// The one conversation between two users; the same for both orders.
    ///
    /// The id is the kind byte 1 and the first 15 bytes of SHA-256 over, for the smaller and then
    /// the larger user id in byte order: its length as one byte, then its UTF-8 bytes. A user may
    /// talk to themselves.
    pub fn one_to_one(a: &UserId, b: &UserId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let mut hash = Sha256::new();
        for user in [low, high] {
            let bytes = user.as_str().as_bytes();
            // At most 64, so one byte holds it.
            hash.update([bytes.len() as u8]);
            hash.update(bytes);
        }
        let digest = hash.finalize();
        let mut id = [0; 16];
        id[0] = KIND_ONE_TO_ONE;
        id[1..].copy_from_slice(&digest[..15]);
        Self(id)
    }

    /// Takes the 16 bytes of a frame.
    ///
    /// # Errors
    /// [`IdError::BadConversation`] for another length or an unknown kind.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdError> {
        let id: [u8; 16] = bytes.try_into().map_err(|_| IdError::BadConversation)?;
        match id[0] {
            KIND_ONE_TO_ONE => Ok(Self(id)),
            _ => Err(IdError::BadConversation),
        }
    }

    /// The 16 bytes, as in frames and in keys of the store.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for ConversationId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut id = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return Err(IdError::BadConversation);
        }
        for (i, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16)
                .map_err(|_| IdError::BadConversation)?;
        }
        Self::parse(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[test]
    fn one_to_one_is_symmetric_and_unambiguous() {
        let ab = ConversationId::one_to_one(&user("alice"), &user("bob"));
        assert_eq!(ab, ConversationId::one_to_one(&user("bob"), &user("alice")));
        // Lengths are hashed, so moving a letter across the border gives another id.
        let shifted = ConversationId::one_to_one(&user("alic"), &user("ebob"));
        assert_ne!(ab, shifted);
        assert_eq!(ab.to_string().parse(), Ok(ab));
    }

    #[test]
    fn ids_refuse_what_breaks_their_rules() {
        assert_eq!(UserId::parse(""), Err(IdError::Empty("user id")));
        assert!(matches!(UserId::parse(&"x".repeat(65)), Err(IdError::TooLong { max: 64, .. })));
        assert!(matches!(UserId::parse("a\nb"), Err(IdError::BadChar { found: '\n', .. })));
        assert!(matches!(DeviceId::parse("a b"), Err(IdError::BadChar { found: ' ', .. })));
        assert!(DeviceId::parse("iPhone-15_pro.2").is_ok());
        assert!(ConversationId::parse(&[9; 16]).is_err());
        assert!(ConversationId::parse(&[1; 15]).is_err());
    }
}
