//! What the shards share: lanes, registry, store; and the carrying out of what lanes ask for.
//!
//! ```text
//! shard thread: commands of one turn -> lanes -> effects -> mail, submit, reads
//! store thread: outcomes             -> lanes -> effects -> mail, submit, reads
//! ```
//!
//! A lane is entered under its lock for microseconds and does no I/O there. Mail leaves before
//! the next append of the same conversation is submitted, so pushes keep the order of the log.

mod reads;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use skein_protocol::server::server_frame;
use skein_protocol::wire::{self, server_frame::Kind};
use skein_protocol::{ConversationId, UserId};
use skein_storage::{Append, AppendError, AppendSink, CursorUpdate, Store, StoreError};
use skein_transport::{ConnId, Mailbox};
use tokio::sync::Semaphore;

use crate::blocks::Blocks;
use crate::bulk::PageReads;
use crate::lane::{
    Ack, Command, CursorKind, Delivery, Effect, Lane, LaneConfig, Load, Peek, Receipt, Scan,
};
use crate::limits::Throttle;
use crate::mail::{Answered, Drain, Mail, Outgoing};
use crate::observe::{Epoch, HubFigures, ShardFigures, Tracer};
use crate::registry::Registry;
use crate::settings::Settings;
#[cfg(debug_assertions)]
pub(crate) use reads::SCAN_PAGE;
pub(crate) use reads::cursors_of;
use reads::{SCAN_STEPS, read_conversation, scan_log};

/// How often [`Hub::tick`] is to be called: as exactly as anybody needs to be told that the store
/// does not answer.
pub const TICK: Duration = Duration::from_millis(250);

/// A length of time in ticks; at least one.
pub fn ticks(time: Duration) -> u32 {
    time.as_millis().div_ceil(TICK.as_millis()).clamp(1, u32::MAX.into()) as u32
}

/// Cursors that the store is given at a time. Each may be a write of its own, and a clustered store
/// has some hundred of these under way at once: some tens of round trips, far from the time that a
/// request may take.
const CURSOR_PIECE: usize = 4096;

/// Time and background work, passed in so that a simulation can own both.
pub trait Host: Send + Sync + 'static {
    /// Wall-clock time.
    fn now(&self) -> SystemTime;

    /// Unix time in milliseconds.
    fn now_ms(&self) -> u64 {
        // A clock before 1970 is as good as 1970: times only inform.
        self.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    /// Runs a future to its end, elsewhere.
    fn spawn(&self, work: BoxFuture<'static, ()>);
}

/// Everything that a [`Hub`] is made of.
pub struct HubParts {
    /// What sessions are held to, until [`Hub::change_settings`].
    pub settings: Settings,
    /// Where messages stay.
    pub store: Arc<dyn Store>,
    /// Who is online.
    pub registry: Registry,
    /// Who is shut out.
    pub blocks: Arc<Blocks>,
    /// Number of lanes; at least 1.
    pub lanes: usize,
    /// Bounds of each.
    pub lane: LaneConfig,
    /// How much and how often.
    pub throttle: Arc<Throttle>,
    /// Time and background work.
    pub host: Arc<dyn Host>,
    /// The ways to the shards, by index.
    pub mailboxes: Vec<Mailbox<Mail>>,
}

/// The shared middle of a gateway.
pub struct Hub {
    settings: ArcSwap<Settings>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Registry,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) page_reads: PageReads,
    scan_steps: Semaphore,
    lanes: Vec<Mutex<Lane>>,
    mailboxes: Vec<Mailbox<Mail>>,
    /// Times that mail for a shard was lost because its mailbox was full. A session that sees the
    /// number change tells its client to ask for all heads.
    overflows: Vec<AtomicU32>,
    /// What the shards count, by index.
    shard_figures: Vec<Arc<ShardFigures>>,
    /// What is counted here.
    pub(crate) figures: HubFigures,
    /// Follows some messages, if that is wished.
    tracer: OnceLock<Arc<Tracer>>,
    draining: AtomicBool,
    stopping: AtomicBool,
    sessions: AtomicUsize,
    last_session: AtomicU64,
}

