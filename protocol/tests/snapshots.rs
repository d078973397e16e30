//! The bytes of every frame kind, pinned in `frames.hex`: a line that changes is a break of the
//! wire for clients that are already out. `SKEIN_UPDATE=1` writes the file anew.

// A helper of a test fails like a test.
#![allow(clippy::unwrap_used)]

mod samples;

use std::collections::BTreeSet;
use std::fmt::Write;

use prost::Message;
use samples::{client_frames, encoded, hex, server_frames, unhex};
use skein_protocol::frame::{Decoder, encode};
use skein_protocol::wire::{ClientFrame, ServerFrame};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/frames.hex");
const MAX: usize = 64 * 1024;

fn pinned() -> Vec<(String, Vec<u8>)> {
    let text = std::fs::read_to_string(FILE).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, digits) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), unhex(digits))
        })
        .collect()
}

#[test]
fn every_frame_has_its_pinned_bytes() {
    if std::env::var_os("SKEIN_UPDATE").is_some() {
        let mut text =
            String::from("# Side, kind (field name in frame.proto), frame with prefix.\n");
        for (name, bytes) in encoded() {
            writeln!(text, "{name} {}", hex(&bytes)).unwrap();
        }
        std::fs::write(FILE, text).unwrap();
    }
    let expected: Vec<String> =
        pinned().into_iter().map(|(name, bytes)| format!("{name} {}", hex(&bytes))).collect();
    let actual: Vec<String> =
        encoded().into_iter().map(|(name, bytes)| format!("{name} {}", hex(&bytes))).collect();
    assert_eq!(actual, expected);
}

/// Old bytes are read as what they were, and written as they were read.
#[test]
fn pinned_bytes_make_the_round_trip() {
    fn check<M: Message + Default + PartialEq>(samples: Vec<(&str, M)>, side: &str) {
        let pinned = pinned();
        for (name, frame) in samples {
            let full = format!("{side} {name}");
            let (_, bytes) = pinned.iter().find(|(n, _)| *n == full).unwrap();
            let mut decoder = Decoder::new();
            decoder.push(bytes.clone().into());
            let read: M = decoder.poll(MAX).unwrap().unwrap();
            assert!(read == frame, "{full}");
            assert_eq!(decoder.buffered(), 0, "{full}");
            assert_eq!(encode(&read), bytes[..], "{full}");
        }
    }
    check::<ClientFrame>(client_frames(), "client");
    check::<ServerFrame>(server_frames(), "server");
}

/// A kind that is added to `frame.proto` needs a snapshot.
#[test]
fn no_kind_is_missing() {
    let proto = include_str!("../proto/skein/v1/frame.proto");
    let mut side = "";
    let mut declared = BTreeSet::new();
    for line in proto.lines().map(str::trim) {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["message", "ClientFrame", ..] => side = "client",
            ["message", "ServerFrame", ..] => side = "server",
            [kind, field, "=", _] if !kind.starts_with("//") => {
                declared.insert(format!("{side} {field}"));
            }
            _ => {}
        }
    }
    assert!(declared.len() >= 22, "frame.proto is not read as it should be: {declared:?}");
    let sampled: BTreeSet<String> =
        encoded().into_iter().map(|(name, _)| name.split('.').next().unwrap().to_owned()).collect();
    assert_eq!(sampled, declared);
}
