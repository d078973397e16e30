//! The wish that the gateway stops: set once, by a signal or by the code that started it, and
//! seen by everything that must end.
//!
//! The first SIGINT or SIGTERM asks for a graceful stop; the second ends the process at once with
//! 128 + the signal's number, as a shell reports it. Nothing acknowledged is lost by either.

use std::io;
use std::thread;

use tokio::sync::watch;

/// Sees the wish. Clones see the same one.
#[derive(Debug, Clone)]
pub struct Stop {
    wished: watch::Receiver<bool>,
}

/// Makes the wish. Dropping it without a wish makes none.
#[derive(Debug, Clone)]
pub struct StopHandle {
    wish: watch::Sender<bool>,
}

/// A wish that only the handle can make.
pub fn pair() -> (StopHandle, Stop) {
    let (wish, wished) = watch::channel(false);
    (StopHandle { wish }, Stop { wished })
}

impl StopHandle {
    /// Asks for the stop; again is the same as once.
    pub fn stop(&self) {
        self.wish.send_replace(true);
    }
}

impl Stop {
    /// Whether the stop has been asked for.
    pub fn is_requested(&self) -> bool {
        *self.wished.borrow()
    }

    /// Resolves once the stop has been asked for; any number of times.
    pub async fn requested(&self) {
        let mut wished = self.wished.clone();
        if wished.wait_for(|&wished| wished).await.is_err() {
            // Every handle is gone and none has asked: nobody ever will.
            std::future::pending::<()>().await;
        }
    }
}

/// A wish that SIGINT and SIGTERM make. Call it once, early: until then a signal kills.
///
/// # Errors
/// When the process cannot get a thread or listen to signals.
pub fn on_signals() -> io::Result<Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _entered = runtime.enter();
        Signals::listen()?
    };
    let (handle, stop) = pair();
    thread::Builder::new().name("skein-signals".into()).spawn(move || {
        runtime.block_on(async {
            let name = signals.next().await.0;
            tracing::info!(signal = name, "stopping; once more to end at once");
            handle.stop();
            let (name, number) = signals.next().await;
            tracing::warn!(signal = name, "ended before the stop was complete");
            std::process::exit(128 + number);
        });
    })?;
    Ok(stop)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Name and number of the next signal.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.interrupt.recv() => ("SIGINT", 2),
            _ = self.terminate.recv() => ("SIGTERM", 15),
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> (&'static str, i32) {
        // Only fails where there is no console to press keys at.
        match tokio::signal::ctrl_c().await {
            Ok(()) => ("Ctrl-C", 2),
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wish_is_seen_by_those_who_waited_and_those_who_come_later() {
        let (handle, stop) = pair();
        assert!(!stop.is_requested());
        let waiting = tokio::spawn({
            let stop = stop.clone();
            async move { stop.requested().await }
        });
        handle.stop();
        handle.stop();
        waiting.await.unwrap();
        drop(handle);
        stop.requested().await;
        assert!(stop.is_requested());
    }
}
