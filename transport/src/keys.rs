//! Secrets that outlive a process.
//!
//! All shards, and every later start of the same gateway, must agree on them: a client whose
//! gateway restarted learns so at once only if the new process can make the stateless reset token
//! of the old one (RFC 9000 section 10.3); otherwise it waits for its idle timeout. The same holds
//! for session tickets and for Retry tokens.
//!
//! One random master secret is stored; everything else is derived from it (HKDF, RFC 5869).

use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use quinn_proto::crypto::{HandshakeTokenKey, HmacKey};
use rand::Rng;
use ring::{hkdf, hmac};

/// First word of the file. Another format gets another word.
const HEADER: &str = "skein-transport-keys-1";
const MASTER_LEN: usize = 32;

/// The secrets of one gateway.
#[derive(Clone)]
pub struct Keys {
    master: [u8; MASTER_LEN],
    /// Behind what several gateways may share; else the same as `master`.
    shared: [u8; MASTER_LEN],
}

/// Why a key file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Reading or writing failed.
    #[error("key file {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It is not a key file of a format this version knows.
    #[error("{0} is not a key file of this version; move it away and a new one is made")]
    Format(PathBuf),
    /// Everybody may read or write it.
    #[error("{0} can be read or written by everybody; run `chmod o= {0}`")]
    Permissions(PathBuf),
}

impl Keys {
    /// New secrets that live as long as the value.
    pub fn random() -> Self {
        let mut master = [0; MASTER_LEN];
        rand::rng().fill_bytes(&mut master);
        Self::from_bytes(master)
    }

    /// Secrets from 32 bytes that somebody else keeps, such as a secret store.
    pub fn from_bytes(master: [u8; 32]) -> Self {
        Self { master, shared: master }
    }

    /// The same gateway, with session tickets and Retry tokens under the secret of `other`: every
    /// gateway that has it opens them.
    ///
    /// Stateless resets and connection ids stay this gateway's own. Were they shared, a packet of
    /// one gateway's connection that is sent to another would be answered with a reset that ends the
    /// connection (RFC 9000 section 21.11).
    #[must_use]
    pub fn with_tickets_of(self, other: &Self) -> Self {
        Self { shared: other.master, ..self }
    }

    /// Reads the file, which must be there.
    ///
    /// # Errors
    /// It cannot be read, or is no key file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeysError> {
        let path = path.as_ref();
        let text = fs::read_to_string(path)
            .map_err(|source| KeysError::Io { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Reads the file, or makes it (readable by its owner alone) if it does not exist.
    ///
    /// Two processes that make it at the same time end with the same secrets.
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Self, KeysError> {
        let path = path.as_ref();
        let failed = |source| KeysError::Io { path: path.to_owned(), source };
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let keys = Self::random();
                match keys.create(path) {
                    Ok(()) => Ok(keys),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        Self::parse(path, &fs::read_to_string(path).map_err(failed)?)
                    }
                    Err(error) => Err(failed(error)),
                }
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, KeysError> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(path)
                .map_err(|source| KeysError::Io { path: path.to_owned(), source })?
                .permissions()
                .mode();
            // A group may: secrets are mounted and handed out that way.
            if mode & 0o007 != 0 {
                return Err(KeysError::Permissions(path.to_owned()));
            }
        }
        let bad = || KeysError::Format(path.to_owned());
        let hex = text.trim_end().strip_prefix(HEADER).ok_or_else(bad)?.trim_start();
        if hex.len() != MASTER_LEN * 2 || !hex.is_ascii() {
            return Err(bad());
        }
        let mut master = [0; MASTER_LEN];
        for (i, byte) in master.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self::from_bytes(master))
    }

    /// Writes a whole file beside `path` and gives it that name only if nobody has it yet.
    fn create(&self, path: &Path) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{:08x}", rand::rng().next_u32()));
        let temporary = PathBuf::from(temporary);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let written = (|| {
            let mut file = options.open(&temporary)?;
            let hex: String = self.master.iter().map(|b| format!("{b:02x}")).collect();
            writeln!(file, "{HEADER} {hex}")?;
            file.sync_all()?;
            fs::hard_link(&temporary, path)
        })();
        let _ = fs::remove_file(&temporary);
        written
    }

    /// 32 bytes for one purpose of this gateway alone.
    pub(crate) fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        Self::derive_from(&self.master, purpose)
    }

    /// 32 bytes for one purpose of all gateways that share it.
    pub(crate) fn derive_shared(&self, purpose: &[u8]) -> [u8; 32] {
        Self::derive_from(&self.shared, purpose)
    }

    fn derive_from(secret: &[u8], purpose: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        let info = [purpose];
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, HEADER.as_bytes()).extract(secret);
        let okm = prk.expand(&info, hkdf::HKDF_SHA256);
        // 32 bytes is the length of one HMAC-SHA-256: neither call can refuse it.
        okm.and_then(|okm| okm.fill(&mut out)).unwrap_or_else(|_| unreachable!("HKDF length"));
        out
    }

    /// Makes stateless reset tokens.
    pub(crate) fn reset_key(&self) -> Arc<dyn HmacKey> {
        Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.derive(b"stateless reset")))
    }

    /// Seals Retry tokens.
    pub(crate) fn token_key(&self) -> Arc<dyn HandshakeTokenKey> {
        Arc::new(
            hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
                .extract(&self.derive_shared(b"address validation")),
        )
    }

    /// Marks connection ids as ours.
    pub(crate) fn cid_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.derive(b"connection id"))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_has_the_same_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("transport.key");
        let first = Keys::load_or_create(&path).unwrap();
        let second = Keys::load_or_create(&path).unwrap();
        assert_eq!(first.master, second.master);
        assert_ne!(first.derive(b"a"), first.derive(b"b"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing left beside it");
    }

    #[test]
    fn gateways_share_tickets_and_nothing_else() {
        let (a, b, common) = (Keys::random(), Keys::random(), Keys::random());
        let (a, b) = (a.with_tickets_of(&common), b.with_tickets_of(&common));
        assert_eq!(a.derive_shared(b"session tickets"), b.derive_shared(b"session tickets"));
        assert_ne!(a.derive(b"stateless reset"), b.derive(b"stateless reset"));
        assert_ne!(a.derive(b"stateless reset"), common.derive(b"stateless reset"));
    }

    #[test]
    fn a_file_that_must_be_there_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shared.key");
        assert!(matches!(Keys::load(&path), Err(KeysError::Io { .. })));
        assert!(!path.exists());
        let made = Keys::load_or_create(&path).unwrap();
        assert_eq!(Keys::load(&path).unwrap().master, made.master);
    }

    #[cfg(unix)]
    #[test]
    fn not_everybody_may_read_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("transport.key");
        Keys::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for (mode, good) in [(0o440, true), (0o640, true), (0o660, true), (0o644, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = Keys::load_or_create(&path);
            assert_eq!(read.is_ok(), good, "{mode:o}: {read:?}");
            assert!(good || matches!(read, Err(KeysError::Permissions(_))), "{mode:o}");
        }
    }

    #[test]
    fn another_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("transport.key");
        let good = format!("{HEADER} {}", "ab".repeat(32));
        for text in ["", "rubbish", HEADER, &good[..good.len() - 1], &good.replace('b', "ü")] {
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(&path).unwrap().write_all(text.as_bytes()).unwrap();
            assert!(matches!(Keys::load_or_create(&path), Err(KeysError::Format(_))), "{text}");
        }
    }
}
