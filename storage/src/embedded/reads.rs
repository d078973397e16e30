//! The threads that read.
//!
//! A read of warm data takes microseconds, a cold one waits for the disk, and nobody can tell
//! beforehand which it will be. So no read runs on the caller's thread, where it could hold up
//! thousands of sessions; the way through a thread costs some ten microseconds and reads are not
//! on the path of a live message.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::engine::Engine;
use super::stats::{Counters, add};
use crate::StoreError;

type Job = Box<dyn FnOnce(&Engine) + Send>;

/// The way to the threads; they end when it is closed.
pub(super) struct Reads {
    jobs: RwLock<Option<SyncSender<Job>>>,
    counters: Arc<Counters>,
}

impl Reads {
    /// Starts `threads` threads for at most `waiting` waiting reads.
    pub(super) fn start(
        engine: &Engine,
        threads: usize,
        waiting: usize,
        counters: Arc<Counters>,
    ) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let (jobs, queue) = sync_channel::<Job>(waiting);
        let queue = Arc::new(Mutex::new(queue));
        let handles = (0..threads)
            .map(|n| {
                let (queue, engine) = (queue.clone(), engine.clone());
                std::thread::Builder::new()
                    .name(format!("store-read-{n}"))
                    .spawn(move || work(&queue, &engine))
            })
            .collect::<Result<_, _>>()?;
        Ok((Self { jobs: RwLock::new(Some(jobs)), counters }, handles))
    }

    /// Runs `read` on one of the threads.
    pub(super) fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |engine| {
            // Nobody waits any more when the caller's future was dropped.
            if !reply.is_closed() {
                let _ = reply.send(read(engine));
            }
        });
        let queued = match &*self.jobs.read().unwrap_or_else(PoisonError::into_inner) {
            None => Err(StoreError::Stopped("it was closed".into())),
            Some(jobs) => jobs.try_send(job).map_err(|error| match error {
                TrySendError::Full(_) => {
                    add(&self.counters.refused_reads, 1);
                    StoreError::Unavailable("too many reads are waiting".into())
                }
                TrySendError::Disconnected(_) => StoreError::Stopped("its readers ended".into()),
            }),
        };
        if queued.is_ok() {
            add(&self.counters.reads, 1);
        }
        Box::pin(async move {
            queued?;
            let gone = || StoreError::Unavailable("the read was given up".into());
            result.await.map_err(|_| gone())?
        })
    }

    /// Takes no more reads. The threads end when those that wait are done.
    pub(super) fn close(&self) {
        self.jobs.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn work(queue: &Mutex<Receiver<Job>>, engine: &Engine) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A panic inside the engine fails this read (its reply is dropped), not the ones after it.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(engine)));
    }
}
