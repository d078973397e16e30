//! Waking up on time.
//!
//! A poll counts its timeout in whole milliseconds, rounded up: a driver that asked for a
//! [tick](crate::Driver::next_tick) would get it half a millisecond late on average, which is more
//! than a message takes. So on Linux a tick is told to a timer of the kernel that the poll watches.
//! Elsewhere it stays at milliseconds.
//!
//! `rustix` has the three calls in safe form.

use std::{io, time::Duration};

use mio::{Registry, Token};

#[cfg(target_os = "linux")]
pub(crate) struct Alarm {
    timer: std::os::fd::OwnedFd,
}

#[cfg(target_os = "linux")]
impl Alarm {
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd as _;

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let raw = timer.as_raw_fd();
        registry.register(&mut mio::unix::SourceFd(&raw), token, mio::Interest::READABLE)?;
        Ok(Self { timer })
    }

    /// Ends a poll after this time, in place of what was set before. Setting it anew also takes
    /// back that it went off, so it is never read.
    pub(crate) fn set(&self, after: Duration) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        // Zero would turn it off.
        let after = after.max(Duration::from_nanos(1));
        let value = Timespec::try_from(after).map_err(|_| io::ErrorKind::InvalidInput)?;
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(crate) fn new(_registry: &Registry, _token: Token) -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn set(&self, _after: Duration) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Instant;

    use mio::{Events, Poll};

    use super::*;

    #[test]
    fn it_ends_a_poll_again_and_again() {
        let mut poll = Poll::new().unwrap();
        let alarm = Alarm::new(poll.registry(), Token(7)).unwrap();
        let mut events = Events::with_capacity(4);
        for after in [Duration::from_micros(300), Duration::ZERO, Duration::from_millis(2)] {
            let begun = Instant::now();
            alarm.set(after).unwrap();
            poll.poll(&mut events, Some(Duration::from_secs(30))).unwrap();
            assert!(events.iter().any(|event| event.token() == Token(7)));
            assert!(begun.elapsed() >= after && begun.elapsed() < Duration::from_secs(20));
        }
    }
}