impl Hub {
    /// A hub in which nobody is online.
    pub fn new(parts: HubParts) -> Arc<Self> {
        let lane = || Mutex::new(Lane::new(parts.lane.clone(), parts.throttle.clone()));
        Arc::new(Self {
            lanes: (0..parts.lanes.max(1)).map(|_| lane()).collect(),
            settings: ArcSwap::from_pointee(parts.settings),
            store: parts.store,
            registry: parts.registry,
            throttle: parts.throttle,
            blocks: parts.blocks,
            host: parts.host,
            overflows: parts.mailboxes.iter().map(|_| AtomicU32::new(0)).collect(),
            shard_figures: parts.mailboxes.iter().map(|_| Arc::default()).collect(),
            figures: HubFigures::new(Epoch::new(Instant::now())),
            tracer: OnceLock::new(),
            mailboxes: parts.mailboxes,
            page_reads: PageReads::default(),
            scan_steps: Semaphore::new(SCAN_STEPS),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            last_session: AtomicU64::new(rand::random::<u32>().into()),
        })
    }

    /// What sessions are held to now. Shards look once a turn, see `Hub::renew_settings`.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Replaces what `known` holds if the settings are others now. Nearly always one load of a
    /// pointer that nobody has written to.
    pub(crate) fn renew_settings(&self, known: &mut Arc<Settings>) {
        let now = self.settings.load();
        if !Arc::ptr_eq(&now, known) {
            *known = arc_swap::Guard::into_inner(now);
        }
    }

