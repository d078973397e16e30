//! Who the sessions are: names of users, and tokens that prove them.
//!
//! A token is made when a session needs it, on threads beside the shards, so that a million
//! signatures do not stand before the start and a signature never holds up the timetable.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde::{Deserialize, Serialize};
use skein_protocol::UserId;
use skein_protocol::limits::MAX_TOKEN_BYTES;

use crate::clock::{self, Nanos, SECOND};
use crate::plan::{Algorithm, Credentials, Identity, Secret};

/// Requests that one thread takes at once: so many answers are one message to a shard.
const BATCH: usize = 32;

/// A request for another token is due when so much of the old one's time is left, seconds.
pub const RENEW_BEFORE: u64 = 60;

/// Why tokens cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key is none, or not one for the algorithm.
    #[error("the token key cannot be used for {algorithm:?}: {why}")]
    Key {
        /// The algorithm that was asked for.
        algorithm: Algorithm,
        /// What is wrong.
        why: String,
    },
    /// A token of the list is none.
    #[error("token {number} of the list: {why}")]
    Listed {
        /// Which, from 1.
        number: usize,
        /// What is wrong.
        why: String,
    },
    /// The list is too short.
    #[error("{needed} users are needed, and there are tokens for {listed}")]
    TooFew {
        /// Users of the plan.
        needed: u64,
        /// Tokens in the list.
        listed: usize,
    },
    /// The name of the run does not do as part of user names.
    #[error("the run's name must be 1 to 16 of a-z and 0-9, not {0:?}")]
    Run(String),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Names of users.
#[derive(Debug)]
pub struct Users {
    run: String,
    first: u64,
    /// Of the list; none: made from the number.
    listed: Vec<Box<str>>,
}

impl Users {
    /// Appends the name of the plan's user `number`.
    pub fn name(&self, number: u32, into: &mut String) {
        match self.listed.get(number as usize) {
            Some(name) => into.push_str(name),
            // Writing to a string does not fail.
            None => drop(write!(into, "{}-{}", self.run, self.first + u64::from(number))),
        }
    }

    /// Whether every conversation of these users begins with the run.
    pub fn are_new(&self) -> bool {
        self.listed.is_empty()
    }
}

/// Who wants a token.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The asking shard.
    pub shard: usize,
    /// Its session.
    pub session: u32,
    /// The session's user.
    pub user: u32,
}

/// A token for a session.
#[derive(Clone, Debug)]
pub struct Token {
    /// The session that asked.
    pub session: u32,
    /// The token, if one could be made.
    pub text: Option<Bytes>,
    /// When it ends.
    pub until: Nanos,
}

/// Makes tokens.
#[derive(Debug)]
pub struct Mint {
    requests: Sender<Request>,
}

impl Clone for Mint {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone() }
    }
}

impl Mint {
    /// Checks everything that can be checked before a run of so many users, and starts the
    /// threads. `deliver` brings what a shard asked for; the threads end with the last clone of
    /// the mint.
    ///
    /// # Errors
    /// The key or the list cannot be used.
    pub fn start(
        identity: &Identity,
        users: u64,
        threads: usize,
        deliver: impl Fn(usize, Vec<Token>) + Send + Sync + 'static,
    ) -> Result<(Self, Arc<Users>), IdentityError> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !(1..=16).contains(&identity.run.len()) || !identity.run.chars().all(good) {
            return Err(IdentityError::Run(identity.run.clone()));
        }
        let names =
            |listed| Users { run: identity.run.clone(), first: identity.first_user, listed };
        let (source, listed) = match &identity.credentials {
            Credentials::Signed { .. } => (Source::signer(&identity.credentials)?, Vec::new()),
            Credentials::Listed(tokens) => Source::list(tokens, users)?,
        };
        let users = Arc::new(names(listed));
        let (requests, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let worker = Arc::new((source, users.clone(), deliver));
        for number in 0..threads.max(1) {
            let (waiting, worker) = (waiting.clone(), worker.clone());
            thread::Builder::new().name(format!("token-{number}")).spawn(move || {
                let (source, users, deliver) = &*worker;
                while let Some(batch) = next_batch(&waiting) {
                    make(source, users, &batch, deliver);
                }
            })?;
        }
        Ok((Self { requests }, users))
    }

    /// Asks for a token. At most the sessions that are being made ask at a time, so what waits is
    /// bounded by the plan's `max_connecting`, and renewals by the number of sessions.
    pub fn request(&self, request: Request) {
        // The threads live as long as this sender.
        let _ = self.requests.send(request);
    }
}

