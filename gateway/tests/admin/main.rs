//! What an operator asks of a real gateway, and tells it: over HTTP, and with `skein ctl`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod api;
mod blocks;
mod config;
mod crowd;
mod ctl;
mod description;
mod drain;
mod schema;
mod sessions;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use support::process::{Gateway, Options};
use support::raw::Raw;

fn options() -> Options {
    Options::default().env("SKEIN_ADMIN__LISTEN", "127.0.0.1:0").env("SKEIN_SHARDS", "2")
}

async fn login(gateway: &Gateway, user: &str, device: &str) -> Raw {
    Raw::login(gateway.address, &gateway.data, &gateway.token(user), device).await
}

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came: {what}");
}
