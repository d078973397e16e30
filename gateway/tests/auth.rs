//! Which tokens are believed, for each algorithm.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData};
use serde_json::{Value, json};
use skein_gateway::auth::{AuthError, Identity, Verifier};
use skein_gateway::config::{Alg, AuthConfig, TokenKey};
use skein_gateway::dev::DevFiles;
use skein_protocol::Code;
use tempfile::TempDir;

/// The time of every test, in seconds.
const NOW: u64 = 1_800_000_000;
const LEEWAY: u64 = 5;
const ALL: [Alg; 3] = [Alg::EdDSA, Alg::ES256, Alg::HS256];

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Somebody who signs tokens, and the file by which a gateway knows them.
struct Issuer {
    dir: TempDir,
    alg: Algorithm,
    sign: EncodingKey,
    verify: PathBuf,
}

impl Issuer {
    fn new(alg: Alg) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let (alg, sign, verify) = match alg {
            Alg::EdDSA => {
                let dev = DevFiles::of(dir.path());
                let public = dev.ensure_token_key().unwrap();
                let pem = std::fs::read(dev.token_key()).unwrap();
                (Algorithm::EdDSA, EncodingKey::from_ed_pem(&pem).unwrap(), public)
            }
            Alg::ES256 => {
                let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
                std::fs::write(&file, pair.public_key_pem()).unwrap();
                let sign = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
                (Algorithm::ES256, sign, file)
            }
            Alg::HS256 => {
                let secret: [u8; 32] = rand::random();
                let line: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
                std::fs::write(&file, format!("{line}\n")).unwrap();
                (Algorithm::HS256, EncodingKey::from_secret(line.as_bytes()), file)
            }
        };
        Self { dir, alg, sign, verify }
    }

    fn config(&self) -> AuthConfig {
        AuthConfig { key_file: Some(self.verify.clone()), ..AuthConfig::default() }
    }

    fn verifier(&self) -> Verifier {
        Verifier::from_config(&self.config()).unwrap()
    }

    fn token(&self, claims: &Value) -> String {
        encode(&Header::new(self.alg), claims, &self.sign).unwrap()
    }

    fn jwk(&self, kid: &str) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.sign, self.alg).unwrap();
        jwk.common.key_id = Some(kid.into());
        jwk
    }
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({ "sub": "alice", "aud": "skein", "exp": NOW + 60 });
    for (key, value) in changes.as_object().unwrap() {
        claims[key] = value.clone();
    }
    claims
}

fn without(key: &str) -> Value {
    let mut claims = claims(json!({}));
    claims.as_object_mut().unwrap().remove(key);
    claims
}

fn user(name: &str) -> Identity {
    Identity {
        user: name.parse().unwrap(),
        device: None,
        expires_ms: Some((NOW + 60 + LEEWAY) * 1000),
    }
}

