//! `docs/protocol.md` says what the code does: its codes, limits, identifiers and bytes.

// A helper of a test fails like a test.
#![allow(clippy::unwrap_used)]

mod samples;

use samples::{encoded, hex, unhex};
use skein_protocol::codes::Retry;
use skein_protocol::limits::*;
use skein_protocol::{Code, ConversationId, UserId};

const PAGE: &str = include_str!("../../docs/protocol.md");

/// Cells of the table rows between a heading and the next one.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, rest) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with('|'));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

fn is_number(cell: &str) -> bool {
    !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit())
}

#[test]
fn the_page_lists_every_code() {
    let on_page: Vec<String> = rows("11. Codes")
        .into_iter()
        .filter(|cells| is_number(cells[0]))
        .map(|cells| format!("| {} |", cells.join(" | ")))
        .collect();
    let in_code: Vec<String> = Code::ALL
        .iter()
        .map(|code| {
            let (retry, delay) = match code.retry() {
                Retry::No => ("no", "-".to_owned()),
                Retry::After(delay) => ("yes", format!("{} ms", delay.as_millis())),
            };
            let (number, name, text) = (code.number(), code.name(), code.text());
            format!("| {number} | `{name}` | {text} | {retry} | {delay} |")
        })
        .collect();
    assert_eq!(on_page, in_code, "the table should be:\n{}", in_code.join("\n"));
}

/// Whoever writes a client finds out what to do after every close.
#[test]
fn the_page_says_what_to_do_after_every_close() {
    let advice: String = rows("9. Ends of a session").iter().map(|cells| cells[0]).collect();
    for code in Code::ALL.iter().filter(|code| code.number() < 200) {
        let named = format!("{} `{}`", code.number(), code.name());
        assert!(advice.contains(&named), "{named} is missing");
    }
}

#[test]
fn the_page_lists_the_limits_in_force() {
    let seconds = |duration: std::time::Duration| format!("{} seconds", duration.as_secs());
    let expected = [
        ("`max_frame_bytes`", format!("{DEFAULT_MAX_FRAME_BYTES} bytes")),
        ("`max_payload_bytes`", format!("{DEFAULT_MAX_PAYLOAD_BYTES} bytes")),
        ("`max_unacked_sends`", DEFAULT_MAX_UNACKED_SENDS.to_string()),
        ("`max_bulk_streams`", DEFAULT_MAX_BULK_STREAMS.to_string()),
        ("`max_entries`", DEFAULT_MAX_ENTRIES.to_string()),
        ("user id", format!("{MAX_USER_ID_BYTES} bytes")),
        ("device id", format!("{MAX_DEVICE_ID_BYTES} bytes")),
        ("`client_msg_id`", format!("{MAX_CLIENT_MSG_ID_BYTES} bytes")),
        ("`content_type`", format!("{MAX_CONTENT_TYPE_BYTES} bytes")),
        ("`platform`", format!("{MAX_PLATFORM_BYTES} bytes")),
        ("token", format!("{MAX_TOKEN_BYTES} bytes")),
        ("time between two `RefreshToken`", "1 second".into()),
        ("time to `Hello`", seconds(DEFAULT_HELLO_TIMEOUT)),
        (
            "heartbeat interval",
            format!("{}, advised in `Welcome`", seconds(DEFAULT_HEARTBEAT_INTERVAL)),
        ),
    ];
    assert_eq!(MIN_TOKEN_INTERVAL.as_secs(), 1);
    let rows = rows("10. Limits");
    for (name, value) in expected {
        let row = rows.iter().find(|cells| cells[0] == name);
        assert_eq!(row.map(|cells| cells[1]), Some(&value[..]), "{name}");
    }
    let grace = format!("after {HEARTBEAT_GRACE_PERCENT} percent");
    assert!(rows.iter().any(|cells| cells[2].contains(&grace)), "{grace}");
}

#[test]
fn the_page_derives_conversations_as_the_code_does() {
    let vectors = [("alice", "bob"), ("alice", "alice"), ("anna", "Zoë")];
    for (a, b) in vectors {
        let (one, two) = (UserId::parse(a).unwrap(), UserId::parse(b).unwrap());
        let id = ConversationId::one_to_one(&one, &two);
        assert_eq!(id, ConversationId::one_to_one(&two, &one));
        let listed = rows("3. Identifiers").into_iter().any(|cells| {
            cells[0].starts_with(&format!("`{a}`, `{b}`")) && cells[2] == format!("`{id}`")
        });
        assert!(listed, "{a} and {b}: {id}");
    }
}

/// Blocks that begin with "```hex SIDE KIND": name and bytes, without comments and spaces.
fn examples() -> Vec<(String, Vec<u8>)> {
    let blocks = PAGE.split("\n```hex ").skip(1);
    blocks
        .map(|block| {
            let (name, rest) = block.split_once('\n').unwrap();
            let (lines, _) = rest.split_once("\n```").unwrap();
            let digits: String = lines
                .lines()
                .flat_map(|line| line.split('#').next().unwrap().split_whitespace())
                .collect();
            (name.to_owned(), unhex(&digits))
        })
        .collect()
}

#[test]
fn the_worked_example_has_the_encoders_bytes() {
    let encoded = encoded();
    let examples = examples();
    assert!(examples.len() >= 13, "blocks are not found: {}", examples.len());
    for (name, bytes) in examples {
        let (_, real) = encoded.iter().find(|(n, _)| *n == name).unwrap();
        assert_eq!(hex(&bytes), hex(real), "{name}");
    }
}