    /// Puts others in place of the settings. Each shard goes by them from its next turn on.
    pub fn change_settings(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    /// Puts other bounds in place of those of the lanes: [`LaneConfig::max_bytes`] of each, and
    /// [`LaneConfig::patience`].
    pub fn change_lanes(&self, max_bytes: usize, patience: u32) {
        self.lanes.iter().for_each(|lane| lock(lane).set_bounds(max_bytes, patience));
    }

    /// Takes the commands of one turn of a shard.
    pub fn command(self: &Arc<Self>, commands: Vec<(ConversationId, Command)>) {
        let now_ms = self.host.now_ms();
        let mut effects = Vec::new();
        // Nearly all turns bring few commands, so one lock a command is cheaper than sorting.
        for (conversation, command) in commands {
            self.lane(conversation).handle_command(conversation, command, now_ms, &mut effects);
        }
        self.carry_out(effects);
    }

    /// Time moves on; to be called every [`TICK`]. Who has waited too long for the store is told so.
    pub fn tick(self: &Arc<Self>) {
        let mut effects = Vec::new();
        for lane in &self.lanes {
            lock(lane).handle_tick(&mut effects);
        }
        if let Some(tracer) = self.tracer() {
            tracer.tick(Instant::now());
        }
        self.carry_out(effects);
    }

    /// Writes cursors behind; to be called a few times a second, and once at the end.
    ///
    /// They are handed over in pieces, one after the other, so that a store that works on some of
    /// them at a time lets none of them wait for longer than a request may. A piece that fails does
    /// not keep the others: a part of a store may be gone. It is taken up again by the next call.
    ///
    /// # Errors
    /// The first one, when all pieces have been tried.
    pub async fn flush_cursors(&self) -> Result<(), StoreError> {
        let mut updates = Vec::new();
        let mut outcome = Ok(());
        for lane in &self.lanes {
            updates.append(&mut lock(lane).take_cursor_updates());
            while updates.len() >= CURSOR_PIECE {
                let rest = updates.split_off(CURSOR_PIECE);
                let piece = std::mem::replace(&mut updates, rest);
                outcome = outcome.and(self.write_cursors(piece).await);
            }
        }
        if !updates.is_empty() {
            outcome = outcome.and(self.write_cursors(updates).await);
        }
        outcome
    }

    async fn write_cursors(&self, piece: Vec<CursorUpdate>) -> Result<(), StoreError> {
        let result = self.store.advance(piece.clone()).await;
        self.note_trouble(result.as_ref().err());
        for update in &piece {
            self.lane(update.conversation).handle_cursor_written(update, result.is_ok());
        }
        result
    }

    /// Head and cursors of a conversation that is in memory.
    pub(crate) fn peek(&self, conversation: ConversationId) -> Option<Peek> {
        self.lane(conversation).peek(conversation)
    }

    /// Bytes of messages that wait for the store.
    pub fn waiting_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lock(lane).waiting_bytes()).sum()
    }

    /// How much and how often, and what was refused for it.
    pub fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }

    /// Sends mail from outside a lane.
    pub fn post(&self, conn: ConnId, mail: Mail) {
        let mut outgoing = self.outgoing();
        outgoing.push(conn, mail);
        self.dispatch(outgoing);
    }

    /// Sends everybody away. Nobody logs in any more, also on a shard that the mail does not reach.
    pub fn drain(&self, drain: Drain) {
        self.stopping.store(true, Ordering::Relaxed);
        for mailbox in &self.mailboxes {
            // A full mailbox takes nothing; the stop of the engine closes the rest.
            let _ = mailbox.send(Mail::Drain(drain));
        }
    }

    /// A stop of the process is under way.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether logins are refused, because sessions are being sent away. A stop refuses them for
    /// good.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Everybody is being sent away.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed) || self.stopping.load(Ordering::Relaxed)
    }

    /// How often mail for this shard was lost.
    pub(crate) fn overflows(&self, shard: usize) -> u32 {
        self.overflows.get(shard).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Counts a session in, unless the gateway is full.
    pub(crate) fn admit(&self) -> Option<u64> {
        let max = self.settings.load().limits.max_sessions;
        let admitted = self.sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < max).then_some(count + 1)
        });
        admitted.ok().map(|_| self.next_session())
    }

    /// Counts a session in that takes the place of another, which is still counted.
    pub(crate) fn admit_replacement(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.next_session()
    }

    fn next_session(&self) -> u64 {
        self.last_session.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a session out.
    pub(crate) fn dismiss(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// What a shard counts; for its driver alone to write.
    pub(crate) fn figures_of(&self, shard: usize) -> Arc<ShardFigures> {
        self.shard_figures.get(shard).cloned().unwrap_or_default()
    }

    /// Conversations in memory, and those on their way there.
    pub(crate) fn conversations(&self) -> usize {
        self.lanes.iter().map(|lane| lock(lane).conversations()).sum()
    }

    /// Follows some messages from now on; only the first call counts.
    pub fn trace_with(&self, tracer: Arc<Tracer>) {
        let _ = self.tracer.set(tracer);
    }

    /// Who follows messages, if anybody.
    pub(crate) fn tracer(&self) -> Option<&Tracer> {
        self.tracer.get().map(|tracer| &**tracer)
    }

    fn note_trouble(&self, error: Option<&StoreError>) {
        if let Some(error) = error {
            self.figures.trouble(error);
        }
    }

    /// The ways to the shards, by index.
    pub(crate) fn mailboxes(&self) -> &[Mailbox<Mail>] {
        &self.mailboxes
    }

    /// Sessions that are logged in.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Under which connections the user's devices are listed as online.
    pub fn connections_of(&self, user: &UserId) -> Vec<ConnId> {
        let mut all = Vec::new();
        self.registry.for_each(user, |conn| all.push(conn));
        all
    }

    fn lane(&self, conversation: ConversationId) -> MutexGuard<'_, Lane> {
        lock(&self.lanes[self.lane_of(conversation)])
    }

    fn lane_of(&self, conversation: ConversationId) -> usize {
        // The id is a hash already; its first byte is the kind.
        let bytes = conversation.as_bytes();
        usize::from(u16::from_le_bytes([bytes[14], bytes[15]])) % self.lanes.len()
    }

    fn outgoing(&self) -> Outgoing {
        Outgoing::new(self.mailboxes.len())
    }

    fn dispatch(&self, outgoing: Outgoing) {
        for shard in outgoing.send(&self.mailboxes) {
            self.overflows[shard].fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                shard,
                "a shard is behind: mail for its sessions was lost, they will ask"
            );
        }
    }

    fn carry_out(self: &Arc<Self>, effects: Vec<Effect>) {
        let mut outgoing = self.outgoing();
        let (mut appends, mut loads, mut scans, mut looks) = (vec![], vec![], vec![], vec![]);
        for effect in effects {
            match effect {
                Effect::Ack(ack) => {
                    let (conn, durable) = (ack.conn, Answered::Durable(ack.asked));
                    outgoing.push(conn, Mail::Answer(conn, self.ack_frame(ack), durable));
                }
                Effect::Refuse(conn, refusal) => {
                    let refused = Answered::Refused(refusal.code);
                    outgoing.push(conn, Mail::Answer(conn, refusal.frame(), refused));
                }
                Effect::Deliver(delivery) => self.deliver(&delivery, &mut outgoing),
                Effect::Receipt(receipt) => self.receipt(&receipt, &mut outgoing),
                Effect::Head(conn, mark) => outgoing.push(conn, Mail::Head(conn, mark)),
                Effect::Grown(mark, members) => {
                    for user in members.iter() {
                        self.registry
                            .for_each(user, |conn| outgoing.push(conn, Mail::Head(conn, mark)));
                    }
                }
                Effect::Append(append) => appends.push(append),
                Effect::Load(load) => loads.push(load),
                Effect::Scan(scan) => scans.push(scan),
                Effect::Look(conversation) => looks.push(conversation),
            }
        }
        self.dispatch(outgoing);
        if !appends.is_empty() {
            self.submit(appends);
        }
        loads.into_iter().for_each(|load| self.spawn_load(load));
        scans.into_iter().for_each(|scan| self.spawn_scan(scan));
        looks.into_iter().for_each(|conversation| self.spawn_look(conversation));
    }

    fn ack_frame(&self, ack: Ack) -> Bytes {
        let trace = match ack.asked.trace {
            0 => None,
            number => self.tracer().and_then(|tracer| tracer.id(number)),
        };
        server_frame(Kind::SendAck(wire::SendAck {
            client_msg_id: ack.client_msg_id.as_str().into(),
            conversation: id_bytes(ack.conversation),
            seq: ack.seq,
            time_ms: ack.time_ms,
            trace_id: trace.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(&id)),
        }))
    }

    /// Encodes once, for all recipients.
    fn deliver(&self, delivery: &Delivery, outgoing: &mut Outgoing) {
        let Delivery { conversation, record, members, origin, asked } = delivery;
        let mark = skein_protocol::cursor::Mark { conversation: *conversation, seq: record.seq };
        let mut frame: Option<Bytes> = None;
        let mut pushes = 0;
        for user in members.iter() {
            self.registry.for_each(user, |conn| {
                if conn != *origin {
                    pushes += 1;
                    let frame = frame.get_or_insert_with(|| {
                        let messages = vec![wire_message(*conversation, record)];
                        server_frame(Kind::Push(wire::Push { messages }))
                    });
                    outgoing.push(conn, Mail::Push(conn, mark, frame.clone(), *asked));
                }
            });
        }
        if asked.trace != 0
            && let Some(tracer) = self.tracer()
        {
            tracer.expects(asked.trace, pushes);
        }
    }

    fn receipt(&self, receipt: &Receipt, outgoing: &mut Outgoing) {
        let kind = match receipt.kind {
            CursorKind::Delivered => wire::ReceiptKind::Delivered,
            CursorKind::Read => wire::ReceiptKind::Read,
        };
        let mut frame: Option<Bytes> = None;
        for user in receipt.members.iter() {
            // The user's own devices follow what was read, not what another one received.
            if *user == receipt.user && receipt.kind == CursorKind::Delivered {
                continue;
            }
            self.registry.for_each(user, |conn| {
                if conn != receipt.origin {
                    let frame = frame.get_or_insert_with(|| {
                        server_frame(Kind::Receipt(wire::Receipt {
                            conversation: id_bytes(receipt.conversation),
                            kind: kind.into(),
                            user: receipt.user.as_str().into(),
                            seq: receipt.seq,
                        }))
                    });
                    outgoing.push(conn, Mail::Receipt(conn, frame.clone()));
                }
            });
        }
    }

    fn submit(self: &Arc<Self>, appends: Vec<Append>) {
        let conversations = appends.iter().map(|append| append.conversation).collect();
        appends.iter().for_each(|it| self.figures.append_messages.note_shared(it.records.len()));
        let sink = LaneSink { hub: self.clone(), conversations, submitted: Instant::now() };
        self.store.submit(appends, Arc::new(sink));
    }

    fn spawn_load(self: &Arc<Self>, load: Load) {
        let hub = self.clone();
        self.host.spawn(Box::pin(async move {
            let conversation = load.conversation;
            let loaded = read_conversation(&*hub.store, load).await;
            hub.figures.loads.add_shared(1);
            hub.note_trouble(loaded.as_ref().err());
            tell_damage(conversation, loaded.as_ref().err());
            let mut effects = Vec::new();
            let now_ms = hub.host.now_ms();
            hub.lane(conversation).handle_loaded(conversation, loaded, now_ms, &mut effects);
            hub.carry_out(effects);
        }));
    }

    fn spawn_scan(self: &Arc<Self>, scan: Scan) {
        let hub = self.clone();
        self.host.spawn(Box::pin(async move {
            let found = scan_log(&*hub.store, &hub.scan_steps, &scan).await;
            hub.figures.scans.add_shared(1);
            hub.note_trouble(found.as_ref().err());
            tell_damage(scan.conversation, found.as_ref().err());
            let mut effects = Vec::new();
            let now_ms = hub.host.now_ms();
            hub.lane(scan.conversation).handle_scanned(&scan, found, now_ms, &mut effects);
            hub.carry_out(effects);
        }));
    }

    fn spawn_look(self: &Arc<Self>, conversation: ConversationId) {
        let hub = self.clone();
        self.host.spawn(Box::pin(async move {
            let extent = hub.store.extent(conversation).await;
            hub.note_trouble(extent.as_ref().err());
            tell_damage(conversation, extent.as_ref().err());
            let mut effects = Vec::new();
            hub.lane(conversation).handle_looked(conversation, extent, &mut effects);
            hub.carry_out(effects);
        }));
    }
}

