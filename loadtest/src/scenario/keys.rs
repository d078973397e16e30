//! Every key with its meaning, default, unit and range, in one list. The typed structs, the flags,
//! the file that `--print` writes and the messages about wrong values all come from it; to add a
//! key, add it here.

use std::path::PathBuf;
use std::time::Duration;

use super::program::Program::{self, Chat, Churn, Group, Hold, Mixed, Ramp, Storm, Sync};
use super::quantity::{Bytes, Range, count, decimal, share, span, whole};
use super::rule::{
    Flag, Folder, Hosts, Objectives, OneOf, OptionalFile, OptionalFolder, OptionalHost,
    OptionalText, OptionalUrl, RunId, Settings, Text, WeightsRule,
};
use super::table::settings;
use super::value::{ArrivalKind, CutKind, HostPort, Weights};
use crate::objective::Objective;

/// UDP port that gateways use unless told otherwise.
pub const DEFAULT_PORT: u16 = 7843;

const fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

const fn secs(number: u64) -> Duration {
    Duration::from_secs(number)
}

const ZERO: Duration = Duration::ZERO;
const DAY: Duration = secs(24 * 3600);
/// Sessions of a run on several machines.
const MOST_SESSIONS: u64 = 16_000_000;
/// Messages a second of a run on several machines.
const MOST_RATE: f64 = 100_000_000.0;

const ALL: &[Program] = &[];
const SESSIONS: &[Program] = &[Hold, Storm, Churn, Mixed];
const PAYLOAD: &[Program] = &[Chat, Group, Sync, Mixed, Ramp];

