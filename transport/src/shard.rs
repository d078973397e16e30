//! The thread of a shard: socket, clock and mailbox around a [`Core`].

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};
use quinn_proto::VarInt;

use crate::{
    Driver, Io,
    alarm::Alarm,
    core::{Core, Datagram},
    mailbox::{Inbox, Stop},
    steer,
    udp::Socket,
};

pub(crate) const SOCKET: Token = Token(0);
pub(crate) const WAKER: Token = Token(1);
const ALARM: Token = Token(2);

/// Work of one turn, in short datagrams: some 60 us. What else was received waits for the next turns,
/// so that answers leave while the rest is worked on, and no turn is long.
const TURN_BUDGET: u32 = 32;

/// What a datagram of a handshake counts: its keys and signatures take that much longer.
const HANDSHAKE_COST: u32 = 8;

/// How long a shard that was told to stop by its own driver may take.
const STOP_ITSELF: Duration = Duration::from_secs(2);

pub(crate) struct Shard<D: Driver> {
    pub(crate) core: Core,
    pub(crate) driver: D,
    pub(crate) socket: Socket,
    pub(crate) poll: Poll,
    pub(crate) inbox: Arc<Inbox<D::Mail>>,
    /// All shards of the port, this one too; empty where each has its own port.
    pub(crate) group: Arc<[Arc<Inbox<D::Mail>>]>,
}

impl<D: Driver> Shard<D> {
    /// Runs until stopped.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(8);
        let mut mails = VecDeque::new();
        let mut handed = Vec::new();
        let mut received = VecDeque::new();
        // The socket may hold something that arrived before it was registered.
        let mut readable = true;
        let mut waits_for_room = false;
        let mut stop: Option<Stop> = None;
        self.poll.registry().register(&mut self.socket.io, SOCKET, Interest::READABLE)?;
        // Made when a driver first asks for a tick.
        let mut alarm = None;
        let mut at_work_since = Instant::now();
        loop {
            let busy = readable || !received.is_empty();
            let timeout = self.timeout(busy, stop.as_ref());
            if let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) {
                self.set_alarm(&mut alarm, timeout)?;
            }
            let mut slept = false;
            if !busy || waits_for_room || timeout != Some(Duration::ZERO) {
                let timeout = match busy || !self.inbox.about_to_sleep() {
                    true => Some(Duration::ZERO),
                    false => timeout,
                };
                slept = timeout != Some(Duration::ZERO);
                if slept {
                    // One more clock read, only before a sleep.
                    self.was_busy(at_work_since, Instant::now());
                }
                match self.poll.poll(&mut events, timeout) {
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                    _ => {}
                }
                self.inbox.woke_up();
                readable |= events.iter().any(|event| event.token() == SOCKET);
            }

            let orders = self.inbox.take_orders();
            if let Some(change) = orders.change {
                self.core.change(change);
            }
            self.core.begin_turn(Instant::now());
            if !slept {
                self.was_busy(at_work_since, self.core.now);
            }
            at_work_since = self.core.now;
            self.driver.on_turn_begin();
            if readable && received.is_empty() {
                let counters = self.core.counters_arc();
                readable = self.socket.receive(&counters, |datagram| received.push_back(datagram));
            }
            self.take_in(&mut received);
            self.inbox.take_handed_over(&mut handed);
            handed.drain(..).for_each(|datagram| self.core.handle_datagram(datagram));
            self.core.fire_timers(&mut self.driver);
            self.inbox.take_mails(&mut mails);
            self.core.counters().mails.add(mails.len() as u64);
            for mail in mails.drain(..) {
                self.driver.on_mail(&mut Io::new(&mut self.core), mail);
            }
            if self.driver.next_tick().is_some_and(|at| at <= self.core.now) {
                self.driver.on_tick(&mut Io::new(&mut self.core));
            }
            self.core.dispatch(&mut self.driver);
            self.driver.on_turn_end(&mut Io::new(&mut self.core));
            self.core.dispatch(&mut self.driver);
            self.transmit(&mut waits_for_room)?;

