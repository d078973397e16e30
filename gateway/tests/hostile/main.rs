//! Bad input, against the real program: every attack gets a numbered answer or a close, the
//! gateway's memory stays bounded, it does not panic, and two bystanders who chat meanwhile notice
//! nothing.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "helpers of tests")]

#[path = "../support/mod.rs"]
mod support;

mod datagrams;
mod floods;
mod frames;
mod liar;
mod login;
mod relay;
mod requests;
mod scene;
mod sessions;
mod streams;
