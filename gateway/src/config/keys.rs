//! Every key with its meaning, default, unit and range, in one list. The typed structs, the file
//! that `skein config default` prints, the messages about wrong values and
//! `docs/configuration.md` all come from it; to add a key, add it here.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use skein_protocol::UserId;
use skein_protocol::limits::{
    DEFAULT_HEARTBEAT_INTERVAL, DEFAULT_HELLO_TIMEOUT, DEFAULT_MAX_BULK_STREAMS,
    DEFAULT_MAX_ENTRIES, DEFAULT_MAX_FRAME_BYTES, DEFAULT_MAX_PAYLOAD_BYTES,
    DEFAULT_MAX_UNACKED_SENDS,
};

use skein_storage::scylla::schema::Replication;
use skein_storage::scylla::{MAX_RETENTION, MIN_RETENTION};

use super::cluster::{Hosts, Keyspace, Replicas};
use super::quantity::{OptionalSpan, bytes, count, span};
use super::rate::{NetworkList, OptionalCount, UserList, byte_rate, rate};
use super::rule::{
    Address, Certificates, Collector, Flag, Folder, LogFilter, OneOf, OptionalAddress,
    OptionalFile, OptionalText, Text, TokenKeys,
};
use super::table::settings;
use super::value::{CertificateFiles, LogFormat, StoreKind, TokenKey};
use crate::limits::Rate;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Port that gateway and clients use unless told otherwise.
pub const DEFAULT_PORT: u16 = 7843;

const fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

const fn secs(number: u64) -> Duration {
    Duration::from_secs(number)
}

const fn mins(number: u64) -> Duration {
    Duration::from_secs(60 * number)
}

