//! Files -> keys that tokens are checked with.
//!
//! What a file holds decides what its key is for; a configuration that says otherwise is an
//! error. A file in PEM is never a shared secret: whoever knows a public key could then sign.

use std::path::{Path, PathBuf};

use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

use crate::config::{Alg, AuthConfig, Choice, TokenKey};

/// Keys in all. A token that names none is tried with each of its algorithm, so their number
/// bounds what a wrong token costs.
pub const MAX_KEYS: usize = 16;

/// Shortest shared secret, bytes: RFC 7518 section 3.2 wants at least the length of the hash.
pub const MIN_SECRET_BYTES: usize = 32;

/// Why the keys of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Nothing could ever be verified.
    #[error("no key to check tokens with: set auth.key_file, auth.keys or auth.jwks_file")]
    NoKey,
    /// More than [`MAX_KEYS`].
    #[error("{0} keys to check tokens with, at most {MAX_KEYS} are allowed")]
    TooManyKeys(usize),
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file holds no key that can be used.
    #[error("{}: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        why: String,
    },
}

/// A key with the one algorithm that it is for.
#[derive(Debug)]
pub(crate) struct VerifyKey {
    pub(crate) alg: Alg,
    /// Its name in the header of tokens.
    pub(crate) kid: Option<String>,
    pub(crate) decoding: DecodingKey,
}

impl VerifyKey {
    pub(crate) fn algorithm(&self) -> Algorithm {
        algorithm(self.alg)
    }
}

/// The library's name for the algorithm.
pub(crate) fn algorithm(alg: Alg) -> Algorithm {
    match alg {
        Alg::EdDSA => Algorithm::EdDSA,
        Alg::ES256 => Algorithm::ES256,
        Alg::HS256 => Algorithm::HS256,
    }
}

/// What a key file holds.
pub(crate) enum Content {
    /// Text in PEM; the label of its first block.
    Pem(String, Vec<u8>),
    /// Anything else: the bytes of a shared secret.
    Secret(Vec<u8>),
}

/// Every key of the configuration; at least one.
pub(crate) fn load(auth: &AuthConfig) -> Result<Vec<VerifyKey>, AuthError> {
    let mut keys = Vec::new();
    for (_, read) in read_all(auth) {
        keys.extend(read?);
    }
    match keys.len() {
        0 => Err(AuthError::NoKey),
        1..=MAX_KEYS => Ok(keys),
        number => Err(AuthError::TooManyKeys(number)),
    }
}

/// Everything that is wrong with the keys, each with the key of the configuration that says so.
pub(crate) fn check(auth: &AuthConfig) -> Vec<(&'static str, AuthError)> {
    let (mut errors, mut keys) = (Vec::new(), 0);
    for (name, read) in read_all(auth) {
        match read {
            Ok(found) => keys += found.len(),
            Err(error) => errors.push((name, error)),
        }
    }
    if keys > MAX_KEYS {
        errors.push(("auth.keys", AuthError::TooManyKeys(keys)));
    }
    errors
}

/// The keys of each file, with the key of the configuration that names it.
fn read_all(
    auth: &AuthConfig,
) -> impl Iterator<Item = (&'static str, Result<Vec<VerifyKey>, AuthError>)> {
    let single = auth.key_file.iter().map(|file| ("auth.key_file", TokenKey::of(file)));
    let several = auth.keys.iter().map(|entry| ("auth.keys", entry.clone()));
    let pem =
        single.chain(several).map(|(name, entry)| (name, load_one(&entry).map(|key| vec![key])));
    let set = auth.jwks_file.iter().map(|path| ("auth.jwks_file", load_jwks(path)));
    pem.chain(set)
}

fn load_one(entry: &TokenKey) -> Result<VerifyKey, AuthError> {
    let content = read(&entry.file)?;
    verify_key(entry, content).map_err(|why| AuthError::Unusable { path: entry.file.clone(), why })
}

/// Reads a key file and tells PEM from a secret.
pub(crate) fn read(path: &Path) -> Result<Content, AuthError> {
    let bytes =
        std::fs::read(path).map_err(|source| AuthError::Read { path: path.to_owned(), source })?;
    const BEGIN: &str = "-----BEGIN ";
    let text = String::from_utf8_lossy(&bytes);
    let label = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once("-----"));
    Ok(match label {
        Some((label, _)) => Content::Pem(label.to_owned(), bytes),
        None => Content::Secret(secret(bytes)),
    })
}

/// A secret that was written as a line of text is meant without the end of the line; any other is
/// taken byte for byte.
fn secret(mut bytes: Vec<u8>) -> Vec<u8> {
    let line = bytes.strip_suffix(b"\r\n").or(bytes.strip_suffix(b"\n"));
    if let Some(line) = line
        && line.iter().all(|byte| (0x20..0x7f).contains(byte))
    {
        bytes.truncate(line.len());
    }
    bytes
}

fn verify_key(entry: &TokenKey, content: Content) -> Result<VerifyKey, String> {
    let (alg, decoding) = match content {
        Content::Pem(label, pem) => public_key(&label, &pem)?,
        Content::Secret(secret) => {
            check_secret(&secret)?;
            (Alg::HS256, DecodingKey::from_secret(&secret))
        }
    };
    if let Some(said) = entry.alg
        && said != alg
    {
        return Err(format!("holds a key for {}, not for {}", alg.name(), said.name()));
    }
    check_usable(alg, &decoding)?;
    Ok(VerifyKey { alg, kid: entry.kid.clone(), decoding })
}