#[test]
fn claims_decide_who_gets_in() {
    let expires = |expires_ms| Ok(Identity { expires_ms: Some(expires_ms), ..user("alice") });
    let bad = || Err(Code::BadToken);
    let table: Vec<(&str, Value, Result<Identity, Code>)> = vec![
        ("plain", claims(json!({})), Ok(user("alice"))),
        (
            "bound to a device",
            claims(json!({ "device": "phone.1" })),
            Ok(Identity { device: Some("phone.1".parse().unwrap()), ..user("alice") }),
        ),
        ("no device", claims(json!({ "device": null })), Ok(user("alice"))),
        ("one of several audiences", claims(json!({ "aud": ["x", "skein"] })), Ok(user("alice"))),
        ("unknown claims", claims(json!({ "roles": ["a"], "iat": NOW + 99 })), Ok(user("alice"))),
        ("unicode", claims(json!({ "sub": "爱丽丝 Ünï 🦀" })), Ok(user("爱丽丝 Ünï 🦀"))),
        ("longest user", claims(json!({ "sub": "x".repeat(64) })), Ok(user(&"x".repeat(64)))),
        ("nbf past", claims(json!({ "nbf": NOW })), Ok(user("alice"))),
        ("nbf inside the leeway", claims(json!({ "nbf": NOW + LEEWAY })), Ok(user("alice"))),
        (
            "exp with a fraction",
            claims(json!({ "exp": NOW as f64 + 1.5 })),
            expires((NOW + LEEWAY) * 1000 + 1500),
        ),
        (
            "exp inside the leeway",
            claims(json!({ "exp": NOW - LEEWAY + 1 })),
            expires((NOW + 1) * 1000),
        ),
        ("exp far away", claims(json!({ "exp": u64::MAX })), expires(u64::MAX)),
        ("exp further away", claims(json!({ "exp": 1e300 })), expires(u64::MAX)),
        ("expired", claims(json!({ "exp": NOW - LEEWAY })), Err(Code::TokenExpired)),
        ("expired long ago", claims(json!({ "exp": 0 })), Err(Code::TokenExpired)),
        ("not yet valid", claims(json!({ "nbf": NOW + LEEWAY + 1 })), Err(Code::TokenNotYetValid)),
        ("wrong audience", claims(json!({ "aud": "other" })), bad()),
        ("wrong audiences", claims(json!({ "aud": ["other", "Skein"] })), bad()),
        ("empty audiences", claims(json!({ "aud": [] })), bad()),
        ("no audience", without("aud"), bad()),
        ("audience of a wrong type", claims(json!({ "aud": { "skein": 1 } })), bad()),
        ("no user", without("sub"), bad()),
        ("user of a wrong type", claims(json!({ "sub": 7 })), bad()),
        ("empty user", claims(json!({ "sub": "" })), bad()),
        ("long user", claims(json!({ "sub": "x".repeat(65) })), bad()),
        ("user with a line break", claims(json!({ "sub": "al\nice" })), bad()),
        ("user with NUL", claims(json!({ "sub": "alice\u{0}" })), bad()),
        ("user with a C1 control", claims(json!({ "sub": "al\u{85}ice" })), bad()),
        ("device against its rules", claims(json!({ "device": "my phone" })), bad()),
        ("empty device", claims(json!({ "device": "" })), bad()),
        ("no exp", without("exp"), bad()),
        ("exp null", claims(json!({ "exp": null })), bad()),
        ("exp in words", claims(json!({ "exp": "tomorrow" })), bad()),
        ("exp in digits of text", claims(json!({ "exp": "1900000000" })), bad()),
        ("exp below zero", claims(json!({ "exp": -1 })), bad()),
        ("nbf of a wrong type", claims(json!({ "nbf": true })), bad()),
        ("no claims", json!({}), bad()),
        ("no object", json!(["alice", "skein"]), bad()),
    ];
    for alg in ALL {
        let issuer = Issuer::new(alg);
        let verifier = issuer.verifier();
        for (name, claims, expected) in &table {
            let found = verifier.verify(&issuer.token(claims), at(NOW));
            assert_eq!(&found, expected, "{alg:?}: {name}");
        }
    }
}

