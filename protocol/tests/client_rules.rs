//! The client's rules one by one, under a virtual clock: logging in, being heard, tokens, ends of a
//! session, another log.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use skein_protocol::client::{
    BulkAction, Client, Config, Event, Origin, Outgoing, Reconnect, Restored, SendError, StoreOp,
    Target,
};
use skein_protocol::frame::{self, Decoder};
use skein_protocol::wire::{self, client_frame, server_frame};
use skein_protocol::{ClientMsgId, Code, ConversationId, Seq, UserId};

const EPOCH: u64 = 7;
const INTERVAL: Duration = Duration::from_secs(25);

/// A client, and its gateway's view of it.
struct Pair {
    client: Client,
    now: Instant,
    decoder: Decoder,
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn conversation() -> ConversationId {
    ConversationId::one_to_one(&user("ann"), &user("bob"))
}

fn message(seq: Seq) -> wire::Message {
    wire::Message {
        conversation: Bytes::copy_from_slice(conversation().as_bytes()),
        seq,
        sender: "bob".into(),
        sender_device: "pc".into(),
        client_msg_id: format!("m{seq}"),
        payload: vec![b'x'; 100].into(),
        ..Default::default()
    }
}

fn welcome() -> wire::Welcome {
    wire::Welcome {
        version: 1,
        session: 1,
        user: "ann".into(),
        device: "phone".into(),
        server_time_ms: 1_000_000,
        heartbeat_interval_ms: INTERVAL.as_millis() as u32,
        limits: None,
        store_epoch: EPOCH,
        token_expires_ms: 0,
    }
}

impl Pair {
    fn new(config: Config, restored: Restored) -> Self {
        let now = Instant::now();
        Self { client: Client::new(config, restored, now), now, decoder: Decoder::new() }
    }

    /// Logged in, and all heads told.
    fn live() -> Self {
        let mut pair = Self::new(Config::default(), Restored::default());
        pair.log_in(welcome());
        pair.answer_heads(vec![]);
        pair.events();
        pair
    }

    fn log_in(&mut self, welcome: wire::Welcome) -> wire::Hello {
        self.decoder = Decoder::new();
        self.client.handle_connected("token".into(), self.now);
        let sent = self.sent();
        let [client_frame::Kind::Hello(hello)] = &sent[..] else { panic!("{sent:?}") };
        self.say(server_frame::Kind::Welcome(welcome));
        hello.clone()
    }

    fn answer_heads(&mut self, heads: Vec<wire::Head>) {
        let Some(BulkAction::Open { id, .. }) = self.client.poll_bulk(self.now) else {
            panic!("the heads are asked for first")
        };
        let page = wire::HeadsPage { heads, is_end: true };
        let page = encode(server_frame::Kind::HeadsPage(page));
        self.client.handle_bulk(id, page, self.now);
    }

    fn say(&mut self, kind: server_frame::Kind) {
        self.client.handle_live(encode(kind), self.now);
    }

    /// What the client has written since.
    fn sent(&mut self) -> Vec<client_frame::Kind> {
        while let Some(bytes) = self.client.poll_live(self.now) {
            self.decoder.push(bytes);
        }
        let mut frames = Vec::new();
        while let Some(frame) = self.decoder.poll::<wire::ClientFrame>(1 << 20).unwrap() {
            frames.push(frame.kind.unwrap());
        }
        frames
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }

