//! What a scenario names, looked up: files are read and understood, host names become addresses.
//! Whatever is wrong with them is told before any load.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use rand::RngExt as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;

use super::source::{Problem, Problems};
use super::{HostPort, Scenario};
use crate::plan::{Algorithm, Credentials, Identity, Secret, Target, Trust};

/// A shared secret is at least as long as the hash that it keys (RFC 7518 section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Where the load goes and who makes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The gateway.
    pub target: Target,
    /// The users.
    pub identity: Identity,
}

impl Scenario {
    /// Reads and looks up everything that the scenario names.
    ///
    /// # Errors
    /// Every file that cannot be read or holds something else, every name without an address.
    pub fn resolve(&self) -> Result<Resolved, Problems> {
        let mut wrong = Wrong(Vec::new());
        let target = self.look_up_target(&mut wrong);
        let credentials = self.credentials(&self.target.data, &mut wrong);
        match (target, credentials, wrong.0.is_empty()) {
            (Some(target), Some(credentials), true) => Ok(self.with_gateway(target, credentials)),
            _ => Err(Problems(wrong.0)),
        }
    }

    /// The same for a gateway that is known already.
    pub fn with_gateway(&self, target: Target, credentials: Credentials) -> Resolved {
        let run = self.users.run_id.clone().unwrap_or_else(draw_run_id);
        Resolved { target, identity: Identity { run, first_user: 0, credentials } }
    }

    fn look_up_target(&self, wrong: &mut Wrong) -> Option<Target> {
        let addresses = self.target.address.iter().flat_map(|host| look_up(host, wrong)).collect();
        let development = self.target.data.join("dev/ca.pem");
        let (trust, is_development) = match &self.target.ca {
            Some(path) => (Trust::Pem(certificates(path, wrong)?), false),
            None if development.exists() => (Trust::Pem(certificates(&development, wrong)?), true),
            None => (Trust::System, false),
        };
        let server_name = match (&self.target.server_name, self.target.address.first()) {
            (Some(name), _) => name.clone(),
            (None, Some(host)) if !is_development => host.host.clone(),
            (None, _) => "localhost".to_owned(),
        };
        Some(Target { addresses, server_name, trust })
    }

    fn credentials(&self, data: &Path, wrong: &mut Wrong) -> Option<Credentials> {
        if let Some(path) = &self.users.tokens {
            return tokens(path, wrong).map(Credentials::Listed);
        }
        let development = data.join("dev/token-key.pem");
        let path = match &self.users.key {
            Some(path) => path,
            None if development.exists() => &development,
            None => {
                wrong.say(
                    "users.key",
                    format!(
                        "there is no development key {}: start `skein serve` on that folder first \
                         (--data DIR), give a key (--token-key FILE) or tokens (--tokens FILE), or \
                         have a gateway started (--spawn-gateway)",
                        development.display()
                    ),
                );
                return None;
            }
        };
        let (key, algorithm) = signing_key(path, wrong)?;
        Some(Credentials::Signed {
            key,
            algorithm,
            key_id: self.users.key_id.clone(),
            audience: self.users.audience.clone(),
            issuer: self.users.issuer.clone(),
            lifetime: self.users.token_lifetime,
        })
    }
}

/// Problems found so far.
struct Wrong(Vec<Problem>);

impl Wrong {
    fn say(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { place: place.into(), message: message.into() });
    }

    fn read(&mut self, key: &str, path: &Path) -> Option<String> {
        match std::fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => return Some(text),
            Ok(Err(_)) => self.say(key, format!("{} is not text", path.display())),
            Err(error) => self.say(key, format!("{} cannot be read: {error}", path.display())),
        }
        None
    }
}

fn look_up(host: &HostPort, wrong: &mut Wrong) -> Vec<SocketAddr> {
    if let Ok(address) = host.host.parse::<IpAddr>() {
        return vec![SocketAddr::new(address, host.port)];
    }
    match (host.host.as_str(), host.port).to_socket_addrs() {
        // One family: a session that tries the other one first would only be late.
        Ok(found) => {
            let found: Vec<SocketAddr> = found.collect();
            let ipv4 = found.iter().any(SocketAddr::is_ipv4);
            let kept: Vec<_> = found.into_iter().filter(|a| a.is_ipv4() == ipv4).collect();
            if kept.is_empty() {
                wrong.say("target.address", format!("{host} has no address"));
            }
            kept
        }
        Err(error) => {
            wrong.say("target.address", format!("{host} has no address: {error}"));
            Vec::new()
        }
    }
}

fn certificates(path: &Path, wrong: &mut Wrong) -> Option<String> {
    let text = wrong.read("target.ca", path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    if all.is_ok_and(|all| !all.is_empty()) {
        return Some(text);
    }
    wrong.say("target.ca", format!("{} holds no certificate in PEM", path.display()));
    None
}

fn signing_key(path: &Path, wrong: &mut Wrong) -> Option<(Secret, Algorithm)> {
    let text = wrong.read("users.key", path)?;
    if text.contains("-----BEGIN ") {
        let algorithm = if EncodingKey::from_ed_pem(text.as_bytes()).is_ok() {
            Algorithm::EdDsa
        } else if EncodingKey::from_ec_pem(text.as_bytes()).is_ok() {
            Algorithm::Es256
        } else {
            let message = format!(
                "{} holds no private key in PEM (PKCS#8) for Ed25519 or P-256",
                path.display()
            );
            wrong.say("users.key", message);
            return None;
        };
        return Some((Secret(text), algorithm));
    }
    // A secret that was written as a line of text is meant without the end of the line.
    let secret = text.trim_end_matches(['\r', '\n']).to_owned();
    if secret.len() < MIN_SECRET_BYTES {
        let message = format!(
            "{} holds neither a key in PEM nor a secret of at least {MIN_SECRET_BYTES} bytes",
            path.display()
        );
        wrong.say("users.key", message);
        return None;
    }
    Some((Secret(secret), Algorithm::Hs256))
}

fn tokens(path: &Path, wrong: &mut Wrong) -> Option<Vec<Secret>> {
    let text = wrong.read("users.tokens", path)?;
    let mut tokens = Vec::new();
    let before = wrong.0.len();
    for (number, line) in text.lines().enumerate() {
        let token = line.trim();
        if token.is_empty() || token.starts_with('#') {
            continue;
        }
        match token_problem(token) {
            Some(problem) => {
                wrong.say(format!("{}:{}", path.display(), number + 1), problem);
                // A file of something else would be wrong in every line.
                if wrong.0.len() - before == 5 {
                    break;
                }
            }
            None => tokens.push(Secret(token.to_owned())),
        }
    }
    if wrong.0.len() > before {
        return None;
    }
    if tokens.is_empty() {
        wrong.say("users.tokens", format!("{} holds no token", path.display()));
        return None;
    }
    Some(tokens)
}

/// What the gateway will look at too; the signature only it can check.
fn token_problem(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: Option<String>,
        exp: Option<f64>,
    }
    let claims = token.split('.').nth(1).filter(|_| token.split('.').count() == 3);
    let claims = claims.and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims = claims.and_then(|json| serde_json::from_slice::<Claims>(&json).ok());
    let Some(claims) = claims else { return Some("is no token (JWT)".into()) };
    if claims.sub.is_none_or(|sub| sub.is_empty()) {
        return Some("the token names no user (`sub`)".into());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let past = now - claims.exp?;
    (past > 0.0).then(|| format!("the token has expired {past:.0} s ago"))
}

fn draw_run_id() -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    (0..8).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}