#[test]
fn what_is_no_token_of_ours_is_refused() {
    for alg in ALL {
        let issuer = Issuer::new(alg);
        let verifier = issuer.verifier();
        let good = issuer.token(&claims(json!({})));
        assert!(verifier.verify(&good, at(NOW)).is_ok());
        let refused = |name: &str, token: &str| {
            assert_eq!(verifier.verify(token, at(NOW)), Err(Code::BadToken), "{alg:?}: {name}");
        };

        refused("foreign key", &Issuer::new(alg).token(&claims(json!({}))));
        refused("expired and foreign", &Issuer::new(alg).token(&claims(json!({ "exp": 1 }))));
        for end in 0..good.len() {
            refused("truncated", &good[..end]);
        }
        for garbage in ["a", ".", "..", "...", "a.b", "a.b.c", "€.€.€", "\0\0\0", "Bearer x"]
        {
            refused(garbage, garbage);
        }
        refused("with something behind it", &format!("{good}."));
        refused("twice", &format!("{good}.{good}"));
        refused("in quotes", &format!("\"{good}\""));
        refused("with a space", &format!(" {good}"));
        refused("huge garbage", &"x".repeat(1 << 20));
        let padding = "x".repeat(8 * 1024);
        refused("signed but huge", &issuer.token(&claims(json!({ "padding": padding }))));

        let parts: Vec<&str> = good.split('.').collect();
        let other = issuer.token(&claims(json!({ "sub": "bob" })));
        let payload = other.split('.').nth(1).unwrap();
        refused("payload of another token", &[parts[0], payload, parts[2]].join("."));

        let mut critical = Header::new(issuer.alg);
        critical.crit = Some(vec!["b64".into()]);
        let critical = encode(&critical, &claims(json!({})), &issuer.sign).unwrap();
        refused("crit", &critical);
    }
}

#[test]
fn the_algorithm_belongs_to_the_key() {
    let issuers = ALL.map(Issuer::new);
    let all = AuthConfig {
        keys: issuers.iter().map(|issuer| TokenKey::of(&issuer.verify)).collect(),
        ..AuthConfig::default()
    };
    let all = Verifier::from_config(&all).unwrap();
    for issuer in &issuers {
        let own = issuer.verifier();
        assert_eq!(all.verify(&issuer.token(&claims(json!({}))), at(NOW)), Ok(user("alice")));

        // Everybody knows the public key; as a shared secret, in any form, it opens nothing.
        let file = std::fs::read(&issuer.verify).unwrap();
        let mut known = vec![file.clone(), file.trim_ascii().to_vec()];
        if issuer.alg != Algorithm::HS256 {
            let text = String::from_utf8(file).unwrap();
            let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
            known.push(body.clone().into_bytes());
            let der = EncodingKey::from_base64_secret(&body).unwrap();
            let token = encode(&Header::default(), &claims(json!({})), &der).unwrap();
            for verifier in [&own, &all] {
                assert_eq!(verifier.verify(&token, at(NOW)), Err(Code::BadToken));
            }
        } else {
            // This file is the secret; only with its line break it is another one.
            known.truncate(1);
        }
        for secret in known {
            let key = EncodingKey::from_secret(&secret);
            let token = encode(&Header::new(Algorithm::HS256), &claims(json!({})), &key).unwrap();
            for verifier in [&own, &all] {
                assert_eq!(verifier.verify(&token, at(NOW)), Err(Code::BadToken));
            }
        }

        // {"alg":"none"} with the payload of a good token, with and without a signature.
        let good = issuer.token(&claims(json!({})));
        let mut parts = good.split('.').skip(1);
        let (payload, signature) = (parts.next().unwrap(), parts.next().unwrap());
        for none in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIn0", "eyJ0eXAiOiJKV1QifQ"] {
            for signature in ["", signature] {
                let token = format!("{none}.{payload}.{signature}");
                assert_eq!(all.verify(&token, at(NOW)), Err(Code::BadToken));
            }
        }
        // A stronger variant of the same family is another algorithm.
        if issuer.alg == Algorithm::HS256 {
            let header = Header::new(Algorithm::HS512);
            let token = encode(&header, &claims(json!({})), &issuer.sign).unwrap();
            assert_eq!(own.verify(&token, at(NOW)), Err(Code::BadToken));
        }
    }
}

