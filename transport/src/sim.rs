//! A shard without socket, thread and clock: datagrams, mail and the time go in, datagrams and the
//! next deadline come out. For simulations of whole systems; behind the feature `sim`.
//!
//! It is the real shard up to the system calls. What QUIC draws comes from a seed; keys and the
//! connection ids that it issues stay random, so the bytes of a datagram differ from run to run
//! while their number and length do not (as long as signatures have one length: Ed25519).

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::BytesMut;
use quinn_proto::ConnectionId;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    Driver, EngineConfig, Io, Mailbox, ShardStats, StartError,
    core::{Core, CoreConfig, Datagram},
    engine::{client_config, endpoint_config, server_config},
    mailbox::Inbox,
    steer,
};

/// The shard of `shards` that a datagram belongs to, as the kernel steers it.
pub fn shard_of(datagram: &[u8], shards: usize) -> usize {
    steer::shard_of(datagram, shards)
}

/// The way into a shard that does not exist yet.
pub struct Seat<M> {
    inbox: Arc<Inbox<M>>,
}

impl<M: Send + 'static> Seat<M> {
    /// Makes room for a shard whose mailbox holds `capacity` messages.
    pub fn new(capacity: usize) -> Self {
        Self { inbox: Inbox::new(capacity, None, Arc::default()) }
    }

    /// A way for others to send to the shard.
    pub fn mailbox(&self) -> Mailbox<M> {
        Mailbox::new(self.inbox.clone())
    }
}

/// A shard that is turned by hand.
pub struct SimShard<D: Driver> {
    core: Core,
    driver: D,
    inbox: Arc<Inbox<D::Mail>>,
}

impl<D: Driver> SimShard<D> {
    /// The shard number `shard` of an engine with this configuration. `seed` decides what QUIC
    /// draws.
    ///
    /// # Errors
    /// [`StartError::Tls`] if the TLS configuration does not do for QUIC.
    pub fn new(
        config: &EngineConfig,
        shard: usize,
        seat: Seat<D::Mail>,
        driver: D,
        now: Instant,
        seed: [u8; 32],
    ) -> Result<Self, StartError> {
        let transport = config.quic.transport_config();
        let client = client_config(config, &transport).map(|mut client| {
            // It also decides to which shard of a server the connection goes.
            let ids = Mutex::new(StdRng::from_seed(seed));
            client.usual.initial_dst_cid_provider(Arc::new(move || {
                let mut id = [0; 20];
                ids.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut id);
                ConnectionId::new(&id)
            }));
            client
        });
        let core = CoreConfig {
            shard,
            endpoint: endpoint_config(config, shard),
            server: server_config(config, &transport)?,
            client,
            limits: config.limits.clone(),
            validation: config.validation,
            gate: config.gate.clone(),
            send_window: config.quic.send_window,
            allow_mtud: true,
            map_v4: false,
            counters: seat.inbox.counters.clone(),
            seed: Some(seed),
        };
        Ok(Self { core: Core::new(core, now), driver, inbox: seat.inbox })
    }

    /// One turn of the shard's loop. Takes what arrived as (sender, bytes) and returns what is
    /// sent as (receiver, bytes).
    pub fn turn(
        &mut self,
        now: Instant,
        received: impl IntoIterator<Item = (SocketAddr, Vec<u8>)>,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let Self { core, driver, inbox } = self;
        core.begin_turn(now);
        driver.on_turn_begin();
        for (remote, data) in received {
            let data = BytesMut::from(&data[..]);
            core.handle_datagram(Datagram { remote, local_ip: None, ecn: None, data });
        }
        core.fire_timers(driver);
        let mut mails = VecDeque::new();
        inbox.take_mails(&mut mails);
        for mail in mails {
            driver.on_mail(&mut Io::new(core), mail);
        }
        if driver.next_tick().is_some_and(|at| at <= core.now) {
            driver.on_tick(&mut Io::new(core));
        }
        core.dispatch(driver);
        driver.on_turn_end(&mut Io::new(core));
        core.dispatch(driver);
        let mut out = Vec::new();
        core.transmit(|queue| out.extend(queue.take()));
        out
    }

    /// When the next turn is due although nothing arrives; a time that has passed: at once.
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.inbox.is_empty() {
            return Some(self.core.now);
        }
        [self.core.next_deadline(), self.driver.next_tick()].into_iter().flatten().min()
    }

    /// Lets the driver do something of its own accord; a turn must follow.
    pub fn act<T>(&mut self, action: impl FnOnce(&mut D, &mut Io<'_>) -> T) -> T {
        action(&mut self.driver, &mut Io::new(&mut self.core))
    }

    /// The driver.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// Counters.
    pub fn stats(&self) -> ShardStats {
        self.core.counters().read()
    }
}