    /// Lets time pass up to the next timer, which must lie within `most`; returns what is sent.
    fn next_timer(&mut self, most: Duration) -> (Duration, Vec<client_frame::Kind>) {
        let due = self.client.poll_timeout().unwrap().max(self.now);
        let passed = due - self.now;
        assert!(passed <= most, "{passed:?}");
        self.now = due;
        self.client.handle_timeout(self.now);
        (passed, self.sent())
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.client.handle_timeout(self.now);
    }
}

fn encode(kind: server_frame::Kind) -> Bytes {
    frame::encode(&wire::ServerFrame { kind: Some(kind) })
}

fn outgoing(id: &str) -> Outgoing {
    Outgoing {
        id: ClientMsgId::parse(id).unwrap(),
        to: Target::User(user("bob")),
        content_type: String::new(),
        payload: "hi".into(),
        origin: Origin::Fresh,
    }
}

#[test]
fn a_quiet_session_is_heard_within_the_interval_and_a_pong_keeps_it() {
    let mut pair = Pair::live();
    for _ in 0..5 {
        let (passed, sent) = pair.next_timer(INTERVAL);
        assert!(passed > INTERVAL / 2, "not more often than needed: {passed:?}");
        let [client_frame::Kind::Ping(ping)] = sent[..] else { panic!("{sent:?}") };
        pair.now += Duration::from_millis(80);
        pair.say(server_frame::Kind::Pong(wire::Pong { nonce: ping.nonce }));
        assert_eq!(pair.client.poll_close(), None);
    }
}

#[test]
fn a_ping_without_an_answer_ends_the_connection_and_the_next_one_pings_sooner() {
    let mut pair = Pair::live();
    let (first, sent) = pair.next_timer(INTERVAL);
    assert!(matches!(sent[..], [client_frame::Kind::Ping(_)]));
    let (passed, _) = pair.next_timer(Duration::from_secs(6));
    assert_eq!(passed, Duration::from_secs(5));
    assert_eq!(pair.client.poll_close(), Some(Code::HeartbeatTimeout));
    assert_eq!(pair.client.poll_close(), None, "said once");
    let reconnect = pair.client.handle_disconnected(None, "", pair.now);
    assert_eq!(reconnect, Reconnect::After(Duration::ZERO));
    pair.log_in(welcome());
    pair.answer_heads(vec![]);
    let (second, _) = pair.next_timer(INTERVAL);
    assert!(second < first, "{second:?} after {first:?}");
}

#[test]
fn somebody_who_waits_for_an_answer_asks_sooner_whether_anybody_is_there() {
    let mut pair = Pair::live();
    pair.pass(Duration::from_secs(20));
    pair.client.send(outgoing("a")).unwrap();
    assert!(matches!(pair.sent()[..], [client_frame::Kind::Send(_)]));
    let (passed, sent) = pair.next_timer(Duration::from_secs(5));
    assert_eq!(passed, Duration::from_secs(5));
    assert!(matches!(sent[..], [client_frame::Kind::Ping(_)]), "{sent:?}");
}

#[test]
fn an_application_that_does_not_read_is_not_taken_for_a_dead_gateway() {
    let config = Config { max_event_bytes: 1000, ..Config::default() };
    let mut pair = Pair::new(config, Restored::default());
    pair.log_in(welcome());
    pair.answer_heads(vec![]);
    let messages = (1..=20).map(message).collect();
    pair.say(server_frame::Kind::Push(wire::Push { messages }));
    assert!(pair.client.is_congested());
    for _ in 0..20 {
        pair.pass(Duration::from_secs(4));
        pair.sent();
        assert_eq!(pair.client.poll_close(), None);
    }
    assert_eq!(pair.events().len(), 21, "Connected and all messages");
    assert!(!pair.client.is_congested());
}

#[test]
fn a_ping_of_the_gateway_is_answered_and_unknown_kinds_are_passed_over() {
    let mut pair = Pair::live();
    // Field 15 is no kind of this version.
    pair.client.handle_live(Bytes::from_static(&[3, 0x7a, 1, 0]), pair.now);
    pair.say(server_frame::Kind::Ping(wire::Ping { nonce: 9 }));
    assert_eq!(pair.sent(), [client_frame::Kind::Pong(wire::Pong { nonce: 9 })]);
}

#[test]
fn the_token_is_renewed_in_time() {
    let mut pair = Pair::new(Config::default(), Restored::default());
    pair.log_in(wire::Welcome { token_expires_ms: 1_000_000 + 3_600_000, ..welcome() });
    pair.answer_heads(vec![]);
    let start = pair.now;
    while !pair.client.wants_token() {
        let (_, sent) = pair.next_timer(INTERVAL);
        for frame in sent {
            let client_frame::Kind::Ping(ping) = frame else { continue };
            pair.say(server_frame::Kind::Pong(wire::Pong { nonce: ping.nonce }));
        }
    }
    assert_eq!(pair.now - start, Duration::from_secs(3240), "a tenth is left");
    pair.client.handle_token(Some("fresh".into()), pair.now);
    let fresh = wire::RefreshToken { token: "fresh".into() };
    assert!(pair.sent().contains(&client_frame::Kind::RefreshToken(fresh)));
    let refreshed = wire::TokenRefreshed { token_expires_ms: 1_000_000 + 7_200_000 };
    pair.say(server_frame::Kind::TokenRefreshed(refreshed));
    pair.pass(Duration::from_secs(600));
    assert!(!pair.client.wants_token());
}

#[test]
fn a_token_that_is_not_to_be_had_is_asked_for_again() {
    let mut pair = Pair::new(Config::default(), Restored::default());
    pair.log_in(wire::Welcome { token_expires_ms: 1_000_000 + 100_000, ..welcome() });
    pair.pass(Duration::from_secs(50));
    assert!(pair.client.wants_token());
    pair.client.handle_token(None, pair.now);
    assert!(!pair.client.wants_token());
    pair.pass(Duration::from_secs(26));
    assert!(pair.client.wants_token());
}

#[test]
fn codes_say_whether_to_come_back() {
    let after = |seconds| Reconnect::After(Duration::from_secs(seconds));
    for (code, expected) in [
        (Some(Code::Replaced.number().into()), Reconnect::Never),
        (Some(Code::BadToken.number().into()), Reconnect::Never),
        (Some(Code::DeviceMismatch.number().into()), Reconnect::Never),
        (Some(Code::VersionUnsupported.number().into()), Reconnect::Never),
        (Some(Code::TokenExpired.number().into()), Reconnect::WithNewToken),
        (Some(Code::TooManySessions.number().into()), after(5)),
        (Some(Code::Ok.number().into()), after(0)),
        (Some(150), after(5)),
        (Some(350), after(1)),
        (Some(9999), after(0)),
        (None, after(0)),
    ] {
        let mut pair = Pair::live();
        assert_eq!(pair.client.handle_disconnected(code, "", pair.now), expected, "{code:?}");
        let events = pair.events();
        assert!(
            matches!(events[..], [Event::Disconnected { reconnect, .. }] if reconnect == expected)
        );
    }
}

#[test]
fn a_close_that_tells_its_own_delay_is_believed() {
    let (blocked, bad) = (Code::Blocked.number().into(), Code::BadToken.number().into());
    let after = |seconds| Reconnect::After(Duration::from_secs(seconds));
    for (code, words, expected) in [
        (blocked, "spam", after(300)),
        (blocked, "spam (retry after 10 s)", after(10)),
        // It may be taken back before.
        (blocked, "spam (retry after 86400 s)", after(3600)),
        (Code::TooManyFailedLogins.number().into(), "x (retry after 80 s)", after(80)),
        (bad, "x (retry after 80 s)", Reconnect::Never),
        (9999, "x (retry after 80 s)", after(0)),
    ] {
        let mut pair = Pair::live();
        let reconnect = pair.client.handle_disconnected(Some(code), words, pair.now);
        assert_eq!(reconnect, expected, "{code} {words}");
    }
}

#[test]
fn broken_rules_again_and_again_end_the_attempts() {
    let mut pair = Pair::live();
    let code = Some(Code::ProtocolViolation.number().into());
    for expected in [true, true, false] {
        let reconnect = pair.client.handle_disconnected(code, "", pair.now);
        assert_eq!(reconnect != Reconnect::Never, expected);
        pair.log_in(welcome());
    }
}

#[test]
fn a_gateway_that_goes_answers_what_is_under_way_and_gets_nothing_new() {
    let mut pair = Pair::live();
    pair.client.send(outgoing("a")).unwrap();
    assert_eq!(pair.sent().len(), 1);
    let go_away = wire::GoAway { code: 123, message: "bye".into(), reconnect_delay_ms: 3000 };
    pair.say(server_frame::Kind::GoAway(go_away));
    let other = Outgoing { to: Target::User(user("cy")), ..outgoing("b") };
    pair.client.send(other).unwrap();
    assert_eq!(pair.sent(), []);
    assert_eq!(pair.client.poll_close(), None, "an answer is under way");
    pair.say(server_frame::Kind::SendAck(wire::SendAck {
        client_msg_id: "a".into(),
        conversation: Bytes::copy_from_slice(conversation().as_bytes()),
        seq: 1,
        time_ms: 5,
        ..Default::default()
    }));
    assert_eq!(pair.client.poll_close(), Some(Code::GoingAway));
    let reconnect = pair.client.handle_disconnected(None, "", pair.now);
    assert_eq!(reconnect, Reconnect::After(Duration::from_secs(3)));
    assert_eq!(pair.client.unacked(), 1, "the other one waits for the next connection");
}

#[test]
fn another_log_voids_positions_and_known_heads() {
    let restored = Restored { epoch: EPOCH, positions: vec![(conversation(), 40)] };
    let mut pair = Pair::new(Config::default(), restored);
    let late = Outgoing { origin: Origin::MaybeSent { after: 40 }, ..outgoing("a") };
    pair.client.send(late).unwrap();
    let hello = pair.log_in(wire::Welcome { store_epoch: 8, ..welcome() });
    assert_eq!((hello.store_epoch, hello.have.len()), (EPOCH, 1));
    assert_eq!(hello.have[0].seq, 40);
    assert_eq!(pair.client.poll_store(), Some(StoreOp::Reset { epoch: 8 }));
    assert!(pair.events().contains(&Event::StoreReset { epoch: 8 }));
    let sent = pair.sent();
    let [client_frame::Kind::Send(send)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(send.retry_after_seq, Some(0));
    pair.answer_heads(vec![]);
    pair.say(server_frame::Kind::Push(wire::Push { messages: vec![message(1)] }));
    assert!(matches!(pair.events()[..], [Event::Message { .. }]), "it begins at 1 again");
}

#[test]
fn what_is_pushed_before_the_heads_are_known_waits_for_its_predecessors() {
    let mut pair = Pair::new(Config::default(), Restored::default());
    pair.log_in(welcome());
    pair.say(server_frame::Kind::Push(wire::Push { messages: vec![message(5)] }));
    assert_eq!(pair.events().len(), 1, "Connected alone");
    let head = wire::Head {
        conversation: Bytes::copy_from_slice(conversation().as_bytes()),
        seq: 5,
        delivered: 3,
        first_seq: 1,
        ..Default::default()
    };
    pair.answer_heads(vec![head]);
    assert!(matches!(pair.client.poll_bulk(pair.now), Some(BulkAction::Stop { .. })));
    let Some(BulkAction::Open { request, .. }) = pair.client.poll_bulk(pair.now) else { panic!() };
    let mut decoder = Decoder::new();
    decoder.push(request);
    let frame: wire::ClientFrame = decoder.poll(1 << 16).unwrap().unwrap();
    let Some(client_frame::Kind::PullRequest(pull)) = frame.kind else { panic!() };
    assert_eq!((pull.ranges.len(), pull.ranges[0].from, pull.ranges[0].to), (1, 4, 4));
    pair.say(server_frame::Kind::Push(wire::Push { messages: vec![message(4)] }));
    let seqs: Vec<Seq> = pair
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Message { message, .. } => Some(message.seq),
            _ => None,
        })
        .collect();
    assert_eq!(seqs, [4, 5]);
}

