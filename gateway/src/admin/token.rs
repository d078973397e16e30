//! The token that an operator shows: the line of a file. Who can read the file may do everything.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::Admin;
use super::problem::Problem;
use crate::config::Config;
use crate::whole_file::{self, Access};

/// Shortest token that is taken from a file, bytes.
const MIN_BYTES: usize = 16;

/// Random bytes of one that is made here.
const MADE_BYTES: usize = 32;

/// Longest file that is read, bytes.
const MAX_BYTES: usize = 1024;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[error("`admin.token_file`: {}: {why}", path.display())]
pub struct TokenError {
    path: PathBuf,
    why: String,
}

/// Where the token of this configuration is.
pub fn path(config: &Config) -> PathBuf {
    let made_here = || config.data.join("admin-token");
    config.admin.token_file.clone().unwrap_or_else(made_here)
}

/// Reads the token that there is.
///
/// # Errors
/// There is none, or it is no token.
pub fn read(path: &Path) -> Result<String, TokenError> {
    let failed = |why: String| TokenError { path: path.into(), why };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let token = text.trim_end_matches(['\r', '\n']);
    if token.len() < MIN_BYTES || text.len() > MAX_BYTES {
        return Err(failed(format!("a token has {MIN_BYTES} to {MAX_BYTES} bytes")));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(failed("a token is one line of visible ASCII without spaces".into()));
    }
    Ok(token.into())
}

/// What a token is compared by: all comparisons take the same time.
#[derive(Clone)]
pub(super) struct Token([u8; 32]);

impl Token {
    /// The token of this configuration. In the data folder it is made if there is none.
    pub(super) fn load_or_make(config: &Config) -> Result<Self, TokenError> {
        let path = path(config);
        if config.admin.token_file.is_none() && !path.exists() {
            make(&path)
                .map_err(|error| TokenError { path: path.clone(), why: error.to_string() })?;
        }
        read(&path).map(|token| Self(Sha256::digest(token).into()))
    }

    fn is(&self, shown: &str) -> bool {
        <[u8; 32]>::from(Sha256::digest(shown)) == self.0
    }
}

fn make(path: &Path) -> io::Result<()> {
    let secret: [u8; MADE_BYTES] = rand::random();
    let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    whole_file::put(path, format!("{text}\n").as_bytes(), Access::OwnerOnce)
}

/// Lets through whoever shows the token.
pub(super) async fn check(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Response {
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    if shown.is_some_and(|shown| admin.token.is(shown)) {
        return next.run(request).await;
    }
    let why = "show the token of `admin.token_file`: Authorization: Bearer ...";
    let mut refused = Problem::new(StatusCode::UNAUTHORIZED, why).into_response();
    refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(data: &Path) -> Config {
        Config { data: data.into(), ..Config::default() }
    }

    #[test]
    fn a_token_is_made_once_for_its_owner() {
        let data = tempfile::tempdir().unwrap();
        let config = config(data.path());
        let made = Token::load_or_make(&config).unwrap();
        let text = read(&path(&config)).unwrap();
        assert_eq!(text.len(), 2 * MADE_BYTES);
        assert!(made.is(&text) && !made.is(&text[1..]) && !made.is(""));
        assert!(Token::load_or_make(&config).unwrap().is(&text));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(path(&config)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_that_is_named_must_hold_a_token() {
        let data = tempfile::tempdir().unwrap();
        let mut config = config(data.path());
        let file = data.path().join("token");
        config.admin.token_file = Some(file.clone());
        assert!(Token::load_or_make(&config).is_err(), "it is not made elsewhere");
        for (text, good) in
            [("0123456789abcdef\r\n", true), ("short\n", false), ("0123456789 abcdef", false)]
        {
            std::fs::write(&file, text).unwrap();
            assert_eq!(Token::load_or_make(&config).is_ok(), good, "{text:?}");
        }
    }
}
