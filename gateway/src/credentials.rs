//! What a gateway shows and what it believes: the files that its configuration names, or else those
//! that are made for development. Read at the start and at every reload.

use std::sync::Arc;
use std::time::SystemTime;

use skein_transport::Keys;

use crate::admin_token::{self, AdminToken, AdminTokenError};
use crate::auth::Verifier;
use crate::config::{Config, Loaded, Problem, Problems, TokenKey};
use crate::dev::{DevError, DevFiles};
use crate::keys;
use crate::tls::{self, Certificate};

/// Which files for development stand in for configured ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Development {
    /// The certificate is self-made.
    pub certificate: bool,
    /// The key that tokens are checked with is self-made.
    pub token_key: bool,
}

/// Everything read and checked.
#[derive(Debug)]
pub struct Credentials {
    /// At least one; the first is for everybody.
    pub certificates: Vec<Certificate>,
    /// Who may log in.
    pub verifier: Arc<Verifier>,
    /// Secret of tickets and Retry tokens that other gateways have, too.
    pub tickets: Option<Keys>,
    /// What operators show; none without an admin listener.
    pub admin_token: Option<AdminToken>,
    /// What of it is for development.
    pub development: Development,
}

/// Why there are no credentials.
#[derive(Debug)]
pub enum CredentialsError {
    /// Files that the configuration names.
    Files(Vec<BadFile>),
    /// Those for development.
    Development(DevError),
}

/// A file that cannot be used.
#[derive(Debug)]
pub struct BadFile {
    /// The key that names it.
    pub key: &'static str,
    /// Which file, what is wrong, and what would be right.
    pub message: String,
}

impl Credentials {
    /// Reads everything; makes what is for development where nothing is configured.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn load(config: &Config, now: SystemTime) -> Result<Self, CredentialsError> {
        let (mut found, bad) = Found::read(config);
        if !bad.is_empty() {
            return Err(CredentialsError::Files(bad));
        }
        let dev = DevFiles::of(&config.data);
        let mut development = Development::default();
        if found.certificates.is_empty() {
            development.certificate = true;
            let made = dev.certificate(now).map_err(CredentialsError::Development)?;
            found.certificates.push(made);
        }
        let verifier = match found.verifier {
            Some(verifier) => verifier,
            None => {
                development.token_key = true;
                let file = dev.ensure_token_key().map_err(CredentialsError::Development)?;
                let mut auth = config.auth.clone();
                auth.keys = vec![TokenKey::of(file)];
                Verifier::from_config(&auth).map_err(|error| {
                    let message = error.to_string();
                    CredentialsError::Files(vec![BadFile { key: "auth.keys", message }])
                })?
            }
        };
        let admin_token = match config.admin.listen {
            Some(_) => Some(AdminToken::load_or_make(config).map_err(BadFile::admin_token)?),
            None => None,
        };
        let Found { certificates, tickets, .. } = found;
        let verifier = Arc::new(verifier);
        Ok(Self { certificates, verifier, tickets, admin_token, development })
    }
}

/// All that is wrong with the files that the configuration names; nothing is made.
pub fn check(config: &Config) -> Vec<BadFile> {
    Found::read(config).1
}

/// What is not wrong with these files, and keeps clients out all the same: a line each.
pub fn remarks(config: &Config, now: SystemTime) -> Vec<String> {
    let (certificates, _) = tls::load(&config.tls);
    let remark =
        |it: &Certificate| Some(format!("{}: {}", it.file.display(), it.out_of_time(now)?));
    certificates.iter().filter_map(remark).map(|it| it + ": clients refuse it").collect()
}

/// What the files hold that are configured.
struct Found {
    certificates: Vec<Certificate>,
    verifier: Option<Verifier>,
    tickets: Option<Keys>,
}

impl Found {
    fn read(config: &Config) -> (Self, Vec<BadFile>) {
        let (certificates, errors) = tls::load(&config.tls);
        let mut bad: Vec<BadFile> = errors
            .into_iter()
            .map(|(key, error)| BadFile { key, message: error.to_string() })
            .collect();
        let mut verifier = None;
        if config.auth.names_a_key() {
            let errors = keys::check(&config.auth);
            bad.extend(
                errors.into_iter().map(|(key, error)| BadFile { key, message: error.to_string() }),
            );
            verifier = Verifier::from_config(&config.auth).ok();
        }
        let tickets = config.tls.secret_file.as_ref().and_then(|file| match Keys::load(file) {
            Ok(keys) => Some(keys),
            Err(error) => {
                bad.push(BadFile { key: "tls.secret_file", message: error.to_string() });
                None
            }
        });
        if let Some(Err(error)) = config.admin.token_file.as_deref().map(admin_token::read) {
            bad.push(BadFile::admin_token(error));
        }
        (Self { certificates, verifier, tickets }, bad)
    }
}

impl CredentialsError {
    /// The same with the places where the configuration names the files.
    pub fn problems(self, loaded: &Loaded) -> Problems {
        Problems(match self {
            Self::Files(bad) => bad.into_iter().map(|file| file.problem(loaded)).collect(),
            Self::Development(error) => {
                vec![Problem { place: "development files".into(), message: error.to_string() }]
            }
        })
    }
}

impl From<BadFile> for CredentialsError {
    fn from(bad: BadFile) -> Self {
        Self::Files(vec![bad])
    }
}

impl BadFile {
    fn admin_token(error: AdminTokenError) -> Self {
        Self { key: "admin.token_file", message: error.to_string() }
    }

    /// The same with the place where the configuration names the file.
    pub fn problem(self, loaded: &Loaded) -> Problem {
        let Self { key, message } = self;
        Problem { place: loaded.place(key), message: format!("`{key}`: {message}") }
    }
}
