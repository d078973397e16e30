//! The generator: our engine in client mode, one shard, one socket.

use std::{
    io,
    net::SocketAddr,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use bytes::Bytes;
use skein_transport::{
    CloseReason, ConnId, Driver, Engine, EngineConfig, Io, Mailbox, QuicConfig, Read, StreamId,
};

use crate::setup::{DIALING, MESSAGE, client_tls, quic};

/// A step that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(300);

enum Order {
    /// Make so many more connections.
    Connect(usize),
    /// Each connection opens its stream, if it has none, and gets one message back.
    Touch,
    /// All connections echo, one message in flight each, until told to pause.
    Echo,
    Pause,
}

enum Told {
    /// The order is carried out.
    Done,
    /// Echoes so far.
    Echoes(u64),
    Failed(String),
}

pub(crate) struct Load {
    // Stops with its last handle.
    _engine: Engine<Order>,
    orders: Mailbox<Order>,
    told: Receiver<Told>,
}

impl Load {
    pub(crate) fn start(server: SocketAddr, chacha: bool) -> io::Result<Self> {
        let mut config = EngineConfig::client(([127, 0, 0, 1], 0).into(), client_tls(chacha)?);
        config.shards = 1;
        // The server opens none, and each one permitted is paid for by every connection.
        config.quic = QuicConfig { max_bidi_streams: 0, ..quic() };
        let (tell, told) = channel();
        let engine = Engine::start(config, move |_| Generator::new(server, tell.clone()))
            .map_err(io::Error::other)?;
        let orders = engine.mailboxes().swap_remove(0);
        Ok(Self { _engine: engine, orders, told })
    }

    /// Makes `count` more connections and says how long it took.
    pub(crate) fn connect(&self, count: usize) -> io::Result<Duration> {
        let begun = Instant::now();
        self.order(Order::Connect(count))?;
        self.wait_done()?;
        Ok(begun.elapsed())
    }

    pub(crate) fn touch_all(&self) -> io::Result<()> {
        self.order(Order::Touch)?;
        self.wait_done()
    }

    /// Echoes a second over all connections, and how many there were with the warm-up.
    pub(crate) fn echo(&self, warm_up: Duration, measured: Duration) -> io::Result<(f64, u64)> {
        self.touch_all()?;
        self.order(Order::Echo)?;
        std::thread::sleep(warm_up);
        let (begun, before) = (Instant::now(), self.echoes(Order::Echo)?);
        std::thread::sleep(measured);
        let (elapsed, after) = (begun.elapsed(), self.echoes(Order::Pause)?);
        std::thread::sleep(Duration::from_millis(200));
        Ok(((after - before) as f64 / elapsed.as_secs_f64(), after))
    }

    fn echoes(&self, order: Order) -> io::Result<u64> {
        while self.told.try_recv().is_ok() {}
        self.order(order)?;
        match self.told.recv_timeout(PATIENCE) {
            Ok(Told::Echoes(count)) => Ok(count),
            Ok(Told::Failed(error)) => Err(io::Error::other(error)),
            Ok(Told::Done) => Err(io::Error::other("answers out of step")),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn order(&self, order: Order) -> io::Result<()> {
        self.orders.send(order).map_err(|_| io::Error::other("the generator is busy"))
    }

    fn wait_done(&self) -> io::Result<()> {
        match self.told.recv_timeout(PATIENCE) {
            Ok(Told::Done) => Ok(()),
            Ok(Told::Failed(error)) => Err(io::Error::other(error)),
            Ok(Told::Echoes(_)) => Err(io::Error::other("answers out of step")),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

struct Peer {
    conn: ConnId,
    stream: Option<StreamId>,
    /// Bytes of the current echo that are still to come.
    awaited: usize,
}

struct Generator {
    server: SocketAddr,
    tell: Sender<Told>,
    message: Bytes,
    /// By slot.
    peers: Vec<Option<Peer>>,
    /// Connections not begun, and begun but not complete.
    to_dial: usize,
    dialing: usize,
    /// Slots that a `Touch` has not come to, and echoes that it waits for.
    to_touch: Vec<usize>,
    touching: usize,
    echoing: bool,
    echoes: u64,
}

impl Generator {
    fn new(server: SocketAddr, tell: Sender<Told>) -> Self {
        Self {
            server,
            tell,
            message: Bytes::from(vec![b'e'; MESSAGE]),
            peers: Vec::new(),
            to_dial: 0,
            dialing: 0,
            to_touch: Vec::new(),
            touching: 0,
            echoing: false,
            echoes: 0,
        }
    }

    fn tell(&self, told: Told) {
        let _ = self.tell.send(told);
    }

    fn dial(&mut self, io: &mut Io<'_>) {
        while self.to_dial > 0 && self.dialing < DIALING {
            if let Err(error) = io.connect(self.server, "localhost") {
                return self.tell(Told::Failed(error.to_string()));
            }
            self.to_dial -= 1;
            self.dialing += 1;
        }
        if self.to_dial == 0 && self.dialing == 0 {
            self.tell(Told::Done);
        }
    }

    fn touch(&mut self, io: &mut Io<'_>) {
        while self.touching < DIALING
            && let Some(slot) = self.to_touch.pop()
        {
            self.touching += 1;
            self.send(io, slot);
        }
        if self.touching == 0 {
            self.tell(Told::Done);
        }
    }

    fn send(&mut self, io: &mut Io<'_>, slot: usize) {
        let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_mut) else { return };
        let Some(stream) = peer.stream.or_else(|| io.open_bi(peer.conn)) else {
            return self.tell(Told::Failed("no stream".into()));
        };
        peer.stream = Some(stream);
        peer.awaited = MESSAGE;
        if io.write(peer.conn, stream, self.message.clone()).is_err() {
            self.tell(Told::Failed("cannot write".into()));
        }
    }
}

impl Driver for Generator {
    type Mail = Order;

    fn on_connected(&mut self, io: &mut Io<'_>, conn: ConnId) {
        let slot = conn.slot();
        if self.peers.len() <= slot {
            self.peers.resize_with(slot + 1, || None);
        }
        self.peers[slot] = Some(Peer { conn, stream: None, awaited: 0 });
        self.dialing -= 1;
        self.dial(io);
    }

    fn on_stream_opened(&mut self, _: &mut Io<'_>, _: ConnId, _: StreamId) {}

    fn on_readable(&mut self, io: &mut Io<'_>, conn: ConnId, stream: StreamId) {
        let slot = conn.slot();
        while let Read::Chunk(bytes) = io.read(conn, stream) {
            let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_mut) else { return };
            peer.awaited = peer.awaited.saturating_sub(bytes.len());
            if peer.awaited > 0 {
                continue;
            }
            if self.echoing {
                self.echoes += 1;
                self.send(io, slot);
            } else if self.touching > 0 {
                self.touching -= 1;
                self.touch(io);
            }
        }
    }

    fn on_writable(&mut self, _: &mut Io<'_>, _: ConnId) {}

    fn on_timer(&mut self, _: &mut Io<'_>, _: ConnId) {}

    fn on_closed(&mut self, io: &mut Io<'_>, _: ConnId, reason: CloseReason) {
        if !io.is_stopping() {
            self.tell(Told::Failed(format!("a connection ended: {reason:?}")));
        }
    }

    fn on_mail(&mut self, io: &mut Io<'_>, order: Order) {
        match order {
            Order::Connect(count) => {
                self.to_dial += count;
                self.dial(io);
            }
            Order::Touch => {
                self.to_touch = (0..self.peers.len())
                    .filter(|slot| {
                        self.peers[*slot].as_ref().is_some_and(|peer| peer.stream.is_none())
                    })
                    .collect();
                self.touch(io);
            }
            Order::Echo if !self.echoing => {
                self.echoing = true;
                (0..self.peers.len()).for_each(|slot| self.send(io, slot));
            }
            Order::Echo => self.tell(Told::Echoes(self.echoes)),
            Order::Pause => {
                self.echoing = false;
                self.tell(Told::Echoes(self.echoes));
            }
        }
    }
}
