//! Everything that is counted, as one page. `docs/metrics.md` is made of this page, see
//! [`super::reference`].

use std::fmt::Result;

use skein_protocol::Code;
use skein_storage::MetricsVisitor;
use skein_transport::ShardStats;

use super::count::{ByCode, Count, Distribution, Sizes, Times};
use super::figures::{
    Ended, HubFigures, PageKind, Received, Sent, ShardFigures, StoreTrouble, label_of,
};
use super::machine::Process;
use super::text::{Out, StoreMetrics};

/// All that is read for one page.
pub(super) struct Reading<'a> {
    pub(super) shards: Vec<Shard<'a>>,
    pub(super) hub: &'a HubFigures,
    pub(super) level: Level,
    pub(super) process: Process,
    /// Shows what the store counts.
    pub(super) store: &'a dyn Fn(&mut dyn MetricsVisitor),
}

/// One shard.
pub(super) struct Shard<'a> {
    pub(super) transport: ShardStats,
    pub(super) figures: &'a ShardFigures,
    pub(super) mail: usize,
}

/// What holds at this moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Level {
    pub(super) sessions: usize,
    pub(super) max_sessions: usize,
    pub(super) users: usize,
    pub(super) conversations: usize,
    pub(super) waiting_bytes: usize,
    pub(super) pages: usize,
    pub(super) mail_lost: u64,
    pub(super) store_up: bool,
    pub(super) draining: bool,
    pub(super) ready: bool,
    pub(super) started_seconds: f64,
    /// Memory of the process when it began to serve.
    pub(super) base_bytes: u64,
    pub(super) disk_free_bytes: Option<u64>,
    pub(super) disk_reserve_bytes: u64,
    /// Datagrams dropped by the kernel, and bytes that wait in its buffers.
    pub(super) udp: Option<(u64, u64)>,
    pub(super) traces: Traces,
    pub(super) log_lines_left_out: u64,
    /// How often each limit was met.
    pub(super) limits: Vec<(&'static str, u64)>,
    pub(super) untracked: u64,
    /// Configurations put in force and refused while it ran, and whether the latest was refused.
    pub(super) reloads: (u64, u64),
    pub(super) reload_refused: bool,
    /// Files with certificates, and when they end, Unix time in seconds.
    pub(super) certificates: Vec<(String, u64)>,
}

/// What became of traces.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traces {
    pub(super) exported: u64,
    pub(super) dropped: u64,
    pub(super) failed_exports: u64,
}

