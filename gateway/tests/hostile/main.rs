//! Bad input, against the real program: every attack gets a numbered answer or a close, the
//! gateway's memory stays bounded, it does not panic, and two bystanders who chat meanwhile notice
//! nothing: each message of theirs arrives, and the slowest in a hundred takes no more than twice as
//! long as before.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "helpers of tests")]

#[path = "../support/mod.rs"]
mod support;

mod amplification;
mod datagrams;
mod floods;
mod frames;
mod greedy;
mod liar;
mod limits;
mod login;
mod relay;
mod requests;
mod scene;
mod sessions;
mod streams;
