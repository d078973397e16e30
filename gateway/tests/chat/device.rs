//! One device: an application on the SDK with a runtime of its own, so that it can crash alone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use skein_client::{Builder, Client, Events, FileOutbox, FilePositions, Start};
use skein_protocol::{ClientMsgId, Seq, UserId};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::checker::Checker;
use super::history::{Device, Entry, Event, Name};

/// Where all report to; one order for all that happens.
#[derive(Clone, Default)]
pub struct Record(Arc<Mutex<Checker>>);

impl Record {
    pub fn observe(&self, event: Event) {
        self.with(|checker| checker.observe(event));
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut Checker) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How much a device has to say.
#[derive(Debug, Clone, Copy)]
pub struct Habit {
    /// Longest pause between two bursts.
    pub pause: Duration,
    /// Most messages in a burst.
    pub burst: u32,
}

/// Who and where.
#[derive(Clone)]
pub struct Profile {
    pub device: Device,
    /// With whom, and how often in comparison.
    pub peers: Vec<(UserId, u32)>,
    pub habit: Habit,
    pub server: String,
    pub token: String,
    pub ca: Vec<u8>,
    /// After this time without an answer a message is sent again on the same connection.
    pub answer_timeout: Duration,
    /// Messages that may wait for their acknowledgement before the application falls silent.
    pub most_waiting: usize,
    /// Where the application keeps outbox and positions.
    pub dir: PathBuf,
}

/// What the application keeps by itself, over crashes too: the messages that it named.
#[derive(Default)]
struct Notes {
    /// Id, recipient, text; and whether it was acknowledged.
    named: Vec<(ClientMsgId, UserId, String, bool)>,
    sent: u64,
}

/// An application that runs.
pub struct App {
    profile: Profile,
    record: Record,
    notes: Arc<Mutex<Notes>>,
    runtime: Option<Runtime>,
    quiet: watch::Sender<bool>,
    seed: u64,
}

impl App {
    pub fn start(profile: Profile, record: Record, seed: u64) -> Self {
        let (quiet, _) = watch::channel(false);
        let notes = Arc::default();
        let mut app = Self { profile, record, notes, runtime: None, quiet, seed };
        app.run();
        app
    }

    /// The process of the application is gone from one instruction to the next, and starts again
    /// with what is on the disk.
    pub fn crash(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
        self.seed = self.seed.wrapping_add(1);
        self.run();
    }

    /// Nothing new is said from now on.
    pub fn hush(&self) {
        self.quiet.send_replace(true);
    }

    /// It goes on talking.
    pub fn unhush(&self) {
        self.quiet.send_replace(false);
    }

