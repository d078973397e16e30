//! Tells the operator once that the cluster does not answer, and once that it does again.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::StoreError;

/// Failures in a row, and time without a success, after which the cluster counts as silent. One
/// request that fails among others that do not is an everyday matter.
const FAILURES: u32 = 3;
const SILENCE: Duration = Duration::from_secs(3);

/// What of the cluster is watched.
#[derive(Debug, Clone, Copy)]
pub(super) enum Watched {
    Reads,
    Writes,
}

/// One kind of requests, and what was said of it last.
pub(super) struct Trouble {
    watched: Watched,
    begun: Instant,
    /// When one succeeded last, milliseconds since `begun`.
    success: AtomicU64,
    /// Those that failed since.
    failures: AtomicU32,
    /// Said that it is silent, and not yet that it is back.
    told: AtomicBool,
}

impl Trouble {
    pub(super) fn new(watched: Watched) -> Self {
        let (success, failures, told) = Default::default();
        Self { watched, begun: Instant::now(), success, failures, told }
    }

    /// Takes the outcome of a request.
    pub(super) fn saw<T>(&self, outcome: &Result<T, StoreError>) {
        match outcome {
            Ok(_) => self.succeeded(),
            Err(StoreError::Unavailable(reason)) => self.failed(reason),
            // Of something else.
            Err(StoreError::Stopped(_) | StoreError::Damaged(_)) => {}
        }
    }

    /// An attempt has no known outcome, or reached no node.
    pub(super) fn failed(&self, reason: &str) {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        let silent = self.now().saturating_sub(self.success.load(Relaxed));
        if failures < FAILURES || u128::from(silent) < SILENCE.as_millis() {
            return;
        }
        if self.told.swap(true, Relaxed) {
            return;
        }
        match self.watched {
            Watched::Reads => tracing::warn!(
                reason,
                "the store does not answer: no read succeeds; clients are told to try later"
            ),
            Watched::Writes => tracing::warn!(
                reason,
                "the store does not answer: no write succeeds; clients are told to try later"
            ),
        }
    }

    /// A request was answered.
    pub(super) fn succeeded(&self) {
        self.success.store(self.now(), Relaxed);
        if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
        }
        if self.told.load(Relaxed) && self.told.swap(false, Relaxed) {
            match self.watched {
                Watched::Reads => tracing::info!("the store answers again: reads succeed"),
                Watched::Writes => tracing::info!("the store answers again: writes succeed"),
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_operator_is_told_once() {
        for watched in [Watched::Reads, Watched::Writes] {
            let trouble = Trouble::new(watched);
            let fails = || trouble.saw(&Err::<(), _>(StoreError::Unavailable("test".into())));
            let told = || trouble.told.load(Relaxed);
            // Some of many fail.
            for _ in 0..100 {
                tokio::time::advance(Duration::from_secs(1)).await;
                (0..10).for_each(|_| fails());
                trouble.saw(&Ok(()));
                assert!(!told());
            }
            // After long quiet one fails, and another.
            tokio::time::advance(Duration::from_secs(1000)).await;
            (0..FAILURES - 1).for_each(|_| fails());
            assert!(!told());
            trouble.saw(&Ok(()));
            // All fail.
            (0..100).for_each(|_| fails());
            assert!(!told(), "a moment is no silence");
            tokio::time::advance(SILENCE).await;
            fails();
            assert!(told());
            trouble.saw(&Err::<(), _>(StoreError::Damaged("test".into())));
            assert!(told(), "that is no answer");
            trouble.saw(&Ok(()));
            assert!(!told());
        }
    }
}
