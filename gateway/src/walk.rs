//! A walk over the sessions, for operators: to look at them, to count them, to end them.
//!
//! Nothing about a session is kept for this. Whoever wants to know asks the shards, a stretch of the
//! table at a time, so that no turn of a shard is long however many sessions it has; between two
//! stretches the sessions have their turns. So a walk shows no single moment: a session that begins
//! or ends meanwhile may be in it or not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ipnet::IpNet;
use skein_protocol::server::Close;
use skein_protocol::{DeviceId, UserId};
use skein_transport::{ConnId, ConnStats};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use crate::hub::Hub;
use crate::mail::Mail;

/// Places of the table in one stretch: some 200 us of a shard's time if all are looked at.
const STRETCH: usize = 1024;

/// Places in one stretch of a walk that looks at few of them. Passing over one takes a nanosecond.
const SPARSE_STRETCH: usize = 65_536;

/// A shard must answer in this time: its turns take milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two tries to put a question into a full mailbox.
const RETRY: Duration = Duration::from_millis(2);

/// Which sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this user.
    pub user: Option<UserId>,
    /// Of devices of this name.
    pub device: Option<DeviceId>,
    /// From this network.
    pub network: Option<IpNet>,
    /// This one.
    pub conn: Option<ConnId>,
    /// Logged in, or not.
    pub logged_in: Option<bool>,
    /// Silent for this long.
    pub idle_over: Option<Duration>,
    /// Pushes to it are being left out.
    pub behind: Option<bool>,
}

/// What to do at each of them.
#[derive(Debug, Clone)]
pub enum Work {
    /// Nothing; they are counted.
    Count,
    /// Tell about it; about this many at most.
    Look(usize),
    /// One number of each.
    Measure(Measure),
    /// Sum up.
    Tally,
    /// End it.
    Close(Close),
    /// Write this frame to its live stream, if it reads in time.
    Say(Bytes),
    /// Tell it to go and come back elsewhere; only to those of one part, see [`part_of`].
    SendAway {
        /// Which part.
        part: u32,
        /// Of how many.
        parts: u32,
        /// It comes back after a random time of up to so many milliseconds.
        reconnect_spread_ms: u32,
    },
}

/// A number of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Bytes of datagrams received from it.
    BytesIn,
    /// Bytes of datagrams sent to it.
    BytesOut,
    /// Datagrams received from it.
    DatagramsIn,
    /// Datagrams sent to it.
    DatagramsOut,
    /// Packets to it that were lost.
    LostPackets,
    /// Bytes that wait for it.
    OutboxBytes,
}

impl Measure {
    pub(crate) fn of(self, stats: &ConnStats, outbox_bytes: usize) -> u64 {
        match self {
            Self::BytesIn => stats.bytes_received,
            Self::BytesOut => stats.bytes_sent,
            Self::DatagramsIn => stats.datagrams_received,
            Self::DatagramsOut => stats.datagrams_sent,
            Self::LostPackets => stats.lost_packets,
            Self::OutboxBytes => outbox_bytes as u64,
        }
    }
}

/// A session as it was when the walk came by.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its connection.
    pub conn: ConnId,
    /// Who logged in.
    pub who: Option<(UserId, DeviceId)>,
    /// Since when nothing was heard of it.
    pub idle: Duration,
    /// What QUIC knows.
    pub stats: ConnStats,
    /// Bytes that wait for it.
    pub outbox_bytes: usize,
    /// Pushes to it are being left out.
    pub behind: bool,
    /// Since when something has waited for room in the outbox.
    pub stuck: Option<Duration>,
    /// Open bulk streams.
    pub bulk_streams: usize,
    /// Its sends without an answer.
    pub unanswered: u32,
}

/// The sessions of a shard in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections without a login.
    pub greeting: u64,
    /// Sessions.
    pub logged_in: u64,
    /// Those to which pushes are being left out.
    pub behind: u64,
    /// Those for which something waits for room.
    pub stuck: u64,
    /// Open bulk streams.
    pub bulk_streams: u64,
    /// Sends without an answer.
    pub unanswered: u64,
    /// Bytes that wait for peers.
    pub outbox_bytes: u64,
    /// The longest silence, milliseconds.
    pub longest_idle_ms: u64,
}

impl Tally {
    /// Adds another stretch's.
    pub fn add(&mut self, other: &Self) {
        self.greeting += other.greeting;
        self.logged_in += other.logged_in;
        self.behind += other.behind;
        self.stuck += other.stuck;
        self.bulk_streams += other.bulk_streams;
        self.unanswered += other.unanswered;
        self.outbox_bytes += other.outbox_bytes;
        self.longest_idle_ms = self.longest_idle_ms.max(other.longest_idle_ms);
    }
}