#[test]
fn acknowledgements_wait_for_company_and_go_with_whatever_goes() {
    let mut pair = Pair::live();
    let messages = (1..=3).map(message).collect();
    pair.say(server_frame::Kind::Push(wire::Push { messages }));
    pair.events();
    for seq in 1..=3 {
        pair.client.handle_consumed(conversation(), seq, pair.now);
    }
    assert_eq!(pair.sent(), [], "not at once");
    let (passed, sent) = pair.next_timer(Duration::from_millis(20));
    assert_eq!(passed, Duration::from_millis(20));
    let [client_frame::Kind::Delivered(delivered)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((delivered.cursors.len(), delivered.cursors[0].seq), (1, 3));

    pair.say(server_frame::Kind::Push(wire::Push { messages: vec![message(4)] }));
    pair.events();
    pair.client.handle_consumed(conversation(), 4, pair.now);
    pair.client.send(outgoing("a")).unwrap();
    let sent = pair.sent();
    let [client_frame::Kind::Send(_), client_frame::Kind::Delivered(_)] = &sent[..] else {
        panic!("{sent:?}")
    };
}

#[test]
fn early_messages_are_bounded_and_positions_do_not_pass_a_gap() {
    let config = Config { max_early_bytes: 2000, ..Config::default() };
    let mut pair = Pair::new(config, Restored::default());
    pair.log_in(welcome());
    pair.answer_heads(vec![]);
    for seq in (2..400).step_by(2) {
        pair.say(server_frame::Kind::Push(wire::Push { messages: vec![message(seq)] }));
        assert!(pair.client.buffered() <= 2500, "{}", pair.client.buffered());
    }
    pair.client.handle_consumed(conversation(), 300, pair.now);
    assert_eq!(pair.client.position(conversation()), 0);
    assert!(
        !std::iter::from_fn(|| pair.client.poll_store())
            .any(|op| matches!(op, StoreOp::Position { .. }))
    );
}

#[test]
fn a_message_over_the_gateways_limit_is_refused_before_it_is_written() {
    let mut pair = Pair::new(Config::default(), Restored::default());
    let long = Outgoing { payload: vec![0; 5000].into(), ..outgoing("a") };
    pair.client.send(long.clone()).unwrap();
    let limits = wire::Limits { max_payload_bytes: 1000, ..Default::default() };
    pair.log_in(wire::Welcome { limits: Some(limits), ..welcome() });
    assert_eq!(pair.sent(), []);
    assert!(pair.events().iter().any(|event| matches!(event, Event::Rejected { code: 202, .. })));
    let refused = pair.client.send(Outgoing { id: ClientMsgId::parse("b").unwrap(), ..long });
    assert_eq!(refused, Err(SendError::TooLarge { len: 5000, max: 1000 }));
}

#[test]
fn leaving_reports_what_was_dealt_with_and_says_goodbye() {
    let mut pair = Pair::live();
    pair.say(server_frame::Kind::Push(wire::Push { messages: vec![message(1)] }));
    pair.events();
    pair.client.handle_consumed(conversation(), 1, pair.now);
    pair.client.mark_read(conversation(), 1);
    pair.client.handle_leave();
    let sent = pair.sent();
    let [client_frame::Kind::Read(_), client_frame::Kind::Delivered(_), client_frame::Kind::Bye(_)] =
        &sent[..]
    else {
        panic!("{sent:?}")
    };
    assert_eq!(pair.client.poll_close(), Some(Code::Ok));
    let reconnect = pair.client.handle_disconnected(Some(0), "", pair.now);
    assert_eq!(reconnect, Reconnect::Never);
}

#[test]
fn garbage_ends_the_connection_with_its_code() {
    for (bytes, code) in [
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], Code::MalformedFrame),
        (&[0xff, 0xff, 0xff, 0x7f], Code::FrameTooLarge),
        (&[2, 0xff, 0xff], Code::MalformedFrame),
    ] {
        let mut pair = Pair::live();
        pair.client.handle_live(Bytes::copy_from_slice(bytes), pair.now);
        assert_eq!(pair.client.poll_close(), Some(code));
    }
}

