//! What a gateway is told: a TOML file, over it the environment, over it the command line.
//!
//! [`Config`] is plain data whose every value is inside its range. [`Sources`] collects what was
//! given and from where; [`Sources::read`] gives the configuration or every problem at once. All
//! keys stand in one list ([`keys`](self) module); nothing else names them.
//!
//! ```
//! let config = skein_gateway::config::Config::default();
//! assert_eq!(config.listen.port(), skein_gateway::config::DEFAULT_PORT);
//! ```

mod check;
mod cluster;
mod keys;
mod live;
mod print;
mod quantity;
mod rate;
mod rule;
mod source;
mod table;
mod value;

pub(crate) use keys::SECTIONS;
pub use keys::{
    AdminConfig, AuthConfig, Config, DEFAULT_PORT, DrainConfig, LimitsConfig, LogConfig,
    ScyllaConfig, SessionConfig, StoreConfig, TlsConfig, TraceConfig,
};
pub use live::{Change, Merged};
pub use print::{default_file, reference_page};
pub use source::{Loaded, Problem, Problems, Sources};
pub use value::{Alg, CertificateFiles, Choice, LogFormat, StoreKind, TokenKey};

impl AuthConfig {
    /// Whether it names any key that tokens are checked with.
    pub fn names_a_key(&self) -> bool {
        self.key_file.is_some() || self.jwks_file.is_some() || !self.keys.is_empty()
    }
}

/// Whether this is a level as in `log.level`.
///
/// # Errors
/// What would be right.
pub fn check_log_level(text: &str) -> Result<(), String> {
    let input = rule::Input::Text(text.into());
    rule::Rule::read(&rule::LogFilter, &input).map(drop)
}

#[cfg(test)]
mod tests;
