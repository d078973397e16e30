//! How fast the embedded store appends and reads on this machine; prints figures, asserts nothing.
//!
//! `cargo run --release -p skein-storage --example append_rate [SECONDS [FOLDER]]`

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use skein_protocol::{ClientMsgId, ConversationId, DeviceId, Seq, UserId};
use skein_storage::embedded::{EmbeddedOptions, EmbeddedStore, StoreStats};
use skein_storage::{
    Append, AppendError, AppendSink, Direction, Extent, MessageLog, Page, Record, Store,
};
use tokio::runtime::{Builder, Runtime};

/// Bytes of a message's payload.
const PAYLOAD: usize = 160;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(5, |s| s.parse().unwrap());
    let own = tempfile::tempdir().unwrap();
    let folder = arguments.next().map_or(own.path().to_path_buf(), Into::into);
    let time = Duration::from_secs(seconds);
    run(&folder, "one-to-one, 64 in flight", time, |n| Shape { lane: n, records: 1 }, 64);
    run(&folder, "one-to-one, 1024 in flight", time, |n| Shape { lane: n, records: 1 }, 1024);
    run(
        &folder,
        "one hot group, 256 a batch",
        time,
        |_| Shape { lane: 9_999_999, records: 256 },
        1,
    );
    read(&folder);
}

struct Shape {
    lane: u64,
    records: u64,
}

struct Tell(Sender<u64>, u64);

impl AppendSink for Tell {
    fn appended(&self, outcomes: Vec<(usize, Result<(), AppendError>)>) {
        for (_, outcome) in outcomes {
            outcome.unwrap();
            self.0.send(self.1).unwrap();
        }
    }
}

/// Keeps `in_flight` appends under way, each in a conversation of its own.
fn run(folder: &Path, what: &str, time: Duration, shape: fn(u64) -> Shape, in_flight: u64) {
    let store = EmbeddedStore::open(folder, EmbeddedOptions::default()).unwrap();
    let (sender, done) = channel();
    let lanes: Vec<_> = (0..in_flight).map(|n| Arc::new(Tell(sender.clone(), n))).collect();
    let ids: Vec<_> = (0..in_flight).map(|n| conversation(shape(n).lane + in_flight)).collect();
    let mut heads: Vec<Seq> = ids.iter().map(|id| head(&store, *id)).collect();
    let cpu = cpu_time();
    let began = Instant::now();
    let mut send = |n: u64| {
        let (id, head) = (ids[n as usize], &mut heads[n as usize]);
        let records = shape(n).records;
        let append = append(id, *head + 1, records);
        *head += records;
        store.submit(vec![append], lanes[n as usize].clone());
    };
    (0..in_flight).for_each(&mut send);
    let mut waiting = in_flight;
    while waiting > 0 {
        let n = done.recv().unwrap();
        if began.elapsed() < time {
            send(n);
        } else {
            waiting -= 1;
        }
    }
    let took = began.elapsed().as_secs_f64();
    let cpu = (cpu_time() - cpu) / took;
    report(what, took, cpu, &store.stats());
    futures_wait(store.close()).unwrap();
}

fn report(what: &str, took: f64, cpu: f64, stats: &StoreStats) {
    println!(
        "{what:28} {:>8.0} rows/s, {:>6.0} fsyncs/s, {:.1} rows a commit, commit p50 <= {:.2} ms, \
         p99 <= {:.2} ms, longest {:.0} ms, {cpu:.2} cores, {} stalls",
        stats.rows as f64 / took,
        stats.commits as f64 / took,
        stats.rows as f64 / stats.commits as f64,
        stats.commit_percentile_micros(50.0) as f64 / 1000.0,
        stats.commit_percentile_micros(99.0) as f64 / 1000.0,
        stats.max_commit_micros as f64 / 1000.0,
        stats.stalls,
    );
}

/// Reads of warm data, one after the other, through the read threads.
fn read(folder: &Path) {
    const READS: u64 = 20_000;
    let opening = Instant::now();
    let store = EmbeddedStore::open(folder, EmbeddedOptions::default()).unwrap();
    println!("opening took {:.0} ms", opening.elapsed().as_secs_f64() * 1000.0);
    let ids: Vec<_> = (64..128).map(conversation).collect();
    let page = Page { records: 50, bytes: 1 << 20 };
    for (what, one) in [("extent", true), ("last 50 messages", false)] {
        let began = Instant::now();
        for n in 0..READS {
            let id = ids[n as usize % ids.len()];
            if one {
                head(&store, id);
            } else {
                futures_wait(store.read(id, 1..=Seq::MAX, Direction::Backward, page)).unwrap();
            }
        }
        let micros = began.elapsed().as_secs_f64() * 1e6 / READS as f64;
        println!("read, {what}: {micros:.1} us each, one at a time");
    }
}

fn head(store: &EmbeddedStore, id: ConversationId) -> Seq {
    let Extent { head, .. } = futures_wait(store.extent(id)).unwrap();
    head
}

fn futures_wait<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Builder::new_current_thread().build().unwrap()).block_on(future)
}

fn conversation(n: u64) -> ConversationId {
    let mut id = [1; 16];
    // Scattered as real ids are.
    id[1..9].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    ConversationId::parse(&id).unwrap()
}

fn append(conversation: ConversationId, first: Seq, n: u64) -> Append {
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    let records = (first..first + n).map(|seq| Record {
        seq,
        sender: UserId::parse("user-000001").unwrap(),
        device: DeviceId::parse("phone-1").unwrap(),
        client_msg_id: ClientMsgId::parse("0190a1b2-c3d4-7e5f-8a9b").unwrap(),
        time_ms: 1_700_000_000_000,
        content_type: String::new(),
        payload: payload.clone(),
    });
    Append { conversation, first, records: records.collect() }
}

/// Processor seconds of this process so far; 0 where the system does not say.
fn cpu_time() -> f64 {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return 0.0 };
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    // User and system time, in hundredths of a second.
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