fn next_batch(waiting: &Mutex<Receiver<Request>>) -> Option<Vec<Request>> {
    let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let mut batch = vec![waiting.recv().ok()?];
    batch.extend(waiting.try_iter().take(BATCH - 1));
    Some(batch)
}

fn make(source: &Source, users: &Users, batch: &[Request], deliver: &impl Fn(usize, Vec<Token>)) {
    let mut made: Vec<(usize, Token)> = Vec::with_capacity(batch.len());
    let mut name = String::new();
    for request in batch {
        name.clear();
        users.name(request.user, &mut name);
        let (text, until) = source.token(request.user, &name);
        made.push((request.shard, Token { session: request.session, text, until }));
    }
    made.sort_by_key(|(shard, _)| *shard);
    for group in made.chunk_by(|a, b| a.0 == b.0) {
        deliver(group[0].0, group.iter().map(|(_, token)| token.clone()).collect());
    }
}

enum Source {
    Signer(Box<Signer>),
    Listed(Vec<(Bytes, Nanos)>),
}

struct Signer {
    key: EncodingKey,
    header: Header,
    audience: String,
    issuer: Option<String>,
    life: Duration,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    aud: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    iat: u64,
    exp: u64,
}

/// What is read of a listed token. Its signature is the target's business.
#[derive(Deserialize)]
struct Subject {
    sub: String,
    exp: Option<u64>,
}

impl Source {
    fn signer(credentials: &Credentials) -> Result<Self, IdentityError> {
        let Credentials::Signed { key, algorithm, key_id, audience, issuer, lifetime } =
            credentials
        else {
            unreachable!("only called for a key");
        };
        let algorithm = *algorithm;
        let wrong = |why: String| IdentityError::Key { algorithm, why };
        let pem = key.0.as_bytes();
        let (key, name) = match algorithm {
            Algorithm::EdDsa => (EncodingKey::from_ed_pem(pem), jsonwebtoken::Algorithm::EdDSA),
            Algorithm::Es256 => (EncodingKey::from_ec_pem(pem), jsonwebtoken::Algorithm::ES256),
            Algorithm::Hs256 if pem.len() < 32 => {
                return Err(wrong("a shared secret has at least 32 bytes".into()));
            }
            Algorithm::Hs256 => (Ok(EncodingKey::from_secret(pem)), jsonwebtoken::Algorithm::HS256),
        };
        let mut header = Header::new(name);
        header.kid = key_id.clone();
        let source = Self::Signer(Box::new(Signer {
            key: key.map_err(|error| wrong(error.to_string()))?,
            header,
            audience: audience.clone(),
            issuer: issuer.clone(),
            life: *lifetime,
        }));
        match source.token(0, "nobody").0 {
            Some(_) => Ok(source),
            None => Err(wrong("it does not sign".into())),
        }
    }

    fn list(tokens: &[Secret], needed: u64) -> Result<(Self, Vec<Box<str>>), IdentityError> {
        if (tokens.len() as u64) < needed {
            return Err(IdentityError::TooFew { needed, listed: tokens.len() });
        }
        let (now, unix) = (clock::now(), unix_seconds());
        let mut list = Vec::with_capacity(tokens.len());
        let mut names = Vec::with_capacity(tokens.len());
        for (index, Secret(token)) in tokens.iter().enumerate() {
            let wrong = |why: &str| IdentityError::Listed { number: index + 1, why: why.into() };
            let subject = subject(token).map_err(|why| wrong(&why))?;
            let left = subject.exp.map_or(u64::MAX, |exp| exp.saturating_sub(unix));
            if left == 0 {
                return Err(wrong("it has expired"));
            }
            let until = now.saturating_add(left.saturating_mul(SECOND));
            list.push((Bytes::copy_from_slice(token.as_bytes()), until));
            names.push(subject.sub.into_boxed_str());
        }
        // Whoever is two of the plan's users hears what is written to either.
        let mut firsts = HashMap::new();
        for (index, name) in names.iter().take(needed as usize).enumerate() {
            if let Some(first) = firsts.insert(name, index + 1) {
                let why = format!("its user is that of token {first}; list each user once");
                return Err(IdentityError::Listed { number: index + 1, why });
            }
        }
        Ok((Self::Listed(list), names))
    }

    fn token(&self, number: u32, name: &str) -> (Option<Bytes>, Nanos) {
        match self {
            Self::Listed(list) => match list.get(number as usize) {
                Some((token, until)) => (Some(token.clone()), *until),
                None => (None, 0),
            },
            Self::Signer(signer) => {
                let Signer { key, header, audience, issuer, life } = &**signer;
                let (now, iat) = (clock::now(), unix_seconds());
                let exp = iat.saturating_add(life.as_secs());
                let claims = Claims { sub: name, aud: audience, iss: issuer.as_deref(), iat, exp };
                let token = encode(header, &claims, key).ok();
                let until = now.saturating_add(life.as_secs().saturating_mul(SECOND));
                (token.map(Bytes::from), until)
            }
        }
    }
}

