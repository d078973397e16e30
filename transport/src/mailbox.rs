//! The bounded way into a shard from other threads.
//!
//! A sender takes a short lock, pushes, and wakes the shard only if it sleeps: while the shard is
//! at work a message costs no system call, and a sleeping shard is woken once however many
//! messages arrive. The shard takes all that waits in one go, once a turn.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Instant,
};

use crate::{
    ShardStats,
    core::{Change, Datagram},
    stats::Counters,
};

/// Datagrams that wait to be taken over from other shards. Above this they are dropped, which QUIC
/// repairs as any other loss: 1,024 datagrams are some 1.5 MB.
const MAX_HANDED_OVER: usize = 1024;

/// Capacity that an emptied queue may keep, in entries.
const KEEP: usize = 256;

/// The shard is in its poll, or about to be.
const ASLEEP: u8 = 0;
/// The shard is at work, or has been woken.
const AWAKE: u8 = 1;

/// Handle to a shard's mailbox. Cheap to clone, usable from any thread.
pub struct Mailbox<M> {
    inbox: Arc<Inbox<M>>,
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self { inbox: self.inbox.clone() }
    }
}

/// The mailbox is full, or its shard has ended: here is the message back.
#[derive(Debug, thiserror::Error)]
#[error("the mailbox of the shard is full")]
pub struct MailboxFull<M>(pub M);

impl<M: Send + 'static> Mailbox<M> {
    pub(crate) fn new(inbox: Arc<Inbox<M>>) -> Self {
        Self { inbox }
    }

    /// Sends one message.
    pub fn send(&self, mail: M) -> Result<(), MailboxFull<M>> {
        {
            let mut mails = lock(&self.inbox.mails);
            if mails.len() >= self.inbox.capacity {
                drop(mails);
                self.inbox.counters.mailbox_full.add_shared(1);
                return Err(MailboxFull(mail));
            }
            mails.push_back(mail);
        }
        self.inbox.wake();
        Ok(())
    }

    /// Sends as many as fit, in order, under one lock, and gives back the rest.
    pub fn send_all(&self, all: impl IntoIterator<Item = M>) -> Result<(), MailboxFull<Vec<M>>> {
        let mut all = all.into_iter();
        {
            let mut mails = lock(&self.inbox.mails);
            let room = self.inbox.capacity.saturating_sub(mails.len());
            mails.extend(all.by_ref().take(room));
        }
        self.inbox.wake();
        let rest: Vec<M> = all.collect();
        if rest.is_empty() {
            return Ok(());
        }
        self.inbox.counters.mailbox_full.add_shared(rest.len() as u64);
        Err(MailboxFull(rest))
    }

    /// What the shard has counted.
    pub fn stats(&self) -> ShardStats {
        self.inbox.counters.read()
    }

    /// Whether the shard has ended, for whatever reason: nobody will take what is sent.
    pub fn has_ended(&self) -> bool {
        self.inbox.ended.load(Ordering::Relaxed)
    }

    /// Messages that wait now.
    pub fn len(&self) -> usize {
        lock(&self.inbox.mails).len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a shard is asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    pub(crate) code: u64,
    pub(crate) reason: Vec<u8>,
    pub(crate) deadline: Instant,
}

/// What a shard is told to do by its engine; taken when a turn begins.
#[derive(Default)]
pub(crate) struct Orders {
    pub(crate) stop: Option<Stop>,
    /// The latest; those before it count no more.
    pub(crate) change: Option<Change>,
}

/// A shard's end of everything that others send it.
pub(crate) struct Inbox<M> {
    capacity: usize,
    mails: Mutex<VecDeque<M>>,
    handed: Mutex<Vec<Datagram>>,
    orders: Mutex<Orders>,
    state: AtomicU8,
    ended: AtomicBool,
    waker: Option<mio::Waker>,
    pub(crate) counters: Arc<Counters>,
}

