//! Frees the memory of rows that have been written to a file.
//!
//! fjall drops a memtable under the lock that every read and every commit takes for a moment. Freeing
//! the some hundred thousand rows of one takes 0.1 s, in which nothing is acknowledged: at 12,500
//! messages a second that was every p99. So a reference to each memtable is kept here until nobody
//! else has one, and the last one is dropped on a thread that holds no lock.

use std::any::Any;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A memtable, of which only the number of references matters.
pub(super) type Memory = Arc<dyn Any + Send + Sync>;

/// How often it is looked whether a memtable can be freed, while one waits for it. It then takes
/// that much longer than fjall would have kept it.
const POLL: Duration = Duration::from_millis(50);

/// Keeps memtables alive until their flush is over.
pub(super) struct Retired {
    /// The memtable of each keyspace that takes writes, with its number.
    active: Vec<(u64, Memory)>,
    sender: Option<Sender<Memory>>,
    thread: Option<JoinHandle<()>>,
}

impl Retired {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start() -> std::io::Result<Self> {
        let (sender, retired) = channel();
        let thread =
            std::thread::Builder::new().name("store-free".into()).spawn(move || free(&retired))?;
        Ok(Self { active: Vec::new(), sender: Some(sender), thread: Some(thread) })
    }

    /// To be called after each commit with the memtables that take writes now, in the same order.
    pub(super) fn look(&mut self, now: impl IntoIterator<Item = (u64, Memory)>) {
        for (i, (id, memory)) in now.into_iter().enumerate() {
            match self.active.get_mut(i) {
                Some((known, _)) if *known == id => {}
                Some(known) => {
                    let (_, old) = std::mem::replace(known, (id, memory));
                    if let Some(sender) = &self.sender {
                        // If the thread is gone, this frees it here.
                        let _ = sender.send(old);
                    }
                }
                None => self.active.push((id, memory)),
            }
        }
    }
}

impl Drop for Retired {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Frees what only it holds, until the other end is dropped. fjall bounds how much waits: writes
/// stop while four flushes are pending.
fn free(retired: &Receiver<Memory>) {
    let mut waiting: Vec<Memory> = Vec::new();
    loop {
        let next = if waiting.is_empty() {
            retired.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            retired.recv_timeout(POLL)
        };
        match next {
            Ok(memory) => waiting.push(memory),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        waiting.retain(|memory| Arc::strong_count(memory) > 1);
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{self, ThreadId};

    use super::*;

    /// Tells on which thread it was dropped.
    struct Witness(Sender<ThreadId>);

    impl Drop for Witness {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    #[test]
    fn what_others_let_go_of_is_dropped_on_the_thread() {
        let (dropped, on) = channel();
        let first: Memory = Arc::new(Witness(dropped.clone()));
        let second: Memory = Arc::new(Witness(dropped));
        let mut retired = Retired::start().unwrap();
        retired.look([(1, first.clone())]);
        retired.look([(1, first.clone())]);
        retired.look([(2, second.clone())]);
        assert!(on.try_recv().is_err(), "it is still in use");
        drop(first);
        assert_ne!(on.recv().unwrap(), thread::current().id());
        drop(second);
        assert!(on.try_recv().is_err(), "it takes writes");
        drop(retired);
        assert!(on.recv().is_ok(), "nothing is kept at the end");
    }
}