settings! {
    /// The run itself.
    [""] run: RunKeys {
        /// What reports call it. Without one, the name of the program.
        name("name", "name", ALL): Option<String> = None, OptionalText(64);
        /// How long the load is measured. Before it sessions are made and the load warms up; both
        /// are shown, neither is measured.
        measured("for", "for", ALL): Duration = secs(30), span(secs(1), secs(30 * 24 * 3600));
        /// How long the load runs before it is measured, so that caches, windows and the store are
        /// as they will be.
        warm_up("warm_up", "warm-up", ALL): Duration = secs(3), span(ZERO, DAY);
        /// What must hold in the end: p99.9(send_ack)<50ms, lost==0, connected>=100000. Lost,
        /// duplicated, reordered or corrupted messages fail every run, asked for or not.
        objectives("objectives", "objective", ALL): Vec<Objective> = Vec::new(), Objectives;
        /// Folder for the report. Without one: skein-load-NAME-TIME here.
        report("report", "report", ALL): Option<PathBuf> = None, OptionalFolder;
        /// Serve figures for Prometheus at http://ADDRESS/metrics while the run lasts.
        metrics("metrics", "metrics", ALL): Option<HostPort> = None, OptionalHost;
    }

    /// The gateway.
    ["target"] target: TargetKeys {
        /// Where the gateway listens. Of several, sessions take one each in turns.
        address("target.address", "target", ALL): Vec<HostPort>
            = vec![HostPort { host: "127.0.0.1".into(), port: DEFAULT_PORT }], Hosts("a gateway");
        /// Name in the gateway's certificate. Without one: the host of the address, or localhost
        /// with the development certificate of `data`.
        server_name("target.server_name", "server-name", ALL): Option<String>
            = None, OptionalText(253);
        /// Certificate to trust, PEM. Without one: the development certificate of `data`, if it is
        /// there, else what this system trusts.
        ca("target.ca", "ca", ALL): Option<PathBuf> = None, OptionalFile;
        /// Data folder of a gateway on this machine that was started without keys of its own: its
        /// development certificate and token key are used where no others are given.
        data("target.data", "data", ALL): PathBuf = "./skein-data".into(), Folder;
        /// Start a gateway on this machine on a folder of its own, and stop it afterwards.
        spawn("target.spawn", "spawn-gateway", ALL): bool = false, Flag;
        /// The program to start. Without one: `skein` beside this program.
        program("target.program", "gateway", ALL): Option<PathBuf> = None, OptionalFile;
        /// Keys of the started gateway's configuration, such as store.cache_bytes=1GiB.
        settings("target.settings", "gateway-set", ALL): Vec<String> = Vec::new(), Settings;
        /// Process of a gateway on this machine whose memory and processor time are reported. 0:
        /// none; a started gateway is known without.
        pid("target.pid", "target-pid", ALL): u64 = 0, whole("PID", 0, u32::MAX as u64);
        /// Where a gateway elsewhere exposes the figures of its process for Prometheus
        /// (process_cpu_seconds_total, process_resident_memory_bytes): http://HOST:PORT/metrics.
        /// They are asked for once a second.
        metrics_url("target.metrics_url", "target-metrics", ALL): Option<String>
            = None, OptionalUrl;
    }

    /// Who the users are. Without a key and without tokens the development key of `target.data`
    /// signs.
    ["users"] users: UserKeys {
        /// Key that signs the users' tokens: a private key in PEM (Ed25519, or P-256 in PKCS#8),
        /// or the bytes of a shared secret, at least 32.
        key("users.key", "token-key", ALL): Option<PathBuf> = None, OptionalFile;
        /// A file with one token a line, each of another user.
        tokens("users.tokens", "tokens", ALL): Option<PathBuf> = None, OptionalFile;
        /// `kid` of the tokens.
        key_id("users.key_id", "key-id", ALL): Option<String> = None, OptionalText(256);
        /// `aud` of the tokens.
        audience("users.audience", "audience", ALL): String = "skein".into(), Text(256);
        /// `iss` of the tokens.
        issuer("users.issuer", "issuer", ALL): Option<String> = None, OptionalText(256);
        /// How long a token is good for. Sessions ask for a new one in time.
        token_lifetime("users.token_lifetime", "token-lifetime", ALL): Duration
            = secs(3600), span(secs(60), secs(366 * 24 * 3600));
        /// Begins the users' names, so that runs on one store do not meet: 1 to 16 of a-z 0-9.
        /// Without one: drawn anew for each run.
        run_id("users.run_id", "run-id", ALL): Option<String> = None, RunId;
    }

    /// What the users do.
    ["load"] load: LoadKeys {
        /// Sessions.
        connections("load.connections", "connections", SESSIONS): u64
            = 1000, count(MOST_SESSIONS);
        /// New sessions a second while they are being made.
        connect_rate("load.connect_rate", "connect-rate", ALL): f64
            = 1000.0, decimal("RATE", 0.01, 1_000_000.0);
        /// Pairs of users, a session each.
        pairs("load.pairs", "pairs", &[Chat, Ramp]): u64 = 100, count(MOST_SESSIONS / 2);
        /// The second of each pair writes too.
        both_ways("load.both_ways", "both-ways", &[Chat, Mixed, Ramp]): bool = false, Flag;
        /// Groups, with one writer each.
        groups("load.groups", "groups", &[Group, Mixed, Ramp]): u64 = 1, count(1_000_000);
        /// Sessions that get each message of a group.
        receivers("load.receivers", "receivers", &[Group, Mixed, Ramp]): u64
            = 10, count(1_000_000);
        /// Messages a second of all writers together, whatever is answered.
        rate("load.rate", "rate", &[Chat, Group, Ramp]): f64
            = 1000.0, decimal("RATE", 0.001, MOST_RATE);
        /// How messages are spread over time: even, or poisson as independent users would.
        arrival("load.arrival", "arrival", &[Chat, Group, Ramp]): ArrivalKind
            = ArrivalKind::Even, OneOf;
        /// Instead of a rate: messages that each writer has under way. Finds the most that the
        /// gateway can do; such latency is not what users feel, and reports say so. For `sync`:
        /// while the backlog is made. 0: off.
        outstanding("load.outstanding", "outstanding", &[Chat, Group, Sync]): u64
            = 0, whole("COUNT", 0, 4096);
        /// Instead of a rate: how long a writer waits on average from one message to the next.
        think_time("load.think_time", "think-time", &[Chat, Group, Mixed]): Duration
            = ZERO, span(ZERO, DAY);
        /// Length of a message, or a range of which lengths are drawn: 128, "64..1024", "4KiB".
        payload_bytes("load.payload_bytes", "payload-bytes", PAYLOAD): Range
            = Range { low: 128, high: 128 }, Bytes(16 << 20);
        /// How the sessions are lost: close (by this side), kill or stop (the gateway that was
        /// started with spawn), await (somebody else restarts it).
        cut("load.cut", "cut", &[Storm]): CutKind = CutKind::Close, OneOf;
        /// When, from the beginning of the measured time.
        cut_after("load.cut_after", "cut-after", &[Storm]): Duration = secs(5), span(ZERO, DAY);
        /// They come back spread over this time. 0s: all at once.
        return_over("load.return_over", "return-over", &[Storm]): Duration = ZERO, span(ZERO, DAY);
        /// Those who come back resume with the session ticket of their own last connection, as
        /// devices do. Off: they pay for a whole handshake, as all first connections do.
        tickets("load.tickets", "tickets", &[Storm]): bool = true, Flag;
        /// Users with a backlog.
        users("load.users", "users", &[Sync]): u64 = 100, count(MOST_SESSIONS);
        /// Messages that wait for each.
        backlog("load.backlog", "backlog", &[Sync]): u64 = 1000, count(100_000_000);
        /// Logins a second. Who is up to date leaves, and comes again as a new device.
        login_rate("load.login_rate", "login-rate", &[Sync]): f64
            = 10.0, decimal("RATE", 0.001, 1_000_000.0);
        /// Sessions that leave, and as many that come, a second.
        churn_rate("load.churn_rate", "churn-rate", &[Churn, Mixed]): f64
            = 50.0, decimal("RATE", 0.001, 1_000_000.0);
        /// Which share of the sessions does what: hold=60, chat=30, group=0, churn=10.
        weights("load.weights", "weights", &[Mixed]): Weights = Weights::default(), WeightsRule;
        /// Share of the sessions that read only once a second.
        slow("load.slow", "slow", &[Hold, Chat, Group, Mixed]): f64 = 0.0, share();
        /// Share of the sessions that never say anything after their login.
        silent("load.silent", "silent", &[Hold, Mixed]): f64 = 0.0, share();
    }

    /// The search for the knee: a step runs `warm_up` and is measured `for` so long. Without
    /// objectives it takes p99(send_ack)<100ms and error_rate(send_ack)<1%.
    ["ramp"] ramp: RampKeys {
        /// Whose messages a second are raised: those of chat or of group.
        of("ramp.of", "of", &[Ramp]): Program = Chat, OneOf;
        /// Messages a second of the first step.
        start("ramp.start", "start", &[Ramp]): f64 = 1000.0, decimal("RATE", 1.0, MOST_RATE);
        /// Each step has so many times the rate of the one before.
        factor("ramp.factor", "factor", &[Ramp]): f64 = 1.25, decimal("FACTOR", 1.01, 10.0);
        /// Instead of a factor: each step has so many messages a second more. 0: off.
        step("ramp.step", "step", &[Ramp]): f64 = 0.0, decimal("RATE", 0.0, MOST_RATE);
        /// Behind the first bad step so many more are made, each half way between the last good
        /// and the first bad rate, until those are within 2 %.
        refine("ramp.refine", "refine", &[Ramp]): u64 = 4, whole("COUNT", 0, 20);
        /// No step goes beyond this rate.
        most("ramp.most", "most", &[Ramp]): f64
            = 1_000_000.0, decimal("RATE", 1.0, MOST_RATE);
        /// A step is bad if a smaller share of its messages than this is acknowledged.
        least_share("ramp.least_share", "least-share", &[Ramp]): f64 = 0.95, share();
    }

    /// The time around what is measured.
    ["phases"] phases: PhaseKeys {
        /// Sessions that are not there after this have failed.
        ramp_limit("phases.ramp_limit", "ramp-limit", ALL): Duration
            = secs(600), span(secs(1), DAY);
        /// Wait with all sessions idle before the load, so that memory comes to rest and can be
        /// read.
        settle("phases.settle", "settle", ALL): Duration = secs(1), span(ZERO, DAY);
        /// Share of the sessions at which the ramp also settles: the lower point of the slope that
        /// gives the memory of a session. 0: none.
        plateau("phases.plateau", "plateau", ALL): f64 = 0.0, share();
        /// At most this for what is under way at the end. What is still missing then is asked for,
        /// for at most `answer_timeout` more.
        drain("phases.drain", "drain", ALL): Duration = secs(10), span(ZERO, DAY);
    }

    /// This program itself.
    ["generator"] generator: GeneratorKeys {
        /// Other machines that make the load, each with an equal share of it: `skein-load agent` runs
        /// there. This one only conducts.
        agents("generator.agents", "agents", ALL): Vec<HostPort> = Vec::new(), Hosts("an agent");
        /// A file with the secret that the agents were started with.
        agent_secret("generator.agent_secret", "agent-secret", ALL): Option<PathBuf>
            = None, OptionalFile;
        /// Threads, each with a socket and a share of the sessions. 0: one per core.
        shards("generator.shards", "shards", ALL): u64 = 0, whole("COUNT", 0, 256);
        /// What is begun later than this after it was due counts as late.
        late_after("generator.late_after", "late-after", ALL): Duration
            = millis(10), span(millis(1), secs(60));
        /// What cannot be begun so long after it was due is dropped: counted, never sent.
        drop_after("generator.drop_after", "drop-after", ALL): Duration
            = secs(1), span(millis(1), secs(600));
        /// A message without an answer after this has failed.
        answer_timeout("generator.answer_timeout", "answer-timeout", ALL): Duration
            = secs(10), span(millis(10), secs(600));
        /// Handshakes and logins under way at once.
        max_connecting("generator.max_connecting", "max-connecting", ALL): u64
            = 1024, count(1_000_000);
        /// Share of what was begun that may be late. With more the run is invalid: the load was
        /// another than the one that was asked for.
        max_late("generator.max_late", "max-late", ALL): f64 = 0.01, share();
        /// Share of a core that a thread of this program may use while it is measured. With more
        /// the run is invalid: it is about this program.
        max_thread_cpu("generator.max_thread_cpu", "max-thread-cpu", ALL): f64 = 0.95, share();
        /// Share of the measured time for which a thread of this program may wait for a core. With
        /// more the run is invalid, unless the gateway on the same cores is the reason. 1: any.
        max_thread_wait("generator.max_thread_wait", "max-thread-wait", ALL): f64 = 0.1, share();
        /// Of everything that is drawn: arrivals, think times, sizes, who is slow.
        seed("generator.seed", "seed", ALL): u64 = 1, whole("NUMBER", 0, i64::MAX as u64);
    }
}