/// Of a store that does not answer the store itself tells, once. Damage is told where it is met.
fn tell_damage(conversation: ConversationId, error: Option<&StoreError>) {
    if let Some(error @ StoreError::Damaged(_)) = error {
        tracing::warn!(%conversation, %error, "a conversation cannot be served");
    }
}

/// Leads the outcomes of one submitted group back to their lanes.
struct LaneSink {
    hub: Arc<Hub>,
    conversations: Vec<ConversationId>,
    submitted: Instant,
}

impl AppendSink for LaneSink {
    fn appended(&self, outcomes: Vec<(usize, Result<(), AppendError>)>) {
        let mut effects = Vec::new();
        let took = self.submitted.elapsed();
        for (place, outcome) in outcomes {
            let Some(&conversation) = self.conversations.get(place) else { continue };
            self.hub.figures.append.note_shared(took);
            match &outcome {
                Ok(()) => {}
                Err(AppendError::Conflict { .. }) => self.hub.figures.conflict(),
                Err(AppendError::Store(error)) => {
                    self.hub.figures.trouble(error);
                    tell_damage(conversation, Some(error));
                }
            }
            self.hub.lane(conversation).handle_appended(conversation, outcome, &mut effects);
        }
        self.trace(&effects, took);
        self.hub.carry_out(effects);
    }
}