            if stop.is_none() {
                stop = self.begin_stop(orders.stop, &mut waits_for_room)?;
            }
            if let Some(stop) = &stop
                && (self.core.is_stopped() || Instant::now() >= stop.deadline)
            {
                // What a deadline cut short is told all the same.
                self.core.dispatch(&mut self.driver);
                return Ok(());
            }
        }
    }

    fn was_busy(&self, from: Instant, to: Instant) {
        let nanos = to.saturating_duration_since(from).as_nanos();
        self.core.counters().busy_nanos.add(nanos as u64);
    }

    fn timeout(&self, busy: bool, stop: Option<&Stop>) -> Option<Duration> {
        if busy {
            return Some(Duration::ZERO);
        }
        let deadlines =
            [self.core.next_deadline(), self.driver.next_tick(), stop.map(|stop| stop.deadline)];
        let next = deadlines.into_iter().flatten().min()?;
        if next <= self.core.now {
            return Some(Duration::ZERO);
        }
        // One more clock read, only before a sleep.
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Has a tick come on time if it is what the shard is about to sleep for.
    fn set_alarm(&self, alarm: &mut Option<Alarm>, timeout: Duration) -> io::Result<()> {
        let Some(tick) = self.driver.next_tick() else { return Ok(()) };
        if tick > Instant::now() + timeout {
            return Ok(());
        }
        if alarm.is_none() {
            *alarm = Some(Alarm::new(self.poll.registry(), ALARM)?);
        }
        alarm.as_ref().map_or(Ok(()), |alarm| alarm.set(timeout))
    }

    /// Works on what was received, up to the budget of a turn.
    fn take_in(&mut self, received: &mut VecDeque<Datagram>) {
        let mut budget = TURN_BUDGET;
        while budget > 0
            && let Some(datagram) = received.pop_front()
        {
            let long = datagram.data.first().is_some_and(|first| first & 0x80 != 0);
            budget = budget.saturating_sub(if long { HANDSHAKE_COST } else { 1 });
            take_in(&mut self.core, &self.group, datagram);
        }
    }

    fn transmit(&mut self, waits_for_room: &mut bool) -> io::Result<()> {
        let Self { core, socket, .. } = self;
        let counters = core.counters_arc();
        let mut blocked = false;
        core.transmit(|queue| blocked = socket.send(queue, &counters).is_err());
        if blocked != *waits_for_room {
            // Room is only asked for while it lacks: each sent datagram would be an event.
            let interest = match blocked {
                true => Interest::READABLE | Interest::WRITABLE,
                false => Interest::READABLE,
            };
            self.poll.registry().reregister(&mut self.socket.io, SOCKET, interest)?;
            *waits_for_room = blocked;
        }
        Ok(())
    }

    fn begin_stop(
        &mut self,
        asked: Option<Stop>,
        waits_for_room: &mut bool,
    ) -> io::Result<Option<Stop>> {
        let asked = asked.or_else(|| {
            self.core.stop_asked.then(|| Stop {
                code: 0,
                reason: Vec::new(),
                deadline: Instant::now() + STOP_ITSELF,
            })
        });
        let Some(stop) = asked else { return Ok(None) };
        self.core.stop_asked = true;
        self.driver.on_stopping(&mut Io::new(&mut self.core));
        self.core.dispatch(&mut self.driver);
        self.transmit(waits_for_room)?;
        let code = VarInt::from_u64(stop.code).unwrap_or(VarInt::MAX);
        self.core.begin_stop(code, &stop.reason);
        self.core.dispatch(&mut self.driver);
        self.transmit(waits_for_room)?;
        Ok(Some(stop))
    }
}

/// Takes a datagram in, or gives it to the shard it is for.
fn take_in<M: Send + 'static>(core: &mut Core, group: &[Arc<Inbox<M>>], datagram: Datagram) {
    if group.len() > 1 {
        let shard = steer::shard_of(&datagram.data, group.len());
        if shard != core.shard() {
            let counters = core.counters();
            match group[shard].hand_over(datagram) {
                true => counters.handed_over.add(1),
                false => counters.hand_over_dropped.add(1),
            }
            return;
        }
    }
    core.handle_datagram(datagram);
}