#[test]
fn what_was_under_way_is_sent_first_thing_on_the_next_connection() {
    let mut pair = Pair::live();
    pair.client.send(outgoing("a")).unwrap();
    pair.sent();
    pair.client.handle_disconnected(None, "cut", pair.now);
    pair.log_in(welcome());
    let sent = pair.sent();
    let [client_frame::Kind::Send(send)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((send.client_msg_id.as_str(), send.retry_after_seq), ("a", Some(0)));
}

#[test]
fn what_the_store_does_not_answer_is_sent_again_with_its_mark() {
    let mut pair = Pair::live();
    pair.client.send(outgoing("a")).unwrap();
    pair.client.send(outgoing("behind")).unwrap();
    let mut waited = Duration::ZERO;
    for attempt in 0..8 {
        let sent = pair.sent();
        let [client_frame::Kind::Send(send)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(send.client_msg_id, "a", "the one behind does not overtake it");
        assert_eq!(send.retry_after_seq, (attempt > 0).then_some(0));
        let code = Code::StoreUnavailable;
        pair.say(server_frame::Kind::Error(wire::Error {
            code: code.number(),
            message: code.text().into(),
            client_msg_id: "a".into(),
            retry: true,
            retry_after_ms: 2000,
        }));
        let events = pair.events();
        let [Event::Postponed { code: 301, retry_in, .. }] = &events[..] else {
            panic!("{events:?}")
        };
        assert!(*retry_in >= Duration::from_secs(2) && *retry_in >= waited / 2, "{retry_in:?}");
        waited = *retry_in;
        pair.now += waited;
        pair.client.handle_timeout(pair.now);
    }
    assert!(waited >= Duration::from_secs(30));
    // It was stored at the first attempt.
    pair.sent();
    pair.say(server_frame::Kind::SendAck(wire::SendAck {
        client_msg_id: "a".into(),
        conversation: Bytes::copy_from_slice(conversation().as_bytes()),
        seq: 1,
        time_ms: 0,
        ..Default::default()
    }));
    assert!(matches!(pair.events()[..], [Event::Acked { .. }, Event::Message { .. }]));
    let sent = pair.sent();
    let [client_frame::Kind::Send(send)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((send.client_msg_id.as_str(), send.retry_after_seq), ("behind", None));
}

#[test]
fn heads_that_were_already_on_their_way_do_not_answer_behind() {
    let mut pair = Pair::new(Config::default(), Restored::default());
    pair.log_in(welcome());
    let Some(BulkAction::Open { id, .. }) = pair.client.poll_bulk(pair.now) else { panic!() };
    pair.say(server_frame::Kind::Behind(wire::Behind { heads: vec![] }));
    let page = wire::HeadsPage { heads: vec![], is_end: true };
    pair.client.handle_bulk(id, encode(server_frame::Kind::HeadsPage(page)), pair.now);
    assert_eq!(pair.client.poll_bulk(pair.now), Some(BulkAction::Stop { id }));
    assert!(matches!(pair.client.poll_bulk(pair.now), Some(BulkAction::Open { .. })), "again");
}

#[test]
fn a_gap_that_cannot_be_pulled_is_asked_for_later_and_later() {
    let mut pair = Pair::live();
    pair.say(server_frame::Kind::Push(wire::Push { messages: vec![message(2)] }));
    assert_eq!(pair.client.poll_bulk(pair.now), Some(BulkAction::Stop { id: 1 }));
    assert_eq!(pair.client.poll_bulk(pair.now), None, "it may close by itself");
    let mut waits = vec![];
    for _ in 0..4 {
        let since = pair.now;
        let id = loop {
            match pair.client.poll_bulk(pair.now) {
                Some(BulkAction::Open { id, .. }) => break id,
                Some(BulkAction::Stop { .. }) => {}
                None => pair.pass(Duration::from_millis(50)),
            }
        };
        waits.push((pair.now - since).as_millis());
        let error = wire::Error { code: 301, retry: true, ..Default::default() };
        pair.client.handle_bulk(id, encode(server_frame::Kind::Error(error)), pair.now);
    }
    assert_eq!(waits, [100, 500, 1000, 2000]);
}

/// A client that had everything up to 40, and hears of these heads.
fn after_retention(first_seq: Seq, head: Seq) -> Pair {
    let restored = Restored { epoch: EPOCH, positions: vec![(conversation(), 40)] };
    let mut pair = Pair::new(Config::default(), restored);
    pair.log_in(welcome());
    pair.events();
    pair.answer_heads(vec![wire::Head {
        conversation: Bytes::copy_from_slice(conversation().as_bytes()),
        seq: head,
        delivered: 40,
        first_seq,
        ..Default::default()
    }]);
    pair
}

#[test]
fn a_device_goes_on_where_retention_has_left_something() {
    let mut pair = after_retention(60, 61);
    let skipped = Event::Skipped { conversation: conversation(), from: 41, to: 59 };
    assert_eq!(pair.events(), [skipped]);
    let mut actions = std::iter::from_fn(|| pair.client.poll_bulk(pair.now));
    let opened = actions.find(|action| matches!(action, BulkAction::Open { .. }));
    let Some(BulkAction::Open { id, request }) = opened else { panic!("{opened:?}") };
    let mut decoder = Decoder::new();
    decoder.push(request);
    let request = decoder.poll::<wire::ClientFrame>(1 << 20).unwrap().unwrap();
    let Some(client_frame::Kind::PullRequest(request)) = request.kind else { panic!() };
    assert_eq!((request.ranges[0].from, request.ranges[0].to), (60, 61));
    // 60 expires before it is read.
    let page = wire::PullPage {
        conversation: Bytes::copy_from_slice(conversation().as_bytes()),
        messages: vec![message(61)],
        is_end: true,
        head: 61,
        first_seq: 61,
        ..Default::default()
    };
    pair.client.handle_bulk(id, encode(server_frame::Kind::PullPage(page)), pair.now);
    let events = pair.events();
    let [Event::Skipped { from: 60, to: 60, .. }, Event::Message { message, .. }] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(message.seq, 61);
    while pair.client.poll_bulk(pair.now).is_some() {}
    assert!(pair.client.is_synced());
}

#[test]
fn a_device_does_not_wait_for_a_log_that_is_gone_whole() {
    let mut pair = after_retention(62, 61);
    let skipped = Event::Skipped { conversation: conversation(), from: 41, to: 61 };
    assert_eq!(pair.events(), [skipped]);
    assert!(pair.client.poll_bulk(pair.now).is_none_or(|a| matches!(a, BulkAction::Stop { .. })));
    assert!(pair.client.is_synced());
    pair.client.handle_consumed(conversation(), 61, pair.now);
    // What is said next is the next.
    pair.say(server_frame::Kind::Push(wire::Push { messages: vec![message(62)] }));
    assert!(matches!(pair.events()[..], [Event::Message { .. }]));
}
