//! The files for development: made once, reused, replaced when their time is over.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use skein_gateway::auth::Verifier;
use skein_gateway::config::{AuthConfig, TokenKey};
use skein_gateway::dev::{DevError, DevFiles};
use skein_gateway::token::{Grant, Signer};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn a_certificate_is_kept_until_its_time_is_nearly_over() {
    let dir = tempfile::tempdir().unwrap();
    let dev = DevFiles::of(dir.path());
    let now = SystemTime::now();
    let first = dev.certificate(now).unwrap();
    let ca = fs::read(dev.ca()).unwrap();
    for later in [Duration::ZERO, DAY * 300] {
        assert_eq!(dev.certificate(now + later).unwrap().chain().to_vec(), first.chain());
    }
    let later = now + DAY * 340;
    assert_ne!(dev.certificate(later).unwrap().chain().to_vec(), first.chain());
    assert_ne!(fs::read(dev.ca()).unwrap(), ca);
    assert!(
        !dir.path()
            .join("dev")
            .read_dir()
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with(".new") })
    );
}

#[test]
fn a_set_of_files_that_do_not_go_together_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let dev = DevFiles::of(dir.path());
    let other = tempfile::tempdir().unwrap();
    let other = DevFiles::of(other.path());
    let now = SystemTime::now();
    other.certificate(now).unwrap();
    let swaps: [fn(&DevFiles) -> std::path::PathBuf; 3] =
        [DevFiles::ca, DevFiles::cert, DevFiles::key];
    for file in swaps {
        for content in [Some(fs::read(file(&other)).unwrap()), Some(b"garbage".to_vec()), None] {
            dev.certificate(now).unwrap();
            match content {
                Some(content) => fs::write(file(&dev), content).unwrap(),
                None => fs::remove_file(file(&dev)).unwrap(),
            }
            let repaired = dev.certificate(now).unwrap();
            assert_eq!(dev.certificate(now).unwrap().chain().to_vec(), repaired.chain());
        }
    }
}

#[test]
fn the_token_key_stays_and_signs_what_the_gateway_believes() {
    let dir = tempfile::tempdir().unwrap();
    let dev = DevFiles::of(dir.path());
    let public = dev.ensure_token_key().unwrap();
    let key = fs::read(dev.token_key()).unwrap();
    fs::remove_file(&public).unwrap();
    assert_eq!(dev.ensure_token_key().unwrap(), public);
    assert_eq!(fs::read(dev.token_key()).unwrap(), key);

    let config = AuthConfig { keys: vec![TokenKey::of(&public)], ..AuthConfig::default() };
    let (user, device) = ("alice".parse().unwrap(), "phone".parse().unwrap());
    let grant = Grant {
        user: &user,
        device: Some(&device),
        audience: &config.audience,
        issuer: None,
        issued: SystemTime::now(),
        ttl: Duration::from_secs(60),
    };
    let token = Signer::from_file(&dev.token_key(), None).unwrap().sign(&grant).unwrap();
    let identity = Verifier::from_config(&config).unwrap().verify(&token, grant.issued).unwrap();
    assert_eq!((identity.user, identity.device), (user.clone(), Some(device.clone())));
}

#[test]
fn a_token_key_of_somebody_else_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let dev = DevFiles::of(dir.path());
    fs::create_dir_all(dir.path().join("dev")).unwrap();
    fs::write(dev.token_key(), "mine").unwrap();
    assert!(matches!(dev.ensure_token_key(), Err(DevError::TokenKey { .. })));
    assert_eq!(fs::read(dev.token_key()).unwrap(), b"mine");
}

#[test]
fn many_that_start_at_once_agree_on_one_token_key() {
    let dir = tempfile::tempdir().unwrap();
    let keys: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let start = || {
            let dev = DevFiles::of(dir.path());
            dev.ensure_token_key().unwrap();
            fs::read(dev.token_key()).unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[cfg(unix)]
#[test]
fn private_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let dev = DevFiles::of(dir.path());
    dev.certificate(SystemTime::now()).unwrap();
    dev.ensure_token_key().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for private in [dev.key(), dev.token_key()] {
        assert_eq!(mode(&private), 0o600, "{}", private.display());
    }
    for public in [dev.ca(), dev.cert(), dev.token_public_key()] {
        assert_eq!(mode(&public), 0o644, "{}", public.display());
    }
}
