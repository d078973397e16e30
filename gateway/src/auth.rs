//! Tokens -> who. A token is a JSON Web Token (RFC 7519) signed with EdDSA, ES256 or HS256.
//!
//! - The algorithm belongs to the key. What the token's header says only chooses among keys, so
//!   a public key can never be taken for a shared secret, and `none` is no algorithm.
//! - Checked in this order: length, form, signature, `aud`, `iss`, `exp`, `nbf`, `sub`, `device`.
//!   A token with a wrong signature is told nothing about its claims.
//! - `exp` is required unless the configuration says otherwise. `aud` and `sub` always are.
//! - A header with `crit` is refused: it names rules that this verifier does not know
//!   (RFC 7515 section 4.1.11).
//! - The time is passed in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Number;
use skein_protocol::limits::MAX_TOKEN_BYTES;
use skein_protocol::{Code, DeviceId, UserId};

use crate::config::AuthConfig;
pub use crate::keys::AuthError;
use crate::keys::{self, VerifyKey};

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `sub`.
    pub user: UserId,
    /// `device`, if the token is bound to one.
    pub device: Option<DeviceId>,
    /// Unix time in milliseconds at which the session must end: `exp` and the leeway. `None`:
    /// never.
    pub expires_ms: Option<u64>,
}

/// Checks tokens with a fixed set of keys. Cheap to share, never changes.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<(VerifyKey, Validation)>,
    require_exp: bool,
    leeway: Duration,
}

/// The claims that are looked at; a date may have a fraction (RFC 7519 section 2).
#[derive(Deserialize)]
struct Claims {
    sub: String,
    device: Option<String>,
    exp: Option<Number>,
    nbf: Option<Number>,
}

/// A refusal with its reason, for the log; the peer learns the code alone.
type Refusal = (Code, String);

impl Verifier {
    /// Loads every key that the configuration names.
    ///
    /// # Errors
    /// No key at all, too many keys, or a file that cannot be read or holds no usable key.
    pub fn from_config(auth: &AuthConfig) -> Result<Self, AuthError> {
        let validation = |key: &VerifyKey| {
            let mut validation = Validation::new(key.algorithm());
            // Time is checked here, against the clock that is passed in.
            validation.validate_exp = false;
            validation.validate_nbf = false;
            validation.set_audience(&[&auth.audience]);
            validation.set_required_spec_claims(&["aud", "sub"]);
            if let Some(issuer) = &auth.issuer {
                validation.set_issuer(&[issuer]);
                validation.set_required_spec_claims(&["aud", "sub", "iss"]);
            }
            validation
        };
        let keys = keys::load(auth)?;
        let keys = keys.into_iter().map(|key| {
            let validation = validation(&key);
            (key, validation)
        });
        Ok(Self { keys: keys.collect(), require_exp: auth.require_exp, leeway: auth.leeway })
    }

    /// Who the token speaks for.
    ///
    /// # Errors
    /// [`Code::TokenExpired`] and [`Code::TokenNotYetValid`] for a token that is right but for
    /// its time, [`Code::BadToken`] for any other.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Identity, Code> {
        let claims = self.signed_claims(token);
        claims.and_then(|claims| self.identity(&claims, now)).map_err(|(code, reason)| {
            tracing::debug!(code = code.name(), reason, "token refused");
            code
        })
    }

    /// The claims, once somebody we believe is known to have made them for us.
    fn signed_claims(&self, token: &str) -> Result<Claims, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(bad(format!("{} bytes, at most {MAX_TOKEN_BYTES}", token.len())));
        }
        let header = decode_header(token).map_err(|error| bad(format!("header: {error}")))?;
        if header.crit.is_some() {
            return Err(bad("its header has `crit`"));
        }
        let mut tried = false;
        for (key, validation) in self.keys.iter().filter(|(key, _)| is_candidate(key, &header)) {
            tried = true;
            match decode::<Claims>(token, &key.decoding, validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {}
                Err(error) => return Err(bad(error)),
            }
        }
        Err(bad(if tried {
            "no key of ours has signed it".to_owned()
        } else {
            format!("no key of ours is for {:?} and kid {:?}", header.alg, header.kid)
        }))
    }

    fn identity(&self, claims: &Claims, now: SystemTime) -> Result<Identity, Refusal> {
        let now = millis(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        let leeway = millis(self.leeway);
        let expires_ms = match &claims.exp {
            Some(exp) => Some(date_ms("exp", exp)?.saturating_add(leeway)),
            None if self.require_exp => return Err(bad("it has no exp")),
            None => None,
        };
        if expires_ms.is_some_and(|expires| expires <= now) {
            return Err((Code::TokenExpired, "its exp is past".into()));
        }
        if let Some(nbf) = &claims.nbf
            && date_ms("nbf", nbf)? > now.saturating_add(leeway)
        {
            return Err((Code::TokenNotYetValid, "its nbf is to come".into()));
        }
        let user = UserId::parse(&claims.sub).map_err(|error| bad(format!("sub: {error}")))?;
        let device = match &claims.device {
            Some(device) => {
                Some(DeviceId::parse(device).map_err(|error| bad(format!("device: {error}")))?)
            }
            None => None,
        };
        Ok(Identity { user, device, expires_ms })
    }
}

/// A token that names a key is checked with that key, or with keys that have no name.
fn is_candidate(key: &VerifyKey, header: &Header) -> bool {
    let named = match (&header.kid, &key.kid) {
        (Some(wanted), Some(kid)) => wanted == kid,
        _ => true,
    };
    named && key.algorithm() == header.alg
}

fn bad(reason: impl ToString) -> Refusal {
    (Code::BadToken, reason.to_string())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970, whole or not, as milliseconds.
fn date_ms(claim: &str, date: &Number) -> Result<u64, Refusal> {
    if let Some(seconds) = date.as_u64() {
        return Ok(seconds.saturating_mul(1000));
    }
    match date.as_f64() {
        // A cast saturates; NaN cannot be written in JSON.
        Some(seconds) if seconds >= 0.0 => Ok((seconds * 1000.0) as u64),
        _ => Err(bad(format!("{claim} is not a date"))),
    }
}
