//! The checker itself: it is silent about a good history and reports each bad one by its kind.

use skein_protocol::client::ReceiptKind;
use skein_protocol::{ClientMsgId, ConversationId, Seq, UserId};

use crate::chat::checker::{Checker, Kind};
use crate::chat::history::{Device, Entry, Event, Found, Name};

fn phone(user: &str) -> Device {
    Device::new(user, "phone")
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn chat() -> ConversationId {
    ConversationId::one_to_one(&user("a"), &user("b"))
}

/// The n-th message of a, which says "n".
fn name(n: u64) -> Name {
    Name { device: phone("a"), id: ClientMsgId::parse(&format!("id-{n}")).unwrap() }
}

fn entry(n: u64, seq: Seq) -> Entry {
    Entry { seq, name: name(n), text: n.to_string() }
}

fn sent(n: u64) -> Event {
    Event::Sent { device: phone("a"), to: user("b"), text: n.to_string() }
}

fn named(n: u64) -> Event {
    Event::Named { name: name(n), text: n.to_string() }
}

fn accepted(n: u64) -> Event {
    Event::Accepted { text: n.to_string() }
}

fn acked(n: u64, seq: Seq) -> Event {
    Event::Acked { name: name(n), conversation: chat(), seq }
}

fn seen(by: &str, n: u64, seq: Seq) -> Event {
    Event::Seen { by: phone(by), conversation: chat(), entry: entry(n, seq) }
}

fn receipt(kind: ReceiptKind, seq: Seq) -> Event {
    Event::Cursor { to: phone("a"), conversation: chat(), kind, user: user("b"), seq }
}

fn marked(seq: Seq) -> Event {
    Event::Marked { user: user("b"), conversation: chat(), seq }
}

fn found(log: Vec<Entry>, cursors: (Seq, Seq)) -> Found {
    let head = log.last().map_or(0, |entry| entry.seq);
    let cursors = vec![(user("b"), cursors.0, cursors.1)];
    Found { conversation: chat(), head, cursors, log }
}

/// Three messages, acknowledged, shown to b and on a's own device, read up to 2.
fn good() -> Checker {
    let mut checker = Checker::default();
    checker.observe(Event::Started { device: phone("a") });
    checker.observe(Event::Started { device: phone("b") });
    for n in 1..=3 {
        for event in [sent(n), named(n), accepted(n), acked(n, n), seen("b", n, n), seen("a", n, n)]
        {
            checker.observe(event);
        }
    }
    checker.observe(receipt(ReceiptKind::Delivered, 3));
    checker.observe(marked(2));
    checker.observe(receipt(ReceiptKind::Read, 2));
    checker
}

fn audit(checker: &mut Checker, found: &[Found]) {
    let known = checker.known();
    checker.audit(&user("b"), &known, found);
}

#[track_caller]
fn only(checker: &Checker, kind: Kind) {
    let kinds: Vec<_> = checker.counts().keys().copied().collect();
    assert_eq!(kinds, [kind], "{:?}", checker.violations());
}

#[track_caller]
fn after_good(event: Event, kind: Kind) {
    let mut checker = good();
    checker.observe(event);
    only(&checker, kind);
}

fn log(numbers: &[u64]) -> Vec<Entry> {
    numbers.iter().zip(1..).map(|(n, seq)| entry(*n, seq)).collect()
}

#[test]
fn a_good_history_is_good() {
    let mut checker = good();
    audit(&mut checker, &[found(log(&[1, 2, 3]), (3, 2))]);
    assert_eq!(checker.unsettled(), None);
    checker.finish(None);
    assert!(checker.counts().is_empty(), "{:?}", checker.violations());
}

#[test]
fn what_was_acknowledged_or_shown_and_is_gone_is_lost() {
    let mut checker = good();
    audit(&mut checker, &[found(log(&[1, 2]), (2, 2))]);
    only(&checker, Kind::Lost);
}

#[test]
fn what_became_known_while_the_audit_read_may_be_missing_from_it() {
    let mut checker = good();
    let known = checker.known();
    for event in [sent(4), named(4), acked(4, 4)] {
        checker.observe(event);
    }
    checker.audit(&user("b"), &known, &[found(log(&[1, 2, 3]), (3, 2))]);
    assert!(checker.counts().is_empty(), "{:?}", checker.violations());
}

#[test]
fn a_second_position_is_seen_wherever_it_shows() {
    for event in [acked(3, 4), seen("b", 3, 4)] {
        after_good(event, Kind::TwoPositions);
    }
    let mut checker = good();
    audit(&mut checker, &[found(log(&[1, 2, 3, 1]), (3, 2))]);
    only(&checker, Kind::TwoPositions);
}

#[test]
fn a_second_message_at_a_position_is_seen() {
    let mut checker = good();
    for event in [sent(4), named(4), acked(4, 3)] {
        checker.observe(event);
    }
    only(&checker, Kind::TwoMessages);
}

#[test]
fn holes_in_a_log_are_seen() {
    let mut checker = good();
    checker.observe(sent(4));
    audit(&mut checker, &[found(vec![entry(1, 1), entry(2, 2), entry(3, 3), entry(4, 5)], (3, 2))]);
    only(&checker, Kind::Gap);

    let mut checker = good();
    let short = Found { head: 4, ..found(log(&[1, 2, 3]), (3, 2)) };
    audit(&mut checker, &[short]);
    only(&checker, Kind::Gap);
}

#[test]
fn other_words_and_other_names_are_seen() {
    let altered = Entry { text: "x".into(), ..entry(1, 4) };
    for (n, entry) in [(1, altered), (9, entry(9, 4))] {
        let mut checker = good();
        let by = phone("b");
        checker.observe(Event::Seen { by, conversation: chat(), entry });
        assert!(checker.has(Kind::Altered), "{n}: {:?}", checker.violations());
    }
}

#[test]
fn a_device_is_shown_everything_once_and_in_order() {
    after_good(seen("b", 3, 3), Kind::Repeated);
    after_good(seen("b", 2, 2), Kind::Repeated);
    let mut checker = good();
    checker.observe(sent(4));
    checker.observe(sent(5));
    checker.observe(seen("b", 5, 5));
    only(&checker, Kind::Skipped);
    after_good(
        Event::LeftOut { by: phone("b"), conversation: chat(), from: 4, to: 4 },
        Kind::Skipped,
    );
}

#[test]
fn after_a_crash_the_last_ones_may_be_shown_again_and_none_left_out() {
    let mut checker = good();
    checker.observe(Event::Started { device: phone("b") });
    for n in 2..=3 {
        checker.observe(seen("b", n, n));
    }
    assert!(checker.counts().is_empty(), "{:?}", checker.violations());
    checker.observe(seen("b", 3, 3));
    only(&checker, Kind::Repeated);

    let mut checker = good();
    checker.observe(Event::Started { device: phone("b") });
    checker.observe(sent(4));
    checker.observe(sent(5));
    checker.observe(seen("b", 5, 5));
    only(&checker, Kind::Skipped);
}

#[test]
fn cursors_rise_and_stay_behind_what_was_done() {
    after_good(receipt(ReceiptKind::Delivered, 2), Kind::CursorBack);
    after_good(receipt(ReceiptKind::Read, 1), Kind::CursorBack);
    after_good(receipt(ReceiptKind::Delivered, 4), Kind::CursorAhead);
    after_good(receipt(ReceiptKind::Read, 3), Kind::CursorAhead);
    let mut checker = good();
    audit(&mut checker, &[found(log(&[1, 2, 3]), (3, 3))]);
    only(&checker, Kind::CursorAhead);
}

#[test]
fn a_missing_conversation_is_seen() {
    let mut checker = good();
    audit(&mut checker, &[]);
    only(&checker, Kind::Unlisted);
}

#[test]
fn the_order_of_sending_is_kept() {
    let mut checker = good();
    for event in [sent(4), named(4), accepted(4), sent(5), named(5), accepted(5)] {
        checker.observe(event);
    }
    checker.observe(acked(4, 5));
    checker.observe(acked(5, 4));
    checker.finish(None);
    only(&checker, Kind::Reordered);
}

#[test]
fn a_run_ends_when_all_is_acknowledged_and_shown() {
    let mut checker = good();
    for event in [sent(4), named(4), accepted(4)] {
        checker.observe(event);
    }
    assert!(checker.unsettled().unwrap().contains("not acknowledged"));
    checker.observe(acked(4, 4));
    assert!(checker.unsettled().unwrap().contains("3 of 4"));
    checker.observe(seen("a", 4, 4));
    checker.observe(seen("b", 4, 4));
    assert_eq!(checker.unsettled(), None);
    let late = found(log(&[1, 2, 3, 4]), (3, 3));
    assert!(Checker::unmarked(&[late]).is_some());
    assert!(Checker::unmarked(&[found(log(&[1, 2, 3, 4]), (4, 4))]).is_none());
}

#[test]
fn refusals_and_resets_are_reported() {
    let reason = String::new();
    after_good(Event::Rejected { name: name(3), reason }, Kind::Rejected);
    after_good(Event::Reset { device: phone("b") }, Kind::Reset);
    after_good(Event::GaveUp { device: phone("b"), why: String::new() }, Kind::GaveUp);
}
