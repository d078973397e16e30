//! Makes tokens: for `skein token`, for development and for tests. A gateway that serves only
//! checks them; in production they come from the service that knows the users.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;
use skein_protocol::{DeviceId, UserId};

use crate::config::{Alg, Choice};
use crate::keys::{self, AuthError, Content};

/// Signs with one private key or shared secret.
pub struct Signer {
    alg: Alg,
    key: EncodingKey,
}

/// What a token says.
#[derive(Debug, Clone)]
pub struct Grant<'a> {
    /// `sub`.
    pub user: &'a UserId,
    /// `device`; none: the token is good for any device of the user.
    pub device: Option<&'a DeviceId>,
    /// `aud`.
    pub audience: &'a str,
    /// `iss`, if any.
    pub issuer: Option<&'a str>,
    /// `iat`.
    pub issued: SystemTime,
    /// From `iat` to `exp`; counted in whole seconds.
    pub ttl: Duration,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    aud: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    iat: u64,
    exp: u64,
}

impl Signer {
    /// Reads a private key in PEM (PKCS#8, Ed25519 or P-256) or a shared secret.
    ///
    /// # Errors
    /// The file cannot be read, holds something else, or a key for another algorithm than `alg`.
    pub fn from_file(path: &Path, alg: Option<Alg>) -> Result<Self, AuthError> {
        let signer = match keys::read(path)? {
            Content::Pem(label, pem) => private_key(&label, &pem),
            Content::Secret(secret) => keys::check_secret(&secret)
                .map(|()| Self { alg: Alg::HS256, key: EncodingKey::from_secret(&secret) }),
        };
        let signer = signer.and_then(|signer| match alg {
            Some(alg) if alg != signer.alg => {
                Err(format!("holds a key for {}, not for {}", signer.alg.name(), alg.name()))
            }
            _ => Ok(signer),
        });
        signer.map_err(|why| AuthError::Unusable { path: path.to_owned(), why })
    }

    /// What it signs with.
    pub fn alg(&self) -> Alg {
        self.alg
    }

    /// A token, in the compact form of three parts.
    ///
    /// # Errors
    /// When the key cannot sign after all.
    pub fn sign(&self, grant: &Grant<'_>) -> Result<String, jsonwebtoken::errors::Error> {
        let issued = grant.issued.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims {
            sub: grant.user.as_str(),
            device: grant.device.map(DeviceId::as_str),
            aud: grant.audience,
            iss: grant.issuer,
            iat: issued,
            exp: issued.saturating_add(grant.ttl.as_secs()),
        };
        encode(&Header::new(keys::algorithm(self.alg)), &claims, &self.key)
    }
}

fn private_key(label: &str, pem: &[u8]) -> Result<Signer, String> {
    match label {
        "PRIVATE KEY" => {}
        "PUBLIC KEY" => return Err("holds a public key; signing takes the private one".into()),
        "EC PRIVATE KEY" => {
            return Err("holds a key in the older form SEC1; convert it: \
                        `openssl pkcs8 -topk8 -nocrypt -in FILE`"
                .into());
        }
        _ => return Err(format!("holds a PEM block {label:?}; wanted is \"PRIVATE KEY\"")),
    }
    let ed = EncodingKey::from_ed_pem(pem).map(|key| (Alg::EdDSA, key));
    ed.or_else(|_| EncodingKey::from_ec_pem(pem).map(|key| (Alg::ES256, key)))
        .map(|(alg, key)| Signer { alg, key })
        .map_err(|_| "holds neither an Ed25519 key (EdDSA) nor a P-256 key (ES256)".into())
}