impl LaneSink {
    fn trace(&self, effects: &[Effect], took: Duration) {
        let Some(tracer) = self.hub.tracer() else { return };
        for effect in effects {
            if let Effect::Deliver(Delivery { conversation, record, asked, .. }) = effect
                && asked.trace != 0
            {
                tracer.durable(asked.trace, (*conversation, record.seq), took);
            }
        }
    }
}

pub(crate) fn wire_message(
    conversation: ConversationId,
    record: &skein_storage::Record,
) -> wire::Message {
    wire::Message {
        conversation: id_bytes(conversation),
        seq: record.seq,
        sender: record.sender.as_str().into(),
        sender_device: record.device.as_str().into(),
        client_msg_id: record.client_msg_id.as_str().into(),
        time_ms: record.time_ms,
        content_type: record.content_type.clone(),
        payload: record.payload.clone(),
    }
}

pub(crate) fn id_bytes(conversation: ConversationId) -> Bytes {
    Bytes::copy_from_slice(conversation.as_bytes())
}

/// The one-to-one conversation or the named one.
pub(crate) fn conversation_of(
    user: &UserId,
    target: &skein_protocol::server::Target,
) -> ConversationId {
    use skein_protocol::server::Target;
    match target {
        Target::User(peer) => ConversationId::one_to_one(user, peer),
        Target::Conversation(id) => *id,
    }
}

/// A lane is only changed by code that does not panic half way; if it did, serving on is better
/// than stopping everybody.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