/// Networks that are written right.
fn networks<const N: usize>(texts: [&str; N]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

settings! {
    /// All that a gateway is told.
    Config {
        /// Address and UDP port to serve on. The default is reached from this machine only;
        /// "0.0.0.0:7843" serves every network of the machine.
        listen: SocketAddr = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DEFAULT_PORT), Address;
        /// Folder of everything that must outlive the process: messages, keys of the transport,
        /// and the development certificate and token key. One process at a time may use it.
        data: PathBuf = "./skein-data".into(), Folder;
        /// Threads that serve connections. 0: one per core.
        shards: u32 = 0, count("threads", 0, 256);
        /// Lanes that put messages in order. Every conversation belongs to one of them, and each
        /// hands one batch at a time to the store.
        lanes: u32 = 16, count("lanes", 1, 1024);
        /// Recent messages a conversation whose ids are kept in memory, so that a repeated send
        /// is known without reading. A repeat from further back is looked up in the log.
        dedup_window: u32 = 256, count("messages per conversation", 0, 65_536);
    }

    /// HTTP for operators and their machines: metrics, health, and what `skein ctl` asks for.
    admin: AdminConfig {
        /// Address and TCP port of it; none: off. "127.0.0.1:7844" is reached from this machine only.
        listen: Option<SocketAddr> = None, OptionalAddress;
        /// A file with the token that operators show, one line of 16 bytes and more. None: made in
        /// the data folder (`admin-token`) if it is not there. Metrics, health and version need none.
        token_file: Option<PathBuf> = None, OptionalFile;
    }

    /// What is logged, to standard error.
    log: LogConfig {
        /// Least serious level that is logged. `SKEIN_LOG` is a short name for it in the
        /// environment.
        level: String = "info".into(), LogFilter;
        /// Text for people or one JSON object a line for machines.
        format: LogFormat = LogFormat::Text, OneOf;
    }

    /// Traces of some messages for OpenTelemetry, from their arrival to their delivery. They hold
    /// times, sizes and places, and neither text nor names of users.
    trace: TraceConfig {
        /// Address of a collector that takes OTLP over HTTP, such as "http://127.0.0.1:4318"; none: off.
        /// Without TLS: a collector runs beside the gateway, and speaks TLS to others.
        endpoint: Option<String> = None, Collector;
        /// One of so many messages is traced. Clients learn the id with the acknowledgement.
        one_in: u32 = 1000, count("messages", 1, 1_000_000_000);
    }

    /// The certificate that clients check. Without one the gateway makes a development
    /// certificate in the data folder, which is good for this machine only.
    tls: TlsConfig {
        /// Certificate chain in PEM, the gateway's own first. It is shown to clients that name no
        /// host, or one that no certificate is for.
        cert: Option<PathBuf> = None, OptionalFile;
        /// Private key of the first certificate in PEM (PKCS#8, SEC1 or PKCS#1).
        key: Option<PathBuf> = None, OptionalFile;
        /// More certificates, for instance for other host names: a client is shown the first one
        /// that is for the host it names (SNI) and has a kind of key that it understands. Without
        /// `cert` the first of them takes its place.
        certificates: Vec<CertificateFiles> = Vec::new(), Certificates;
        /// How often the files of certificates are looked at; 0s: only on SIGHUP. When they have
        /// changed and are good, connections that begin afterwards are shown the new ones.
        watch: Option<Duration> = Some(secs(10)), OptionalSpan(secs(1), mins(60));
        /// A file with the secret under which session tickets and Retry tokens are sealed. Gateways
        /// that have the same one take over each other's clients with a shorter handshake. None:
        /// that of `transport.keys` in the data folder, of which a copy is such a file.
        secret_file: Option<PathBuf> = None, OptionalFile;
    }

    /// Whom to believe: keys and claims of the tokens (JWT) that clients show. Without a key the
    /// gateway makes a development key in the data folder, with which `skein token` signs.
    auth: AuthConfig {
        /// A file with one key: a public key in PEM (Ed25519 for EdDSA, P-256 for ES256), or the
        /// bytes of a shared secret (HS256), at least 32. Short for an entry in `keys`.
        key_file: Option<PathBuf> = None, OptionalFile;
        /// Several keys, for instance while one takes over from another: at most 16 with those of
        /// the other two. `alg` is read off the key if it is left out. A token that names a
        /// `kid` is checked with the key of that name and with keys that have none.
        keys: Vec<TokenKey> = Vec::new(), TokenKeys;
        /// A JSON Web Key Set (RFC 7517) with keys of type OKP (Ed25519), EC (P-256) and oct.
        jwks_file: Option<PathBuf> = None, OptionalFile;
        /// A token must name this in `aud`.
        audience: String = "skein".into(), Text(256);
        /// A token must name this in `iss`; none: `iss` is not looked at.
        issuer: Option<String> = None, OptionalText(256);
        /// Refuse tokens without `exp`. With false, such a token and its session never end.
        require_exp: bool = true, Flag;
        /// How far the clocks of gateway and issuer may be apart: `exp` and `nbf` are stretched
        /// by this much.
        leeway: Duration = secs(5), span(secs(0), mins(5));
    }

    /// Bounds on everything that a peer can make grow.
    limits: LimitsConfig {
        /// Longest frame, without its length prefix.
        max_frame_bytes: usize = DEFAULT_MAX_FRAME_BYTES, bytes(4 * KIB, 16 * MIB);
        /// Longest payload of a message. At least 1KiB below `max_frame_bytes`, for the envelope;
        /// with `store.kind` = "scylla" at most 8191KiB.
        max_payload_bytes: usize = DEFAULT_MAX_PAYLOAD_BYTES, bytes(1, 16 * MIB - KIB);
        /// Sends without an answer that one session may have under way; more are refused.
        max_unacked_sends: u32 = DEFAULT_MAX_UNACKED_SENDS, count("sends", 1, 4096);
        /// Streams for sync and history that one session may have open at once.
        max_bulk_streams: u32 = DEFAULT_MAX_BULK_STREAMS, count("streams", 1, 16);
        /// Cursors, ranges or conversations in one frame of a client.
        max_entries: u32 = DEFAULT_MAX_ENTRIES, count("entries", 1, 4096);
        /// Sessions in all. Further ones are told to come back later. Plan about 20KiB of memory
        /// for each.
        max_sessions: usize = 100_000, count("sessions", 1, 16_000_000);
        /// Devices of one user that may be online at once.
        max_devices_per_user: usize = 16, count("devices", 1, 16_384);
        /// Connections whose handshake is not finished, in all. Further ones are refused;
        /// before that, clients must prove their address.
        max_handshakes: usize = 4096, count("handshakes", 16, 1_000_000);
        /// Bytes that wait for one session to read them. What does not fit is not queued: the
        /// session is told that it is behind, and reads from the log. At least twice
        /// `max_frame_bytes`, and 1KiB for each of `max_unacked_sends`.
        outbox_bytes: usize = 256 * KIB as usize, bytes(16 * KIB, 64 * MIB);
        /// The same of all sessions together, in equal shares for the shards. Over its share, a
        /// shard queues nothing more for sessions that have something waiting, as if that were
        /// `outbox_bytes`; those that read in time do not notice.
        outbox_total_bytes: usize = GIB as usize, bytes(MIB, TIB);
        /// Payload bytes that wait for the store in all lanes together; sends beyond it are
        /// refused as overload. At least `max_frame_bytes` for each lane.
        lane_bytes: usize = 64 * MIB as usize, bytes(MIB, 64 * GIB);
        /// Addresses that are held to none of the limits of addresses that follow
        /// (`*_per_address`): this machine, unless told otherwise, and load balancers and carriers
        /// behind which many people are. Their users are held to theirs.
        exempt: Vec<IpNet> = networks(["127.0.0.0/8", "::1/128"]), NetworkList;
        /// Users who are held to none of the limits of users that follow (`*_per_user`), and whose
        /// messages are not counted in those of conversations: services that write much.
        exempt_users: Vec<UserId> = Vec::new(), UserList;
        /// Who may not connect, exempt or not: attempts from there are not answered.
        blocked: Vec<IpNet> = Vec::new(), NetworkList;
        /// Handshakes that an address may begin; in IPv6 a /64 network counts as one address, here
        /// and below. Beyond it a client must prove its address first, and then has a second bucket
        /// of the same size, so that nobody can empty it in its name; beyond that it is refused.
        /// Behind one address may be a whole company, or thousands of telephones.
        handshakes_per_address: Option<Rate> = Some(Rate::per_second(200, 2000)),
            rate("handshakes in time");
        /// Connections of an address at a time; more are closed with 128.
        connections_per_address: Option<u32> = Some(5000),
            OptionalCount("connections", 16_000_000);
        /// Bytes that may come from an address on connections that are not logged in; more are
        /// closed with 129. A Hello with its token takes one or two KiB, 8KiB at the most.
        login_bytes_per_address: Option<Rate> = Some(Rate::per_second(4 << 20, 16 << 20)),
            byte_rate();
        /// Logins with a bad token from an address. Each failure beyond it shuts the address out, for
        /// 5s and then twice as long each time up to 5m: logins from there are closed with 130 and
        /// their tokens are not looked at. Tokens that have expired do not count.
        failed_logins_per_address: Option<Rate> = Some(Rate::per_minute(30, 60)),
            rate("logins in time");
        /// Frames of a user on the live streams of all devices, where each cursor in a frame counts
        /// as one; more are closed with 131. What a person writes and reads is far below.
        frames_per_user: Option<Rate> = Some(Rate::per_second(500, 5000)),
            rate("frames in time");
        /// Messages of a user, all devices together; more are refused with 205.
        messages_per_user: Option<Rate> = Some(Rate::per_second(50, 500)),
            rate("messages in time");
        /// Bytes of their payloads; more are refused with 206.
        message_bytes_per_user: Option<Rate> = Some(Rate::per_second(2 << 20, 16 << 20)),
            byte_rate();
        /// Messages to a conversation, of all its members but those in `exempt_users`; more are
        /// refused with 207.
        messages_per_conversation: Option<Rate> = Some(Rate::per_second(200, 2000)),
            rate("messages in time");
        /// Bytes of their payloads; more are refused with 208.
        message_bytes_per_conversation: Option<Rate> = Some(Rate::per_second(8 << 20, 64 << 20)),
            byte_rate();
        /// Requests for heads and messages of a user; more are refused with 209. A client that logs
        /// in makes a few of them.
        syncs_per_user: Option<Rate> = Some(Rate::per_second(20, 200)), rate("requests in time");
    }

    /// The life of a session.
    session: SessionConfig {
        /// How often a client is asked to say something; one that is silent for one and a half
        /// of it is evicted. Mappings of carrier NATs may lapse after 30s.
        heartbeat_interval: Duration = DEFAULT_HEARTBEAT_INTERVAL, span(secs(1), mins(10));
        /// From the connection's first packet to the Hello; whoever takes longer is closed.
        hello_timeout: Duration = DEFAULT_HELLO_TIMEOUT, span(millis(100), mins(2));
        /// A session whose outbox stays full for this long is closed.
        slow_consumer_timeout: Duration = secs(30), span(secs(1), mins(10));
    }

    /// A stop that was asked for (SIGTERM, SIGINT): clients are told, then what is under way is
    /// finished, then the process ends.
    drain: DrainConfig {
        /// The process ends after this time, whatever is left. Keep it below the time that the
        /// service manager waits before it kills.
        deadline: Duration = secs(10), span(secs(0), mins(10));
        /// Clients are told to come back after a random delay of up to this, so that they do not
        /// come all at once.
        reconnect_delay: Duration = secs(5), span(secs(0), mins(10));
    }

    /// Where messages are kept, and the store in this process.
    store: StoreConfig {
        /// "embedded": in this process, in the data folder. "scylla": in a cluster, see `[scylla]`;
        /// of this section only `patience` is used then.
        kind: StoreKind = StoreKind::Embedded, OneOf;
        /// How long a message waits for the store before its sender is told to try again later. It
        /// may still become durable after that; sent again, it is known. Clients send again by
        /// themselves after 10s without an answer.
        patience: Duration = secs(5), span(secs(1), mins(5));
        /// Memory for blocks of the store's files.
        cache_bytes: u64 = 64 * MIB, bytes(MIB, TIB);
        /// Newly written messages that are held in memory before they are sorted into a file. Up
        /// to four times as much while the disk is behind. Fixed when the store is created.
        memtable_bytes: u64 = 32 * MIB, bytes(MIB, GIB);
        /// Disk space that the journal may take. All of it is read at a start after a crash.
        journal_bytes: u64 = 256 * MIB, bytes(64 * MIB, TIB);
        /// Threads that read for syncs and history.
        read_threads: usize = 4, count("threads", 1, 256);
        /// Threads that sort memory into files and merge files.
        compaction_threads: usize = 2, count("threads", 1, 64);
        /// Disk space that is left free: below it the store accepts no more messages, while it
        /// can still tidy up.
        reserve_bytes: u64 = 256 * MIB, bytes(0, TIB);
    }

    /// The store in a cluster of ScyllaDB or Apache Cassandra. `skein schema apply` makes its tables;
    /// all gateways of an installation are told the same.
    scylla: ScyllaConfig {
        /// Nodes to ask first; the others are learned from them. Name several, so that a start does
        /// not hang on one.
        contact_points: Vec<String> = Vec::new(), Hosts;
        /// Keyspace of the messages.
        keyspace: String = "skein".into(), Keyspace;
        /// Data centre whose nodes serve this gateway, and whose majority decides. None: a majority
        /// of all replicas, wherever they are. Written into the keyspace when that is made, and the
        /// same for all gateways.
        data_centre: Option<String> = None, OptionalText(128);
        /// On how many nodes each row is kept; for `skein schema apply`, when it makes the keyspace.
        /// With 3, one node may fail and everything goes on.
        replication: Replication = Replication::EachDataCentre(3), Replicas;
        /// Role with which the gateway logs in to the cluster; none: the cluster asks for none.
        user: Option<String> = None, OptionalText(128);
        /// A file with the password of `user`, which may end with a line feed.
        password_file: Option<PathBuf> = None, OptionalFile;
        /// Certificates (PEM) of those who may issue the nodes' certificates. With it, connections
        /// to the cluster are encrypted; a node's certificate must name its address.
        tls_ca: Option<PathBuf> = None, OptionalFile;
        /// Certificate chain (PEM) that the gateway shows to nodes that ask for one.
        tls_cert: Option<PathBuf> = None, OptionalFile;
        /// Private key (PEM) of `tls_cert`.
        tls_key: Option<PathBuf> = None, OptionalFile;
        /// Longest time to open a connection. A gateway that reaches no node at its start ends
        /// after about as long, for whoever watches over it to start it again.
        connect_timeout: Duration = secs(5), span(millis(100), mins(1));
        /// Longest time that one request waits for its answer. Longer than the servers' own limits
        /// (`write_request_timeout`, `cas_contention_timeout`), because a request that is given up
        /// here may still be carried out there.
        request_timeout: Duration = secs(10), span(millis(100), mins(2));
        /// Appends under way at once, each of another conversation: what a cluster that answers
        /// slowly is asked to do, and what a dead one costs in memory.
        in_flight: usize = 512, count("appends", 1, 16_384);
        /// Longest time that an append waits for a place among these; after it, senders are told to
        /// try later.
        wait: Duration = secs(2), span(secs(0), mins(1));
        /// Reads under way at once; more wait.
        reads: usize = 256, count("reads", 1, 16_384);
        /// Writes of cursors, members and hints under way at once; more wait.
        register_writes: usize = 256, count("writes", 1, 16_384);
        /// For how long a message can be read; 0s: for ever. Given to each message when it is
        /// written, so a change is for later ones. A repeat of a message that is gone is stored
        /// anew.
        retention: Option<Duration> = None, OptionalSpan(MIN_RETENTION, MAX_RETENTION);
    }
}
