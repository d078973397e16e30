//! Every limit by a clock that the test moves.

use std::time::Instant;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> LimitsConfig {
    LimitsConfig { exempt: Vec::new(), ..LimitsConfig::default() }
}

fn throttle(limits: &LimitsConfig) -> (Arc<Throttle>, LimitClock) {
    let clock = LimitClock::by_hand();
    (Throttle::new(limits, clock.clone()), clock)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn attempt(address: &str, is_proven: bool) -> Attempt {
    Attempt { address: ip(address), is_proven, now: Instant::now() }
}

#[test]
fn codes_and_labels_are_one_for_each_limit() {
    let mut labels: Vec<_> = Limit::ALL.iter().map(|limit| limit.label()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), Limit::ALL.len());
    for limit in Limit::ALL {
        assert!(limit.label().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        let retries = |code: Code| matches!(code.retry(), skein_protocol::codes::Retry::After(_));
        assert!(limit.code().is_none_or(retries), "{limit:?} says when to try again");
    }
    let failed = skein_protocol::codes::Retry::After(backoff::FIRST);
    assert_eq!(Code::TooManyFailedLogins.retry(), failed);
}

#[test]
fn a_bucket_gives_its_burst_and_then_its_rate() {
    let rate = Some(Rate::per_second(2, 10));
    let (throttle, clock) = throttle(&LimitsConfig { messages_per_user: rate, ..limits() });
    let (eve, bob) = (user("eve"), user("bob"));
    let burst = |user: &UserId| (0..20).filter(|_| throttle.message(user, 1).is_ok()).count();
    assert_eq!(burst(&eve), 10);
    let early = throttle.message(&eve, 1).unwrap_err();
    assert_eq!(early.code, Code::UserMessageRate);
    assert_eq!(early.retry_after, SECOND / 2, "when the next one is there");
    clock.advance(early.retry_after - Duration::from_nanos(1));
    assert!(throttle.message(&eve, 1).is_err());
    clock.advance(Duration::from_nanos(1));
    assert_eq!(burst(&eve), 1);
    assert_eq!(burst(&bob), 10, "his own");
    clock.advance(100 * SECOND);
    assert_eq!(burst(&eve), 10, "and no more than that");
    assert_eq!(throttle.hits().of(Limit::UserMessages), 10 + 2 + 19 + 10 + 10);
    assert_eq!(throttle.hits().of(Limit::UserBytes), 0);
}

#[test]
fn bytes_are_counted_and_what_is_too_large_for_the_bucket_takes_all_of_it() {
    let rate = Some(Rate::per_second(1000, 5000));
    let (throttle, clock) = throttle(&LimitsConfig { message_bytes_per_user: rate, ..limits() });
    let eve = user("eve");
    assert!(throttle.message(&eve, 4000).is_ok());
    let early = throttle.message(&eve, 3000).unwrap_err();
    assert_eq!((early.code, early.retry_after), (Code::UserByteRate, 2 * SECOND));
    assert!(throttle.message(&eve, 1000).is_ok(), "as much as is there");
    assert!(throttle.message(&eve, 0).is_err(), "an empty one counts as one byte");
    clock.advance(5 * SECOND);
    assert!(throttle.message(&eve, 1 << 30).is_ok());
    let early = throttle.message(&eve, 1 << 30).unwrap_err();
    assert_eq!(early.retry_after, 5 * SECOND);
}

#[test]
fn who_says_too_much_is_closed() {
    let rate = Some(Rate::per_second(10, 100));
    let (throttle, clock) = throttle(&LimitsConfig { frames_per_user: rate, ..limits() });
    let eve = user("eve");
    assert_eq!((throttle.said(&eve, 60), throttle.said(&eve, 40)), (Ok(()), Ok(())));
    assert_eq!(throttle.said(&eve, 1).unwrap_err().code, Code::TooManyFrames);
    clock.advance(SECOND);
    assert_eq!(throttle.said(&eve, 10), Ok(()));
}

#[test]
fn a_conversation_is_limited_whoever_writes() {
    let rate = Some(Rate::per_second(1, 3));
    let config = LimitsConfig {
        messages_per_conversation: rate,
        message_bytes_per_conversation: Some(Rate::per_second(1, 100)),
        ..limits()
    };
    let (throttle, clock) = throttle(&config);
    let eve = user("eve");
    let conversation = |n: &str| ConversationId::one_to_one(&user("eve"), &user(n));
    let (one, other) = (conversation("bob"), conversation("carol"));
    let codes: Vec<_> =
        (0..4).map(|_| throttle.conversation_message(&eve, one, 10).map_err(|e| e.code)).collect();
    let refused = Err(Code::ConversationMessageRate);
    assert_eq!(codes, [Ok(()), Ok(()), Ok(()), refused]);
    assert!(throttle.conversation_message(&eve, other, 10).is_ok());
    clock.advance(3 * SECOND);
    let early = throttle.conversation_message(&eve, one, 100).unwrap_err();
    assert_eq!((early.code, early.retry_after), (Code::ConversationByteRate, 27 * SECOND));
}

#[test]
fn handshakes_prove_their_address_and_are_then_refused() {
    let rate = Some(Rate::per_second(1, 4));
    let (throttle, clock) = throttle(&LimitsConfig { handshakes_per_address: rate, ..limits() });
    let judge = |address, is_proven| throttle.judge(&attempt(address, is_proven));
    let verdicts =
        |is_proven| -> Vec<_> { (0..6).map(|_| judge("192.0.2.1", is_proven)).collect() };
    use Verdict::{Admit, Prove, Refuse};
    assert_eq!(verdicts(false), [Admit, Admit, Admit, Admit, Prove, Prove]);
    // What anybody can send in its name does not keep it out.
    assert_eq!(verdicts(true), [Admit, Admit, Admit, Admit, Refuse, Refuse]);
    assert_eq!(judge("192.0.2.2", false), Admit);
    clock.advance(SECOND);
    assert_eq!((judge("192.0.2.1", true), judge("192.0.2.1", true)), (Admit, Refuse));
    let hits = throttle.hits();
    assert_eq!((hits.of(Limit::UnprovenHandshakes), hits.of(Limit::Handshakes)), (2, 3));
}

#[test]
fn networks_are_blocked_or_exempt() {
    let nets = |text: &str| vec![text.parse().unwrap()];
    let config = LimitsConfig {
        exempt: nets("10.0.0.0/8"),
        blocked: nets("10.6.6.0/24"),
        handshakes_per_address: Some(Rate::per_second(1, 1)),
        connections_per_address: Some(1),
        ..LimitsConfig::default()
    };
    let (throttle, _) = throttle(&config);
    let judge = |address| throttle.judge(&attempt(address, true));
    for _ in 0..3 {
        assert_eq!(judge("10.1.1.1"), Verdict::Admit);
        assert_eq!(judge("10.6.6.6"), Verdict::Ignore, "although it is exempt");
        assert_eq!(throttle.connected(ip("10.1.1.1")), Ok(None));
    }
    assert_eq!(throttle.hits().of(Limit::Blocked), 3);
    assert_eq!((judge("192.0.2.1"), judge("192.0.2.1")), (Verdict::Admit, Verdict::Refuse));
    throttle.change(&config);
    assert_eq!(judge("192.0.2.1"), Verdict::Refuse, "nothing has changed");
    throttle.change(&LimitsConfig { blocked: Vec::new(), ..config });
    assert_eq!(judge("192.0.2.1"), Verdict::Refuse, "its bucket is as empty as before");
    assert_eq!(judge("10.6.6.6"), Verdict::Admit);
}

/// An address that is exempt does not exempt its users, and a user who is exempt not his address.
#[test]
fn users_are_exempt_by_name_and_as_long_as_they_are_named() {
    let once = Some(Rate::per_second(1, 1));
    let strict = LimitsConfig {
        exempt: vec!["10.0.0.0/8".parse().unwrap()],
        exempt_users: vec![user("news")],
        connections_per_address: Some(1),
        frames_per_user: once,
        messages_per_user: once,
        messages_per_conversation: once,
        syncs_per_user: once,
        ..LimitsConfig::default()
    };
    let (throttle, _) = throttle(&strict);
    let (news, eve) = (user("news"), user("eve"));
    let id = ConversationId::one_to_one(&news, &eve);
    let all = |user: &UserId| {
        [
            throttle.said(user, 1).is_ok(),
            throttle.message(user, 1).is_ok(),
            throttle.conversation_message(user, id, 1).is_ok(),
            throttle.sync(user).is_ok(),
        ]
    };
    assert!((0..100).all(|_| all(&news) == [true; 4]));
    assert_eq!(all(&eve), [true; 4], "nothing of it counted for the conversation");
    assert_eq!(all(&eve), [false; 4], "whatever address that is at");
    assert_eq!(throttle.connected(ip("10.1.1.1")), Ok(None));
    let connect = || throttle.connected(ip("192.0.2.1"));
    assert!(connect().is_ok() && connect().is_err(), "whoever is behind it");
    throttle.change(&LimitsConfig { exempt_users: Vec::new(), ..strict });
    assert_eq!(all(&news), [true, true, false, true], "the conversation's bucket is the same");
    assert_eq!(all(&news), [false; 4]);
}

/// Whoever has emptied a bucket gets no new one because something else is set.
#[test]
fn a_change_fills_the_buckets_of_what_it_changes_and_no_others() {
    let rate = |amount| Some(Rate::per_second(amount, 1));
    let before = LimitsConfig { messages_per_user: rate(1), syncs_per_user: rate(1), ..limits() };
    let (throttle, clock) = throttle(&before);
    let eve = user("eve");
    let both = || (throttle.message(&eve, 1).is_ok(), throttle.sync(&eve).is_ok());
    assert_eq!((both(), both()), ((true, true), (false, false)));
    let faster = LimitsConfig { messages_per_user: rate(2), ..before };
    throttle.change(&faster);
    assert_eq!((both(), both()), ((true, false), (false, false)));
    let off = LimitsConfig { messages_per_user: None, ..faster.clone() };
    throttle.change(&off);
    assert_eq!((both(), both()), ((true, false), (true, false)));
    throttle.change(&faster);
    assert_eq!((both(), both()), ((true, false), (false, false)));
    clock.advance(SECOND);
    assert_eq!(both(), (true, true));
}

#[test]
fn connections_of_an_address_are_counted_in_and_out() {
    let (throttle, _) = throttle(&LimitsConfig { connections_per_address: Some(2), ..limits() });
    let connect = || throttle.connected(ip("2001:db8::1"));
    let first = connect().unwrap().unwrap();
    let second = throttle.connected(ip("2001:db8::2")).unwrap().unwrap();
    assert_eq!(first, second, "a /64 is one");
    assert_eq!(connect().unwrap_err().code, Code::TooManyConnections);
    assert!(throttle.connected(ip("2001:db8:0:1::1")).is_ok());
    throttle.left(first);
    assert!(connect().is_ok() && connect().is_err());
}

#[test]
fn bytes_before_the_login_are_limited() {
    let rate = Some(Rate::per_second(100, 1000));
    let (throttle, clock) = throttle(&LimitsConfig { login_bytes_per_address: rate, ..limits() });
    let key = throttle.connected(ip("192.0.2.1")).unwrap().unwrap();
    assert!(throttle.before_login(key, 900).is_ok());
    let close = throttle.before_login(key, 200).unwrap_err();
    assert_eq!(close.code, Code::TooManyLoginBytes);
    clock.advance(SECOND);
    assert!(throttle.before_login(key, 200).is_ok());
}

#[test]
fn who_fails_too_often_waits() {
    let rate = Some(Rate::per_minute(6, 3));
    let (throttle, clock) = throttle(&LimitsConfig { failed_logins_per_address: rate, ..limits() });
    let key = throttle.connected(ip("192.0.2.1")).unwrap().unwrap();
    for _ in 0..100 {
        throttle.login_failed(key, Code::TokenExpired);
    }
    for _ in 0..3 {
        throttle.login_failed(key, Code::BadToken);
        assert!(throttle.may_log_in(key).is_ok());
    }
    throttle.login_failed(key, Code::BadToken);
    let close = throttle.may_log_in(key).unwrap_err();
    assert_eq!((close.code, close.retry_after), (Code::TooManyFailedLogins, Some(backoff::FIRST)));
    let other = throttle.connected(ip("192.0.2.2")).unwrap().unwrap();
    assert!(throttle.may_log_in(other).is_ok());
    clock.advance(backoff::FIRST);
    assert!(throttle.may_log_in(key).is_ok());
    throttle.login_failed(key, Code::DeviceMismatch);
    let close = throttle.may_log_in(key).unwrap_err();
    assert_eq!(close.retry_after, Some(2 * backoff::FIRST), "twice as long");
    clock.advance(backoff::FIRST);
    let close = throttle.may_log_in(key).unwrap_err();
    assert_eq!(close.retry_after, Some(backoff::FIRST), "what is left of it");
    clock.advance(backoff::FIRST);
    assert!(throttle.may_log_in(key).is_ok());
}

/// As many keys as fit, then a hundred thousand more: nobody who means well is refused, and the
/// table does not grow.
#[test]
fn a_table_is_bounded_and_full_of_abusers_lets_others_through() {
    let rate = Some(Rate::per_second(1, 1000));
    let (throttle, clock) = throttle(&LimitsConfig { syncs_per_user: rate, ..limits() });
    let sync = |n: usize| throttle.sync(&user(&format!("user-{n}")));
    let count = 2 * table::MAX_BUCKETS;
    assert!((0..count).all(|n| sync(n).is_ok()));
    let untracked = throttle.untracked();
    assert!(untracked >= table::MAX_BUCKETS as u64, "{untracked}");
    // A second later all of them are full and make room.
    clock.advance(2 * SECOND);
    assert!((count..count + 1000).all(|n| sync(n).is_ok()));
    assert_eq!(throttle.untracked(), untracked);
    let refused = (0..1001).filter(|_| sync(count).is_err()).count();
    assert_eq!(refused, 2);
}

#[test]
fn off_is_off() {
    let throttle = Throttle::off();
    for address in ["192.0.2.1", "2001:db8::1"] {
        assert_eq!(throttle.connected(ip(address)), Ok(None));
        assert_eq!(throttle.judge(&attempt(address, false)), Verdict::Admit);
    }
    let eve = user("eve");
    let id = ConversationId::one_to_one(&eve, &user("b"));
    assert!((0..100_000).all(|_| throttle.message(&eve, 1 << 20).is_ok()));
    assert!((0..1000).all(|_| throttle.said(&eve, 1000).is_ok() && throttle.sync(&eve).is_ok()));
    assert!((0..100_000).all(|_| throttle.conversation_message(&eve, id, 1 << 20).is_ok()));
}
