//! What the service manager is told (systemd, sd_notify(3)); nothing where there is none.
//!
//! | When | What |
//! |---|---|
//! | clients are served | `READY=1` |
//! | a new configuration is being read | `RELOADING=1`, then `READY=1` |
//! | the stop has been asked for | `STOPPING=1`, and how long it may take |
//! | all shards answer, four times in each watchdog time | `WATCHDOG=1` |

use std::sync::Arc;
use std::time::Duration;

use crate::hub::Hub;
use crate::walk::{Filter, Work};

/// Beside the deadline of a stop: opening of files, the last turn of the shards.
const GRACE: Duration = Duration::from_secs(5);

/// Clients are served.
pub(crate) fn ready() {
    tell(&[State::Ready]);
}

/// A new configuration is being read; [`ready`] follows.
pub(crate) fn reloading() {
    tell(&[State::Reloading]);
}

/// The stop has been asked for; it takes this long at the most.
pub(crate) fn stopping(deadline: Duration) {
    tell(&[State::Stopping, State::MayTake(deadline + GRACE)]);
}

/// Says again and again that all is well, as long as it is; for ever. Ends at once if nobody wants
/// to know.
pub(crate) async fn watchdog(hub: Arc<Hub>) {
    let Some(within) = wanted() else { return };
    keep_alive(within, || is_well(&hub), || tell(&[State::Alive])).await;
}

/// Tells it whenever all is well, and so often that one question at a bad moment does not end the
/// process.
async fn keep_alive<F: Future<Output = bool>>(
    within: Duration,
    mut is_well: impl FnMut() -> F,
    mut tell: impl FnMut(),
) {
    let mut tick = tokio::time::interval(within / 4);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if is_well().await {
            tell();
        }
    }
}

async fn is_well(hub: &Hub) -> bool {
    match stands_still(hub).await {
        None => true,
        // Shards end on purpose then; the stop has a deadline of its own.
        Some(_) if hub.is_stopping() => true,
        Some(shard) => {
            tracing::error!(shard, "a shard does not answer; no watchdog for this");
            false
        }
    }
}

/// The first shard that does not answer.
async fn stands_still(hub: &Hub) -> Option<usize> {
    let nobody = Arc::new(Filter::default());
    for shard in 0..hub.mailboxes().len() {
        // A stretch behind the end of any table: an answer, and no look at anything.
        if hub.step(shard, usize::MAX, &nobody, &Work::Count).await.is_err() {
            return Some(shard);
        }
    }
    None
}

enum State {
    Ready,
    Reloading,
    Stopping,
    MayTake(Duration),
    Alive,
}

#[cfg(unix)]
fn wanted() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|within| !within.is_zero())
}

#[cfg(unix)]
fn tell(states: &[State]) {
    use sd_notify::NotifyState;
    let mut all = Vec::new();
    for state in states {
        match state {
            State::Ready => all.push(NotifyState::Ready),
            State::Reloading => {
                all.push(NotifyState::Reloading);
                // Type=notify-reload goes by it.
                all.extend(NotifyState::monotonic_usec_now().ok());
            }
            State::Stopping => all.push(NotifyState::Stopping),
            State::MayTake(time) => {
                let micros = time.as_micros().try_into().unwrap_or(u32::MAX);
                all.push(NotifyState::ExtendTimeoutUsec(micros));
            }
            State::Alive => all.push(NotifyState::Watchdog),
        }
    }
    if let Err(error) = sd_notify::notify(&all) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

#[cfg(not(unix))]
fn wanted() -> Option<Duration> {
    None
}

#[cfg(not(unix))]
fn tell(_: &[State]) {}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::Instant;

    use super::*;

    /// Times of the messages of a gateway that answers all questions but these, each of which it lets
    /// wait for two seconds.
    async fn told(within: Duration, unanswered: &[u32]) -> Vec<Duration> {
        let (begun, asked, told) = (Instant::now(), Cell::new(0), RefCell::new(Vec::new()));
        let is_well = || async {
            let number = asked.replace(asked.get() + 1);
            if unanswered.contains(&number) {
                tokio::time::sleep(Duration::from_secs(2)).await;
                return false;
            }
            true
        };
        let tell = || told.borrow_mut().push(begun.elapsed());
        let _ = tokio::time::timeout(4 * within, keep_alive(within, is_well, tell)).await;
        told.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn one_question_without_an_answer_does_not_end_the_process() {
        for within in [8, 30, 120].map(Duration::from_secs) {
            let gaps = |told: Vec<Duration>| told.windows(2).map(|two| two[1] - two[0]).max();
            assert!(gaps(told(within, &[2]).await).unwrap() < within, "{within:?}");
            let still = told(within, &(2..1000).collect::<Vec<_>>()).await;
            assert_eq!(still.len(), 2, "nobody vouches for a shard that stands still");
        }
    }
}