/// What a stretch brought.
#[derive(Debug, Default)]
pub struct Step {
    /// Where to go on; `None`: that was the end of the shard's table.
    pub next: Option<usize>,
    /// Sessions that were meant, and worked on; not those that a notice passed over.
    pub matched: usize,
    /// For [`Work::Look`].
    pub seen: Vec<Seen>,
    /// For [`Work::Measure`].
    pub measured: Vec<(ConnId, u64)>,
    /// For [`Work::Tally`].
    pub tally: Tally,
}

/// One question to a shard.
#[derive(Debug)]
pub struct Walk {
    /// First place of the stretch.
    pub(crate) from: usize,
    /// Places.
    pub(crate) places: usize,
    pub(crate) which: Arc<Filter>,
    pub(crate) work: Work,
    pub(crate) answer: oneshot::Sender<Step>,
}

/// A shard did not answer: it stands still, or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shard {0} does not answer")]
pub struct Unanswered(pub usize);

/// To which of `parts` a place belongs. Places that lie beside each other come far apart, and any
/// number of first places are spread evenly (multiples of the golden ratio; Knuth, The Art of
/// Computer Programming, vol. 3, section 6.4).
pub fn part_of(place: usize, parts: u32) -> u32 {
    let turned = (place as u32).wrapping_mul(2_654_435_769);
    ((u64::from(turned) * u64::from(parts)) >> 32) as u32
}

impl Hub {
    /// One stretch of a shard's table.
    ///
    /// # Errors
    /// The shard does not answer.
    pub async fn step(
        &self,
        shard: usize,
        from: usize,
        which: &Arc<Filter>,
        work: &Work,
    ) -> Result<Step, Unanswered> {
        let places = match work {
            _ if which.conn.is_some() => 1,
            Work::SendAway { parts, .. } => SPARSE_STRETCH.min(STRETCH * *parts as usize),
            _ => STRETCH,
        };
        let Some(mailbox) = self.mailboxes().get(shard) else { return Err(Unanswered(shard)) };
        let until = Instant::now() + PATIENCE;
        let (answer, answered) = oneshot::channel();
        let (which, work) = (which.clone(), work.clone());
        let mut mail = Mail::Walk(Box::new(Walk { from, places, which, work, answer }));
        while let Err(full) = mailbox.send(mail) {
            if Instant::now() >= until {
                return Err(Unanswered(shard));
            }
            mail = full.0;
            sleep(RETRY).await;
        }
        match timeout_at(until, answered).await {
            Ok(Ok(step)) => Ok(step),
            _ => Err(Unanswered(shard)),
        }
    }

    /// All sessions that are meant, on all shards. Returns how many there were.
    ///
    /// # Errors
    /// A shard does not answer; others may have been worked on.
    pub async fn walk(
        &self,
        which: &Arc<Filter>,
        work: &Work,
        mut take: impl FnMut(Step),
    ) -> Result<usize, Unanswered> {
        let mut matched = 0;
        // Their connections are known: no need to look at everybody.
        if let Some(conns) = self.conns_of(which) {
            for conn in conns {
                let one = Arc::new(Filter { conn: Some(conn), ..Filter::clone(which) });
                let step = self.step(conn.shard(), conn.slot(), &one, work).await?;
                matched += step.matched;
                take(step);
            }
            return Ok(matched);
        }
        for shard in 0..self.mailboxes().len() {
            matched += self.walk_shard(shard, which, work, &mut take).await?;
        }
        Ok(matched)
    }

    /// All sessions of a shard that are meant.
    ///
    /// # Errors
    /// The shard does not answer.
    pub async fn walk_shard(
        &self,
        shard: usize,
        which: &Arc<Filter>,
        work: &Work,
        mut take: impl FnMut(Step),
    ) -> Result<usize, Unanswered> {
        let (mut matched, mut from) = (0, Some(0));
        while let Some(at) = from {
            let step = self.step(shard, at, which, work).await?;
            matched += step.matched;
            from = step.next;
            take(step);
        }
        Ok(matched)
    }

    /// The connections that can be meant, if they are few.
    pub(crate) fn conns_of(&self, which: &Filter) -> Option<Vec<ConnId>> {
        match (&which.conn, &which.user) {
            (Some(conn), _) => Some(vec![*conn]),
            (None, Some(user)) => Some(self.connections_of(user)),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_places_is_spread_evenly() {
        for parts in [1, 7, 100, 600] {
            for places in [3, 50, 1000, 40_000] {
                let mut found: Vec<u32> = (0..places).map(|place| part_of(place, parts)).collect();
                found.sort_unstable();
                assert!(found.iter().all(|part| *part < parts));
                // Nowhere much more than its share, and no long pause.
                let share = f64::from(parts) / places as f64;
                for (index, part) in found.iter().enumerate() {
                    let off = (f64::from(*part) - index as f64 * share).abs();
                    let slack = share * (2.0 + (places as f64).ln()) + 1.0;
                    assert!(off <= slack, "{places} in {parts}: {index} at {part}");
                }
            }
        }
    }
}
