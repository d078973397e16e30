//! Being heard in time, and noticing that nobody answers.
//!
//! The gateway advises an interval and counts every frame as life. So a ping goes out only when
//! nothing else did, a margin before the interval is over: two round trips, at least a tenth of
//! it. Whatever is heard after a ping answers it; if nothing is, the connection is dead.
//!
//! Some networks forget a quiet flow sooner than the gateway knows. A connection that died while
//! it was quiet shortens the interval by a quarter, pings that were answered lengthen it again.

use std::time::{Duration, Instant};

use crate::limits::DEFAULT_HEARTBEAT_INTERVAL;

/// Shortest interval that a bad network can talk us down to: three packets a minute are still
/// cheap, and shorter mappings are not seen in the field.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// Answered pings in a row after which a longer interval is tried.
const GOOD_PINGS: u32 = 8;

#[derive(Debug)]
pub(super) struct Heartbeat {
    advised: Duration,
    /// The interval that this network is trusted with; survives reconnects.
    trusted: Duration,
    good: u32,
    /// Smoothed round trip, 1/8 of each new sample as in RFC 9002 section 5.3.
    round_trip: Option<Duration>,
    last_sent: Instant,
    /// Since when an answer is waited for and nothing at all was heard.
    silent_since: Instant,
    /// Nonce of the ping that waits for its pong, and when it was asked for.
    ping: Option<(u64, Instant)>,
    /// Whether the ping that waits was written already.
    written: bool,
    /// Nothing was heard since the ping.
    unanswered: bool,
    /// The last ping of the gateway that waits for our pong. Only the last: a pong says "alive",
    /// and one that was asked twice may say it once.
    pong: Option<u64>,
    nonce: u64,
}

impl Heartbeat {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            advised: DEFAULT_HEARTBEAT_INTERVAL,
            trusted: Duration::MAX,
            good: 0,
            round_trip: None,
            last_sent: now,
            silent_since: now,
            ping: None,
            written: false,
            unanswered: false,
            pong: None,
            nonce: 0,
        }
    }

    /// A new connection begins.
    pub(super) fn reset(&mut self, now: Instant) {
        self.last_sent = now;
        self.silent_since = now;
        self.ping = None;
        self.unanswered = false;
        self.pong = None;
    }

    pub(super) fn advise(&mut self, interval: Duration, round_trip: Duration) {
        self.advised = interval;
        self.round_trip.get_or_insert(round_trip);
    }

    /// Say something at least this often.
    fn interval(&self) -> Duration {
        let interval = self.advised.min(self.trusted);
        let margin = (self.round_trip.unwrap_or_default() * 2).max(interval / 10);
        interval - margin.min(interval / 2)
    }

    pub(super) fn ping_timeout(&self, least: Duration) -> Duration {
        (self.round_trip.unwrap_or_default() * 4).max(least)
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.silent_since = now;
        self.unanswered = false;
    }

    /// An answer is waited for from now on, where none was waited for before.
    pub(super) fn expect_answer(&mut self, now: Instant) {
        self.silent_since = self.silent_since.max(now);
    }

    pub(super) fn silent_since(&self) -> Instant {
        self.silent_since
    }

    pub(super) fn handle_ping(&mut self, nonce: u64) {
        self.pong = Some(nonce);
    }

    pub(super) fn handle_pong(&mut self, nonce: u64, now: Instant) {
        let Some((asked, at)) = self.ping else { return };
        if asked != nonce || !self.written {
            return;
        }
        self.ping = None;
        let sample = now.saturating_duration_since(at);
        self.round_trip = Some(match self.round_trip {
            None => sample,
            Some(smoothed) => (smoothed * 7 + sample) / 8,
        });
        self.good += 1;
        if self.good >= GOOD_PINGS {
            self.good = 0;
            self.trusted = self.trusted.saturating_add(self.trusted / 8);
        }
    }

    /// A ping was never answered. `quiet`: the connection was idle before it.
    pub(super) fn died(&mut self, quiet: bool) {
        self.good = 0;
        if quiet {
            let used = self.advised.min(self.trusted);
            self.trusted = (used / 4 * 3).max(MIN_INTERVAL);
        }
    }

    /// Asks for a ping now, unless one waits for its answer.
    pub(super) fn probe(&mut self, now: Instant) {
        if self.unanswered {
            return;
        }
        self.nonce += 1;
        self.ping = Some((self.nonce, now));
        self.written = false;
        self.unanswered = true;
    }

    /// Nonce of a ping that is to be written.
    pub(super) fn take_ping(&mut self) -> Option<u64> {
        let (nonce, _) = self.ping.filter(|_| !self.written)?;
        self.written = true;
        Some(nonce)
    }

    /// Nonce of a pong that is to be written.
    pub(super) fn take_pong(&mut self) -> Option<u64> {
        self.pong.take()
    }

    /// When to ping for lack of anything else to say.
    pub(super) fn ping_due(&self) -> Instant {
        self.last_sent + self.interval()
    }

    /// When the connection counts as dead, if nothing is heard until then.
    pub(super) fn dead_at(&self, least: Duration) -> Option<Instant> {
        let (_, at) = self.ping.filter(|_| self.unanswered)?;
        Some(at + self.ping_timeout(least))
    }

    /// Nobody was listening to the connection, so silence proves nothing: the ping counts anew.
    pub(super) fn excuse(&mut self, now: Instant) {
        if let Some((_, at)) = &mut self.ping {
            *at = now;
        }
    }
}
