//! What the generator's end holds of idle connections: every block that the program asked for and has not
//! given back, by the function that asked.
//!
//! ```text
//! cargo run -p skein-benches --features heap --bin engine -- --heap
//! ```
//!
//! `dhat` takes a backtrace of every allocation, so nothing is timed here. What came of it stands in
//! docs/adr/0002-where-a-connections-memory-goes.md.

use std::{collections::BTreeMap, fs, io, time::Duration};

use serde::Deserialize;

use crate::{Kind, load::Load, servers::Child};

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

/// Connections that are not counted: with them caches and whatever is there once has been made.
const BEFORE: usize = 64;

/// Connections that are counted. With those before a power of two: tables that double are full then.
const COUNTED: usize = 4096 - BEFORE;

/// For acknowledgements, timers, and what is shrunk after a handshake.
const SETTLE: Duration = Duration::from_secs(6);

/// Frames of a backtrace that are kept.
const DEPTH: usize = 40;

/// Crates whose functions say what a block is for; below them are only vectors, maps and boxes.
const TELLING: [&str; 4] = ["quinn_proto::", "skein_transport::", "rustls::", "engine::"];

/// What `dhat` writes, as far as it is looked at.
#[derive(Deserialize)]
struct Profile {
    pps: Vec<Place>,
    ftbl: Vec<String>,
}

/// Blocks with one backtrace.
#[derive(Deserialize)]
struct Place {
    /// Bytes and blocks at the end.
    eb: u64,
    ebk: u64,
    /// Numbers of frames, the innermost first.
    fs: Vec<usize>,
}

/// Bytes and blocks of one function.
type Held = BTreeMap<String, (u64, u64)>;

/// Makes connections that have carried one message each way, and prints what they hold.
pub(crate) fn measure(threads: usize, chacha: bool) -> io::Result<()> {
    let server = Child::start(Kind::Skein, threads, chacha)?;
    let load = Load::start(server.address, chacha)?;
    load.connect(BEFORE)?;
    load.touch_all()?;
    std::thread::sleep(SETTLE);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("heap.json");
    let profiler = dhat::Profiler::builder().file_name(&file).trim_backtraces(Some(DEPTH)).build();
    load.connect(COUNTED)?;
    load.touch_all()?;
    std::thread::sleep(SETTLE);
    drop(profiler);
    let profile = serde_json::from_slice(&fs::read(&file)?)?;
    print(&by_function(&profile));
    Ok(())
}

fn by_function(profile: &Profile) -> Held {
    let mut held = Held::new();
    for place in &profile.pps {
        let frames = place.fs.iter().filter_map(|frame| profile.ftbl.get(*frame));
        let names = frames.map(|frame| name(frame));
        let telling = names.filter(|name| TELLING.iter().any(|one| name.contains(one)));
        // The function, and what it was called for.
        let words = telling.take(3).collect::<Vec<_>>().join(" < ");
        let sum = held.entry(words).or_default();
        sum.0 += place.eb;
        sum.1 += place.ebk;
    }
    held
}

/// `0x55: quinn_proto::connection::Connection::new (quinn-proto/src/connection/mod.rs:1:2)`
fn name(frame: &str) -> &str {
    let name = frame.split_once(": ").map_or(frame, |(_, name)| name);
    name.split_once(" (").map_or(name, |(name, _)| name)
}

fn print(held: &Held) {
    let each = |count: u64| count as f64 / COUNTED as f64;
    let mut rows: Vec<_> = held.iter().filter(|(_, (bytes, _))| each(*bytes) >= 1.0).collect();
    rows.sort_by_key(|(_, (bytes, _))| std::cmp::Reverse(*bytes));
    println!("{:>9}{:>8}  of {COUNTED} idle connections, each", "bytes", "blocks");
    for (words, (bytes, blocks)) in rows {
        println!("{:>9.1}{:>8.2}  {words}", each(*bytes), each(*blocks));
    }
    let (bytes, blocks) = held.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    println!("{:>9.1}{:>8.2}  in all", each(bytes), each(blocks));
}