impl<M> Inbox<M> {
    pub(crate) fn new(
        capacity: usize,
        waker: Option<mio::Waker>,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            mails: Mutex::default(),
            handed: Mutex::default(),
            orders: Mutex::default(),
            state: AtomicU8::new(AWAKE),
            ended: AtomicBool::new(false),
            waker,
            counters,
        })
    }

    pub(crate) fn wake(&self) {
        // The swap orders the push before it against `about_to_sleep`: either the shard sees the
        // push when it looks once more, or this sees that it sleeps.
        if self.state.swap(AWAKE, Ordering::SeqCst) == ASLEEP
            && let Some(waker) = &self.waker
            && let Err(error) = waker.wake()
        {
            tracing::warn!(%error, "cannot wake a shard");
        }
    }

    /// Says that the shard is no more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Says that the shard is about to poll. `false`: something waits, do not sleep.
    pub(crate) fn about_to_sleep(&self) -> bool {
        self.state.store(ASLEEP, Ordering::SeqCst);
        let no_orders = |orders: &Orders| orders.stop.is_none() && orders.change.is_none();
        let empty = lock(&self.mails).is_empty()
            && lock(&self.handed).is_empty()
            && no_orders(&lock(&self.orders));
        if !empty {
            self.woke_up();
        }
        empty
    }

    pub(crate) fn woke_up(&self) {
        self.state.store(AWAKE, Ordering::SeqCst);
    }

    /// Whether no message waits.
    #[cfg(feature = "sim")]
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.mails).is_empty()
    }

    /// Takes all messages; `into` must be empty and becomes the next queue.
    pub(crate) fn take_mails(&self, into: &mut VecDeque<M>) {
        debug_assert!(into.is_empty());
        if into.capacity() > KEEP {
            into.shrink_to(KEEP);
        }
        std::mem::swap(&mut *lock(&self.mails), into);
    }

    /// Takes a datagram that another shard received.
    pub(crate) fn hand_over(&self, datagram: Datagram) -> bool {
        {
            let mut handed = lock(&self.handed);
            if handed.len() >= MAX_HANDED_OVER {
                return false;
            }
            handed.push(datagram);
        }
        self.wake();
        true
    }

    pub(crate) fn take_handed_over(&self, into: &mut Vec<Datagram>) {
        debug_assert!(into.is_empty());
        if into.capacity() > KEEP {
            into.shrink_to(KEEP);
        }
        std::mem::swap(&mut *lock(&self.handed), into);
    }

    pub(crate) fn ask_to_stop(&self, stop: Stop) {
        lock(&self.orders).stop.get_or_insert(stop);
        self.wake();
    }

    pub(crate) fn ask_to_change(&self, change: Change) {
        lock(&self.orders).change = Some(change);
        self.wake();
    }

    pub(crate) fn take_orders(&self) -> Orders {
        std::mem::take(&mut *lock(&self.orders))
    }
}

/// The queues hold plain data that is whole between any two steps: a panic elsewhere is no reason
/// to stop using them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(capacity: usize) -> Arc<Inbox<u32>> {
        Inbox::new(capacity, None, Arc::default())
    }

    #[test]
    fn full_gives_the_message_back_and_counts() {
        let inbox = inbox(2);
        let mailbox = Mailbox::new(inbox.clone());
        mailbox.send(1).unwrap();
        assert_eq!(mailbox.send_all([2, 3, 4]).unwrap_err().0, [3, 4]);
        assert_eq!(mailbox.send(5).unwrap_err().0, 5);
        assert_eq!(inbox.counters.mailbox_full.get(), 3);
        let mut taken = VecDeque::new();
        inbox.take_mails(&mut taken);
        assert_eq!(taken, [1, 2]);
        mailbox.send(6).unwrap();
    }

    #[test]
    fn a_push_before_sleep_is_seen() {
        let inbox = inbox(2);
        assert!(inbox.about_to_sleep());
        inbox.woke_up();
        Mailbox::new(inbox.clone()).send(1).unwrap();
        assert!(!inbox.about_to_sleep());
    }

    #[test]
    fn hand_over_is_bounded() {
        let inbox = inbox(1);
        let datagram = || Datagram {
            remote: ([127, 0, 0, 1], 1).into(),
            local_ip: None,
            ecn: None,
            data: bytes::BytesMut::new(),
        };
        for _ in 0..MAX_HANDED_OVER {
            assert!(inbox.hand_over(datagram()));
        }
        assert!(!inbox.hand_over(datagram()));
        let mut taken = Vec::new();
        inbox.take_handed_over(&mut taken);
        assert_eq!(taken.len(), MAX_HANDED_OVER);
    }
}
