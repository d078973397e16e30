//! What a gateway that runs without configuration leaves in its data folder for clients on the
//! same machine: `DATA/dev/ca.pem` and `DATA/dev/token-key.pem`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use skein_client::{DeviceId, UserId};

/// How long a token that we make is good. The SDK asks for another one in time.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// The name that the development certificate is for.
pub(crate) const SERVER_NAME: &str = "localhost";

/// What a token says.
#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    device: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

pub(crate) fn ca_file(data: &Path) -> PathBuf {
    data.join("dev").join("ca.pem")
}

pub(crate) fn key_file(data: &Path) -> PathBuf {
    data.join("dev").join("token-key.pem")
}

/// Makes a token with the development key. Read anew each time, because the folder may have been
/// made anew.
pub(crate) fn token(data: &Path, user: &UserId, device: &DeviceId) -> Result<String, String> {
    let path = key_file(data);
    let explain = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let pem = std::fs::read(&path).map_err(|error| explain(&error))?;
    let key = EncodingKey::from_ed_pem(&pem).map_err(|error| explain(&error))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = Claims {
        sub: user.as_str(),
        device: device.as_str(),
        aud: "skein",
        iat: now.as_secs(),
        exp: (now + TOKEN_LIFE).as_secs(),
    };
    jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &key)
        .map_err(|error| explain(&error))
}
