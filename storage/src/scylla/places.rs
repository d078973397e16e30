//! Places of appends: how many of them the cluster is asked to carry out at once.
//!
//! An append holds a place while it asks the cluster, and none during the pauses of one whose
//! outcome is not known: those whose replicas are down do not stop the others. Those that ask again
//! have half of the places at the most, or many of them would be ahead of all others each time.
//! How many appends there can be without an outcome the caller bounds, by what it submits.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout_at};

pub(super) struct Places {
    count: usize,
    all: Semaphore,
    /// Those that appends may have that ask again.
    again: Semaphore,
}

/// One of them, or the right to another one. Whoever drops it gives it back.
pub(super) struct Place<'a> {
    places: &'a Places,
    held: Option<(SemaphorePermit<'a>, Option<SemaphorePermit<'a>>)>,
}

impl Places {
    /// `count` is 1 at least.
    pub(super) fn new(count: usize) -> Self {
        let (all, again) = (Semaphore::new(count), Semaphore::new((count / 2).max(1)));
        Self { count, all, again }
    }

    pub(super) fn in_use(&self) -> usize {
        self.count - self.all.available_permits()
    }

    /// For an append that has not asked yet; `None` if there is none before `deadline`.
    pub(super) async fn take(&self, deadline: Instant) -> Option<Place<'_>> {
        let place = match self.all.try_acquire() {
            Ok(place) => place,
            Err(_) => timeout_at(deadline, self.all.acquire()).await.ok()?.ok()?,
        };
        Some(Place { places: self, held: Some((place, None)) })
    }
}

impl Place<'_> {
    /// Gives it back for so long, and waits until there is one again.
    pub(super) async fn leave_for(&mut self, pause: Duration) {
        self.held = None;
        sleep(pause).await;
        // Neither is ever closed.
        let Ok(again) = self.places.again.acquire().await else { return };
        let Ok(place) = self.places.all.acquire().await else { return };
        self.held = Some((place, Some(again)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    const REQUEST: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(50);

    /// So many appends ask again and again and never hear what became of them.
    async fn doubts(places: &Arc<Places>, count: usize) -> Arc<AtomicUsize> {
        let requests = Arc::<AtomicUsize>::default();
        for _ in 0..count {
            let (places, requests) = (places.clone(), requests.clone());
            tokio::spawn(async move {
                let far = Instant::now() + Duration::from_secs(3600);
                let mut place = places.take(far).await.unwrap();
                loop {
                    requests.fetch_add(1, SeqCst);
                    sleep(REQUEST).await;
                    place.leave_for(PAUSE).await;
                    assert!(place.held.is_some());
                }
            });
        }
        // All of them have asked once.
        sleep(REQUEST * 40).await;
        requests
    }

    #[tokio::test(start_paused = true)]
    async fn appends_in_doubt_leave_places_to_others() {
        let places = Arc::new(Places::new(8));
        let requests = doubts(&places, 100).await;
        assert!(places.in_use() <= 4);
        let before = requests.load(SeqCst);
        for _ in 0..100 {
            let others: Vec<_> = (0..4).map(|_| places.take(Instant::now())).collect();
            let others = futures_util::future::join_all(others).await;
            assert!(others.iter().all(Option::is_some), "{} in use", places.in_use());
            assert!(places.in_use() <= 8);
            sleep(REQUEST / 10).await;
        }
        let asked = requests.load(SeqCst) - before;
        assert!(asked >= 30, "appends in doubt go on: {asked}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_dropped_in_a_pause_is_gone() {
        let places = Places::new(1);
        let mut place = places.take(Instant::now()).await.unwrap();
        assert!(places.take(Instant::now() + PAUSE).await.is_none());
        // Cut off in the pause, and while it waits for a place.
        for held in [false, true] {
            let cut = tokio::time::timeout(PAUSE / 2, place.leave_for(PAUSE)).await;
            assert!(cut.is_err());
            assert_eq!(places.in_use(), 0);
            let other = if held { places.take(Instant::now()).await } else { None };
            let waited = tokio::time::timeout(PAUSE * 2, place.leave_for(PAUSE)).await;
            assert_eq!(waited.is_err(), held);
            drop(other);
            assert_eq!(places.in_use(), usize::from(!held));
        }
        drop(place);
        assert_eq!((places.in_use(), places.again.available_permits()), (0, 1));
    }
}
