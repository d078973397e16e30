//! Two versions of the program on one data folder. The second is this one under another name.

use tempfile::tempdir;

use crate::support::process::{Gateway, Options, skein};
use crate::support::raw::Raw;

/// A version with this format of the data folder.
fn version(format: u32, name: &str) -> Options {
    Options::default().env("SKEIN_PLANTED_VERSION", format!("{format} {name}"))
}

async fn login(gateway: &Gateway, user: &str) -> Raw {
    Raw::login(gateway.address, &gateway.data, &gateway.token(user), "phone").await
}

#[tokio::test]
async fn a_newer_version_goes_on_with_the_data_and_an_older_one_is_refused_by_name() {
    let dir = tempdir().unwrap();
    let old = Options::default();
    let gateway = Gateway::start(dir.path(), &old);
    login(&gateway, "alice").await.message("bob", "m1", "from the old one").await;
    let mut alice = login(&gateway, "alice").await;
    alice.message_again("bob", "m1", "from the old one", Some(0)).await;
    assert_eq!(alice.ack().await.seq, 1);
    // Not beside it.
    assert!(Gateway::try_start(dir.path(), &version(1, "0.2.0")).is_none());
    assert!(gateway.log().contains("in use by another process"), "{}", gateway.log());
    assert!(gateway.terminate().success());

    let gateway = Gateway::start(dir.path(), &version(1, "0.2.0"));
    let mut alice = login(&gateway, "alice").await;
    alice.message_again("bob", "m1", "from the old one", Some(0)).await;
    assert_eq!(alice.ack().await.seq, 1, "it knows what the old one has stored");
    alice.message("bob", "m2", "from the new one").await;
    assert_eq!(alice.ack().await.seq, 2);
    assert!(gateway.terminate().success());
    // The format is the same, so the way back is open.
    assert!(Gateway::start(dir.path(), &old).terminate().success());

    assert!(Gateway::start(dir.path(), &version(2, "0.3.0")).terminate().success());
    let data = dir.path().to_str().unwrap();
    for options in [old.clone(), version(1, "0.2.0")] {
        let ran = skein(&["serve", "--data", data, "--listen", "127.0.0.1:0"], &options);
        let told = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(1), "{told}");
        assert!(told.contains("was last used by skein 0.3.0, in format 2"), "{told}");
        assert!(told.contains("run skein 0.3.0 or later"), "{told}");
    }
    let gateway = Gateway::start(dir.path(), &version(2, "0.3.1"));
    let alice = login(&gateway, "alice").await;
    assert_eq!(alice.pull("bob", 1, 0, false).await.len(), 2);
}
