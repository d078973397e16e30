//! Tokens -> who.
use std::time::SystemTime;

use skein_protocol::{Code, DeviceId, UserId};

use crate::config::AuthConfig;

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `sub`.
    pub user: UserId,
    /// `device`, if the token is bound to one.
    pub device: Option<DeviceId>,
    /// Unix time in milliseconds at which the session must end: `exp` and the leeway. `None`: never.
    pub expires_ms: Option<u64>,
}

/// Why no verifier could be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {}

/// Checks tokens.
#[derive(Debug)]
pub struct Verifier {}

impl Verifier {
    /// Loads every key that the configuration names.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn from_config(_auth: &AuthConfig) -> Result<Self, AuthError> {
        Ok(Self {})
    }

    /// Who the token speaks for.
    ///
    /// # Errors
    /// The code to answer with.
    pub fn verify(&self, _token: &str, _now: SystemTime) -> Result<Identity, Code> {
        Err(Code::BadToken)
    }
}