fn public_key(label: &str, pem: &[u8]) -> Result<(Alg, DecodingKey), String> {
    match label {
        "PUBLIC KEY" => {}
        _ if label.ends_with("PRIVATE KEY") => {
            return Err("holds a private key; tokens are checked with the public one: \
                        `openssl pkey -in FILE -pubout`"
                .into());
        }
        "CERTIFICATE" => {
            return Err("holds a certificate; give its key: \
                        `openssl x509 -in FILE -pubkey -noout`"
                .into());
        }
        _ => return Err(format!("holds a PEM block {label:?}; wanted is \"PUBLIC KEY\"")),
    }
    let ed = DecodingKey::from_ed_pem(pem).map(|key| (Alg::EdDSA, key));
    ed.or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Alg::ES256, key)))
        .map_err(|_| "holds neither an Ed25519 key (EdDSA) nor a P-256 key (ES256)".into())
}

/// Refuses secrets that are easy to guess, and what is surely meant as a public key: as a secret
/// it would let everybody sign who knows it.
pub(crate) fn check_secret(secret: &[u8]) -> Result<(), String> {
    // SubjectPublicKeyInfo begins with SEQUENCE { SEQUENCE { OBJECT IDENTIFIER (RFC 5280).
    if matches!(secret, [0x30, _, 0x30, _, 0x06, ..]) {
        return Err("holds a public key in DER; convert it to PEM: \
                    `openssl pkey -pubin -inform DER -in FILE -pubout`"
            .into());
    }
    let text = String::from_utf8_lossy(secret);
    // The same in base64, for Ed25519 and P-256, where the lines around it are missing or broken.
    let bare = ["MCowBQYDK2Vw", "MFkwEwYHKoZIzj0"].iter().any(|start| text.contains(start));
    if bare || text.contains("PUBLIC KEY") || text.contains("PRIVATE KEY") {
        return Err("holds a key that is not PEM: its first line must be \
                    \"-----BEGIN PUBLIC KEY-----\""
            .into());
    }
    if text.trim_start().starts_with('{') && text.contains("\"kty\"") {
        return Err("holds a JSON Web Key: name a set of them in auth.jwks_file".into());
    }
    if secret.len() < MIN_SECRET_BYTES {
        return Err(format!(
            "holds a secret of {} bytes; HS256 wants at least {MIN_SECRET_BYTES}: \
             `openssl rand -hex 32`",
            secret.len()
        ));
    }
    Ok(())
}

/// The library parses a key when it is used; a broken one must not wait for that.
fn check_usable(alg: Alg, key: &DecodingKey) -> Result<(), String> {
    let unusable = || format!("holds no usable key for {}", alg.name());
    let length = key.try_get_as_bytes().map_err(|_| unusable())?.len();
    if alg == Alg::EdDSA && length != 32 {
        return Err(unusable());
    }
    match (DEFAULT_PROVIDER.verifier_factory)(&algorithm(alg), key) {
        Ok(_) => Ok(()),
        Err(_) if alg == Alg::ES256 => Err(format!("{}: ES256 wants a P-256 key", unusable())),
        Err(_) => Err(unusable()),
    }
}

fn load_jwks(path: &Path) -> Result<Vec<VerifyKey>, AuthError> {
    let unusable = |why| AuthError::Unusable { path: path.to_owned(), why };
    let text =
        std::fs::read(path).map_err(|source| AuthError::Read { path: path.to_owned(), source })?;
    let set: JwkSet = serde_json::from_slice(&text)
        .map_err(|error| unusable(format!("is no JSON Web Key Set: {error}")))?;
    let mut keys = Vec::new();
    for (index, jwk) in set.keys.iter().enumerate() {
        let name = jwk.common.key_id.clone().unwrap_or_else(|| format!("number {index}"));
        match jwk_key(jwk) {
            Ok(Some(key)) => keys.push(key),
            // A set may hold keys for others (RFC 7517 section 5).
            Ok(None) => tracing::warn!(
                file = %path.display(),
                key = name,
                "passed over: not a signing key for EdDSA, ES256 or HS256"
            ),
            Err(why) => return Err(unusable(format!("key {name} {why}"))),
        }
    }
    if keys.is_empty() {
        return Err(unusable("holds no signing key for EdDSA, ES256 or HS256".into()));
    }
    Ok(keys)
}

/// The key, or `None` if it is for something that we do not do.
fn jwk_key(jwk: &Jwk) -> Result<Option<VerifyKey>, String> {
    let common = &jwk.common;
    if common.public_key_use.as_ref().is_some_and(|what| *what != PublicKeyUse::Signature) {
        return Ok(None);
    }
    let alg = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Alg::EdDSA,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Alg::ES256,
        AlgorithmParameters::OctetKey(_) => Alg::HS256,
        _ => return Ok(None),
    };
    // A secret for HS512, say, is not one for HS256.
    if common.key_algorithm.is_some_and(|said| said != algorithm(alg).into()) {
        return Ok(None);
    }
    let decoding =
        DecodingKey::from_jwk(jwk).map_err(|error| format!("cannot be decoded: {error}"))?;
    if alg == Alg::HS256 {
        check_secret(decoding.try_get_as_bytes().unwrap_or_default())?;
    }
    check_usable(alg, &decoding)?;
    Ok(Some(VerifyKey { alg, kid: common.key_id.clone(), decoding }))
}