impl Reading<'_> {
    pub(super) fn show(&self, out: &mut Out<'_, '_>) -> Result {
        self.health(out)?;
        self.sessions(out)?;
        self.frames(out)?;
        self.limits(out)?;
        self.latency(out)?;
        self.lanes(out)?;
        self.shards(out)?;
        self.udp(out)?;
        self.store(out)?;
        self.traces(out)?;
        self.process(out)
    }

    fn all(&self) -> ShardStats {
        self.shards.iter().fold(ShardStats::default(), |sum, shard| sum + shard.transport)
    }

    fn health(&self, out: &mut Out<'_, '_>) -> Result {
        let level = &self.level;
        let version = [(env!("CARGO_PKG_VERSION"), 1)];
        out.gauges("skein_build_info", "The running version", "version", version)?;
        out.gauge("skein_ready", "1: new clients are served", level.ready)?;
        out.gauge("skein_draining", "1: sessions are being sent away", level.draining)?;
        out.gauge("skein_store_up", "1: the store takes reads and writes", level.store_up)?;
        out.gauges(
            "skein_certificate_expiry_timestamp_seconds",
            "When the first certificate of a file ends, Unix time",
            "file",
            level.certificates.iter().map(|(file, ends)| (file, *ends)),
        )?;
        let (applied, refused) = level.reloads;
        out.counters(
            "skein_reloads_total",
            "New configurations, by what came of them",
            "result",
            [("applied", applied), ("refused", refused)],
        )?;
        out.gauge(
            "skein_reload_refused",
            "1: the latest new configuration was refused; the gateway would not start with it",
            level.reload_refused,
        )?;
        out.counter(
            "skein_log_lines_left_out_total",
            "Lines left out of the log because too many of their kind came at once",
            level.log_lines_left_out,
        )
    }

    fn sessions(&self, out: &mut Out<'_, '_>) -> Result {
        let (level, all) = (&self.level, self.all());
        out.gauge("skein_sessions", "Sessions logged in", level.sessions)?;
        out.gauge("skein_sessions_limit", "Sessions that it may hold", level.max_sessions)?;
        out.gauge("skein_users_online", "Users with a session", level.users)?;
        let established = all.connections.saturating_sub(all.handshaking);
        out.gauges(
            "skein_connections",
            "QUIC connections by state; those that are just ending count as established",
            "state",
            [("handshaking", all.handshaking), ("established", established)],
        )?;
        out.counter("skein_handshakes_total", "Handshakes that clients began", all.accepted)?;
        out.counter(
            "skein_handshakes_completed_total",
            "Handshakes that were completed",
            all.connected,
        )?;
        let known =
            all.handshakes_timed_out + all.handshakes_failed_in_tls + all.handshakes_closed_by_peer;
        out.counters(
            "skein_handshake_failures_total",
            "Handshakes that failed, by cause; tls: no protocol in common, a certificate that the \
             client does not trust",
            "cause",
            [
                ("timed_out", all.handshakes_timed_out),
                ("tls", all.handshakes_failed_in_tls),
                ("closed_by_peer", all.handshakes_closed_by_peer),
                ("other", all.handshakes_failed.saturating_sub(known)),
            ],
        )?;
        out.counter(
            "skein_handshakes_refused_total",
            "Handshakes refused because a limit of connections or handshakes was reached",
            all.refused,
        )?;
        out.counter(
            "skein_handshake_retries_total",
            "Clients that were asked to prove their address (Retry)",
            all.retried,
        )?;
        out.counter("skein_logins_total", "Sessions welcomed", self.count(|it| &it.logins))?;
        out.counters(
            "skein_login_failures_total",
            "Connections that the gateway closed before they were welcomed, by code",
            "code",
            self.by_code(|it| &it.login_failures),
        )?;
        out.counters(
            "skein_sessions_evicted_total",
            "Sessions that the gateway ended, by code; ok: the client said Bye",
            "code",
            self.by_code(|it| &it.evicted),
        )?;
        out.counters(
            "skein_sessions_left_total",
            "Sessions that ended without the gateway's doing, by cause",
            "cause",
            self.words(Ended::WORDS, |it| &it.ended),
        )?;
        let bytes = self.process.resident_bytes.unwrap_or(0).saturating_sub(level.base_bytes);
        let each = if level.sessions == 0 { 0.0 } else { bytes as f64 / level.sessions as f64 };
        out.gauge(
            "skein_session_memory_bytes",
            "Resident memory beyond that of the start, for each session; says something from \
             thousands of sessions on",
            each,
        )
    }

    fn frames(&self, out: &mut Out<'_, '_>) -> Result {
        out.counters(
            "skein_frames_received_total",
            "Frames from clients by kind; refused: sends that break a rule, passed_over: of a kind \
             that this version does not know",
            "kind",
            self.words(Received::WORDS, |it| &it.received),
        )?;
        out.counters(
            "skein_frames_sent_total",
            "Frames to clients by kind",
            "kind",
            self.words(Sent::WORDS, |it| &it.sent),
        )?;
        out.counters(
            "skein_requests_refused_total",
            "Sends answered with an error, by code",
            "code",
            self.by_code(|it| &it.refused),
        )?;
        out.counter(
            "skein_pushes_left_out_total",
            "Pushes left out because a session reads too slowly; it is told with Behind and pulls",
            self.count(|it| &it.left_out),
        )?;
        out.counters(
            "skein_sync_pages_total",
            "Pages read for syncs and history, by what they hold",
            "kind",
            PageKind::WORDS.iter().zip(&self.hub.pages).map(|(word, n)| (word, n.get())),
        )?;
        out.gauge(
            "skein_sync_pages_under_way",
            "Pages that are read now, or wait for it",
            self.level.pages,
        )
    }

    fn limits(&self, out: &mut Out<'_, '_>) -> Result {
        out.counters(
            "skein_limit_hits_total",
            "Times that a limit on how much or how often was met",
            "limit",
            self.level.limits.iter().copied(),
        )?;
        out.counter(
            "skein_limit_untracked_total",
            "Times that a limit was not looked at because its table was full",
            self.level.untracked,
        )
    }

    fn latency(&self, out: &mut Out<'_, '_>) -> Result {
        out.histogram(
            "skein_send_ack_seconds",
            "Time from the arrival of a message until its acknowledgement is given to QUIC",
            Times::bounds(),
            &self.times(|it| &it.ack),
        )?;
        out.histogram(
            "skein_send_push_seconds",
            "Time from the arrival of a message until its push is given to QUIC, for each recipient",
            Times::bounds(),
            &self.times(|it| &it.push),
        )?;
        let mut append = Distribution::default();
        self.hub.append.add_to(&mut append);
        out.histogram(
            "skein_append_seconds",
            "Time from the submission of an append to the store until its outcome",
            Times::bounds(),
            &append,
        )?;
        out.histogram(
            "skein_append_messages",
            "Messages in an append",
            Sizes::bounds(),
            &self.hub.append_messages.read(),
        )
    }

    fn lanes(&self, out: &mut Out<'_, '_>) -> Result {
        out.gauge(
            "skein_lane_waiting_bytes",
            "Bytes of messages that wait for the store",
            self.level.waiting_bytes,
        )?;
        out.gauge(
            "skein_conversations_in_memory",
            "Conversations that lanes hold",
            self.level.conversations,
        )?;
        out.counter(
            "skein_conversation_loads_total",
            "Conversations read from the store",
            self.hub.loads.get(),
        )?;
        out.counter(
            "skein_log_scans_total",
            "Searches of a log for messages that were sent again",
            self.hub.scans.get(),
        )
    }

    fn shards(&self, out: &mut Out<'_, '_>) -> Result {
        let each = |value: fn(&Shard<'_>) -> u64| {
            self.shards.iter().enumerate().map(move |(n, shard)| (n.to_string(), value(shard)))
        };
        out.gauges(
            "skein_shard_connections",
            "Connections of a shard",
            "shard",
            each(|shard| shard.transport.connections),
        )?;
        let connections = self.shards.iter().map(|shard| shard.transport.connections);
        let most = connections.clone().max().unwrap_or(0) as f64;
        let mean = connections.sum::<u64>() as f64 / self.shards.len().max(1) as f64;
        out.gauge(
            "skein_shard_imbalance_ratio",
            "Connections of the fullest shard over those of the average one; 1: even",
            if mean > 0.0 { most / mean } else { 1.0 },
        )?;
        let busy = self.shards.iter().enumerate();
        out.counters(
            "skein_shard_busy_seconds_total",
            "Time that a shard's thread was at work; its rate is the load, 1: full",
            "shard",
            busy.map(|(n, shard)| (n.to_string(), shard.transport.busy_nanos as f64 / 1e9)),
        )?;
        out.counters(
            "skein_shard_turns_total",
            "Turns of a shard's loop",
            "shard",
            each(|shard| shard.transport.turns),
        )?;
        out.counters(
            "skein_shard_mail_total",
            "Messages from lanes and other threads that a shard has taken",
            "shard",
            each(|shard| shard.transport.mails),
        )?;
        out.gauges(
            "skein_shard_mail_waiting",
            "Messages that wait for a shard",
            "shard",
            each(|shard| shard.mail as u64),
        )?;
        out.counter(
            "skein_shard_mail_lost_total",
            "Times that a shard's mailbox was full; its sessions are told to ask for all heads",
            self.level.mail_lost,
        )?;
        out.gauges(
            "skein_outbox_bytes",
            "Bytes that wait for the sessions of a shard",
            "shard",
            each(|shard| shard.transport.outbox_total),
        )?;
        let full = self.all().outbox_full;
        out.counter("skein_outbox_full_total", "Writes refused because an outbox was full", full)
    }

    fn udp(&self, out: &mut Out<'_, '_>) -> Result {
        let all = self.all();
        for (name, help, value) in [
            ("skein_udp_datagrams_received_total", "Datagrams received", all.datagrams_in),
            ("skein_udp_datagrams_sent_total", "Datagrams sent", all.datagrams_out),
            ("skein_udp_received_bytes_total", "Bytes of datagrams received", all.bytes_in),
            ("skein_udp_sent_bytes_total", "Bytes of datagrams sent", all.bytes_out),
            ("skein_udp_receive_calls_total", "System calls that received", all.receives),
            ("skein_udp_send_calls_total", "System calls that sent", all.sends),
            ("skein_udp_receive_errors_total", "Receive calls that failed", all.receive_errors),
            ("skein_udp_send_errors_total", "Datagrams that the socket refused", all.send_errors),
            (
                "skein_udp_send_blocked_total",
                "Times that the socket's send buffer was full",
                all.send_blocked,
            ),
            (
                "skein_udp_handed_over_total",
                "Datagrams that came to the socket of another shard and were handed over",
                all.handed_over,
            ),
        ] {
            out.counter(name, help, value)?;
        }
        let (kernel, waiting) = self.level.udp.unwrap_or_default();
        out.counters(
            "skein_udp_dropped_total",
            "Datagrams dropped; kernel: a socket's receive buffer was full, hand_over: the queue \
             to another shard was",
            "where",
            [("kernel", kernel), ("hand_over", all.hand_over_dropped)],
        )?;
        out.gauge(
            "skein_udp_receive_queue_bytes",
            "Bytes that wait in the sockets' receive buffers",
            waiting,
        )
    }

    fn store(&self, out: &mut Out<'_, '_>) -> Result {
        let trouble = StoreTrouble::WORDS.iter().zip(&self.hub.store_trouble);
        out.counters(
            "skein_store_errors_total",
            "Calls to the store that failed; conflict: another gateway had written on",
            "kind",
            trouble.map(|(word, count)| (word, count.get())),
        )?;
        if let Some(free) = self.level.disk_free_bytes {
            out.gauge("skein_disk_free_bytes", "Free space where the data folder is", free)?;
        }
        out.gauge(
            "skein_disk_reserve_bytes",
            "Free space below which no messages are taken",
            self.level.disk_reserve_bytes,
        )?;
        let mut visitor = StoreMetrics { out, result: Ok(()) };
        (self.store)(&mut visitor);
        visitor.result
    }

    fn traces(&self, out: &mut Out<'_, '_>) -> Result {
        let Traces { exported, dropped, failed_exports } = self.level.traces;
        out.counter("skein_traces_exported_total", "Traces that the collector took", exported)?;
        out.counter(
            "skein_traces_dropped_total",
            "Traces that were dropped: too many under way, or the collector took none",
            dropped,
        )?;
        out.counter(
            "skein_trace_export_failures_total",
            "Batches of traces that the collector did not take",
            failed_exports,
        )
    }

    fn process(&self, out: &mut Out<'_, '_>) -> Result {
        let process = &self.process;
        let started = self.level.started_seconds;
        out.gauge("process_start_time_seconds", "When it began to serve, Unix time", started)?;
        if let Some(seconds) = process.cpu_seconds {
            out.counter("process_cpu_seconds_total", "Processor time", seconds)?;
        }
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Resident memory", process.resident_bytes),
            ("process_open_fds", "Open file descriptors", process.open_fds),
            ("process_max_fds", "Most file descriptors that it may open", process.max_fds),
            ("process_threads", "Threads", process.threads),
        ] {
            if let Some(value) = value {
                out.gauge(name, help, value)?;
            }
        }
        Ok(())
    }

    fn count(&self, of: fn(&ShardFigures) -> &Count) -> u64 {
        self.shards.iter().map(|shard| of(shard.figures).get()).sum()
    }

    fn times(&self, of: fn(&ShardFigures) -> &Times) -> Distribution {
        let mut sum = Distribution::default();
        self.shards.iter().for_each(|shard| of(shard.figures).add_to(&mut sum));
        sum
    }

    fn words<const N: usize>(
        &self,
        words: &'static [&'static str],
        of: fn(&ShardFigures) -> &[Count; N],
    ) -> impl Iterator<Item = (&'static str, u64)> {
        words.iter().enumerate().map(move |(n, word)| {
            (*word, self.shards.iter().map(|shard| of(shard.figures)[n].get()).sum())
        })
    }

    /// All codes, also those that nobody has met: a series that begins with its first event hides
    /// it from `rate()`.
    fn by_code(&self, of: fn(&ShardFigures) -> &ByCode) -> Vec<(String, u64)> {
        let mut sums = vec![0; Code::ALL.len()];
        for shard in &self.shards {
            sums.iter_mut().zip(of(shard.figures).get()).for_each(|(sum, n)| *sum += n);
        }
        Code::ALL.iter().zip(sums).map(|(code, sum)| (label_of(*code), sum)).collect()
    }
}
