//! The token that an operator shows: the line of a file. Who can read the file may do everything.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

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
#[error("{}: {why}", path.display())]
pub struct AdminTokenError {
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
pub fn read(path: &Path) -> Result<String, AdminTokenError> {
    let failed = |why: String| AdminTokenError { path: path.into(), why };
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

/// What a token is compared by: its digest, so that no comparison tells how near a guess was.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// The token of this configuration. In the data folder it is made if there is none.
    ///
    /// # Errors
    /// It cannot be read or made, or it is no token.
    pub fn load_or_make(config: &Config) -> Result<Self, AdminTokenError> {
        let path = path(config);
        if config.admin.token_file.is_none() && !path.exists() {
            make(&path)
                .map_err(|error| AdminTokenError { path: path.clone(), why: error.to_string() })?;
        }
        read(&path).map(|token| Self(Sha256::digest(token).into()))
    }

    /// Whether it was shown.
    pub(crate) fn is(&self, shown: &str) -> bool {
        <[u8; 32]>::from(Sha256::digest(shown)) == self.0
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken")
    }
}

fn make(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let secret: [u8; MADE_BYTES] = rand::random();
    let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    whole_file::put(path, format!("{text}\n").as_bytes(), Access::OwnerOnce)
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
        let made = AdminToken::load_or_make(&config).unwrap();
        let text = read(&path(&config)).unwrap();
        assert_eq!(text.len(), 2 * MADE_BYTES);
        assert!(made.is(&text) && !made.is(&text[1..]) && !made.is(""));
        assert!(AdminToken::load_or_make(&config).unwrap().is(&text));
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
        assert!(AdminToken::load_or_make(&config).is_err(), "it is not made elsewhere");
        for (text, good) in
            [("0123456789abcdef\r\n", true), ("short\n", false), ("0123456789 abcdef", false)]
        {
            std::fs::write(&file, text).unwrap();
            assert_eq!(AdminToken::load_or_make(&config).is_ok(), good, "{text:?}");
        }
    }
}