    fn run(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        self.record.observe(Event::Started { device: self.profile.device.clone() });
        let life = Life {
            profile: self.profile.clone(),
            record: self.record.clone(),
            notes: self.notes.clone(),
            rng: SmallRng::seed_from_u64(self.seed),
            waiting: 0,
        };
        runtime.spawn(life.live(self.quiet.subscribe()));
        self.runtime = Some(runtime);
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }
}

/// From one start to the next crash.
struct Life {
    profile: Profile,
    record: Record,
    notes: Arc<Mutex<Notes>>,
    rng: SmallRng,
    /// Accepted and not acknowledged, as far as this start knows.
    waiting: usize,
}

impl Life {
    async fn live(mut self, mut quiet: watch::Receiver<bool>) {
        let (client, mut events) = self.open().await;
        self.repeat(&client).await;
        loop {
            let pause = self.profile.habit.pause.mul_f64(self.rng.random());
            let hushed = *quiet.borrow_and_update();
            let may_speak = !hushed && self.waiting < self.profile.most_waiting;
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.hear(&client, event, hushed).await,
                    None => return,
                },
                () = tokio::time::sleep(pause), if may_speak => self.speak(&client).await,
                _ = quiet.changed() => self.read_all(&client).await,
            }
        }
    }

    async fn open(&self) -> (Client, Events) {
        let profile = &self.profile;
        // The files are locked until the last thread of the earlier process is gone.
        let (outbox, positions) = loop {
            let dir = &profile.dir;
            match (FileOutbox::open(dir), FilePositions::open(dir)) {
                (Ok(outbox), Ok(positions)) => break (outbox, positions),
                (outbox, positions) => {
                    for error in [outbox.err(), positions.err()].into_iter().flatten() {
                        let busy = error.kind() == std::io::ErrorKind::ResourceBusy;
                        assert!(busy, "{}: {error}", profile.device);
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        self.builder().outbox(outbox).positions(positions).connect().await.unwrap()
    }

    fn builder(&self) -> Builder {
        let profile = &self.profile;
        Client::builder()
            .server(profile.server.clone())
            .server_name("localhost")
            .ca_pem(profile.ca.clone())
            .token(profile.token.clone())
            .user(profile.device.user.clone())
            .device(profile.device.name.clone())
            .start(Start::Beginning)
            .reconnect(Duration::from_millis(50), Duration::from_millis(200))
            .rules(|rules| rules.answer_timeout = profile.answer_timeout)
    }

    fn name(&self, id: ClientMsgId) -> Name {
        Name { device: self.profile.device.clone(), id }
    }

    fn notes<T>(&self, change: impl FnOnce(&mut Notes) -> T) -> T {
        change(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends again whatever the application named and does not know to be stored, and some of
    /// what it knows.
    async fn repeat(&mut self, client: &Client) {
        let mut again = self.notes(|notes| notes.named.clone());
        let known = again.iter().filter(|(.., acked)| *acked).count();
        again.retain(|(.., acked)| !acked || self.rng.random_ratio(1, 1 + known as u32 / 4));
        for (id, to, text, _) in again {
            self.send_named(client, id, to, text).await;
        }
    }

    async fn speak(&mut self, client: &Client) {
        let total = self.profile.peers.iter().map(|(_, weight)| weight).sum();
        let mut at = self.rng.random_range(0..total);
        let chosen = self.profile.peers.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let to = chosen.unwrap().0.clone();
        for _ in 0..self.rng.random_range(1..=self.profile.habit.burst) {
            let number = self.notes(|notes| {
                notes.sent += 1;
                notes.sent
            });
            let text = format!("{} to {to}, number {number}", self.profile.device);
            let device = self.profile.device.clone();
            self.record.observe(Event::Sent { device, to: to.clone(), text: text.clone() });
            if self.rng.random_ratio(1, 6) {
                let id = ClientMsgId::parse(&format!("own-{number}")).unwrap();
                self.notes(|notes| {
                    notes.named.push((id.clone(), to.clone(), text.clone(), false));
                });
                self.send_named(client, id, to.clone(), text).await;
            } else {
                match client.send(to.clone(), text.clone()).await {
                    Ok(sent) => {
                        let name = self.name(sent.id().clone());
                        self.record.observe(Event::Named { name, text: text.clone() });
                        self.record.observe(Event::Accepted { text });
                        self.waiting += 1;
                    }
                    Err(error) => self.not_accepted(&error),
                }
            }
        }
    }

    async fn send_named(&mut self, client: &Client, id: ClientMsgId, to: UserId, text: String) {
        let name = self.name(id.clone());
        self.record.observe(Event::Named { name, text: text.clone() });
        match client.send_as(id, to, text.clone()).await {
            Ok(_) => {
                self.record.observe(Event::Accepted { text });
                self.waiting += 1;
            }
            Err(error) => self.not_accepted(&error),
        }
    }

    /// The client has much to do or the message already; anything else is a fault.
    fn not_accepted(&self, error: &skein_client::SendError) {
        use skein_client::{OutgoingError, SendError};
        let expected = matches!(
            error,
            SendError::Refused(OutgoingError::Full { .. } | OutgoingError::DuplicateId(_))
        );
        assert!(expected, "{}: {error}", self.profile.device);
    }

    async fn hear(&mut self, client: &Client, event: skein_client::Event, hushed: bool) {
        use skein_client::Event as Heard;
        let device = self.profile.device.clone();
        match event {
            Heard::Message { message, .. } => {
                let conversation = message.conversation;
                let text = String::from_utf8_lossy(&message.payload).into_owned();
                let from = Device { user: message.sender, name: message.device };
                let name = Name { device: from, id: message.id };
                let entry = Entry { seq: message.seq, name, text };
                self.record.observe(Event::Seen { by: device, conversation, entry });
                if hushed || self.rng.random_ratio(1, 5) {
                    self.mark(client, conversation, message.seq).await;
                }
            }
            Heard::Acked { id, conversation, seq, .. } => {
                self.waiting = self.waiting.saturating_sub(1);
                self.notes(|notes| {
                    notes.named.iter_mut().filter(|n| n.0 == id).for_each(|n| n.3 = true);
                });
                self.record.observe(Event::Acked { name: self.name(id), conversation, seq });
            }
            Heard::Rejected { id, code, reason } => {
                let reason = format!("{code} {reason}");
                self.record.observe(Event::Rejected { name: self.name(id), reason });
            }
            Heard::Postponed { id, code, .. } => {
                self.record.observe(Event::Postponed { name: self.name(id), code });
            }
            Heard::Receipt { conversation, kind, user, seq } => {
                self.record.observe(Event::Cursor { to: device, conversation, kind, user, seq });
            }
            Heard::Skipped { conversation, from, to } => {
                self.record.observe(Event::LeftOut { by: device, conversation, from, to });
            }
            Heard::Disconnected { code, reason, retry_in: None } => {
                let why = format!("{code:?} {reason}");
                self.record.observe(Event::GaveUp { device, why });
            }
            Heard::StoreReset { .. } => self.record.observe(Event::Reset { device }),
            _ => {}
        }
    }

    async fn mark(&self, client: &Client, conversation: skein_protocol::ConversationId, seq: Seq) {
        let user = self.profile.device.user.clone();
        self.record.observe(Event::Marked { user, conversation, seq });
        client.mark_read(conversation, seq).await.unwrap();
    }

    /// Marks everything that this device was shown.
    async fn read_all(&self, client: &Client) {
        let device = &self.profile.device;
        for (conversation, seq) in self.record.with(|checker| checker.shown_to(device)) {
            self.mark(client, conversation, seq).await;
        }
    }
}

/// The certificate that clients trust.
pub fn ca(data: &Path) -> Vec<u8> {
    std::fs::read(data.join("dev/ca.pem")).unwrap()
}