#[test]
fn issuer_audience_and_exp_follow_the_configuration() {
    let issuer = Issuer::new(Alg::EdDSA);
    let config = AuthConfig {
        issuer: Some("https://id.example".into()),
        audience: "chat".into(),
        require_exp: false,
        leeway: Duration::ZERO,
        ..issuer.config()
    };
    let verifier = Verifier::from_config(&config).unwrap();
    let verify = |claims: Value| verifier.verify(&issuer.token(&claims), at(NOW));
    let right = json!({ "sub": "alice", "aud": "chat", "iss": "https://id.example" });
    assert_eq!(verify(right.clone()), Ok(Identity { expires_ms: None, ..user("alice") }));
    let mut timed = right.clone();
    timed["exp"] = json!(NOW + 1);
    assert_eq!(verify(timed).unwrap().expires_ms, Some((NOW + 1) * 1000));
    let mut ended = right.clone();
    ended["exp"] = json!(NOW);
    assert_eq!(verify(ended), Err(Code::TokenExpired));
    for (key, value) in [("iss", json!("https://other")), ("iss", json!(null)), ("aud", json!("x"))]
    {
        let mut wrong = right.clone();
        wrong[key] = value;
        assert_eq!(verify(wrong), Err(Code::BadToken), "{key}");
    }
}

#[test]
fn kid_chooses_among_the_keys_of_a_set() {
    let issuers = ALL.map(Issuer::new);
    let twin = Issuer::new(Alg::EdDSA);
    let file = twin.dir.path().join("jwks.json");
    let mut keys: Vec<Value> = issuers
        .iter()
        .zip(["ed", "ec", "oct"])
        .chain([(&twin, "twin")])
        .map(|(issuer, kid)| serde_json::to_value(issuer.jwk(kid)).unwrap())
        .collect();
    // For others: passed over.
    keys.push(json!({ "kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB" }));
    keys.push(json!({ "kty": "future", "kid": "f" }));
    let mut encryption = keys[1].clone();
    encryption["use"] = json!("enc");
    keys.push(encryption);
    std::fs::write(&file, json!({ "keys": keys }).to_string()).unwrap();
    let config = AuthConfig { jwks_file: Some(file), ..AuthConfig::default() };
    let verifier = Verifier::from_config(&config).unwrap();

    let verify = |issuer: &Issuer, kid: Option<&str>| {
        let mut header = Header::new(issuer.alg);
        header.kid = kid.map(Into::into);
        let token = encode(&header, &claims(json!({})), &issuer.sign).unwrap();
        verifier.verify(&token, at(NOW))
    };
    for (issuer, kid) in issuers.iter().zip(["ed", "ec", "oct"]).chain([(&twin, "twin")]) {
        assert_eq!(verify(issuer, Some(kid)), Ok(user("alice")), "{kid}");
        assert_eq!(verify(issuer, None), Ok(user("alice")), "{kid}, not named");
        assert_eq!(verify(issuer, Some("unknown")), Err(Code::BadToken), "{kid}, misnamed");
        for wrong in ["ed", "ec", "oct", "twin"].into_iter().filter(|name| *name != kid) {
            assert_eq!(verify(issuer, Some(wrong)), Err(Code::BadToken), "{kid} as {wrong}");
        }
    }
}

/// What the error says about a file with this content as `auth.key_file`.
fn refusal(content: impl AsRef<[u8]>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, content).unwrap();
    let config = AuthConfig { key_file: Some(file), ..AuthConfig::default() };
    Verifier::from_config(&config).unwrap_err().to_string()
}

#[test]
fn unusable_key_files_are_named_with_a_way_out() {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let public = pair.public_key_pem();
    let body: String = public.lines().filter(|line| !line.starts_with('-')).collect();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (pair.serialize_pem().into(), "private key"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(), "certificate"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".into(), "neither"),
        (public.replace("-----BEGIN", "----BEGIN").into(), "not PEM"),
        (body.into(), "not PEM"),
        (pair.subject_public_key_info(), "DER"),
        (serde_json::to_vec(&Issuer::new(Alg::EdDSA).jwk("a")).unwrap(), "auth.jwks_file"),
        ("short".into(), "at least 32"),
        (Vec::new(), "at least 32"),
        (KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap().public_key_pem().into(), "P-256"),
    ];
    for (content, expected) in cases {
        let error = refusal(&content);
        assert!(error.contains(expected), "{expected:?} is not in {error:?}");
    }
}

