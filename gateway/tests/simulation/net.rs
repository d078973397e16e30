//! The network: datagrams that arrive late, twice, in another order or never.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::random::Random;

/// What happens to datagrams; probabilities in percent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    /// Up to so many milliseconds are added to the delay, which also reorders.
    pub(crate) jitter: u64,
    /// Datagrams that are held back for up to two seconds.
    pub(crate) held: u64,
}

impl Weather {
    /// Draws one: fair about as often as bad.
    pub(crate) fn any(random: &mut Random) -> Self {
        match random.below(5) {
            0 | 1 => Self::default(),
            2 => Self { loss: 5, jitter: 20, ..Self::default() },
            3 => Self { duplication: 30, jitter: 60, held: 2, ..Self::default() },
            _ => Self { loss: 20, duplication: 10, jitter: 120, held: 3 },
        }
    }
}

/// Least delay of every datagram.
const DELAY: Duration = Duration::from_millis(10);

pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) data: Vec<u8>,
}

pub(crate) struct Net {
    pub(crate) weather: Weather,
    random: Random,
    /// By arrival; the number keeps equal times in order.
    wire: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
}

impl Net {
    pub(crate) fn new(random: Random) -> Self {
        Self { weather: Weather::default(), random, wire: BTreeMap::new(), sent: 0 }
    }

    pub(crate) fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, data: Vec<u8>) {
        let Weather { loss, duplication, jitter, held } = self.weather;
        if self.random.chance(loss) {
            return;
        }
        let copies = 1 + usize::from(self.random.chance(duplication));
        for _ in 0..copies {
            let mut at = now + DELAY + self.random.millis(jitter);
            if self.random.chance(held) {
                at += self.random.millis(2000);
            }
            self.sent += 1;
            self.wire.insert((at, self.sent), Datagram { from, to, data: data.clone() });
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.wire.keys().next().map(|&(at, _)| at)
    }

    pub(crate) fn arrived(&mut self, now: Instant) -> Option<Datagram> {
        let first = self.wire.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(first.remove())
    }
}
