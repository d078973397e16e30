//! The wish that the gateway stops: set once, by a signal or by the code that started it, and
//! seen by everything that must end.
//!
//! SIGHUP asks for something else, that the configuration is read again ([`Hangups`]); but from a
//! terminal that goes away it means what it always meant, and asks for the stop.
//!
//! The first SIGINT or SIGTERM asks for a graceful stop; the second ends the process at once with
//! 128 + the signal's number, as a shell reports it. Nothing acknowledged is lost by either.

use std::io::{self, IsTerminal};
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

/// Sees how often SIGHUP has come.
#[derive(Debug)]
pub struct Hangups {
    count: watch::Receiver<u64>,
}

impl Hangups {
    /// Where no signal is listened to.
    pub fn never() -> Self {
        Self { count: watch::channel(0).1 }
    }

    /// Resolves when the signal has come since the last call; several are as one. `None`: it can
    /// come no more.
    pub async fn next(&mut self) -> Option<()> {
        self.count.changed().await.ok()
    }
}

/// A wish that SIGINT and SIGTERM make, and its handle, and the hangups. Call it once, early: until then a signal
/// kills.
///
/// # Errors
/// When the process cannot get a thread or listen to signals.
pub fn on_signals() -> io::Result<(StopHandle, Stop, Hangups)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _entered = runtime.enter();
        Signals::listen()?
    };
    let (handle, stop) = pair();
    let wish = handle.clone();
    let (hangup, count) = watch::channel(0);
    thread::Builder::new().name("skein-signals".into()).spawn(move || {
        runtime.block_on(async {
            let (name, _) = signals.next_end(&hangup).await;
            tracing::info!(signal = name, "stopping; once more to end at once");
            wish.stop();
            let (name, number) = signals.next_end(&hangup).await;
            tracing::warn!(signal = name, "ended before the stop was complete");
            std::process::exit(128 + number);
        });
    })?;
    Ok((handle, stop, Hangups { count }))
}

/// Makes the wish as well when standard input ends. Whoever starts a gateway for itself gives it a pipe,
/// which the system closes however its holder ends.
///
/// # Errors
/// When the process cannot get a thread.
pub fn on_end_of_input(handle: StopHandle) -> io::Result<()> {
    thread::Builder::new().name("skein-stdin".into()).spawn(move || {
        // What is said there does not matter; one that cannot be read has ended as well.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        tracing::info!("standard input has ended, stopping");
        handle.stop();
    })?;
    Ok(())
}

#[cfg(unix)]
struct Signals {
    /// Standard error was a terminal at the start.
    by_hand: bool,
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            by_hand: io::stderr().is_terminal(),
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Name and number of the next signal to stop. Counts the others.
    async fn next_end(&mut self, hangup: &watch::Sender<u64>) -> (&'static str, i32) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return ("SIGINT", 2),
                _ = self.terminate.recv() => return ("SIGTERM", 15),
                _ = self.hangup.recv() => {
                    // One that is gone is none any more.
                    if self.by_hand && !io::stderr().is_terminal() {
                        return ("SIGHUP", 1);
                    }
                    hangup.send_modify(|count| *count += 1);
                }
            }
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

    async fn next_end(&mut self, _hangup: &watch::Sender<u64>) -> (&'static str, i32) {
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
