//! Types of values that are more than a number or a text.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A value that is one of a few words.
pub trait Choice: Copy + PartialEq + 'static {
    /// Every word with its value, in the order of the documents.
    const ALL: &'static [(&'static str, Self)];

    /// The word of this value.
    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Choice for LogFormat {
    const ALL: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

/// Where messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// In this process, in the data folder.
    Embedded,
    /// In a cluster of ScyllaDB or Cassandra.
    Scylla,
}

impl Choice for StoreKind {
    const ALL: &'static [(&'static str, Self)] =
        &[("embedded", Self::Embedded), ("scylla", Self::Scylla)];
}

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Alg {
    /// Ed25519 (RFC 8037).
    EdDSA,
    /// ECDSA on P-256 with SHA-256 (RFC 7518).
    ES256,
    /// HMAC with SHA-256 over a shared secret (RFC 7518).
    HS256,
}

impl Choice for Alg {
    const ALL: &'static [(&'static str, Self)] =
        &[("EdDSA", Self::EdDSA), ("ES256", Self::ES256), ("HS256", Self::HS256)];
}

/// A file with a key that tokens are checked with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKey {
    /// Public key in PEM for EdDSA and ES256, the secret's bytes for HS256.
    pub file: PathBuf,
    /// What the key is for; read off the key where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<Alg>,
    /// Tokens whose header names this `kid` are checked with this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
}

/// A certificate chain and the private key of its first certificate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// Chain in PEM, the gateway's own certificate first.
    pub cert: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// As an inline table.
pub(super) fn inline(value: &impl Serialize) -> String {
    toml::Value::try_from(value).map_or_else(|_| String::new(), |value| value.to_string())
}

impl TokenKey {
    /// The key of a file, for what the file says that it is for.
    pub fn of(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), alg: None, kid: None }
    }
}