fn subject(token: &str) -> Result<Subject, String> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(format!("longer than {MAX_TOKEN_BYTES} bytes"));
    }
    let claims = token.split('.').nth(1).ok_or("not a token of three parts")?;
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| "not base64")?;
    let subject: Subject =
        serde_json::from_slice(&claims).map_err(|_| "no claims with a sub in it")?;
    UserId::parse(&subject.sub).map_err(|error| error.to_string())?;
    Ok(subject)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SECRET: &str = "a shared secret of more than 32 bytes";

    fn identity(credentials: Credentials) -> Identity {
        Identity { run: "r1".into(), first_user: 100, credentials }
    }

    fn signed(key: &str, algorithm: Algorithm) -> Credentials {
        Credentials::Signed {
            key: Secret(key.into()),
            algorithm,
            key_id: Some("k".into()),
            audience: "skein".into(),
            issuer: None,
            lifetime: Duration::from_secs(3600),
        }
    }

    type Minting = (Mint, Arc<Users>, Receiver<(usize, Token)>);

    fn mint(identity: &Identity, users: u64) -> Result<Minting, IdentityError> {
        let (sender, tokens) = mpsc::channel();
        let deliver = move |shard, batch: Vec<Token>| {
            batch.into_iter().for_each(|token| drop(sender.send((shard, token))));
        };
        Mint::start(identity, users, 2, deliver).map(|(mint, users)| (mint, users, tokens))
    }

    #[test]
    fn every_request_is_answered_to_its_shard_with_its_users_token() {
        let (mint, users, tokens) = mint(&identity(signed(SECRET, Algorithm::Hs256)), 500).unwrap();
        for session in 0..500 {
            mint.request(Request { shard: session as usize % 3, session, user: session });
        }
        let mut answered = vec![false; 500];
        for (shard, token) in tokens.iter().take(500) {
            assert_eq!(shard, token.session as usize % 3);
            let text = String::from_utf8(token.text.unwrap().to_vec()).unwrap();
            let mut name = String::new();
            users.name(token.session, &mut name);
            assert_eq!(subject(&text).unwrap().sub, name);
            assert_eq!(name, format!("r1-{}", 100 + token.session));
            assert!(token.until > clock::now() + 3500 * SECOND);
            answered[token.session as usize] = true;
        }
        assert!(answered.iter().all(|answered| *answered));
        drop(mint);
        assert!(tokens.recv().is_err(), "the threads end with the mint");
    }

    #[test]
    fn listed_tokens_are_given_out_in_order() {
        let (signing, _, tokens) = mint(&identity(signed(SECRET, Algorithm::Hs256)), 2).unwrap();
        let listed: Vec<Secret> = (7..9)
            .map(|user| {
                signing.request(Request { shard: 0, session: 0, user });
                let token = tokens.recv().unwrap().1.text.unwrap();
                Secret(String::from_utf8(token.to_vec()).unwrap())
            })
            .collect();
        let (mint_, users, tokens) =
            mint(&identity(Credentials::Listed(listed.clone())), 2).unwrap();
        mint_.request(Request { shard: 0, session: 5, user: 1 });
        let token = tokens.recv().unwrap().1;
        assert_eq!((token.session, &token.text.unwrap()[..]), (5, listed[1].0.as_bytes()));
        let mut name = String::new();
        users.name(1, &mut name);
        assert_eq!(name, "r1-108");
        let twice = vec![listed[0].clone(), listed[0].clone()];
        let twice = mint(&identity(Credentials::Listed(twice)), 2).unwrap_err();
        assert!(twice.to_string().contains("list each user once"), "{twice}");
        let too_few = mint(&identity(Credentials::Listed(listed)), 3).unwrap_err();
        assert!(too_few.to_string().contains("3 users are needed"), "{too_few}");
    }

    #[test]
    fn what_cannot_be_used_is_said_before_the_start() {
        let wrong = [
            identity(signed("short", Algorithm::Hs256)),
            identity(signed("no key", Algorithm::EdDsa)),
            identity(signed("no key", Algorithm::Es256)),
            identity(Credentials::Listed(vec![Secret("nonsense".into())])),
            Identity { run: "Not Good".into(), ..identity(signed(SECRET, Algorithm::Hs256)) },
        ];
        for identity in wrong {
            assert!(mint(&identity, 1).is_err(), "{identity:?}");
        }
    }
}
