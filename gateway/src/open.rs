//! From the configuration to an open store.
//!
//! The data folder belongs to one process, whatever the store: two that serve one port would share
//! it out between them, unseen.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skein_storage::Store;
use skein_storage::embedded::{self, EmbeddedOptions, EmbeddedStore};
use skein_storage::scylla::{
    self, ClientCertificate, Credentials, ScyllaOptions, ScyllaStore, TlsOptions,
};

use crate::config::{Config, ScyllaConfig, StoreConfig, StoreKind};

/// Longest file with a password, a certificate or a key.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why there is no store. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// Another process serves from the data folder.
    #[error(
        "the data folder {} is in use by another process{}; stop that process, or choose another \
         folder with --data", path.display(), holder(*.pid)
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other process, if it has said so.
        pid: Option<u32>,
    },
    /// The data folder cannot be used.
    #[error("cannot use the data folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store in the data folder cannot be opened.
    #[error(transparent)]
    Embedded(#[from] embedded::OpenError),
    /// The store in the cluster cannot be opened.
    #[error(transparent)]
    Scylla(#[from] scylla::OpenError),
    /// A file that the configuration names cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A file of `[scylla]` that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{key}`: {}: {why}", path.display())]
pub struct FileError {
    /// The key that names it.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" ({pid})"))
}

/// Held as long as the process uses the data folder.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Makes the folder if need be, and takes it.
    ///
    /// # Errors
    /// See [`OpenStoreError`].
    pub fn take(folder: &Path) -> Result<Self, OpenStoreError> {
        let failed = |source| OpenStoreError::Folder { path: folder.into(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(folder.join("lock")).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // It is for people; the lock holds without it.
                let _ = file.take(32).read_to_string(&mut pid);
                let pid = pid.trim().parse().ok();
                return Err(OpenStoreError::InUse { path: folder.into(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Opens the configured store. To be called on the runtime that its work shall run on.
///
/// # Errors
/// See [`OpenStoreError`].
pub async fn open(config: &Config) -> Result<Arc<dyn Store>, OpenStoreError> {
    match config.store.kind {
        StoreKind::Embedded => {
            let options = embedded_options(&config.store);
            let store = EmbeddedStore::open(config.data.join("store"), options)?;
            Ok(broken_on_purpose(Arc::new(store)))
        }
        StoreKind::Scylla => open_scylla(&config.scylla).await,
    }
}

/// Gives the embedded store in the data folder a new epoch, and returns it.
///
/// # Errors
/// See [`OpenStoreError`].
pub fn renew_epoch(config: &Config) -> Result<u64, OpenStoreError> {
    let folder = config.data.join("store");
    Ok(EmbeddedStore::renew_epoch(folder, &embedded_options(&config.store))?)
}

fn embedded_options(store: &StoreConfig) -> EmbeddedOptions {
    EmbeddedOptions {
        cache_bytes: store.cache_bytes,
        reserve_bytes: store.reserve_bytes,
        memtable_bytes: store.memtable_bytes,
        journal_bytes: store.journal_bytes,
        read_threads: store.read_threads,
        compaction_threads: store.compaction_threads,
        ..EmbeddedOptions::default()
    }
}

#[cfg(debug_assertions)]
async fn open_scylla(config: &ScyllaConfig) -> Result<Arc<dyn Store>, OpenStoreError> {
    let mut options = scylla_options(config)?;
    options.planted = crate::planted::in_scylla();
    let is_broken = options.planted.is_some();
    let store: Arc<dyn Store> = Arc::new(ScyllaStore::open(options).await?);
    Ok(if is_broken { store } else { broken_on_purpose(store) })
}

#[cfg(not(debug_assertions))]
async fn open_scylla(config: &ScyllaConfig) -> Result<Arc<dyn Store>, OpenStoreError> {
    Ok(Arc::new(ScyllaStore::open(scylla_options(config)?).await?))
}

/// In debug builds a test may ask for a store that breaks a promise.
fn broken_on_purpose(store: Arc<dyn Store>) -> Arc<dyn Store> {
    #[cfg(debug_assertions)]
    let store = crate::planted::wrap(store);
    store
}

/// What the store is told, with the contents of the files that the configuration names.
///
/// # Errors
/// A file cannot be read or is empty.
pub fn scylla_options(config: &ScyllaConfig) -> Result<ScyllaOptions, FileError> {
    let read =
        |key, path: &Option<PathBuf>| path.as_ref().map(|path| read_file(key, path)).transpose();
    let password = read("scylla.password_file", &config.password_file)?;
    let credentials = match (&config.user, password) {
        (Some(user), Some(password)) => {
            let path = config.password_file.clone().unwrap_or_default();
            let password = password_of(password).map_err(|why| FileError {
                key: "scylla.password_file",
                path,
                why,
            })?;
            Some(Credentials { user: user.clone(), password })
        }
        _ => None,
    };
    let chain = read("scylla.tls_cert", &config.tls_cert)?;
    let key = read("scylla.tls_key", &config.tls_key)?;
    let client = chain.zip(key).map(|(chain, key)| ClientCertificate { chain, key });
    let ca = read("scylla.tls_ca", &config.tls_ca)?;
    Ok(ScyllaOptions {
        data_centre: config.data_centre.clone(),
        credentials,
        tls: ca.map(|ca| TlsOptions { ca, client }),
        connect_timeout: config.connect_timeout,
        request_timeout: config.request_timeout,
        in_flight: config.in_flight,
        wait: config.wait,
        reads: config.reads,
        register_writes: config.register_writes,
        retention: config.retention,
        ..ScyllaOptions::new(config.contact_points.clone(), config.keyspace.clone())
    })
}

fn read_file(key: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |why: String| FileError { key, path: path.into(), why };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed(error.to_string()))?;
    match bytes.len() as u64 {
        0 => Err(failed("it is empty".into())),
        len if len > MAX_FILE_BYTES => Err(failed("it is longer than 1 MiB".into())),
        _ => Ok(bytes),
    }
}

/// Editors end a file with a line feed, and passwords do not.
fn password_of(bytes: Vec<u8>) -> Result<String, String> {
    let text = String::from_utf8(bytes).map_err(|_| "it is not text (UTF-8)".to_owned())?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() || password.contains('\n') {
        return Err("it must hold one line, the password".into());
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_line_of_its_file() {
        for text in ["secret", "secret\n", "secret\r\n"] {
            assert_eq!(password_of(text.into()), Ok("secret".into()));
        }
        assert_eq!(password_of(" a b \n".into()), Ok(" a b ".into()));
        for text in ["\n", "one\ntwo\n", "one\n\n"] {
            assert!(password_of(text.into()).is_err(), "{text:?}");
        }
        assert!(password_of(vec![0xff]).is_err());
    }

    #[test]
    fn a_folder_has_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let lock = FolderLock::take(&folder).unwrap();
        let taken = FolderLock::take(&folder).unwrap_err().to_string();
        assert!(taken.contains(&format!("another process ({})", std::process::id())), "{taken}");
        drop(lock);
        assert!(FolderLock::take(&folder).is_ok());
    }

    #[test]
    fn files_that_are_named_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let config = ScyllaConfig {
            contact_points: vec!["a".into()],
            user: Some("skein".into()),
            password_file: write("password", "secret\n"),
            tls_ca: write("ca", "CA"),
            tls_cert: write("cert", "CERT"),
            tls_key: write("key", "KEY"),
            ..ScyllaConfig::default()
        };
        let options = scylla_options(&config).unwrap();
        assert_eq!(options.credentials.unwrap().password, "secret");
        let tls = options.tls.unwrap();
        assert_eq!((&tls.ca[..], &tls.client.unwrap().key[..]), (&b"CA"[..], &b"KEY"[..]));

        for (key, config) in [
            ("scylla.tls_ca", ScyllaConfig { tls_ca: Some("nowhere".into()), ..config.clone() }),
            ("scylla.tls_key", ScyllaConfig { tls_key: write("empty", ""), ..config.clone() }),
        ] {
            let error = scylla_options(&config).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{key}`: ")), "{error}");
        }
    }

    /// The store has defaults of its own for those who use it without a gateway.
    #[test]
    fn the_store_and_the_gateway_agree_on_defaults() {
        let config = ScyllaConfig { contact_points: vec!["a".into()], ..ScyllaConfig::default() };
        let ours = scylla_options(&config).unwrap();
        let theirs = ScyllaOptions::new(config.contact_points.clone(), config.keyspace);
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    }
}
