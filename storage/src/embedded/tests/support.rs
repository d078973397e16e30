//! Messages whose content can be worked out again, and a child process that runs one test.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use skein_protocol::{ClientMsgId, ConversationId, DeviceId, Seq, UserId};

use crate::embedded::{EmbeddedOptions, EmbeddedStore};
use crate::{Append, AppendError, AppendSink, Direction, MessageLog, Page, Record};

pub(super) type Outcome = Result<(), AppendError>;

/// Options for a machine that may be short of space.
pub(super) fn options() -> EmbeddedOptions {
    EmbeddedOptions { reserve_bytes: 0, ..EmbeddedOptions::default() }
}

pub(super) fn open(folder: &Path) -> EmbeddedStore {
    EmbeddedStore::open(folder, options()).unwrap()
}

pub(super) fn conversation(n: u64) -> ConversationId {
    let mut id = [0; 16];
    id[0] = 1;
    id[8..].copy_from_slice(&n.to_be_bytes());
    ConversationId::parse(&id).unwrap()
}

pub(super) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

/// Tags that begin so have payloads of up to 63 KB, others of up to 4 KB.
pub(super) const LARGE: char = 'L';

/// The message at `index` of `n` that an append named `tag` puts at `seq`.
pub(super) fn message(c: ConversationId, seq: Seq, tag: &str, index: u64, n: u64) -> Record {
    let name = format!("{tag}/{index}/{n}");
    // Lengths from nothing to some kilobytes, bytes that do not compress: xorshift.
    let mut noise = seq ^ 0x9e37_79b9_7f4a_7c15;
    for byte in c.as_bytes().iter().chain(name.as_bytes()) {
        noise = (noise ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let scale = if tag.starts_with(LARGE) { 16 } else { 1 };
    let len = noise % 61 * (noise % 67) * scale;
    let payload = (0..len).map(|_| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise as u8
    });
    Record {
        seq,
        sender: user("writer"),
        device: DeviceId::parse("device").unwrap(),
        payload: payload.collect::<Vec<u8>>().into(),
        client_msg_id: ClientMsgId::parse(&name).unwrap(),
        time_ms: seq,
        content_type: String::new(),
    }
}

pub(super) fn append(c: ConversationId, first: Seq, n: u64, tag: &str) -> Append {
    let records = (0..n).map(|index| message(c, first + index, tag, index, n)).collect();
    Append { conversation: c, first, records }
}

/// The tag, index and count in a message's name.
fn parse_name(record: &Record) -> Option<(&str, u64, u64)> {
    let mut parts = record.client_msg_id.as_str().split('/');
    Some((parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Checks that a log is made of whole appends, each with the content that it was given; returns
/// the appends as (first number, count, tag).
pub(super) fn whole_appends(
    c: ConversationId,
    log: &[Record],
) -> Result<Vec<(Seq, u64, String)>, String> {
    let mut found: Vec<(Seq, u64, String)> = Vec::new();
    let mut inside = 0;
    for (expected, record) in (1..).zip(log) {
        let at = format!("{c} number {expected}");
        let (tag, index, n) = parse_name(record).ok_or(format!("{at}: a name nobody gave"))?;
        if record.seq != expected {
            return Err(format!("{at}: found {} instead", record.seq));
        }
        if *record != message(c, expected, tag, index, n) {
            return Err(format!("{at}: the content is not what was written"));
        }
        if index != inside || (index > 0 && found.last().is_none_or(|last| last.2 != tag)) {
            return Err(format!("{at}: only a part of append {tag} is there"));
        }
        if index == 0 {
            found.push((expected, n, tag.into()));
        }
        inside = (index + 1) % n;
    }
    if inside != 0 {
        return Err(format!("{c}: the last append is there only in part"));
    }
    Ok(found)
}

/// Sends outcomes to a channel.
pub(super) struct Tell(Mutex<Sender<(usize, Outcome)>>);

impl AppendSink for Tell {
    fn appended(&self, outcomes: Vec<(usize, Outcome)>) {
        let sender = self.0.lock().unwrap();
        outcomes.into_iter().for_each(|outcome| {
            // The test may have seen enough.
            let _ = sender.send(outcome);
        });
    }
}

pub(super) fn tell() -> (Arc<Tell>, Receiver<(usize, Outcome)>) {
    let (sender, receiver) = channel();
    (Arc::new(Tell(Mutex::new(sender))), receiver)
}

/// Appends and waits.
pub(super) fn append_now(store: &EmbeddedStore, append: Append) -> Outcome {
    let (sink, told) = tell();
    store.submit(vec![append], sink);
    told.recv().unwrap().1
}

/// Waits for a future of the store.
pub(super) fn wait<T>(mut future: BoxFuture<'_, T>) -> T {
    loop {
        // The store needs no runtime; neither does this.
        if let Some(done) = (&mut future).now_or_never() {
            return done;
        }
        std::thread::sleep(std::time::Duration::from_micros(50));
    }
}

pub(super) fn read_all(store: &EmbeddedStore, c: ConversationId) -> Vec<Record> {
    let page = Page { records: usize::MAX, bytes: usize::MAX };
    wait(store.read(c, 1..=u64::MAX, Direction::Forward, page)).unwrap()
}

pub(super) fn head(store: &EmbeddedStore, c: ConversationId) -> Seq {
    wait(store.extent(c)).unwrap().head
}

/// The environment variable that makes a child of the test program.
const CHILD: &str = "SKEIN_STORAGE_TEST_CHILD";

/// What a child is told, if this process is one.
pub(super) fn child_task() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// The arguments and environment that run `test` of this very program with a task.
pub(super) fn as_child<'a>(command: &'a mut Command, test: &str, task: &str) -> &'a mut Command {
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, task)
}

/// Writes a line for the parent at once, past the harness.
pub(super) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // One write for line and end, so that a kill cannot leave half a line that looks whole.
    let _ = out.write_all(format!("\n>{line}<\n").as_bytes());
    let _ = out.flush();
}

/// What a child said, without what the test harness prints around it.
pub(super) fn said(line: &str) -> Option<&str> {
    line.strip_prefix('>')?.strip_suffix('<')
}