#[test]
fn keys_are_bounded_and_never_empty() {
    let load = |config: &AuthConfig| Verifier::from_config(config).map(drop);
    assert!(matches!(load(&AuthConfig::default()), Err(AuthError::NoKey)));
    let issuer = Issuer::new(Alg::EdDSA);
    let keys = |number| AuthConfig {
        keys: vec![TokenKey::of(&issuer.verify); number],
        ..AuthConfig::default()
    };
    assert!(load(&keys(16)).is_ok());
    assert!(matches!(load(&keys(17)), Err(AuthError::TooManyKeys(17))));
    let missing = AuthConfig { key_file: Some("/no/such/key".into()), ..AuthConfig::default() };
    assert!(matches!(load(&missing), Err(AuthError::Read { .. })));
    let other = TokenKey { alg: Some(Alg::HS256), ..TokenKey::of(&issuer.verify) };
    let other = AuthConfig { keys: vec![other], ..AuthConfig::default() };
    assert!(load(&other).unwrap_err().to_string().contains("for EdDSA, not for HS256"));
}

#[test]
fn broken_key_sets_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let load = |text: String| {
        let file = dir.path().join("jwks.json");
        std::fs::write(&file, text).unwrap();
        let config = AuthConfig { jwks_file: Some(file), ..AuthConfig::default() };
        Verifier::from_config(&config).unwrap_err().to_string()
    };
    let ed = |x: &str| json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x }] }).to_string();
    assert!(load("not json".into()).contains("no JSON Web Key Set"));
    assert!(load(json!({ "keys": [] }).to_string()).contains("no signing key"));
    assert!(load(ed("AAAA")).contains("no usable key for EdDSA"));
    assert!(load(ed("!")).contains("cannot be decoded"));
    let ec = json!({ "kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA" });
    assert!(load(json!({ "keys": [ec] }).to_string()).contains("no usable key for ES256"));
    let oct = json!({ "kty": "oct", "k": "AAAA", "alg": "HS256" });
    assert!(load(json!({ "keys": [oct] }).to_string()).contains("at least 32"));
    let other = serde_json::to_string(&JwkSet { keys: vec![Issuer::new(Alg::HS256).jwk("a")] });
    assert!(load(other.unwrap().replace("HS256", "HS512")).contains("no signing key"));
}

/// A verifier with one key of each kind, and a token that each believes.
fn everything(dir: &Path) -> (Verifier, Vec<String>) {
    let issuers = ALL.map(Issuer::new);
    let keys = issuers.iter().enumerate().map(|(index, issuer)| {
        let file = dir.join(index.to_string());
        std::fs::copy(&issuer.verify, &file).unwrap();
        TokenKey::of(file)
    });
    let config = AuthConfig { keys: keys.collect(), ..AuthConfig::default() };
    let tokens = issuers.iter().map(|issuer| issuer.token(&claims(json!({})))).collect();
    (Verifier::from_config(&config).unwrap(), tokens)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever one changes in a token, it speaks for nobody else; nothing panics.
    #[test]
    fn a_changed_token_is_never_believed(
        which in 0..3usize, at_char in any::<prop::sample::Index>(), with in any::<char>(),
        garbage in "\\PC{0,200}",
    ) {
        static SHARED: std::sync::OnceLock<(TempDir, Verifier, Vec<String>)> =
            std::sync::OnceLock::new();
        let (_, verifier, tokens) = SHARED.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            let (verifier, tokens) = everything(dir.path());
            (dir, verifier, tokens)
        });
        let mut changed: Vec<char> = tokens[which].chars().collect();
        let index = at_char.index(changed.len());
        prop_assume!(changed[index] != with);
        changed[index] = with;
        let changed: String = changed.into_iter().collect();
        prop_assert_eq!(verifier.verify(&changed, at(NOW)), Err(Code::BadToken));
        prop_assert_eq!(verifier.verify(&garbage, at(NOW)), Err(Code::BadToken));
    }
}
