//! A device: the application, what it keeps on its disk, and its place in the network.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use skein_protocol::client::{Client, Config, Outgoing, Restored, StoreOp};
use skein_protocol::{ConversationId, DeviceId, Seq};
use skein_transport::EngineConfig;
use skein_transport::sim::{Seat, SimShard};

use crate::oracle::Who;
use crate::phone::Phone;
use crate::process::{self, Clock};
use crate::random::Random;

/// What survives the death of the application. What was written last may be lost, in order.
#[derive(Debug, Default)]
pub(crate) struct Flash {
    pub(crate) outbox: Vec<Outgoing>,
    positions: BTreeMap<ConversationId, Seq>,
    epoch: u64,
    unsynced: VecDeque<StoreOp>,
}

impl Flash {
    pub(crate) fn write(&mut self, op: StoreOp) {
        self.unsynced.push_back(op);
    }

    pub(crate) fn sync(&mut self, count: usize) {
        for op in self.unsynced.drain(..count.min(self.unsynced.len())) {
            match op {
                StoreOp::Position { conversation, seq } => {
                    self.positions.insert(conversation, seq);
                }
                StoreOp::Reset { epoch } => {
                    self.positions.clear();
                    self.epoch = epoch;
                }
                StoreOp::Settled { id } => self.outbox.retain(|message| message.id != id),
            }
        }
    }

    pub(crate) fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Power is lost.
    fn lose(&mut self) {
        self.unsynced.clear();
    }
}

pub(crate) struct Device {
    pub(crate) who: Who,
    pub(crate) address: SocketAddr,
    pub(crate) flash: Flash,
    /// Counts how often everything was wiped.
    pub(crate) installation: u32,
    /// The running application.
    pub(crate) app: Option<SimShard<Phone>>,
    pub(crate) received: Vec<(SocketAddr, Vec<u8>)>,
    /// The system does not run the application before this.
    pub(crate) frozen_until: Instant,
    /// No datagram gets through before this.
    pub(crate) cut_until: Instant,
}

impl Device {
    pub(crate) fn new(at: usize, who: Who, now: Instant) -> Self {
        Self {
            who,
            address: ([10, 0, 1, at as u8], 1024).into(),
            flash: Flash::default(),
            installation: 0,
            app: None,
            received: Vec::new(),
            frozen_until: now,
            cut_until: now,
        }
    }

    /// Starts the application with what is on its disk; returns the positions it starts from.
    pub(crate) fn start(
        &mut self,
        gateways: usize,
        clock: Arc<Clock>,
        now: Instant,
        random: &mut Random,
    ) -> BTreeMap<ConversationId, Seq> {
        let user = self.who.user.clone();
        let rules = Config {
            user: Some(user.clone()),
            device: Some(DeviceId::parse(&self.who.device).unwrap()),
            start: self.who.start,
            max_early_bytes: 4000,
            max_event_bytes: 6000,
            welcome_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(4),
            seed: random.next(),
            ..Config::default()
        };
        let positions = self.flash.positions.clone();
        let restored = Restored {
            epoch: self.flash.epoch,
            positions: positions.iter().map(|(&id, &seq)| (id, seq)).collect(),
        };
        let mut rules = Client::new(rules, restored, now);
        for message in self.flash.outbox.clone() {
            rules.send(message).unwrap();
        }
        self.address.set_port(self.address.port() + 1);
        let mut config = EngineConfig::client(self.address, process::setup().client_tls.clone());
        config.limits.max_connections = 20;
        config.limits.outbox_bytes = 32 << 10;
        config.limits.handshake_timeout = Duration::from_secs(4);
        config.quic.stream_window = 3 << 10;
        config.quic.connection_window = 6 << 10;
        config.quic.idle_timeout = Some(Duration::from_secs(26));
        let phone = Phone::new(rules, user, gateways, clock, random.fork(), now);
        self.app =
            Some(SimShard::new(&config, 0, Seat::new(1), phone, now, random.seed()).unwrap());
        self.received.clear();
        positions
    }

    /// `kill -9` of the application.
    pub(crate) fn kill(&mut self, random: &mut Random) {
        self.app = None;
        self.flash.sync(random.index(self.flash.unsynced() + 1));
        self.flash.lose();
    }

    /// Its data is deleted with it.
    pub(crate) fn wipe(&mut self) {
        self.app = None;
        self.flash = Flash::default();
        self.installation += 1;
    }

    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let app = self.app.as_ref()?;
        let due = if self.received.is_empty() { app.next_deadline() } else { Some(now) };
        due.map(|at| at.max(self.frozen_until))
    }
}
